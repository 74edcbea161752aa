//! Nobody locks himself out: a policy on trial is taken back, by the agent or by its successor, and what it would cut
//! off is said before.

use std::time::{Duration, Instant};

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, bail, ensure};
use dnswall_agent::demo::network::NEAR_V4;
use dnswall_tests::act::{Act, address, tcp};
use dnswall_tests::agent::Said;
use dnswall_tests::process::Process;
use dnswall_tests::wall::Wall;
use dnswall_tests::who::at;
use serde_json::Value;

const OPEN: &str = "version = 1\nmode = \"enforce\"\n[[allow]]\nname = \"db\"\nto = [\"10.0.3.0/24\"]\n";
const CLOSED: &str = "version = 1\nmode = \"enforce\"\n";
/// Longer than a test takes, also on a busy machine.
const LONG: &str = "1h";

/// A wall whose policy lets one thing pass, and a server there.
fn open() -> Result<Wall> {
    let mut wall = Wall::raise(OPEN)?;
    wall.echo(&[address("10.0.3.7:5432")].into(), &[].into())?;
    ensure!(passes(&wall)?);
    Ok(wall)
}

fn passes(wall: &Wall) -> Result<bool> {
    let report = wall.run(&at("app.service"), tcp("10.0.3.7:5432"))?;
    ensure!(report.ok || report.is_refused(), "{report:?}");
    Ok(report.ok)
}

fn apply(wall: &Wall, policy: &str, arguments: &[&str]) -> Result<Said> {
    let path = wall.scratch("new.toml");
    std::fs::write(&path, policy)?;
    wall.agent.say(&[&["policy", "apply", &path.to_string_lossy()], arguments].concat())
}

/// Applies a policy on trial, under which nothing passes, and looks that it decides and waits.
fn try_out(wall: &Wall, time: &str) -> Result<()> {
    let said = apply(wall, CLOSED, &["--confirm", time])?;
    ensure!(said.code == 0 && said.text.contains("dnswall policy confirm"), "{said:?}");
    Ok(())
}

fn digest(wall: &Wall) -> Result<Value> {
    Ok(wall.agent.status()?["policy"]["digest"].clone())
}

