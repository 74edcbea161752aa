//! Takes up to which of the kernel's totals alerts tell, keeps that on disk in the very transaction that has the alerts: whoever
//! comes after an agent that was killed tells what that one did not, and nothing again.
//!
//! Only so many flows are kept; of more, those that were told last. The kernel's totals begin anew with each boot.

use dnswall_common::event::RefusedKey;
use redb::{ReadableTable as _, ReadableTableMetadata as _, TableDefinition, WriteTransaction};

use super::{Entry, Spool};
use crate::alert::Mark;

/// A flow's key as numbers; its total, the boot's number, and the number of the next alert when that was written: its age.
pub(super) const MARKS: TableDefinition<Key, (u64, u64, u64)> = TableDefinition::new("told-1");
type Key = (u64, u64, u64, u64, u32, u32);
/// A flow needs so much room at most, in bytes.
pub(super) const MARK_BYTES: u64 = 256;
/// What flows may take of the room for alerts.
const MARKS_DIVISOR: u64 = 16;
/// Of what is in no alert, because the agent itself was refused or it is muted, and nobody has saved yet.
const NOTES_MAX: usize = 4_096;

/// How many flows are kept where alerts have this room.
pub(super) const fn marks_max(cost_max: u64) -> u64 {
    cost_max / MARKS_DIVISOR / MARK_BYTES
}

/// Puts in what these alerts tell, and notes. `now` is the number of the next alert.
pub(super) fn put(
    write: &WriteTransaction,
    entries: &[Entry],
    notes: &[Mark],
    (boot, now): (u64, u64),
    marks_max: u64,
) -> Result<(), redb::Error> {
    let marks: Vec<&Mark> = entries.iter().flat_map(|entry| &entry.alert.marks).chain(notes).collect();
    if marks.is_empty() {
        return Ok(());
    }
    let mut table = write.open_table(MARKS)?;
    // The last of them, of more than would stay: a transaction needs room for all it puts in.
    let most = usize::try_from(marks_max / 2).unwrap_or(usize::MAX);
    for (key, total) in &marks[marks.len().saturating_sub(most)..] {
        table.insert(packed(key), (*total, boot, now))?;
    }
    if table.len()? > marks_max {
        let mut ages = Vec::new();
        for row in table.iter()? {
            let (_, _, age) = row?.1.value();
            ages.push(age);
        }
        // The younger stay, as many as fill half of the room.
        let mut room = usize::try_from(marks_max / 2).unwrap_or(usize::MAX).clamp(1, ages.len());
        let oldest = *ages.select_nth_unstable_by(room - 1, |one, other| other.cmp(one)).1;
        room -= ages.iter().filter(|age| **age > oldest).count();
        table.retain(|_, (_, _, age)| {
            let is_among_the_last = age == oldest && room > 0;
            room -= usize::from(is_among_the_last);
            age > oldest || is_among_the_last
        })?;
    }
    Ok(())
}

/// What is there of this boot.
pub(super) fn all(
    table: &impl redb::ReadableTable<Key, (u64, u64, u64)>,
    boot: u64,
) -> Result<Vec<Mark>, redb::Error> {
    let mut marks = Vec::new();
    for row in table.iter()? {
        let (key, value) = row?;
        let (total, of, _) = value.value();
        if of == boot {
            marks.push((unpacked(key.value()), total));
        }
    }
    Ok(marks)
}

fn packed(key: &RefusedKey) -> Key {
    let RefusedKey { cgroup, destination: [high, low], entry, pid, destination_port, protocol, reason } =
        *key;
    let rest = u32::from(destination_port) << 16 | u32::from(protocol) << 8 | u32::from(reason);
    (cgroup, high, low, entry, pid, rest)
}

const fn unpacked((cgroup, high, low, entry, pid, rest): Key) -> RefusedKey {
    let [port_high, port_low, protocol, reason] = rest.to_be_bytes();
    RefusedKey {
        cgroup,
        destination: [high, low],
        entry,
        pid,
        destination_port: u16::from_be_bytes([port_high, port_low]),
        protocol,
        reason,
    }
}

impl Spool {
    /// Saves, soon, up to which totals refusals are counted that are in no alert.
    pub fn note(&self, marks: Vec<Mark>) {
        if marks.is_empty() {
            return;
        }
        let mut inner = self.inner();
        if inner.without_disk {
            return;
        }
        inner.notes.extend(marks);
        let many = inner.notes.len().saturating_sub(NOTES_MAX);
        inner.notes.drain(..many);
        inner.cursors_changed = true;
        self.pushed.notify_one();
    }

