//! Connections that a change of the policy ends: their processes hear of it, whatever changed it, and nobody waits for an
//! answer that cannot come.

use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use dnswall_tests::act::{Act, Errand, ErrandBy, Report, address};
use dnswall_tests::pace::within;
use dnswall_tests::process::Process;
use dnswall_tests::wall::Wall;
use dnswall_tests::who::at;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

const OPEN: &str = "version = 1\nmode = \"enforce\"\n[[allow]]\nname = \"db\"\nto = [\"10.0.3.0/24\"]\n";
const CLOSED: &str = "version = 1\nmode = \"enforce\"\n";
const CUT: &str = "version = 1\nmode = \"enforce\"\nexisting = \"cut\"\n";
const TO: &str = "10.0.3.7:5432";

/// Applies a policy.
fn apply(wall: &Wall, policy: &str, arguments: &[&str]) -> Result<()> {
    let path = wall.scratch("new.toml");
    std::fs::write(&path, policy)?;
    let said = wall.agent.say(&[&["policy", "apply", &path.to_string_lossy()], arguments].concat())?;
    ensure!(said.code == 0, "{said:?}");
    Ok(())
}

/// The first report that is not silence.
fn hear(held: &mut Process) -> Result<Report> {
    for _ in 0..20 {
        let report = held.exchange()?;
        if !report.is_silence() {
            return Ok(report);
        }
    }
    bail!("it waits for an answer that does not come")
}

#[test]
fn whatever_changes_the_policy_ends_what_the_new_one_cuts() -> Result<()> {
    type Step = fn(&Wall) -> Result<()>;
    let ways: [(&str, Step, Step); 3] = [
        ("an apply", |wall| apply(wall, OPEN, &[]), |wall| apply(wall, CUT, &[])),
        (
            "a rollback",
            |wall| apply(wall, OPEN, &[]),
            |wall| {
                let said = wall.agent.say(&["policy", "rollback"])?;
                ensure!(said.code == 0, "{said:?}");
                Ok(())
            },
        ),
        ("a trial that nobody confirms", |wall| apply(wall, OPEN, &["--confirm", "10s"]), |_| Ok(())),
    ];
    for (name, open, close) in ways {
        let mut wall = Wall::raise(CUT)?;
        wall.echo(&[address(TO)].into(), &[].into())?;
        open(&wall)?;
        let mut held = wall.start(&at("app.service"), Act::Hold { to: address(TO), tcp: true })?;
        ensure!(held.exchange()?.ok, "{name}");
        close(&wall)?;
        let mut report = hear(&mut held)?;
        while report.ok {
            std::thread::sleep(Duration::from_millis(200));
            report = hear(&mut held)?;
        }
        ensure!(report.errno == Some(libc::ECONNABORTED), "{name}: {report:?}");
    }
    Ok(())
}

#[test]
fn what_is_not_open_yet_is_no_existing_connection() -> Result<()> {
    let wall = Wall::raise(OPEN)?;
    let _full = wall.network.far.run(Deaf::listen)?;
    let errands = vec![Errand { to: address(TO), by: ErrandBy::TcpFresh }];
    let opening = wall.start(&at("app.service"), Act::Load { errands, pause_us: 100_000 })?;
    let path = wall.scratch("closed.toml");
    std::fs::write(&path, CLOSED)?;
    // Its first packet is out, and nobody has answered.
    let end = Instant::now() + within(Duration::from_secs(10));
    loop {
        let (code, said) = wall.agent.ask(&["policy", "apply", &path.to_string_lossy(), "--dry-run"])?;
        let fates: Vec<&Value> =
            said["connections"].as_array().context("connections")?.iter().map(|line| &line["fate"]).collect();
        if !fates.is_empty() {
            ensure!(code == 1 && fates == ["cut"], "existing = keep, but it does not exist: {said}");
            break;
        }
        ensure!(Instant::now() < end, "it does not begin: {said}");
    }
    let applied = Instant::now();
    apply(&wall, CLOSED, &[])?;
    let tallies = opening.finish()?.tallies;
    let took = applied.elapsed();
    ensure!(tallies[0].failed == 1 && tallies[0].ok == 0, "{tallies:?}");
    let failure = tallies[0].failure.as_deref().unwrap_or_default();
    ensure!(failure.contains("os error 103"), "it has to hear of it, after {took:?}: {tallies:?}");
    Ok(())
}

/// A server whose queue is full: what else connects is not answered.
struct Deaf {
    _listener: Socket,
    _first: TcpStream,
}

impl Deaf {
    fn listen() -> io::Result<Self> {
        let to = address(TO);
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        listener.bind(&to.into())?;
        // The kernel keeps one more than this.
        listener.listen(0)?;
        Ok(Self { _listener: listener, _first: TcpStream::connect(to)? })
    }
}
