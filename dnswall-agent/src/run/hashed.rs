//! Takes alerts whose program's hash is asked for, gives each with it as soon as it is known, or without when it does not come in time.
//! The others do not wait.

use std::collections::VecDeque;

use crate::alert::{Alert, AlertHash};
use crate::event::HashCell;

/// How long an alert waits for its hash, in nanoseconds. A program of a few megabytes takes as many milliseconds.
pub const PATIENCE_NS: u64 = 250_000_000;
/// Alerts that wait; one more goes without.
pub const HELD_MAX: usize = 256;

/// Alerts that wait for a hash, in the order in which they came.
#[derive(Debug, Default)]
pub struct Held {
    waiting: VecDeque<Waiting>,
    unhashed: u64,
}

#[derive(Debug)]
struct Waiting {
    alert: Alert,
    hash: HashCell,
    until_ns: u64,
}

impl Held {
    /// Takes an alert; gives it back when it need not wait.
    pub fn take(&mut self, alert: Alert, hash: HashCell, now_ns: u64) -> Option<Alert> {
        if !hash.is_pending() {
            return Some(with(alert, &hash));
        }
        if self.waiting.len() >= HELD_MAX {
            self.unhashed += 1;
            return Some(alert);
        }
        self.waiting.push_back(Waiting { alert, hash, until_ns: now_ns + PATIENCE_NS });
        None
    }

    /// Those that need not wait any more.
    pub fn release(&mut self, now_ns: u64) -> Vec<Alert> {
        let mut released = Vec::new();
        for waiting in std::mem::take(&mut self.waiting) {
            let is_pending = waiting.hash.is_pending();
            if is_pending && waiting.until_ns > now_ns {
                self.waiting.push_back(waiting);
                continue;
            }
            self.unhashed += u64::from(is_pending);
            released.push(with(waiting.alert, &waiting.hash));
        }
        released
    }

    /// How long the first of them waits yet, in nanoseconds.
    pub fn patience_ns(&self, now_ns: u64) -> Option<u64> {
        self.waiting.front().map(|waiting| waiting.until_ns.saturating_sub(now_ns))
    }

    /// Alerts that went without a hash because it did not come in time.
    pub const fn unhashed(&self) -> u64 {
        self.unhashed
    }
}

fn with(mut alert: Alert, hash: &HashCell) -> Alert {
    alert.process.hash = AlertHash::of(hash);
    alert
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::sample;
    use std::sync::Arc;

    fn pending() -> HashCell {
        let cell = HashCell::default();
        assert!(cell.ask());
        cell
    }

    fn hash(alert: &Alert) -> Option<&str> {
        alert.process.hash.as_ref().map(|hash| hash.sha256.as_str())
    }

    #[test]
    fn an_alert_waits_for_its_hash_and_no_longer_than_it_may() {
        let mut held = Held::default();
        let (slow, quick) = (pending(), pending());
        assert_eq!(held.take(sample::alert(), slow, 5), None);
        assert_eq!(held.take(sample::alert(), quick.clone(), 10), None);
        assert_eq!(held.patience_ns(15), Some(PATIENCE_NS - 10));
        assert_eq!(held.release(20), []);
        quick.answer(Some(Arc::from("ab")));
        let released = held.release(20);
        assert_eq!((released.len(), hash(&released[0])), (1, Some("ab")), "the later one first");
        assert_eq!(held.release(PATIENCE_NS + 4), []);
        let released = held.release(PATIENCE_NS + 5);
        assert_eq!((released.len(), hash(&released[0]), held.unhashed()), (1, None, 1));
        assert_eq!(held.patience_ns(0), None);
    }

    #[test]
    fn who_need_not_wait_does_not() {
        let mut held = Held::default();
        assert!(held.take(sample::alert(), HashCell::default(), 0).is_some(), "nobody asked");
        let known = pending();
        known.answer(Some(Arc::from("ab")));
        assert_eq!(held.take(sample::alert(), known, 0).as_ref().and_then(hash), Some("ab"));
        let none = pending();
        none.answer(None);
        assert!(held.take(sample::alert(), none, 0).is_some_and(|alert| hash(&alert).is_none()));
        for _ in 0..HELD_MAX {
            assert_eq!(held.take(sample::alert(), pending(), 0), None);
        }
        assert!(held.take(sample::alert(), pending(), 0).is_some(), "too many wait");
        assert_eq!((held.unhashed(), held.release(u64::MAX).len()), (1, HELD_MAX));
    }
}
