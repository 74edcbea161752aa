//! A cgroup subtree of its own, removed with every process in it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};
use std::{fs, thread};

use rustix::process::{Pid, Signal, kill_process};

/// A directory right below the root of cgroup v2.
#[derive(Debug)]
pub struct Tree {
    directory: PathBuf,
    /// It stays when this goes.
    stays: bool,
}

impl Tree {
    /// Makes `PREFIX-RANDOM.slice`: a slice, because a unit is the first directory below the wall that is none.
    ///
    /// # Errors
    /// When cgroup v2 is not mounted, or the kernel's.
    pub fn create(prefix: &str) -> io::Result<Self> {
        let directory = mount()?.join(format!("{prefix}-{}.slice", unique()));
        fs::create_dir(&directory)?;
        Ok(Self::at(directory))
    }

    /// Takes one that is there.
    pub fn at(directory: PathBuf) -> Self {
        Self { directory, stays: false }
    }

    /// Ends every process below its top and removes what is there.
    ///
    /// # Errors
    /// See [`remove`].
    pub fn clear(&self) -> io::Result<()> {
        remove_all(&self.directory, |at| at != self.directory)
    }

    /// Lets it stay when this goes.
    pub fn keep(&mut self) {
        self.stays = true;
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The path as `/proc/PID/cgroup` shows it.
    pub fn path(&self) -> String {
        let name = self.directory.file_name().unwrap_or_default();
        format!("/{}", name.to_string_lossy())
    }

    /// Makes `name` (and what leads to it) below the tree and gives its directory.
    ///
    /// # Errors
    /// The kernel's.
    pub fn child(&self, name: &str) -> io::Result<PathBuf> {
        let directory = self.directory.join(name);
        fs::create_dir_all(&directory)?;
        Ok(directory)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if !self.stays {
            // Nobody is left who could be told; what stays behind is empty.
            let _ = remove(&self.directory);
        }
    }
}

/// Ends every process in a subtree and removes it.
///
/// # Errors
/// The kernel's, or a time-out when a process does not end.
pub fn remove(directory: &Path) -> io::Result<()> {
    remove_all(directory, |_| true)
}

/// Ends every process in a subtree and removes those of its directories that are not wanted, again and again: a killed process
/// leaves its cgroup a moment after it has left the list, and may have made one more below it meanwhile.
fn remove_all(directory: &Path, is_unwanted: impl Fn(&Path) -> bool) -> io::Result<()> {
    let until = Instant::now() + REMOVE_WITHIN;
    loop {
        let directories = descendants(directory);
        for pid in directories.iter().flat_map(|at| processes(at)) {
            // A process that ended by itself in between is as good.
            let _ = kill_process(pid, Signal::KILL);
        }
        let removed =
            directories.iter().filter(|at| is_unwanted(at)).try_for_each(|at| match fs::remove_dir(at) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            });
        match removed {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < until => {
                thread::sleep(REMOVE_EVERY);
            }
            other => return other,
        }
    }
}

/// Where cgroup v2 is mounted, on its own or beside v1.
///
/// # Errors
/// When it is not mounted.
pub fn mount() -> io::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    mounts
        .lines()
        .find_map(|line| {
            let (mount, filesystem) = line.split_once(" - ")?;
            let mut fields = mount.split(' ').skip(3);
            let (root, target) = (fields.next()?, fields.next()?);
            (filesystem.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(target))
        })
        .ok_or_else(|| io::Error::other("cgroup v2 is not mounted with its root"))
}

/// The subtree's directories, deepest first.
fn descendants(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let inner = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut all: Vec<PathBuf> = inner.flat_map(|entry| descendants(&entry.path())).collect();
    all.push(directory.to_path_buf());
    all
}

fn processes(directory: &Path) -> Vec<Pid> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect()
}

/// Differs between processes, and between calls in one.
pub fn unique() -> String {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let nanos = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.subsec_nanos());
    format!("{:x}{:05x}{:x}", std::process::id(), nanos >> 10, CALLS.fetch_add(1, Ordering::Relaxed))
}

const REMOVE_WITHIN: Duration = Duration::from_secs(5);
const REMOVE_EVERY: Duration = Duration::from_millis(5);
