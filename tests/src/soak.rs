//! Rounds of deaths, upgrades, rollbacks and policy flips under a constant flood: what is forbidden never arrives, what is
//! allowed is never refused, and the numbers say so.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dnswall_agent::demo::network::{NEAR_V4, NEAR_V6};
use socket2::{Domain, Socket, Type};

use crate::act::{Act, Errand, ErrandBy, Tally, address};
use crate::pace::flood_pause_us;
use crate::place::{self, Trial};
use crate::process::Process;
use crate::wall::Wall;
use crate::who::{Exe, Who, at};

/// What happened in all rounds.
#[derive(Debug, Default)]
pub struct Sum {
    /// Rounds by what was done in them.
    pub rounds: BTreeMap<&'static str, usize>,
    /// By class of traffic.
    pub classes: Vec<Class>,
    /// Packets to forbidden destinations that the far side saw.
    pub forbidden_arrived: usize,
    /// The first of them, and when they came.
    pub forbidden_shown: Vec<String>,
    /// Alerts about destinations that the policies allow.
    pub allowed_alerts: Vec<String>,
    /// Packets of all kinds that the far side saw.
    pub seen: usize,
    /// Packets that the recorder was too slow for.
    pub unseen: u32,
}

/// One class of traffic.
#[derive(Debug)]
pub struct Class {
    /// What it is.
    pub name: String,
    /// Whether every policy allows it; `None` for what only one of them does.
    pub allowed: Option<bool>,
    /// What came of it.
    pub tally: Tally,
}

/// Plays so many rounds and gives the sum; `each` is told of every round.
///
/// # Errors
/// When an agent does not start, or a probe fails.
pub fn run(rounds: usize, mut each: impl FnMut(usize, &'static str)) -> Result<Sum> {
    let mut soak = Soak::begin()?;
    let mut sum = Sum::default();
    for round in 0..rounds {
        let event = EVENTS[round % EVENTS.len()];
        each(round, event.name());
        soak.play(event, round).with_context(|| format!("round {round}, {}", event.name()))?;
        soak.count(&format!("round {round}, {}", event.name()), &mut sum)?;
        *sum.rounds.entry(event.name()).or_default() += 1;
    }
    soak.end(&mut sum)?;
    Ok(sum)
}

impl Sum {
    /// What went wrong, if anything did.
    ///
    /// # Errors
    /// Says what.
    pub fn verdict(&self) -> Result<()> {
        let wrong: Vec<&Class> = self.classes.iter().filter(|class| class.is_wrong()).collect();
        let still: Vec<&Class> = self.classes.iter().filter(|class| class.is_idle()).collect();
        ensure!(still.is_empty(), "nothing was sent, so nothing is proved: {still:?}");
        let (arrived, shown) = (self.forbidden_arrived, &self.forbidden_shown);
        ensure!(arrived == 0, "{arrived} forbidden packets arrived: {shown:#?}");
        ensure!(wrong.is_empty(), "refused or passed against the policy: {wrong:?}");
        ensure!(self.allowed_alerts.is_empty(), "alerts of what is allowed: {:?}", self.allowed_alerts);
        Ok(())
    }
}

impl Class {
    fn is_wrong(&self) -> bool {
        let Tally { ok, refused, failed, failure: _ } = &self.tally;
        match self.allowed {
            Some(true) => *refused > 0 || *failed > 0,
            Some(false) => *ok > 0,
            None => *failed > 0,
        }
    }

    fn is_idle(&self) -> bool {
        let Tally { ok, refused, failed, failure: _ } = &self.tally;
        ok + refused + failed < 10
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounds: usize = self.rounds.values().sum();
        let names: Vec<String> = self.rounds.iter().map(|(name, count)| format!("{count} {name}")).collect();
        writeln!(f, "{rounds} rounds: {}", names.join(", "))?;
        writeln!(f, "{:52} {:>9} {:>9} {:>7}", "class", "passed", "refused", "failed")?;
        for Class { name, allowed, tally } in &self.classes {
            let kind = match allowed {
                Some(true) => "allowed",
                Some(false) => "forbidden",
                None => "one policy's",
            };
            let Tally { ok, refused, failed, failure } = tally;
            let mut line = format!("{:52} {ok:>9} {refused:>9} {failed:>7}", format!("{kind}: {name}"));
            if let Some(failure) = failure {
                write!(line, "  ({failure})")?;
            }
            writeln!(f, "{line}")?;
        }
        let by = |allowed: bool, which: fn(&Tally) -> u64| -> u64 {
            let classes = self.classes.iter().filter(|class| class.allowed == Some(allowed));
            classes.map(|class| which(&class.tally)).sum()
        };
        writeln!(
            f,
            "allowed: {} passed, {} refused, {} failed otherwise; {} alerts about them",
            by(true, |tally| tally.ok),
            by(true, |tally| tally.refused),
            by(true, |tally| tally.failed),
            self.allowed_alerts.len()
        )?;
        write!(
            f,
            "forbidden: {} tried, {} passed as the application saw it, {} packets arrived (of {} that the far side \
             saw; {} more were too fast for it)",
            by(false, |tally| tally.ok + tally.refused + tally.failed),
            by(false, |tally| tally.ok),
            self.forbidden_arrived,
            self.seen,
            self.unseen
        )
    }
}

/// What may happen to a wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    KillRestart,
    StopRestart,
    Upgrade,
    Rollback,
    NewerLayouts,
    OlderLayouts,
    Flip,
    KillInUpgrade,
    KillInCrossing,
}

