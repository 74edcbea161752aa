//! Takes alerts, has each on disk before any sink sees it, and keeps it until every sink has it.
//!
//! `Spool::push → a bounded queue → Writer::run → Store::save → Lane::wait → a sink → Lane::settle`. A sink that is slow
//! or gone is behind by itself: nobody waits for it. When the spool is full some alerts make room, as `shares` says whoever
//! still waits for them, and each sink counts what it did not get; so the newest always has a place, the alert that some
//! were lost among them. While the disk cannot be written, alerts go to the sinks from memory. What a sink has taken is saved
//! a moment later, so after a crash it may be given some again: with the same `id`.

mod disk;
mod lane;
mod loss;
mod marks;
mod open;
mod row;
mod shares;
mod stamp;
mod status;
mod store;
mod trace;
mod writer;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

pub use disk::Disk;
pub use lane::{Lane, Settled, Taken, failure_words};
pub use loss::Losses;
pub use shares::owner;
pub use stamp::Stamp;
pub use status::{SinkStatus, SpoolStatus};
pub use store::{Cursor, Cursors, Store, StoreError};
pub use trace::{SinkTrace, Trace};
pub use writer::Writer;

use crate::alert::{Alert, Mark};
use crate::event::Clocks;
use lane::LaneState;
use open::{Opened, open_store};
use shares::Place;

/// Alerts that wait for the disk: a few scans at their first moment. As a rule 6 MiB, and four times that with the longest
/// of command lines.
pub const QUEUE_ALERTS_MAX: usize = 4_096;
/// How many of these a workload may have in the second half of the queue: what one does does not keep others out.
const QUEUE_OF_ONE_MAX: usize = 256;
/// Room beyond it for what the agent says of itself, that alerts were lost among them.
const QUEUE_OWN_MAX: usize = 256;
/// Alerts kept in memory because the disk cannot be written.
pub const UNSAVED_ALERTS_MAX: usize = 4_096;
/// Alerts kept in memory beside the disk, for sinks that are not behind.
const RECENT_ALERTS_MAX: usize = 256;
/// Alerts that are read when somebody looks for some.
pub const LOOKED_AT_MAX: usize = 250_000;

/// An alert with its place in the order of all.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its number; each is one more than the one before.
    pub sequence: u64,
    /// When it was taken.
    pub stamp: Stamp,
    /// Its JSON, without an end of line.
    pub json: Arc<str>,
    /// The alert.
    pub alert: Arc<Alert>,
}

/// How much at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Alerts, at least 1.
    pub alerts: usize,
    /// Bytes of their JSON; a single longer one comes alone.
    pub bytes: usize,
}

/// Alerts on their way to the sinks.
#[derive(Debug)]
pub struct Spool {
    inner: Mutex<Inner>,
    /// There is something for the writer.
    pushed: Condvar,
    /// There is something for the lanes.
    saved: Condvar,
    /// `None` while the disk cannot be used.
    store: RwLock<Option<Store>>,
    path: PathBuf,
    bytes_max: u64,
    boot: u128,
}

#[derive(Debug, Default)]
struct Inner {
    /// What nobody has seen yet.
    queue: VecDeque<Arc<Alert>>,
    /// How many of them are whose.
    queued: HashMap<u64, usize>,
    /// The newest that lanes may see: all that is not on disk, and some that is.
    recent: VecDeque<Entry>,
    /// Below this all is on disk, or made room.
    saved: u64,
    /// The number of the next alert.
    end: u64,
    /// Alerts that the writer has and lanes do not see yet.
    in_flight: u64,
    lanes: Vec<LaneState>,
    /// Up to which totals refusals are counted that are in no alert.
    notes: Vec<Mark>,
    /// A lane has come further than is saved.
    cursors_changed: bool,
    /// There is no disk for as long as this agent lives.
    without_disk: bool,
    phase: Phase,
    counters: Counters,
    /// Why the disk cannot be written.
    trouble: Option<String>,
    /// What was found damaged.
    damage: Option<String>,
    /// What is followed.
    traces: VecDeque<Trace>,
}

