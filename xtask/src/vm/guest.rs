//! One guest: boots a kernel in QEMU, reads its console, gives how each job ended.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    kernels::Kernel,
    programs::{Check, Job},
};
use crate::step;

/// What a guest may take to say its first word.
const BOOT_SECS_MAX: u64 = 300;
/// What all jobs may take together, for each of them.
const JOB_SECS_MEAN: u64 = 300;
const MEMORY: &str = "2048";
/// Besides the console: BPF programs as security modules, which 5.10 leaves out by default; no time spent on defences
/// against hardware that is not there.
const COMMAND_LINE: &str =
    "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off no_timer_check lsm=landlock,yama,apparmor,bpf";

/// How one job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// What it was.
    pub job: Job,
    /// Its exit code; `None` when the guest ended before it did.
    pub code: Option<i32>,
    /// How long it took, by the guest's clock.
    pub secs: u64,
    /// Cases that it did not play, because this kernel lacks what they are about.
    pub lacking: Vec<String>,
}

/// What a guest had to say.
#[derive(Debug, Default)]
pub struct Account {
    /// The kernel's own name for itself; empty when it never came up.
    pub release: String,
    /// Seconds from power to its first process.
    pub boot_secs: u64,
    /// The security modules that are active.
    pub lsm: String,
    /// Jobs, in the order they were given.
    pub ended: Vec<Ended>,
    /// It came to the end of its list and switched itself off.
    pub finished: bool,
}

/// How QEMU runs it.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// By hardware virtualisation, which not every machine has; else instruction by instruction.
    pub kvm: bool,
    /// How many the guest has. Emulated ones see each other's changes of code too late once in a while, as no real ones
    /// do, and the kernel trips over that (`Oops: int3`): one will do where nothing needs two.
    pub processors: u8,
}

/// How often a guest is started whose kernel does not come to its first process. Nothing of ours has run by then.
const BOOTS_MAX: u32 = 3;

impl Machine {
    /// Boots the kernel with this archive of files, until the jobs are done or time is up.
    pub fn run(&self, kernel: &Kernel, initrd: &Path, jobs: &[Job], log: &Path) -> Result<Account> {
        for boot in 1.. {
            let account = self.boot(kernel, initrd, jobs, log)?;
            if !account.release.is_empty() || boot == BOOTS_MAX {
                return Ok(account);
            }
            step::say(&format!("kernel {}: it did not come up, and is started again", kernel.series));
        }
        unreachable!("it is started at least once")
    }

    fn boot(&self, kernel: &Kernel, initrd: &Path, jobs: &[Job], log: &Path) -> Result<Account> {
        let mut command = self.command(kernel, initrd);
        step::say(&step::shown(&command));
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("run `{}`", step::shown(&command)))?;
        let console = child.stdout.take().context("take the console")?;
        let (sender, lines) = mpsc::channel();
        let reader = thread::spawn(move || {
            let mut console = BufReader::new(console);
            let mut line = Vec::new();
            while console.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                if sender.send(text).is_err() {
                    break;
                }
            }
        });
        let account = follow(&lines, jobs, log, kernel);
        end(&mut child);
        drop(lines);
        // It ends with the console.
        let _ = reader.join();
        account
    }

    fn command(&self, kernel: &Kernel, initrd: &Path) -> Command {
        let mut command = Command::new("nice");
        command.arg("qemu-system-x86_64");
        if self.kvm {
            command.args(["-accel", "kvm", "-cpu", "host"]);
        } else {
            // The emulator's translations are kept in as much memory as a guest has code; five levels of page tables
            // would only be walked more slowly.
            command.args(["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,la57=off"]);
        }
        command.args(["-smp", &self.processors.to_string(), "-m", MEMORY]);
        command.args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-serial",
            "stdio",
        ]);
        command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(initrd);
        command.args(["-append", COMMAND_LINE]);
        command
    }
}

/// Reads the console to its end, or to the end of the time; keeps every line in the log.
fn follow(lines: &Receiver<String>, jobs: &[Job], log: &Path, kernel: &Kernel) -> Result<Account> {
    let mut file = File::create(log).with_context(|| format!("create {}", log.display()))?;
    let began = Instant::now();
    let boot = Duration::from_secs(BOOT_SECS_MAX);
    let longest = jobs.iter().map(|job| job.check.job_secs_max()).max().unwrap_or_default();
    let all = boot + Duration::from_secs(JOB_SECS_MEAN * jobs.len() as u64 + longest);
    let mut account = Account::default();
    loop {
        let limit = if account.release.is_empty() { boot } else { all };
        let line = match lines.recv_timeout(limit.saturating_sub(began.elapsed())) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                step::say(&format!(
                    "kernel {}: no end after {} s: it is switched off",
                    kernel.series,
                    limit.as_secs()
                ));
                break;
            }
        };
        let _ = writeln!(file, "{:6} {line}", began.elapsed().as_secs());
        if let Some(ended) = account.hear(&line, jobs) {
            let how = if ended.code == Some(0) { "passed" } else { "FAILED" };
            step::say(&format!("kernel {}: {how} {} in {} s", kernel.series, ended.job.name, ended.secs));
        }
    }
    account.ended.extend(missing(jobs, &account.ended));
    Ok(account)
}

