//! An agent with sinks: takes them as agent.toml has them, gives the alerts of traffic that was refused, and what became of
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dnswall_agent::spool::SinkStatus;
use dnswall_tests::act::{Act, address};
use dnswall_tests::authority::Authority;
use dnswall_tests::pace::within;
use dnswall_tests::process::Process;
use dnswall_tests::receiver::guard::Guard;
use dnswall_tests::receiver::http::Http;
use dnswall_tests::receiver::plan::Plan;
use dnswall_tests::wall::Wall;
use dnswall_tests::who::at;
use serde_json::Value;

/// A wall, an agent that is not started yet, and an authority.
pub struct Scene {
    pub wall: Wall,
    pub authority: Authority,
    refused: u32,
}

impl Scene {
    pub fn set() -> Result<Self> {
        let wall = Wall::prepare()?;
        let authority = Authority::make(&wall.scratch("authority"))?;
        Ok(Self { wall, authority, refused: 0 })
    }

    /// An HTTP receiver that does as planned.
    pub fn http(&self, name: &str, guard: Guard, plan: &Plan) -> Result<Http> {
        let mut http = Http::start(self.wall.scratch(name), &self.authority, guard)?;
        http.plan(plan)?;
        Ok(http)
    }

    /// Writes a file, over the one that was there.
    pub fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.wall.scratch(name);
        fs::write(&path, text).with_context(|| format!("write {name}"))?;
        Ok(path)
    }

    /// Adds a sink, with these keys.
    pub fn sink(&self, name: &str, keys: &str) -> Result<()> {
        self.configure(&format!("[[sink]]\nname = \"{name}\"\n{keys}\n"))
    }

    /// Adds to agent.toml.
    pub fn configure(&self, more: &str) -> Result<()> {
        let path = self.wall.agent.config_path();
        let config = fs::read_to_string(&path)?;
        fs::write(path, config + more).context("write agent.toml")
    }

    /// Starts the agent, whose wall refuses nearly everything.
    pub fn start(&mut self) -> Result<()> {
        self.wall.agent.start(Some(POLICY))
    }

    /// Lets somebody try so many places where nobody may go, none of them twice, and gives the alerts that come of it, by
    /// the file sink that every agent here has.
    pub fn refuse(&mut self, count: u32) -> Result<Vec<Value>> {
        let before = self.wall.agent.alerts()?.len();
        let _process = self.try_places(count)?;
        let mut alerts = Vec::new();
        until("the alerts are in the file", || {
            alerts = self.wall.agent.alerts()?.split_off(before);
            Ok(alerts.len() >= count as usize)
        })?;
        ensure!(alerts.len() == count as usize, "more than was refused: {alerts:?}");
        Ok(alerts)
    }

    /// The same without a look at the file. The process stays, so that the agent can look at it.
    fn try_places(&mut self, count: u32) -> Result<Process> {
        let from = address(&format!("[{}]:9000", self.next_place(0)));
        let (report, process) = self.wall.attempt(&at("app.service"), Act::Sweep { from, count })?;
        ensure!(report.counts == [(0, u64::from(count))], "not all were refused: {report:?}");
        self.refused += count;
        Ok(process)
    }

    /// The address that will be tried after so many others.
    pub fn next_place(&self, after: u32) -> String {
        let number = self.refused + after + 1;
        format!("2001:db8:f::{number:x}")
    }

    /// The ids of all alerts so far.
    pub fn ids(&self) -> Result<BTreeSet<String>> {
        self.wall.agent.alerts()?.iter().map(id).collect()
    }

    /// What `status` says of a sink.
    pub fn status(&self, name: &str) -> Result<SinkStatus> {
        let status = self.wall.agent.status()?;
        let sinks = status["sinks"].as_array().cloned().unwrap_or_default();
        let found = sinks.into_iter().find(|sink| sink["name"] == name);
        serde_json::from_value(found.with_context(|| format!("find sink {name} in {status}"))?)
            .context("read a sink's status")
    }

    /// Waits until `status` says this of a sink.
    pub fn until_status(&self, name: &str, is_so: impl Fn(&SinkStatus) -> bool) -> Result<SinkStatus> {
        let mut last = SinkStatus::default();
        let waited = until(&format!("the status of {name}"), || {
            last = self.status(name)?;
            Ok(is_so(&last))
        });
        waited.with_context(|| format!("{last:?}"))?;
        Ok(last)
    }

    /// Waits until a sink fails and says why.
    pub fn until_failing(&self, name: &str, why: &str) -> Result<SinkStatus> {
        let says =
            |status: &SinkStatus| status.last_error.as_deref().is_some_and(|error| error.contains(why));
        self.until_status(name, |status| status.failing && says(status))
            .with_context(|| format!("{name} is to say {why:?}"))
    }

    /// Waits until all alerts so far are with a receiver, and nothing that is none; gives how often each came.
    pub fn until_all_came(
        &self,
        name: &str,
        came: impl FnMut() -> Result<Vec<String>>,
    ) -> Result<BTreeMap<String, usize>> {
        self.until_came(name, &self.ids()?, came)
    }

    /// The same of these.
    pub fn until_came(
        &self,
        name: &str,
        expected: &BTreeSet<String>,
        mut came: impl FnMut() -> Result<Vec<String>>,
    ) -> Result<BTreeMap<String, usize>> {
        let mut times = BTreeMap::new();
        let waited = until(&format!("all alerts are with {name}"), || {
            times.clear();
            for id in came()? {
                ensure!(expected.contains(&id), "{name}: {id} is none of those");
                *times.entry(id).or_insert(0) += 1;
            }
            Ok(times.len() == expected.len())
        });
        waited.with_context(|| {
            format!("{} of {} came, {:?}", times.len(), expected.len(), self.status(name))
        })?;
        Ok(times)
    }

    /// Waits until a sink says that it has all alerts so far, each of them once.
    pub fn until_taken(&self, name: &str) -> Result<SinkStatus> {
        let count = self.ids()?.len() as u64;
        let status = self.until_status(name, |status| status.waiting == 0 && !status.failing)?;
        ensure!(
            (status.written, status.rejected, status.lost) == (count, 0, 0),
            "{name}: {count} alerts, and {status:?}"
        );
        Ok(status)
    }
}

/// An alert's id.
pub fn id(alert: &Value) -> Result<String> {
    Ok(alert["id"].as_str().context("an alert with an id")?.to_owned())
}

/// Whether each came once.
pub fn is_once(times: &BTreeMap<String, usize>) -> bool {
    times.values().all(|times| *times == 1)
}

/// The ids in everything that an HTTP receiver took at a path.
pub fn taken_at(http: &Http, path: &str) -> Result<Vec<String>> {
    let taken = http.taken()?.into_iter().filter(|taken| taken.path == path);
    Ok(taken.flat_map(|taken| taken.ids()).collect())
}

/// Waits until it is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let until = Instant::now() + within(LIMIT);
    while !is_so()? {
        ensure!(Instant::now() < until, "{what}: not within {LIMIT:?}");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

const POLICY: &str = "version = 1\nmode = \"enforce\"\n[dns]\nresolvers = [\"169.254.169.253\"]\n";
/// What failed is tried again after 20 s at the latest by then.
const LIMIT: Duration = Duration::from_secs(40);
