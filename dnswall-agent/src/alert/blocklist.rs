//! Takes how the lists are, gives alerts: when a version of one was refused or one is stale, and when that is over.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::group::MakeId;
use super::kind::Kind;
use super::severity::Severity;
use super::{Alert, AlertPolicy, Tally};
use crate::event::Clocks;

/// A list that was not confirmed for so many times its `refresh` is stale…
const STALE_REFRESHES: u32 = 3;
/// …and never before this: a server may be away for an hour.
const STALE_MIN: Duration = Duration::from_secs(6 * 3_600);
/// What goes on is told again after this.
const REMIND_NS: u64 = 24 * 3_600 * 1_000_000_000;

/// What is the matter with a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertBlocklist {
    /// The list's name.
    pub name: String,
    /// Where it comes from, without what is secret in that.
    pub source: String,
    /// What was found; that it is over, when it is.
    pub found: String,
    /// Whether it is over.
    pub over: bool,
    /// When the version that goes on was fetched.
    #[serde(with = "super::moment::option")]
    pub fetched: Option<Timestamp>,
    /// Its entries.
    pub entries: u64,
}

impl AlertBlocklist {
    /// In words.
    pub fn words(&self) -> String {
        format!("{} ({}): {}", self.name, self.source, self.found)
    }
}

/// How a list is at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListState {
    /// The list's name.
    pub name: String,
    /// Where it comes from, without what is secret in that.
    pub source: String,
    /// Why the version that came last does not count.
    pub rejected: Option<String>,
    /// When the version that goes on was fetched.
    pub fetched: Option<Timestamp>,
    /// When its server last said that this is still its version; `None` for a list that is not fetched.
    pub confirmed: Option<Timestamp>,
    /// How often it is to be fetched.
    pub refresh: Duration,
    /// Entries of the version that goes on.
    pub entries: u64,
}

/// Says what is the matter with lists.
pub struct ListTeller {
    host: String,
    make_id: MakeId,
    /// By kind and list.
    standing: BTreeMap<(&'static str, String), Standing>,
}

struct Standing {
    why: String,
    first: Timestamp,
    told_ns: u64,
}

impl ListTeller {
    /// With the name of this host.
    pub fn new(host: &str, make_id: MakeId) -> Self {
        Self { host: host.to_owned(), make_id, standing: BTreeMap::new() }
    }

    /// Takes every list as it is now, gives an alert for each that is in another way than before.
    pub fn round(&mut self, lists: &[ListState], policy: &AlertPolicy, clocks: &Clocks) -> Vec<Alert> {
        self.standing.retain(|(_, name), _| lists.iter().any(|list| list.name == *name));
        let mut alerts = Vec::new();
        for list in lists {
            let stale = stale(list, clocks.now);
            for (kind, why) in [(Kind::BlocklistRejected, &list.rejected), (Kind::BlocklistStale, &stale)] {
                alerts.extend(self.look(kind, list, why.as_deref(), policy, clocks));
            }
        }
        alerts
    }

