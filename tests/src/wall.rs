//! A wall to test: a network, a cgroup tree, an agent, and what happens at the far side.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use dnswall_agent::demo::cgroup::Tree;
use dnswall_agent::demo::netlink::Netlink;
use dnswall_agent::demo::netns::Namespace;
use dnswall_agent::demo::network::Network;
use tempfile::TempDir;

use crate::act::{Act, Order, Report};
use crate::agent::Agent;
use crate::capture::Capture;
use crate::kept;
use crate::pace::within;
use crate::place;
use crate::process::{self, Process};
use crate::resolver::{Dnsmasq, FOREIGN, FOREIGN_V6, RESOLVER, RESOLVER_V6, SECOND};
use crate::server::EchoServers;
use crate::who::{Exe, Who};
use crate::zone::{ZONE, ZONE_V6};

/// Everything a test needs. Fields go in this order, when it goes: processes, then what they use.
pub struct Wall {
    /// The agent.
    pub agent: Agent,
    echo: Vec<EchoServers>,
    /// Where they are: TCP, UDP.
    listening: (BTreeSet<SocketAddr>, BTreeSet<SocketAddr>),
    _resolvers: Dnsmasq,
    /// What reached the far side.
    pub capture: Capture,
    /// Where the workloads run.
    pub tree: Tree,
    /// The two sides.
    pub network: Network,
    probe: PathBuf,
    directory: TempDir,
}

impl Wall {
    /// Builds everything, and starts an agent with `policy` (see [`Wall::fill_in`]).
    ///
    /// # Errors
    /// What went wrong.
    pub fn raise(policy: &str) -> Result<Self> {
        let mut wall = Self::prepare()?;
        let policy = wall.fill_in(policy);
        wall.agent.start(Some(&policy))?;
        Ok(wall)
    }

    /// Builds everything but does not start the agent: there is no wall.
    ///
    /// # Errors
    /// What went wrong.
    pub fn build() -> Result<Self> {
        Self::around(Tree::create("dnswall-test").context("make a cgroup (this needs root)")?)
    }

    /// Builds everything for an agent that is started before anything else is: the kernel may have the programs already
    /// ([`kept`]).
    ///
    /// # Errors
    /// What went wrong.
    pub fn prepare() -> Result<Self> {
        match kept::take()? {
            Some(cgroup) => Self::around(Tree::at(cgroup)),
            None => Self::build(),
        }
    }

    fn around(tree: Tree) -> Result<Self> {
        let probe = place::probe()?;
        let directory =
            tempfile::Builder::new().prefix("dnswall-test-").tempdir().context("make a directory")?;
        let network = Network::create().context("build a network (this needs root)")?;
        network.far.run(|| {
            let mut netlink = Netlink::open()?;
            INTERNET.iter().try_for_each(|(network, bits)| netlink.add_own_network(*network, *bits))
        })?;
        // Ping sockets are for nobody by default.
        network.near.run(|| fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"))?;
        let capture = Capture::start(&network)?;
        let all: [IpAddr; 5] = [RESOLVER, RESOLVER_V6, FOREIGN, FOREIGN_V6, SECOND];
        let resolvers = Dnsmasq::start(&probe, &network.far, None, &all)?;
        fs::create_dir(directory.path().join(COPIES))?;
        let agent = Agent::prepare(directory.path(), tree.directory())?;
        Ok(Self {
            agent,
            echo: Vec::new(),
            listening: Default::default(),
            _resolvers: resolvers,
            capture,
            tree,
            network,
            probe,
            directory,
        })
    }

    /// Puts the tree's path for `{root}` and the directory of copies for `{copies}`, and makes every copy the policy
    /// names.
    pub fn fill_in(&self, policy: &str) -> String {
        policy
            .replace("{root}", &self.tree.path())
            .replace("{copies}", &self.copies().to_string_lossy())
            .replace("{probe}", &self.probe.to_string_lossy())
    }

    /// Where copies of the probe are.
    pub fn copies(&self) -> PathBuf {
        self.directory.path().join(COPIES)
    }

    /// A file or directory of the test's own.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes a copy of the probe: another inode under another name.
    ///
    /// # Errors
    /// The kernel's.
    pub fn copy(&self, name: &str) -> Result<PathBuf> {
        let path = self.copies().join(name);
        if !path.exists() {
            fs::copy(&self.probe, &path).with_context(|| format!("copy the probe to {}", path.display()))?;
        }
        Ok(path)
    }

    /// Listens at the far side, where nothing listens yet.
    ///
    /// # Errors
    /// The kernel's.
    pub fn echo(&mut self, tcp: &BTreeSet<SocketAddr>, udp: &BTreeSet<SocketAddr>) -> Result<()> {
        let new = |proposed: &BTreeSet<SocketAddr>, taken: &mut BTreeSet<SocketAddr>| {
            let new: BTreeSet<SocketAddr> = proposed.difference(taken).copied().collect();
            taken.extend(&new);
            new
        };
        let (tcp, udp) = (new(tcp, &mut self.listening.0), new(udp, &mut self.listening.1));
        self.echo.push(EchoServers::start(&self.network, &tcp, &udp)?);
        Ok(())
    }

    /// Starts a server of the made-up zone at the far side.
    ///
    /// # Errors
    /// When it does not start.
    pub fn zone(&self) -> Result<Process> {
        let act = Act::Zone { at: vec![ZONE, ZONE_V6] };
        let netns = Some(self.network.far.path());
        Process::start(self.probe(), &Order { cgroup: None, netns, uid: 0, maker: None, wait_ms: 0, act })
    }

    /// Lets someone do something, to its end.
    ///
    /// # Errors
    /// When the probe cannot do what it was told.
    pub fn run(&self, who: &Who, act: Act) -> Result<Report> {
        Ok(self.attempt(who, act)?.0)
    }

    /// Lets someone do something; the process stays until it is dropped, so that the agent can look at it.
    ///
    /// # Errors
    /// When the probe cannot do what it was told.
    pub fn attempt(&self, who: &Who, act: Act) -> Result<(Report, Process)> {
        let mut process = Process::spawn(&self.exe(who)?, &self.order(who, act)?)?;
        Ok((process.report()?, process))
    }

    /// [`Self::run`] in another network namespace.
    ///
    /// # Errors
    /// When the probe cannot do what it was told.
    pub fn run_in(&self, netns: &Namespace, who: &Who, act: Act) -> Result<Report> {
        let order = Order { netns: Some(netns.path()), ..self.order(who, act)? };
        Process::spawn(&self.exe(who)?, &order)?.report()
    }

    /// [`Self::start`] in another network namespace.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start_in(&self, netns: &Namespace, who: &Who, act: Act) -> Result<Process> {
        Process::start(&self.exe(who)?, &Order { netns: Some(netns.path()), ..self.order(who, act)? })
    }

