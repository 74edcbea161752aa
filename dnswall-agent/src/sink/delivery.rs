//! Takes alerts from a lane of the spool, gives them to its sink, and tries again what failed. Starts no threads: each
//! delivery is to be run on one of its own.

use std::time::Duration;

use super::{Failure, Sent, Sink};
use crate::spool::{Entry, Lane, Settled, Taken, failure_words};

/// How long a lane is waited for at once.
const PATIENCE: Duration = Duration::from_secs(1);
/// The first wait after a failure.
const REST_MIN: Duration = Duration::from_millis(500);
/// The longest wait after many, and the longest that a far end may ask for.
const REST_MAX: Duration = Duration::from_secs(60);
/// Failures in a row after which the wait grows no more.
const DOUBLINGS_MAX: u32 = 7;
/// How often an alert may be refused for what it is until it is given up. A server that refuses everything is more likely
/// the wrong one, and whoever mends that is to find most of them still there.
const REFUSALS_MAX: u32 = 6;

/// After so many failures in a row at the same alert, the one behind it is tried alone: if that one is taken, it is the alert
/// that is not wanted, whatever the far end says.
const FAILURES_BEFORE_PROBE: u32 = 4;

/// A sink and its lane.
pub struct Delivery {
    lane: Lane,
    sink: Box<dyn Sink>,
    /// In a row.
    failures: u32,
    /// Which alert was refused last for what it is, and how often.
    refusals: (u64, u32),
    /// At which alert attempts failed last, and how often.
    stuck: (u64, u32),
    /// An alert was given up, and none taken since.
    has_given_up: bool,
}

impl Delivery {
    /// Of this lane's alerts to this sink.
    pub fn new(lane: Lane, sink: Box<dyn Sink>) -> Self {
        Self { lane, sink, failures: 0, refusals: (0, 0), stuck: (0, 0), has_given_up: false }
    }

    /// The sink's name.
    pub fn name(&self) -> &str {
        self.sink.name()
    }

    /// Delivers until the spool is closed and empty, or closed while the sink does not take what is there: the next agent
    /// goes on then.
    pub fn run(mut self) {
        loop {
            match self.lane.wait(self.sink.limits(), PATIENCE) {
                Taken::Ended => return,
                Taken::Nothing => self.sink.idle(),
                Taken::Batch(batch) => {
                    if !self.deliver(&batch) {
                        return;
                    }
                }
            }
        }
    }

    /// One attempt, and the rest after one that failed; `false` when there is to be no other.
    fn deliver(&mut self, batch: &[Entry]) -> bool {
        match self.sink.send(batch) {
            Ok(sent) => {
                if std::mem::take(&mut self.failures) > 0 {
                    tracing::info!(sink = self.sink.name(), "alerts are taken again");
                }
                self.lane.attempted(Ok(()));
                self.settle(batch, batch.len(), sent);
                if let Some(trouble) = self.sink.trouble() {
                    self.lane.trouble(trouble);
                }
                true
            }
            Err(Failure { why, settled, sent, after, refused }) => {
                let why = failure_words(&why);
                if self.failures == 0 {
                    tracing::warn!(
                        sink = self.sink.name(),
                        error = why,
                        "alerts are not taken; they are kept"
                    );
                }
                self.lane.attempted(Err(&why));
                self.settle(batch, settled.min(batch.len()), sent);
                let left = &batch[settled.min(batch.len())..];
                if refused {
                    self.refused(left, &why);
                } else if self.is_alone_in_it(left) {
                    self.has_given_up = false;
                    self.refused(left, &why);
                }
                let rest = after.unwrap_or_default().min(REST_MAX).max(rest_after(self.failures));
                self.failures = self.failures.saturating_add(1);
                self.lane.rest(spread(rest))
            }
        }
    }

    fn settle(&mut self, batch: &[Entry], alerts: usize, Sent { bytes, rejected }: Sent) {
        if alerts > rejected.len() {
            self.has_given_up = false;
        }
        for (place, why) in &rejected {
            self.note_rejected(batch.get(*place), why);
        }
        let rejected = rejected.into_iter().map(|(place, _)| place).collect();
        self.lane.settle(batch, Settled { alerts, rejected, bytes });
    }

    /// Whether it is the first of these that is not wanted, and the far end takes others.
    fn is_alone_in_it(&mut self, left: &[Entry]) -> bool {
        let Some(first) = left.first() else { return false };
        let (sequence, times) = self.stuck;
        self.stuck = (first.sequence, if sequence == first.sequence { times + 1 } else { 1 });
        // It comes again later, with the same id.
        self.stuck.1 > FAILURES_BEFORE_PROBE
            && left.get(1..2).is_some_and(|next| !next.is_empty() && self.sink.send(next).is_ok())
    }

    /// An alert that is refused again and again for what it is does not keep the others waiting for ever.
    fn refused(&mut self, left: &[Entry], why: &str) {
        let Some(first) = left.first() else { return };
        let (sequence, times) = self.refusals;
        let times = if sequence == first.sequence { times + 1 } else { 1 };
        self.refusals = (first.sequence, times);
        if times >= REFUSALS_MAX {
            self.note_rejected(Some(first), why);
            self.lane.settle(left, Settled { alerts: 1, rejected: vec![0], bytes: 0 });
            // What was in the way is gone. When nothing is taken between two of them, the far end wants none of it, and is left
            // alone for longer each time as ever.
            if std::mem::replace(&mut self.has_given_up, true) {
                return;
            }
            self.failures = 0;
        }
    }

    fn note_rejected(&self, entry: Option<&Entry>, why: &str) {
        let id = entry.map(|entry| entry.alert.id.to_string()).unwrap_or_default();
        let why = failure_words(why);
        tracing::error!(sink = self.sink.name(), id, why, "an alert will never be taken");
        self.lane.trouble(&format!("alert {id} was rejected: {why}"));
    }
}

/// Half a second, then double each time.
fn rest_after(failures: u32) -> Duration {
    (REST_MIN * 2u32.pow(failures.min(DOUBLINGS_MAX))).min(REST_MAX)
}

/// Not all hosts of a fleet at the same moment: up to a quarter more.
fn spread(rest: Duration) -> Duration {
    let random = uuid::Uuid::new_v4().as_bytes()[0];
    rest + rest / 4 * u32::from(random) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_grows_to_a_minute_and_no_further() {
        let rests: Vec<u64> = (0..10).map(|failures| rest_after(failures).as_millis() as u64).collect();
        assert_eq!(rests, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]);
        let spread = spread(Duration::from_secs(60));
        assert!((Duration::from_secs(60)..=Duration::from_secs(75)).contains(&spread), "{spread:?}");
    }
}
