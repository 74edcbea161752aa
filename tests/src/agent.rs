//! The built binary with a wall of its own.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::pace::within;
use crate::place;

/// An agent and its directories.
pub struct Agent {
    binary: PathBuf,
    directory: PathBuf,
    pins: PathBuf,
    cgroup: PathBuf,
    behind: Option<PathBuf>,
    netns: Option<PathBuf>,
    child: Option<Child>,
    fault: Option<String>,
    environment: Vec<(String, String)>,
    /// It is not taken down in the end.
    wall_stays: bool,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub text: String,
    /// Standard error.
    pub errors: String,
}

impl Agent {
    /// Prepares directories and configuration: a file sink in `directory`, pins named after the cgroup.
    ///
    /// # Errors
    /// When the binary is missing or a file cannot be written.
    pub fn prepare(directory: &Path, cgroup: &Path) -> Result<Self> {
        let name = cgroup.file_name().context("name the cgroup")?.to_string_lossy();
        let agent = Self {
            binary: place::dnswall()?,
            directory: directory.to_path_buf(),
            pins: PathBuf::from(BPFFS).join(name.trim_end_matches(".slice")),
            cgroup: cgroup.to_path_buf(),
            behind: None,
            netns: None,
            child: None,
            fault: None,
            environment: Vec::new(),
            wall_stays: false,
        };
        // One alert a second for what is the same flow to the agent; the kernel's own limit is as long. Proofs after the
        // first would be counted among what a test counts.
        let config = format!(
            "[proof]\ninterval = \"1h\"\n[heartbeat]\nenabled = false\n[alerts]\ninterval = \"1s\"\nterminal = \"off\"\n[[sink]]\ntype = \"file\"\npath = {:?}\n",
            agent.alerts_path()
        );
        fs::write(agent.config_path(), config).context("write agent.toml")?;
        Ok(agent)
    }

    /// Lets it start in this cgroup from now on.
    pub fn start_behind(&mut self, cgroup: PathBuf) {
        self.behind = Some(cgroup);
    }

    /// Lets it start in this network namespace from now on.
    pub fn start_inside(&mut self, netns: PathBuf) {
        self.netns = Some(netns);
    }

    /// Lets it start with this variable from now on.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts it, with a policy or with the last good one, and waits until it answers.
    ///
    /// # Errors
    /// When it ends or does not answer in time.
    pub fn start(&mut self, policy: Option<&str>) -> Result<()> {
        self.spawn(policy)?;
        self.wait_until_ready(&[0])
    }

    /// The same for one whose wall does not do what the policy says.
    ///
    /// # Errors
    /// When it ends or does not answer in time.
    pub fn start_unproven(&mut self, policy: Option<&str>) -> Result<()> {
        self.spawn(policy)?;
        self.wait_until_ready(&[0, 1])
    }

    /// Starts it and does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&mut self, policy: Option<&str>) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.log_path()).context("open the log")?;
        let mut command = Command::new(&self.binary);
        command.args(["agent", "run", "--config"]).arg(self.config_path());
        command.arg("--cgroup").arg(&self.cgroup).arg("--pins").arg(&self.pins);
        command.arg("--state").arg(self.state()).arg("--socket").arg(self.socket());
        if let Some(policy) = policy {
            let path = self.directory.join("policy.toml");
            fs::write(&path, policy).context("write the policy")?;
            command.arg("--policy").arg(path);
        }
        if let Some(fault) = &self.fault {
            command.env("DNSWALL_FAULT", fault);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        if let Some(cgroup) = &self.behind {
            let processes = File::options().write(true).open(cgroup.join("cgroup.procs"))?;
            let enter = move || (&processes).write_all(b"0");
            // SAFETY: between fork and exec it makes one write to an open descriptor, and allocates nothing.
            unsafe { command.pre_exec(enter) };
        }
        if let Some(netns) = &self.netns {
            let netns = File::open(netns).context("open the network namespace")?;
            let enter = move || {
                Ok(rustix::thread::move_into_link_name_space(
                    netns.as_fd(),
                    Some(rustix::thread::LinkNameSpaceType::Network),
                )?)
            };
            // SAFETY: as above; one system call.
            unsafe { command.pre_exec(enter) };
        }
        self.child = Some(command.spawn().context("start the agent")?);
        Ok(())
    }

    /// Takes another build from the next start on.
    pub fn use_build(&mut self, binary: PathBuf) {
        self.binary = binary;
    }

    /// Makes a trial build fail or die (`fail@N`, `die@N`) at its N-th step from the next start on.
    pub fn use_fault(&mut self, fault: Option<String>) {
        self.fault = fault;
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Ends it at once, as a crash would.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("the agent does not run")?;
        child.kill().and_then(|()| child.wait()).context("kill the agent").map(drop)
    }

