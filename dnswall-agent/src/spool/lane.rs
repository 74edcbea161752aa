//! One sink's way through the spool: what it is to get next, and what it has taken.

use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::stamp::Stamp;
use super::status::SinkStatus;
use super::{Cursor, Entry, Inner, Limits, Phase, Spool, Store};
use crate::format::value::bounded;

/// The sink's end of the spool.
#[derive(Debug)]
pub struct Lane {
    spool: Arc<Spool>,
    index: usize,
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
    /// What it is to get next; only its own lane changes it.
    pub(super) next: u64,
    /// What it is trying to give its sink.
    holds: Option<Holds>,
    /// How many it did not get, before this agent.
    lost_before: u64,
    /// How many of all that it did not get, or will not, an alert told of.
    told: u64,
    written: u64,
    rejected: u64,
    lost: u64,
    failures: u64,
    bytes: u64,
    last_taken: Option<Timestamp>,
    failing: bool,
    last_error: Option<String>,
}

/// Alerts in a lane's hand: whatever happens on disk, it has them.
#[derive(Clone, Copy, Debug)]
struct Holds {
    first: u64,
    last: u64,
    alerts: u64,
    /// Of the first.
    stamp: Stamp,
    /// An attempt with them goes on. After one that failed they are read again, if they are still there.
    in_hand: bool,
}

impl Holds {
    fn of(batch: &[Entry]) -> Option<Self> {
        let (first, last) = (batch.first()?, batch.last()?);
        Some(Self {
            first: first.sequence,
            last: last.sequence,
            alerts: batch.len() as u64,
            stamp: first.stamp,
            in_hand: true,
        })
    }
}

impl Lane {
    pub(super) const fn new(spool: Arc<Spool>, index: usize) -> Self {
        Self { spool, index }
    }

    /// The sink's name.
    pub fn name(&self) -> String {
        self.spool.inner().lanes[self.index].name.clone()
    }

    /// What comes next, waiting for it no longer than `patience`.
    pub fn wait(&self, limits: Limits, patience: Duration) -> Taken {
        let until = Instant::now() + patience;
        let mut inner = self.spool.inner();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let next = inner.lanes[self.index].next;
            if inner.end > next {
                let batch;
                (inner, batch) = self.read(inner, next, limits);
                let lane = &mut inner.lanes[self.index];
                lane.holds = Holds::of(&batch);
                if lane.holds.is_some() {
                    return Taken::Batch(batch);
                }
                // The disk cannot be read.
                if inner.is_closed() {
                    return Taken::Ended;
                }
            } else if inner.phase == Phase::Ended {
                return Taken::Ended;
            }
            if left.is_zero() {
                return Taken::Nothing;
            }
            inner = self.spool.wait(&self.spool.saved, inner, left);
        }
    }

    /// Says what became of the first alerts of `batch`.
    pub fn settle(&self, batch: &[Entry], settled: Settled) {
        let Settled { alerts, rejected, bytes } = settled;
        let Some(last) = batch.get(..alerts).and_then(<[Entry]>::last) else { return };
        let next = last.sequence + 1;
        let mut inner = self.spool.inner();
        // Each number is one more than the one before: what is missing between them made room.
        let lost = (next - inner.lanes[self.index].next).saturating_sub(alerts as u64);
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
        lane.holds = batch.get(alerts..).and_then(Holds::of);
        inner.cursors_changed = !inner.without_disk;
        let is_lost = |sequence: u64| {
            let place = batch[..alerts].iter().position(|entry| entry.sequence == sequence);
            place.is_none_or(|place| rejected.contains(&place))
        };
        inner.trace_settled(self.index, before, next, is_lost);
        self.spool.saved.notify_all();
        if inner.is_closed() {
            self.spool.pushed.notify_one();
        }
    }

    /// Notes how the last attempt went: `Err` says why it failed.
    pub fn attempted(&self, result: Result<(), &str>) {
        let lane = &mut self.spool.inner().lanes[self.index];
        match result {
            Ok(()) => lane.failing = false,
            Err(why) => lane.failed(why),
        }
    }

    /// Notes what is wrong although alerts are taken.
    pub fn trouble(&self, what: &str) {
        self.spool.inner().lanes[self.index].last_error = Some(failure_words(what));
    }

    /// Waits before another attempt; `false` when there is to be none, because the agent ends.
    pub fn rest(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut inner = self.spool.inner();
        if let Some(holds) = &mut inner.lanes[self.index].holds {
            holds.in_hand = false;
        }
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if inner.is_closed() {
                return false;
            }
            if left.is_zero() {
                return true;
            }
            inner = self.spool.wait(&self.spool.saved, inner, left);
        }
    }

    /// From memory what is there, else from disk, without the lock.
    fn read<'s>(&'s self, inner: Inners<'s>, next: u64, limits: Limits) -> (Inners<'s>, Vec<Entry>) {
        let begins = inner.begins();
        if begins <= next {
            let batch = inner.in_memory(limits, next);
            return (inner, batch);
        }
        let without_disk = inner.without_disk;
        drop(inner);
        let read = self.spool.with_store(|store| store.map(|store| store.read(next..begins, limits)));
        let mut inner = self.spool.inner();
        let batch = match read {
            Some(Ok(batch)) if !batch.is_empty() => batch,
            // What was there between has made room, or cannot be understood.
            Some(Ok(_)) => inner.behind_a_gap(self.index, begins, limits),
            None if without_disk => inner.behind_a_gap(self.index, begins, limits),
            Some(Err(error)) => {
                inner.lanes[self.index].failed(&format!("read the spool: {error}"));
                Vec::new()
            }
            None => {
                inner.lanes[self.index].failed("what it is to get next is on a disk that cannot be read");
                Vec::new()
            }
        };
        (inner, batch)
    }
}

