//! Makes the canary's attempts: from this process where that is behind the wall, else from a child that moves behind it
//! first. Either way the sockets are opened and announced before anything is tried.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use super::attempt::{Attempt, Prepared};
use super::home::Place;

/// What the child is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CanaryOrder {
    /// The cgroup to move into.
    pub cgroup: PathBuf,
    /// What to try.
    pub attempts: Vec<Attempt>,
}

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

/// How long a child may take for each of its two answers.
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

/// What the child does: moves, opens, says so, waits for the word, tries.
///
/// # Errors
/// When it cannot move, or nobody listens.
pub fn play(order: &CanaryOrder) -> Result<()> {
    let CanaryOrder { cgroup, attempts } = order;
    fs::write(cgroup.join("cgroup.procs"), "0")
        .with_context(|| format!("move into cgroup {}", cgroup.display()))?;
    let prepared = prepare(attempts);
    say(&cookies(&prepared))?;
    let mut word = String::new();
    io::stdin().read_line(&mut word).context("wait for the word")?;
    ensure!(!word.is_empty(), "nobody waits any more");
    say(&act(&prepared))
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

fn say(what: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_string(what)?;
    line.push('\n');
    io::stdout().write_all(line.as_bytes()).context("answer")
}

fn by_child(cgroup: &Path, attempts: &[Attempt], announce: impl Fn(u64, Attempt)) -> Result<Vec<Made>> {
    let order = CanaryOrder { cgroup: cgroup.to_owned(), attempts: attempts.to_vec() };
    let child = Command::new("/proc/self/exe")
        .arg0("dnswall")
        .args(["canary", &serde_json::to_string(&order)?])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start the canary")?;
    let mut child = Ended(child);
    let mut answers = BufReader::new(child.0.stdout.take().context("listen to the canary")?);
    let cookies: Vec<u64> = child.answer(&mut answers)?;
    announced(&cookies, attempts, announce);
    let at = Instant::now();
    child.0.stdin.take().context("talk to the canary")?.write_all(b"go\n").context("talk to the canary")?;
    let errors: Vec<Option<i32>> = child.answer(&mut answers)?;
    ensure!(cookies.len() == attempts.len() && errors.len() == attempts.len(), "the canary says too little");
    Ok(made(&cookies, &errors, at))
}

/// A child that does not outlive its use, even in a cgroup that is frozen.
struct Ended(Child);

impl Ended {
    fn answer<T: for<'de> Deserialize<'de>>(
        &mut self,
        answers: &mut BufReader<std::process::ChildStdout>,
    ) -> Result<T> {
        let wait = Timespec { tv_sec: CHILD_WITHIN.as_secs() as i64, tv_nsec: 0 };
        let ready = poll(&mut [PollFd::new(answers.get_ref(), PollFlags::IN)], Some(&wait))?;
        ensure!(ready > 0, "the canary does not answer (is its cgroup frozen?)");
        let mut line = String::new();
        answers.read_line(&mut line).context("listen to the canary")?;
        if line.is_empty() {
            let mut errors = String::new();
            if let Some(mut stream) = self.0.stderr.take() {
                // What it could not say is not known.
                let _ = stream.read_to_string(&mut errors);
            }
            anyhow::bail!("the canary failed: {}", errors.trim());
        }
        serde_json::from_str(&line).context("understand the canary")
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        // It ended by itself, as a rule.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
