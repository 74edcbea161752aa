//! Takes alerts, hands each to the sinks, to whoever follows, and to the memory that `dnswall events` reads; of records of questions
//! the last two.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

use crate::alert::Alert;
use crate::asked::DnsRecord;
use crate::sink::{Dispatcher, SinkStatus};

/// Alerts kept in memory, and records of questions.
pub const RECENT_MAX: usize = 1000;
/// Lines a follower may be behind before it misses some, which it is told.
const BEHIND_MAX: usize = 1024;

/// Where alerts leave the agent, and records of questions.
#[derive(Debug)]
pub struct Outlet {
    dispatcher: Mutex<Dispatcher>,
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
    /// With these sinks.
    pub fn new(dispatcher: Dispatcher) -> Self {
        Self { dispatcher: Mutex::new(dispatcher), alerts: Feed::default(), questions: Feed::default() }
    }

    /// Hands an alert to everybody. Never waits.
    pub fn deliver(&self, alert: &Alert) {
        self.dispatcher().deliver(alert);
        self.alerts.put(alert.to_json_line().trim_end());
    }

    /// Hands the record of a question to who follows them. Never waits.
    pub fn observe(&self, record: &DnsRecord) {
        self.questions.put(&record.to_json());
    }

    /// The last lines, oldest first, and each that follows them: none twice, none left out.
    pub fn events(&self, of: Stream, last: usize) -> (Vec<Arc<str>>, broadcast::Receiver<Arc<str>>) {
        match of {
            Stream::Alerts => self.alerts.read(last),
            Stream::Questions => self.questions.read(last),
        }
    }

    /// What became of the alerts, by sink.
    pub fn sinks(&self) -> Vec<SinkStatus> {
        self.dispatcher().status()
    }

    /// Takes no more alerts for the sinks.
    pub fn close(&self) {
        self.dispatcher().close();
    }

    /// Whether the sinks have written all they got.
    pub fn is_settled(&self) -> bool {
        self.dispatcher().is_settled()
    }

    fn dispatcher(&self) -> MutexGuard<'_, Dispatcher> {
        locked(&self.dispatcher)
    }
}

impl Default for Feed {
    fn default() -> Self {
        let (live, _) = broadcast::channel(BEHIND_MAX);
        Self { recent: Mutex::default(), live }
    }
}

impl Feed {
    fn put(&self, json: &str) {
        let json: Arc<str> = Arc::from(json);
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
        let outlet = Outlet::new(Dispatcher::default());
        let deliver = |count| outlet.deliver(&Alert { count, ..sample::alert() });
        (0..RECENT_MAX as u64 + 5).for_each(deliver);
        let (last, mut live) = outlet.events(Stream::Alerts, 3);
        let last: Vec<u64> = last.iter().map(|line| counted(line)).collect();
        assert_eq!(last, [1002, 1003, 1004]);
        deliver(7);
        assert_eq!(counted(&live.try_recv().unwrap()), 7);
        assert!(live.try_recv().is_err());
        assert_eq!(outlet.events(Stream::Alerts, usize::MAX).0.len(), RECENT_MAX);
    }
}
