//! Takes alerts in their order, keeps them on disk until there is no room for more; and how far each sink has come.
//!
//! One transaction is one `fsync`: when [`Store::save`] returns, all of it is on disk, and after a crash at any moment
//! before there is all or nothing of it. Nothing here starts threads or reads a clock.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use redb::{
    Builder, Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend,
    TableDefinition,
};

use super::stamp::Stamp;
use super::{Entry, Limits};

/// An alert: when it was put in ([`Stamp`]), and its JSON, deflated.
const ALERTS: TableDefinition<u64, (u128, u64, i64, &[u8])> = TableDefinition::new("alerts-1");
/// What each sink is to get next.
const CURSORS: TableDefinition<&str, u64> = TableDefinition::new("cursors-1");

/// Memory for pages, in bytes.
const CACHE_BYTES: usize = 1 << 20;
/// A page of the store, in bytes.
const PAGE_BYTES: u64 = 4096;
/// What an alert needs beside its bytes, in bytes.
const ALERT_BYTES: u64 = 128;
/// The longest JSON of an alert, in bytes; no alert is nearly as long.
const JSON_BYTES_MAX: u64 = 16 << 20;
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

/// Alerts on disk.
#[derive(Debug)]
pub struct Store {
    database: Database,
    cost_max: u64,
    held: Mutex<Held>,
}

