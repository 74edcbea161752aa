//! Takes what was found wrong, gives alerts: what is new at once, what is done again and again at most once an interval
//! with its count, and what nobody mends from time to time.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

use super::finding::{Tamper, Treated};
use crate::alert::group::MakeId;
use crate::alert::{Alert, AlertPolicy, AlertTamper, Tally};
use crate::event::Clocks;

/// What nobody mended is told again after this.
pub const REMIND: Duration = Duration::from_secs(600);
/// Different things that are kept apart; more are told each time.
const KEPT_MAX: usize = 256;

/// Turns findings into alerts.
pub struct Teller {
    interval_ns: u64,
    host: String,
    cgroup: String,
    make_id: MakeId,
    kept: HashMap<Key, Kept>,
    count: u64,
}

type Key = (Tamper, String);

struct Kept {
    treated: Treated,
    first: Timestamp,
    last: Timestamp,
    pending: u64,
    told_ns: u64,
    /// It was there in the last round, and could not be mended.
    stands: bool,
}

impl Teller {
    /// With the least time between two alerts about the same, and the names of this host and the wall's cgroup.
    pub fn new(interval: Duration, host: &str, cgroup: &str, make_id: MakeId) -> Self {
        Self {
            interval_ns: u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX),
            host: host.to_owned(),
            cgroup: cgroup.to_owned(),
            make_id,
            kept: HashMap::new(),
            count: 0,
        }
    }

    /// How often something was found, what merely goes on not counted again.
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// What was found and is still so, in words.
    pub fn standing(&self) -> Vec<String> {
        let standing = self.kept.values().filter(|kept| kept.stands);
        let mut words: Vec<String> = standing.map(|kept| words(&kept.treated)).collect();
        words.sort();
        words
    }

    /// Takes everything one round found, gives the alerts it is time for.
    pub fn round(&mut self, found: Vec<Treated>, policy: &AlertPolicy, clocks: &Clocks) -> Vec<Alert> {
        let now_ns = clocks.monotonic_ns;
        let keys: Vec<Key> = found.iter().map(key).collect();
        for (key, kept) in &mut self.kept {
            kept.stands &= keys.contains(key);
        }
        for (key, treated) in keys.into_iter().zip(found) {
            let goes_on = self.kept.get(&key).is_some_and(|kept| kept.stands);
            self.count += u64::from(!goes_on);
            if self.kept.len() >= KEPT_MAX && !self.kept.contains_key(&key) {
                let interval_ns = self.interval_ns;
                self.kept.retain(|_, kept| {
                    kept.stands || kept.pending > 0 || now_ns.saturating_sub(kept.told_ns) < interval_ns
                });
            }
            let stands = !treated.mended;
            let kept = self.kept.entry(key).or_insert_with(|| Kept {
                treated: treated.clone(),
                first: clocks.now,
                last: clocks.now,
                pending: 0,
                told_ns: 0,
                stands,
            });
            let reminds = goes_on && now_ns.saturating_sub(kept.told_ns) >= REMIND.as_nanos() as u64;
            kept.pending += u64::from(!goes_on || reminds);
            (kept.treated, kept.last, kept.stands) = (treated, clocks.now, stands);
        }
        self.due(policy, clocks, false)
    }

    /// Every alert that still waits, before the agent ends.
    pub fn flush(&mut self, policy: &AlertPolicy, clocks: &Clocks) -> Vec<Alert> {
        self.due(policy, clocks, true)
    }

    fn due(&mut self, policy: &AlertPolicy, clocks: &Clocks, everything: bool) -> Vec<Alert> {
        let Self { interval_ns, host, cgroup, make_id, kept, count: _ } = self;
        let mut alerts = Vec::new();
        for ((tamper, object), kept) in kept.iter_mut().filter(|(_, kept)| kept.pending > 0) {
            let waits = kept.told_ns != 0 && clocks.monotonic_ns.saturating_sub(kept.told_ns) < *interval_ns;
            if waits && !everything {
                continue;
            }
            let tally = Tally {
                id: make_id(clocks.now),
                count: std::mem::take(&mut kept.pending),
                first: kept.first,
                last: kept.last,
            };
            kept.told_ns = clocks.monotonic_ns.max(1);
            let about = AlertTamper {
                object: object.clone(),
                found: kept.treated.finding.found.clone(),
                done: kept.treated.done.clone(),
                mended: kept.treated.mended,
            };
            alerts.push(Alert::of_tampering(tamper.name(), about, policy.clone(), cgroup, host, tally));
        }
        alerts.sort_by(|a, b| (a.time, &a.reason).cmp(&(b.time, &b.reason)));
        alerts
    }
}

