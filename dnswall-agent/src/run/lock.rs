//! One agent for each directory it owns: a lock the kernel lets go of when the agent ends, however it ends.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// A directory nobody else owns while this lives.
#[derive(Debug)]
pub struct Lock {
    _directory: File,
}

/// Why the directory is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another agent owns it.
    #[error("another agent{} owns {directory}: one agent for each wall", process(*.pid))]
    Held {
        /// The directory.
        directory: PathBuf,
        /// The other agent, when the kernel says which it is.
        pid: Option<u32>,
    },
    /// The system refused.
    #[error("{action} {directory}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        directory: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Lock {
    /// Takes a directory, which is made (0700) when it is missing.
    ///
    /// # Errors
    /// When somebody else has it, or the system refuses.
    pub fn take(directory: &Path) -> Result<Self, LockError> {
        let failed = |action| {
            move |source: io::Error| LockError::Io { action, directory: directory.to_owned(), source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed("make"))?;
        let opened = File::open(directory).map_err(failed("open"))?;
        match rustix::fs::flock(&opened, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _directory: opened }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(LockError::Held { directory: directory.to_owned(), pid: holder(&opened) })
            }
            Err(error) => Err(failed("lock")(error.into())),
        }
    }
}

fn process(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

// `1: FLOCK  ADVISORY  WRITE 1234 00:2e:16386 0 EOF`: proc_pid_locks(5). Device numbers are not compared, because
// some file systems show another one in stat(2); an inode number and a whole-file FLOCK are telling enough for a
// message.
fn holder(directory: &File) -> Option<u32> {
    let inode = directory.metadata().ok()?.ino().to_string();
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let kind = words.next()?;
        let pid = words.nth(2)?.parse().ok()?;
        let place = words.next()?.rsplit(':').next()?;
        (kind == "FLOCK" && place == inode).then_some(pid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_owner_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pins");
        let lock = Lock::take(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        let error = Lock::take(&path).unwrap_err();
        let expected = format!("another agent (process {}) owns {}", std::process::id(), path.display());
        assert!(error.to_string().starts_with(&expected), "{error}");
        drop(lock);
        Lock::take(&path).unwrap();
    }

    #[test]
    fn what_cannot_be_locked_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "").unwrap();
        let error = Lock::take(&path).unwrap_err();
        assert!(error.to_string().starts_with("make "), "{error}");
    }
}
