//! Takes alerts on their way to the spool, gives those that a workload may have; the others become one alert in a while that
//! says how many there were. Nothing is suppressed without a count: an alert that stands for others has the sum of theirs.
//!
//! Each workload has a bucket for each kind and severity, so that a flood of one kind does not bury another kind of the
//! same workload's. What the agent says of itself is not limited.

use std::collections::HashMap;
use std::{fmt, mem};

use serde::{Deserialize, Serialize};

use super::group::MakeId;
use super::kind::Kind;
use super::marks::Marks;
use super::severity::Severity;
use super::{Alert, AlertFlow, AlertProcess, AlertWorkload};
use crate::event::{Clocks, Outcome};

/// Buckets at once; beyond, workloads that nobody has room for share those of nobody.
pub const BUCKETS_MAX: usize = 8_192;
/// A full table is searched for full buckets at most once in this many nanoseconds.
const MAKE_ROOM_INTERVAL_NS: u64 = 1_000_000_000;
const MINUTE_NS: u64 = 60_000_000_000;

/// That an alert stands for others that its workload had too many of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertLimited {
    /// For how many.
    pub alerts: u64,
}

/// How many alerts of one kind and severity a workload may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// At once.
    pub burst: u32,
    /// And a minute, for long.
    pub per_minute: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { burst: 500, per_minute: 120 }
    }
}

/// What was limited, since the agent started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitCounters {
    /// Alerts that others stand for.
    pub folded: u64,
    /// Alerts that stand for them.
    pub summaries: u64,
    /// Refusals in those that no summary was made of yet.
    pub pending: u64,
}

/// Lets alerts through, and folds the others.
pub struct Limiter {
    limits: Limits,
    /// Between two summaries of the same.
    interval_ns: u64,
    make_id: MakeId,
    buckets: HashMap<Key, Bucket>,
    made_room_ns: Option<u64>,
    counters: LimitCounters,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    owner: u64,
    kind: Kind,
    severity: Severity,
    verdict: Option<Outcome>,
}

#[derive(Debug)]
struct Bucket {
    /// What it has, in nanoseconds of a minute's worth: an alert costs a minute divided by `per_minute`.
    filled_ns: u64,
    at_ns: u64,
    /// When its last summary was.
    told_ns: Option<u64>,
    folded: Option<Folded>,
}

#[derive(Debug)]
struct Folded {
    /// What all have in common.
    alert: Alert,
    marks: Marks,
    alerts: u64,
}

impl Limiter {
    /// With what workloads may have, and the least time between two summaries.
    pub fn new(limits: Limits, interval_ns: u64, make_id: MakeId) -> Self {
        Self {
            limits,
            interval_ns,
            make_id,
            buckets: HashMap::new(),
            made_room_ns: None,
            counters: LimitCounters::default(),
        }
    }

    /// What was limited.
    pub const fn counters(&self) -> LimitCounters {
        self.counters
    }

    /// Whether this alert of this workload's goes on by itself. If not, the next summary stands for it.
    pub fn lets_through(&mut self, alert: &Alert, owner: u64, clocks: &Clocks) -> bool {
        if alert.kind.is_own() {
            return true;
        }
        let now_ns = clocks.monotonic_ns;
        let Alert { kind, severity, verdict, .. } = alert;
        let mut key = Key { owner, kind: *kind, severity: *severity, verdict: *verdict };
        if !self.buckets.contains_key(&key) && !self.has_room(now_ns) {
            key.owner = NOBODY;
        }
        let (full_ns, cost_ns) = (full_ns(self.limits), cost_ns(self.limits));
        let bucket = self.buckets.entry(key).or_insert(Bucket {
            filled_ns: full_ns,
            at_ns: now_ns,
            told_ns: None,
            folded: None,
        });
        bucket.fill(now_ns, full_ns);
        // Behind a summary that is to come: what alerts tell of one flow has to be in order.
        if bucket.folded.is_none() && bucket.filled_ns >= cost_ns {
            bucket.filled_ns -= cost_ns;
            return true;
        }
        self.counters.folded += 1;
        self.counters.pending = self.counters.pending.saturating_add(alert.count);
        match &mut bucket.folded {
            Some(folded) => folded.add(alert),
            None => bucket.folded = Some(Folded::new(alert)),
        }
        false
    }

    /// The summaries that are due, or all of them before the agent ends.
    pub fn due(&mut self, clocks: &Clocks, everything: bool) -> Vec<Alert> {
        let (now_ns, interval_ns) = (clocks.monotonic_ns, self.interval_ns);
        let mut alerts = Vec::new();
        for bucket in self.buckets.values_mut() {
            let is_due = bucket.told_ns.is_none_or(|told_ns| now_ns.saturating_sub(told_ns) >= interval_ns);
            if !is_due && !everything {
                continue;
            }
            let Some(Folded { alert, mut marks, alerts: count }) = bucket.folded.take() else { continue };
            bucket.told_ns = Some(now_ns);
            self.counters.summaries += 1;
            self.counters.pending = self.counters.pending.saturating_sub(alert.count);
            let id = (self.make_id)(clocks.now);
            alerts.push(Alert {
                id,
                time: alert.last,
                limited: Some(AlertLimited { alerts: count }),
                marks: marks.take(),
                ..alert
            });
        }
        alerts.sort_by_key(|alert| alert.time);
        alerts
    }

