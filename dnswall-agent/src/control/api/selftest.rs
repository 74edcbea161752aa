//! What is asked and answered about whether alerts arrive.

use serde::{Deserialize, Serialize};

/// `POST /v1/alert/test`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertTestRequest {
    /// How long the sinks may take, in seconds.
    pub within_secs: u64,
}

/// The answer to a test of whether alerts arrive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertTested {
    /// Counts the tests of this host.
    pub number: u64,
    /// The alert's id.
    pub id: String,
    /// When it began, RFC 3339.
    pub time: String,
    /// Whether the alert came everywhere.
    pub passed: bool,
    /// Kernel, ring, spool and each sink.
    pub steps: Vec<StepShown>,
}

/// One step of a test.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepShown {
    /// `kernel`, `ring`, `spool`, or `sink` and its name.
    pub name: String,
    /// Whether the alert came so far.
    pub passed: bool,
    /// How long it took, in microseconds: the ring from the kernel's refusal, the spool and each sink from the agent.
    pub micros: Option<u64>,
    /// What happened.
    pub note: Option<String>,
}

/// What is known of whether alerts arrive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelftestStatus {
    /// The last test, as it is now.
    pub last: Option<AlertTested>,
    /// When the last one was that came everywhere, RFC 3339.
    pub arrived: Option<String>,
    /// Between two of them, in seconds; `None` when none is made by itself.
    pub interval_secs: Option<u64>,
}