    fn look(
        &mut self,
        kind: Kind,
        list: &ListState,
        why: Option<&str>,
        policy: &AlertPolicy,
        clocks: &Clocks,
    ) -> Option<Alert> {
        let key = (kind.name(), list.name.clone());
        let (severity, found, first) = match (why, self.standing.get_mut(&key)) {
            (None, None) => return None,
            (None, Some(standing)) => {
                let found = format!("over: {}", standing.why);
                let first = standing.first;
                self.standing.remove(&key);
                (Severity::Info, found, first)
            }
            (Some(why), Some(standing)) => {
                let goes_on = clocks.monotonic_ns.saturating_sub(standing.told_ns) < REMIND_NS;
                if goes_on && (standing.why == why || kind == Kind::BlocklistStale) {
                    return None;
                }
                (standing.why, standing.told_ns) = (why.to_owned(), clocks.monotonic_ns);
                (Severity::Medium, why.to_owned(), standing.first)
            }
            (Some(why), None) => {
                let standing =
                    Standing { why: why.to_owned(), first: clocks.now, told_ns: clocks.monotonic_ns };
                self.standing.insert(key, standing);
                (Severity::Medium, why.to_owned(), clocks.now)
            }
        };
        let about = AlertBlocklist {
            name: list.name.clone(),
            source: list.source.clone(),
            found,
            over: why.is_none(),
            fetched: list.fetched,
            entries: list.entries,
        };
        let reason = match (kind, about.over) {
            (_, true) => "over",
            (Kind::BlocklistStale, false) => "stale",
            (_, false) => "rejected",
        };
        let tally = Tally { id: (self.make_id)(clocks.now), count: 1, first, last: clocks.now };
        let alert = Alert::blank(kind, severity, reason, policy.clone(), &self.host, tally);
        Some(Alert { blocklist: Some(about), ..alert })
    }
}

/// Why it is stale, if it is.
fn stale(list: &ListState, now: Timestamp) -> Option<String> {
    let confirmed = list.confirmed?;
    let limit = list.refresh.saturating_mul(STALE_REFRESHES).max(STALE_MIN);
    let age = now.duration_since(confirmed);
    let is_stale = SignedDuration::try_from(limit).is_ok_and(|limit| age > limit);
    is_stale.then(|| format!("not refreshed since {confirmed:.0}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::sample::after_ns;
    use uuid::Uuid;

    const HOUR_NS: u64 = 3_600 * 1_000_000_000;

    fn list(rejected: Option<&str>) -> ListState {
        ListState {
            name: "malware".to_owned(),
            source: "https://lists.example/m".to_owned(),
            rejected: rejected.map(str::to_owned),
            fetched: Some(after_ns(0).now),
            confirmed: Some(after_ns(0).now),
            refresh: Duration::from_secs(3_600),
            entries: 9,
        }
    }

    struct Rounds(ListTeller);

    impl Rounds {
        fn new() -> Self {
            Self(ListTeller::new("web-1", Box::new(|_| Uuid::from_u128(1))))
        }

        fn at(&mut self, hours: u64, lists: &[ListState]) -> Vec<String> {
            let policy = AlertPolicy { name: None, generation: 1, digest: None };
            let alerts = self.0.round(lists, &policy, &after_ns(hours * HOUR_NS));
            let told = |alert: Alert| {
                let about = alert.blocklist.unwrap();
                format!("{} {} {} {}", alert.kind, alert.severity, alert.reason, about.found)
            };
            alerts.into_iter().map(told).collect()
        }
    }

    #[test]
    fn a_version_that_does_not_count_is_told_once_and_when_it_is_over() {
        let mut rounds = Rounds::new();
        assert_eq!(rounds.at(0, &[list(None)]), [""; 0]);
        let told = "blocklist.rejected medium rejected it shrank";
        assert_eq!(rounds.at(0, &[list(Some("it shrank"))]), [told]);
        assert_eq!(rounds.at(1, &[list(Some("it shrank"))]), [""; 0]);
        assert_eq!(rounds.at(1, &[list(Some("too many"))]), ["blocklist.rejected medium rejected too many"]);
        assert_eq!(rounds.at(2, &[list(None)]), ["blocklist.rejected info over over: too many"]);
        assert_eq!(rounds.at(2, &[list(None)]), [""; 0]);
        assert_eq!(rounds.at(2, &[list(Some("it shrank"))]), [told]);
        assert_eq!(rounds.at(2, &[]), [""; 0], "nobody has the list any more");
    }

    #[test]
    fn one_that_is_not_refreshed_for_long_is_told_now_and_then() {
        let mut rounds = Rounds::new();
        assert_eq!(rounds.at(6, &[list(None)]), [""; 0]);
        let told = "blocklist.stale medium stale not refreshed since 2026-03-01T12:00:00Z";
        assert_eq!(rounds.at(7, &[list(None)]), [told]);
        assert_eq!(rounds.at(30, &[list(None)]), [""; 0]);
        assert_eq!(rounds.at(31, &[list(None)]), [told]);
        let fresh = ListState { confirmed: Some(after_ns(31 * HOUR_NS).now), ..list(None) };
        assert_eq!(rounds.at(32, &[fresh]).len(), 1, "it is over");
        let file = ListState { confirmed: None, ..list(None) };
        assert_eq!(rounds.at(99, &[file]), [""; 0]);
    }
}
