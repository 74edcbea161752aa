//! Takes what was pushed, puts it on disk, and lets the lanes see it. The only one that writes.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::open::{Opened, open_store, room_for_alerts};
use super::{Cursors, Entry, Inner, Phase, RECENT_ALERTS_MAX, Spool, Store, StoreError, UNSAVED_ALERTS_MAX};
use crate::alert::{Alert, Mark};

/// How far the sinks have come is saved at most so often, beside what is saved with alerts.
const CURSORS_EVERY: Duration = Duration::from_secs(1);
/// Between two tries to write a disk that could not be written.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// When the file is full before its alerts take so much, they may take so much less; and never less than that part of it.
const SHRINK_DIVISOR: u64 = 8;

/// The writing end of the spool.
#[derive(Debug)]
pub struct Writer {
    spool: Arc<Spool>,
    cursors_saved: Instant,
    tried: Option<Instant>,
    /// Bytes that alerts may take in the file.
    cost_max: u64,
}

impl Writer {
    pub(super) fn new(spool: Arc<Spool>) -> Self {
        let cost_max = room_for_alerts(spool.bytes_max);
        Self { spool, cursors_saved: Instant::now(), tried: None, cost_max }
    }

    /// Writes until the spool is closed and empty and no lane comes further; each alert is shown to `each` once it is on
    /// disk, or the disk has refused it. To be run on a thread that may block.
    pub fn run(mut self, mut each: impl FnMut(&Entry)) {
        while let Some(batch) = self.wait() {
            self.save(batch, &mut each);
        }
    }

    /// What is to be written: alerts, or only how far the lanes are; `None` at the end.
    fn wait(&self) -> Option<Vec<Entry>> {
        let mut inner = self.spool.inner();
        loop {
            let due =
                |last: Option<Instant>, every: Duration| last.is_none_or(|last| last.elapsed() >= every);
            let may_save = !inner.without_disk && due(self.tried, AGAIN_AFTER);
            let is_behind = inner.saved < inner.end && may_save;
            let cursors = inner.cursors_changed
                && may_save
                && (inner.is_closed() || due(Some(self.cursors_saved), CURSORS_EVERY));
            if !inner.queue.is_empty() || is_behind || cursors {
                let alerts = std::mem::take(&mut inner.queue);
                inner.queued.clear();
                inner.in_flight = alerts.len() as u64;
                inner.counters.taken += inner.in_flight;
                let end = inner.end;
                for (sequence, alert) in (end..).zip(&alerts) {
                    inner.trace_numbered(alert.id, sequence);
                    inner.told_of(alert);
                }
                drop(inner);
                return Some(self.entries(end, alerts));
            }
            if inner.phase == Phase::Closed {
                inner.phase = Phase::Ended;
                self.spool.saved.notify_all();
            }
            if inner.phase == Phase::Ended
                && !inner.cursors_changed
                && inner.lanes.iter().all(|lane| lane.next >= inner.end)
            {
                return None;
            }
            inner = self.spool.wait(&self.spool.pushed, inner, CURSORS_EVERY);
        }
    }

    /// Without the lock: whoever brings alerts does not wait for their JSON.
    fn entries(&self, end: u64, alerts: VecDeque<Arc<Alert>>) -> Vec<Entry> {
        let stamp = self.spool.now();
        let entries = (end..).zip(alerts).map(|(sequence, alert)| Entry {
            sequence,
            stamp,
            json: Arc::from(alert.to_json()),
            alert,
        });
        entries.collect()
    }

