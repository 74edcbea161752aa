//! The same list refused by dnswall and by the DNS servers people use for it, side by side: how long until it is refused, how
//! much memory that takes, and what a look-up costs whoever asks.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;

use super::names::listed;
use crate::act::{Act, Order};
use crate::process::Process;
use crate::resolver::RESOLVER;
use crate::wall::Wall;
use crate::who::at;

/// What one way of refusing names costs.
#[derive(Debug, Serialize)]
pub struct Peer {
    /// Which.
    pub name: &'static str,
    /// Milliseconds from nothing to refusing; `None` where there is nothing to load.
    pub load_ms: Option<u128>,
    /// KiB: what the kernel holds for dnswall and the process, together.
    pub memory_kib: Option<u64>,
    /// Nanoseconds of a look-up of a name that is asked again and again: median and 99th percentile.
    pub known_ns: (u64, u64),
    /// The same of a name nobody asked for before.
    pub fresh_ns: (u64, u64),
}

/// Look-ups of one kind in a round.
const LOOKUPS: usize = 1_000;
/// How long a server that may still be starting is waited for, in milliseconds.
const ANSWER_MS: u64 = 200;
/// A server that does not answer within so long is broken.
const LOADED_WITHIN: Duration = Duration::from_secs(300);

/// A DNS server that refuses names.
struct Server {
    name: &'static str,
    program: &'static str,
    port: u16,
    how: How,
}

#[derive(Clone, Copy)]
enum How {
    LocalZone,
    UnboundRpz,
    Dnsmasq,
    BindRpz,
}

const SERVERS: [Server; 4] = [
    Server { name: "unbound, local-zone", program: "/usr/sbin/unbound", port: 5301, how: How::LocalZone },
    Server { name: "unbound, RPZ", program: "/usr/sbin/unbound", port: 5302, how: How::UnboundRpz },
    Server { name: "dnsmasq", program: "/usr/sbin/dnsmasq", port: 5303, how: How::Dnsmasq },
    Server { name: "bind, RPZ", program: "/usr/sbin/named", port: 5304, how: How::BindRpz },
];

/// One way to ask, and what came of it so far.
struct Way {
    name: &'static str,
    server: SocketAddr,
    in_wall: bool,
    load_ms: Option<u128>,
    memory_kib: Option<u64>,
    known: Vec<(u64, u64)>,
    fresh: Vec<(u64, u64)>,
}

/// Measures a list of so many names. Servers that are not installed are left out, and named.
///
/// # Errors
/// When something does not start, or does not refuse what it should.
pub fn measure(names: usize, rounds: usize) -> Result<(Vec<Peer>, Vec<&'static str>)> {
    let mut wall = Wall::prepare()?;
    wall.echo(&BTreeSet::new(), &BTreeSet::new())?;
    let resolver = SocketAddr::new(RESOLVER, 53);
    let mut ways = vec![Way::new("nothing", resolver, false)];
    ways.push(dnswall(&mut wall, names)?);
    let (mut running, mut missing) = (Vec::new(), Vec::new());
    for server in &SERVERS {
        if !Path::new(server.program).exists() {
            missing.push(server.name);
            continue;
        }
        let (way, process) = start(&wall, server, names).with_context(|| format!("start {}", server.name))?;
        ways.push(way);
        running.push(process);
    }
    let mut asked = 0;
    for round in 0..rounds {
        // Each round begins with another one: whoever is first meets a cold machine.
        let count = ways.len();
        for way in (0..count).map(|at| (at + round) % count) {
            let way = &mut ways[way];
            way.known.push(time(&wall, way, &|_| "www.example.com".to_owned())?);
            way.fresh.push(time(&wall, way, &|at| format!("f{}.example.org", asked + at))?);
            asked += LOOKUPS;
        }
    }
    drop(running);
    Ok((ways.into_iter().map(Way::into_peer).collect(), missing))
}

