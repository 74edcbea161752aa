//! Executables by what the kernel records of them, inode and device, and the paths they were last seen under: so that
//! a process which was gone before anybody could look still has a name.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, OFlags, statat};

use super::proc_dir::executable;
use crate::host::HostRoot;
use crate::lru::Lru;

/// Executables remembered.
pub const EXE_PATHS_MAX: usize = 16_384;
/// How long a path that the host's root does not show is believed after it was last seen in use, in nanoseconds.
/// A file system may give a deleted file's number to a new one; here nobody can look.
pub const UNSEEN_PATH_TRUSTED_NS: u64 = 60_000_000_000;
/// Bytes of a path that are shown.
pub const PATH_BYTES_MAX: usize = 4_096;

/// An executable as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExeId {
    /// [`dnswall_common::identity::exe_number`]: the inode number, and the owner.
    pub number: u64,
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
    host: HostRoot,
    paths: Lru<ExeId, Seen>,
}

#[derive(Debug)]
struct Seen {
    path: PathBuf,
    /// The host's root showed the same file under that path.
    visible: bool,
    seen_ns: u64,
}

impl ExePaths {
    /// Of a host.
    pub fn new(host: HostRoot) -> Self {
        Self { host, paths: Lru::new(EXE_PATHS_MAX) }
    }

    /// Learns what lies in a directory (`/usr/bin`), not below it, so that also the first short-lived process has a
    /// name. Returns how many files it learned.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn learn_directory(&mut self, directory: &Path) -> std::io::Result<usize> {
        // By its real name, which is what a process's own link says: /bin is /usr/bin on most hosts.
        let opened = self.host.open(directory, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let directory = self.host.real_path(&opened)?;
        let mut learned = 0;
        for entry in Dir::read_from(&opened)?.take(EXE_PATHS_MAX) {
            let entry = entry?;
            let name = entry.file_name();
            let kind = match entry.file_type() {
                // Some file systems do not say.
                FileType::Unknown => statat(&opened, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode)),
                kind => kind,
            };
            if kind != FileType::RegularFile {
                continue;
            }
            if let Some(exe) = executable(&opened, name) {
                let path = directory.join(OsStr::from_bytes(name.to_bytes()));
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
        let visible = self.look(&path) == Some(exe);
        self.paths.insert(exe, Seen { path, visible, seen_ns: now_ns });
    }

    /// The path of an executable nobody can be seen running. Given only while it still leads to that file or, in a
    /// mount namespace where nobody can look, was seen a moment ago.
    pub fn find(&mut self, exe: ExeId, now_ns: u64) -> Option<String> {
        let Seen { path, visible, seen_ns } = self.paths.get(&exe)?;
        let (path, visible, seen_ns) = (path.clone(), *visible, *seen_ns);
        let holds = if visible {
            self.look(&path) == Some(exe)
        } else {
            now_ns.saturating_sub(seen_ns) <= UNSEEN_PATH_TRUSTED_NS
        };
        if !holds {
            self.paths.remove(&exe);
            return None;
        }
        Some(super::text::printable(path.as_os_str().as_bytes(), PATH_BYTES_MAX))
    }

    /// The file of an executable nobody can be seen running, opened for nothing but to be there, where the host's root shows it.
    pub fn open(&mut self, exe: ExeId) -> Option<OwnedFd> {
        let path = self.paths.get(&exe).filter(|seen| seen.visible)?.path.clone();
        let file = self.host.open_cached(&path).ok()?;
        (executable(&file, "") == Some(exe)).then_some(file)
    }

    /// How many executables are remembered.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// What a path leads to on the host. Only the kernel's name cache is asked (a binary that just ran is in it), so
    /// that a dead server or a hostile FUSE mount on the way cannot stop the agent.
    fn look(&self, path: &Path) -> Option<ExeId> {
        executable(self.host.open_cached(path).ok()?, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;

    fn file(directory: &Path, name: &str) -> (PathBuf, ExeId) {
        let path = directory.canonicalize().unwrap().join(name);
        std::fs::write(&path, name).unwrap();
        let exe = executable(CWD, &path).unwrap();
        (path, exe)
    }

    #[test]
    fn a_directory_is_learned_and_links_are_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let (path, exe) = file(directory.path(), "tool");
        std::os::unix::fs::symlink(&path, directory.path().join("link")).unwrap();
        let mut paths = ExePaths::new(HostRoot::default());
        assert_eq!(paths.learn_directory(directory.path()).unwrap(), 1);
        assert_eq!(paths.find(exe, 0), Some(path.display().to_string()));
        assert!(paths.learn_directory(&directory.path().join("none")).is_err());
    }

    #[test]
    fn a_path_that_leads_elsewhere_now_is_not_given() {
        let directory = tempfile::tempdir().unwrap();
        let (path, exe) = file(directory.path(), "tool");
        let mut paths = ExePaths::new(HostRoot::default());
        paths.learn(exe, path.as_os_str().as_bytes(), 0);
        // Both exist at once, so they have different numbers.
        let (other, _) = file(directory.path(), "other");
        std::fs::rename(other, &path).unwrap();
        assert_eq!(paths.find(exe, 1), None);
        assert!(paths.is_empty());
    }

    #[test]
    fn a_path_nobody_can_see_is_believed_for_a_while() {
        let exe = ExeId { number: 5, device: 6 };
        let mut paths = ExePaths::new(HostRoot::default());
        paths.learn(exe, b"/only/in/a/container", 0);
        paths.learn(exe, b"/only/in/a/container", 1_000);
        assert_eq!(paths.find(exe, UNSEEN_PATH_TRUSTED_NS + 1_000).as_deref(), Some("/only/in/a/container"));
        assert_eq!(paths.find(exe, UNSEEN_PATH_TRUSTED_NS + 1_001), None);
        paths.learn(exe, b"/tmp/dropper (deleted)", 0);
        assert_eq!(paths.find(exe, 0), None);
    }

    #[test]
    fn another_roots_programs_have_the_names_they_have_there() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("usr/bin")).unwrap();
        std::os::unix::fs::symlink("/usr/bin", directory.path().join("bin")).unwrap();
        let (_, exe) = file(&directory.path().join("usr/bin"), "tool");
        let mut paths = ExePaths::new(HostRoot::find(Some(directory.path())).unwrap());
        assert_eq!(paths.learn_directory(Path::new("/bin")).unwrap(), 1);
        assert_eq!(paths.find(exe, UNSEEN_PATH_TRUSTED_NS + 1).as_deref(), Some("/usr/bin/tool"));
        paths.learn(exe, b"/usr/bin/tool", 0);
        assert_eq!(
            paths.find(exe, UNSEEN_PATH_TRUSTED_NS + 1).as_deref(),
            Some("/usr/bin/tool"),
            "seen there"
        );
    }
}
