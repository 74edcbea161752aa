//! Cleans up after the demo: a process that waits for the demo's end and outlives it, whatever ended it.

use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::cgroup;
use super::part::Part;

/// What a demo would leave behind.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Remains {
    /// The cgroup subtree, with every process in it (the agent as well).
    pub(super) cgroup: PathBuf,
    /// The wall's pins.
    pub(super) pins: PathBuf,
    /// Policy, state, socket and alerts.
    pub(super) directory: PathBuf,
}

/// The janitor, as long as it is not needed.
#[derive(Debug)]
pub(super) struct Janitor {
    process: Child,
    /// Closed when the demo ends, by it or by the kernel.
    waiting: Option<ChildStdin>,
}

impl Janitor {
    /// Starts one, out of reach of the terminal's Ctrl-C.
    pub(super) fn start(remains: &Remains) -> Result<Self> {
        let order = serde_json::to_string(&Part::Janitor(remains.clone()))?;
        let mut command = Command::new("/proc/self/exe");
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut process = command
            .args([super::PART_COMMAND, &order])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("start the janitor")?;
        let waiting = process.stdin.take();
        Ok(Self { process, waiting })
    }

    /// Lets it clean up and waits until it has.
    pub(super) fn clean(&mut self) -> Result<()> {
        self.waiting = None;
        let status = self.process.wait().context("wait for the janitor")?;
        anyhow::ensure!(status.success(), "the janitor could not clean up ({status})");
        Ok(())
    }
}

/// The janitor's work.
pub(super) fn wait_and_clean(remains: &Remains) -> Result<()> {
    // An error means that nobody is there either.
    let _ = io::stdin().read_to_end(&mut Vec::new());
    let Remains { cgroup, pins, directory } = remains;
    let tree = match cgroup.exists() {
        true => cgroup::remove(cgroup).with_context(|| format!("remove cgroup {}", cgroup.display())),
        false => Ok(()),
    };
    let wall = match pins.exists() {
        true => take_down(pins),
        false => Ok(()),
    };
    let files = match directory.exists() {
        true => fs::remove_dir_all(directory).with_context(|| format!("remove {}", directory.display())),
        false => Ok(()),
    };
    tree.and(wall).and(files)
}

fn take_down(pins: &std::path::Path) -> Result<()> {
    let status = Command::new("/proc/self/exe")
        .args(["agent", "detach", "--pins"])
        .arg(pins)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("take the wall down")?;
    anyhow::ensure!(status.success(), "take the wall at {} down: {status}", pins.display());
    match fs::remove_dir(pins) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", pins.display()))
        }
        _ => Ok(()),
    }
}
