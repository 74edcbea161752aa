//! Takes a file of another process's directory in /proc, gives its bytes, or nothing when they do not come in time.
//!
//! What the kernel reads from a process's memory, or of its mappings, it reads under that memory's lock, and whoever has a
//! file system of its own (FUSE) can hold that for as long as it likes. So a [`worker`](crate::worker) does the
//! reading, and is left behind when it does not come back.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::worker::{LeftBehind, Limits, Worker};

/// How long a read may take. One that nobody hinders takes microseconds.
const PATIENCE: Duration = Duration::from_millis(100);
/// The same for all of them in a second: who answers just in time, again and again, has no more of the reader than that.
const PATIENCE_EACH_SECOND: Duration = Duration::from_millis(300);
/// Threads that may be left behind at a time. When so many are, nothing of this kind is read until one is back.
pub const STUCK_MAX: usize = 8;

/// What is read: from this directory, by this function.
type Read = fn(&OwnedFd, &'static str, usize) -> Option<Vec<u8>>;

/// One read.
struct Errand {
    dir: OwnedFd,
    name: &'static str,
    bytes_max: usize,
    read: Read,
}

/// Who reads, one file at a time.
struct Reader {
    desk: Mutex<Desk>,
    /// To be looked at while somebody waits for the worker.
    left_behind: LeftBehind,
    /// Reads that were given up.
    given_up: AtomicU64,
    /// Reads that nobody tried.
    untried: AtomicU64,
}

struct Desk {
    worker: Worker<Errand, Option<Vec<u8>>>,
    /// How long was waited in the second that began then.
    waited: Duration,
    second: Instant,
}

static READER: LazyLock<Reader> = LazyLock::new(Reader::new);

/// How many threads wait for another process right now.
pub fn stuck() -> usize {
    READER.left_behind.count()
}

/// How many reads were given up so far.
pub fn given_up() -> u64 {
    READER.given_up.load(Ordering::Relaxed)
}

/// How many reads nobody tried so far, because others took too long.
pub fn untried() -> u64 {
    READER.untried.load(Ordering::Relaxed)
}

/// The answer of `read`, if it comes in time.
pub(super) fn ask(dir: impl AsFd, name: &'static str, bytes_max: usize, read: Read) -> Option<Vec<u8>> {
    let dir = dir.as_fd().try_clone_to_owned().ok()?;
    READER.ask(Errand { dir, name, bytes_max, read }, PATIENCE)
}

impl Reader {
    fn new() -> Self {
        let limits = Limits { owed_max: 1, left_behind_max: STUCK_MAX };
        let work = |Errand { dir, name, bytes_max, read }: Errand| read(&dir, name, bytes_max);
        let worker = Worker::new("dnswall-proc", limits, Arc::new(work));
        let left_behind = worker.left_behind();
        let desk = Mutex::new(Desk { worker, waited: Duration::ZERO, second: Instant::now() });
        Self { desk, left_behind, given_up: AtomicU64::new(0), untried: AtomicU64::new(0) }
    }

    fn ask(&self, errand: Errand, patience: Duration) -> Option<Vec<u8>> {
        // Every change in it is whole.
        let mut desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        if desk.second.elapsed() >= Duration::from_secs(1) {
            (desk.waited, desk.second) = (Duration::ZERO, Instant::now());
        }
        if desk.waited >= PATIENCE_EACH_SECOND || !desk.worker.ask(errand) {
            self.untried.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let begun = Instant::now();
        let answer = desk.worker.answer(patience);
        desk.waited += begun.elapsed();
        if answer.is_none() {
            desk.worker.leave();
            self.given_up.fetch_add(1, Ordering::Relaxed);
        }
        answer.flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::thread;

    /// For what comes, however late.
    const SURELY: Duration = Duration::from_secs(60);
    /// Held by the test, so that a read hangs.
    static HELD: Mutex<()> = Mutex::new(());

    fn hang(_: &OwnedFd, _: &'static str, _: usize) -> Option<Vec<u8>> {
        drop(HELD.lock());
        Some(b"late".to_vec())
    }

    fn at_once(_: &OwnedFd, name: &'static str, _: usize) -> Option<Vec<u8>> {
        Some(name.as_bytes().to_vec())
    }

    fn slowly(_: &OwnedFd, _: &'static str, _: usize) -> Option<Vec<u8>> {
        thread::sleep(Duration::from_millis(90));
        Some(b"just in time".to_vec())
    }

    #[test]
    fn who_answers_just_in_time_has_a_part_of_each_second() {
        let reader = Reader::new();
        let ask = |read: Read| {
            let dir = OwnedFd::from(File::open("/proc/self").unwrap());
            reader.ask(Errand { dir, name: "name", bytes_max: 1, read }, SURELY)
        };
        let begun = Instant::now();
        let answered = (0..100).filter(|_| ask(slowly).is_some()).count() as u64;
        // Four in each second that has begun.
        assert!(answered > 0 && answered <= 4 * (begun.elapsed().as_secs() + 1), "{answered}");
        assert_eq!(reader.untried.load(Ordering::Relaxed), 100 - answered);
        thread::sleep(Duration::from_secs(1));
        assert_eq!(ask(at_once).as_deref(), Some(&b"name"[..]));
    }

    #[test]
    fn who_does_not_answer_keeps_nobody_waiting() {
        let reader = Reader::new();
        let ask = |read: Read, patience| {
            let dir = OwnedFd::from(File::open("/proc/self").unwrap());
            reader.ask(Errand { dir, name: "name", bytes_max: 1, read }, patience)
        };
        let held = HELD.lock().unwrap();
        for left_behind in 1..=STUCK_MAX {
            assert_eq!(ask(at_once, SURELY).as_deref(), Some(&b"name"[..]));
            assert_eq!(ask(hang, Duration::from_millis(1)), None);
            assert_eq!(reader.left_behind.count(), left_behind);
            assert_eq!(reader.given_up.load(Ordering::Relaxed), left_behind as u64);
        }
        assert_eq!(ask(at_once, SURELY), None, "too many wait");
        drop(held);
        let until = Instant::now() + SURELY;
        while reader.left_behind.count() > 0 && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(reader.left_behind.count(), 0);
        assert_eq!(ask(at_once, SURELY).as_deref(), Some(&b"name"[..]));
    }
}