/// The order in which they do. Each begins with the build the one before left.
const EVENTS: [Event; 12] = [
    Event::KillRestart,
    Event::Flip,
    Event::Upgrade,
    Event::Flip,
    Event::Rollback,
    Event::NewerLayouts,
    Event::Flip,
    Event::OlderLayouts,
    Event::StopRestart,
    Event::KillInUpgrade,
    Event::KillInCrossing,
    Event::OlderLayouts,
];

impl Event {
    fn name(self) -> &'static str {
        match self {
            Self::KillRestart => "kill -9 and restart",
            Self::StopRestart => "stop and restart",
            Self::Upgrade => "upgrade to another build",
            Self::Rollback => "rollback",
            Self::NewerLayouts => "to other layouts",
            Self::OlderLayouts => "back from layouts it does not know",
            Self::Flip => "policy flips",
            Self::KillInUpgrade => "kill -9 in an upgrade",
            Self::KillInCrossing => "kill -9 on the way to other layouts",
        }
    }
}

struct Soak {
    flood: Vec<(Vec<Class>, Process)>,
    clients: Vec<Client>,
    _servers: Vec<Process>,
    wall: Wall,
    builds: Builds,
    policies: [String; 2],
    applied: usize,
    faults: u64,
}

struct Builds {
    ordinary: PathBuf,
    build: PathBuf,
    abi: PathBuf,
}

impl Soak {
    fn begin() -> Result<Self> {
        let builds = Builds {
            ordinary: place::dnswall()?,
            build: place::trial(Trial::Build)?,
            abi: place::trial(Trial::Abi)?,
        };
        let mut wall = Wall::build()?;
        wall.copy(WORKER)?;
        let policies = policies().map(|policy| wall.fill_in(&policy));
        wall.agent.start(Some(&policies[0]))?;
        let served: BTreeSet<SocketAddr> = BOTH.iter().chain(&FLIPPED).map(|to| address(to)).collect();
        wall.echo(&served, &served)?;
        // Somebody on the far side asks there whether its own resolvers are ready.
        wall.capture.mark()?;
        wall.capture.take();
        let mut flood = Vec::new();
        for (who, errands) in errands() {
            let (classes, errands): (Vec<Class>, Vec<Errand>) = errands.into_iter().unzip();
            flood.push((classes, wall.start(&who, Act::Load { errands, pause_us: flood_pause_us() })?));
        }
        let (mut servers, mut clients) = (Vec::new(), Vec::new());
        for (near, far) in [(IpAddr::V4(NEAR_V4), "198.51.100.9"), (IpAddr::V6(NEAR_V6), "2001:db8:9::9")] {
            let far: IpAddr = far.parse()?;
            for tcp in [false, true] {
                let place = SocketAddr::new(near, 8080);
                servers.push(wall.start(&at("web.service"), Act::Serve { at: place, tcp })?);
                clients.push(Client::start(&wall, far, place, tcp)?);
            }
        }
        Ok(Self { flood, clients, _servers: servers, wall, builds, policies, applied: 0, faults: 0 })
    }

    fn play(&mut self, event: Event, round: usize) -> Result<()> {
        match event {
            Event::Flip => {
                for _ in 0..FLIPS {
                    self.applied += 1;
                    let said = self.wall.agent.apply(&self.policies[self.applied % 2])?;
                    ensure!(said.code == 0, "{said:?}");
                }
                Ok(())
            }
            Event::KillRestart => self.restart(None, true),
            Event::StopRestart => self.restart(None, false),
            Event::Upgrade => self.restart(Some(self.builds.build.clone()), round.is_multiple_of(2)),
            Event::Rollback | Event::OlderLayouts => {
                self.restart(Some(self.builds.ordinary.clone()), round.is_multiple_of(2))
            }
            Event::NewerLayouts => self.restart(Some(self.builds.abi.clone()), round.is_multiple_of(2)),
            Event::KillInUpgrade => {
                self.cut_short(self.builds.build.clone())?;
                self.restart(Some(self.builds.ordinary.clone()), true)
            }
            Event::KillInCrossing => {
                self.cut_short(self.builds.abi.clone())?;
                let forward = self.faults.is_multiple_of(2);
                let next = if forward { &self.builds.abi } else { &self.builds.ordinary };
                self.restart(Some(next.clone()), true)
            }
        }
    }