    /// The same whether it runs or not.
    pub fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Leaves the wall standing when this goes.
    pub fn leave_wall(&mut self) {
        self.wall_stays = true;
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// When it does not.
    pub fn stop(&mut self) -> Result<i32> {
        let mut child = self.child.take().context("the agent does not run")?;
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).context("signal the agent")?;
        let until = Instant::now() + within(END_WITHIN);
        while Instant::now() < until {
            if let Some(status) = child.try_wait().context("wait for the agent")? {
                return Ok(status.code().unwrap_or(-1));
            }
            thread::sleep(EVERY);
        }
        child.kill().context("kill the agent")?;
        bail!("the agent did not end in {END_WITHIN:?}")
    }

    /// A command that talks to it.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .env("DNSWALL_SOCKET", self.socket())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command that talks to it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn say(&self, arguments: &[&str]) -> Result<Said> {
        let Output { status, stdout, stderr } = self.command(arguments).output().context("run dnswall")?;
        Ok(Said {
            code: status.code().unwrap_or(-1),
            text: String::from_utf8_lossy(&stdout).into_owned(),
            errors: String::from_utf8_lossy(&stderr).into_owned(),
        })
    }

    /// Runs a command with `--output json` and gives its exit code and what it said.
    ///
    /// # Errors
    /// When it does not speak JSON.
    pub fn ask(&self, arguments: &[&str]) -> Result<(i32, Value)> {
        let said = self.say(&[arguments, &["--output", "json"]].concat())?;
        let value = serde_json::from_str(&said.text)
            .with_context(|| format!("read what dnswall {arguments:?} said: {said:?}"))?;
        Ok((said.code, value))
    }

    /// `dnswall status`.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self) -> Result<Value> {
        let (code, status) = self.ask(&["status"])?;
        if code != 0 {
            bail!("status: exit code {code}: {status}");
        }
        Ok(status)
    }

    /// Applies a policy.
    ///
    /// # Errors
    /// When the command cannot be run.
    pub fn apply(&self, policy: &str) -> Result<Said> {
        let path = self.directory.join("applied.toml");
        fs::write(&path, policy).context("write the policy")?;
        self.say(&["policy", "apply", &path.to_string_lossy()])
    }

    /// Every alert so far.
    ///
    /// # Errors
    /// When the file holds something else.
    pub fn alerts(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(self.alerts_path()).unwrap_or_default();
        // A line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("read alert {line}")))
            .collect()
    }

    /// Waits for an alert that `wanted` likes, among those after the first `skip`.
    ///
    /// # Errors
    /// When none comes in time; the error shows those that did.
    pub fn wait_for_alert(&self, skip: usize, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let until = Instant::now() + within(ALERT_WITHIN);
        loop {
            let alerts = self.alerts()?;
            let new = alerts.get(skip..).unwrap_or_default();
            if let Some(found) = new.iter().find(|alert| wanted(alert)) {
                return Ok(found.clone());
            }
            if Instant::now() > until {
                let seen: Vec<String> = new.iter().map(ToString::to_string).collect();
                bail!("no such alert; there were {}:\n{}", seen.len(), seen.join("\n"));
            }
            thread::sleep(EVERY);
        }
    }

    /// Takes the wall down.
    ///
    /// # Errors
    /// When the command cannot be run.
    pub fn detach(&self) -> Result<Said> {
        self.say(&["agent", "detach", "--pins", &self.pins.to_string_lossy()])
    }

    /// Where its control socket is.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("control.sock")
    }

    /// Where its state is.
    pub fn state(&self) -> PathBuf {
        self.directory.join("state")
    }

    /// Where its pins are.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// Where its alerts are written.
    pub fn alerts_path(&self) -> PathBuf {
        self.directory.join("alerts.ndjson")
    }

    /// Where its configuration is.
    pub fn config_path(&self) -> PathBuf {
        self.directory.join("agent.toml")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("agent.log")
    }

    fn wait_until_ready(&mut self, codes: &[i32]) -> Result<()> {
        let until = Instant::now() + within(READY_WITHIN);
        while Instant::now() < until {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                bail!("the agent ended with {status}:\n{}", self.log());
            }
            // Another agent may answer there.
            if self.socket().exists()
                && let Ok((code, status)) = self.ask(&["status"])
                && codes.contains(&code)
                && status["pid"].as_u64() == self.pid().map(u64::from)
            {
                return Ok(());
            }
            thread::sleep(EVERY);
        }
        bail!("the agent does not answer after {READY_WITHIN:?}:\n{}", self.log())
    }

    /// What it wrote, for a person who reads a failure.
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_MAX)..].join("\n")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the agent's log\n{}\n---", self.log());
        }
        self.end();
        if self.pins.exists() && !self.wall_stays {
            match self.detach() {
                Ok(said) if said.code == 0 => {}
                other => eprintln!("the wall at {} could not be taken down: {other:?}", self.pins.display()),
            }
        }
    }
}

const BPFFS: &str = "/sys/fs/bpf";
const EVERY: Duration = Duration::from_millis(20);
const READY_WITHIN: Duration = Duration::from_secs(60);
const END_WITHIN: Duration = Duration::from_secs(10);
const ALERT_WITHIN: Duration = Duration::from_secs(5);
const LOG_LINES_MAX: usize = 60;
