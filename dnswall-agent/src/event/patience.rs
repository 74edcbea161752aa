//! Takes a file of another process's directory in /proc, gives its bytes, or nothing when they do not come in time.
//!
//! What the kernel reads from a process's memory, or of its mappings, it reads under that memory's lock, and whoever has a
//! file system of its own (FUSE) can hold that for as long as it likes. So a thread of its own does the reading, and is left
//! behind when it does not come back.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How long a read may take. One that nobody hinders takes microseconds.
const PATIENCE: Duration = Duration::from_millis(100);
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
    answer: SyncSender<Option<Vec<u8>>>,
    /// Whoever comes second, the thread with its answer or the other with its patience at an end, knows by it.
    is_over: Arc<AtomicBool>,
}

/// The thread that reads; none until it is needed, and after one was left behind.
static CLERK: Mutex<Option<SyncSender<Errand>>> = Mutex::new(None);
static STUCK: AtomicUsize = AtomicUsize::new(0);

/// How many threads wait for another process right now.
pub fn stuck() -> usize {
    STUCK.load(Ordering::Relaxed)
}

/// The answer of `read`, if it comes in time.
pub(super) fn ask(dir: impl AsFd, name: &'static str, bytes_max: usize, read: Read) -> Option<Vec<u8>> {
    if stuck() >= STUCK_MAX {
        return None;
    }
    let dir = dir.as_fd().try_clone_to_owned().ok()?;
    let (answer, answered) = sync_channel(1);
    let is_over = Arc::new(AtomicBool::new(false));
    let mut clerk = clerk();
    let desk = match clerk.take() {
        Some(desk) => desk,
        None => employ()?,
    };
    desk.send(Errand { dir, name, bytes_max, read, answer, is_over: is_over.clone() }).ok()?;
    if let Ok(bytes) = answered.recv_timeout(PATIENCE) {
        *clerk = Some(desk);
        return bytes;
    }
    STUCK.fetch_add(1, Ordering::Relaxed);
    if is_over.swap(true, Ordering::AcqRel) {
        // It came at the last moment.
        STUCK.fetch_sub(1, Ordering::Relaxed);
        *clerk = Some(desk);
        return answered.recv().ok().flatten();
    }
    None
}

/// Starts a thread, which ends when nobody asks it any more.
fn employ() -> Option<SyncSender<Errand>> {
    let (desk, errands) = sync_channel(1);
    thread::Builder::new().name("dnswall-proc".to_owned()).spawn(move || run(&errands)).ok()?;
    Some(desk)
}

fn run(errands: &Receiver<Errand>) {
    for Errand { dir, name, bytes_max, read, answer, is_over } in errands {
        let bytes = read(&dir, name, bytes_max);
        if is_over.swap(true, Ordering::AcqRel) {
            STUCK.fetch_sub(1, Ordering::Relaxed);
        } else {
            // There is room for it, and who asked waits for it.
            let _ = answer.send(bytes);
        }
    }
}

fn clerk() -> MutexGuard<'static, Option<SyncSender<Errand>>> {
    // It holds a way to a thread, or none.
    CLERK.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::time::Instant;

    fn hold(_: &OwnedFd, _: &'static str, _: usize) -> Option<Vec<u8>> {
        thread::sleep(Duration::from_secs(2));
        Some(b"late".to_vec())
    }

    fn at_once(_: &OwnedFd, name: &'static str, _: usize) -> Option<Vec<u8>> {
        Some(name.as_bytes().to_vec())
    }

    // One test: they share the threads.
    #[test]
    fn who_does_not_answer_keeps_nobody_waiting() {
        let dir = || OwnedFd::from(File::open("/proc/self").unwrap());
        let begun = Instant::now();
        for left_behind in 1..=STUCK_MAX {
            assert_eq!(ask(dir(), "held", 1, hold), None);
            assert_eq!(stuck(), left_behind);
            if left_behind < STUCK_MAX {
                assert_eq!(ask(dir(), "quick", 1, at_once).as_deref(), Some(&b"quick"[..]));
            }
        }
        assert_eq!(ask(dir(), "quick", 1, at_once), None, "too many wait");
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        while stuck() > 0 {
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(ask(dir(), "quick", 1, at_once).as_deref(), Some(&b"quick"[..]));
    }
}
