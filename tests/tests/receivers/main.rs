//! The receivers of alerts, each spoken to by a client that is not ours: what it says it got, it got.

mod client;
mod elastic;
mod elsewhere;
mod http;
mod journal;
mod kafka;
mod otlp;
mod splunk;
mod syslog;