/// Where its life has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// It takes alerts.
    #[default]
    Open,
    /// It takes no more.
    Closed,
    /// And those it took are with the lanes.
    Ended,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    refused: u64,
    refused_refusals: u64,
    taken: u64,
    /// In stores that were opened before the one that is.
    evicted: u64,
    unsaved_lost: u64,
    failures: u64,
}

impl Spool {
    /// Opens the spool at `path`, a file of at most `bytes_max`, for sinks of these names, with the writer and a lane for
    /// each. A sink that was not there before gets what comes from now on.
    ///
    /// A damaged file is moved aside, to `PATH.damaged`, and said to be so in `status`. Where the file cannot be used at all, alerts
    /// go to the sinks from memory until the agent starts anew: a full disk is no reason to be without a wall.
    ///
    /// # Errors
    /// When another agent has it.
    pub fn open(path: &Path, bytes_max: u64, sinks: &[String]) -> io::Result<(Arc<Self>, Writer, Vec<Lane>)> {
        let named = |error: StoreError| format!("open the spool {}: {error}", path.display());
        let (store, damage, trouble) = match open_store(path, bytes_max) {
            Ok(Opened { store, damage }) => (Some(store), damage, None),
            Err(StoreError::Taken(error)) => return Err(io::Error::other(named(StoreError::Taken(error)))),
            Err(error) => {
                let said = named(error);
                tracing::error!("{said}; alerts are only kept in memory until the agent starts anew");
                (None, None, Some(said))
            }
        };
        let cursors = store.as_ref().and_then(|store| store.cursors().ok()).unwrap_or_default();
        let end = store.as_ref().map_or(0, |store| store.look(|held| held.end));
        let begin = Cursor { next: end, ..Cursor::default() };
        let lanes =
            sinks.iter().map(|name| LaneState::new(name, cursors.get(name).copied().unwrap_or(begin)));
        let inner = Inner {
            saved: end,
            end,
            lanes: lanes.collect(),
            cursors_changed: store.is_some(),
            without_disk: store.is_none(),
            trouble,
            damage,
            ..Inner::default()
        };
        let spool = Arc::new(Self {
            inner: Mutex::new(inner),
            pushed: Condvar::new(),
            saved: Condvar::new(),
            store: RwLock::new(store),
            path: path.to_owned(),
            bytes_max,
            boot: stamp::boot(),
        });
        let lanes = (0..sinks.len()).map(|index| Lane::new(Arc::clone(&spool), index)).collect();
        Ok((Arc::clone(&spool), Writer::new(spool), lanes))
    }

    /// Takes an alert and never waits; `false`, and counted, when there are too many already.
    pub fn push(&self, alert: &Alert) -> bool {
        let owner = owner(alert);
        let mut inner = self.inner();
        if !inner.has_room(owner) {
            inner.counters.refused += 1;
            inner.counters.refused_refusals += alert.count;
            return false;
        }
        *inner.queued.entry(owner).or_default() += 1;
        inner.queue.push_back(Arc::new(alert.clone()));
        inner.trace_taken(alert.id);
        self.pushed.notify_one();
        true
    }

    /// Takes no more. The lanes end when they have given all that is here.
    pub fn close(&self) {
        self.inner().phase = Phase::Closed;
        self.pushed.notify_all();
        self.saved.notify_all();
    }

    /// Whether all that was taken is with every sink, and how far each has come is on disk.
    pub fn is_settled(&self) -> bool {
        let inner = self.inner();
        inner.queue.is_empty()
            && !inner.cursors_changed
            && inner.lanes.iter().all(|lane| lane.next >= inner.end)
    }

    /// Whether nothing is on its way to the disk.
    pub fn is_saved(&self) -> bool {
        let inner = self.inner();
        inner.queue.is_empty() && inner.in_flight == 0
    }

