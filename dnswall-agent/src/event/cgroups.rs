//! Takes a directory of the cgroup hierarchy, gives the path of each cgroup below it by its id, also of one that is gone.
//!
//! A cgroup that was made for one command is removed with it, often before the event of what the command tried is read. So
//! inotify tells when a directory is made, and a thread of its own looks at it at once: a process comes into a cgroup only after
//! that, and a packet of its even later. Removal is told to the parent; the kernel drops no watch by itself then (6.18), so this
//! thread does.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::DirEntryExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::proc_dir::inode;
use crate::lru::Lru;

/// Paths remembered.
pub const PATHS_MAX: usize = 32_768;
/// Cgroups that are watched; what is made below another one is found as it would be without this.
pub const WATCHES_MAX: usize = 16_384;
/// Bytes of a path; a longer one is not remembered. Kubernetes has some two hundred.
pub const PATH_BYTES_MAX: usize = 1_024;
/// What the kernel allows a user of watches; no more than a half of it is taken (a kubelet needs some, too).
const ALLOWED: &str = "/proc/sys/fs/inotify/max_user_watches";
/// Cgroups that are read at once: there may be more below one, for whoever may make some.
const READ_MAX: usize = PATHS_MAX;
/// Where the kernel had to leave out what happened, everything is read again, after this,
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// and so many times as long as it took the last time.
const AGAIN_REST: u32 = 4;
/// Cgroups that are looked at each second: who may make some does not keep a processor busy with it.
const MADE_EACH_SECOND: u32 = 2_000;
/// Bytes of the kernel's answer: some hundred directories.
const ANSWER_BYTES: usize = 16_384;

/// What is known of the hierarchy.
#[derive(Debug)]
pub struct Cgroups {
    paths: Mutex<Lru<u64, Arc<[u8]>>>,
    unwatched: AtomicU64,
}

/// The thread's belongings.
struct Watcher {
    inotify: OwnedFd,
    cgroups: Arc<Cgroups>,
    mount: PathBuf,
    /// The top's path from the mount.
    top: Arc<[u8]>,
    watches_max: usize,
    /// Whether there was no place for one.
    turned_away: bool,
    read_max: usize,
    /// How long it took the last time to read everything.
    reading: Duration,
    /// What is watched, by the kernel's number of the watch and by path.
    watched: HashMap<i32, Arc<[u8]>>,
    numbers: HashMap<Arc<[u8]>, i32>,
    /// Cgroups that were made in the second that began then.
    made: u32,
    since: Instant,
}

/// What the kernel tells.
enum Told {
    Made(Arc<[u8]>),
    Removed(Arc<[u8]>),
    /// There was too much of it.
    LeftOut,
}

impl Cgroups {
    /// Watches what is at and below `top`, a directory of the hierarchy that is mounted at `mount`, from now on.
    ///
    /// # Errors
    /// When the kernel has no more instances of inotify for this user, or no more threads.
    pub fn watch(mount: PathBuf, top: &Path) -> io::Result<Arc<Self>> {
        let cgroups = Arc::new(Self { paths: Mutex::new(Lru::new(PATHS_MAX)), unwatched: AtomicU64::new(0) });
        let watcher = Watcher {
            inotify: inotify::init(CreateFlags::CLOEXEC)?,
            cgroups: Arc::clone(&cgroups),
            top: path_of(&mount, top),
            mount,
            watches_max: watches_max(std::fs::read_to_string(ALLOWED).ok().as_deref()),
            turned_away: false,
            read_max: READ_MAX,
            reading: Duration::ZERO,
            watched: HashMap::new(),
            numbers: HashMap::new(),
            made: 0,
            since: Instant::now(),
        };
        // It ends with the agent.
        thread::Builder::new().name("dnswall-cgroups".to_owned()).spawn(move || watcher.run())?;
        Ok(cgroups)
    }

    /// The path of a cgroup from the hierarchy's root, which is `/`.
    pub fn path(&self, cgroup: u64) -> Option<Arc<[u8]>> {
        locked(&self.paths).get(&cgroup).cloned()
    }

    /// How many times a cgroup was not watched, because there are too many.
    pub fn unwatched(&self) -> u64 {
        self.unwatched.load(Ordering::Relaxed)
    }

    fn remember(&self, cgroup: u64, path: &Arc<[u8]>) {
        locked(&self.paths).insert(cgroup, Arc::clone(path));
    }
}

