//! The agent of dnswall, as a library for its binary, its tests and its benchmarks.
//!
//! Data goes one way: `policy.toml → PolicyFile → Policy → MapImage → kernel maps` ([`policy`], [`compile`],
//! [`kernel`]) and `ring → Event → EnrichedEvent → Alert → spool → sinks` ([`event`], [`alert`], [`spool`],
//! [`format`], [`sink`]), of questions a record each ([`asked`]). [`metrics`] shows a scraper what it counts. [`run`] wires the
//! two, [`container`] and [`kubernetes`] name containers and pods, [`control`] lets the commands in [`cli`] talk to it, [`host`] finds its files and users,
//! [`durable`] writes its own, [`worker`] does for two of them what may hang, [`lru`] bounds what many remember, [`doctor`] says what it can do, [`demo`] shows it.

pub mod alert;
pub mod asked;
pub mod blocklist;
pub mod cli;
pub mod compile;
pub mod config;
pub mod connections;
pub mod container;
pub mod control;
pub mod demo;
pub mod digest;
pub mod doctor;
pub mod durable;
pub mod event;
pub mod format;
pub mod glob;
pub mod host;
pub mod kernel;
pub mod kubernetes;
pub mod lru;
pub mod metrics;
pub mod picture;
pub mod policy;
pub mod proof;
pub mod remote;
pub mod run;
pub mod sink;
pub mod spool;
pub mod worker;
