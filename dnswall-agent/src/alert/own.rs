//! Takes what the agent found by itself, gives the alert that says so.

use serde::{Deserialize, Serialize};

use super::kind::Kind;
use super::severity::Severity;
use super::{Alert, AlertBlocklist, AlertLost, AlertPolicy, AlertWorkload, Tally, attack};

/// What was done to the wall.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertTamper {
    /// Which part of it: a hook's program, a map, a directory.
    pub object: String,
    /// What was found.
    pub found: String,
    /// What the agent did about it.
    pub done: String,
    /// Whether that mended it.
    pub mended: bool,
}

impl Alert {
    /// Of something that was done to the wall at `cgroup`.
    pub fn of_tampering(
        reason: &str,
        tamper: AlertTamper,
        policy: AlertPolicy,
        cgroup: &str,
        host: &str,
        tally: Tally,
    ) -> Self {
        let severity = Severity::of_tampering(tamper.mended);
        let alert = Self::blank(Kind::Tamper, severity, reason, policy, host, tally);
        let workload = AlertWorkload { cgroup: Some(cgroup.to_owned()), ..alert.workload };
        let attack = attack::of_tampering().iter().copied().map(str::to_owned).collect();
        Self { attack, workload, tamper: Some(tamper), ..alert }
    }

    /// What it is about, in words, when it is about the agent, the wall or a list.
    pub fn own_words(&self) -> Option<String> {
        let tamper = self.tamper.as_ref().map(|it| format!("{}: {}; {}", it.object, it.found, it.done));
        let lost = || self.lost.as_ref().map(AlertLost::words);
        tamper.or_else(lost).or_else(|| self.blocklist.as_ref().map(AlertBlocklist::words))
    }
}
