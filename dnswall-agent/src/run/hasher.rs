//! Takes programs' files from the queue of [`Hashes`], gives it their SHA-256. On a thread of its own: a file may be large, or on a
//! file system that answers late or never.
//!
//! A thread that makes no progress is left behind, and another one goes on. It is no [`worker`](crate::worker): that one is asked and
//! answers in turn, and this one takes what waits, is as slow as a file is large, and says itself that it gets ahead. What comes from
//! the same device meanwhile is not read. Large files are read in slices, with as long a pause after each as it took: nobody's disk or
//! processor is taken for more than half the time.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, fstatfs};
use sha2::{Digest as _, Sha256};

use crate::digest::hexadecimal;
use crate::event::hash::{Fingerprint, Outcome, Program};
use crate::event::{Clocks, Hashes};
use crate::host::read_text;

/// The largest file that is read.
pub const PROGRAM_BYTES_MAX: u64 = 512 << 20;
/// Threads that may be left behind. When so many are, nothing is read until one is back.
pub const STUCK_MAX: usize = 4;
/// How long a read of one slice may take, in nanoseconds.
const STUCK_NS: u64 = 5_000_000_000;
/// What is read without a pause: most programs are smaller.
const AT_ONCE_BYTES: u64 = 16 << 20;
/// Bytes between two pauses.
const SLICE_BYTES: usize = 1 << 20;
/// `FUSE_SUPER_MAGIC`: whoever serves such a file may give each reader other bytes, and this one none.
const FUSE: u64 = 0x6573_5546;
/// `OVERLAYFS_SUPER_MAGIC`.
const OVERLAY: u64 = 0x794c_7630;
/// The mounts of the host's first process.
const HOST_MOUNTS: &str = "/proc/1/mountinfo";

/// The device of a file system.
type Device = (u32, u32);
/// What makes a program's file its hash; the function is to be called after each slice.
type Hash = fn(&Program, &dyn Fn()) -> Outcome;

/// The threads that read, at most one of which is not left behind.
#[derive(Debug)]
pub struct Hasher {
    hash: Hash,
    hashes: Arc<Hashes>,
    programs: Mutex<Receiver<Program>>,
    watch: Mutex<Watch>,
}

/// The thread that is not left behind, and where the others are.
#[derive(Debug, Default)]
struct Watch {
    number: u64,
    /// The device it reads from, and when it last got ahead, on the monotonic clock; nothing while it waits for work.
    at: Option<(Device, u64)>,
    /// A device for each thread that was left behind there. Nobody else goes to one, so each is here once.
    shunned: Vec<Device>,
}

