//! What an operator sees: status, events, doctor.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, ensure};
use dnswall_tests::act::{Act, address, dns, tcp, udp};
use dnswall_tests::feature::Feature;
use dnswall_tests::mounted::Mounted;
use dnswall_tests::pace::within;
use dnswall_tests::resolver::{FOREIGN, RESOLVER};
use dnswall_tests::wall::Wall;
use dnswall_tests::who::at;
use serde_json::Value;

const POLICY: &str = r#"
version = 1
mode = "enforce"
[dns]
resolvers = ["169.254.169.253"]
[[allow]]
name = "database"
to = ["10.0.3.0/24"]
ports = ["tcp/5432"]
"#;

#[test]
fn status_counts_by_rule_and_reason() -> Result<()> {
    let mut wall = Wall::raise(POLICY)?;
    wall.echo(&[address("10.0.3.7:5432")].into(), &[].into())?;
    let app = at("app.service");
    let before = wall.agent.status()?;
    for _ in 0..3 {
        ensure!(wall.run(&app, tcp("10.0.3.7:5432"))?.ok);
        ensure!(wall.run(&app, dns(RESOLVER))?.ok);
        ensure!(wall.run(&app, udp("10.0.3.7:5432"))?.is_refused());
        ensure!(wall.run(&app, tcp("10.0.3.7:80"))?.is_refused());
    }
    let after = wall.agent.status()?;
    let rule =
        |name: &str, key: &str| counted(&after, "rules", name, key) - counted(&before, "rules", name, key);
    ensure!(rule("allow.database", "allowed") == 3, "{}", after["rules"]);
    ensure!(rule("dns.resolvers", "allowed") == 3, "{}", after["rules"]);
    ensure!(rule("default", "denied") == 6, "{}", after["rules"]);
    let reason =
        counted(&after, "reasons", "no-rule", "denied") - counted(&before, "reasons", "no-rule", "denied");
    ensure!(reason == 6, "{}", after["reasons"]);
    ensure!(after["mode"] == "enforce" && after["policy"]["generation"].as_u64() > Some(0));
    ensure!(
        after["cgroup"]["path"] == wall.tree.directory().to_string_lossy().as_ref(),
        "{}",
        after["cgroup"]
    );
    let text = wall.agent.say(&["status"])?;
    ensure!(text.code == 0 && text.text.contains("enforcing") && text.text.contains("database"), "{text:?}");
    Ok(())
}

