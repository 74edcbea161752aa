//! What `status` says of the spool and of each sink.

use serde::{Deserialize, Serialize};

/// The spool at one moment. Counts are of this agent, since it started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SpoolStatus {
    /// Its file.
    pub path: String,
    /// Alerts on disk, delivered ones included.
    pub alerts: u64,
    /// Length of the file.
    pub bytes: u64,
    /// The most that it gets.
    pub bytes_max: u64,
    /// How much of the room for alerts is taken, from 0 to 1; full, the oldest make room.
    pub room_used: f64,
    /// Alerts taken.
    pub taken: u64,
    /// Alerts that came when too many were waiting for the disk: no sink has them.
    pub refused: u64,
    /// How many refusals those alerts stood for.
    pub refused_refusals: u64,
    /// The oldest alerts that made room, delivered or not.
    pub evicted: u64,
    /// Alerts that are only in memory, because the disk cannot be written.
    pub unsaved: u64,
    /// Of those, how many memory had no room for.
    pub unsaved_lost: u64,
    /// Writes that failed.
    pub failures: u64,
    /// Age of the oldest alert that some sink has not taken; `null` when there is none.
    pub oldest_waiting_secs: Option<f64>,
    /// What is wrong.
    pub trouble: Option<String>,
}

/// A sink at one moment. Counts are of this agent, since it started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SinkStatus {
    /// The sink's name.
    pub name: String,
    /// Alerts it has taken.
    pub written: u64,
    /// Alerts it will never take, as it said.
    pub rejected: u64,
    /// Alerts that made room in the spool before it had them.
    pub lost: u64,
    /// Attempts that failed; each is made again.
    pub failures: u64,
    /// Alerts it has not taken yet.
    pub waiting: u64,
    /// Age of the oldest of those.
    pub oldest_waiting_secs: Option<f64>,
    /// Bytes it has taken.
    pub bytes: u64,
    /// When it last took an alert.
    pub last_taken: Option<String>,
    /// Whether the last attempt failed.
    pub failing: bool,
    /// What went wrong last, even if all is well now.
    pub last_error: Option<String>,
}
