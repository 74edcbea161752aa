//! Takes the kernel's running totals by refused flow, gives what is new since they were last seen.
//!
//! A total arrives twice: with an event (at most one a second and flow) and when the map is read. It only grows, so
//! each refusal is counted once whichever way it is learned of first; it begins again at 1 when the kernel needed the
//! room meanwhile.

use std::sync::Arc;

use dnswall_common::event::{Refused, RefusedKey};
use dnswall_common::limits::{EVENT_INTERVAL_NS, REFUSED_FLOWS_MAX};

use crate::lru::Lru;

/// Totals remembered: as many as the kernel has room for. One forgotten here but not there would be counted again.
pub const TOTALS_MAX: usize = REFUSED_FLOWS_MAX;
/// An entry of the map that had its event before so long, in nanoseconds, and whose event was not seen, had its
/// event lost; a younger one may still be in the ring.
pub const EVENT_LATE_NS: u64 = 2 * EVENT_INTERVAL_NS;

/// The totals last seen, and which flow of `F` each belongs to.
#[derive(Debug)]
pub struct Ledger<F> {
    totals: Lru<RefusedKey, Seen<F>>,
}

#[derive(Debug)]
struct Seen<F> {
    refusals: u64,
    at_ns: u64,
    flow: Option<Arc<F>>,
}

impl<F> Default for Ledger<F> {
    fn default() -> Self {
        Self { totals: Lru::new(TOTALS_MAX) }
    }
}

impl<F> Ledger<F> {
    /// How many refusals an event tells of that nobody told of before; 0 when it comes after a look at the map that
    /// was made later than it.
    pub fn event(&mut self, key: RefusedKey, refusals: u64, time_ns: u64) -> u64 {
        let Some(seen) = self.totals.get(&key) else {
            self.totals.insert(key, Seen { refusals, at_ns: time_ns, flow: None });
            return refusals;
        };
        let began_again = refusals == 1 || time_ns > seen.at_ns.saturating_add(EVENT_INTERVAL_NS / 2);
        let new = match refusals.checked_sub(seen.refusals) {
            Some(more) if more > 0 => more,
            _ if began_again => refusals,
            _ => return 0,
        };
        seen.refusals = refusals;
        seen.at_ns = seen.at_ns.max(time_ns);
        new
    }

    /// Says whose refusals these are, and gives whose they were thought to be.
    pub fn assign(&mut self, key: &RefusedKey, flow: &Arc<F>) -> Option<Arc<F>> {
        self.totals.get(key)?.flow.replace(flow.clone())
    }

    /// How many refusals the map has that nobody told of before, and whose they are if that is known. `now_ns` is the
    /// monotonic clock after the map was read.
    pub fn entry(&mut self, key: RefusedKey, entry: Refused, now_ns: u64) -> (u64, Option<Arc<F>>) {
        let Refused { last_event_ns, refusals } = entry;
        let Some(seen) = self.totals.get(&key) else {
            if now_ns.saturating_sub(last_event_ns) < EVENT_LATE_NS {
                return (0, None);
            }
            self.totals.insert(key, Seen { refusals, at_ns: now_ns, flow: None });
            return (refusals, None);
        };
        // The map is never behind an event, so less than before can only have begun again.
        let new = refusals.checked_sub(seen.refusals).unwrap_or(refusals);
        (seen.refusals, seen.at_ns) = (refusals, now_ns);
        (new, seen.flow.clone())
    }

    /// Takes a total as known, without counting it: what an agent before this one has told already.
    pub fn known(&mut self, key: RefusedKey, entry: Refused, now_ns: u64) {
        let Refused { last_event_ns: _, refusals } = entry;
        self.totals.insert(key, Seen { refusals, at_ns: now_ns, flow: None });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;
    const KEY: RefusedKey = RefusedKey {
        cgroup: 1,
        destination: [0, 2],
        entry: 0,
        pid: 3,
        destination_port: 53,
        protocol: 17,
        reason: 2,
    };

    fn entry(refusals: u64, last_event_ns: u64) -> Refused {
        Refused { last_event_ns, refusals }
    }

    #[test]
    fn events_tell_what_is_new() {
        let mut ledger = Ledger::<()>::default();
        assert_eq!(ledger.event(KEY, 1, 10 * SECOND_NS), 1);
        assert_eq!(ledger.event(KEY, 500, 11 * SECOND_NS), 499);
        assert_eq!(ledger.event(KEY, 501, 12 * SECOND_NS), 1);
        assert_eq!(ledger.event(RefusedKey { pid: 4, ..KEY }, 7, 12 * SECOND_NS), 7);
    }

    #[test]
    fn two_events_of_one_moment_are_counted_once() {
        let mut ledger = Ledger::<()>::default();
        ledger.event(KEY, 1, 10 * SECOND_NS);
        assert_eq!(ledger.event(KEY, 12, 11 * SECOND_NS + 5), 11);
        assert_eq!(ledger.event(KEY, 11, 11 * SECOND_NS), 0, "two processors, the slower one");
        assert_eq!(ledger.event(KEY, 12, 11 * SECOND_NS + 6), 0);
    }

    #[test]
    fn an_event_after_a_look_that_was_later_is_not_counted_again() {
        let mut ledger = Ledger::default();
        ledger.event(KEY, 1, 10 * SECOND_NS);
        ledger.assign(&KEY, &Arc::new("dig"));
        let (new, flow) = ledger.entry(KEY, entry(50, 11 * SECOND_NS), 11 * SECOND_NS + 9);
        assert_eq!((new, flow.as_deref()), (49, Some(&"dig")));
        assert_eq!(ledger.event(KEY, 41, 11 * SECOND_NS), 0);
        assert_eq!(ledger.event(KEY, 60, 12 * SECOND_NS), 10);
        assert_eq!(ledger.entry(KEY, entry(60, 12 * SECOND_NS), 13 * SECOND_NS).0, 0);
    }

    #[test]
    fn a_total_that_began_again_is_counted_from_there() {
        let mut ledger = Ledger::<()>::default();
        ledger.event(KEY, 500, 10 * SECOND_NS);
        assert_eq!(ledger.event(KEY, 1, 10 * SECOND_NS + 5), 1, "evicted at once");
        ledger.event(KEY, 90, 12 * SECOND_NS);
        assert_eq!(ledger.event(KEY, 30, 14 * SECOND_NS), 30, "its first event was lost");
        assert_eq!(ledger.entry(KEY, entry(4, 15 * SECOND_NS), 16 * SECOND_NS).0, 4);
    }

    #[test]
    fn an_entry_without_event_counts_when_its_event_must_be_lost() {
        let mut ledger = Ledger::<()>::default();
        assert_eq!(ledger.entry(KEY, entry(9, 10 * SECOND_NS), 11 * SECOND_NS), (0, None));
        assert_eq!(ledger.entry(KEY, entry(9, 10 * SECOND_NS), 12 * SECOND_NS), (9, None));
        assert_eq!(ledger.entry(KEY, entry(9, 10 * SECOND_NS), 13 * SECOND_NS), (0, None));
        assert_eq!(ledger.event(KEY, 10, 14 * SECOND_NS), 1);
    }

    #[test]
    fn what_an_earlier_agent_told_is_not_told_again() {
        let mut ledger = Ledger::<()>::default();
        ledger.known(KEY, entry(1_000, 5 * SECOND_NS), 10 * SECOND_NS);
        assert_eq!(ledger.event(KEY, 1_003, 11 * SECOND_NS), 3);
    }
}
