//! Takes what the agent found by itself, gives the alert that says so.

use super::kind::Kind;
use super::severity::Severity;
use super::{
    Alert, AlertBlocklist, AlertLost, AlertPolicy, AlertProcess, AlertTamper, AlertWorkload, SCHEMA, Tally,
    attack,
};

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
        let alert = Self::of_agent(Kind::Tamper, severity, reason, policy, host, tally);
        let workload = AlertWorkload { cgroup: Some(cgroup.to_owned()), ..alert.workload };
        let attack = attack::of_tampering().iter().copied().map(str::to_owned).collect();
        Self { attack, workload, tamper: Some(tamper), ..alert }
    }

    /// Of something that the agent found, and that is nobody's traffic.
    pub(crate) fn of_agent(
        kind: Kind,
        severity: Severity,
        reason: &str,
        policy: AlertPolicy,
        host: &str,
        tally: Tally,
    ) -> Self {
        let Tally { id, count, first, last } = tally;
        Self {
            schema: SCHEMA,
            time: last,
            id,
            kind,
            verdict: None,
            severity,
            attack: Vec::new(),
            reason: reason.to_owned(),
            rule: None,
            policy,
            flow: None,
            dns: None,
            // Nobody says who did it.
            process: AlertProcess::default(),
            workload: AlertWorkload::default(),
            host: host.to_owned(),
            count,
            first,
            last,
            tamper: None,
            selftest: None,
            names: None,
            limited: None,
            lost: None,
            blocklist: None,
            marks: Vec::new(),
        }
    }

    /// What it is about, in words, when it is about the agent, the wall or a list.
    pub fn own_words(&self) -> Option<String> {
        let tamper = self.tamper.as_ref().map(|it| format!("{}: {}; {}", it.object, it.found, it.done));
        let lost = || self.lost.as_ref().map(AlertLost::words);
        tamper.or_else(lost).or_else(|| self.blocklist.as_ref().map(AlertBlocklist::words))
    }
}