    fn restart(&mut self, build: Option<PathBuf>, kill: bool) -> Result<()> {
        if self.wall.agent.pid().is_some() {
            if kill {
                self.wall.agent.kill()?;
            } else {
                self.wall.agent.stop()?;
            }
        }
        if let Some(build) = build {
            self.wall.agent.use_build(build);
        }
        self.wall.agent.start(None)
    }

    /// Starts a build that dies at one of its steps: at the next one each time.
    fn cut_short(&mut self, build: PathBuf) -> Result<()> {
        self.wall.agent.kill()?;
        self.faults += 1;
        self.wall.agent.use_build(build);
        self.wall.agent.use_fault(Some(format!("die@{}", 1 + self.faults % STEPS_MAX)));
        // Where it has fewer steps it starts, and is killed.
        let started = self.wall.agent.start(None);
        self.wall.agent.use_fault(None);
        if started.is_ok() { self.wall.agent.kill() } else { Ok(()) }
    }

    /// Looks at what arrived meanwhile.
    fn count(&self, when: &str, sum: &mut Sum) -> Result<()> {
        self.wall.capture.mark()?;
        let arrived = self.wall.capture.take();
        sum.seen += arrived.len();
        sum.unseen += self.wall.capture.lost()?;
        let never: Vec<(IpAddr, u16)> =
            NEVER.iter().map(|to| address(to)).map(|to| (to.ip(), to.port())).collect();
        let is_forbidden = |(to, port): (IpAddr, Option<u16>)| {
            never.iter().any(|(address, forbidden)| *address == to && Some(*forbidden) == port)
        };
        for packet in arrived.iter().filter(|packet| is_forbidden((packet.destination, packet.port()))) {
            sum.forbidden_arrived += 1;
            if sum.forbidden_shown.len() < SHOWN_MAX {
                sum.forbidden_shown.push(format!("{when}: {packet:?}"));
            }
        }
        Ok(())
    }

    fn end(mut self, sum: &mut Sum) -> Result<()> {
        for (classes, process) in std::mem::take(&mut self.flood) {
            let tallies = process.finish()?.tallies;
            ensure!(tallies.len() == classes.len(), "{} of {} tallies", tallies.len(), classes.len());
            sum.classes
                .extend(classes.into_iter().zip(tallies).map(|(class, tally)| Class { tally, ..class }));
        }
        for client in std::mem::take(&mut self.clients) {
            sum.classes.push(client.finish()?);
        }
        self.count("the end", sum)?;
        let allowed: Vec<IpAddr> = BOTH
            .iter()
            .map(|to| address(to).ip())
            .chain(CLIENTS.iter().filter_map(|at| at.parse().ok()))
            .collect();
        for alert in self.wall.agent.alerts()? {
            let to = alert["flow"]["destination"].as_str().and_then(|to| to.parse::<IpAddr>().ok());
            if to.is_some_and(|to| allowed.contains(&to)) && sum.allowed_alerts.len() < SHOWN_MAX {
                sum.allowed_alerts.push(alert.to_string());
            }
        }
        Ok(())
    }
}

/// Someone outside, whom no policy lets anybody write to, and whom servers inside answer.
struct Client {
    name: String,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Tally>,
}

impl Client {
    fn start(wall: &Wall, from: IpAddr, to: SocketAddr, tcp: bool) -> Result<Self> {
        let from = SocketAddr::new(from, 0);
        let mut talk: Box<dyn FnMut() -> std::io::Result<()> + Send> = if tcp {
            let socket = wall.network.far.run(|| {
                let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
                socket.bind(&from.into())?;
                socket.connect(&to.into())?;
                Ok::<_, std::io::Error>(socket)
            })?;
            let mut stream = TcpStream::from(socket);
            stream.set_read_timeout(Some(ANSWER_WITHIN))?;
            Box::new(move || {
                stream.write_all(b"hello")?;
                stream.read_exact(&mut [0; 5])
            })
        } else {
            let socket = wall.network.far.run(|| UdpSocket::bind(from))?;
            socket.set_read_timeout(Some(ANSWER_WITHIN))?;
            Box::new(move || {
                socket.send_to(b"hello", to)?;
                socket.recv(&mut [0; 16]).map(drop)
            })
        };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut tally = Tally::default();
            while !stopped.load(Ordering::Relaxed) {
                match talk() {
                    Ok(()) => tally.ok += 1,
                    Err(error) => {
                        tally.failed += 1;
                        tally.failure = Some(error.to_string());
                    }
                }
                thread::sleep(CLIENT_PAUSE);
            }
            tally
        });
        let kind = if tcp { "TCP" } else { "UDP" };
        Ok(Self { name: format!("answers of a {kind} server at {to}"), stop, thread })
    }

    fn finish(self) -> Result<Class> {
        self.stop.store(true, Ordering::Relaxed);
        let tally = self.thread.join().map_err(|_| anyhow::anyhow!("a client failed"))?;
        Ok(Class { name: self.name, allowed: Some(true), tally })
    }
}

