//! Takes enriched events and what the kernel counted beside them, gives alerts: the first refusal of a flow at once,
//! then at most one an interval, with the number of refusals since the one before.
//!
//! Every refusal that comes in goes out in the `count` of one alert or is in [`GroupCounters`]. When a program is
//! refused at more destinations than are kept apart, the others are summed up in an alert without destination: a scan
//! neither floods whoever reads alerts nor hides what another program does. Questions that were refused for their names are
//! kept apart by the domain that was registered, not by name.

mod key;

mod standing;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dnswall_common::event::{Refused, RefusedKey};
use jiff::Timestamp;
use uuid::{NoContext, Uuid};

pub use standing::{Standing, WorkloadStanding};

use self::key::{FlowKey, Owner};
use super::ledger::Ledger;
use super::marks::Marks;
use super::names::Names;
use super::rules::{PolicyRules, RuleBook};
use super::{Alert, AlertSelftest, Mark, Tally, Telling};
use crate::event::{Clocks, EnrichedEvent};

/// Flows kept apart.
pub const FLOWS_MAX: usize = 4_096;
/// Flows of one program, user and cgroup kept apart.
pub const FLOWS_PER_OWNER_MAX: usize = 512;
/// Sums of many flows, beside them.
pub const SUMS_MAX: usize = 1_024;
/// A flow that was not refused for so long, in nanoseconds, is new when it comes again.
pub const FORGOTTEN_NS: u64 = 3_600_000_000_000;
/// Flows of the agent's own proof that are remembered; a proof has four.
const OWN_MAX: usize = 64;
/// A full table is searched for idle flows at most once in this many nanoseconds.
const MAKE_ROOM_INTERVAL_NS: u64 = 1_000_000_000;

/// What was counted; `observed` is `told + overflowed + orphaned` and what is pending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupCounters {
    /// Refusals the kernel counted, as far as it said.
    pub observed: u64,
    /// Alerts that went out.
    pub alerts: u64,
    /// The sum of their counts.
    pub told: u64,
    /// Refusals that no alert has room for.
    pub overflowed: u64,
    /// Refusals whose event was lost, or belongs to a flow that is forgotten: nobody knows whose they are.
    pub orphaned: u64,
    /// Refusals of the agent's own proof, which are no alerts and in none of the others.
    pub own: u64,
}

/// What an agent before this one did not come to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Whose.
    pub key: RefusedKey,
    /// What the kernel has of it.
    pub entry: Refused,
    /// How many of them are not told.
    pub refusals: u64,
}

/// Names a new alert made at that time.
pub type MakeId = Box<dyn FnMut(Timestamp) -> Uuid + Send>;

/// Turns events into alerts.
pub struct Grouper {
    interval_ns: u64,
    host: String,
    make_id: MakeId,
    flows: HashMap<Arc<FlowKey>, Flow>,
    /// How many of `flows` have a destination, by owner.
    kept: HashMap<Owner, usize>,
    /// How many have none.
    sums: usize,
    ledger: Ledger<FlowKey>,
    /// Under what the kernel counts the agent's own.
    own: VecDeque<RefusedKey>,
    made_room_ns: Option<u64>,
    /// When the map was first looked at.
    began_ns: Option<u64>,
    /// Refusals that the kernel counted before that and nobody told of, until somebody names whose they are.
    left: Vec<Left>,
    /// Up to which totals the agent's own are counted, until somebody saves it.
    own_marks: Vec<Mark>,
    counters: GroupCounters,
}

struct Flow {
    event: EnrichedEvent,
    names: Names,
    /// Up to which of the kernel's totals `pending` counts, since the last alert.
    marks: Marks,
    policy: Option<Arc<PolicyRules>>,
    first: Timestamp,
    last: Timestamp,
    pending: u64,
    /// All refusals since `first`.
    total: u64,
    /// When it had its last alert.
    told_ns: Option<u64>,
    seen_ns: u64,
    /// Its last refusals were an earlier agent's to tell: whether they were refused or would have been is not known.
    is_adopted: bool,
}

impl Grouper {
    /// With the least time between two alerts of one flow, and the name of this host.
    pub fn new(interval: Duration, host: &str) -> Self {
        Self::with_ids(interval, host, Box::new(new_id))
    }

