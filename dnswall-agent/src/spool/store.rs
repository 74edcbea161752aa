//! Takes alerts in their order, keeps them on disk until there is no room for more, by the rule of [`Shares`]; and how far
//! each sink has come.
//!
//! One transaction is one `fsync`: when [`Store::save`] returns, all of it is on disk, and after a crash at any moment
//! before there is all or nothing of it. Nothing here starts threads or reads a clock.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{
    Builder, Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, TableHandle,
};

use super::marks::{self, MARK_BYTES, MARKS, marks_max};
use super::row::{cost, entry, inflated, packed, place};
use super::shares::{Place, Shares};
use super::stamp::Stamp;
use super::{Entry, Limits};
use crate::alert::Mark;

/// An alert: when it was put in ([`Stamp`]), and what [`row`](super::row) makes of it.
const ALERTS: TableDefinition<u64, (u128, u64, i64, &[u8])> = TableDefinition::new("alerts-1");
/// How far each sink is: [`Cursor`].
const CURSORS: TableDefinition<&str, (u64, u64, u64)> = TableDefinition::new("cursors-2");
/// In the place of a sink's name: the number of the next alert, for the last ones may have made room.
const END: &str = "";
/// The same as an older agent left it, without what was lost.
const CURSORS_OLD: TableDefinition<&str, u64> = TableDefinition::new("cursors-1");

/// Memory for pages, in bytes.
const CACHE_BYTES: usize = 1 << 20;
/// When alerts make room, so many more of this part of the whole go as well, so that it is not done for each.
const EVICTED_DIVISOR: u64 = 32;
/// What goes into one transaction takes this part of the whole at most.
const PORTION_DIVISOR: u64 = 8;

/// What the store would not do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file has its full size, with less in it than was thought.
    #[error("{0}")]
    Full(String),
    /// The file is not a spool, or is damaged.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// Another agent has it.
    #[error("{0}")]
    Taken(String),
    /// The system refused.
    #[error("{0}")]
    Failed(String),
}

/// How far a sink is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// What it is to get next.
    pub next: u64,
    /// How many before that it did not get.
    pub lost: u64,
    /// How many somebody was told of that it did not get, or will not.
    pub told: u64,
}

/// How far each sink is, by its name.
pub type Cursors = BTreeMap<String, Cursor>;

/// Alerts on disk.
#[derive(Debug)]
pub struct Store {
    database: Database,
    cost_max: u64,
    held: Mutex<Held>,
}

/// What is in it.
#[derive(Clone, Debug, Default)]
pub struct Held {
    /// Whose alerts there are.
    pub shares: Shares,
    /// The number of the next one.
    pub end: u64,
    /// How many made room since it was opened.
    pub evicted: u64,
}

impl Store {
    /// Opens what is there, and reads all of it to see whether it is whole; at most `cost_max` bytes of room are taken.
    ///
    /// # Errors
    /// When it is not whole, or cannot be read.
    pub fn open(backend: impl StorageBackend, cost_max: u64) -> Result<Self, StoreError> {
        let database = Builder::new()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create_with_backend(backend)
            .map_err(|error| match error {
                redb::DatabaseError::Storage(redb::StorageError::Io(error)) if !is_no_database(&error) => {
                    StoreError::Failed(error.to_string())
                }
                // Whole, and of another version.
                redb::DatabaseError::UpgradeRequired(version) => {
                    StoreError::Failed(format!("it is of version {version}"))
                }
                other => StoreError::Damaged(other.to_string()),
            })?;
        let store = Self { database, cost_max, held: Mutex::default() };
        *store.held() = store.count()?;
        Ok(store)
    }

    fn count(&self) -> Result<Held, StoreError> {
        let write = self.database.begin_write().map_err(failed)?;
        let mut held = Held::default();
        {
            let mut cursors = write.open_table(CURSORS).map_err(failed)?;
            if write.list_tables().map_err(failed)?.any(|table| table.name() == CURSORS_OLD.name()) {
                for row in write.open_table(CURSORS_OLD).map_err(failed)?.iter().map_err(failed)? {
                    let (name, next) = row.map_err(failed)?;
                    cursors.insert(name.value(), (next.value(), 0, 0)).map_err(failed)?;
                }
                write.delete_table(CURSORS_OLD).map_err(failed)?;
            }
            for row in cursors.iter().map_err(failed)? {
                held.end = held.end.max(row.map_err(failed)?.1.value().0);
            }
            let alerts = write.open_table(ALERTS).map_err(failed)?;
            for row in alerts.iter().map_err(failed)? {
                let (number, value) = row.map_err(failed)?;
                let (place, row) = (place(value.value().3), value.value().3);
                held.shares.insert(number.value(), place, cost(row));
                held.end = held.end.max(number.value() + 1);
            }
        }
        write.commit().map_err(failed)?;
        Ok(held)
    }