impl Hasher {
    /// Starts to read what is asked for.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start(hashes: Arc<Hashes>, programs: Receiver<Program>) -> io::Result<Arc<Self>> {
        Self::start_with(hash, hashes, programs)
    }

    fn start_with(hash: Hash, hashes: Arc<Hashes>, programs: Receiver<Program>) -> io::Result<Arc<Self>> {
        let (programs, watch) = (Mutex::new(programs), Mutex::default());
        let hasher = Arc::new(Self { hash, hashes, programs, watch });
        hasher.employ(0)?;
        Ok(hasher)
    }

    /// How many threads wait for a file right now.
    pub fn stuck(&self) -> usize {
        locked(&self.watch).shunned.len()
    }

    /// Leaves a thread behind that gets nowhere, and starts another one. To be called now and then.
    pub fn look_after(self: &Arc<Self>, now_ns: u64) {
        let mut watch = locked(&self.watch);
        let Some((device, ahead_ns)) = watch.at else { return };
        if now_ns.saturating_sub(ahead_ns) < STUCK_NS || watch.shunned.len() >= STUCK_MAX {
            return;
        }
        tracing::warn!("a program on device {}:{} cannot be read: nothing comes", device.0, device.1);
        if let Err(error) = self.employ(watch.number + 1) {
            tracing::warn!(%error, "no program is read for now: start a thread");
            // After as long again.
            watch.at = Some((device, now_ns));
            return;
        }
        watch.shunned.push(device);
        watch.number += 1;
        watch.at = None;
    }

    fn employ(self: &Arc<Self>, number: u64) -> io::Result<()> {
        let hasher = Arc::clone(self);
        thread::Builder::new().name("hashes".to_owned()).spawn(move || hasher.run(number)).map(drop)
    }

    fn run(&self, number: u64) {
        loop {
            let Ok(program) = locked(&self.programs).recv() else { return };
            let device = program.fingerprint.device();
            if !self.goes_to(device, number) {
                self.hashes.learn(program.fingerprint, Outcome::Failed);
                continue;
            }
            let outcome = (self.hash)(&program, &|| self.gets_ahead(device, number));
            // Before anybody has the hash, and asks for the next one of that device.
            let was_left_behind = self.comes_back(device, number);
            self.hashes.learn(program.fingerprint, outcome);
            if was_left_behind {
                return;
            }
        }
    }

    /// A thread begins to read there; `false` if nobody is to.
    fn goes_to(&self, device: Device, number: u64) -> bool {
        let is_shunned = locked(&self.watch).shunned.contains(&device);
        if !is_shunned {
            self.gets_ahead(device, number);
        }
        !is_shunned
    }

    /// What a thread that is left behind does is of no interest.
    fn gets_ahead(&self, device: Device, number: u64) {
        let mut watch = locked(&self.watch);
        if watch.number == number {
            watch.at = Some((device, Clocks::read().monotonic_ns));
        }
    }

    /// A thread has read what it was to read; `true` for one that was left behind, and is one too many now.
    fn comes_back(&self, device: Device, number: u64) -> bool {
        let mut watch = locked(&self.watch);
        let was_left_behind = watch.number != number;
        if was_left_behind {
            watch.shunned.retain(|shunned| *shunned != device);
        } else {
            watch.at = None;
        }
        was_left_behind
    }
}

/// The hash of a file; `ahead` is told after each slice.
fn hash(program: &Program, ahead: &dyn Fn()) -> Outcome {
    if program.fingerprint.bytes > PROGRAM_BYTES_MAX
        || is_made_up(&program.file, program.fingerprint.device())
    {
        return Outcome::Never;
    }
    match read(program, ahead) {
        // It is not what was asked for any more.
        Ok(hash) if Fingerprint::of(&program.file) == Some(program.fingerprint) => Outcome::Hash(hash),
        Ok(_) | Err(_) => Outcome::Failed,
    }
}

fn is_made_up(file: impl AsFd, device: Device) -> bool {
    match fstatfs(file).map(|found| found.f_type as u64) {
        Ok(FUSE) => true,
        // Whoever has a user namespace may have one above a FUSE of his own (since 5.11). What the host has mounted is root's.
        Ok(OVERLAY) => !is_the_hosts(device),
        _ => false,
    }
}

/// Whether the host itself has that device mounted somewhere.
fn is_the_hosts((major, minor): Device) -> bool {
    let wanted = format!("{major}:{minor}");
    let mounts = read_text(HOST_MOUNTS).unwrap_or_default();
    // The third field (proc_pid_mountinfo(5)).
    mounts.lines().any(|line| line.split(' ').nth(2) == Some(wanted.as_str()))
}

fn read(program: &Program, ahead: &dyn Fn()) -> io::Result<String> {
    // What is open for nothing is opened to be read: the same file, wherever it is, with a name or without.
    let path = format!("/proc/self/fd/{}", program.file.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut file = File::from(rustix::fs::open(path, flags, Mode::empty())?).take(PROGRAM_BYTES_MAX + 1);
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; SLICE_BYTES]);
    let mut total = 0;
    loop {
        let begun = Instant::now();
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        total += count as u64;
        ahead();
        if total > AT_ONCE_BYTES {
            thread::sleep(begun.elapsed().min(PAUSE_MAX));
        }
    }
    if total != program.fingerprint.bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(hexadecimal(&hash.finalize()))
}

