//! Executables by what the kernel records of them, inode and device, and the paths they were last seen under: so that
//! a process which was gone before anybody could look still has a name.

use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::lru::Lru;
use super::proc_dir::identity;

/// Executables remembered.
pub const EXE_PATHS_MAX: usize = 16_384;
/// How long a path that this mount namespace does not show is believed after it was last seen in use, in nanoseconds.
/// A file system may give a deleted file's number to a new one; here nobody can look.
pub const UNSEEN_PATH_TRUSTED_NS: u64 = 60_000_000_000;
/// Bytes of a path that are shown.
pub const PATH_BYTES_MAX: usize = 4_096;
/// Times a look at the kernel's name cache is repeated when something else changed it.
const CACHED_LOOKS: usize = 3;

/// An executable as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExeId {
    /// Inode number.
    pub inode: u64,
    /// Device, `major << 20 | minor`.
    pub device: u32,
}

impl ExeId {
    /// The kernel's form of a device number.
    pub const fn device_of(major: u32, minor: u32) -> u32 {
        major << 20 | minor
    }
}

/// Paths by executable.
#[derive(Debug)]
pub struct ExePaths {
    paths: Lru<ExeId, Seen>,
}

#[derive(Debug)]
struct Seen {
    path: PathBuf,
    /// This mount namespace showed the same file under that path.
    visible: bool,
    seen_ns: u64,
}

impl Default for ExePaths {
    fn default() -> Self {
        Self { paths: Lru::new(EXE_PATHS_MAX) }
    }
}

impl ExePaths {
    /// Learns what lies in a directory (`/usr/bin`), not below it, so that also the first short-lived process has a
    /// name. Returns how many files it learned.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn learn_directory(&mut self, directory: &Path) -> std::io::Result<usize> {
        // By its real name, which is what a process's own link says: /bin is /usr/bin on most hosts.
        let directory = directory.canonicalize()?;
        let mut learned = 0;
        for entry in std::fs::read_dir(directory)?.take(EXE_PATHS_MAX) {
            let entry = entry?;
            if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
                continue;
            }
            let path = entry.path();
            if let Some(exe) = identity(CWD, &path) {
                self.paths.insert(exe, Seen { path, visible: true, seen_ns: 0 });
                learned += 1;
            }
        }
        Ok(learned)
    }

    /// Remembers that a process was seen running `exe` from `path`.
    pub fn learn(&mut self, exe: ExeId, path: &[u8], now_ns: u64) {
        // Its number may be given away as soon as the process ends.
        if path.ends_with(b" (deleted)") {
            return;
        }
        if let Some(seen) = self.paths.get(&exe)
            && seen.path.as_os_str().as_bytes() == path
        {
            seen.seen_ns = now_ns;
            return;
        }
        let path = PathBuf::from(std::ffi::OsString::from_vec(path.to_vec()));
        let visible = look(&path) == Some(exe);
        self.paths.insert(exe, Seen { path, visible, seen_ns: now_ns });
    }

    /// The path of an executable nobody can be seen running. Given only while it still leads to that file or, in a
    /// mount namespace where nobody can look, was seen a moment ago.
    pub fn find(&mut self, exe: ExeId, now_ns: u64) -> Option<String> {
        let seen = self.paths.get(&exe)?;
        let holds = if seen.visible {
            look(&seen.path) == Some(exe)
        } else {
            now_ns.saturating_sub(seen.seen_ns) <= UNSEEN_PATH_TRUSTED_NS
        };
        if !holds {
            self.paths.remove(&exe);
            return None;
        }
        Some(super::text::printable(seen.path.as_os_str().as_bytes(), PATH_BYTES_MAX))
    }

    /// How many executables are remembered.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }
}

/// What a path leads to here. Only the kernel's name cache is asked (a binary that just ran is in it), so that a dead
/// server or a hostile FUSE mount on the way cannot stop the agent; before 5.12 that cannot be asked for.
fn look(path: &Path) -> Option<ExeId> {
    for _ in 0..CACHED_LOOKS {
        match openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::CACHED) {
            Ok(file) => return identity(file, ""),
            Err(Errno::AGAIN) => {}
            Err(Errno::INVAL | Errno::NOSYS) => return identity(CWD, path),
            Err(_) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(directory: &Path, name: &str) -> (PathBuf, ExeId) {
        let path = directory.canonicalize().unwrap().join(name);
        std::fs::write(&path, name).unwrap();
        let exe = identity(CWD, &path).unwrap();
        (path, exe)
    }

    #[test]
    fn a_directory_is_learned_and_links_are_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let (path, exe) = file(directory.path(), "tool");
        std::os::unix::fs::symlink(&path, directory.path().join("link")).unwrap();
        let mut paths = ExePaths::default();
        assert_eq!(paths.learn_directory(directory.path()).unwrap(), 1);
        assert_eq!(paths.find(exe, 0), Some(path.display().to_string()));
        assert!(paths.learn_directory(&directory.path().join("none")).is_err());
    }

    #[test]
    fn a_path_that_leads_elsewhere_now_is_not_given() {
        let directory = tempfile::tempdir().unwrap();
        let (path, exe) = file(directory.path(), "tool");
        let mut paths = ExePaths::default();
        paths.learn(exe, path.as_os_str().as_bytes(), 0);
        // Both exist at once, so they have different numbers.
        let (other, _) = file(directory.path(), "other");
        std::fs::rename(other, &path).unwrap();
        assert_eq!(paths.find(exe, 1), None);
        assert!(paths.is_empty());
    }

    #[test]
    fn a_path_nobody_can_see_is_believed_for_a_while() {
        let exe = ExeId { inode: 5, device: 6 };
        let mut paths = ExePaths::default();
        paths.learn(exe, b"/only/in/a/container", 0);
        paths.learn(exe, b"/only/in/a/container", 1_000);
        assert_eq!(paths.find(exe, UNSEEN_PATH_TRUSTED_NS + 1_000).as_deref(), Some("/only/in/a/container"));
        assert_eq!(paths.find(exe, UNSEEN_PATH_TRUSTED_NS + 1_001), None);
        paths.learn(exe, b"/tmp/dropper (deleted)", 0);
        assert_eq!(paths.find(exe, 0), None);
    }
}