    fn save(&mut self, batch: Vec<Entry>, each: &mut impl FnMut(&Entry)) {
        let (entries, cursors, notes, without_disk) = {
            let mut inner = self.spool.inner();
            inner.cursors_changed = false;
            let saved = inner.saved;
            let unsaved = inner.recent.iter().filter(|entry| entry.sequence >= saved);
            let entries = unsaved.chain(&batch).cloned().collect::<Vec<_>>();
            (entries, inner.cursors(), inner.notes.clone(), inner.without_disk)
        };
        let rested = self.tried.is_none_or(|tried| tried.elapsed() >= AGAIN_AFTER);
        let result =
            if rested && !without_disk { self.written(&entries, &cursors, &notes) } else { Err(None) };
        // Else each alert would be there twice when its marks are dropped.
        drop(entries);
        batch.iter().for_each(&mut *each);
        let mut inner = self.spool.inner();
        let before = inner.end;
        inner.end += batch.len() as u64;
        inner.in_flight = 0;
        inner.recent.extend(batch);
        match result {
            Ok(()) => {
                if self.tried.take().is_some() {
                    tracing::info!("the spool {} can be written again", self.spool.path.display());
                    inner.trouble = None;
                }
                let saved = inner.saved;
                inner.saved = inner.end;
                // They are on disk, too.
                inner.drop_marks(saved);
                let noted = notes.len().min(inner.notes.len());
                inner.notes.drain(..noted);
                inner.trace_saved();
                self.cursors_saved = Instant::now();
            }
            Err(error) => {
                inner.cursors_changed = !without_disk;
                if without_disk {
                    // They will never be.
                    inner.drop_marks(before);
                }
                if let Some(error) = error {
                    inner.counters.failures += 1;
                    let said = format!("write {}: {error}", self.spool.path.display());
                    if self.tried.is_none() {
                        tracing::error!(
                            "{said}; alerts are kept in memory, and are lost when the agent dies"
                        );
                    }
                    inner.trouble = Some(said);
                    self.tried = Some(Instant::now());
                }
            }
        }
        inner.forget();
        drop(inner);
        self.spool.saved.notify_all();
    }

    fn written(
        &mut self,
        entries: &[Entry],
        cursors: &Cursors,
        notes: &[Mark],
    ) -> Result<(), Option<String>> {
        let saved = self.spool.with_store(|store| {
            store.map(|store| store.save(entries, cursors, notes, self.spool.boot as u64))
        });
        let error = match saved {
            Some(Ok(())) => return Ok(()),
            Some(Err(error)) => {
                // After an error the store is of no use; what it holds is known when it was opened anew.
                self.replace(None);
                error
            }
            None => match self.written_anew(entries, cursors, notes) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            },
        };
        // The file may have its full size with less in it than was thought.
        let least = self.spool.bytes_max / SHRINK_DIVISOR;
        let mut error = error;
        while matches!(error, StoreError::Full(_)) && self.cost_max > least {
            self.cost_max = (self.cost_max - self.cost_max / SHRINK_DIVISOR).max(least);
            match self.written_anew(entries, cursors, notes) {
                Ok(()) => return Ok(()),
                Err(again) => error = again,
            }
        }
        Err(Some(error.to_string()))
    }

    fn written_anew(&self, entries: &[Entry], cursors: &Cursors, notes: &[Mark]) -> Result<(), StoreError> {
        let Opened { mut store, damage } = open_store(&self.spool.path, self.spool.bytes_max)?;
        if damage.is_some() {
            self.spool.inner().damage = damage;
        }
        store.shrink(self.cost_max);
        store.save(entries, cursors, notes, self.spool.boot as u64)?;
        self.replace(Some(store));
        Ok(())
    }

    fn replace(&self, store: Option<Store>) {
        let mut place = self.spool.store.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *place, store);
        drop(place);
        let evicted = before.map_or(0, |store| store.look(|held| held.evicted));
        self.spool.inner().counters.evicted += evicted;
    }
}

impl Inner {
    /// Lets go of up to which totals the alerts from this number on tell. A sink that has one in its hand keeps that as it is.
    fn drop_marks(&mut self, from: u64) {
        let entries = self.recent.iter_mut().rev().take_while(|entry| entry.sequence >= from);
        for entry in entries.filter(|entry| !entry.alert.marks.is_empty()) {
            Arc::make_mut(&mut entry.alert).marks = Vec::new();
        }
    }

    /// Makes room in memory: of what is on disk only some is kept here, of what is not so much as fits.
    fn forget(&mut self) {
        while self.recent.len() > RECENT_ALERTS_MAX {
            let Some(oldest) = self.recent.front() else { return };
            if oldest.sequence >= self.saved {
                if self.recent.len() <= UNSAVED_ALERTS_MAX {
                    return;
                }
                self.counters.unsaved_lost += 1;
            }
            self.recent.pop_front();
        }
    }
}