const PAUSE_MAX: Duration = Duration::from_secs(1);

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Every change in them is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::HashCell;
    use std::path::Path;

    fn program(path: &Path) -> Program {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty()).unwrap();
        Program { fingerprint: Fingerprint::of(&file).unwrap(), file }
    }

    fn outcome(path: &Path) -> Outcome {
        hash(&program(path), &|| {})
    }

    #[test]
    fn the_hash_is_that_of_the_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        // The standard's own example (FIPS 180-2, B.1), and more than a slice.
        std::fs::write(&path, "abc").unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(outcome(&path), Outcome::Hash(expected.to_owned()));
        let large = vec![b'x'; SLICE_BYTES * 2 + 1];
        std::fs::write(&path, &large).unwrap();
        assert_eq!(outcome(&path), Outcome::Hash(hexadecimal(&Sha256::digest(&large))));
    }

    #[test]
    fn a_file_without_a_name_is_read_and_one_that_changes_is_not_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        std::fs::write(&path, "abc").unwrap();
        let nameless = program(&path);
        std::fs::remove_file(&path).unwrap();
        // Its last name went: that is a change.
        assert_eq!(hash(&nameless, &|| {}), Outcome::Failed);
        let nameless = Program { fingerprint: Fingerprint::of(&nameless.file).unwrap(), ..nameless };
        assert!(matches!(hash(&nameless, &|| {}), Outcome::Hash(_)));
        std::fs::write(&path, "abc").unwrap();
        let growing = program(&path);
        std::fs::write(&path, "abcdef").unwrap();
        assert_eq!(hash(&growing, &|| {}), Outcome::Failed);
    }

    #[test]
    fn what_is_too_large_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        File::create(&path).unwrap().set_len(PROGRAM_BYTES_MAX + 1).unwrap();
        assert_eq!(outcome(&path), Outcome::Never);
        assert!(!is_made_up(File::open(&path).unwrap(), (0, 0)));
        // Whatever the host's mounts are, this is none.
        assert!(!is_the_hosts((4_095, 1_048_575)));
    }

    /// Held by a test, so that a thread hangs at what is in a directory, and not at what is in `/proc`.
    static HELD: Mutex<()> = Mutex::new(());

    fn hang(program: &Program, _: &dyn Fn()) -> Outcome {
        if program.fingerprint.device() != self::program(Path::new(ELSEWHERE)).fingerprint.device() {
            drop(locked(&HELD));
        }
        Outcome::Hash("abc".to_owned())
    }

    const ELSEWHERE: &str = "/proc/version";

    /// What `is_so`, however late.
    fn wait(what: &str, is_so: impl Fn() -> bool) {
        let until = Instant::now() + Duration::from_secs(60);
        while !is_so() {
            assert!(Instant::now() < until, "{what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn asked(hashes: &Hashes, path: &Path) -> HashCell {
        let cell = HashCell::default();
        assert!(cell.ask());
        hashes.ask(program(path), &cell, None);
        cell
    }

    #[test]
    fn a_thread_that_gets_nowhere_is_left_behind_and_what_else_comes_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["a", "b"].map(|name| directory.path().join(name));
        for path in &paths {
            std::fs::write(path, "abc").unwrap();
        }
        let (hashes, programs) = Hashes::new().unwrap();
        let hashes = Arc::new(hashes);
        let hasher = Hasher::start_with(hang, Arc::clone(&hashes), programs).unwrap();

        let held = locked(&HELD);
        let late = asked(&hashes, &paths[0]);
        wait("it goes there", || locked(&hasher.watch).at.is_some());
        let (device, since_ns) = locked(&hasher.watch).at.unwrap();
        hasher.look_after(since_ns + STUCK_NS - 1);
        assert_eq!(hasher.stuck(), 0);
        hasher.look_after(since_ns + STUCK_NS);
        assert_eq!(locked(&hasher.watch).shunned, [device]);
        // The next thread reads what is elsewhere, and does not go where the first one hangs.
        let elsewhere = asked(&hashes, Path::new(ELSEWHERE));
        wait("another thread reads", || elsewhere.get().is_some());
        let beside = asked(&hashes, &paths[1]);
        wait("what is beside it is answered", || !beside.is_pending());
        assert_eq!((beside.get(), late.is_pending(), hasher.stuck()), (None, true, 1));

        drop(held);
        wait("it comes back", || late.get().is_some());
        // Who has its hash can ask for the next one.
        assert_eq!(hasher.stuck(), 0);
        let beside = asked(&hashes, &paths[1]);
        wait("what is beside it is read", || beside.get().is_some());
    }
}
