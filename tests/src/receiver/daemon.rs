//! A server of somebody else's: takes its command, gives a process that ends with the test.

use std::fs::{self, File};
use std::net::SocketAddrV4;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::pace::within;

/// A running one.
pub struct Daemon {
    child: Child,
    said: PathBuf,
}

impl Daemon {
    /// Starts a command; what it says is added to the file `said`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command, said: &Path) -> Result<Self> {
        let log = File::options().create(true).append(true).open(said).context("open the log")?;
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("start {command:?}"))?;
        Ok(Self { child, said: said.to_owned() })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// When it ends before that, or time is up: with what it said last.
    pub fn await_ready(&mut self, mut is_ready: impl FnMut() -> bool) -> Result<()> {
        let until = Instant::now() + within(READY_WITHIN);
        while !is_ready() {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended ({status}) before it was ready: {}", self.last_words());
            }
            if Instant::now() > until {
                bail!("it is not ready after {READY_WITHIN:?}: {}", self.last_words());
            }
            thread::sleep(LOOKS_EVERY);
        }
        Ok(())
    }

    /// Waits until something listens at each of these, in the network that it is in.
    ///
    /// # Errors
    /// When it ends before that, or time is up: with what it said last.
    pub fn await_ports(&mut self, tcp: &[SocketAddrV4], udp: &[SocketAddrV4]) -> Result<()> {
        let net = PathBuf::from(format!("/proc/{}/net", self.pid()));
        let all = |table: &str, state: &str, wanted: &[SocketAddrV4]| {
            let text = fs::read_to_string(net.join(table)).unwrap_or_default();
            let sockets: Vec<&str> = text.lines().collect();
            wanted.iter().all(|at| sockets.iter().any(|line| is_bound(line, *at, state)))
        };
        self.await_ready(|| all("tcp", LISTENING, tcp) && all("udp", UNCONNECTED, udp))
    }

    /// Asks it to end, and sees to it that it does: what it has taken it may still write down.
    pub fn end(mut self) {
        self.signal(Signal::TERM);
        let until = Instant::now() + within(ENDS_WITHIN);
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(LOOKS_EVERY);
        }
    }

    fn signal(&self, signal: Signal) {
        // With whatever it has started. It may have ended by itself.
        let _ = kill_process_group(Pid::from_child(&self.child), signal);
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.said).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(WORDS_MAX)..].join("\n")
    }
}

/// Whether a line of `/proc/net/tcp` or `udp` is this address in this state: `1: 0100007F:1F98 00000000:0000 0A …`.
fn is_bound(line: &str, at: SocketAddrV4, state: &str) -> bool {
    let mut words = line.split_whitespace().skip(1);
    let own = format!("{:08X}:{:04X}", u32::from_ne_bytes(at.ip().octets()), at.port());
    words.next() == Some(own.as_str()) && words.nth(1) == Some(state)
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

const READY_WITHIN: Duration = Duration::from_secs(20);
const ENDS_WITHIN: Duration = Duration::from_secs(5);
/// As the kernel numbers states.
const LISTENING: &str = "0A";
const UNCONNECTED: &str = "07";
const LOOKS_EVERY: Duration = Duration::from_millis(10);
/// Lines of its log in an error.
const WORDS_MAX: usize = 20;
