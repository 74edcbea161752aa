//! What is told of questions that are no alert: `dnswall events --dns`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use dnswall_tests::act::{Act, MessageBy, Report};
use dnswall_tests::ask::{asked, message, wire};
use dnswall_tests::pace::within;
use dnswall_tests::process::Process;
use dnswall_tests::resolver::Dnsmasq;
use dnswall_tests::wall::Wall;
use dnswall_tests::who::at;
use dnswall_tests::zone::{Follow, Kind, ZONE, ZONE_V6};
use serde_json::Value;

/// `events` follows.
const POLICY: &str = r#"
version = 1
mode = "enforce"
[[dns.stub]]
address = "127.0.0.1"
from = [{ unit = "stub.service" }]
[[deny]]
name = "never"
to = ["*.never.example"]
[[scope]]
name = "only looked at"
from = [{ unit = "audited.service" }]
mode = "audit"
[dns]
resolvers = ["203.0.113.77", "fd00:ec2::77", "169.254.169.253", "203.0.113.200"]
"#;

/// The stub, inside the wall.
const STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));

/// A wall with a server of the made-up zone at the far side.
fn raise(events: &str) -> Result<(Wall, Process)> {
    let mut wall = Wall::prepare()?;
    let zone = wall.zone()?;
    wall.agent.start_inside(wall.network.near.path());
    wall.agent.start(Some(&format!("{POLICY}{events}\n")))?;
    Ok((wall, zone))
}

/// Names of the zone, which are only asked for.
fn names(kind: Kind, first: u32, count: u32) -> Follow {
    Follow::asks(kind, "app.example", first, count)
}

/// Asks, in this unit.
fn ask(wall: &Wall, unit: &str, follow: Follow) -> Result<(Report, u32)> {
    let (report, process) = wall.attempt(&at(unit), Act::Follow(follow))?;
    Ok((report, process.pid()))
}

/// Everything told so far, once there is `wanted` of it that `is_it`.
fn told(wall: &Wall, wanted: usize, is_it: impl Fn(&Value) -> bool) -> Result<Vec<Value>> {
    let until = Instant::now() + within(Duration::from_secs(10));
    loop {
        let said = wall.agent.say(&["events", "--dns", "--last", "1000", "--output", "json"])?;
        ensure!(said.code == 0, "{said:?}");
        let records: Vec<Value> = said
            .text
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
            .collect::<Result<_>>()?;
        ensure!(records.iter().all(|record| record["tries"].is_u64()), "no records: {records:#?}");
        let those: Vec<Value> = records.iter().filter(|record| is_it(record)).cloned().collect();
        if those.len() >= wanted {
            return Ok(those);
        }
        if Instant::now() > until {
            let counters = wall.agent.status()?["counters"].clone();
            bail!("{} of {wanted}: {records:#?}\n{counters:#}", those.len());
        }
        thread::sleep(Duration::from_millis(100));
    }
}

fn is_of(unit: &str) -> impl Fn(&Value) -> bool {
    move |record| record["workload"]["unit"] == unit
}

