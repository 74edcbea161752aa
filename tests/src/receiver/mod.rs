//! Where alerts arrive: real receivers, each of which gives what it got.
//!
//! A receiver listens at a loopback address of its own, or in another network. It is started, stopped (then its port refuses connections) and resumed
//! at the same port; what it has got by then stays known. Its process ends with it.

pub(crate) mod daemon;
pub mod gate;
pub mod guard;
pub mod http;
pub mod id;
pub mod journal;
pub mod kafka;
pub mod otlp;
pub mod plan;
pub mod site;
pub mod syslog;
