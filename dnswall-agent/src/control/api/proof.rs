//! What is answered about the proof of the wall.

use serde::{Deserialize, Serialize};

/// What the canary proved last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofStatus {
    /// `proven`, `failed`, `nothing-forbidden`, `not-tried`, or nothing before the first.
    pub state: String,
    /// Why, when it is neither proven nor failed; else what it means.
    pub note: String,
    /// When, RFC 3339.
    pub time: String,
    /// What was tried.
    pub attempts: Vec<AttemptStatus>,
    /// How often it was tried.
    pub runs: u64,
    /// How often it failed.
    pub failures: u64,
    /// When it was proven last, RFC 3339; `None` before the first time.
    #[serde(default)]
    pub proven: Option<String>,
}

/// One thing the canary tried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptStatus {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Address and port.
    pub to: String,
    /// `refused` or `reported`: what the policy has the kernel do.
    pub expected: String,
    /// The same, or `passed`, `other-mode`, `untold`, `refused-elsewhere`, `no-way`.
    pub outcome: String,
    /// The error the kernel gave, if it gave one.
    pub error: Option<String>,
    /// From the attempt to its event in the agent's hands, in microseconds.
    pub latency_us: Option<u64>,
}