#[test]
fn every_question_is_told_with_who_asked_and_what_came_back() -> Result<()> {
    let (wall, _zone) = raise("events = \"all\"")?;
    let (report, pid) = ask(&wall, "app.service", names(Kind::Host, 7, 1))?;
    ensure!(report.tallies.first().is_some_and(|asked| asked.ok == 1), "{report:?}");
    let [record] = &told(&wall, 1, is_of("app.service"))?[..] else { bail!("one record") };
    let dns = &record["dns"];
    ensure!(dns["name"] == "host-60-7.app.example" && dns["type"] == "A", "{record}");
    ensure!(dns["resolver"] == ZONE.to_string() && dns["protocol"] == "udp", "{record}");
    ensure!(record["verdict"] == "allowed" && record["reason"] == Value::Null, "{record}");
    ensure!(record["process"]["pid"] == pid && record["process"]["comm"] == "probe", "{record}");
    let answer = &record["answer"];
    ensure!(answer["code"] == "NOERROR", "{record}");
    ensure!(answer["addresses"] == serde_json::json!([Kind::Host.address(7, false).to_string()]), "{record}");
    ensure!(answer["latency_us"].as_u64().is_some_and(|us| (1..5_000_000).contains(&us)), "{record}");
    ensure!(answer["bytes"].as_u64().is_some_and(|bytes| (40..200).contains(&bytes)), "{record}");

    let ways = [
        ("v6.service", Follow { v6: Some(true), ..names(Kind::Alias, 9, 1) }),
        ("tcp.service", Follow { tcp: true, ..names(Kind::Many, 9, 1) }),
        ("over6.service", Follow { server: SocketAddr::new(ZONE_V6, 53), ..names(Kind::Host, 9, 1) }),
    ];
    for (unit, follow) in ways {
        ask(&wall, unit, follow)?;
    }
    let [v6, over_tcp, over6] = ["v6.service", "tcp.service", "over6.service"]
        .map(|unit| told(&wall, 1, is_of(unit)).map(|records| records[0].clone()));
    let v6 = v6?;
    ensure!(v6["dns"]["type"] == "AAAA", "{v6}");
    ensure!(v6["answer"]["aliases"].as_array().is_some_and(|aliases| aliases.len() == 3), "{v6}");
    ensure!(v6["answer"]["addresses"][0] == Kind::Alias.address(9, true).to_string(), "{v6}");
    let over_tcp = over_tcp?;
    ensure!(over_tcp["dns"]["protocol"] == "tcp", "{over_tcp}");
    ensure!(over_tcp["answer"]["addresses"].as_array().is_some_and(|all| all.len() == 20), "{over_tcp}");
    let over6 = over6?;
    ensure!(
        over6["dns"]["resolver"] == ZONE_V6.to_string() && over6["answer"]["code"] == "NOERROR",
        "{over6}"
    );

    // A name that is not there, one that is refused, one that is only looked at, and one that nobody answers.
    let question = |name: &str| message(&wire(name), 16, &[]);
    let to = |address: [u8; 4], name: &str| Act::Message {
        server: SocketAddr::new(Ipv4Addr::from(address).into(), 53),
        message: question(name),
        by: MessageBy::Datagram,
    };
    wall.run(&at("nowhere.service"), to([203, 0, 113, 77], "nowhere.example"))?;
    wall.run(&at("denied.service"), to([203, 0, 113, 77], "x.never.example"))?;
    wall.run(&at("audited.service"), to([203, 0, 113, 77], "y.never.example"))?;
    wall.run(&at("silent.service"), to([203, 0, 113, 200], "silent.example"))?;
    wall.run(&at("direct.service"), to([198, 51, 100, 53], "direct.example"))?;
    let one = |unit: &str| told(&wall, 1, is_of(unit)).map(|records| records[0].clone());
    let nowhere = one("nowhere.service")?;
    ensure!(nowhere["answer"]["code"] == "NXDOMAIN" && nowhere["dns"]["type"] == "TXT", "{nowhere}");
    let denied = one("denied.service")?;
    ensure!(denied["verdict"] == "denied" && denied["rule"] == "deny.never", "{denied}");
    ensure!(denied["reason"] == "denied-name" && denied["answer"] == Value::Null, "{denied}");
    let audited = one("audited.service")?;
    ensure!(audited["verdict"] == "would-deny" && audited["answer"]["code"] == "NXDOMAIN", "{audited}");
    let direct = one("direct.service")?;
    ensure!(direct["verdict"] == "denied" && direct["reason"] == "no-rule", "{direct}");
    ensure!(direct["dns"]["name"] == "direct.example", "{direct}");
    let silent = one("silent.service")?;
    ensure!(silent["verdict"] == "allowed" && silent["answer"] == Value::Null, "{silent}");

    let said = wall.agent.say(&["events", "--dns", "--last", "1000"])?;
    ensure!(said.code == 0 && said.text.contains("  A     host-60-7.app.example"), "{said:?}");
    Ok(())
}