    /// The same with identifiers from elsewhere.
    pub fn with_ids(interval: Duration, host: &str, make_id: MakeId) -> Self {
        Self {
            interval_ns: u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX),
            host: host.to_owned(),
            make_id,
            flows: HashMap::new(),
            kept: HashMap::new(),
            sums: 0,
            ledger: Ledger::default(),
            own: VecDeque::new(),
            made_room_ns: None,
            began_ns: None,
            left: Vec::new(),
            own_marks: Vec::new(),
            counters: GroupCounters::default(),
        }
    }

    /// What was counted so far.
    pub const fn counters(&self) -> GroupCounters {
        self.counters
    }

    /// Refusals that the next alerts of their flows will tell.
    pub fn pending(&self) -> u64 {
        let left = self.left.iter().map(|left| left.refusals);
        self.flows.values().map(|flow| flow.pending).chain(left).fold(0, u64::saturating_add)
    }

    /// Takes an event; gives its alert unless the flow had one within the interval.
    pub fn observe(&mut self, event: EnrichedEvent, book: &RuleBook, clocks: &Clocks) -> Option<Alert> {
        let count = self.ledger.event(event.refused, event.refusals, event.time_ns);
        if count == 0 {
            return None;
        }
        self.counters.observed = self.counters.observed.saturating_add(count);
        self.add(event, count, false, book, clocks)
    }

    /// Takes those refusals again that [`Self::counted`] found of an agent before this one, named as far as anybody knows;
    /// gives their alert unless the flow had one.
    pub fn adopt(
        &mut self,
        event: EnrichedEvent,
        refusals: u64,
        book: &RuleBook,
        clocks: &Clocks,
    ) -> Option<Alert> {
        self.add(event, refusals, true, book, clocks)
    }

    /// What an agent before this one left untold; each is to be given to [`Self::adopt`].
    pub fn take_left(&mut self) -> Vec<Left> {
        std::mem::take(&mut self.left)
    }

    /// Up to which totals the agent's own refusals are counted, since this was asked last.
    pub fn take_own_marks(&mut self) -> Vec<Mark> {
        std::mem::take(&mut self.own_marks)
    }

    fn add(
        &mut self,
        event: EnrichedEvent,
        count: u64,
        is_adopted: bool,
        book: &RuleBook,
        clocks: &Clocks,
    ) -> Option<Alert> {
        let now_ns = clocks.monotonic_ns;
        let policy = book.policy(event.generation).cloned();
        let (refused, mut total) = (event.refused, event.refusals);
        let mut event = event;
        let mut key = FlowKey::of(&event, policy.as_deref());
        if !self.flows.contains_key(&key) && !self.has_room(&key.owner, now_ns) {
            (key.destination, key.entry, key.domain) = (None, 0, None);
            if !self.flows.contains_key(&key) && self.sums >= SUMS_MAX {
                self.counters.overflowed = self.counters.overflowed.saturating_add(count);
                return None;
            }
            event = summed(event);
        }
        let key = self.flows.get_key_value(&key).map_or_else(|| Arc::new(key), |(known, _)| known.clone());
        let before = self.ledger.assign(&refused, &key).filter(|before| *before != key);
        if let Some(before) = before.and_then(|before| self.flows.get(&before)) {
            // Another program, user or policy by now. What that one's alerts did not tell yet is not told by this one's.
            total = total.saturating_sub(before.pending);
        }
        let time = event.time;
        let name = event.question.as_ref().map(|question| question.name.clone());
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.pending = flow.pending.saturating_add(count);
            flow.total = flow.total.saturating_add(count);
            flow.last = flow.last.max(time);
            flow.seen_ns = now_ns;
            flow.event = event;
            flow.policy = policy;
        } else {
            self.count_flow(&key);
            let flow = Flow {
                event,
                names: Names::new(key.domain.clone()),
                marks: Marks::default(),
                policy,
                first: time,
                last: time,
                pending: count,
                total: count,
                told_ns: None,
                seen_ns: now_ns,
                is_adopted,
            };
            self.flows.insert(key.clone(), flow);
        }
        let flow = self.flows.get_mut(&key)?;
        name.iter().for_each(|name| flow.names.add(name));
        flow.marks.put((refused, total));
        flow.is_adopted = is_adopted;
        flow.may_be_told(now_ns, self.interval_ns)
            .then(|| tell(flow, &self.host, &mut self.make_id, &mut self.counters, clocks))
    }

    /// Takes a refusal of the agent's own proof: it is counted, and no alert.
    pub fn own(&mut self, key: RefusedKey, refusals: u64, time_ns: u64) {
        let count = self.ledger.event(key, refusals, time_ns);
        self.counters.own = self.counters.own.saturating_add(count);
        self.own_marks.push((key, refusals));
        if !self.own.contains(&key) {
            self.own.push_back(key);
            if self.own.len() > OWN_MAX {
                self.own.pop_front();
            }
        }
    }

    /// Takes what happened once, and is no packet that the kernel counts: always an alert of its own.
    pub fn tell_once(&mut self, event: &EnrichedEvent, book: &RuleBook, clocks: &Clocks) -> Alert {
        let tally = Tally { id: (self.make_id)(clocks.now), count: 1, first: event.time, last: event.time };
        self.counters.observed = self.counters.observed.saturating_add(1);
        self.counters.told = self.counters.told.saturating_add(1);
        self.counters.alerts += 1;
        Alert::new(event, book.policy(event.generation).map(|policy| &**policy), &self.host, tally)
    }

    /// The alert of a test of the agent's own. It counts nowhere: nobody was refused anything.
    pub fn selftest(
        &self,
        event: &EnrichedEvent,
        book: &RuleBook,
        telling: Telling,
        latency_ns: u64,
    ) -> Alert {
        let Telling { id, number, asked, previous } = telling;
        let selftest = AlertSelftest { number, asked, latency_us: latency_ns / 1_000, previous };
        let tally = Tally { id, count: 1, first: event.time, last: event.time };
        let policy = book.policy(event.generation).map(|policy| &**policy);
        Alert::of_selftest(event, policy, &self.host, selftest, tally)
    }

    /// Takes the map of refused flows as it is now, at best right after the ring was read to its end. What it has
    /// more than the events said is told with the flows' next alerts.
    pub fn counted(&mut self, flows: impl IntoIterator<Item = (RefusedKey, Refused)>, clocks: &Clocks) {
        let began_ns = *self.began_ns.get_or_insert(clocks.monotonic_ns);
        for (key, entry) in flows {
            let (count, flow) = self.ledger.entry(key, entry, clocks.monotonic_ns);
            if count == 0 {
                continue;
            }
            if self.own.contains(&key) {
                self.counters.own = self.counters.own.saturating_add(count);
                self.own_marks.push((key, entry.refusals));
                continue;
            }
            self.counters.observed = self.counters.observed.saturating_add(count);
            match flow.and_then(|flow| self.flows.get_mut(&flow)) {
                Some(flow) => {
                    flow.pending = flow.pending.saturating_add(count);
                    flow.total = flow.total.saturating_add(count);
                    flow.seen_ns = clocks.monotonic_ns;
                    flow.marks.put((key, entry.refusals));
                }
                None if entry.last_event_ns < began_ns => {
                    self.left.push(Left { key, entry, refusals: count })
                }
                None => self.counters.orphaned = self.counters.orphaned.saturating_add(count),
            }
        }
    }

    /// Takes the map as an agent before this one left it, which told what is in it, so that only what comes after is
    /// counted: of one that ended in order all of it, of one that was killed what was saved with its alerts.
    pub fn already_told(&mut self, flows: impl IntoIterator<Item = (RefusedKey, Refused)>, clocks: &Clocks) {
        for (key, entry) in flows {
            self.ledger.known(key, entry, clocks.monotonic_ns);
        }
    }

    /// The alerts whose interval is over; to be asked about once a second. Forgets flows nobody saw for long.
    pub fn due(&mut self, clocks: &Clocks) -> Vec<Alert> {
        let (now_ns, interval_ns) = (clocks.monotonic_ns, self.interval_ns);
        let alerts = self.tell_where(clocks, |flow| flow.may_be_told(now_ns, interval_ns));
        self.forget(|flow| now_ns.saturating_sub(flow.seen_ns) >= FORGOTTEN_NS);
        alerts
    }

    /// Every alert that is pending, before the agent ends.
    pub fn flush(&mut self, clocks: &Clocks) -> Vec<Alert> {
        self.tell_where(clocks, |_| true)
    }

    fn tell_where(&mut self, clocks: &Clocks, ready: impl Fn(&Flow) -> bool) -> Vec<Alert> {
        let mut ready: Vec<&mut Flow> =
            self.flows.values_mut().filter(|flow| flow.pending > 0 && ready(flow)).collect();
        ready.sort_by_key(|flow| flow.last);
        ready
            .into_iter()
            .map(|flow| tell(flow, &self.host, &mut self.make_id, &mut self.counters, clocks))
            .collect()
    }

    /// Whether one more flow can be kept apart, if need be by forgetting those that were quiet for an interval.
    fn has_room(&mut self, owner: &Owner, now_ns: u64) -> bool {
        if self.is_below_limits(owner) {
            return true;
        }
        if self.made_room_ns.is_some_and(|made_ns| now_ns.saturating_sub(made_ns) < MAKE_ROOM_INTERVAL_NS) {
            return false;
        }
        self.made_room_ns = Some(now_ns);
        let interval_ns = self.interval_ns;
        self.forget(|flow| now_ns.saturating_sub(flow.seen_ns) >= interval_ns);
        self.is_below_limits(owner)
    }

    fn is_below_limits(&self, owner: &Owner) -> bool {
        self.flows.len() - self.sums < FLOWS_MAX
            && self.kept.get(owner).is_none_or(|kept| *kept < FLOWS_PER_OWNER_MAX)
    }

    /// Only flows with nothing left to tell.
    fn forget(&mut self, stale: impl Fn(&Flow) -> bool) {
        let before = self.flows.len();
        self.flows.retain(|_, flow| flow.pending > 0 || !stale(flow));
        if self.flows.len() == before {
            return;
        }
        self.kept.clear();
        self.sums = 0;
        let keys: Vec<_> = self.flows.keys().cloned().collect();
        keys.iter().for_each(|key| self.count_flow(key));
    }

    fn count_flow(&mut self, key: &FlowKey) {
        match key.destination {
            Some(_) => *self.kept.entry(key.owner).or_default() += 1,
            None => self.sums += 1,
        }
    }
}

