//! Alerts of a real agent, whose wall refuses real traffic, at real receivers: each arrives under its id, whatever happens on
//! its way.

mod apart;
mod elastic;
mod hook;
mod hook_faults;
mod journal;
mod kafka;
mod otlp;
mod scene;
mod secret;
mod splunk;
mod syslog;
mod trust;