#[test]
fn a_stub_in_between_is_told_of_as_well() -> Result<()> {
    let (wall, _zone) = raise("events = \"all\"")?;
    let cgroup = wall.tree.child("stub.service")?;
    let _stub = Dnsmasq::forward(wall.probe(), &wall.network.near, Some(cgroup), &[STUB], ZONE)?;
    let through = Follow { server: SocketAddr::new(STUB, 53), ..names(Kind::Host, 3, 1) };
    ask(&wall, "app.service", through.clone())?;
    ask(&wall, "app.service", Follow { tcp: true, first: 4, ..through })?;
    let asked = told(&wall, 2, is_of("app.service"))?;
    for (record, protocol) in asked.iter().zip(["udp", "tcp"]) {
        ensure!(record["dns"]["resolver"] == STUB.to_string(), "{record}");
        ensure!(record["dns"]["protocol"] == protocol && record["answer"]["code"] == "NOERROR", "{record}");
    }
    let of_stub = told(&wall, 2, is_of("stub.service"))?;
    ensure!(of_stub.iter().all(|record| record["dns"]["resolver"] == ZONE.to_string()), "{of_stub:#?}");
    Ok(())
}

#[test]
fn the_policy_says_how_much_is_told() -> Result<()> {
    let (wall, _zone) = raise("events = \"denied\"")?;
    ask(&wall, "app.service", names(Kind::Host, 0, 20))?;
    let never = |name: &str| asked(&message(&wire(name), 1, &[]), MessageBy::Datagram);
    wall.run(&at("app.service"), never("x.never.example"))?;
    let records = told(&wall, 1, |_| true)?;
    ensure!(records.iter().all(|record| record["verdict"] == "denied"), "{records:#?}");

    // One in ten, with its answer; what is refused is told all the same.
    let sampled = format!("{POLICY}events = \"sampled\"\nsample = 10\n");
    ensure!(wall.agent.apply(&sampled)?.code == 0, "apply");
    let before = told(&wall, 0, |_| true)?.len();
    ask(&wall, "app.service", names(Kind::Host, 0, 1_000))?;
    wall.run(&at("app.service"), never("y.never.example"))?;
    let denied = told(&wall, 2, |record| record["verdict"] == "denied")?;
    ensure!(denied.last().is_some_and(|last| last["dns"]["name"] == "y.never.example"), "{denied:#?}");
    let all = told(&wall, before + 1, |_| true)?;
    let allowed: Vec<_> = all.iter().filter(|record| record["verdict"] == "allowed").collect();
    ensure!((40..200).contains(&allowed.len()), "{} of 1000", allowed.len());
    ensure!(allowed.iter().all(|record| record["answer"]["code"] == "NOERROR"), "{allowed:#?}");

    ensure!(wall.agent.apply(&format!("{POLICY}events = \"off\"\n"))?.code == 0, "apply");
    let off = wall.agent.say(&["events", "--dns"])?;
    ensure!(off.code == 1 && off.errors.contains("tells of no questions"), "{off:?}");
    Ok(())
}

#[test]
fn what_does_not_fit_is_counted() -> Result<()> {
    const QUESTIONS: u32 = 9_000;
    let (mut wall, _zone) = raise("events = \"all\"")?;
    let count = |wall: &Wall, name: &str| {
        wall.agent.status()?["counters"][name].as_u64().with_context(|| format!("counter {name}"))
    };
    // Nobody reads, and the ring is full before all are asked.
    wall.agent.kill()?;
    let (report, _) = ask(&wall, "app.service", names(Kind::Host, 0, QUESTIONS))?;
    let asked = report.tallies.first().context("a tally")?;
    ensure!(asked.ok == u64::from(QUESTIONS), "{asked:?}");
    wall.agent.start(None)?;
    let until = Instant::now() + within(Duration::from_secs(20));
    loop {
        let (sent, lost) = (count(&wall, "questions-told")?, count(&wall, "questions-lost")?);
        ensure!(lost > 0, "nothing was lost: {sent} told");
        ensure!(sent + lost == 2 * u64::from(QUESTIONS), "{sent} told and {lost} lost of {QUESTIONS}");
        let records = count(&wall, "dns-records")?;
        let unasked = count(&wall, "dns-answers-unasked")?;
        let unanswered = count(&wall, "dns-questions-unanswered")?;
        // Each event is a question or its answer.
        if 2 * (records - unanswered) + unanswered + unasked == sent {
            return Ok(());
        }
        let status = wall.agent.status()?["counters"].clone();
        ensure!(Instant::now() < until, "{sent} told, {lost} lost: {status}");
        thread::sleep(Duration::from_millis(200));
    }
}