impl Way {
    fn new(name: &'static str, server: SocketAddr, in_wall: bool) -> Self {
        let (known, fresh) = (Vec::new(), Vec::new());
        Self { name, server, in_wall, load_ms: None, memory_kib: None, known, fresh }
    }

    fn into_peer(self) -> Peer {
        let Self { name, load_ms, memory_kib, known, fresh, .. } = self;
        Peer { name, load_ms, memory_kib, known_ns: middle(known), fresh_ns: middle(fresh) }
    }
}

fn middle(samples: Vec<(u64, u64)>) -> (u64, u64) {
    let (mut medians, mut slow): (Vec<u64>, Vec<u64>) = samples.into_iter().unzip();
    medians.sort_unstable();
    slow.sort_unstable();
    (medians[medians.len() / 2], slow[slow.len() / 2])
}

fn dnswall(wall: &mut Wall, names: usize) -> Result<Way> {
    let list = wall.scratch("names.txt");
    super::names::write(&list, names)?;
    let policy = "version = 1\nmode = \"enforce\"\n[dns]\nresolvers = [\"169.254.169.253\"]\n";
    wall.agent.start(Some(policy))?;
    let policy = format!("{policy}[[blocklist]]\nname = \"bench\"\nsource = {list:?}\nmin-entries = 1\n");
    let start = Instant::now();
    let said = wall.agent.apply(&policy)?;
    ensure!(said.code == 0, "{said:?}");
    let load_ms = start.elapsed().as_millis();
    let (_, lists) = wall.agent.ask(&["blocklist", "status"])?;
    let bytes = lists["kernel_bytes"].as_u64().context("how much is in the kernel")?;
    let pid = wall.agent.pid().context("the agent's process")?;
    let mut way = Way::new("dnswall", SocketAddr::new(RESOLVER, 53), true);
    (way.load_ms, way.memory_kib) = (Some(load_ms), Some(bytes / 1024 + resident_kib(pid)?));
    Ok(way)
}

fn start(wall: &Wall, server: &Server, names: usize) -> Result<(Way, Process)> {
    let directory = wall.scratch(&format!("peer-{}", server.port));
    fs::create_dir(&directory)?;
    let arguments = configure(&directory, server, names)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, server.port));
    let mut way = Way::new(server.name, address, false);
    let order = order(wall, false, 2_000, Act::Launch { program: server.program.into(), arguments });
    let begin = Instant::now();
    let process = Process::spawn(wall.probe(), &order)?;
    // bind answers before it has its list.
    let refused = listed(names / 2);
    let refuses =
        || Ok::<_, anyhow::Error>(ask(wall, &way, "www.example.com")? && !ask(wall, &way, &refused)?);
    while !refuses()? {
        if begin.elapsed() > LOADED_WITHIN {
            let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
            bail!("it does not answer, or also for {refused}; its log: {log}");
        }
        thread::sleep(Duration::from_millis(50));
    }
    way.load_ms = Some(begin.elapsed().as_millis());
    way.memory_kib = Some(resident_kib(process.pid())?);
    Ok((way, process))
}