    /// What is told of each flow, as it was saved in this boot.
    pub fn told(&self) -> Vec<Mark> {
        let told = self.with_store(|store| store.map(|store| store.marks(self.boot as u64)));
        match told {
            Some(Ok(marks)) => marks,
            Some(Err(error)) => {
                tracing::warn!(%error, "what was told before is told again");
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    /// Forgets what was told: the kernel counts anew.
    pub fn forget_told(&self) {
        let forgotten = self.with_store(|store| store.map(|store| store.forget_marks()));
        if let Some(Err(error)) = forgotten {
            tracing::warn!(%error, "forget what was told of a wall that is gone");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{Alert, sample};
    use redb::backends::InMemoryBackend;
    use redb::{Builder, Database, ReadableDatabase as _};

    const BOOT: u64 = 7;
    const MAX: u64 = 8;

    fn marks_of(pids: std::ops::Range<u32>, total: u64) -> Vec<Mark> {
        pids.map(|pid| (RefusedKey { pid, ..sample::enriched().refused }, total)).collect()
    }

    fn entry(marks: Vec<Mark>) -> Entry {
        sample::entry(&Alert { marks, ..sample::alert() })
    }

    /// Puts these in, and gives whose are there then, with their totals.
    fn after(database: &Database, now: u64, entries: &[Entry], notes: &[Mark]) -> Vec<(u32, u64)> {
        let write = database.begin_write().unwrap();
        put(&write, entries, notes, (BOOT, now), MAX).unwrap();
        write.commit().unwrap();
        let read = database.begin_read().unwrap();
        let there = all(&read.open_table(MARKS).unwrap(), BOOT).unwrap();
        let mut there: Vec<(u32, u64)> = there.into_iter().map(|(key, total)| (key.pid, total)).collect();
        there.sort_unstable();
        there
    }

    #[test]
    fn of_more_flows_than_fit_those_that_were_told_last_stay() {
        let database = Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
        let is = |pids: &[u32], total| pids.iter().map(|pid| (*pid, total)).collect::<Vec<_>>();
        // One transaction puts in half of what there may be, whatever it is given: the last, of which notes are the very last.
        let there = after(
            &database,
            1,
            &[entry(marks_of(0..20, 1)), entry(marks_of(20..23, 1))],
            &marks_of(23..24, 1),
        );
        assert_eq!(there, is(&[20, 21, 22, 23], 1));
        let there = after(&database, 2, &[entry(marks_of(30..34, 1))], &[]);
        assert_eq!(there, is(&[20, 21, 22, 23, 30, 31, 32, 33], 1), "so many there may be");
        // One too many: half of the room is for those that were told last.
        let pids = |there: &[(u32, u64)]| there.iter().map(|(pid, _)| *pid).collect::<Vec<u32>>();
        let there = pids(&after(&database, 3, &[entry(marks_of(40..41, 1))], &[]));
        assert!(there.len() as u64 == MAX / 2 && there.contains(&40), "{there:?}");
        assert!(there.iter().all(|pid| *pid == 40 || (30..34).contains(pid)), "{there:?}");
        // One that is told again is as young as its last alert.
        after(&database, 4, &[entry(marks_of(50..54, 1))], &[]);
        let there = after(&database, 5, &[entry(marks_of(40..41, 9))], &[]);
        assert!(there.len() as u64 == MAX && there.contains(&(40, 9)), "{there:?}");
        let there = after(&database, 6, &[entry(marks_of(60..61, 1))], &[]);
        assert!(there.len() as u64 == MAX / 2 && there.contains(&(40, 9)), "{there:?}");
        assert!(pids(&there).iter().all(|pid| [40, 60].contains(pid) || (50..54).contains(pid)), "{there:?}");
    }

    #[test]
    fn totals_of_another_boot_are_nobodys() {
        let database = Builder::new().create_with_backend(InMemoryBackend::new()).unwrap();
        after(&database, 1, &[entry(marks_of(1..3, 1))], &[]);
        let read = database.begin_read().unwrap();
        assert_eq!(all(&read.open_table(MARKS).unwrap(), BOOT + 1).unwrap(), []);
    }

    #[test]
    fn a_key_is_read_back() {
        let key = RefusedKey {
            cgroup: u64::MAX,
            destination: [1, 2],
            entry: 3,
            pid: 4,
            destination_port: 0xfedc,
            protocol: 17,
            reason: 0xba,
        };
        assert_eq!(unpacked(packed(&key)), key);
    }
}