    fn has_room(&mut self, now_ns: u64) -> bool {
        if self.buckets.len() < BUCKETS_MAX {
            return true;
        }
        if self.made_room_ns.is_some_and(|made_ns| now_ns.saturating_sub(made_ns) < MAKE_ROOM_INTERVAL_NS) {
            return false;
        }
        self.made_room_ns = Some(now_ns);
        let full_ns = full_ns(self.limits);
        self.buckets.retain(|_, bucket| {
            bucket.fill(now_ns, full_ns);
            bucket.folded.is_some() || bucket.filled_ns < full_ns
        });
        self.buckets.len() < BUCKETS_MAX
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Limiter")
            .field("limits", &self.limits)
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl Bucket {
    fn fill(&mut self, now_ns: u64, full_ns: u64) {
        let more = now_ns.saturating_sub(mem::replace(&mut self.at_ns, now_ns));
        self.filled_ns = self.filled_ns.saturating_add(more).min(full_ns);
    }
}

impl Folded {
    fn new(alert: &Alert) -> Self {
        let mut marks = Marks::default();
        marks.extend(alert.marks.iter().copied());
        Self { alert: Alert { marks: Vec::new(), ..alert.clone() }, marks, alerts: 1 }
    }

    /// One more; what it has not in common with the others is not known of them all.
    fn add(&mut self, more: &Alert) {
        self.alerts += 1;
        let Alert { reason, rule, policy, flow, process, workload, count, first, last, .. } = more;
        let all = &mut self.alert;
        all.count = all.count.saturating_add(*count);
        all.first = all.first.min(*first);
        all.last = all.last.max(*last);
        self.marks.extend(more.marks.iter().copied());
        if all.reason != *reason {
            MANY.clone_into(&mut all.reason);
        }
        keep_same(&mut all.rule, rule);
        all.policy.clone_from(policy);
        (all.dns, all.names) = (None, None);
        all.attack.retain(|technique| more.attack.contains(technique));
        all.flow = all.flow.take().zip(flow.as_ref()).and_then(|(flow, more)| flow_of_all(flow, more));
        process_of_all(&mut all.process, process);
        if all.workload != *workload {
            let AlertWorkload { cgroup, unit, slice, container, container_name, image, runtime, pod } =
                &mut all.workload;
            keep_same(cgroup, &workload.cgroup);
            keep_same(unit, &workload.unit);
            keep_same(slice, &workload.slice);
            keep_same(container, &workload.container);
            keep_same(container_name, &workload.container_name);
            keep_same(image, &workload.image);
            keep_same(runtime, &workload.runtime);
            keep_same(pod, &workload.pod);
        }
    }
}

fn keep_same<T: PartialEq>(all: &mut Option<T>, more: &Option<T>) {
    if all != more {
        *all = None;
    }
}

/// Nothing when not even the protocol is the same.
fn flow_of_all(mut all: AlertFlow, more: &AlertFlow) -> Option<AlertFlow> {
    if (&all.protocol, all.hook) != (&more.protocol, more.hook) {
        return None;
    }
    keep_same(&mut all.source, &more.source);
    keep_same(&mut all.destination, &more.destination);
    keep_same(&mut all.destination_port, &more.destination_port);
    keep_same(&mut all.destination_name, &more.destination_name);
    if all.family != more.family {
        "none".clone_into(&mut all.family);
    }
    (all.source_port, all.icmp, all.bytes, all.community_id) = (None, None, None, None);
    Some(all)
}

fn process_of_all(all: &mut AlertProcess, more: &AlertProcess) {
    if all == more {
        return;
    }
    if all.pid != more.pid {
        *all = AlertProcess {
            comm: all.comm.take().filter(|comm| Some(comm) == more.comm.as_ref()),
            exe: all.exe.take().filter(|exe| Some(exe) == more.exe.as_ref()),
            uid: all.uid.filter(|uid| Some(*uid) == more.uid),
            hash: all.hash.take().filter(|hash| Some(hash) == more.hash.as_ref()),
            user: all.user.take().filter(|user| Some(user) == more.user.as_ref()),
            ..AlertProcess::default()
        };
    } else {
        all.clone_from(more);
    }
}

fn full_ns(limits: Limits) -> u64 {
    cost_ns(limits).saturating_mul(u64::from(limits.burst))
}

fn cost_ns(limits: Limits) -> u64 {
    MINUTE_NS / u64::from(limits.per_minute.max(1))
}

/// Stands for workloads that there is no room for.
const NOBODY: u64 = u64::MAX;
/// The reason of alerts that have several.
const MANY: &str = "many";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::sample::{self, after_ns};
    use crate::spool::owner;
    use uuid::Uuid;

    const SECOND_NS: u64 = 1_000_000_000;
    const LIMITS: Limits = Limits { burst: 3, per_minute: 60 };

    struct Tried {
        limiter: Limiter,
        through: u64,
    }

    impl Tried {
        fn new() -> Self {
            Self {
                limiter: Limiter::new(LIMITS, 10 * SECOND_NS, Box::new(|_| Uuid::from_u128(9))),
                through: 0,
            }
        }

        fn give(&mut self, alert: &Alert, seconds: u64) -> bool {
            let through = self.limiter.lets_through(alert, owner(alert), &after_ns(seconds * SECOND_NS));
            self.through += if through { alert.count } else { 0 };
            through
        }

        fn due(&mut self, seconds: u64) -> Vec<Alert> {
            self.limiter.due(&after_ns(seconds * SECOND_NS), false)
        }
    }

    fn to(number: u8) -> Alert {
        let mut alert = sample::alert();
        alert.flow.as_mut().unwrap().destination = Some([198, 51, 100, number].into());
        alert
    }

    #[test]
    fn what_is_too_much_is_told_in_one_with_the_sum_of_all() {
        let mut tried = Tried::new();
        let through = (0..10).filter(|number| tried.give(&to(*number), 0)).count();
        assert_eq!(through, 3);
        let quiet = Alert { workload: AlertWorkload { unit: Some("b".into()), ..to(1).workload }, ..to(1) };
        assert!(tried.give(&quiet, 0), "another workload");
        assert!(tried.give(&Alert { severity: Severity::High, ..to(1) }, 0), "another severity");
        let told = tried.due(0);
        let [all] = &told[..] else { panic!("{told:?}") };
        assert_eq!((all.count, all.limited.as_ref().unwrap().alerts), (7 * to(1).count, 7));
        let flow = all.flow.as_ref().unwrap();
        assert_eq!((flow.destination, flow.destination_port), (None, Some(53)));
        assert_eq!((&all.dns, all.process.pid), (&None, Some(4_321)));
        assert_eq!((all.first, all.last), (to(1).first, to(1).last));
        // A token a second.
        assert!(tried.give(&to(1), 1) && !tried.give(&to(2), 1));
        assert_eq!(tried.due(9), [], "not so soon");
        assert_eq!(tried.due(10)[0].dns, to(2).dns, "one alone is what it was");
        assert_eq!(tried.limiter.counters(), LimitCounters { folded: 8, summaries: 2, pending: 0 });
    }

    #[test]
    fn what_is_not_the_same_is_not_said_of_all() {
        let mut tried = Tried::new();
        (0..3).for_each(|number| assert!(tried.give(&to(number), 0)));
        let mut other = to(5);
        other.flow.as_mut().unwrap().protocol = "tcp".to_owned();
        (other.process.pid, other.reason) = (Some(7), "rule".to_owned());
        (other.workload.cgroup, other.rule) = (Some("/system.slice/orders.service/b".to_owned()), None);
        assert!(!tried.give(&to(4), 0) && !tried.give(&other, 0));
        let all = tried.limiter.due(&after_ns(0), true).remove(0);
        assert_eq!((&all.flow, &all.rule, &*all.reason), (&None, &None, MANY));
        assert_eq!((all.process.pid, all.process.exe.as_deref()), (None, Some("/usr/bin/dig")));
        assert_eq!((all.workload.cgroup, all.workload.unit.as_deref()), (None, Some("orders.service")));
    }

    #[test]
    fn what_the_agent_says_of_itself_is_not_limited() {
        let mut tried = Tried::new();
        let own = Alert { kind: Kind::Tamper, ..to(1) };
        assert!((0..100).all(|_| tried.give(&own, 0)));
    }

    #[test]
    fn so_many_workloads_that_there_is_no_room_share_one_bucket_and_every_refusal_is_counted() {
        let mut tried = Tried::new();
        let total = BUCKETS_MAX as u64 + 50;
        for number in 0..total {
            let unit = Some(format!("{number}.service"));
            tried.give(&Alert { workload: AlertWorkload { unit, ..to(1).workload }, ..to(1) }, 0);
        }
        assert_eq!(tried.limiter.buckets.len(), BUCKETS_MAX + 1);
        let told: u64 = tried.limiter.due(&after_ns(0), true).iter().map(|alert| alert.count).sum();
        assert_eq!(tried.through + told, total * to(1).count);
        // A moment later all are full again but the one that is shared.
        assert!(tried.give(&to(1), 600));
        assert!(tried.limiter.buckets.len() < 3, "{}", tried.limiter.buckets.len());
    }
}
