//! What can be followed.

use serde::{Deserialize, Serialize};

/// Query of `GET /v1/events`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsQuery {
    /// How many of the alerts in memory come first.
    #[serde(default)]
    pub last: usize,
    /// Whether the answer goes on with each new alert.
    #[serde(default)]
    pub follow: bool,
    /// Records of questions instead of alerts.
    #[serde(default)]
    pub dns: bool,
}