type Inners<'s> = MutexGuard<'s, Inner>;

impl Inner {
    /// What is in memory from this number on.
    fn in_memory(&self, limits: Limits, from: u64) -> Vec<Entry> {
        let entries = self.recent.iter().skip_while(|entry| entry.sequence < from);
        let mut bytes = 0;
        let mut batch = Vec::new();
        for entry in entries.take(limits.alerts) {
            bytes += entry.json.len();
            if bytes > limits.bytes && !batch.is_empty() {
                break;
            }
            batch.push(entry.clone());
        }
        batch
    }

    /// The same for a lane that will not get what is before that. Where nothing is behind it there is nothing to settle, so it is
    /// done with it now.
    fn behind_a_gap(&mut self, lane: usize, from: u64, limits: Limits) -> Vec<Entry> {
        let batch = self.in_memory(limits, from);
        let state = &mut self.lanes[lane];
        if batch.is_empty() && from > state.next {
            let before = std::mem::replace(&mut state.next, from);
            state.lost += from - before;
            self.cursors_changed = !self.without_disk;
            self.trace_settled(lane, before, from, |_| true);
        }
        batch
    }
}

/// Why something failed, as it is kept, shown and logged. What a far end said may be anything, and goes to terminals and into other
/// sinks' alerts.
pub fn failure_words(why: &str) -> String {
    bounded(why, WORDS_BYTES_MAX)
}

/// Bytes of what went wrong that are kept.
const WORDS_BYTES_MAX: usize = 512;

impl LaneState {
    pub(super) fn new(name: &str, cursor: Cursor) -> Self {
        let Cursor { next, lost, told } = cursor;
        Self { name: name.to_owned(), next, lost_before: lost, told, ..Self::default() }
    }

    /// How far it is, for the disk.
    pub(super) const fn cursor(&self) -> Cursor {
        Cursor { next: self.next, lost: self.lost_before + self.lost, told: self.told }
    }

    /// What went wrong, if the last attempt failed.
    pub(super) fn error_now(&self) -> Option<&str> {
        self.last_error.as_deref().filter(|_| self.failing)
    }

    fn failed(&mut self, why: &str) {
        self.failing = true;
        self.failures += 1;
        self.last_error = Some(failure_words(why));
    }

    /// An alert told of so many.
    pub(super) const fn told_of(&mut self, alerts: u64) {
        self.told += alerts;
    }

    /// How many it did not get, or will not, that no alert told of.
    pub(super) fn untold(&self, inner: &Inner, store: Option<&Store>) -> u64 {
        (self.lost_before + self.lost + self.gone(inner, store)).saturating_sub(self.told)
    }

    /// What made room is lost already, though the sink learns of it only when it takes what comes after.
    fn gone(&self, inner: &Inner, store: Option<&Store>) -> u64 {
        let (from, in_hand) = match self.holds.filter(|holds| holds.in_hand) {
            Some(Holds { last, alerts, .. }) => (last + 1, (last + 1 - self.next).saturating_sub(alerts)),
            None => (self.next, 0),
        };
        let begins = inner.begins();
        // One that is not on disk yet and was to be kept in memory is nowhere.
        let nowhere = begins.saturating_sub(inner.saved.max(from));
        let of_disk = from..begins.min(inner.saved);
        in_hand + nowhere + store.map_or(0, |store| store.look(|held| held.shares.missing(of_disk)))
    }

    pub(super) fn status(&self, inner: &Inner, store: Option<&Store>, now: &Stamp) -> SinkStatus {
        let gone = self.gone(inner, store);
        let waiting = inner.end.saturating_sub(self.next + gone) + inner.in_flight + inner.queue.len() as u64;
        let known = || inner.recent.iter().find(|entry| entry.sequence >= self.next).map(|entry| entry.stamp);
        let is_there = |holds: &Holds| {
            holds.in_hand || store.is_none_or(|store| store.look(|held| held.shares.has(holds.first)))
        };
        let held = self.holds.filter(is_there).map(|holds| holds.stamp);
        let oldest = held.or_else(known).filter(|_| inner.end > self.next);
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