#[test]
fn every_refusal_is_delivered_or_counted() -> Result<()> {
    let wall = Wall::raise(POLICY)?;
    let flood =
        wall.start(&at("app.service"), Act::Flood { to: vec![address("10.0.4.7:99")], one_socket: false })?;
    let pid = flood.pid();
    thread::sleep(Duration::from_millis(2500));
    let refused = flood.finish()?.counts[0].1;
    // What was suppressed in the last second is reported when the flow has been quiet.
    let until = Instant::now() + within(Duration::from_secs(20));
    loop {
        let told: u64 = wall
            .agent
            .alerts()?
            .iter()
            .filter(|alert| alert["process"]["pid"] == pid)
            .filter_map(|alert| alert["count"].as_u64())
            .sum();
        let status = wall.agent.status()?;
        if told == refused {
            let sent = status["counters"]["events-sent"].as_u64().unwrap_or_default();
            let suppressed = status["counters"]["events-suppressed"].as_u64().unwrap_or_default();
            // The kernel counts what the agent itself tries as well.
            let own = status["counters"]["refusals-of-the-proof"].as_u64().context("the proof's own")?;
            ensure!(sent + suppressed == refused + own, "{refused} refused: {}", status["counters"]);
            ensure!(counted(&status, "rules", "default", "denied") == refused + own, "{}", status["rules"]);
            println!("{refused} refusals in {sent} events");
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "{refused} refused, alerts account for {told}: {}",
            status["counters"]
        );
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn what_was_alerted_is_found_again() -> Result<()> {
    let mut wall = Wall::raise(POLICY)?;
    let before = date_now()?;
    for (unit, act) in [("web.service", tcp("198.51.100.1:443")), ("db.service", udp("198.51.100.2:9"))] {
        ensure!(wall.run(&at(unit), act)?.is_refused(), "{unit}");
    }
    ensure!(wall.run(&at("db.service"), dns(FOREIGN))?.is_refused(), "the resolver");
    let found = |more: &[&str]| -> Result<Vec<Value>> {
        let said = wall.agent.say(&[&["events", "--output", "json"], more].concat())?;
        ensure!(said.code == 0, "{more:?}: {said:?}");
        said.text.lines().map(|line| serde_json::from_str(line).context("read an alert")).collect()
    };
    let until = Instant::now() + within(Duration::from_secs(10));
    while found(&[])?.len() < 3 {
        ensure!(Instant::now() < until, "{:?}", found(&[])?);
        thread::sleep(Duration::from_millis(50));
    }
    let foreign = FOREIGN.to_string();
    let cases: [(&[&str], usize); 10] = [
        (&["--kind", "dns.*"], 1),
        (&["--kind", "egress.denied"], 2),
        (&["--severity", "medium"], 1),
        (&["--workload", "db*"], 2),
        (&["--workload", "db*", "--kind", "egress.*"], 1),
        (&["--rule", "default"], 3),
        (&["--rule", "allow.*"], 0),
        (&["--name", foreign.as_str()], 1),
        (&["--since", "1h", "-n", "2"], 2),
        (&["--until", before.as_str()], 0),
    ];
    for (more, count) in cases {
        let alerts = found(more)?;
        ensure!(alerts.len() == count, "{more:?}: {alerts:?}");
    }
    for wrong in [["--since", "yesterday"], ["--severity", "bad"]] {
        let said = wall.agent.say(&[&["events"], wrong.as_slice()].concat())?;
        ensure!(said.code == 1 && said.errors.contains(wrong[1]), "{said:?}");
    }

    // The next agent has them, too, and those that follow are filtered like those before.
    wall.agent.stop()?;
    wall.agent.start(None)?;
    ensure!(wall.agent.say(&["events", "--workload", "web*"])?.text.lines().count() == 2, "after a restart");
    let arguments = ["events", "--follow", "--workload", "web*", "--output", "json"];
    let mut child = wall.agent.command(&arguments).stdout(Stdio::piped()).spawn().context("follow events")?;
    let mut lines = BufReader::new(child.stdout.take().context("take the output")?);
    let mut line = String::new();
    lines.read_line(&mut line)?;
    ensure!(line.contains("198.51.100.1"), "{line}");
    for (unit, to) in [("db.service", "198.51.100.3:9"), ("web.service", "198.51.100.4:9")] {
        wall.run(&at(unit), udp(to))?;
    }
    line.clear();
    lines.read_line(&mut line)?;
    ensure!(line.contains("198.51.100.4"), "{line}");
    child.kill()?;
    child.wait()?;
    Ok(())
}

#[test]
fn what_is_muted_is_refused_and_counted() -> Result<()> {
    let mut wall = Wall::prepare()?;
    let config = fs::read_to_string(wall.agent.config_path())?;
    let mutes = "[[mute]]\nreason = \"known\"\nuntil = \"2099-12-31\"\nworkload = \"db*\"\n\
                 [[mute]]\nreason = \"was\"\nuntil = \"2020-12-31\"\nworkload = \"web*\"\n";
    fs::write(wall.agent.config_path(), config + mutes)?;
    wall.agent.start(Some(POLICY))?;
    for unit in ["db.service", "web.service"] {
        ensure!(wall.run(&at(unit), udp("198.51.100.1:9"))?.is_refused(), "{unit}");
    }
    wall.agent.wait_for_alert(0, |alert| alert["workload"]["unit"] == "web.service")?;
    let until = Instant::now() + within(Duration::from_secs(10));
    let muted = loop {
        let status = wall.agent.status()?;
        if status["mutes"][0]["alerts"] == 1 || Instant::now() > until {
            break status;
        }
        thread::sleep(Duration::from_millis(50));
    };
    ensure!(
        muted["mutes"][0]["refusals"] == 1 && muted["mutes"][0]["is_over"] == false,
        "{:#}",
        muted["mutes"]
    );
    ensure!(muted["mutes"][1]["alerts"] == 0 && muted["mutes"][1]["is_over"] == true, "{:#}", muted["mutes"]);
    ensure!(muted["warnings"].to_string().contains("a [[mute]] was until"), "{:#}", muted["warnings"]);
    let alerts = wall.agent.alerts()?;
    ensure!(alerts.iter().all(|alert| alert["workload"]["unit"] != "db.service"), "{alerts:?}");
    Ok(())
}

#[test]
fn what_is_muted_stays_muted_when_the_agent_is_killed() -> Result<()> {
    let mut wall = Wall::prepare()?;
    let config = fs::read_to_string(wall.agent.config_path())?;
    // The kernel does not keep by which rule it refused.
    let mute = "[[mute]]\nreason = \"known\"\nuntil = \"2099-12-31\"\nrule = \"default\"\n";
    fs::write(wall.agent.config_path(), config + mute)?;
    wall.agent.start(Some(POLICY))?;
    ensure!(wall.run(&at("db.service"), udp("198.51.100.1:9"))?.is_refused());
    let until = Instant::now() + within(Duration::from_secs(10));
    while wall.agent.status()?["mutes"][0]["alerts"] != 1 {
        ensure!(Instant::now() < until, "it is not muted");
        thread::sleep(Duration::from_millis(50));
    }
    // Up to where is told is saved within a second.
    thread::sleep(within(Duration::from_secs(2)));
    wall.agent.kill()?;
    wall.agent.start(None)?;
    // What the one before left is told with the first counts.
    thread::sleep(within(Duration::from_secs(3)));
    let alerts = wall.agent.alerts()?;
    ensure!(alerts.iter().all(|alert| alert["workload"]["unit"] != "db.service"), "{alerts:?}");
    Ok(())
}

/// As the commands write it.
fn date_now() -> Result<String> {
    let output = std::process::Command::new("date").args(["--utc", "+%FT%TZ"]).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[test]
fn events_are_followed_live() -> Result<()> {
    let wall = Wall::raise(POLICY)?;
    let said = wall.agent.say(&["events"])?;
    ensure!(said.code == 0 && said.text.is_empty() && said.errors.starts_with("no alert yet"), "{said:?}");
    let said = wall.agent.say(&["events", "--output", "json"])?;
    ensure!(said.code == 0 && said.text.is_empty() && said.errors.is_empty(), "{said:?}");
    let app = at("app.service");
    ensure!(wall.run(&app, udp("10.0.4.7:98"))?.is_refused());
    wall.agent.wait_for_alert(0, |alert| alert["flow"]["destination_port"] == 98)?;
    let mut follow = wall.agent.command(&["events", "--follow", "--output", "json"]);
    let mut child = follow.stdout(Stdio::piped()).spawn().context("follow events")?;
    let lines = BufReader::new(child.stdout.take().context("take its output")?);
    let (sender, receiver) = std::sync::mpsc::channel();
    thread::spawn(move || lines.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    thread::sleep(within(Duration::from_millis(500)));
    ensure!(wall.run(&app, udp("10.0.4.7:99"))?.is_refused());
    let found = loop {
        let line = receiver.recv_timeout(within(Duration::from_secs(5))).context("no such event")?;
        let event: Value = serde_json::from_str(&line).with_context(|| format!("read {line}"))?;
        if event["flow"]["destination_port"] == 99 {
            break event;
        }
    };
    child.kill()?;
    child.wait()?;
    ensure!(found["workload"]["unit"] == "app.service", "{found}");
    // Those in memory, as a person reads them.
    let said = wall.agent.say(&["events"])?;
    ensure!(
        said.code == 0 && said.text.contains("10.0.4.7") && said.text.contains("app.service"),
        "{said:?}"
    );
    Ok(())
}

#[test]
fn the_control_socket_is_for_its_owner() -> Result<()> {
    let wall = Wall::raise(POLICY)?;
    let mode = fs::metadata(wall.agent.socket())?.permissions().mode();
    ensure!(mode & 0o777 == 0o600, "{mode:o}");
    // Whoever gets at it by its path anyway is asked who it is.
    fs::set_permissions(wall.agent.socket(), fs::Permissions::from_mode(0o666))?;
    fs::set_permissions(wall.scratch(""), fs::Permissions::from_mode(0o755))?;
    let curl = PathBuf::from("/usr/bin/curl");
    if curl.is_file() {
        let socket = wall.agent.socket().to_string_lossy().into_owned();
        let arguments = ["-sS", "-w", "%{http_code}", "--unix-socket", &socket, "http://localhost/v1/status"];
        let act = Act::Launch { program: curl, arguments: arguments.map(String::from).to_vec() };
        let (text, _) = wall.output(&at("app.service").uid(65534), act.clone())?;
        ensure!(text.ends_with("403"), "{text}");
        let (text, _) = wall.output(&at("app.service"), act)?;
        ensure!(text.ends_with("200"), "{text}");
    }
    Ok(())
}

#[test]
fn an_alert_names_a_process_in_full() -> Result<()> {
    let wall = Wall::raise(POLICY)?;
    let who = at("system.slice/app.service/worker").uid(65534);
    let (_, process) = wall.attempt(&who, dns(FOREIGN))?;
    let alert = wall.agent.wait_for_alert(0, |alert| alert["process"]["pid"] == process.pid())?;
    let status = wall.agent.status()?;
    let expected = [
        ("/schema", Value::from(1)),
        ("/kind", "dns.direct".into()),
        ("/policy/digest", status["policy"]["digest"].clone()),
        ("/policy/generation", status["policy"]["generation"].clone()),
        ("/flow/protocol", "udp".into()),
        ("/flow/destination", FOREIGN.to_string().into()),
        ("/flow/destination_port", 53.into()),
        ("/process/user", "nobody".into()),
        ("/process/uid", 65534.into()),
        ("/process/exe", wall.probe().to_string_lossy().into()),
        ("/process/parent/pid", std::process::id().into()),
        ("/workload/unit", "app.service".into()),
        ("/workload/slice", "system.slice".into()),
        ("/workload/container", Value::Null),
        ("/count", 1.into()),
    ];
    for (pointer, value) in expected {
        ensure!(alert.pointer(pointer) == Some(&value), "{pointer} is not {value}: {alert}");
    }
    for text in ["/time", "/id", "/first", "/last", "/host", "/process/start"] {
        ensure!(alert.pointer(text).is_some_and(|value| !value.is_null()), "{text}: {alert}");
    }
    let command_line = alert["process"]["command_line"].to_string();
    ensure!(command_line.contains("probe"), "{alert}");
    Ok(())
}

/// Whoever has a file system of its own can make everybody wait who reads its command line.
#[test]
fn a_process_that_does_not_answer_keeps_nobodys_alert_back() -> Result<()> {
    if !Feature::Fuse.is_here()? {
        println!("not run: {}", Feature::Fuse.name());
        return Ok(());
    }
    let wall = Wall::raise(POLICY)?;
    let silent = wall.scratch("silent");
    fs::write(&silent, "")?;
    let _mounted = Mounted::by_another(silent.clone());
    // Ended in the other order: who waits for the file is not ended before that.
    let mut stalled = None;
    let server = wall.start(&at("server.service"), Act::KeepSilent { at: silent.clone() })?;
    let act = Act::Stall { file: silent, to: address("198.51.100.9:9000") };
    let stalled = stalled.insert(wall.start(&at("stalled.service"), act)?);
    let alert = wall.agent.wait_for_alert(0, |alert| alert["process"]["pid"] == stalled.pid())?;
    ensure!(alert["process"]["command_line"].is_null(), "it answered: {alert}");
    ensure!(alert["process"]["exe"] == *wall.probe().to_string_lossy(), "{alert}");
    let told = wall.agent.alerts()?.len();
    let begun = Instant::now();
    let (_, process) = wall.attempt(&at("app.service"), udp("198.51.100.9:9000"))?;
    let alert = wall.agent.wait_for_alert(told, |alert| alert["process"]["pid"] == process.pid())?;
    ensure!(begun.elapsed() < within(Duration::from_secs(2)), "{:?}", begun.elapsed());
    ensure!(alert["process"]["command_line"].to_string().contains("probe"), "{alert}");
    waits(&wall, 1)?;
    drop(server);
    waits(&wall, 0)
}

/// Until the agent says that so many of its threads wait for another process.
fn waits(wall: &Wall, threads: u64) -> Result<()> {
    let until = Instant::now() + within(Duration::from_secs(10));
    loop {
        let stuck = wall.agent.status()?["counters"]["process-reads-stuck"].as_u64();
        if stuck == Some(threads) {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{stuck:?} threads wait, not {threads}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn doctor_says_what_is_enforced_here() -> Result<()> {
    let wall = Wall::build()?;
    let (code, said) = wall.agent.ask(&["doctor"])?;
    ensure!(code == 0 || code == 4, "{said}");
    let text = wall.agent.say(&["doctor"])?;
    ensure!(text.code == code && text.text.contains("cgroup"), "{text:?}");
    ensure!(code == 0, "this host runs these tests, and doctor says that it cannot: {}", text.text);
    Ok(())
}

#[test]
fn explain_knows_a_unit_by_name() -> Result<()> {
    let wall = Wall::raise(POLICY)?;
    let ask = |to: &str, port: &str| {
        wall.agent.ask(&["policy", "explain", "--from", "unit:orders.service", "--to", to, "--port", port])
    };
    let (code, said) = ask("10.0.3.7", "tcp/5432")?;
    ensure!(code == 0 && said["verdict"] == "allow" && said["rule"] == "allow.database", "{said}");
    let (code, said) = ask("10.0.3.7", "tcp/5433")?;
    ensure!(code == 1 && said["verdict"] == "deny" && said["rule"] == "default", "{said}");
    Ok(())
}

/// One counter of one line of a table in the status.
fn counted(status: &Value, table: &str, name: &str, key: &str) -> u64 {
    let lines = status[table].as_array().map(Vec::as_slice).unwrap_or_default();
    lines.iter().filter(|line| line["name"] == name).filter_map(|line| line[key].as_u64()).sum()
}
