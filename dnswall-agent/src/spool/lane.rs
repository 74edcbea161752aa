//! One sink's way through the spool: what it is to get next, and what it has taken.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::stamp::Stamp;
use super::status::SinkStatus;
use super::{Entry, Inner, Limits, Spool};
use crate::format::value::bounded;

/// The sink's end of the spool.
#[derive(Debug)]
pub struct Lane {
    spool: Arc<Spool>,
    index: usize,
    next: u64,
}

/// What there is for a sink.
#[derive(Debug)]
pub enum Taken {
    /// These, in order; never none.
    Batch(Vec<Entry>),
    /// Nothing yet.
    Nothing,
    /// Nothing any more.
    Ended,
}

/// What became of the first alerts of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// How many are done with: taken or rejected.
    pub alerts: usize,
    /// Which of them were rejected, by their place.
    pub rejected: Vec<usize>,
    /// Bytes that were taken.
    pub bytes: usize,
}

/// What is known of a lane.
#[derive(Debug, Default)]
pub(super) struct LaneState {
    pub(super) name: String,
    pub(super) next: u64,
    holds: Option<(u64, Stamp)>,
    written: u64,
    rejected: u64,
    lost: u64,
    failures: u64,
    bytes: u64,
    last_taken: Option<Timestamp>,
    failing: bool,
    last_error: Option<String>,
}

impl Lane {
    pub(super) fn new(spool: Arc<Spool>, index: usize) -> Self {
        let next = spool.inner().lanes[index].next;
        Self { spool, index, next }
    }

    /// The sink's name.
    pub fn name(&self) -> String {
        self.spool.inner().lanes[self.index].name.clone()
    }

    /// What comes next, waiting for it no longer than `patience`.
    pub fn wait(&self, limits: Limits, patience: Duration) -> Taken {
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let inner = self.spool.inner();
            if inner.end > self.next {
                drop(inner);
                let batch = self.read(limits);
                if let Some(first) = batch.first() {
                    self.spool.inner().lanes[self.index].holds = Some((first.sequence, first.stamp));
                    return Taken::Batch(batch);
                }
                // The disk cannot be read.
                let inner = self.spool.inner();
                if inner.closed {
                    return Taken::Ended;
                }
                drop(self.spool.wait(&self.spool.saved, inner, left));
            } else if inner.ended {
                return Taken::Ended;
            } else {
                drop(self.spool.wait(&self.spool.saved, inner, left));
            }
            if left.is_zero() {
                return Taken::Nothing;
            }
        }
    }

    /// Says what became of the first alerts of `batch`.
    pub fn settle(&mut self, batch: &[Entry], settled: Settled) {
        let Settled { alerts, rejected, bytes } = settled;
        let Some(last) = batch.get(..alerts).and_then(<[Entry]>::last) else { return };
        let next = last.sequence + 1;
        let mut inner = self.spool.inner();
        // Numbers have no holes: what is missing between them was evicted.
        let lost = (next - self.next).saturating_sub(alerts as u64);
        let written = alerts - rejected.len().min(alerts);
        let lane = &mut inner.lanes[self.index];
        lane.lost += lost;
        lane.rejected += (alerts - written) as u64;
        lane.written += written as u64;
        lane.bytes += bytes as u64;
        if written > 0 {
            lane.last_taken = Some(Timestamp::now());
        }
        let before = std::mem::replace(&mut lane.next, next);
        lane.holds = batch.get(alerts).map(|entry| (entry.sequence, entry.stamp));
        self.next = next;
        inner.cursors_changed = !inner.without_disk;
        let is_lost = |sequence: u64| {
            let place = batch[..alerts].iter().position(|entry| entry.sequence == sequence);
            place.is_none_or(|place| rejected.contains(&place))
        };
        inner.trace_settled(self.index, before, next, is_lost);
        self.spool.saved.notify_all();
        if inner.closed {
            self.spool.pushed.notify_one();
        }
    }

    /// Notes how the last attempt went: `Err` says why it failed.
    pub fn attempted(&self, result: Result<(), &str>) {
        let mut inner = self.spool.inner();
        let lane = &mut inner.lanes[self.index];
        lane.failing = result.is_err();
        if let Err(why) = result {
            lane.failures += 1;
            lane.last_error = Some(words(why));
        }
    }

    /// Notes what is wrong although alerts are taken.
    pub fn trouble(&self, what: &str) {
        self.spool.inner().lanes[self.index].last_error = Some(words(what));
    }

    /// Waits before another attempt; `false` when there is to be none, because the agent ends.
    pub fn rest(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let inner = self.spool.inner();
            if inner.closed {
                return false;
            }
            if left.is_zero() {
                return true;
            }
            drop(self.spool.wait(&self.spool.saved, inner, left));
        }
    }

    /// From memory what is there, else from disk.
    fn read(&self, limits: Limits) -> Vec<Entry> {
        let (from_memory, begins) = self.in_memory(limits);
        if begins.is_some_and(|begins| begins <= self.next) {
            return from_memory;
        }
        match self.spool.with_store(|store| store.map(|store| store.read(self.next, limits))) {
            Some(Ok(batch)) if !batch.is_empty() => batch,
            // What was there between has made room, or cannot be understood.
            Some(Ok(_)) => self.in_memory(limits).0,
            Some(Err(error)) => {
                self.attempted(Err(&format!("read the spool: {error}")));
                Vec::new()
            }
            None if self.spool.inner().without_disk => from_memory,
            None => {
                self.attempted(Err("what it is to get next is on a disk that cannot be read"));
                Vec::new()
            }
        }
    }

    /// What is in memory from where this lane is, and the number with which memory begins.
    fn in_memory(&self, limits: Limits) -> (Vec<Entry>, Option<u64>) {
        let inner = self.spool.inner();
        let begins = inner.recent.front().map(|entry| entry.sequence);
        let entries = inner.recent.iter().skip_while(|entry| entry.sequence < self.next);
        let mut bytes = 0;
        let mut batch = Vec::new();
        for entry in entries.take(limits.alerts) {
            bytes += entry.json.len();
            if bytes > limits.bytes && !batch.is_empty() {
                break;
            }
            batch.push(entry.clone());
        }
        (batch, begins)
    }
}

