//! A copy of this process, for what has to be done in another cgroup. It starts no program.

use std::io;
use std::os::fd::{FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process, waitid, waitpid};

/// A copy of this process that does not outlive its use, even in a cgroup that is frozen.
#[derive(Debug)]
pub struct Child(Pid);

/// What it ends with after a panic, or an error without a number; errors' numbers are lower.
const FAILED: i32 = 255;

impl Child {
    /// Starts it with these files and nothing else open: stopped in its new cgroup it would hold the agent's locks and
    /// links for as long. Of the copy, `work` is all that runs.
    ///
    /// This process has many threads and the copy has one, so `work` takes no lock, allocates nothing and logs nothing:
    /// whoever holds what it would wait for is not there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn start<const N: usize>(
        files: [OwnedFd; N],
        work: impl FnOnce([OwnedFd; N]) -> io::Result<()>,
    ) -> io::Result<Self> {
        // Whoever started the agent may have had the kernel reap its children: then nobody could be waited for, and the
        // number might be another's when it is killed.
        // SAFETY: nothing else of the agent has children, or handles this signal.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        // SAFETY: the copy runs `work`, which keeps to the promise above, and ends without unwinding any further.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                let panicked = End(FAILED);
                let code = keep_only(files).and_then(work);
                drop(End(code.map_or_else(|error| error.raw_os_error().unwrap_or(FAILED), |()| 0)));
                drop(panicked);
                unreachable!("the copy has ended")
            }
            pid => Pid::from_raw(pid).map(Self).ok_or_else(|| io::ErrorKind::InvalidData.into()),
        }
    }

    /// What it came to; waits for its end.
    ///
    /// # Errors
    /// The error of its work; one without a number when it was killed or panicked.
    pub fn outcome(&self) -> io::Result<()> {
        let ended = waitid(WaitId::Pid(self.0), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
        match ended.and_then(|status| status.exit_status()) {
            Some(0) => Ok(()),
            Some(FAILED) | None => Err(io::Error::other("it was killed, or panicked")),
            Some(number) => Err(io::Error::from_raw_os_error(number)),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It ended by itself, as a rule.
        let _ = kill_process(self.0, Signal::KILL);
        let _ = waitpid(Some(self.0), WaitOptions::empty());
    }
}

/// The end of a process: without destructors, and without what others registered for it.
struct End(i32);

impl Drop for End {
    fn drop(&mut self) {
        // SAFETY: nothing of this process is used any more.
        unsafe { libc::_exit(self.0) }
    }
}

/// Gives the files the numbers from 0 on, and closes the rest.
fn keep_only<const N: usize>(files: [OwnedFd; N]) -> io::Result<[OwnedFd; N]> {
    let count = N as RawFd;
    let files = files.map(OwnedFd::into_raw_fd);
    // SAFETY: plain system calls on numbers; in this process nothing else uses any of them from here on.
    unsafe {
        let mut moved = [0; N];
        // Out of each other's way first.
        for (moved, file) in moved.iter_mut().zip(files) {
            *moved = libc::fcntl(file, libc::F_DUPFD, count);
            if *moved < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        for (number, file) in (0..).zip(moved) {
            if libc::dup2(file, number) < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // Since Linux 5.9.
        if libc::syscall(libc::SYS_close_range, count, libc::c_uint::MAX, 0) < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(std::array::from_fn(|number| OwnedFd::from_raw_fd(number as RawFd)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    #[test]
    fn it_has_what_it_was_given_and_nothing_else() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let null = File::open("/dev/null").unwrap();
        let child = Child::start([null.into(), theirs.into()], |[_, theirs]| {
            let mut theirs = UnixStream::from(theirs);
            theirs.write_all(&1_i32.to_ne_bytes())?;
            // Until it is told to.
            theirs.read_exact(&mut [0])
        });
        let child = child.unwrap();
        ours.read_exact(&mut [0; 4]).unwrap();
        let open = fs::read_dir(format!("/proc/{}/fd", child.0.as_raw_nonzero())).unwrap();
        let mut open: Vec<_> = open.map(|entry| entry.unwrap().file_name()).collect();
        open.sort();
        assert_eq!(open, ["0", "1"]);
        ours.write_all(b"!").unwrap();
        child.outcome().unwrap();
    }

    #[test]
    fn its_error_is_told_and_a_panic_ends_it() {
        let child = Child::start([], |[]| Err(io::Error::from_raw_os_error(libc::ENOSPC))).unwrap();
        assert_eq!(child.outcome().unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        let child = Child::start([], |[]| panic!("as a test")).unwrap();
        assert_eq!(child.outcome().unwrap_err().raw_os_error(), None);
    }

    #[test]
    fn it_does_not_outlive_its_use() {
        let child = Child::start([], |[]| {
            std::thread::sleep(Duration::from_secs(600));
            Ok(())
        });
        let child = child.unwrap();
        let directory = format!("/proc/{}", child.0.as_raw_nonzero());
        assert!(fs::metadata(&directory).is_ok());
        drop(child);
        assert!(fs::metadata(&directory).is_err());
    }
}
