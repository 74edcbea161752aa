//! The store on a disk that loses its power: whatever of the writes since the last `fsync` is there, and however much of
//! the last one, all that was saved before is there, and what was being saved is there whole or not at all.

use std::fmt;

use proptest::prelude::*;
use redb::StorageBackend;

use super::super::store::Store;
use super::*;

const COST_MAX: u64 = 1 << 20;
const BOOT: u64 = 1;
/// What a disk writes whole.
const SECTOR_BYTES: usize = 512;

/// What was asked of the disk since it was told to flush.
#[derive(Clone, Debug)]
enum Asked {
    Write(usize, Vec<u8>),
    Length(usize),
}

/// A disk in memory that remembers what is safe.
#[derive(Clone, Default)]
struct Platter(Arc<Mutex<Sides>>);

#[derive(Clone, Default)]
struct Sides {
    /// As the programs see it.
    seen: Vec<u8>,
    /// As it is after a crash, if nothing more was written.
    safe: Vec<u8>,
    /// What was asked since.
    asked: Vec<Asked>,
    /// Each moment at which it may crash: what was safe then, and what was asked.
    moments: Option<Vec<(Vec<u8>, Vec<Asked>)>>,
}

impl fmt::Debug for Platter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Platter")
    }
}

impl Platter {
    fn of(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(Sides { seen: bytes.clone(), safe: bytes, ..Sides::default() })))
    }

    fn sides(&self) -> MutexGuard<'_, Sides> {
        self.0.lock().unwrap()
    }

    /// Remembers every moment from now on.
    fn watch(&self) {
        self.sides().moments = Some(Vec::new());
    }

    fn moments(&self) -> Vec<(Vec<u8>, Vec<Asked>)> {
        let sides = self.sides();
        let mut moments = sides.moments.clone().unwrap();
        moments.push((sides.safe.clone(), sides.asked.clone()));
        moments
    }
}

