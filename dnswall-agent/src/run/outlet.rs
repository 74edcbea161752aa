//! Takes alerts, hands each to the spool and, when it is on disk, to whoever follows and to the memory that `dnswall events`
//! reads; of records of questions the last two.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::alert::filter::Filter;
use crate::alert::group;
use crate::alert::limit::{LimitCounters, Limiter, Limits};
use crate::alert::mute::{MuteStatus, Mutes};
use crate::alert::{Alert, Mark};
use crate::asked::DnsRecord;
use crate::event::Clocks;
use crate::spool::{self, Losses, SinkStatus, Spool, SpoolStatus, Trace};

/// Alerts kept in memory, and records of questions.
pub const RECENT_MAX: usize = 1000;
/// Lines a follower may be behind before it misses some, which it is told.
const BEHIND_MAX: usize = 1024;

/// Where alerts leave the agent, and records of questions.
#[derive(Debug)]
pub struct Outlet {
    spool: Arc<Spool>,
    mutes: Mutes,
    limiter: Mutex<Limiter>,
    alerts: Feed,
    questions: Feed,
}

/// The last lines of JSON, and those that follow them.
#[derive(Debug)]
struct Feed {
    recent: Mutex<VecDeque<Arc<str>>>,
    live: broadcast::Sender<Arc<str>>,
}

/// What can be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Alerts.
    Alerts,
    /// Records of questions.
    Questions,
}

impl Outlet {
    /// Into this spool, but for what is muted and what a workload has too much of, with the least time between two summaries
    /// of that; what the spool has from before is shown too.
    pub fn new(spool: Arc<Spool>, mutes: Mutes, limits: Limits, interval: Duration) -> Self {
        let alerts = Feed::default();
        locked(&alerts.recent).extend(spool.last(RECENT_MAX));
        let interval_ns = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        let limiter = Mutex::new(Limiter::new(limits, interval_ns, Box::new(group::new_id)));
        Self { spool, mutes, limiter, alerts, questions: Feed::default() }
    }

    /// Hands an alert to the spool, unless it is muted or its workload had too many: then a summary stands for it. Never waits.
    pub fn deliver(&self, alert: &Alert) {
        if self.mutes.takes(alert, Timestamp::now()) {
            // An agent after one that was killed knows less of it, and might not see that it is muted.
            self.spool.note(alert.marks.clone());
            return;
        }
        if locked(&self.limiter).lets_through(alert, spool::owner(alert), &Clocks::read()) {
            self.spool.push(alert);
        }
    }

    /// Hands the summaries that are due to the spool, or all of them before the agent ends.
    pub fn summarize(&self, clocks: &Clocks, everything: bool) {
        let summaries = locked(&self.limiter).due(clocks, everything);
        summaries.iter().for_each(|alert| {
            self.spool.push(alert);
        });
    }

    /// What workloads had too much of.
    pub fn limited(&self) -> LimitCounters {
        locked(&self.limiter).counters()
    }

    /// Keeps up to which totals refusals are counted that are in no alert.
    pub fn note(&self, marks: Vec<Mark>) {
        self.spool.note(marks);
    }

    /// Up to which of the kernel's totals the agent before this one told, as far as it was saved.
    pub fn told(&self) -> Vec<Mark> {
        self.spool.told()
    }

    /// Forgets that: the kernel counts anew.
    pub fn forget_told(&self) {
        self.spool.forget_told();
    }

    /// What was lost.
    pub fn losses(&self) -> Losses {
        self.spool.losses()
    }

    /// What is wrong with the spool.
    pub fn trouble(&self) -> Option<String> {
        self.spool.trouble()
    }

    /// What is muted.
    pub fn mutes(&self) -> Vec<MuteStatus> {
        self.mutes.status(Timestamp::now())
    }

    /// Shows an alert that the spool has taken.
    pub fn show(&self, json: &Arc<str>) {
        self.alerts.put(Arc::clone(json));
    }

