//! A server of lists, and an agent behind a wall that fetches from it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use dnswall_tests::act::MessageBy;
use dnswall_tests::ask::{asked, message, wire};
use dnswall_tests::authority::Authority;
use dnswall_tests::list_server::{ListServer, Shown};
use dnswall_tests::pace::within;
use dnswall_tests::wall::Wall;
use dnswall_tests::who::at;
use serde_json::{Value, json};

pub const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Ten names.
pub const TEN: &str = "a.example\nb.example\nc.example\nd.example\ne.example\nf.example\ng.example\nh.example\ni.example\nj.example\n";

/// A wall, and a server of lists on loopback that its agent trusts.
pub struct Scene {
    pub wall: Wall,
    pub server: ListServer,
}

impl Scene {
    /// A server on loopback, and an agent that trusts its authority and waits for three seconds.
    pub fn set() -> Result<Self> {
        Self::with(Shown::Good)
    }

    pub fn with(shown: Shown<'_>) -> Result<Self> {
        Self::patient(shown, "3s")
    }

    pub fn patient(shown: Shown<'_>, timeout: &str) -> Result<Self> {
        let wall = Wall::prepare()?;
        let authority = Authority::make(wall.scratch("").as_path())?;
        let server = ListServer::start(wall.probe(), wall.scratch("lists"), &authority, None, HERE, shown)?;
        let config = fs::read_to_string(wall.agent.config_path())?;
        let ca = authority.pem();
        let lists = format!("[lists]\nca = {ca:?}\ntimeout = {timeout:?}\n");
        fs::write(wall.agent.config_path(), config + &lists)?;
        Ok(Self { wall, server })
    }

    pub fn policy(&self, more: &str) -> String {
        policy(&self.server.url("/list.txt?token=sesame"), more)
    }

    /// Serves ten names with a tag, and starts an agent with them.
    pub fn begun() -> Result<Self> {
        Self::set()?.begin()
    }

    pub fn begin(mut self) -> Result<Self> {
        self.server.serve(TEN, &json!({"etag": "\"1\""}))?;
        let policy = self.policy("");
        self.wall.agent.start(Some(&policy))?;
        ensure!(self.refuses("a.example")? && !self.refuses("new.example")?, "as the list says");
        Ok(self)
    }

    pub fn refuses(&self, name: &str) -> Result<bool> {
        let act = asked(&message(&wire(name), 1, &[]), MessageBy::Datagram);
        Ok(self.wall.run(&at("app.service"), act)?.is_refused())
    }

    /// `blocklist update`: its exit code and what it says of the list.
    pub fn update(&self, arguments: &[&str]) -> Result<(i32, Value)> {
        let (code, said) = self.wall.agent.ask(&[&["blocklist", "update"], arguments].concat())?;
        Ok((code, said["lists"][0].clone()))
    }

    /// What comes does not count, for this reason, and what was good goes on and is told of.
    pub fn goes_on(&self, outcome: &str, why: &str) -> Result<()> {
        let (code, said) = self.update(&[])?;
        let reason = said["why"].as_str().unwrap_or_default();
        ensure!(code == 1 && said["outcome"] == outcome && reason.contains(why), "{why}: {code} {said}");
        ensure!(said["entries"] == 10 && said["added"] == 0 && said["removed"] == 0, "{said}");
        ensure!(self.refuses("a.example")? && !self.refuses("new.example")?, "{why}: what was good goes on");
        let warnings = self.wall.agent.status()?["warnings"].to_string();
        ensure!(warnings.contains(why) && !warnings.contains("sesame"), "{why}: {warnings}");
        let fetch = self.fetch()?;
        ensure!(fetch["error"].as_str().is_some_and(|error| error.contains(why)), "{why}: {fetch}");
        let left = fs::read_dir(self.wall.agent.state().join("lists"))?.count();
        ensure!(left == 2, "the version that counts and what is known of it, not {left} files");
        Ok(())
    }

    /// What `blocklist status` says of fetching.
    pub fn fetch(&self) -> Result<Value> {
        Ok(self.wall.agent.ask(&["blocklist", "status"])?.1["lists"][0]["fetch"].clone())
    }
}

pub fn policy(url: &str, more: &str) -> String {
    format!(
        "version = 1\nmode = \"enforce\"\n[dns]\nresolvers = [\"169.254.169.253\"]\n\
         [[blocklist]]\nname = \"bad\"\nsource = {url:?}\nrefresh = \"1h\"\n{more}"
    )
}

pub fn wait_until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let until = Instant::now() + within(Duration::from_secs(20));
    while Instant::now() < until {
        if is_so()? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("{what}: not within 20 s")
}
