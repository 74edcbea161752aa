//! Follows one alert through the spool: when it was taken, saved, and by which sink it was settled.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{Inner, Spool};

/// Alerts that are followed at once; the oldest is given up.
const TRACES_MAX: usize = 4;

/// How far an alert has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Which alert.
    pub id: Uuid,
    /// When it was given to the spool; `None` when it never was, or found no room.
    pub taken: Option<Instant>,
    /// When it was on disk.
    pub saved: Option<Instant>,
    /// For each sink by its name: when it was settled, and why not yet.
    pub sinks: Vec<SinkTrace>,
    pub(super) sequence: Option<u64>,
}

/// How far an alert has come with one sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkTrace {
    /// The sink's name.
    pub name: String,
    /// When it had the alert, or had refused it for good.
    pub settled: Option<Instant>,
    /// It refused the alert for good, or the alert made room before it had it.
    pub lost: bool,
    /// What went wrong last, if the last attempt failed.
    pub error: Option<String>,
}

impl Trace {
    /// Of an alert that has come so far.
    pub fn new(id: Uuid, taken: Option<Instant>, saved: Option<Instant>, sinks: Vec<SinkTrace>) -> Self {
        Self { id, taken, saved, sinks, sequence: None }
    }

    /// Whether nothing more will come of it.
    pub fn is_done(&self) -> bool {
        self.saved.is_some() && self.sinks.iter().all(|sink| sink.settled.is_some())
    }
}

impl Spool {
    /// Follows the alert of this id, which is not here yet.
    pub fn follow(&self, id: Uuid) {
        let mut inner = self.inner();
        let sinks = inner
            .lanes
            .iter()
            .map(|lane| SinkTrace { name: lane.name.clone(), settled: None, lost: false, error: None })
            .collect();
        inner.traces.push_back(Trace::new(id, None, None, sinks));
        if inner.traces.len() > TRACES_MAX {
            inner.traces.pop_front();
        }
    }

    /// How far it has come, as soon as it is done or `patience` is over; `None` when it is not followed.
    pub fn trace(&self, id: Uuid, patience: Duration) -> Option<Trace> {
        let until = Instant::now() + patience;
        loop {
            let inner = self.inner();
            let at = inner.traces.iter().position(|trace| trace.id == id)?;
            let left = until.saturating_duration_since(Instant::now());
            if inner.traces[at].is_done() || left.is_zero() || inner.is_closed() {
                let mut trace = inner.traces[at].clone();
                for (sink, lane) in trace.sinks.iter_mut().zip(&inner.lanes) {
                    sink.error = lane.error_now().map(str::to_owned);
                }
                return Some(trace);
            }
            drop(self.wait(&self.saved, inner, left));
        }
    }
}

impl Inner {
    /// An alert is in the queue.
    pub(super) fn trace_taken(&mut self, id: Uuid) {
        if let Some(trace) = self.traces.iter_mut().find(|trace| trace.id == id) {
            trace.taken = Some(Instant::now());
        }
    }

    /// It has its number.
    pub(super) fn trace_numbered(&mut self, id: Uuid, sequence: u64) {
        if let Some(trace) = self.traces.iter_mut().find(|trace| trace.id == id) {
            trace.sequence = Some(sequence);
        }
    }

    /// All before `saved` are on disk.
    pub(super) fn trace_saved(&mut self) {
        let saved = self.saved;
        for trace in &mut self.traces {
            if trace.saved.is_none() && trace.sequence.is_some_and(|sequence| sequence < saved) {
                trace.saved = Some(Instant::now());
            }
        }
    }

    /// A lane has come from one number to another; what it did not get on the way is in `lost`.
    pub(super) fn trace_settled(&mut self, lane: usize, before: u64, next: u64, lost: impl Fn(u64) -> bool) {
        for trace in &mut self.traces {
            let Some(sequence) = trace.sequence.filter(|sequence| (before..next).contains(sequence)) else {
                continue;
            };
            if let Some(sink) = trace.sinks.get_mut(lane) {
                sink.settled = Some(Instant::now());
                sink.lost = lost(sequence);
            }
        }
    }
}
