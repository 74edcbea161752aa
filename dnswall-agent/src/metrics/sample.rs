//! What one look at the agent gives: plain data, from which everything else here is made.

use std::time::Duration;

use jiff::Timestamp;

use super::process::Process;
use crate::control::api::{Blocklists, Status};

/// The agent at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Which moment.
    pub taken: Timestamp,
    /// What `dnswall status` says.
    pub status: Status,
    /// What `dnswall blocklist status` says.
    pub lists: Blocklists,
    /// The thread that reads events.
    pub reader: Reader,
    /// Between two tries of what is forbidden, as agent.toml has it.
    pub proof_interval: Duration,
    /// What the kernel says of the process; `None` where /proc cannot be read.
    pub process: Option<Process>,
    /// What the endpoint counts about itself.
    pub endpoint: Endpoint,
}

/// The thread that reads events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reader {
    /// Since when it has not been round.
    pub quiet: Duration,
    /// That is not too long.
    pub is_alive: bool,
}

/// What the endpoint counts about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Connections that were closed to make room for younger ones.
    pub crowded_out: u64,
}

/// An RFC 3339 time as seconds since 1970.
pub(super) fn seconds(time: &str) -> Option<f64> {
    time.parse::<Timestamp>().ok().map(unix)
}

/// A time as seconds since 1970.
pub(super) fn unix(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_since_1970() {
        assert_eq!(seconds("1970-01-01T00:01:00Z"), Some(60.0));
        assert_eq!(seconds("2026-11-30T16:46:29.25Z"), Some(1_796_057_189.25));
        assert_eq!((seconds(""), seconds("never")), (None, None));
    }
}
