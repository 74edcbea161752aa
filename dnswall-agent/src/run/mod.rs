//! The daemon: wires policy to kernel and kernel to sinks, and lives until it is told to stop.
//!
//! [`daemon`] starts and ends everything. The [`engine`] holds the policy that decides and replaces it whole, with
//! the [`store`] behind it; the [`reader`] turns the ring's events into alerts for the [`outlet`]; the [`ticker`] does
//! what has to be done once a second; the fetcher keeps lists up to date; the prover keeps proving that the wall
//! stands, and mends it; the desk answers commands; [`connected`] is what a policy means to the connections that run. [`environment`] and [`question`] look at
//! this host and are also used by commands that need no agent.

pub mod connected;
pub mod daemon;
mod desk;
pub mod engine;
pub mod environment;
pub mod executables;
pub mod explained;
mod fetcher;
mod hashed;
mod hasher;
pub mod lock;
mod looked;
mod lookout;
pub mod names;
mod naming;
mod notice;
pub mod options;
mod outdated;
pub mod outlet;
#[cfg(test)]
mod overlay_tests;
mod prover;
pub mod question;
pub mod reader;
pub mod sandbox;
pub mod selftest;
pub mod store;
mod ticker;
pub mod told;

use std::path::PathBuf;

pub use daemon::run;
pub use options::{Options, Overrides};

use crate::control::socket::SocketError;
use crate::policy::Problems;
use engine::EngineError;
use lock::LockError;
use store::StoreError;

/// Why the agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The wall would stand and hold nothing, or cannot stand.
    #[error("the wall cannot stand on this host:\n{0}")]
    Unsuitable(String),
    /// The wall stands, and lets through what it must refuse.
    #[error(
        "the wall was raised and does not hold: {0}. It was left as it is; `dnswall agent detach` takes it down. \
         With at-start = \"report\" in [proof] of agent.toml the agent runs all the same, and reports it"
    )]
    Unproven(String),
    /// This host cannot.
    #[error("{0:#}")]
    Host(anyhow::Error),
    /// The configuration cannot be read.
    #[error("read configuration {path}: {source}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The configuration has mistakes.
    #[error("{} is not a valid configuration", .0.origin())]
    InvalidConfig(Problems),
    /// The policy cannot be used, or the wall not be raised.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The wall is another agent's.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The state directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The control socket cannot be made.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Something else.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}