    /// What is in it, for `each` to look at.
    pub fn look<T>(&self, each: impl FnOnce(&Held) -> T) -> T {
        each(&self.held())
    }

    /// How far each sink is, as it was saved.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn cursors(&self) -> Result<Cursors, StoreError> {
        let read = self.database.begin_read().map_err(failed)?;
        let table = read.open_table(CURSORS).map_err(failed)?;
        let mut cursors = Cursors::new();
        for row in table.iter().map_err(failed)? {
            let (name, cursor) = row.map_err(failed)?;
            let (next, lost, told) = cursor.value();
            cursors.insert(name.value().to_owned(), Cursor { next, lost, told });
        }
        cursors.remove(END);
        Ok(cursors)
    }

    /// Puts alerts in and replaces all cursors. Where room is short some make it, as [`Shares`] says. What does not fit into one
    /// transaction goes into several, each of which is there whole or not at all, the cursors last.
    ///
    /// # Errors
    /// When it cannot be written. What the store holds is then known when it was opened anew.
    pub fn save(
        &self,
        entries: &[Entry],
        cursors: &Cursors,
        notes: &[Mark],
        boot: u64,
    ) -> Result<(), StoreError> {
        // What a save that failed in the middle has put in is there, or has made room already.
        let end = self.look(|held| held.end);
        let mut rest = &entries[entries.partition_point(|entry| entry.sequence < end)..];
        let packed: Vec<(Place, Vec<u8>)> = rest.iter().map(packed).collect();
        let mut rows: &[(Place, Vec<u8>)] = &packed;
        // Without a sink nobody waits for any.
        let had = cursors.values().map(|cursor| cursor.next).min().unwrap_or(u64::MAX);
        loop {
            let (count, cost) = self.portion(rest, rows);
            // In a transaction before: what one frees only the next can use.
            self.make_room(cost, had)?;
            let is_last = count == rest.len();
            let notes = (if is_last { notes } else { &[] }, boot);
            self.write(&rest[..count], &rows[..count], cursors, is_last, notes)?;
            (rest, rows) = (&rest[count..], &rows[count..]);
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// Up to which totals alerts told, in this boot.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn marks(&self, boot: u64) -> Result<Vec<Mark>, StoreError> {
        let read = self.database.begin_read().map_err(failed)?;
        match read.open_table(MARKS) {
            Ok(table) => marks::all(&table, boot).map_err(failed),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(Vec::new()),
            Err(error) => Err(failed(error)),
        }
    }

    /// Forgets them.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn forget_marks(&self) -> Result<(), StoreError> {
        let write = self.database.begin_write().map_err(failed)?;
        write.delete_table(MARKS).map_err(failed)?;
        write.commit().map_err(failed)
    }

    /// How many of these go into one transaction, and the room they take.
    fn portion(&self, entries: &[Entry], rows: &[(Place, Vec<u8>)]) -> (usize, u64) {
        let mut taken = 0;
        let fits = |(entry, (_, row)): &(&Entry, &(Place, Vec<u8>))| {
            taken += cost(row) + entry.alert.marks.len() as u64 * MARK_BYTES;
            taken <= self.cost_max / PORTION_DIVISOR
        };
        let count = entries.iter().zip(rows).take_while(fits).count().max(1).min(rows.len());
        (count, rows[..count].iter().map(|(_, row)| cost(row)).sum())
    }

    fn write(
        &self,
        entries: &[Entry],
        rows: &[(Place, Vec<u8>)],
        cursors: &Cursors,
        is_last: bool,
        (notes, boot): (&[Mark], u64),
    ) -> Result<(), StoreError> {
        let write = self.database.begin_write().map_err(failed)?;
        {
            let mut alerts = write.open_table(ALERTS).map_err(failed)?;
            for (Entry { sequence, stamp, json: _, alert: _ }, (_, row)) in entries.iter().zip(rows) {
                let Stamp { boot, boot_ns, wall_ms } = *stamp;
                alerts.insert(sequence, (boot, boot_ns, wall_ms, row.as_slice())).map_err(failed)?;
            }
            let now = self.look(|held| held.end);
            marks::put(&write, entries, notes, (boot, now), marks_max(self.cost_max)).map_err(failed)?;
            let mut table = write.open_table(CURSORS).map_err(failed)?;
            if let Some(Entry { sequence, .. }) = entries.last() {
                table.insert(END, (sequence + 1, 0, 0)).map_err(failed)?;
            }
            if is_last {
                table.retain(|name, _| name == END || cursors.contains_key(name)).map_err(failed)?;
                for (name, Cursor { next, lost, told }) in cursors {
                    table.insert(name.as_str(), (*next, *lost, *told)).map_err(failed)?;
                }
            }
        }
        write.commit().map_err(failed)?;
        let mut held = self.held();
        for (entry, (place, row)) in entries.iter().zip(rows) {
            held.shares.insert(entry.sequence, *place, cost(row));
            held.end = held.end.max(entry.sequence + 1);
        }
        Ok(())
    }

    /// Gives the file back some of the room that alerts may take. For when they filled it all the same: pages of many
    /// sizes fit together badly.
    pub fn shrink(&mut self, cost_max: u64) {
        self.cost_max = cost_max;
    }

    /// Bytes of room that alerts may take.
    pub const fn room(&self) -> u64 {
        self.cost_max
    }

    fn make_room(&self, more: u64, had: u64) -> Result<(), StoreError> {
        let goal = self.cost_max.saturating_sub(more + self.cost_max / EVICTED_DIVISOR);
        if self.look(|held| held.shares.cost() + more <= self.cost_max || held.shares.alerts() == 0) {
            return Ok(());
        }
        let write = self.database.begin_write().map_err(failed)?;
        let mut gone = Vec::new();
        {
            let mut alerts = write.open_table(ALERTS).map_err(failed)?;
            // When this fails the store is of no use, and what it holds neither.
            let mut held = self.held();
            while held.shares.cost() > goal {
                let Some(number) = held.shares.next_to_go(had, self.cost_max) else { break };
                held.shares.remove(number);
                held.evicted += 1;
                gone.push(number);
            }
            drop(held);
            gone.sort_unstable();
            for number in gone {
                alerts.remove(number).map_err(failed)?;
            }
        }
        write.commit().map_err(failed)
    }

    /// Alerts of these numbers, in order. Which are missing made room; one that cannot be understood is left out.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, numbers: Range<u64>, limits: Limits) -> Result<Vec<Entry>, StoreError> {
        let read = self.database.begin_read().map_err(failed)?;
        let table = read.open_table(ALERTS).map_err(failed)?;
        let mut entries = Vec::new();
        let mut bytes = 0;
        for row in table.range(numbers).map_err(failed)? {
            let (number, value) = row.map_err(failed)?;
            let (boot, boot_ns, wall_ms, row) = value.value();
            let Some(json) = inflated(number.value(), row) else { continue };
            bytes += json.len();
            if entries.len() >= limits.alerts || (bytes > limits.bytes && !entries.is_empty()) {
                break;
            }
            let stamp = Stamp { boot, boot_ns, wall_ms };
            entries.extend(entry(number.value(), stamp, &json));
        }
        Ok(entries)
    }

    /// The JSON of the last alerts that are wanted, oldest first; looks at so many.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn back(
        &self,
        count: usize,
        looked_at_max: usize,
        mut wanted: impl FnMut(&str) -> bool,
    ) -> Result<Vec<Arc<str>>, StoreError> {
        let read = self.database.begin_read().map_err(failed)?;
        let table = read.open_table(ALERTS).map_err(failed)?;
        let mut lines: Vec<Arc<str>> = Vec::new();
        for row in table.iter().map_err(failed)?.rev().take(looked_at_max) {
            if lines.len() >= count {
                break;
            }
            let (number, value) = row.map_err(failed)?;
            let json = inflated(number.value(), value.value().3);
            lines.extend(json.filter(|json| wanted(json)).map(Arc::from));
        }
        lines.reverse();
        Ok(lines)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that does not begin like a database is said to be that by an error of this kind.
fn is_no_database(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

fn failed(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::Corrupted(what) => StoreError::Damaged(what),
        // Of the file's own bound; the system's error has a number.
        redb::Error::Io(error)
            if error.kind() == io::ErrorKind::StorageFull && error.raw_os_error().is_none() =>
        {
            StoreError::Full(error.to_string())
        }
        other => StoreError::Failed(other.to_string()),
    }
}
