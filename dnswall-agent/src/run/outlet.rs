//! Takes alerts, hands each to the sinks, to whoever follows, and to the memory that `dnswall events` reads.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

use crate::alert::Alert;
use crate::sink::{Dispatcher, SinkStatus};

/// Alerts kept in memory.
pub const RECENT_MAX: usize = 1000;
/// Alerts a follower may be behind before it misses some, which it is told.
const BEHIND_MAX: usize = 1024;

/// Where alerts leave the agent.
#[derive(Debug)]
pub struct Outlet {
    inner: Mutex<Inner>,
    live: broadcast::Sender<Arc<str>>,
}

#[derive(Debug)]
struct Inner {
    dispatcher: Dispatcher,
    recent: VecDeque<Arc<str>>,
}

impl Outlet {
    /// With these sinks.
    pub fn new(dispatcher: Dispatcher) -> Self {
        let (live, _) = broadcast::channel(BEHIND_MAX);
        Self { inner: Mutex::new(Inner { dispatcher, recent: VecDeque::new() }), live }
    }

    /// Hands an alert to everybody. Never waits.
    pub fn deliver(&self, alert: &Alert) {
        let json: Arc<str> = Arc::from(alert.to_json_line().trim_end());
        let mut inner = self.inner();
        if inner.recent.len() >= RECENT_MAX {
            inner.recent.pop_front();
        }
        inner.recent.push_back(Arc::clone(&json));
        inner.dispatcher.deliver(alert);
        // An error only says that nobody follows.
        let _ = self.live.send(json);
    }

    /// The last alerts, oldest first, and each that follows them: none twice, none left out.
    pub fn events(&self, last: usize) -> (Vec<Arc<str>>, broadcast::Receiver<Arc<str>>) {
        let inner = self.inner();
        let skip = inner.recent.len().saturating_sub(last);
        (inner.recent.iter().skip(skip).cloned().collect(), self.live.subscribe())
    }

    /// What became of the alerts, by sink.
    pub fn sinks(&self) -> Vec<SinkStatus> {
        self.inner().dispatcher.status()
    }

    /// Takes no more alerts for the sinks.
    pub fn close(&self) {
        self.inner().dispatcher.close();
    }

    /// Whether the sinks have written all they got.
    pub fn is_settled(&self) -> bool {
        self.inner().dispatcher.is_settled()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every change in it is whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        let (last, mut live) = outlet.events(3);
        let last: Vec<u64> = last.iter().map(|line| counted(line)).collect();
        assert_eq!(last, [1002, 1003, 1004]);
        deliver(7);
        assert_eq!(counted(&live.try_recv().unwrap()), 7);
        assert!(live.try_recv().is_err());
        assert_eq!(outlet.events(usize::MAX).0.len(), RECENT_MAX);
    }
}