    /// What is in it, and how each sink is.
    pub fn status(&self) -> (SpoolStatus, Vec<SinkStatus>) {
        let now = self.now();
        let bytes = std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        self.with_both(|store, inner| {
            let sinks: Vec<SinkStatus> =
                inner.lanes.iter().map(|lane| lane.status(inner, store, &now)).collect();
            let Counters { refused, refused_refusals, taken, evicted, unsaved_lost, failures } =
                inner.counters;
            let look = |of: fn(&store::Held) -> u64| store.map_or(0, |store| store.look(of));
            let (cost, room) = (look(|held| held.shares.cost()), store.map_or(1, Store::room));
            let oldest = sinks.iter().filter_map(|sink| sink.oldest_waiting_secs).reduce(f64::max);
            let spool = SpoolStatus {
                path: self.path.display().to_string(),
                alerts: look(|held| held.shares.alerts()),
                bytes,
                bytes_max: self.bytes_max,
                room_used: cost as f64 / room.max(1) as f64,
                taken,
                refused,
                refused_refusals,
                evicted: evicted + look(|held| held.evicted),
                unsaved: inner.end - inner.saved,
                unsaved_lost,
                failures,
                oldest_waiting_secs: oldest,
                trouble: inner.trouble().map(str::to_owned),
            };
            (spool, sinks)
        })
    }

    /// What is wrong with it.
    pub fn trouble(&self) -> Option<String> {
        self.inner().trouble().map(str::to_owned)
    }

    /// The JSON of the last alerts on disk, oldest first.
    pub fn last(&self, count: usize) -> Vec<Arc<str>> {
        self.back(count, |_| true)
    }

    /// The JSON of the last alerts on disk that are wanted, oldest first. So many at most are looked at as
    /// [`LOOKED_AT_MAX`] says.
    pub fn back(&self, count: usize, wanted: impl FnMut(&str) -> bool) -> Vec<Arc<str>> {
        let lines = self.with_store(|store| store.map(|store| store.back(count, LOOKED_AT_MAX, wanted)));
        match lines {
            Some(Ok(lines)) => lines,
            Some(Err(error)) => {
                tracing::warn!(%error, "read the last alerts");
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    fn now(&self) -> Stamp {
        Stamp::of(self.boot, &Clocks::read())
    }

    fn with_store<T>(&self, each: impl FnOnce(Option<&Store>) -> T) -> T {
        each(self.store.read().unwrap_or_else(PoisonError::into_inner).as_ref())
    }

    /// Both at one moment. Always in this order: nobody takes the store who has the other.
    fn with_both<T>(&self, each: impl FnOnce(Option<&Store>, &mut Inner) -> T) -> T {
        self.with_store(|store| each(store, &mut self.inner()))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Each change is a single step, so a panic elsewhere leaves nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'g>(
        &self,
        condition: &Condvar,
        inner: MutexGuard<'g, Inner>,
        patience: Duration,
    ) -> MutexGuard<'g, Inner> {
        condition.wait_timeout(inner, patience).unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Inner {
    fn cursors(&self) -> Cursors {
        self.lanes.iter().map(|lane| (lane.name.clone(), lane.cursor())).collect()
    }

    /// Whether the queue takes one more of whoever this is.
    fn has_room(&self, owner: u64) -> bool {
        let count = self.queue.len();
        if self.is_closed() {
            return false;
        }
        if owner == Place::OWN {
            return count < QUEUE_ALERTS_MAX + QUEUE_OWN_MAX;
        }
        let of_one = self.queued.get(&owner).copied().unwrap_or(0);
        count < QUEUE_ALERTS_MAX / 2 || (count < QUEUE_ALERTS_MAX && of_one < QUEUE_OF_ONE_MAX)
    }

    fn is_closed(&self) -> bool {
        self.phase >= Phase::Closed
    }

    fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref().or(self.damage.as_deref())
    }

    /// The number with which memory begins.
    fn begins(&self) -> u64 {
        self.recent.front().map_or(self.end, |entry| entry.sequence)
    }
}

#[cfg(test)]
pub(crate) mod tests;
