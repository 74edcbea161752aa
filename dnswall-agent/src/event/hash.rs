//! Takes a program's file, gives its SHA-256, later: what is known of the same file already at once, the rest when a thread of its own
//! has read it. Nobody here waits for a file.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use jiff::Timestamp;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{AtFlags, StatxFlags, StatxTimestamp, statx};

use crate::lru::Lru;

/// Files whose hash is remembered.
pub const HASHES_MAX: usize = 4_096;
/// Files that wait to be read.
pub const WAITING_MAX: usize = 64;
/// Processes that wait for one file.
const CELLS_MAX: usize = 1_024;
/// Once half of the places are taken, one user has this part of them all at most.
const SHARE_DIVISOR: usize = 4;

/// The hash of a process's program: empty until somebody asks for it and it is known. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct HashCell(Arc<Cell>);

#[derive(Debug, Default)]
struct Cell {
    is_asked: AtomicBool,
    answer: OnceLock<Option<Arc<str>>>,
}

impl HashCell {
    /// SHA-256 in hexadecimal, if it is known.
    pub fn get(&self) -> Option<&Arc<str>> {
        self.0.answer.get()?.as_ref()
    }

    /// Whether somebody asked, and has no answer yet.
    pub fn is_pending(&self) -> bool {
        self.0.is_asked.load(Ordering::Relaxed) && self.0.answer.get().is_none()
    }

    /// Whether it is of use to whoever looks at the same process again.
    pub(super) fn is_good(&self) -> bool {
        self.0.answer.get().is_none_or(Option::is_some)
    }

    /// Whether this is who asks first.
    pub(crate) fn ask(&self) -> bool {
        !self.0.is_asked.swap(true, Ordering::Relaxed)
    }

    pub(crate) fn answer(&self, hash: Option<Arc<str>>) {
        // The first answer counts.
        let _ = self.0.answer.set(hash);
    }
}

impl PartialEq for HashCell {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for HashCell {}

/// By what a file is known to hold the same bytes as when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    device: (u32, u32),
    inode: u64,
    /// Its size.
    pub bytes: u64,
    modified: (i64, u32),
    changed: (i64, u32),
}

impl Fingerprint {
    /// The device of its file system.
    pub const fn device(&self) -> (u32, u32) {
        self.device
    }

    /// Of an open file, without waiting for a file system that asks a process or a server.
    pub fn of(file: impl AsFd) -> Option<Self> {
        let wanted = StatxFlags::INO | StatxFlags::SIZE | StatxFlags::MTIME | StatxFlags::CTIME;
        let found = statx(file, "", AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC, wanted).ok()?;
        let time = |time: StatxTimestamp| (time.tv_sec, time.tv_nsec);
        Some(Self {
            device: (found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
            bytes: found.stx_size,
            modified: time(found.stx_mtime),
            changed: time(found.stx_ctime),
        })
    }

    /// Whether nobody has written to it, nor changed anything else about it, since then. A file's times may be a clock tick late.
    pub fn is_older_than(&self, then: Timestamp) -> bool {
        let (seconds, nanoseconds) = self.changed;
        let changed = i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        changed + CLOCK_GRAIN_NS <= then.as_nanosecond()
    }
}

/// How late a file's times may be (`CONFIG_HZ=100`), twice.
const CLOCK_GRAIN_NS: i128 = 20_000_000;

/// A program's file, opened for nothing but to be there: it stays that file when the process ends, or its name goes.
#[derive(Debug)]
pub struct Program {
    /// The file (`O_PATH`).
    pub file: OwnedFd,
    /// What it is known by.
    pub fingerprint: Fingerprint,
}

impl Program {
    /// Of a file.
    pub(super) fn new(file: OwnedFd) -> Option<Self> {
        let fingerprint = Fingerprint::of(&file)?;
        Some(Self { file, fingerprint })
    }
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HashCounters {
    /// Files that were read.
    pub read: u64,
    /// Files that could not be, or are not to be: too large, gone, on a file system that cannot be trusted.
    pub failed: u64,
    /// Processes that go without because too many files waited.
    pub crowded_out: u64,
}

/// The hashes that are known, and the files that wait to be read.
#[derive(Debug)]
pub struct Hashes {
    desk: SyncSender<Program>,
    state: Mutex<State>,
    /// Readable as soon as a file has been read.
    bell: OwnedFd,
    read: AtomicU64,
    failed: AtomicU64,
    crowded_out: AtomicU64,
}

#[derive(Debug)]
struct State {
    known: Lru<Fingerprint, Option<Arc<str>>>,
    /// Whoever asked first is whose file it is.
    waiting: HashMap<Fingerprint, Vec<(Asker, HashCell)>>,
}

/// The user who runs the program, as the host counts, if that is known.
type Asker = Option<u32>;

/// What came of reading a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// SHA-256 in hexadecimal.
    Hash(String),
    /// It is not to be read, which is so as long as it is the same file.
    Never,
    /// It could not be read this time.
    Failed,
}

impl Hashes {
    /// An empty one, and where the files come out that are to be read.
    ///
    /// # Errors
    /// When the kernel has no more descriptors.
    pub fn new() -> std::io::Result<(Self, Receiver<Program>)> {
        let (desk, programs) = sync_channel(WAITING_MAX);
        let state = Mutex::new(State { known: Lru::new(HASHES_MAX), waiting: HashMap::new() });
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let count = || AtomicU64::new(0);
        let hashes = Self { desk, state, bell, read: count(), failed: count(), crowded_out: count() };
        Ok((hashes, programs))
    }