impl StorageBackend for Platter {
    fn len(&self) -> io::Result<u64> {
        Ok(self.sides().seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = offset as usize;
        let sides = self.sides();
        let there = sides.seen.get(offset..offset + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(there);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut sides = self.sides();
        let asked = Asked::Length(len as usize);
        apply(&mut sides.seen, &asked, usize::MAX);
        sides.asked.push(asked);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut sides = self.sides();
        let asked = std::mem::take(&mut sides.asked);
        let safe = sides.safe.clone();
        if let Some(moments) = &mut sides.moments {
            moments.push((safe, asked));
        }
        sides.safe = sides.seen.clone();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut sides = self.sides();
        let asked = Asked::Write(offset as usize, data.to_vec());
        apply(&mut sides.seen, &asked, usize::MAX);
        sides.asked.push(asked);
        Ok(())
    }
}

/// Does what was asked, of a write only so many bytes.
fn apply(image: &mut Vec<u8>, asked: &Asked, bytes: usize) {
    match asked {
        Asked::Length(length) => image.resize(*length, 0),
        Asked::Write(offset, data) => {
            let data = &data[..data.len().min(bytes)];
            let end = offset + data.len();
            if image.len() < end {
                image.resize(end, 0);
            }
            image[*offset..end].copy_from_slice(data);
        }
    }
}

fn entries(numbers: std::ops::Range<u64>) -> Vec<Entry> {
    let entry = |sequence| {
        let alert = Arc::new(Alert { marks: marks(sequence), ..numbered(sequence) });
        let json = Arc::from(serde_json::to_string(&*alert).unwrap());
        Entry { sequence, stamp: Stamp { boot: 1, boot_ns: sequence, wall_ms: 0 }, json, alert }
    };
    numbers.map(entry).collect()
}

fn key(pid: u64) -> RefusedKey {
    RefusedKey { pid: pid as u32, ..sample::enriched().refused }
}

/// What an alert tells: each fifth does. With more of them there are more crashes than anybody waits for.
fn marks(sequence: u64) -> Vec<Mark> {
    if sequence.is_multiple_of(5) { vec![(key(sequence), sequence)] } else { Vec::new() }
}

/// Of what is in no alert, saved with the cursors.
fn notes(next: u64) -> [Mark; 1] {
    [(key(1_000), next)]
}

fn cursors(next: u64) -> Cursors {
    Cursors::from([("siem".to_owned(), Cursor { next, lost: next * 2, told: next * 3 })])
}

/// What a store on this disk has: its alerts' numbers, and its cursor.
fn found(image: Vec<u8>) -> (Vec<u64>, u64) {
    let store = Store::open(Platter::of(image), COST_MAX).unwrap();
    let entries = store.read(0..u64::MAX, ALL).unwrap();
    assert!(entries.iter().all(|entry| entry.alert.count == entry.sequence));
    let numbers = entries.iter().map(|entry| entry.sequence).collect();
    let cursor = store.cursors().unwrap()["siem"];
    assert_eq!(cursors(cursor.next)["siem"], cursor, "of one moment");
    let told = entries.iter().flat_map(|entry| marks(entry.sequence));
    let mut told: Vec<Mark> = told.chain(notes(cursor.next)).collect();
    let mut saved = store.marks(BOOT).unwrap();
    for marks in [&mut told, &mut saved] {
        marks.sort_by_key(|(key, _)| key.pid);
    }
    assert_eq!(saved, told, "of the same moment");
    (numbers, cursor.next)
}

/// A disk on which twenty alerts are, while five more are put there.
fn interrupted() -> Vec<(Vec<u8>, Vec<Asked>)> {
    let platter = Platter::default();
    let store = Store::open(platter.clone(), COST_MAX).unwrap();
    for five in 0..4 {
        store.save(&entries(five * 5..five * 5 + 5), &cursors(five), &notes(five), BOOT).unwrap();
    }
    platter.watch();
    store.save(&entries(20..25), &cursors(7), &notes(7), BOOT).unwrap();
    platter.moments()
}

/// Before or after, nothing between.
fn check((numbers, cursor): (Vec<u64>, u64), when: &str) -> bool {
    let is_after = cursor == 7;
    assert!(is_after || cursor == 3, "{when}: cursor {cursor}");
    assert!(numbers.into_iter().eq(0..if is_after { 25 } else { 20 }), "{when}");
    is_after
}

#[test]
fn a_write_torn_at_any_byte_loses_nothing_that_was_saved() {
    let mut outcomes = [0, 0];
    for (moment, (safe, asked)) in interrupted().into_iter().enumerate() {
        for last in 0..=asked.len() {
            let mut image = safe.clone();
            asked[..last].iter().for_each(|asked| apply(&mut image, asked, usize::MAX));
            let lengths: Vec<usize> = match asked.get(last) {
                Some(Asked::Write(offset, data)) => {
                    // Where nothing changes there is nothing to tear.
                    let differs = |at: &usize| image.get(offset + at) != Some(&data[*at]);
                    (0..data.len()).filter(differs).map(|at| at + 1).collect()
                }
                _ => vec![0],
            };
            for bytes in lengths {
                let mut torn = image.clone();
                asked.get(last).into_iter().for_each(|asked| apply(&mut torn, asked, bytes));
                let after = check(found(torn), &format!("moment {moment}, write {last}, byte {bytes}"));
                outcomes[usize::from(after)] += 1;
            }
        }
    }
    eprintln!("{} crashes before, {} after", outcomes[0], outcomes[1]);
    assert!(outcomes[0] > 1_000 && outcomes[1] > 0, "{outcomes:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// A disk writes sectors in the order it likes.
    #[test]
    fn writes_in_any_order_lose_nothing_that_was_saved(seed in any::<u64>()) {
        let mut random = seed;
        let mut coin = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random & 1 == 1
        };
        for (moment, (safe, asked)) in interrupted().into_iter().enumerate() {
            let mut image = safe;
            for asked in &asked {
                let Asked::Write(offset, data) = asked else {
                    apply(&mut image, asked, usize::MAX);
                    continue;
                };
                for (sector, part) in data.chunks(SECTOR_BYTES).enumerate() {
                    if coin() {
                        let at = offset + sector * SECTOR_BYTES;
                        apply(&mut image, &Asked::Write(at, part.to_vec()), usize::MAX);
                    }
                }
            }
            check(found(image), &format!("moment {moment} of {seed}"));
        }
    }

    /// A disk that gives back other bytes than it was given: the store says so, or is not touched by it.
    #[test]
    fn bytes_that_changed_are_noticed(at in any::<prop::sample::Index>(), change in 1u8..) {
        let platter = Platter::default();
        let store = Store::open(platter.clone(), COST_MAX).unwrap();
        store.save(&entries(0..40), &cursors(1), &notes(1), BOOT).unwrap();
        drop(store);
        let mut image = platter.sides().seen.clone();
        let at = at.index(image.len());
        image[at] ^= change;
        match Store::open(Platter::of(image), COST_MAX) {
            Err(StoreError::Damaged(_)) => {}
            Err(other) => panic!("{other:?}"),
            Ok(store) => {
                let numbers = store.read(0..u64::MAX, ALL).unwrap().into_iter().map(|entry| entry.sequence);
                prop_assert!(numbers.eq(0..40));
                let mut told = store.marks(BOOT).unwrap();
                told.sort_by_key(|(key, _)| key.pid);
                let of_alerts = (0..40).flat_map(marks);
                prop_assert!(told.into_iter().eq(of_alerts.chain(notes(1))));
            }
        }
    }
}
