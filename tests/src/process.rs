//! A process that was started to do one thing, and is ended with the test.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::act::{Order, READY, Report};

/// Runs an order to its end and gives all it wrote, and its process id.
///
/// # Errors
/// When it cannot be started.
pub fn output(exe: &Path, order: &Order) -> Result<(String, u32)> {
    let child = spawn(command(exe, order)?.stdin(Stdio::null()))?;
    let pid = child.id();
    let output = child.wait_with_output().context("wait for the probe")?;
    Ok((String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(), pid))
}

/// A process that goes on until told otherwise.
pub struct Process {
    child: Child,
    input: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
}

impl Process {
    /// Starts an order and waits until it says that it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start(exe: &Path, order: &Order) -> Result<Self> {
        let mut process = Self::spawn(exe, order)?;
        let line = process.line()?;
        if line != READY {
            bail!("{:?} did not become ready: {line:?}", order.act);
        }
        Ok(process)
    }

    /// Starts an order.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(exe: &Path, order: &Order) -> Result<Self> {
        let mut child = spawn(command(exe, order)?.stdin(Stdio::piped()).process_group(0))?;
        let input = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().context("take the probe's output")?);
        Ok(Self { child, input, lines })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to go on once, and gives its report.
    ///
    /// # Errors
    /// When it has ended.
    pub fn exchange(&mut self) -> Result<Report> {
        let input = self.input.as_mut().context("the probe's input is closed")?;
        writeln!(input, "again").context("tell the probe to go on")?;
        self.report()
    }

    /// Tells it to end, and gives its report.
    ///
    /// # Errors
    /// When it has no report.
    pub fn finish(mut self) -> Result<Report> {
        self.input = None;
        self.report()
    }

    /// Waits for its report; it stays until it is dropped.
    ///
    /// # Errors
    /// When it cannot do what it was told (which is not the same as being refused).
    pub fn report(&mut self) -> Result<Report> {
        let line = self.line()?;
        if line.is_empty() {
            let mut errors = String::new();
            self.child.stderr.take().context("take the probe's errors")?.read_to_string(&mut errors)?;
            bail!("the probe failed: {}", errors.trim_end());
        }
        serde_json::from_str(&line).with_context(|| format!("read the probe's report {line:?}"))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.lines.read_line(&mut line).context("read from the probe")?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // With whatever it has started. It may have ended by itself.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// A copy that was just made is busy while another thread's child still holds the descriptor it was written through.
fn spawn(command: &mut Command) -> Result<Child> {
    for _ in 0..SPAWN_TRIES {
        match command.spawn() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => thread::sleep(SPAWN_EVERY),
            other => return other.context("start the probe"),
        }
    }
    bail!("start the probe: its file stays busy")
}

fn command(exe: &Path, order: &Order) -> Result<Command> {
    let mut command = Command::new(exe);
    command.arg(serde_json::to_string(order)?).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

const SPAWN_TRIES: u32 = 200;
const SPAWN_EVERY: Duration = Duration::from_millis(5);
