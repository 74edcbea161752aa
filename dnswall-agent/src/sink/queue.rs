//! Alerts on their way to one sink: at most so many, in order, until it is closed and empty.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::alert::Alert;

/// Alerts waiting for one sink: a few scans at their first moment. As a rule 3 MiB, and four times that with the
/// longest of command lines.
pub const QUEUE_ALERTS_MAX: usize = 2_048;

/// A bounded queue between one producer and one consumer.
#[derive(Debug)]
pub struct Queue {
    capacity: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    alerts: VecDeque<Arc<Alert>>,
    closed: bool,
}

impl Queue {
    /// An empty one.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Puts one in and never waits; `false` when it is full or closed.
    #[must_use]
    pub fn push(&self, alert: Arc<Alert>) -> bool {
        let mut state = self.lock();
        if state.closed || state.alerts.len() >= self.capacity {
            return false;
        }
        state.alerts.push_back(alert);
        self.changed.notify_one();
        true
    }

    /// Whether there is no room now.
    pub fn is_full(&self) -> bool {
        self.lock().alerts.len() >= self.capacity
    }

    /// Takes the oldest, and waits for one; `None` once it is closed and empty.
    pub fn pop(&self) -> Option<Arc<Alert>> {
        let mut state = self.lock();
        loop {
            if let Some(alert) = state.alerts.pop_front() {
                return Some(alert);
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes no more; what is in it can still be taken out.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Each change is a single step, so a panic elsewhere leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::sample;

    #[test]
    fn it_is_bounded_ordered_and_drained_when_closed() {
        let queue = Queue::new(2);
        let alert = |count| Arc::new(Alert { count, ..sample::alert() });
        assert!(queue.push(alert(1)) && queue.push(alert(2)));
        assert!(!queue.push(alert(3)));
        assert_eq!(queue.pop().unwrap().count, 1);
        queue.close();
        assert!(!queue.push(alert(4)));
        assert_eq!(queue.pop().unwrap().count, 2);
        assert!(queue.pop().is_none() && queue.pop().is_none());
    }

    #[test]
    fn a_waiting_consumer_wakes() {
        let queue = Arc::new(Queue::new(1));
        let consumer = std::thread::spawn({
            let queue = queue.clone();
            move || (queue.pop().is_some(), queue.pop().is_some())
        });
        assert!(queue.push(Arc::new(sample::alert())));
        queue.close();
        assert_eq!(consumer.join().unwrap(), (true, false));
    }
}
