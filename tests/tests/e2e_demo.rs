//! The demo shows what it should and leaves nothing behind, however it ends.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dnswall_agent::demo::cgroup;
use dnswall_tests::pace::{times, within};
use dnswall_tests::place;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

#[test]
fn the_demo_refuses_what_it_should_and_leaves_nothing() -> Result<()> {
    let demo = Demo::start(&["demo", "--output", "json"])?;
    let (pid, output) = demo.finish()?;
    let outcome: Value = serde_json::from_str(&output).with_context(|| format!("read {output}"))?;
    ensure!(outcome["as_expected"] == true && outcome["leaks"] == 0, "{outcome:#}");
    let attempts = outcome["attempts"].as_array().context("attempts")?;
    ensure!(attempts.len() >= 8, "{outcome:#}");
    ensure!(outcome["took_ms"].as_u64() < Some(times(TOOK, SLOWER).as_millis() as u64), "{outcome:#}");
    ensure!(left_behind(pid)?.is_empty(), "{:?}", left_behind(pid)?);
    Ok(())
}

#[test]
fn the_demo_tells_its_story() -> Result<()> {
    let (_, text) = Demo::start(&["demo"])?.finish()?;
    for words in
        ["resolver", "database", "intruder", "allowed", "refused", "alert", "dns.direct", "shop.service"]
    {
        ensure!(text.contains(words), "{words} is not in:\n{text}");
    }
    ensure!(!text.contains('\u{1b}'), "colours where there is no terminal:\n{text}");
    Ok(())
}

#[test]
fn an_interrupted_demo_leaves_nothing() -> Result<()> {
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let mut demo = Demo::start(&["demo"])?;
        // In the middle of the play: the wall stands.
        demo.wait_for("refused")?;
        let pid = demo.child.id();
        ensure!(!left_behind(pid)?.is_empty(), "there is nothing that could be left behind");
        kill_process(Pid::from_child(&demo.child), signal)?;
        demo.child.wait()?;
        // Only after a kill does the janitor work on its own.
        let left_within =
            if signal == Signal::KILL { within(Duration::from_secs(10)) } else { Duration::ZERO };
        let until = Instant::now() + left_within;
        loop {
            let left = left_behind(pid)?;
            if left.is_empty() {
                break;
            }
            ensure!(Instant::now() < until, "after {signal:?}: {left:?}");
            thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

struct Demo {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
    text: String,
}

impl Demo {
    fn start(arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(place::dnswall()?);
        let mut child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the demo")?;
        let lines = BufReader::new(child.stdout.take().context("take its output")?);
        Ok(Self { child, lines, text: String::new() })
    }

    fn wait_for(&mut self, words: &str) -> Result<()> {
        while !self.text.contains(words) {
            ensure!(self.lines.read_line(&mut self.text)? > 0, "it ended:\n{}", self.text);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(u32, String)> {
        while self.lines.read_line(&mut self.text)? > 0 {}
        let status = self.child.wait()?;
        ensure!(status.success(), "{status}:\n{}", self.text);
        Ok((self.child.id(), self.text.clone()))
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What bears the name of the demo with this process id: cgroups, pins, files, and processes that mention it.
fn left_behind(pid: u32) -> Result<BTreeSet<String>> {
    let name = format!("dnswall-demo-{pid:x}");
    let mut left = BTreeSet::new();
    for directory in [cgroup::mount()?, "/sys/fs/bpf".into(), std::env::temp_dir()] {
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&name));
        left.extend(ours.map(|entry| entry.path().display().to_string()));
    }
    for entry in fs::read_dir("/proc")?.flatten() {
        let command_line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        if command_line.contains(&name) {
            left.insert(command_line.replace('\0', " "));
        }
    }
    Ok(left)
}

/// A demo is short.
const TOOK: Duration = Duration::from_secs(10);
/// Under emulation the wall of its own alone takes minutes to load.
const SLOWER: Duration = Duration::from_secs(400);