/// Those jobs that have not ended.
fn missing(jobs: &[Job], ended: &[Ended]) -> Vec<Ended> {
    let without_end = jobs.iter().filter(|job| !ended.iter().any(|ended| ended.job == **job));
    without_end.map(|job| Ended { job: job.clone(), code: None, secs: 0, lacking: Vec::new() }).collect()
}

/// It may have switched itself off.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

impl Account {
    /// Takes in a line of the console; gives the job that ended with it.
    fn hear(&mut self, line: &str, jobs: &[Job]) -> Option<&Ended> {
        // The kernel may have written something before it on the same line.
        let words: Vec<&str> = line[line.find("@@ ")?..].split_whitespace().skip(1).collect();
        match words[..] {
            ["up", release, secs, ..] => {
                self.release = release.to_owned();
                self.boot_secs = secs.parse().unwrap_or_default();
                self.lsm = words.get(3).copied().unwrap_or_default().to_owned();
            }
            ["begin", _, name] => {
                let job = jobs.iter().find(|job| job.name == name)?;
                self.ended.push(Ended { job: job.clone(), code: None, secs: 0, lacking: Vec::new() });
            }
            ["lack", ..] => self.ended.last_mut()?.lacking.push(words[1..].join(" ")),
            ["end", _, name, code, secs] => {
                let ended = self.ended.last_mut().filter(|ended| ended.job.name == name)?;
                ended.code = code.parse().ok();
                ended.secs = secs.parse().unwrap_or_default();
                return Some(ended);
            }
            ["down", ..] => self.finished = true,
            _ => {}
        }
        None
    }

    /// The jobs that count for a check, and which of them failed it.
    pub fn of(&self, check: Check) -> impl Iterator<Item = (&Ended, bool)> {
        let counts =
            move |job: &Job| job.check == check || (job.check == Check::Load && check == Check::Budget);
        self.ended.iter().filter(move |ended| counts(&ended.job)).map(move |ended| {
            // `verify` tells apart what does not load from what loads and walks too far.
            let passed = match (check, ended.code) {
                (Check::Load, Some(code)) => code == 0 || code == OVER_BUDGET,
                (_, code) => code == Some(0),
            };
            (ended, passed)
        })
    }
}

/// The exit code of `verify` when every program loads, and one is over its budget.
const OVER_BUDGET: i32 = 1;

/// Where a guest's console is kept.
pub fn log_path(directory: &Path, kernel: &Kernel) -> PathBuf {
    directory.join("logs").join(format!("{}.log", kernel.series))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(check: Check, name: &str) -> Job {
        Job { check, name: name.to_owned(), command: Vec::new() }
    }

    fn heard(lines: &[&str]) -> Account {
        let jobs =
            [job(Check::Load, "verify"), job(Check::Packets, "p::one"), job(Check::Behaviour, "e::two")];
        let mut account = Account::default();
        for line in lines {
            let _ = account.hear(line, &jobs);
        }
        account.ended.extend(missing(&jobs, &account.ended));
        account
    }

    #[test]
    fn a_console_says_how_each_job_ended() {
        let account = heard(&[
            "[    1.2] noise @@ up 6.1.0-56-cloud-amd64 4 yama,bpf",
            "@@ begin load verify",
            "program walked",
            "@@ end load verify 1 20",
            "@@ begin packets p::one",
            "@@ lack MPTCP: a case",
            "@@ end packets p::one 0 7",
            "@@ down 40",
        ]);
        assert_eq!((account.release.as_str(), account.boot_secs), ("6.1.0-56-cloud-amd64", 4));
        assert!(account.finished && account.lsm == "yama,bpf");
        let passed = |check| account.of(check).map(|(_, passed)| passed).collect::<Vec<_>>();
        assert_eq!(passed(Check::Load), [true], "it loads");
        assert_eq!(passed(Check::Budget), [false], "and walks too far");
        assert_eq!(passed(Check::Packets), [true]);
        assert_eq!(passed(Check::Behaviour), [false], "it never ran");
        assert_eq!(account.ended[1].lacking, ["MPTCP: a case"]);
    }

    #[test]
    fn a_job_that_did_not_end_has_not_passed() {
        let account = heard(&["@@ up 6.1 4", "@@ begin load verify", "Kernel panic"]);
        assert!(account.of(Check::Load).all(|(_, passed)| !passed));
        assert_eq!(account.ended.len(), 3);
        assert!(!account.finished);
    }
}