    /// Hands the record of a question to who follows them. Never waits.
    pub fn observe(&self, record: &DnsRecord) {
        self.questions.put(Arc::from(record.to_json()));
    }

    /// The last lines, of alerts those that are wanted, oldest first, and each that follows them: none twice, none left out. What is
    /// not in memory is read from the spool.
    pub fn events(
        &self,
        of: Stream,
        last: usize,
        filter: &Filter,
    ) -> (Vec<Arc<str>>, broadcast::Receiver<Arc<str>>) {
        match of {
            Stream::Alerts if last > RECENT_MAX || !filter.is_empty() => {
                let (newest, live) = self.alerts.read(1);
                let mut is_there = newest.is_empty();
                // What is younger comes by the other way.
                let found = self.spool.back(last, |json| {
                    is_there |= newest.iter().any(|newest| **newest == *json);
                    is_there && filter.wants_json(json)
                });
                (found, live)
            }
            Stream::Alerts => self.alerts.read(last),
            Stream::Questions => self.questions.read(last),
        }
    }

    /// What is in the spool, and how each sink is.
    pub fn status(&self) -> (SpoolStatus, Vec<SinkStatus>) {
        self.spool.status()
    }

    /// Follows the alert of this id, which is yet to come.
    pub fn follow(&self, id: Uuid) {
        self.spool.follow(id);
    }

    /// How far it has come, as soon as it is everywhere or `patience` is over.
    pub fn trace(&self, id: Uuid, patience: Duration) -> Option<Trace> {
        self.spool.trace(id, patience)
    }

    /// Takes no more alerts.
    pub fn close(&self) {
        self.spool.close();
    }

    /// Whether all that was taken is on disk, or as good as.
    pub fn is_saved(&self) -> bool {
        self.spool.is_saved()
    }

    /// Whether the sinks have all there is.
    pub fn is_settled(&self) -> bool {
        self.spool.is_settled()
    }
}

impl Default for Feed {
    fn default() -> Self {
        let (live, _) = broadcast::channel(BEHIND_MAX);
        Self { recent: Mutex::default(), live }
    }
}

impl Feed {
    fn put(&self, json: Arc<str>) {
        let mut recent = locked(&self.recent);
        if recent.len() >= RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(Arc::clone(&json));
        // Still under the lock, so that who begins to read gets it once. An error only says that nobody follows.
        let _ = self.live.send(json);
    }

    fn read(&self, last: usize) -> (Vec<Arc<str>>, broadcast::Receiver<Arc<str>>) {
        let recent = locked(&self.recent);
        let skip = recent.len().saturating_sub(last);
        (recent.iter().skip(skip).cloned().collect(), self.live.subscribe())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change in them is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::sample;

    fn counted(line: &str) -> u64 {
        serde_json::from_str::<Alert>(line).unwrap().count
    }

    #[test]
    fn the_last_and_the_next_are_given_without_a_gap() {
        let directory = tempfile::tempdir().unwrap();
        let (spool, _writer, _) = Spool::open(&directory.path().join("alerts"), 4 << 20, &[]).unwrap();
        let outlet = Outlet::new(spool, Mutes::default(), Limits::default(), Duration::ZERO);
        let show = |count| {
            let alert = Alert { count, ..sample::alert() };
            outlet.show(&sample::entry(&alert).json);
        };
        (0..RECENT_MAX as u64 + 5).for_each(show);
        let (last, mut live) = outlet.events(Stream::Alerts, 3, &Filter::default());
        let last: Vec<u64> = last.iter().map(|line| counted(line)).collect();
        assert_eq!(last, [1002, 1003, 1004]);
        show(7);
        assert_eq!(counted(&live.try_recv().unwrap()), 7);
        assert!(live.try_recv().is_err());
        assert_eq!(outlet.events(Stream::Alerts, RECENT_MAX, &Filter::default()).0.len(), RECENT_MAX);
    }
}
