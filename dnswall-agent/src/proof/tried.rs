//! Makes the canary's attempts: from this process where that is behind the wall, else from a copy of it that moves
//! behind it first. Either way the sockets are opened and announced before anything is tried.
//!
//! A copy and no program: the agent need not be able to start any.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::attempt::{Attempt, Prepared};
use super::home::Place;
use crate::kernel::Child;

/// What one attempt came to, as far as whoever made it can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Made {
    /// The socket; 0 when there was none to be had.
    pub cookie: u64,
    /// `None` when nobody objected, else the error's number.
    pub error: Option<i32>,
    /// When it was made, or a little before.
    pub at: Instant,
}

/// How long the copy may take for each of its two answers.
const CHILD_WITHIN: Duration = Duration::from_secs(10);

/// Makes the attempts; `announce` is told each socket's cookie before any is used.
///
/// # Errors
/// When there is nobody who can try.
pub fn make(place: &Place, attempts: &[Attempt], announce: impl Fn(u64, Attempt)) -> Result<Vec<Made>> {
    match place {
        Place::Here => {
            let prepared = prepare(attempts);
            announced(&cookies(&prepared), attempts, announce);
            Ok(made(&cookies(&prepared), &act(&prepared), Instant::now()))
        }
        Place::Inside(cgroup) => by_child(cgroup, attempts, announce),
        Place::Below(cgroup) => {
            // One that is left from before does as well.
            fs::create_dir(cgroup)
                .or_else(
                    |error| if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) },
                )
                .with_context(|| format!("make the canary's cgroup {}", cgroup.display()))?;
            let made = by_child(cgroup, attempts, announce);
            // Next time it is found as it was left.
            let _ = fs::remove_dir(cgroup);
            made
        }
    }
}

fn prepare(attempts: &[Attempt]) -> Vec<Result<Prepared, i32>> {
    attempts.iter().map(|attempt| attempt.prepare()).collect()
}

fn cookies(prepared: &[Result<Prepared, i32>]) -> Vec<u64> {
    prepared.iter().map(|it| it.as_ref().map_or(0, |it| it.cookie)).collect()
}

fn act(prepared: &[Result<Prepared, i32>]) -> Vec<Option<i32>> {
    prepared.iter().map(|it| it.as_ref().map_or_else(|error| Some(*error), Prepared::act)).collect()
}

fn announced(cookies: &[u64], attempts: &[Attempt], announce: impl Fn(u64, Attempt)) {
    let sockets = cookies.iter().zip(attempts).filter(|(cookie, _)| **cookie != 0);
    sockets.for_each(|(cookie, attempt)| announce(*cookie, *attempt));
}

fn made(cookies: &[u64], errors: &[Option<i32>], at: Instant) -> Vec<Made> {
    cookies.iter().zip(errors).map(|(cookie, error)| Made { cookie: *cookie, error: *error, at }).collect()
}

fn by_child(cgroup: &Path, attempts: &[Attempt], announce: impl Fn(u64, Attempt)) -> Result<Vec<Made>> {
    let processes = cgroup.join("cgroup.procs");
    let processes = File::options().write(true).open(&processes);
    let processes = processes.with_context(|| format!("open the processes of {}", cgroup.display()))?;
    let (mut ours, theirs) = UnixStream::pair().context("make a way to talk to the canary")?;
    ours.set_read_timeout(Some(CHILD_WITHIN)).context("bound the wait for the canary")?;
    let prepared = Vec::with_capacity(attempts.len());

    let child = Child::start([processes.into(), theirs.into()], |files| play(files, attempts, prepared));
    let child = child.context("start the canary")?;
    let mut cookies = vec![[0; 8]; attempts.len()];
    hear(&child, &mut ours, cookies.as_flattened_mut())?;
    let cookies: Vec<u64> = cookies.into_iter().map(u64::from_ne_bytes).collect();
    announced(&cookies, attempts, announce);
    let at = Instant::now();
    ours.write_all(GO).context("talk to the canary")?;
    let mut errors = vec![[0; 4]; attempts.len()];
    hear(&child, &mut ours, errors.as_flattened_mut())?;
    let errors: Vec<Option<i32>> = errors
        .into_iter()
        .map(i32::from_ne_bytes)
        .map(|error| (error != NOBODY_OBJECTED).then_some(error))
        .collect();
    Ok(made(&cookies, &errors, at))
}

/// What tells the copy that its sockets are announced.
const GO: &[u8] = b"!";
/// No error has this number.
const NOBODY_OBJECTED: i32 = 0;

/// What the copy does: moves, opens, says so, waits for the word, tries. Says to the channel a cookie and then an error
/// for each attempt.
///
/// # Errors
/// The kernel's, when it cannot move or nobody listens.
fn play(
    files: [OwnedFd; 2],
    attempts: &[Attempt],
    mut prepared: Vec<Result<Prepared, i32>>,
) -> io::Result<()> {
    let [processes, channel] = files;
    let (mut processes, mut channel) = (File::from(processes), UnixStream::from(channel));
    processes.write_all(b"0")?;
    for attempt in attempts {
        let attempt = attempt.prepare();
        channel.write_all(&attempt.as_ref().map_or(0, |it| it.cookie).to_ne_bytes())?;
        prepared.push(attempt);
    }
    channel.read_exact(&mut [0; GO.len()])?;
    for attempt in &prepared {
        let error = attempt.as_ref().map_or_else(|error| Some(*error), Prepared::act);
        channel.write_all(&error.unwrap_or(NOBODY_OBJECTED).to_ne_bytes())?;
    }
    Ok(())
}

/// What the canary says next.
fn hear(child: &Child, channel: &mut UnixStream, answer: &mut [u8]) -> Result<()> {
    let Err(error) = channel.read_exact(answer) else { return Ok(()) };
    ensure!(error.kind() != io::ErrorKind::WouldBlock, "the canary does not answer (is its cgroup frozen?)");
    // It closed its end, so it is done.
    child.outcome().context("the canary failed")?;
    Err(error).context("listen to the canary")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    // The loopback address takes the datagram; what is to be seen is that all of it comes back.
    #[test]
    fn a_copy_says_what_it_came_to() {
        let mount = crate::kernel::find_cgroup2().unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let attempts = [
            Attempt { to: socket.local_addr().unwrap(), tcp: false },
            Attempt { to: SocketAddr::from(([127, 0, 0, 1], 0)), tcp: false },
        ];
        let announced = std::cell::RefCell::new(Vec::new());
        let home = super::super::Home::find(&mount).unwrap().directory;
        let made = by_child(&home, &attempts, |cookie, _| announced.borrow_mut().push(cookie)).unwrap();
        assert_eq!(made.iter().map(|made| made.cookie).collect::<Vec<_>>(), announced.into_inner());
        assert!(made.iter().all(|made| made.cookie != 0), "{made:?}");
        assert_eq!(made[0].error, None);
        assert_eq!(made[1].error, Some(libc::EINVAL), "no datagram goes to port 0");
        let mut heard = [0; 64];
        assert!(socket.recv(&mut heard).unwrap() > 0);
    }

    #[test]
    fn one_that_cannot_move_says_why() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/full", directory.path().join("cgroup.procs")).unwrap();
        let attempts = [Attempt { to: SocketAddr::from(([127, 0, 0, 1], 9)), tcp: false }];
        let failed = by_child(directory.path(), &attempts, |_, _| {}).unwrap_err();
        assert_eq!(format!("{failed:#}"), "the canary failed: No space left on device (os error 28)");
    }
}