/// Waits until the status is as wanted.
fn until(wall: &Wall, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let status = wall.agent.status()?;
        if wanted(&status) {
            return Ok(status);
        }
        if Instant::now() > end {
            bail!("it does not become so: {status}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn warned(status: &Value, text: &str) -> bool {
    status["warnings"].as_array().is_some_and(|list| {
        list.iter().any(|warning| warning.as_str().is_some_and(|warning| warning.contains(text)))
    })
}

#[test]
fn a_confirmed_policy_stays() -> Result<()> {
    let mut wall = open()?;
    let before = digest(&wall)?;
    try_out(&wall, LONG)?;
    ensure!(!passes(&wall)?, "it decides from the moment it is applied");
    let status = wall.agent.status()?;
    let left = status["pending"]["seconds_left"].as_u64().context("seconds left")?;
    ensure!((3000..=3600).contains(&left) && status["pending"]["back_to"]["digest"] == before, "{status}");
    let shown = wall.agent.say(&["status"])?;
    ensure!(shown.text.contains("not confirmed"), "{shown:?}");

    let plain = apply(&wall, OPEN, &[])?;
    ensure!(plain.code == 1 && plain.errors.contains("waits for its confirmation"), "{plain:?}");
    let confirmed = wall.agent.say(&["policy", "confirm"])?;
    ensure!(confirmed.code == 0, "{confirmed:?}");
    ensure!(wall.agent.status()?["pending"].is_null());
    let again = wall.agent.say(&["policy", "confirm"])?;
    ensure!(again.code == 1 && again.errors.contains("no policy waits"), "{again:?}");
    // For good: the next agent has it too, and a rollback leads to the one before.
    let after = digest(&wall)?;
    wall.agent.kill()?;
    wall.agent.start(None)?;
    ensure!(digest(&wall)? == after && after != before && !passes(&wall)?);
    ensure!(wall.agent.say(&["policy", "rollback"])?.code == 0);
    ensure!(digest(&wall)? == before && passes(&wall)?);
    Ok(())
}

#[test]
fn a_policy_that_nobody_confirms_is_taken_back() -> Result<()> {
    let wall = open()?;
    let before = digest(&wall)?;
    try_out(&wall, "5s")?;
    let status = until(&wall, |status| status["policy"]["digest"] == before)?;
    ensure!(status["pending"].is_null() && warned(&status, "was not confirmed in time"), "{status}");
    ensure!(passes(&wall)?);
    ensure!(wall.agent.log().contains("was not confirmed in time"), "{}", wall.agent.log());
    let late = wall.agent.say(&["policy", "confirm"])?;
    ensure!(late.code == 1, "{late:?}");
    Ok(())
}

#[test]
fn an_agent_that_dies_leaves_it_to_the_next() -> Result<()> {
    let mut wall = open()?;
    let before = digest(&wall)?;
    try_out(&wall, LONG)?;
    wall.agent.kill()?;
    ensure!(!passes(&wall)?, "nobody is there to take it back");
    wall.agent.start(None)?;
    let status = wall.agent.status()?;
    ensure!(status["policy"]["digest"] == before && passes(&wall)?, "{status}");
    ensure!(warned(&status, "was not confirmed before the agent ended"), "{status}");
    // One that is asked to end takes it back first.
    try_out(&wall, LONG)?;
    ensure!(wall.agent.stop()? == 0);
    ensure!(passes(&wall)?, "it ended with its policy on trial");
    wall.agent.start(None)?;
    ensure!(digest(&wall)? == before && !warned(&wall.agent.status()?, "was not confirmed"));
    Ok(())
}

#[test]
fn a_rollback_takes_it_back_at_once() -> Result<()> {
    let wall = open()?;
    let before = digest(&wall)?;
    try_out(&wall, LONG)?;
    // Another trial takes its place; what is gone back to stays the same.
    let said = apply(&wall, &format!("{CLOSED}existing = \"cut\"\n"), &["--confirm", LONG])?;
    ensure!(said.code == 0, "{said:?}");
    ensure!(wall.agent.status()?["pending"]["back_to"]["digest"] == before);
    let said = wall.agent.say(&["policy", "rollback"])?;
    ensure!(said.code == 0, "{said:?}");
    ensure!(digest(&wall)? == before && wall.agent.status()?["pending"].is_null() && passes(&wall)?);
    for wrong in ["4s", "61m", "soon"] {
        let said = apply(&wall, CLOSED, &["--confirm", wrong])?;
        ensure!(said.code == 2, "{wrong}: {said:?}");
    }
    ensure!(digest(&wall)? == before);
    Ok(())
}

#[test]
fn a_policy_that_does_not_fit_changes_nothing() -> Result<()> {
    let wall = open()?;
    let before = wall.agent.status()?["policy"].clone();
    let rule = |index| format!("[[allow]]\nto = [\"10.0.{index}.1\"]\nfrom = [{{ user = {index} }}]\n");
    let rules: String = (0..256).map(rule).collect();
    for arguments in [&[][..], &["--confirm", LONG], &["--dry-run"]] {
        let said = apply(&wall, &format!("{CLOSED}{rules}"), arguments)?;
        ensure!(said.code == 3 && said.errors.contains("names 257 different workloads"), "{said:?}");
    }
    let status = wall.agent.status()?;
    ensure!(status["policy"] == before && status["pending"].is_null() && passes(&wall)?, "{status}");
    Ok(())
}

/// A connection from the far side to a server behind the wall.
struct Inbound {
    _server: Process,
    stream: TcpStream,
}

impl Inbound {
    fn begin(wall: &Wall) -> Result<Self> {
        let to = (NEAR_V4, 8080).into();
        let server = wall.start(&at("server.service"), Act::Serve { at: to, tcp: true })?;
        let stream = wall.network.far.run(|| TcpStream::connect(to)).context("connect to the server")?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut inbound = Self { _server: server, stream };
        inbound.exchange()?;
        Ok(inbound)
    }

    fn exchange(&mut self) -> Result<()> {
        let mut answer = [0; 5];
        self.stream.write_all(b"hello").context("send to the server")?;
        self.stream.read_exact(&mut answer).context("read from the server")
    }
}

/// What a dry run says of a policy, and how it exits.
fn rehearse(wall: &Wall, policy: &str) -> Result<(i32, Value)> {
    let said = apply(wall, policy, &["--dry-run", "--output", "json"])?;
    Ok((said.code, serde_json::from_str(&said.text).with_context(|| format!("{said:?}"))?))
}

#[test]
fn a_dry_run_lists_what_the_policy_would_cut_off() -> Result<()> {
    let mut wall = open()?;
    let before = digest(&wall)?;
    let to = address("10.0.3.7:5432");
    wall.echo(&[].into(), &[to].into())?;
    let mut held = wall.start(&at("app.service"), Act::Hold { to, tcp: true })?;
    let datagrams = wall.start(&at("udp.service").uid(65534), Act::Hold { to, tcp: false })?;
    let mut inbound = Inbound::begin(&wall)?;
    let cut = format!("{CLOSED}existing = \"cut\"\n");
    let audit = CLOSED.replace("enforce", "audit");
    for (policy, code, verdict, fates) in [
        (CLOSED, 1, "denied", ["kept", "refused"]),
        (&cut, 1, "denied", ["cut", "refused"]),
        (&audit, 0, "would-deny", ["reported", "reported"]),
    ] {
        let (exit, said) = rehearse(&wall, policy)?;
        let list = said["connections"].as_array().context("connections")?;
        ensure!(exit == code && list.len() == 2, "exit code {exit}: {said}");
        let of = |protocol: &str| {
            list.iter()
                .find(|line| line["protocol"] == protocol)
                .with_context(|| format!("{protocol}: {said}"))
        };
        for (line, process, unit, fate) in
            [(of("tcp")?, &held, "app.service", fates[0]), (of("udp")?, &datagrams, "udp.service", fates[1])]
        {
            let expected = [
                ("pid", process.pid().into()),
                ("unit", unit.into()),
                ("destination", "10.0.3.7:5432".into()),
                ("direction", "outbound".into()),
                ("verdict", verdict.into()),
                ("reason", "no-rule".into()),
                ("fate", Value::from(fate)),
                ("older", false.into()),
            ];
            for (key, value) in expected {
                ensure!(line[key] == value, "{key} is not {value}: {line}");
            }
            ensure!(line["exe"].as_str().is_some_and(|exe| exe.ends_with("/probe")), "{line}");
        }
    }
    let text = apply(&wall, CLOSED, &["--dry-run"])?;
    ensure!(
        text.code == 1 && text.text.contains("app.service") && text.text.contains("10.0.3.7:5432"),
        "{text:?}"
    );
    let (exit, said) = rehearse(&wall, OPEN)?;
    ensure!(exit == 0 && said["connections"].as_array().is_some_and(Vec::is_empty), "{said}");
    ensure!(digest(&wall)? == before && wall.agent.status()?["policy"]["generation"] == 1);
    ensure!(held.exchange()?.ok);
    // An apply says the same before it does it.
    let said = apply(&wall, CLOSED, &[])?;
    ensure!(said.code == 0 && said.errors.contains("refuses 2 of the connections"), "{said:?}");
    ensure!(held.exchange()?.ok, "existing = keep");
    inbound.exchange()
}

#[test]
fn going_from_audit_to_enforce_cuts_what_was_only_let_pass() -> Result<()> {
    let mut wall = Wall::raise(&CLOSED.replace("enforce", "audit"))?;
    let to = address("10.0.3.7:5432");
    wall.echo(&[to].into(), &[].into())?;
    let mut held = wall.start(&at("app.service"), Act::Hold { to, tcp: true })?;
    ensure!(held.exchange()?.ok);
    let (exit, said) = rehearse(&wall, CLOSED)?;
    ensure!(exit == 1 && said["connections"][0]["fate"] == "cut", "{said}");
    ensure!(apply(&wall, CLOSED, &[])?.code == 0);
    ensure!(!held.exchange()?.ok, "the dry run said otherwise");
    Ok(())
}

#[test]
fn connections_older_than_the_wall_are_found_and_cut_where_the_policy_says_so() -> Result<()> {
    let cut = format!("{CLOSED}existing = \"cut\"\n");
    let scoped = format!("{CLOSED}[[scope]]\nfrom = [{{ unit = \"cut.service\" }}]\nexisting = \"cut\"\n");
    let audit = cut.replace("enforce", "audit");
    let open = OPEN.replace("[[allow]]", "existing = \"cut\"\n[[allow]]");
    for (policy, who, refused, lives) in [
        (CLOSED, "app.service", true, true),
        (&cut, "app.service", true, false),
        (&scoped, "app.service", true, true),
        (&scoped, "cut.service", true, false),
        (&audit, "app.service", true, true),
        (&open, "app.service", false, true),
    ] {
        let mut wall = Wall::build()?;
        let to = address("10.0.3.7:5432");
        wall.echo(&[to].into(), &[].into())?;
        let mut old = wall.start(&at(who).uid(65534), Act::Hold { to, tcp: true })?;
        let mut inbound = Inbound::begin(&wall)?;
        ensure!(old.exchange()?.ok);
        wall.agent.start(Some(policy))?;
        let status = until(&wall, |status| status["older"].is_object())?;
        let (counted, ended) = (&status["older"]["refused"], &status["older"]["cut"]);
        ensure!(*counted == u64::from(refused) && *ended == u64::from(!lives), "{policy}: {who}: {status}");
        let report = old.exchange()?;
        ensure!(report.ok == lives, "{policy}: {who}: {report:?}");
        ensure!(lives || report.errno == Some(libc::ECONNABORTED), "it has to hear of it: {report:?}");
        if refused {
            let verdict = if lives { "would-deny" } else { "denied" };
            let alert = wall.agent.wait_for_alert(0, |alert| alert["process"]["pid"] == old.pid())?;
            let expected = [
                ("/kind", Value::from("egress.denied")),
                ("/verdict", verdict.into()),
                ("/reason", "no-rule".into()),
                ("/flow/destination", "10.0.3.7".into()),
                ("/workload/unit", who.into()),
                ("/process/uid", 65534.into()),
            ];
            for (pointer, value) in expected {
                ensure!(alert.pointer(pointer) == Some(&value), "{pointer} is not {value}: {alert}");
            }
        }
        inbound.exchange()?;
    }
    Ok(())
}
