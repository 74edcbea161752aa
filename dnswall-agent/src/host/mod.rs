//! Where the host's files are: takes a setting, or looks, gives the root directory in which paths and user names of
//! policies and alerts mean something.
//!
//! An agent on a host is there already. One in a container sees the image's `/usr` and `/etc/passwd`, which say nothing
//! about the host it guards; with the host's process ids it reaches the host's root as pid 1's. [`users`] has the names.

mod users;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// The directory that the host calls `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRoot {
    /// `/` is this process's own.
    path: PathBuf,
    doubt: Option<Doubt>,
}

/// Why this process's own root, which is used, may not be the host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// In a pid namespace of its own, pid 1 is not the host's.
    PrivatePids,
    /// Pid 1 has another root, and it cannot be entered.
    Closed(Errno),
}

impl Default for HostRoot {
    fn default() -> Self {
        Self::own(None)
    }
}

impl HostRoot {
    /// The root that `host-root` in agent.toml names, else the one that is found.
    ///
    /// # Errors
    /// When the directory named cannot be entered.
    pub fn find(setting: Option<&Path>) -> io::Result<Self> {
        let Some(path) = setting else { return Ok(Self::seen_from(Path::new("/proc"))) };
        let directory = |path| fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
        rustix::fs::open(path, DIRECTORY, Mode::empty())?;
        let ours = directory(path)? == directory(Path::new("/"))?;
        Ok(if ours { Self::default() } else { Self { path: path.to_owned(), doubt: None } })
    }

    /// This process's own.
    pub fn own(doubt: Option<Doubt>) -> Self {
        Self { path: PathBuf::from("/"), doubt }
    }

    /// Whether it is this process's own, so that this process's name service speaks for the host.
    pub fn is_ours(&self) -> bool {
        self.path == Path::new("/")
    }

    /// Where it is, as this process sees it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Why it may not be the host's.
    pub fn doubt(&self) -> Option<&Doubt> {
        self.doubt.as_ref()
    }

    /// Opens what the host calls `path`. Links lead where they lead on the host, and never out of its root.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        Ok(self.resolve(path, flags, ResolveFlags::empty())?)
    }

    /// As [`Self::open`], for looking at a file without waiting for the file system it is on: only the kernel's name
    /// cache is asked. Before 5.12 that cannot be asked for.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open_cached(&self, path: &Path) -> io::Result<OwnedFd> {
        let opened = self.resolve(path, OFlags::PATH, ResolveFlags::CACHED);
        let opened = match opened {
            Err(Errno::INVAL | Errno::NOSYS) => self.resolve(path, OFlags::PATH, ResolveFlags::empty()),
            opened => opened,
        };
        Ok(opened?)
    }

    /// The bytes of a regular file, if it is not longer than that.
    ///
    /// # Errors
    /// When it cannot be read, is too long or something else than a file.
    pub fn read(&self, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
        // A pipe does not keep whoever opens it.
        let file = File::from(self.open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let mut bytes = Vec::new();
        file.take(bytes_max + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > bytes_max {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("longer than {bytes_max} bytes"),
            ));
        }
        Ok(bytes)
    }

    /// What the host calls something that was opened here, without links: as `/proc/PID/exe` of its processes does.
    ///
    /// # Errors
    /// When /proc does not say.
    pub fn real_path(&self, opened: impl AsFd) -> io::Result<PathBuf> {
        let name = |opened: &dyn AsFd| fs::read_link(format!("/proc/self/fd/{}", opened.as_fd().as_raw_fd()));
        let path = name(&opened)?;
        if self.is_ours() {
            return Ok(path);
        }
        // `/` when the root belongs to another mount namespace, else where it is mounted in this one.
        let root = name(&rustix::fs::open(&self.path, DIRECTORY, Mode::empty())?)?;
        Ok(path.strip_prefix(&root).map_or(path.clone(), |below| Path::new("/").join(below)))
    }

    fn resolve(&self, path: &Path, flags: OFlags, how: ResolveFlags) -> rustix::io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        if self.is_ours() && how.is_empty() {
            return rustix::fs::open(path, flags, Mode::empty());
        }
        let mut tries = 1..RESOLVE_TRIES;
        loop {
            let opened = if self.is_ours() {
                openat2(CWD, path, flags, Mode::empty(), how)
            } else {
                // Opened each time: pid 1 may change its root, and take its files along.
                let root = rustix::fs::open(&self.path, DIRECTORY, Mode::empty())?;
                openat2(root, path, flags, Mode::empty(), how | ResolveFlags::IN_ROOT)
            };
            match opened {
                // Something was renamed on the way, or is not in the cache.
                Err(Errno::AGAIN) if tries.next().is_some() => {}
                opened => return opened,
            }
        }
    }

    fn seen_from(proc: &Path) -> Self {
        if !has_initial_pids(proc) {
            return Self::own(Some(Doubt::PrivatePids));
        }
        // Needs no privilege, and a service with a mount namespace of its own (ProtectSystem=) has the same root.
        let first = root_mount(&proc.join("1/mountinfo"));
        if first.is_none() || first == root_mount(&proc.join("self/mountinfo")) {
            return Self::own(None);
        }
        let path = proc.join("1/root");
        match rustix::fs::open(&path, DIRECTORY, Mode::empty()) {
            Ok(_) => Self { path, doubt: None },
            Err(error) => Self::own(Some(Doubt::Closed(error))),
        }
    }
}

/// Whether this process is in the pid namespace the host began with.
pub fn has_initial_pids(proc: &Path) -> bool {
    fs::metadata(proc.join("self/ns/pid")).is_ok_and(|namespace| namespace.ino() == INITIAL_PID_NAMESPACE)
}

impl fmt::Display for Doubt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PrivatePids => formatter.write_str("this process has a pid namespace of its own"),
            Self::Closed(error) => write!(formatter, "pid 1 has another root, and /proc/1/root: {error}"),
        }
    }
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

// PROC_PID_INIT_INO in include/linux/proc_ns.h, unchanged since 3.8.
const INITIAL_PID_NAMESPACE: u64 = 0xefff_fffc;

/// Times a path is resolved when something on it changes meanwhile.
const RESOLVE_TRIES: usize = 3;

/// The text of a file of the kernel's with bytes of others' in it: anybody with a setuid `fusermount3` may mount at a path that is not
/// UTF-8. Such bytes are replaced; what is in other lines is as it was.
///
/// # Errors
/// The kernel's.
pub fn read_text(path: impl AsRef<Path>) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

/// Device and directory mounted at `/`, in the words of a mountinfo file; the last mount there is the one seen.
fn root_mount(mountinfo: &Path) -> Option<(String, String)> {
    let text = read_text(mountinfo).ok()?;
    let mut mounts = text.lines().filter_map(|line| {
        // id parent major:minor root mount-point …
        let mut fields = line.split(' ').skip(2);
        let (device, root) = (fields.next()?, fields.next()?);
        (fields.next()? == "/").then(|| (device.to_owned(), root.to_owned()))
    });
    mounts.next_back()
}

#[cfg(test)]
mod tests;