impl Watcher {
    fn run(mut self) {
        self.learn(self.top.clone());
        if self.watched.is_empty() {
            tracing::error!(
                "cgroups are not watched: the kernel gives no watch (fs.inotify.max_user_watches)"
            );
            return;
        }
        let mut answer = [MaybeUninit::uninit(); ANSWER_BYTES];
        loop {
            match self.hear(&mut answer) {
                Ok(told) => told.into_iter().for_each(|told| self.follow(told)),
                Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "cgroups are not watched any more");
                    return;
                }
            }
        }
    }

    /// Waits for what happens next.
    fn hear(&self, answer: &mut [MaybeUninit<u8>]) -> Result<Vec<Told>, Errno> {
        let mut reader = inotify::Reader::new(&self.inotify, answer);
        let mut told = Vec::new();
        loop {
            let event = reader.next()?;
            let flags = event.events();
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                told.push(Told::LeftOut);
            } else if flags.contains(ReadFlags::ISDIR)
                && let Some(parent) = self.watched.get(&event.wd())
                && let Some(name) = event.file_name()
            {
                let path = child(parent, name.to_bytes());
                let is_made = flags.contains(ReadFlags::CREATE);
                told.push(if is_made { Told::Made(path) } else { Told::Removed(path) });
            }
            if reader.is_buffer_empty() {
                return Ok(told);
            }
        }
    }

    fn follow(&mut self, told: Told) {
        match told {
            Told::Made(path) => {
                self.rest();
                self.learn(path);
            }
            Told::Removed(path) => {
                self.forget(&path);
                // There is place again for those that had none.
                if self.turned_away && self.watched.len() < self.watches_max / 8 * 7 {
                    self.follow(Told::LeftOut);
                }
            }
            Told::LeftOut => {
                thread::sleep(AGAIN_AFTER.max(self.reading * AGAIN_REST));
                let begun = Instant::now();
                self.turned_away = false;
                self.forget_gone();
                self.learn(self.top.clone());
                self.reading = begun.elapsed();
            }
        }
    }

    /// Waits for the next second, when there was enough to do in this one.
    fn rest(&mut self) {
        self.made += 1;
        let second = Duration::from_secs(1);
        if self.since.elapsed() >= second {
            (self.made, self.since) = (1, Instant::now());
        } else if self.made > MADE_EACH_SECOND {
            thread::sleep(second.saturating_sub(self.since.elapsed()));
            (self.made, self.since) = (1, Instant::now());
        }
    }

    /// Watches a cgroup and those below it, each before what is in it is read: what is made meanwhile is seen one way or the other.
    fn learn(&mut self, path: Arc<[u8]>) {
        let (mut paths, mut read) = (VecDeque::from([path]), 0);
        while let Some(path) = paths.pop_front() {
            if path.len() > PATH_BYTES_MAX || read >= self.read_max {
                self.cgroups.unwatched.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            read += 1;
            let directory = directory(&self.mount, &path);
            // One that went away meanwhile has nothing to tell.
            let Some(id) = inode(&directory) else { continue };
            self.cgroups.remember(id, &path);
            self.add(&directory, &path);
            for (_, child) in children(&directory, &path) {
                if paths.len() < self.read_max {
                    paths.push_back(child);
                } else {
                    self.cgroups.unwatched.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn add(&mut self, directory: &Path, path: &Arc<[u8]>) {
        let is_known = self.numbers.contains_key(path);
        if !is_known && self.watched.len() >= self.watches_max {
            self.turn_away();
            return;
        }
        let flags = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::ONLYDIR | WatchFlags::DONT_FOLLOW;
        match inotify::add_watch(&self.inotify, directory, flags) {
            // The kernel's number of a directory that is watched already is the one that it has.
            Ok(number) if self.numbers.get(path) == Some(&number) => {}
            Ok(number) => {
                self.forget(path);
                self.watched.insert(number, Arc::clone(path));
                self.numbers.insert(Arc::clone(path), number);
            }
            Err(Errno::NOENT) => {}
            Err(error) => {
                if error == Errno::NOSPC {
                    // Others have the rest of them.
                    self.watches_max = self.watched.len();
                }
                self.turn_away();
            }
        }
    }

    fn turn_away(&mut self) {
        self.turned_away = true;
        self.cgroups.unwatched.fetch_add(1, Ordering::Relaxed);
    }

    fn forget(&mut self, path: &[u8]) {
        if let Some(number) = self.numbers.remove(path) {
            self.watched.remove(&number);
            // It may be gone by itself.
            let _ = inotify::remove_watch(&self.inotify, number);
        }
    }

    fn forget_gone(&mut self) {
        let paths = self.numbers.keys();
        let gone: Vec<_> =
            paths.filter(|path| inode(directory(&self.mount, path)).is_none()).cloned().collect();
        gone.iter().for_each(|path| self.forget(path));
    }
}

/// The directories in one, with their ids: a directory's entries carry inode numbers.
pub(super) fn children(directory: &Path, path: &[u8]) -> impl Iterator<Item = (u64, Arc<[u8]>)> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| (entry.ino(), child(path, entry.file_name().as_bytes())))
}

/// Where a cgroup is.
pub(super) fn directory(mount: &Path, path: &[u8]) -> PathBuf {
    let below = path.strip_prefix(b"/").unwrap_or(path).to_vec();
    mount.join(PathBuf::from(std::ffi::OsString::from_vec(below)))
}

/// A directory's path from the root of the hierarchy that is mounted there.
pub(super) fn path_of(mount: &Path, directory: &Path) -> Arc<[u8]> {
    let below = directory.strip_prefix(mount).unwrap_or(Path::new(""));
    [b"/", below.as_os_str().as_bytes()].concat().into()
}

fn child(parent: &[u8], name: &[u8]) -> Arc<[u8]> {
    [parent.strip_suffix(b"/").unwrap_or(parent), b"/", name].concat().into()
}

fn watches_max(allowed: Option<&str>) -> usize {
    let allowed = allowed.and_then(|text| text.trim().parse::<usize>().ok());
    allowed.map_or(WATCHES_MAX, |allowed| (allowed / 2).min(WATCHES_MAX))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change in it is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A tree of directories is as good as a hierarchy: ids are inode numbers in both, and who makes a directory is told to inotify.
    fn tree() -> (tempfile::TempDir, Arc<Cgroups>) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("wall.slice/a.service/deep")).unwrap();
        fs::create_dir_all(root.path().join("outside")).unwrap();
        let cgroups = Cgroups::watch(root.path().to_owned(), &root.path().join("wall.slice")).unwrap();
        (root, cgroups)
    }

    fn expect(cgroups: &Cgroups, id: u64, path: &str) {
        let until = Instant::now() + Duration::from_secs(10);
        // An id is another directory's after this one's here, as it never is in a hierarchy.
        while cgroups.path(id).as_deref() != Some(path.as_bytes()) && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(cgroups.path(id).as_deref(), Some(path.as_bytes()));
    }

    #[test]
    fn what_is_there_and_what_is_made_have_a_path_also_when_they_are_gone() {
        let (root, cgroups) = tree();
        let place = |path: &str| root.path().join(path.trim_start_matches('/'));
        let id = |path: &str| inode(place(path)).unwrap();
        let old = "/wall.slice/a.service/deep";
        expect(&cgroups, id(old), old);
        expect(&cgroups, id("/wall.slice"), "/wall.slice");
        // The second time in the same place, below what is new, and below what was there.
        for path in ["/wall.slice/b.scope", "/wall.slice/b.scope", "/wall.slice/a.service/deep/c"] {
            fs::create_dir_all(place(path).join("in/here")).unwrap();
            let (top, inner) = (id(path), id(&format!("{path}/in/here")));
            expect(&cgroups, inner, &format!("{path}/in/here"));
            fs::remove_dir_all(place(path)).unwrap();
            expect(&cgroups, top, path);
        }
        assert_eq!(cgroups.path(id("/outside")), None);
        assert_eq!(cgroups.unwatched(), 0);
    }

    /// A watcher that nobody runs.
    fn watcher(root: &Path, watches_max: usize) -> Watcher {
        Watcher {
            inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap(),
            cgroups: Arc::new(Cgroups { paths: Mutex::new(Lru::new(10)), unwatched: AtomicU64::new(0) }),
            mount: root.to_owned(),
            top: (*b"/").into(),
            watches_max,
            turned_away: false,
            read_max: 100,
            reading: Duration::ZERO,
            watched: HashMap::new(),
            numbers: HashMap::new(),
            made: 0,
            since: Instant::now(),
        }
    }

    #[test]
    fn a_watch_goes_with_its_cgroup_and_there_are_no_more_than_may_be() {
        let root = tempfile::tempdir().unwrap();
        let mut watcher = watcher(root.path(), 3);
        watcher.learn(watcher.top.clone());
        for round in 0..20 {
            let path = root.path().join("a");
            fs::create_dir(&path).unwrap();
            // Twice: it is watched once.
            watcher.learn((*b"/a").into());
            watcher.learn((*b"/a").into());
            assert_eq!((watcher.watched.len(), watcher.numbers.len()), (2, 2), "{round}");
            fs::remove_dir(&path).unwrap();
            watcher.follow(Told::Removed((*b"/a").into()));
            assert_eq!((watcher.watched.len(), watcher.numbers.len()), (1, 1), "{round}");
        }
        for name in ["a", "b", "c", "d"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        // What is not watched is known all the same, as far as it is there.
        watcher.follow(Told::LeftOut);
        assert_eq!((watcher.watched.len(), watcher.cgroups.unwatched()), (3, 2));
        assert!(watcher.turned_away);
        let id = |name: &str| inode(root.path().join(name)).unwrap();
        assert!(["a", "b", "c", "d"].iter().all(|name| watcher.cgroups.path(id(name)).is_some()));
        fs::remove_dir(root.path().join("a")).unwrap();
        fs::remove_dir(root.path().join("b")).unwrap();
        watcher.forget_gone();
        assert!(!watcher.numbers.contains_key(&b"/a"[..]) && !watcher.numbers.contains_key(&b"/b"[..]));
    }

    #[test]
    fn who_had_no_place_has_one_when_there_is_again() {
        let root = tempfile::tempdir().unwrap();
        let mut watcher = watcher(root.path(), 8);
        let names: Vec<String> = (0..9).map(|number| format!("/{number}")).collect();
        for name in &names {
            fs::create_dir(root.path().join(&name[1..])).unwrap();
        }
        watcher.learn(watcher.top.clone());
        assert_eq!((watcher.watched.len(), watcher.cgroups.unwatched()), (8, 2));
        let last: Arc<[u8]> = (*b"/late").into();
        fs::create_dir(root.path().join("late")).unwrap();
        watcher.follow(Told::Made(Arc::clone(&last)));
        assert!(!watcher.numbers.contains_key(&last));
        // Of eight there are six then.
        for name in names.iter().filter(|name| watcher.numbers.contains_key(name.as_bytes())).take(2) {
            fs::remove_dir(root.path().join(&name[1..])).unwrap();
        }
        let gone: Vec<&String> = names.iter().filter(|name| !root.path().join(&name[1..]).exists()).collect();
        gone.iter().for_each(|name| watcher.follow(Told::Removed(name.as_bytes().into())));
        assert_eq!(watcher.watched.len(), 8, "those that are there, and there is place for all but two");
    }

    #[test]
    fn a_path_without_end_takes_no_memory() {
        let root = tempfile::tempdir().unwrap();
        let mut watcher = watcher(root.path(), 100);
        let name = "a".repeat(200);
        let mut path = root.path().to_owned();
        (0..10).for_each(|_| path.push(&name));
        fs::create_dir_all(&path).unwrap();
        watcher.learn(watcher.top.clone());
        assert_eq!((watcher.watched.len(), watcher.cgroups.unwatched()), (6, 1));
    }

    #[test]
    fn of_more_cgroups_than_are_read_at_once_those_nearest_are() {
        let root = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            fs::create_dir_all(root.path().join(name).join("in")).unwrap();
        }
        let mut watcher = Watcher { read_max: 4, ..watcher(root.path(), 100) };
        watcher.learn(watcher.top.clone());
        let mut paths: Vec<_> = watcher.numbers.keys().map(|path| str::from_utf8(path).unwrap()).collect();
        paths.sort_unstable();
        assert_eq!((paths.as_slice(), watcher.cgroups.unwatched()), (&["/", "/a", "/b", "/c"][..], 3));
    }

    #[test]
    fn who_makes_cgroups_without_end_is_looked_at_now_and_then() {
        let root = tempfile::tempdir().unwrap();
        let mut watcher = watcher(root.path(), 3);
        let begun = Instant::now();
        for _ in 0..=MADE_EACH_SECOND {
            watcher.follow(Told::Made((*b"/none").into()));
        }
        assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    }

    #[test]
    fn half_of_what_is_allowed_is_left_to_others() {
        assert_eq!(watches_max(Some("8192\n")), 4_096);
        assert_eq!(watches_max(Some("1048576\n")), WATCHES_MAX);
        assert_eq!((watches_max(Some("x")), watches_max(None)), (WATCHES_MAX, WATCHES_MAX));
    }
}