/// What is in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// How many alerts.
    pub alerts: u64,
    /// The room they take, in bytes.
    pub cost: u64,
    /// The number of the oldest, or of the next one when there is none.
    pub first: u64,
    /// The number of the next one.
    pub end: u64,
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
            let cursors = write.open_table(CURSORS).map_err(failed)?;
            for row in cursors.iter().map_err(failed)? {
                held.end = held.end.max(row.map_err(failed)?.1.value());
            }
            let alerts = write.open_table(ALERTS).map_err(failed)?;
            held.alerts = alerts.len().map_err(failed)?;
            for row in alerts.iter().map_err(failed)? {
                let (number, value) = row.map_err(failed)?;
                held.cost += cost(value.value().3);
                held.end = held.end.max(number.value() + 1);
            }
            let oldest = alerts.first().map_err(failed)?.map(|(number, _)| number.value());
            held.first = oldest.unwrap_or(held.end);
        }
        write.commit().map_err(failed)?;
        Ok(held)
    }

    /// What is in it.
    pub fn what_is_held(&self) -> Held {
        *self.held()
    }

    /// What each sink is to get next, as it was saved.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn cursors(&self) -> Result<BTreeMap<String, u64>, StoreError> {
        let read = self.database.begin_read().map_err(failed)?;
        let table = read.open_table(CURSORS).map_err(failed)?;
        let rows = table.iter().map_err(failed)?;
        rows.map(|row| row.map(|(name, next)| (name.value().to_owned(), next.value())).map_err(failed))
            .collect()
    }

    /// Puts alerts in and replaces all cursors. Where room is short the oldest make it, whoever still waits for them. What
    /// does not fit into one transaction goes into several, each of which is there whole or not at all, the cursors last.
    ///
    /// # Errors
    /// When it cannot be written. What the store holds is then known when it was opened anew.
    pub fn save(&self, entries: &[Entry], cursors: &BTreeMap<String, u64>) -> Result<(), StoreError> {
        let packed: Vec<Vec<u8>> = entries.iter().map(|entry| deflated(&entry.json)).collect();
        let mut rows: &[Vec<u8>] = &packed;
        let mut rest = entries;
        loop {
            let (count, cost) = self.portion(rows);
            // In a transaction before: what one frees only the next can use.
            self.make_room(cost)?;
            self.write(&rest[..count], &rows[..count], cursors, count == rest.len())?;
            (rest, rows) = (&rest[count..], &rows[count..]);
            if rest.is_empty() {
                return Ok(());
            }
        }
    }

    /// How many of these go into one transaction, and the room they take.
    fn portion(&self, rows: &[Vec<u8>]) -> (usize, u64) {
        let mut taken = 0;
        let fits = |row: &&Vec<u8>| {
            taken += cost(row);
            taken <= self.cost_max / PORTION_DIVISOR
        };
        let count = rows.iter().take_while(fits).count().max(1).min(rows.len());
        (count, rows[..count].iter().map(|row| cost(row)).sum())
    }

    fn write(
        &self,
        entries: &[Entry],
        rows: &[Vec<u8>],
        cursors: &BTreeMap<String, u64>,
        is_last: bool,
    ) -> Result<(), StoreError> {
        let mut held = self.what_is_held();
        let write = self.database.begin_write().map_err(failed)?;
        {
            let mut alerts = write.open_table(ALERTS).map_err(failed)?;
            for (Entry { sequence, stamp, json: _, alert: _ }, row) in entries.iter().zip(rows) {
                let Stamp { boot, boot_ns, wall_ms } = *stamp;
                let before =
                    alerts.insert(sequence, (boot, boot_ns, wall_ms, row.as_slice())).map_err(failed)?;
                // One that was there already: the write after it failed.
                if before.is_none() {
                    if held.alerts == 0 {
                        held.first = *sequence;
                    }
                    held.alerts += 1;
                    held.cost += cost(row);
                    held.end = held.end.max(sequence + 1);
                }
            }
            if is_last {
                let mut table = write.open_table(CURSORS).map_err(failed)?;
                table.retain(|name, _| cursors.contains_key(name)).map_err(failed)?;
                for (name, next) in cursors {
                    table.insert(name.as_str(), next).map_err(failed)?;
                }
            }
        }
        write.commit().map_err(failed)?;
        *self.held() = held;
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

    fn make_room(&self, more: u64) -> Result<(), StoreError> {
        let mut held = self.what_is_held();
        if held.cost + more <= self.cost_max || held.alerts == 0 {
            return Ok(());
        }
        let goal = self.cost_max.saturating_sub(more + self.cost_max / EVICTED_DIVISOR);
        let write = self.database.begin_write().map_err(failed)?;
        {
            let mut alerts = write.open_table(ALERTS).map_err(failed)?;
            while held.cost > goal {
                let Some((number, value)) = alerts.pop_first().map_err(failed)? else { break };
                held.first = number.value() + 1;
                held.alerts -= 1;
                held.cost = held.cost.saturating_sub(cost(value.value().3));
            }
        }
        write.commit().map_err(failed)?;
        *self.held() = held;
        Ok(())
    }

    /// Alerts from this number on, in order. Which are missing at the front were evicted; one that cannot be
    /// understood is left out.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(&self, from: u64, limits: Limits) -> Result<Vec<Entry>, StoreError> {
        let read = self.database.begin_read().map_err(failed)?;
        let table = read.open_table(ALERTS).map_err(failed)?;
        let mut entries = Vec::new();
        let mut bytes = 0;
        for row in table.range(from..).map_err(failed)? {
            let (number, value) = row.map_err(failed)?;
            let (boot, boot_ns, wall_ms, packed) = value.value();
            let Some(json) = inflated(number.value(), packed) else { continue };
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

/// The room that an alert takes, or a little more: leaves are half empty after they were split, and what does not fit into
/// one has pages of its own, a power of two of them.
fn cost(packed: &[u8]) -> u64 {
    let bytes = packed.len() as u64 + ALERT_BYTES;
    if bytes <= PAGE_BYTES / 2 { 2 * bytes } else { bytes.next_multiple_of(PAGE_BYTES).next_power_of_two() }
}

fn deflated(json: &str) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::with_capacity(json.len() / 2), Compression::fast());
    // Memory is always written.
    let _ = encoder.write_all(json.as_bytes());
    encoder.finish().unwrap_or_default()
}

fn inflated(sequence: u64, packed: &[u8]) -> Option<String> {
    let mut json = String::new();
    let read = DeflateDecoder::new(packed).take(JSON_BYTES_MAX).read_to_string(&mut json);
    read.inspect_err(|error| tracing::error!(sequence, %error, "an alert in the spool cannot be unpacked"))
        .ok()?;
    Some(json)
}

fn entry(sequence: u64, stamp: Stamp, json: &str) -> Option<Entry> {
    match serde_json::from_str(json) {
        Ok(alert) => Some(Entry { sequence, stamp, json: Arc::from(json), alert: Arc::new(alert) }),
        Err(error) => {
            tracing::error!(sequence, %error, "an alert in the spool cannot be understood");
            None
        }
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