/// Two policies that agree on much, and on what is not at the same place in both.
fn policies() -> [String; 2] {
    let head = "version = 1\nmode = \"enforce\"\n[dns]\nresolvers = [\"169.254.169.253\"]\n";
    let rule = |name: &str, to: &str, from: &str| {
        format!(
            "[[allow]]\nname = \"{name}\"\nto = [{to}]\nports = [\"udp/9000\", \"tcp/9000\"]\nfrom = [{from}]\n"
        )
    };
    let worker = "{ unit = \"app.service\", exe = \"{copies}/worker\" }";
    let shared = rule("shared", "\"10.0.1.0/24\", \"2001:db8:1::/48\"", worker);
    let anyone =
        rule("anyone", "\"10.0.7.0/24\"", "{ unit = \"other.service\" }, { unit = \"app.service\" }");
    let filler: String = (0..40)
        .map(|number| {
            rule(&format!("filler {number}"), &format!("\"203.0.113.{number}\""), "{ unit = \"no.service\" }")
        })
        .collect();
    let a = format!("{head}{shared}{anyone}{}", rule("a", "\"10.0.2.0/24\"", worker));
    let b = format!("{head}{filler}{}{anyone}{shared}", rule("b", "\"10.0.3.0/24\"", worker));
    [a, b]
}

/// Who does what. Only the worker's program in its unit may go where it goes.
fn errands() -> Vec<(Who, Vec<(Class, Errand)>)> {
    use ErrandBy::{TcpFresh, TcpHeld, UdpConnected, UdpFresh, UdpSendto};
    let worker = || at("app.service").exe(Exe::Copy(WORKER));
    let all = [UdpFresh, UdpSendto, UdpConnected, TcpFresh, TcpHeld];
    let fresh = [UdpFresh, UdpSendto, UdpConnected, TcpFresh];
    let list =
        |whose: &str, tos: &[&str], ways: &[ErrandBy], allowed: Option<bool>| -> Vec<(Class, Errand)> {
            let pairs = tos.iter().flat_map(|to| ways.iter().map(move |by| (address(to), *by)));
            pairs
                .map(|(to, by)| {
                    let name = format!("{by:?} to {to} {whose}");
                    (Class { name, allowed, tally: Tally::default() }, Errand { to, by })
                })
                .collect()
        };
    vec![
        (worker(), list("by the worker", &BOTH[..2], &all, Some(true))),
        (worker(), list("by the worker", &NEVER[..2], &fresh, Some(false))),
        (at("other.service"), list("by its unit", &BOTH[2..], &all, Some(true))),
        // The same unit with another program, and the same program in another unit.
        (at("app.service"), list("by another program", &NEVER[2..3], &fresh, Some(false))),
        (
            at("other.service").exe(Exe::Copy(WORKER)),
            list("by another unit", &NEVER[3..4], &fresh, Some(false)),
        ),
        (
            worker(),
            list("to a foreign resolver", &NEVER[4..], &[UdpSendto, UdpConnected, TcpFresh], Some(false)),
        ),
        (worker(), list("by the worker", &FLIPPED, &[UdpFresh, UdpSendto, UdpConnected], None)),
    ]
}

/// Served at the far side, and allowed by both policies.
const BOTH: [&str; 3] = ["10.0.1.7:9000", "[2001:db8:1::7]:9000", "10.0.7.7:9000"];
/// Served at the far side, and allowed by one policy each.
const FLIPPED: [&str; 2] = ["10.0.2.7:9000", "10.0.3.7:9000"];
/// Where nobody who goes there may go; the third and fourth are the worker's alone, who does not go there.
const NEVER: [&str; 6] = [
    "10.0.4.7:9000",
    "[2001:db8:4::7]:9000",
    "10.0.1.8:9000",
    "10.0.1.9:9000",
    "198.51.100.53:53",
    "[2001:db8::53]:53",
];
/// Clients of servers inside.
const CLIENTS: [&str; 2] = ["198.51.100.9", "2001:db8:9::9"];
const WORKER: &str = "worker";
/// Policies applied in one round of flips.
const FLIPS: usize = 4;
/// More steps than any take-over has.
const STEPS_MAX: u64 = 24;
const CLIENT_PAUSE: Duration = Duration::from_millis(2);
/// Only a machine that stands still takes this long.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
const SHOWN_MAX: usize = 5;