/// Writes what the server reads; gives its arguments.
fn configure(directory: &Path, server: &Server, names: usize) -> Result<Vec<String>> {
    let file = |name: &str| directory.join(name).display().to_string();
    let (list, config, log) = (file("list"), file("config"), file("log"));
    let port = server.port;
    let mut text = String::new();
    for at in 0..names {
        let name = listed(at);
        match server.how {
            How::LocalZone => writeln!(text, "local-zone: \"{name}.\" always_nxdomain")?,
            How::Dnsmasq => writeln!(text, "local=/{name}/")?,
            How::UnboundRpz | How::BindRpz => {
                if at == 0 {
                    text +=
                        "$TTL 300\n@ SOA localhost. root.localhost. 1 3600 600 86400 300\n@ NS localhost.\n";
                }
                writeln!(text, "{name} CNAME .\n*.{name} CNAME .")?;
            }
        }
    }
    if matches!(server.how, How::LocalZone) {
        text.insert_str(0, "server:\n");
    }
    fs::write(&list, text)?;
    let unbound = |modules: &str, more: &str| {
        format!(
            "server:\n interface: 127.0.0.1@{port}\n do-daemonize: no\n username: \"\"\n chroot: \"\"\n \
             directory: \"{}\"\n pidfile: \"\"\n use-syslog: no\n logfile: \"{log}\"\n num-threads: 1\n \
             module-config: \"{modules}\"\n do-not-query-localhost: no\n access-control: 127.0.0.0/8 allow\n \
             trust-anchor-file: \"\"\n auto-trust-anchor-file: \"\"\n\
             forward-zone:\n name: \".\"\n forward-addr: {RESOLVER}\nremote-control:\n control-enable: no\n{more}",
            directory.display()
        )
    };
    let (text, arguments) = match server.how {
        How::LocalZone => (unbound("iterator", &format!("include: \"{list}\"\n")), vec!["-d", "-c", &config]),
        How::UnboundRpz => {
            let zone = format!("rpz:\n name: \"rpz.bench\"\n zonefile: \"{list}\"\n");
            (unbound("respip iterator", &zone), vec!["-d", "-c", &config])
        }
        How::Dnsmasq => {
            let text = format!(
                "keep-in-foreground\nno-resolv\nno-hosts\nport={port}\nlisten-address=127.0.0.1\nbind-interfaces\n\
                 server={RESOLVER}\ncache-size=2000\nuser=root\npid-file=\nlog-facility={log}\nconf-file={list}\n"
            );
            (text, vec!["-C", &config])
        }
        How::BindRpz => {
            let text = format!(
                "options {{ directory \"{}\"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; \
                 forwarders {{ {RESOLVER}; }}; forward only; dnssec-validation no; recursion yes; pid-file none; \
                 session-keyfile none; response-policy {{ zone \"rpz.bench\"; }} qname-wait-recurse no; }};\n\
                 controls {{ }};\nzone \"rpz.bench\" {{ type primary; file \"{list}\"; }};\n\
                 logging {{ channel all {{ file \"{log}\"; }}; category default {{ all; }}; }};\n",
                directory.display()
            );
            (text, vec!["-f", "-n", "1", "-c", &config])
        }
    };
    fs::write(&config, text)?;
    Ok(arguments.into_iter().map(str::to_owned).collect())
}

/// Whether an address comes back.
fn ask(wall: &Wall, way: &Way, name: &str) -> Result<bool> {
    let act = Act::Dns { server: way.server, tcp: false, name: name.to_owned() };
    let mut process = Process::spawn(wall.probe(), &order(wall, way.in_wall, ANSWER_MS, act))?;
    let report = process.report()?;
    Ok(report.ok && report.received.is_some_and(|received| !received.starts_with("rcode")))
}

/// Median and 99th percentile of look-ups, in nanoseconds.
fn time(wall: &Wall, way: &Way, name: &dyn Fn(usize) -> String) -> Result<(u64, u64)> {
    let names: String = (0..LOOKUPS).map(|at| name(at) + "\n").collect();
    let path = wall.scratch("asked.txt");
    fs::write(&path, names)?;
    let order = order(wall, way.in_wall, 2_000, Act::Time { server: way.server, names: path });
    let mut process = Process::spawn(wall.probe(), &order)?;
    let report = process.report()?;
    report.counts.first().copied().context("no times came back")
}

fn order(wall: &Wall, in_wall: bool, wait_ms: u64, act: Act) -> Order {
    let cgroup = in_wall.then(|| wall.tree.child(&at("app.service").cgroup).ok()).flatten();
    Order { cgroup, netns: Some(wall.network.near.path()), uid: 0, maker: None, wait_ms, act }
}

fn resident_kib(pid: u32) -> Result<u64> {
    let status = PathBuf::from("/proc").join(pid.to_string()).join("status");
    let text = fs::read_to_string(status)?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("its resident memory")?;
    line.trim().trim_end_matches(" kB").parse().context("read its resident memory")
}
