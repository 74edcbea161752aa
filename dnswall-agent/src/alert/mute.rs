//! Alerts that somebody does not want for a while: which, why and until when. What is muted is counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Alert;
use super::filter::Filter;

/// What is not wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mute {
    /// Why, for whoever looks at it later.
    pub reason: String,
    /// Which alerts.
    pub filter: Filter,
    /// Until when.
    pub until: Timestamp,
}

/// All that is not wanted, and how much of it there was.
#[derive(Debug, Default)]
pub struct Mutes {
    list: Vec<(Mute, AtomicU64, AtomicU64)>,
}

/// A mute at one moment. Counts are of this agent, since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MuteStatus {
    /// Why.
    pub reason: String,
    /// Until when, RFC 3339.
    pub until: String,
    /// It mutes nothing any more.
    pub is_over: bool,
    /// Alerts that nobody got.
    pub alerts: u64,
    /// Refusals that those stood for.
    pub refusals: u64,
}

impl Mutes {
    /// Nothing is muted yet.
    pub fn new(list: Vec<Mute>) -> Self {
        Self { list: list.into_iter().map(|mute| (mute, AtomicU64::new(0), AtomicU64::new(0))).collect() }
    }

    /// Whether nobody wants this alert at `now`. The first that says so counts it. What is done to the wall, that alerts were lost, and tests
    /// of whether they arrive, are never muted.
    pub fn takes(&self, alert: &Alert, now: Timestamp) -> bool {
        if alert.kind.is_never_muted() {
            return false;
        }
        let is_muted = |(mute, _, _): &&(Mute, _, _)| now < mute.until && mute.filter.wants(alert);
        let Some((_, alerts, refusals)) = self.list.iter().find(is_muted) else { return false };
        alerts.fetch_add(1, Relaxed);
        refusals.fetch_add(alert.count, Relaxed);
        true
    }

    /// Each of them.
    pub fn status(&self, now: Timestamp) -> Vec<MuteStatus> {
        let status = |(mute, alerts, refusals): &(Mute, AtomicU64, AtomicU64)| MuteStatus {
            reason: mute.reason.clone(),
            until: format!("{:.0}", mute.until),
            is_over: now >= mute.until,
            alerts: alerts.load(Relaxed),
            refusals: refusals.load(Relaxed),
        };
        self.list.iter().map(status).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::filter::FilterText;
    use crate::alert::{Kind, sample};

    fn mute(kind: &str, until: &str) -> Mute {
        let text = FilterText { kind: Some(kind.to_owned()), ..FilterText::default() };
        let filter = Filter::parse(&text, Timestamp::UNIX_EPOCH).unwrap();
        Mute { reason: kind.to_owned(), filter, until: until.parse().unwrap() }
    }

    #[test]
    fn what_is_muted_is_counted_until_it_is_over() {
        let mutes = Mutes::new(vec![
            mute("egress.*", "2030-01-01T00:00:00Z"),
            mute("dns.*", "2026-04-01T00:00:00Z"),
            mute("*", "2026-03-15T00:00:00Z"),
        ]);
        let alert = sample::alert();
        let at = |text: &str| -> Timestamp { text.parse().unwrap() };
        assert!(mutes.takes(&alert, at("2026-03-01T00:00:00Z")));
        assert!(mutes.takes(&alert, at("2026-03-31T23:59:59Z")));
        assert!(!mutes.takes(&alert, at("2026-04-01T00:00:00Z")));
        for kind in [Kind::Tamper, Kind::Selftest, Kind::AlertsLost] {
            assert!(!mutes.takes(&Alert { kind, ..alert.clone() }, at("2026-03-01T00:00:00Z")), "{kind}");
        }
        let counted: Vec<_> = mutes
            .status(at("2026-03-20T00:00:00Z"))
            .into_iter()
            .map(|mute| (mute.alerts, mute.refusals, mute.is_over))
            .collect();
        assert_eq!(counted, [(0, 0, false), (2, 2 * alert.count, false), (0, 0, true)]);
    }
}
