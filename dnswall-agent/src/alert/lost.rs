//! Takes counts of what was lost, gives the alert that says so: at once, then at most one in a while.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::group::MakeId;
use super::kind::Kind;
use super::severity::Severity;
use super::{Alert, AlertPolicy, Tally};
use crate::event::Clocks;

/// The least time between two of them.
pub const INTERVAL: Duration = Duration::from_secs(60);

/// What was lost since the alert before that said so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertLost {
    /// Alerts that came faster than the disk took them: no sink has them.
    pub queue: u64,
    /// Alerts that were only in memory, because the disk could not be written, and found no room there.
    pub memory: u64,
    /// Refusals that are in no alert: those that too many different flows kept apart had, or the agent knows no flow of, and
    /// those that alerts in `queue` stood for.
    pub refusals: u64,
    /// Events for which the kernel's ring had no room. The refusals they told of are told by the next event of their flow.
    pub events: u64,
    /// Alerts that made room for others before a sink had them, for each sink with some.
    pub sinks: Vec<AlertLostBySink>,
}

/// What a sink did not get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertLostBySink {
    /// The sink's name.
    pub name: String,
    /// How many alerts.
    pub alerts: u64,
}

impl AlertLost {
    /// All of it.
    pub fn count(&self) -> u64 {
        let Self { queue, memory, refusals, events, sinks } = self;
        let sinks = sinks.iter().map(|sink| sink.alerts);
        [*queue, *memory, *refusals, *events].into_iter().chain(sinks).fold(0, u64::saturating_add)
    }

    /// In words.
    pub fn words(&self) -> String {
        let Self { queue, memory, refusals, events, sinks } = self;
        let mut words = Vec::new();
        let mut put = |count: u64, what: &str| {
            if count > 0 {
                words.push(format!("{count} {what}"));
            }
        };
        put(*queue, "alerts that came faster than the disk takes them");
        put(*memory, "alerts that memory had no room for");
        put(*refusals, "refusals that are in no alert");
        put(*events, "events that the kernel had no room for");
        sinks
            .iter()
            .for_each(|sink| put(sink.alerts, &format!("alerts that sink {} did not get", sink.name)));
        words.join(", ")
    }
}

/// Running totals of what is lost, and what of each sink is untold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LostSoFar {
    /// See [`AlertLost::queue`].
    pub queue: u64,
    /// See [`AlertLost::memory`].
    pub memory: u64,
    /// See [`AlertLost::refusals`].
    pub refusals: u64,
    /// See [`AlertLost::events`]; `None` where nobody could look.
    pub events: Option<u64>,
    /// What no alert told of, by sink.
    pub untold: Vec<(String, u64)>,
}

/// Says what is lost.
pub struct LostTeller {
    host: String,
    make_id: MakeId,
    told: LostSoFar,
    told_ns: Option<u64>,
    /// When what is untold was first seen.
    since: Option<Timestamp>,
}

impl LostTeller {
    /// With the name of this host.
    pub fn new(host: &str, make_id: MakeId) -> Self {
        Self { host: host.to_owned(), make_id, told: LostSoFar::default(), told_ns: None, since: None }
    }

    /// The alert about what is new, when it is time for one, or there is to be no other.
    pub fn round(
        &mut self,
        now: LostSoFar,
        policy: AlertPolicy,
        clocks: &Clocks,
        is_last: bool,
    ) -> Option<Alert> {
        let LostSoFar { queue, memory, refusals, events, untold } = &now;
        // The kernel's count begins before this agent.
        if self.told.events.is_none() {
            self.told.events = *events;
        }
        let events_told = self.told.events.unwrap_or_default();
        let lost = AlertLost {
            queue: queue.saturating_sub(self.told.queue),
            memory: memory.saturating_sub(self.told.memory),
            refusals: refusals.saturating_sub(self.told.refusals),
            events: events.unwrap_or(events_told).saturating_sub(events_told),
            sinks: untold
                .iter()
                .map(|(name, alerts)| AlertLostBySink { name: name.clone(), alerts: *alerts })
                .collect(),
        };
        let count = lost.count();
        if count == 0 {
            self.since = None;
            return None;
        }
        let first = *self.since.get_or_insert(clocks.now);
        let interval_ns = INTERVAL.as_nanos() as u64;
        let may_tell =
            self.told_ns.is_none_or(|told_ns| clocks.monotonic_ns.saturating_sub(told_ns) >= interval_ns);
        if !may_tell && !is_last {
            return None;
        }
        self.told = LostSoFar { events: events.or(self.told.events), ..now };
        (self.told_ns, self.since) = (Some(clocks.monotonic_ns), None);
        let tally = Tally { id: (self.make_id)(clocks.now), count, first, last: clocks.now };
        let alert = Alert::blank(Kind::AlertsLost, Severity::High, "lost", policy, &self.host, tally);
        Some(Alert { lost: Some(lost), ..alert })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::sample::after_ns;
    use uuid::Uuid;

    const SECOND_NS: u64 = 1_000_000_000;

    fn policy() -> AlertPolicy {
        AlertPolicy { name: None, generation: 1, digest: None }
    }

    #[test]
    fn each_loss_is_told_once_and_at_a_bounded_rate() {
        let mut teller = LostTeller::new("web-1", Box::new(|_| Uuid::from_u128(1)));
        let mut round = |seconds: u64, now: LostSoFar| {
            let alert = teller.round(now, policy(), &after_ns(seconds * SECOND_NS), false)?;
            Some((alert.count, alert.lost.unwrap()))
        };
        let mut so_far = LostSoFar { events: Some(1_000), ..LostSoFar::default() };
        assert_eq!(round(0, so_far.clone()), None, "what the kernel lost before is another agent's");
        so_far.queue = 5;
        so_far.untold = vec![("web".to_owned(), 7)];
        let (count, lost) = round(1, so_far.clone()).unwrap();
        assert_eq!((count, lost.queue, lost.sinks[0].alerts), (12, 5, 7));
        so_far.untold.clear();
        so_far.events = Some(1_003);
        for second in 2..61 {
            assert_eq!(round(second, so_far.clone()), None, "{second}");
        }
        so_far.events = None;
        assert_eq!(round(61, so_far.clone()), None, "nobody could look");
        so_far.events = Some(1_004);
        let (count, lost) = round(62, so_far.clone()).unwrap();
        assert_eq!((count, lost.events), (4, 4));
        assert_eq!(round(200, so_far), None);
    }

    #[test]
    fn what_waits_is_told_at_the_end_and_since_when() {
        let mut teller = LostTeller::new("web-1", Box::new(|_| Uuid::from_u128(1)));
        let lost = |refusals| LostSoFar { refusals, ..LostSoFar::default() };
        teller.round(lost(1), policy(), &after_ns(0), false).unwrap();
        assert_eq!(teller.round(lost(3), policy(), &after_ns(SECOND_NS), false), None);
        let last = teller.round(lost(4), policy(), &after_ns(9 * SECOND_NS), true).unwrap();
        assert_eq!(
            (last.count, last.first, last.last),
            (3, after_ns(SECOND_NS).now, after_ns(9 * SECOND_NS).now)
        );
    }
}