impl fmt::Debug for Grouper {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Grouper")
            .field("flows", &self.flows.len())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl Flow {
    fn may_be_told(&self, now_ns: u64, interval_ns: u64) -> bool {
        self.told_ns.is_none_or(|told_ns| now_ns.saturating_sub(told_ns) >= interval_ns)
    }
}

/// What is true of every flow in a sum.
fn summed(mut event: EnrichedEvent) -> EnrichedEvent {
    (event.flow.source, event.flow.source_port) = (None, None);
    (event.flow.destination, event.flow.bytes) = (None, None);
    (event.question, event.listed, event.destination_name) = (None, None, None);
    event
}

fn tell(
    flow: &mut Flow,
    host: &str,
    make_id: &mut MakeId,
    counters: &mut GroupCounters,
    clocks: &Clocks,
) -> Alert {
    let count = std::mem::take(&mut flow.pending);
    flow.told_ns = Some(clocks.monotonic_ns);
    counters.alerts += 1;
    counters.told = counters.told.saturating_add(count);
    let tally = Tally { id: make_id(clocks.now), count, first: flow.first, last: flow.last };
    let names = flow.names.take();
    let marks = flow.marks.take();
    let mut alert = Alert { names, marks, ..Alert::new(&flow.event, flow.policy.as_deref(), host, tally) };
    if flow.is_adopted {
        alert.verdict = None;
    }
    alert
}

/// A UUID of version 7, which sorts by time.
pub fn new_id(now: Timestamp) -> Uuid {
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    let nanoseconds = u32::try_from(now.subsec_nanosecond()).unwrap_or(0);
    Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, seconds, nanoseconds))
}

#[cfg(test)]
mod tests;
