//! Sets the stage: network, cgroup, policy, agent; and the janitor before anything that could be left behind.

use std::fs::{self, DirBuilder};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{StatVfsMountFlags, statvfs};
use serde_json::Value;

use super::cgroup::{self, unique};
use super::interrupt;
use super::janitor::{Janitor, Remains};
use super::network::Network;
use super::part::{Act, Actor, Outcome, Part};

/// Everything the play needs.
pub(super) struct Stage {
    pub(super) network: Network,
    agent: Option<Child>,
    remains: Remains,
    janitor: Arc<Mutex<Janitor>>,
}

/// Someone on the stage; goes when dropped.
pub(super) struct Player {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Stage {
    /// Builds everything but the wall.
    pub(super) fn set() -> Result<Self> {
        let network = Network::create().context("build two network namespaces")?;
        let name = format!("dnswall-demo-{}", unique());
        let remains = Remains {
            cgroup: cgroup::mount().context("find cgroup v2")?.join(format!("{name}.slice")),
            pins: Path::new(BPFFS).join(&name),
            directory: std::env::temp_dir().join(&name),
        };
        // From here on, whatever happens, somebody cleans up.
        let janitor = Arc::new(Mutex::new(Janitor::start(&remains)?));
        let stage = Self { network, agent: None, remains, janitor };
        interrupt::clean_on_signal(Arc::clone(&stage.janitor))?;
        let Remains { cgroup, directory, .. } = &stage.remains;
        fs::create_dir(cgroup).with_context(|| format!("make cgroup {}", cgroup.display()))?;
        let made = DirBuilder::new().mode(0o700).create(directory);
        made.with_context(|| format!("make directory {}", directory.display()))?;
        Ok(stage)
    }

    /// Raises a wall around the stage's cgroup.
    pub(super) fn raise_wall(&mut self, policy: &str) -> Result<()> {
        let Remains { cgroup, pins, directory } = &self.remains;
        fs::write(self.file("policy.toml"), policy).context("write the policy")?;
        let config = format!(
            "[heartbeat]\nenabled = false\n[[sink]]\ntype = \"file\"\npath = {:?}\n",
            self.alerts_path()
        );
        fs::write(self.file("agent.toml"), config).context("write agent.toml")?;
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let mut arguments = vec!["agent".to_owned(), "run".to_owned()];
        for (option, value) in [
            ("--policy", path(&self.file("policy.toml"))),
            ("--config", path(&self.file("agent.toml"))),
            ("--cgroup", path(cgroup)),
            ("--state", path(&directory.join("state"))),
            ("--pins", path(pins)),
            ("--socket", path(&self.file("control.sock"))),
        ] {
            arguments.extend([option.to_owned(), value]);
        }
        let log = fs::File::create(self.file("agent.log")).context("open the agent's log")?;
        let own = cgroup.join("dnswall.service");
        fs::create_dir(&own).with_context(|| format!("make cgroup {}", own.display()))?;
        let mut command = part_command(&Part::Agent { cgroup: own, arguments })?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.agent = Some(command.spawn().context("start the agent")?);
        self.wait_until_ready()
    }

    /// Lets someone do something in a unit; gives who it was and what came of it.
    pub(super) fn play(&self, exe: &Path, unit: &str, uid: u32, act: Act) -> Result<(Player, Outcome)> {
        let cgroup = self.remains.cgroup.join(unit);
        fs::create_dir_all(&cgroup).with_context(|| format!("make cgroup {}", cgroup.display()))?;
        let part = Part::Actor(Actor { cgroup, netns: self.network.near.path(), uid, act });
        let mut command = Command::new(exe);
        command.args([super::PART_COMMAND, &serde_json::to_string(&part)?]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("start an actor")?;
        let lines = BufReader::new(child.stdout.take().context("take the actor's output")?);
        let mut player = Player { child, lines };
        let mut line = String::new();
        player.lines.read_line(&mut line).context("read from the actor")?;
        if line.is_empty() {
            let mut errors = String::new();
            player.child.stderr.take().map_or(Ok(0), |mut stderr| stderr.read_to_string(&mut errors))?;
            bail!("the actor failed: {}", errors.trim_end());
        }
        let outcome = serde_json::from_str(&line).context("read what came of it")?;
        Ok((player, outcome))
    }

    /// A program of the intruder's: a copy of this one, another file under another name (or this one, where nothing
    /// may be executed from temporary directories).
    pub(super) fn plant(&self, name: &str) -> Result<PathBuf> {
        let path = self.file(name);
        let mount = statvfs(&self.remains.directory).context("look at the temporary directory")?;
        if mount.f_flag.contains(StatVfsMountFlags::NOEXEC) {
            return Ok(PathBuf::from("/proc/self/exe"));
        }
        fs::copy("/proc/self/exe", &path)
            .with_context(|| format!("copy this program to {}", path.display()))?;
        Ok(path)
    }

    /// Waits for the alert about a process.
    pub(super) fn alert_about(&self, player: &Player) -> Result<Value> {
        let until = Instant::now() + ALERT_WITHIN;
        let pid = player.child.id();
        while Instant::now() < until {
            let text = fs::read_to_string(self.alerts_path()).unwrap_or_default();
            let alerts = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            if let Some(alert) = alerts.into_iter().find(|alert| alert["process"]["pid"] == pid) {
                return Ok(alert);
            }
            thread::sleep(EVERY);
        }
        bail!("no alert came within {ALERT_WITHIN:?}")
    }

    /// Clears the stage and says what was left behind: nothing.
    pub(super) fn clear(self) -> Result<()> {
        self.clean()?;
        let Remains { cgroup, pins, directory } = &self.remains;
        for path in [cgroup, pins, directory] {
            ensure!(!path.exists(), "{} was left behind", path.display());
        }
        Ok(())
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let until = Instant::now() + READY_WITHIN;
        let socket = self.file("control.sock");
        while Instant::now() < until {
            if let Some(status) = self.agent.as_mut().and_then(|agent| agent.try_wait().ok().flatten()) {
                let log = fs::read_to_string(self.file("agent.log")).unwrap_or_default();
                bail!("the wall could not be raised ({status}):\n{log}");
            }
            let mut status = Command::new("/proc/self/exe");
            status.args(["status", "--output", "json"]).env("DNSWALL_SOCKET", &socket);
            status.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            if socket.exists() && status.status().context("ask the agent")?.success() {
                return Ok(());
            }
            thread::sleep(EVERY);
        }
        bail!("the agent does not answer after {READY_WITHIN:?}")
    }

    fn clean(&self) -> Result<()> {
        self.janitor.lock().unwrap_or_else(PoisonError::into_inner).clean()
    }

    fn alerts_path(&self) -> PathBuf {
        self.file("alerts.ndjson")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.remains.directory.join(name)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // The janitor ends it; here it is only waited for, which may already have happened.
        let _ = self.clean();
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.wait();
        }
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn part_command(part: &Part) -> Result<Command> {
    let mut command = Command::new("/proc/self/exe");
    command.args([super::PART_COMMAND, &serde_json::to_string(part)?]);
    Ok(command)
}

const BPFFS: &str = "/sys/fs/bpf";
const EVERY: Duration = Duration::from_millis(20);
const READY_WITHIN: Duration = Duration::from_secs(300);
const ALERT_WITHIN: Duration = Duration::from_secs(3);