    /// Lets someone run a program to its end, and gives what it wrote and its process id.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn output(&self, who: &Who, act: Act) -> Result<(String, u32)> {
        process::output(&self.probe, &self.order(who, act)?)
    }

    /// Lets someone start something that says when it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start(&self, who: &Who, act: Act) -> Result<Process> {
        Process::start(&self.exe(who)?, &self.order(who, act)?)
    }

    /// The probe's path.
    pub fn probe(&self) -> &Path {
        &self.probe
    }

    fn exe(&self, who: &Who) -> Result<PathBuf> {
        match who.exe {
            Exe::Copy(name) => self.copy(name),
            Exe::Probe | Exe::Dig => Ok(self.probe.clone()),
        }
    }

    fn order(&self, who: &Who, act: Act) -> Result<Order> {
        let cgroup = self.tree.child(&who.cgroup).with_context(|| format!("make cgroup {}", who.cgroup))?;
        let maker = match &act {
            Act::Handed { maker, .. } => Some(self.tree.child(maker).context("make the other's cgroup")?),
            _ => None,
        };
        Ok(Order {
            cgroup: Some(cgroup),
            netns: Some(self.network.near.path()),
            uid: who.uid,
            wait_ms: within(WAIT).as_millis() as u64,
            maker,
            act,
        })
    }
}

impl Drop for Wall {
    fn drop(&mut self) {
        if !kept::is_asked_for() {
            return;
        }
        self.agent.end();
        let emptied = self.tree.clear().context("empty the cgroup");
        match emptied.and_then(|()| kept::keep(self.tree.directory(), self.agent.pins())) {
            Ok(true) => {
                self.agent.leave_wall();
                self.tree.keep();
            }
            Ok(false) => {}
            Err(error) => eprintln!("the wall is not kept: {error:#}"),
        }
    }
}

/// Networks of the internet (no documentation range is) that the far side plays.
pub const INTERNET: [(IpAddr, u8); 4] = [
    (IpAddr::V4(Ipv4Addr::new(8, 8, 9, 0)), 24),
    // Resolvers that are asked over HTTPS, and their neighbours.
    (IpAddr::V4(Ipv4Addr::new(9, 9, 9, 0)), 24),
    (IpAddr::V6(Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0)), 64),
    (IpAddr::V6(Ipv6Addr::new(0x2a00, 0x77, 0, 0, 0, 0, 0, 0)), 32),
];

const COPIES: &str = "copies";
/// Long enough for a busy machine: only silence takes this long.
const WAIT: Duration = Duration::from_secs(1);