    /// Fills the cell, now or later. `asker` is the user who runs the program: one who runs many leaves room for others'.
    pub fn ask(&self, program: Program, cell: &HashCell, asker: Option<u32>) {
        let fingerprint = program.fingerprint;
        let mut state = self.state();
        if let Some(known) = state.known.get(&fingerprint) {
            return cell.answer(known.clone());
        }
        let waits = match state.waiting.get_mut(&fingerprint) {
            Some(cells) => {
                let has_place = has_place(cells.iter().map(|(of, _)| *of), asker, CELLS_MAX);
                if has_place {
                    cells.push((asker, cell.clone()));
                }
                has_place
            }
            None => {
                let files = state.waiting.values().map(|cells| cells.first().and_then(|(of, _)| *of));
                let is_taken = has_place(files, asker, WAITING_MAX) && self.desk.try_send(program).is_ok();
                if is_taken {
                    state.waiting.insert(fingerprint, vec![(asker, cell.clone())]);
                }
                is_taken
            }
        };
        if !waits {
            self.crowded_out.fetch_add(1, Ordering::Relaxed);
            cell.answer(None);
        }
    }

    /// Takes what came of a file.
    pub fn learn(&self, fingerprint: Fingerprint, outcome: Outcome) {
        let hash = match &outcome {
            Outcome::Hash(hash) => Some(Arc::from(hash.as_str())),
            Outcome::Never | Outcome::Failed => None,
        };
        let counter = if hash.is_some() { &self.read } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state();
        if outcome != Outcome::Failed {
            state.known.insert(fingerprint, hash.clone());
        }
        let cells = state.waiting.remove(&fingerprint).unwrap_or_default();
        cells.iter().for_each(|(_, cell)| cell.answer(hash.clone()));
        drop(state);
        // It can only fail because nobody took note of billions of them.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }

    /// Takes note that files were read.
    pub fn heard(&self) {
        // When there is nothing to take note of it fails, which is as good.
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }

    /// What was counted so far.
    pub fn counters(&self) -> HashCounters {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        HashCounters { read: of(&self.read), failed: of(&self.failed), crowded_out: of(&self.crowded_out) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change in it is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether there is a place for one more of this asker's, among at most `most`.
fn has_place(taken: impl ExactSizeIterator<Item = Asker>, asker: Asker, most: usize) -> bool {
    let all = taken.len();
    all < most / 2 || (all < most && taken.filter(|of| *of == asker).count() < most / SHARE_DIVISOR)
}

impl AsFd for Hashes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::path::Path;

    fn program(directory: &Path, name: &str) -> Program {
        let path = directory.join(name);
        if !path.exists() {
            std::fs::write(&path, name).unwrap();
        }
        Program::new(File::open(path).unwrap().into()).unwrap()
    }

    fn asked(hashes: &Hashes, program: Program) -> HashCell {
        asked_by(hashes, program, Some(1_000))
    }

    fn asked_by(hashes: &Hashes, program: Program, asker: Asker) -> HashCell {
        let cell = HashCell::default();
        assert!(cell.ask() && !cell.ask(), "asked once");
        hashes.ask(program, &cell, asker);
        cell
    }

    #[test]
    fn a_file_is_read_once_for_all_who_run_it() {
        let directory = tempfile::tempdir().unwrap();
        let (hashes, programs) = Hashes::new().unwrap();
        let cells = [0; 3].map(|_| asked(&hashes, program(directory.path(), "a")));
        let waiting: Vec<Program> = programs.try_iter().collect();
        assert_eq!(waiting.len(), 1);
        assert!(cells.iter().all(|cell| cell.is_pending() && cell.get().is_none()));
        hashes.learn(waiting[0].fingerprint, Outcome::Hash("ab".to_owned()));
        assert!(
            cells.iter().all(|cell| !cell.is_pending() && cell.get().is_some_and(|hash| **hash == *"ab"))
        );
        let later = asked(&hashes, program(directory.path(), "a"));
        assert_eq!((later.get().map(|hash| &**hash), programs.try_iter().count()), (Some("ab"), 0));
        // It is another file as soon as it is written to.
        std::fs::write(directory.path().join("a"), "other").unwrap();
        assert!(asked(&hashes, program(directory.path(), "a")).is_pending());
        assert_eq!(hashes.counters().read, 1);
    }

    #[test]
    fn what_is_not_to_be_read_is_not_asked_for_again_and_what_failed_is() {
        let directory = tempfile::tempdir().unwrap();
        let (hashes, programs) = Hashes::new().unwrap();
        for (name, outcome, again) in [("never", Outcome::Never, 0), ("failed", Outcome::Failed, 1)] {
            let cell = asked(&hashes, program(directory.path(), name));
            hashes.learn(programs.try_recv().unwrap().fingerprint, outcome);
            assert!(cell.get().is_none() && !cell.is_pending() && !cell.is_good(), "{name}");
            asked(&hashes, program(directory.path(), name));
            assert_eq!(programs.try_iter().count(), again, "{name}");
        }
        assert_eq!(hashes.counters().failed, 2);
    }

    #[test]
    fn when_too_many_wait_the_next_goes_without_and_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let (hashes, _programs) = Hashes::new().unwrap();
        let cells: Vec<HashCell> = (0..WAITING_MAX + 2)
            .map(|number| {
                asked_by(&hashes, program(directory.path(), &number.to_string()), Some(number as u32))
            })
            .collect();
        assert_eq!(cells.iter().filter(|cell| cell.is_pending()).count(), WAITING_MAX);
        assert_eq!(hashes.counters().crowded_out, 2);
    }

    #[test]
    fn a_user_who_runs_many_programs_leaves_room_for_others() {
        let directory = tempfile::tempdir().unwrap();
        let (hashes, programs) = Hashes::new().unwrap();
        let waiting = |asker, names: std::ops::Range<usize>, kind: &str| {
            let file = |number| program(directory.path(), &format!("{kind}{number}"));
            names.filter(|number| asked_by(&hashes, file(*number), asker).is_pending()).count()
        };
        assert_eq!(waiting(Some(1), 0..WAITING_MAX + 8, "a"), WAITING_MAX / 2);
        assert_eq!(hashes.counters().crowded_out, WAITING_MAX as u64 / 2 + 8);
        let share = WAITING_MAX / SHARE_DIVISOR;
        assert_eq!(waiting(Some(2), 0..WAITING_MAX, "b"), share);
        assert_eq!(waiting(None, 0..WAITING_MAX, "c"), share, "whoever nobody knows are one");
        assert_eq!(waiting(Some(3), 0..1, "d"), 0, "now it is full");
        // A file that waits already takes no room.
        assert_eq!(waiting(Some(3), 0..1, "b"), 1);
        // As for files, so for those who wait for one.
        let of_one = || asked_by(&hashes, program(directory.path(), "b0"), Some(4)).is_pending();
        assert_eq!((0..CELLS_MAX).filter(|_| of_one()).count(), CELLS_MAX / 2 - 2);
        assert!(asked_by(&hashes, program(directory.path(), "b0"), Some(5)).is_pending());
        // What was read makes room again.
        for program in programs.try_iter() {
            hashes.learn(program.fingerprint, Outcome::Failed);
        }
        assert_eq!(waiting(Some(1), 0..1, "a"), 1);
    }

    #[test]
    fn a_file_that_was_just_written_may_have_been_written_after_that() {
        let directory = tempfile::tempdir().unwrap();
        let Fingerprint { changed: (seconds, nanoseconds), .. } = program(directory.path(), "a").fingerprint;
        let changed = Timestamp::new(seconds, nanoseconds as i32).unwrap();
        let fingerprint = program(directory.path(), "a").fingerprint;
        let after = |ms| changed + jiff::SignedDuration::from_millis(ms);
        assert!(fingerprint.is_older_than(after(20)));
        assert!(!fingerprint.is_older_than(after(19)) && !fingerprint.is_older_than(after(-1_000)));
    }
}
