//! Takes what the agent knows of itself at one moment, gives it as metrics, and as yes or no to whether it is alive and ready.
//!
//! `Sample → exposition::render → text` is a pure function; [`board`] has the last sample, at most a second old while the
//! agent can be looked at, and [`server`] answers who asks. [`sheet`] writes one family of series; the families are in files
//! named after their nouns. docs/monitoring.md lists every one of them.
//!
//! Labels are the policy's and the agent's own words (rules, lists, sinks, hooks, reasons), never those of traffic: a name, an
//! address or a process that somebody else chooses makes no series.

pub mod board;
mod counted;
mod delivery;
pub mod exposition;
mod lists;
mod pods;
mod policy;
pub mod process;
pub mod readiness;
mod resolvers;
pub mod sample;
pub mod server;
mod sheet;
mod verdicts;
mod wall;

#[cfg(test)]
mod tests;

pub use board::Source;
pub use sample::{Reader, Sample};
pub use server::{Trouble, run};
