//! Takes a runtime's directory, gives the files below it: bounded, regular, and never one that a link leads to.
//!
//! The directory itself is where the runtime or the host's administrator says, links included. Below it nothing leads out: a
//! name in there may be a container's choice, and the agent may read what nobody else may.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use crate::host::HostRoot;

/// Bytes of a file that is about one container.
pub const FILE_BYTES_MAX: u64 = 4 << 20;
/// Bytes of a file that is about all containers.
pub const LIST_BYTES_MAX: u64 = 16 << 20;
/// Names of a directory that are looked at.
const NAMES_MAX: usize = 256;
/// Times a path is resolved when something on it is renamed meanwhile.
const RESOLVE_TRIES: usize = 3;

/// A directory.
#[derive(Debug)]
pub struct Place {
    directory: OwnedFd,
    owner: Option<u32>,
}

impl Place {
    /// The directory that the host calls `path`.
    pub fn open(host: &HostRoot, path: &Path) -> Option<Self> {
        let directory = host.open(path, OFlags::PATH | OFlags::DIRECTORY).ok()?;
        Some(Self { directory, owner: None })
    }

    /// The same for a directory of a user's: only that user's files count, and no other file system that he may have mounted
    /// there, which could keep whoever reads from it waiting.
    pub fn of_user(host: &HostRoot, path: &Path, uid: u32) -> Option<Self> {
        Some(Self { owner: Some(uid), ..Self::open(host, path)? })
    }

    /// A directory below it.
    pub fn below(&self, path: impl AsRef<Path>) -> Option<Self> {
        let directory = self.resolve(path.as_ref(), OFlags::PATH | OFlags::DIRECTORY).ok()?;
        Some(Self { directory, owner: self.owner })
    }

    /// A file below it, if it is not longer than that.
    pub fn read(&self, path: impl AsRef<Path>, bytes_max: u64) -> Option<Vec<u8>> {
        // A pipe keeps nobody who opens it like this.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = File::from(self.resolve(path.as_ref(), flags).ok()?);
        let metadata = file.metadata().ok()?;
        let is_theirs = self.owner.is_none_or(|owner| metadata.uid() == owner);
        if !metadata.is_file() || metadata.len() > bytes_max || !is_theirs {
            return None;
        }
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).ok()?);
        file.take(bytes_max + 1).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 <= bytes_max).then_some(bytes)
    }

    /// Names of the directories in it, the first [`NAMES_MAX`] entries of it.
    pub fn directories(&self) -> Vec<String> {
        let Ok(listed) = self.resolve(Path::new("."), OFlags::RDONLY | OFlags::DIRECTORY) else {
            return Vec::new();
        };
        let Ok(entries) = Dir::new(listed) else { return Vec::new() };
        entries
            .flatten()
            .take(NAMES_MAX)
            .filter(|entry| matches!(entry.file_type(), FileType::Directory | FileType::Unknown))
            .filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned))
            .filter(|name| !name.starts_with('.'))
            .collect()
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let mut how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        if self.owner.is_some() {
            how |= ResolveFlags::NO_XDEV;
        }
        let mut tries = 1..RESOLVE_TRIES;
        loop {
            match openat2(self.directory.as_fd(), path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
                Err(Errno::AGAIN) if tries.next().is_some() => {}
                opened => return opened,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn place() -> (tempfile::TempDir, Place) {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("in/deep")).unwrap();
        std::fs::write(root.path().join("secret"), "hush").unwrap();
        std::fs::write(root.path().join("in/deep/file"), "seen").unwrap();
        let place = Place::open(&HostRoot::default(), &root.path().join("in")).unwrap();
        (root, place)
    }

    #[test]
    fn no_link_is_followed_and_nothing_leads_out() {
        let (root, place) = place();
        assert_eq!(place.read("deep/file", 4).as_deref(), Some(&b"seen"[..]));
        assert_eq!(place.read("deep/file", 3), None, "too long");
        let inside = root.path().join("in");
        symlink(root.path().join("secret"), inside.join("absolute")).unwrap();
        symlink("../secret", inside.join("relative")).unwrap();
        symlink("deep", inside.join("beside")).unwrap();
        symlink("/proc/self/root", inside.join("magic")).unwrap();
        for path in
            ["absolute", "relative", "beside/file", "../secret", "deep/../../secret", "magic/etc/passwd"]
        {
            assert_eq!(place.read(path, 1 << 20), None, "{path}");
        }
        assert!(place.below("deep").is_some() && place.below("beside").is_none());
        assert_eq!(place.directories(), ["deep"]);
    }

    #[test]
    fn what_is_no_file_keeps_nobody() {
        let (root, place) = place();
        rustix::fs::mkfifoat(rustix::fs::CWD, root.path().join("in/pipe"), Mode::RUSR | Mode::WUSR).unwrap();
        assert_eq!(place.read("pipe", 10), None);
        assert_eq!(place.read("deep", 10), None);
        let devices = Place::open(&HostRoot::default(), Path::new("/dev")).unwrap();
        assert_eq!(devices.read("zero", 10), None);
    }

    #[test]
    fn of_a_user_only_his_own_counts() {
        let (root, _place) = place();
        let mine = rustix::process::getuid().as_raw();
        let of = |uid| Place::of_user(&HostRoot::default(), &root.path().join("in"), uid).unwrap();
        assert!(of(mine).read("deep/file", 10).is_some());
        assert_eq!(of(mine.wrapping_add(1)).read("deep/file", 10), None);
        let system = Place::of_user(&HostRoot::default(), Path::new("/"), 0).unwrap();
        assert!(system.below("proc/self").is_none(), "another file system");
    }
}