/// What a far end said may be anything, and goes to terminals and into other sinks' alerts.
fn words(said: &str) -> String {
    bounded(said, WORDS_BYTES_MAX)
}

/// Bytes of what went wrong that are kept.
const WORDS_BYTES_MAX: usize = 512;

impl LaneState {
    pub(super) fn new(name: &str, next: u64) -> Self {
        Self { name: name.to_owned(), next, ..Self::default() }
    }

    /// What went wrong, if the last attempt failed.
    pub(super) fn error_now(&self) -> Option<&str> {
        self.last_error.as_deref().filter(|_| self.failing)
    }

    pub(super) fn status(&self, inner: &Inner, now: &Stamp) -> SinkStatus {
        // What made room is lost already, though the sink learns of it only when it takes what comes after.
        let gone = inner.first.min(inner.saved).saturating_sub(self.next);
        let waiting = inner.end.saturating_sub(self.next + gone) + inner.in_flight + inner.queue.len() as u64;
        let held = self.holds.filter(|(sequence, _)| *sequence >= self.next + gone).map(|(_, stamp)| stamp);
        let known =
            || inner.recent.iter().find(|entry| entry.sequence >= self.next + gone).map(|entry| entry.stamp);
        let oldest = if inner.end > self.next { held.or_else(known) } else { None };
        SinkStatus {
            name: self.name.clone(),
            written: self.written,
            rejected: self.rejected,
            lost: self.lost + gone,
            failures: self.failures,
            waiting,
            oldest_waiting_secs: oldest.map(|stamp| stamp.age(now).as_secs_f64()),
            bytes: self.bytes,
            last_taken: self.last_taken.map(|time| format!("{time:.3}")),
            failing: self.failing,
            last_error: self.last_error.clone(),
        }
    }
}
