//! A network namespace without a name: it goes when the last who holds it goes, whatever ends the process.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// A network namespace, held by a descriptor.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// Makes an empty one.
    ///
    /// # Errors
    /// The kernel's, mostly "not permitted" without `CAP_SYS_ADMIN`.
    pub fn create() -> io::Result<Self> {
        on_own_thread(|| {
            #[expect(
                deprecated,
                reason = "its unsafe successor guards against CLONE_FILES, which is not used"
            )]
            rustix::thread::unshare(UnshareFlags::NEWNET)?;
            Ok(Self { file: File::open("/proc/thread-self/ns/net")? })
        })
    }

    /// Runs `work` in the namespace, on a thread of its own; sockets made there stay there.
    ///
    /// # Errors
    /// The kernel's when it does not let the thread in, or what `work` gives.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        on_own_thread(|| {
            self.enter()?;
            work()
        })
    }

    /// Moves the calling thread into the namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn enter(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    /// Where another process finds the namespace while this one lives.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| scope.spawn(work).join())
        .unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
}