/// The same in a sentence.
pub fn words(treated: &Treated) -> String {
    let Treated { finding, done, mended: _ } = treated;
    format!("{}: {}: {}; {done}", finding.tamper.name(), finding.object, finding.found)
}

fn key(treated: &Treated) -> Key {
    (treated.finding.tamper, treated.finding.object.clone())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::finding::{Finding, Remedy};
    use super::*;
    use crate::alert::sample::after_ns;

    const SECOND_NS: u64 = 1_000_000_000;

    fn treated(object: &str, mended: bool) -> Treated {
        let finding = Finding {
            tamper: Tamper::LinkDetached,
            object: object.to_owned(),
            found: "gone".to_owned(),
            remedy: Remedy::Nothing,
        };
        Treated { finding, done: "done".to_owned(), mended }
    }

    struct Told {
        teller: Teller,
    }

    impl Told {
        fn new() -> Self {
            let make_id: MakeId = Box::new(|_| Uuid::from_u128(1));
            Self { teller: Teller::new(Duration::from_secs(10), "web-1", "/", make_id) }
        }

        /// Object and count of each alert of a round.
        fn round(&mut self, seconds: u64, found: &[Treated]) -> Vec<(String, u64)> {
            let policy = AlertPolicy { name: None, generation: 1, digest: None };
            let alerts = self.teller.round(found.to_vec(), &policy, &after_ns(seconds * SECOND_NS));
            alerts.into_iter().map(|alert| (alert.tamper.unwrap().object, alert.count)).collect()
        }
    }

    fn one(object: &str, count: u64) -> Vec<(String, u64)> {
        vec![(object.to_owned(), count)]
    }

    #[test]
    fn what_is_done_again_and_again_is_counted() {
        let mut told = Told::new();
        let again = [treated("a", true)];
        assert_eq!(told.round(0, &again), one("a", 1));
        for second in 1..10 {
            assert_eq!(told.round(second, &again), []);
        }
        assert_eq!(told.round(9, &[treated("b", true)]), one("b", 1), "another thing is told at once");
        assert_eq!(told.round(10, &again), one("a", 10));
        assert_eq!(told.round(30, &[]), []);
        assert_eq!(told.teller.count(), 12);
        assert!(told.teller.standing().is_empty());
    }

    #[test]
    fn what_goes_on_is_told_once_and_then_from_time_to_time() {
        let mut told = Told::new();
        let stands = [treated("a", false)];
        assert_eq!(told.round(0, &stands), one("a", 1));
        for second in (5..600).step_by(5) {
            assert_eq!(told.round(second, &stands), []);
        }
        assert_eq!(told.round(600, &stands), one("a", 1));
        assert_eq!(told.teller.count(), 1);
        assert_eq!(told.teller.standing(), ["link-detached: a: gone; done"]);
        assert_eq!(told.round(605, &[]), []);
        assert!(told.teller.standing().is_empty(), "it is mended");
        assert_eq!(told.round(620, &stands), one("a", 1), "and comes again");
    }

    #[test]
    fn what_waits_is_told_at_the_end() {
        let mut told = Told::new();
        told.round(0, &[treated("a", true)]);
        told.round(1, &[treated("a", true)]);
        let policy = AlertPolicy { name: None, generation: 1, digest: None };
        let alerts = told.teller.flush(&policy, &after_ns(2 * SECOND_NS));
        assert_eq!(alerts.iter().map(|alert| alert.count).collect::<Vec<_>>(), [1]);
        assert!(told.teller.flush(&policy, &after_ns(3 * SECOND_NS)).is_empty());
    }
}
