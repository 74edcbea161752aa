//! Rules that lead to names: an address counts for who asked for such a name, as long as the answer said, and for nobody else.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dnswall_agent::demo::netns::Namespace;
use dnswall_common::named::GRACE_SECS;
use dnswall_common::{ABI_VERSION, TRIAL_ABI_OFFSET};
use dnswall_tests::act::{Act, Report, Tally, TcpBy, tcp};
use dnswall_tests::place::{self, Trial};
use dnswall_tests::process::Process;
use dnswall_tests::resolver::{Dnsmasq, Unbound};
use dnswall_tests::wall::Wall;
use dnswall_tests::who::at;
use dnswall_tests::zone::{Follow, Kind, PORT, ZONE, ZONE_V6};

const POLICY: &str = r#"
version = 1
mode = "enforce"
[dns]
resolvers = ["203.0.113.77", "fd00:ec2::77"]
[[dns.stub]]
address = "127.0.0.1"
from = [{ unit = "stub.service" }]
[[dns.stub]]
address = "127.0.0.2"
from = [{ unit = "stub.service" }]
[[deny]]
name = "never"
to = ["*.never.app.example", "host-60-7.app.example"]
[[deny]]
name = "not there"
to = ["*.app.example"]
ports = ["tcp/8444"]
[[allow]]
name = "app"
to = ["*.app.example", "host-60-5.exact.example"]
ports = ["tcp/8443-8444"]
from = [{ unit = "app.service" }]
[[allow]]
name = "everyone"
to = ["*.everyone.example"]
ports = ["tcp/8443"]
[[allow]]
name = "inside"
to = ["*.inside.example"]
answers = ["10.0.9.0/24"]
ports = ["tcp/8443"]
"#;

/// The stub, inside the wall.
const STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
/// Where somebody else answers that says it is the stub.
const IMPOSTOR: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// A wall whose agent runs where the workloads do, and a server of the made-up zone at the far side.
fn raise(policy: &str) -> Result<(Wall, Process)> {
    let mut wall = Wall::prepare()?;
    let zone = wall.zone()?;
    wall.agent.start_inside(wall.network.near.path());
    wall.agent.start(Some(policy))?;
    Ok((wall, zone))
}

/// One name below `app.example`.
fn one(kind: Kind, number: u32) -> Follow {
    Follow { ports: vec![PORT], ..Follow::asks(kind, "app.example", number, 1) }
}

/// What came of the questions, and of the connections.
fn follow(wall: &Wall, unit: &str, follow: &Follow) -> Result<(Tally, Tally)> {
    tallies(wall.run(&at(unit), Act::Follow(follow.clone()))?)
}

fn tallies(report: Report) -> Result<(Tally, Tally)> {
    let [asked, went] = <[Tally; 2]>::try_from(report.tallies).ok().context("two tallies")?;
    Ok((asked, went))
}

fn all_went(follow: &Follow, (asked, went): &(Tally, Tally)) -> Result<()> {
    let connections = u64::from(follow.count) * follow.ports.len() as u64;
    ensure!(
        asked.ok == u64::from(follow.count) && went.ok == connections,
        "{follow:?}\nasked {asked:?}\nwent {went:?}"
    );
    Ok(())
}

fn none_went(follow: &Follow, (_, went): &(Tally, Tally)) -> Result<()> {
    let connections = u64::from(follow.count) * follow.ports.len() as u64;
    ensure!(went.refused == connections, "{follow:?}\nwent {went:?}");
    Ok(())
}

#[test]
fn who_asks_may_go_where_the_answer_leads() -> Result<()> {
    let (wall, _zone) = raise(POLICY)?;
    let to = |number: u8| tcp(&format!("8.8.9.{}:8443", number + 1));
    let before = wall.run(&at("app.service"), to(20))?;
    ensure!(before.is_refused(), "before it asked: {before:?}");
    // A number of its own for each: what one way has taught must not open another.
    let mut numbers = (20..).step_by(20);
    for kind in [Kind::Host, Kind::Plain, Kind::Many, Kind::Alias, Kind::PlainAlias] {
        for (v6, over_tcp, server) in [
            (false, false, ZONE),
            (true, false, ZONE),
            (false, true, ZONE_V6),
            (true, true, ZONE),
            (true, false, ZONE_V6),
        ] {
            let server = SocketAddr::new(server, 53);
            // There are but 250 addresses of IPv4: five kinds, twice, and none of them twenty numbers long twice.
            let number = numbers.next().context("a number")?;
            let names = Follow { v6: Some(v6), tcp: over_tcp, server, ..one(kind, number) };
            let to = Act::Tcp { to: SocketAddr::new(kind.address(number, v6), PORT), by: TcpBy::Connect };
            if v6 {
                ensure!(wall.run(&at("app.service"), to)?.is_refused(), "before it asked: {names:?}");
            }
            all_went(&names, &follow(&wall, "app.service", &names)?)?;
        }
    }
    let everyone = Follow { zone: "a.everyone.example".to_owned(), v6: Some(true), ..one(Kind::Host, 9_000) };
    all_went(&everyone, &follow(&wall, "app.service", &everyone)?)?;
    let to = Act::Tcp { to: SocketAddr::new(Kind::Host.address(9_000, true), PORT), by: TcpBy::Connect };
    let other = wall.run(&at("other.service"), to.clone())?;
    ensure!(other.is_refused(), "the rule is for everyone, the address for who asked: {other:?}");
    let other = wall.run(&at("other.service/below"), to)?;
    ensure!(other.is_refused(), "{other:?}");
    let alert = wall.agent.wait_for_alert(0, |alert| {
        alert["reason"] == "name-unknown" && alert["workload"]["unit"] == "other.service"
    });
    alert.context("an alert that says so")?;
    let exact = Follow { zone: "exact.example".to_owned(), ..one(Kind::Host, 5) };
    all_went(&exact, &follow(&wall, "app.service", &exact)?)?;
    for elsewhere in [
        Follow { zone: "exact.example".to_owned(), ..one(Kind::Host, 6) },
        Follow { zone: "app.example.org".to_owned(), ..one(Kind::Host, 7) },
        Follow { zone: "xapp.example".to_owned(), ..one(Kind::Host, 8) },
        // Where it leads there is no rule for the port.
        Follow { ports: vec![8442, 53, 853], ..one(Kind::Host, 9) },
    ] {
        none_went(&elsewhere, &follow(&wall, "app.service", &elsewhere)?)?;
    }
    let alert = wall.agent.wait_for_alert(0, |alert| alert["reason"] == "name-unknown");
    alert.context("an alert that says that no name led there")?;
    Ok(())
}

#[test]
fn what_is_refused_by_name_is_neither_asked_nor_reached() -> Result<()> {
    let (wall, _zone) = raise(POLICY)?;
    for (names, rule) in [
        (Follow { zone: "a.never.app.example".to_owned(), ..one(Kind::Host, 30) }, "deny.never"),
        (one(Kind::Host, 7), "deny.never"),
    ] {
        let (asked, went) = follow(&wall, "app.service", &names)?;
        ensure!((asked.refused, went.refused) == (1, 1), "{names:?}: {asked:?} {went:?}");
        let name = names.kind.name(names.ttl, names.first, &names.zone);
        let is_it = |alert: &serde_json::Value| {
            alert["kind"] == "dns.name" && alert["reason"] == "denied-name" && alert["dns"]["name"] == *name
        };
        let alert = wall.agent.wait_for_alert(0, is_it)?;
        ensure!(alert["rule"] == rule, "{alert}");
    }
    // With ports, only these are refused where the name leads.
    let names = Follow { ports: vec![PORT, 8444], ..one(Kind::Host, 31) };
    let (asked, went) = follow(&wall, "app.service", &names)?;
    ensure!((asked.ok, went.ok, went.refused) == (1, 1, 1), "{asked:?} {went:?}");
    wall.agent.wait_for_alert(0, |alert| alert["rule"] == "deny.not there")?;
    Ok(())
}

#[test]
fn a_forged_answer_teaches_nothing() -> Result<()> {
    let (wall, _zone) = raise(POLICY)?;
    let mut number = 40;
    for kind in [
        Kind::WrongId,
        Kind::WrongPort,
        Kind::WrongServer,
        Kind::Unasked,
        Kind::Poison,
        Kind::PoisonAlias,
        Kind::Additional,
        Kind::Private,
        Kind::Error,
        Kind::Question,
        Kind::Class,
    ] {
        for over_tcp in [false, true] {
            // Over TCP there is no other server or port.
            if over_tcp && matches!(kind, Kind::WrongPort | Kind::WrongServer) {
                continue;
            }
            number += 1;
            let names = Follow { tcp: over_tcp, ..one(kind, number) };
            let (asked, went) = follow(&wall, "app.service", &names)?;
            ensure!(asked.ok == 1, "no answer came to learn from: {names:?} {asked:?}");
            none_went(&names, &(asked, went))?;
        }
    }
    // The same server, the same place, and a rule that says so.
    let inside = Follow { zone: "a.inside.example".to_owned(), ..one(Kind::Private, 60) };
    all_went(&inside, &follow(&wall, "other.service", &inside)?)?;
    Ok(())
}

#[test]
fn only_the_stub_itself_answers_for_the_stub() -> Result<()> {
    let (wall, _zone) = raise(POLICY)?;
    let stub = wall.start(&at("stub.service"), Act::Zone { at: vec![STUB] })?;
    let impostor = wall.start(&at("app.service"), Act::Zone { at: vec![IMPOSTOR] })?;
    for over_tcp in [false, true] {
        let names = |server, number| Follow {
            server: SocketAddr::new(server, 53),
            tcp: over_tcp,
            ..one(Kind::Host, number)
        };
        let names_of_stub = names(STUB, 70 + u32::from(over_tcp));
        all_went(&names_of_stub, &follow(&wall, "app.service", &names_of_stub)?)?;
        let forged = names(IMPOSTOR, 80 + u32::from(over_tcp));
        let (asked, went) = follow(&wall, "app.service", &forged)?;
        ensure!(asked.ok == 1, "no answer came to learn from: {asked:?}");
        none_went(&forged, &(asked, went))?;
    }
    drop((stub, impostor));
    Ok(())
}

/// What is named like the stub in a network namespace of its own: its loopback is not the host's.
#[test]
fn a_stub_elsewhere_teaches_nothing() -> Result<()> {
    let (wall, _zone) = raise(POLICY)?;
    let elsewhere = Namespace::create()?;
    let up = elsewhere.run(|| Command::new("ip").args(["link", "set", "lo", "up"]).status())?;
    ensure!(up.success(), "bring the loopback up");
    let _stub = wall.start_in(&elsewhere, &at("stub.service"), Act::Zone { at: vec![STUB] })?;
    let names = Follow { server: SocketAddr::new(STUB, 53), ..one(Kind::Host, 100) };
    let (asked, went) = tallies(wall.run_in(&elsewhere, &at("app.service"), Act::Follow(names.clone()))?)?;
    ensure!(asked.ok == 1, "no answer came to learn from: {asked:?}");
    // There is no way there: what had been learned would be told as that.
    none_went(&names, &(asked, went))
}

#[test]
fn an_address_counts_as_long_as_its_answer_said_and_without_the_agent() -> Result<()> {
    let (mut wall, _zone) = raise(POLICY)?;
    let short = Follow { ttl: 1, ..one(Kind::Host, 90) };
    all_went(&short, &follow(&wall, "app.service", &short)?)?;
    let long = Follow { ttl: 300, ..one(Kind::Host, 91) };
    all_went(&long, &follow(&wall, "app.service", &long)?)?;
    let again = |number: u32| wall.run(&at("app.service"), tcp(&format!("8.8.9.{}:8443", number + 1)));
    let hurried = Follow { ttl: 300, ..one(Kind::Hurried, 94) };
    all_went(&hurried, &follow(&wall, "app.service", &hurried)?)?;
    ensure!(!again(90)?.is_refused(), "within its time and the grace");
    thread::sleep(Duration::from_secs(1 + GRACE_SECS + 1));
    ensure!(again(90)?.is_refused(), "after its time");
    ensure!(!again(91)?.is_refused(), "the other lives longer");
    ensure!(again(94)?.is_refused(), "the alias on the way is over");
    all_went(&short, &follow(&wall, "app.service", &short)?)?;

    wall.agent.kill()?;
    let fresh = Follow { first: 92, ..short.clone() };
    all_went(&fresh, &follow(&wall, "app.service", &fresh)?)?;
    none_went(&fresh, &follow(&wall, "other.service", &fresh)?)?;
    let never = Follow { zone: "b.never.app.example".to_owned(), ..one(Kind::Host, 93) };
    let (asked, went) = follow(&wall, "app.service", &never)?;
    ensure!((asked.refused, went.refused) == (1, 1), "{asked:?} {went:?}");
    thread::sleep(Duration::from_secs(1 + GRACE_SECS + 1));
    let late = wall.run(&at("app.service"), tcp("8.8.9.93:8443"))?;
    ensure!(late.is_refused(), "after its time, without the agent: {late:?}");
    wall.agent.start(None)?;
    all_went(&fresh, &follow(&wall, "app.service", &fresh)?)?;
    Ok(())
}

#[test]
fn what_was_learned_crosses_to_other_layouts() -> Result<()> {
    let (mut wall, _zone) = raise(POLICY)?;
    let names = Follow { ttl: 300, ..one(Kind::Host, 95) };
    all_went(&names, &follow(&wall, "app.service", &names)?)?;
    let again = |wall: &Wall, unit: &str| wall.run(&at(unit), tcp("8.8.9.96:8443"));
    wall.agent.kill()?;
    wall.agent.use_build(place::trial(Trial::Abi)?);
    wall.agent.start(None)?;
    ensure!(wall.agent.pins().join(format!("v{}", ABI_VERSION + TRIAL_ABI_OFFSET)).exists(), "other layouts");
    ensure!(!again(&wall, "app.service")?.is_refused(), "it asked before");
    ensure!(again(&wall, "other.service")?.is_refused(), "for who asked alone");
    let fresh = Follow { first: 97, ..names };
    all_went(&fresh, &follow(&wall, "app.service", &fresh)?)
}

#[test]
fn what_stands_in_the_middle_of_a_message_is_no_answer() -> Result<()> {
    let (wall, _zone) = raise(POLICY)?;
    let cut = Follow { tcp: true, v6: Some(true), ..one(Kind::Cut, 150) };
    let (asked, went) = follow(&wall, "app.service", &cut)?;
    ensure!(asked.ok == 1, "no answer came to learn from: {asked:?}");
    none_went(&cut, &(asked, went))?;
    // An honest server: it is the client that has the answer cut, by how much it takes at a time.
    let text = Follow { count: 130, window: Some(2_304), ..Follow { kind: Kind::Text, first: 2_000, ..cut } };
    let (asked, went) = follow(&wall, "app.service", &text)?;
    ensure!(asked.ok > 100, "no answers came to learn from: {asked:?}");
    none_went(&text, &(asked, went))
}

#[test]
fn without_a_resolver_nobody_teaches() -> Result<()> {
    let policy = POLICY.replace(
        "resolvers = [\"203.0.113.77\", \"fd00:ec2::77\"]",
        "[[dns.recursor]]\nfrom = [{ unit = \"app.service\" }]\nto = [\"203.0.113.77\"]",
    );
    let (wall, _zone) = raise(&policy)?;
    for (number, kind) in (160..).zip([Kind::Host, Kind::WrongServer]) {
        let names = one(kind, number);
        let (asked, went) = follow(&wall, "app.service", &names)?;
        ensure!(asked.ok == 1, "no answer came to learn from: {asked:?}");
        none_went(&names, &(asked, went))?;
    }
    Ok(())
}

#[test]
fn many_questions_of_one_socket_are_open_at_once() -> Result<()> {
    let (wall, _zone) = raise(POLICY)?;
    let names = Follow { at_once: true, count: 60, ..one(Kind::Host, 1_000) };
    all_went(&names, &follow(&wall, "app.service", &names)?)
}

#[test]
fn every_port_written_out_is_every_port() -> Result<()> {
    let policy = POLICY.replacen("name = \"never\"", "name = \"never\"\nports = [\"any\"]", 1);
    let (wall, _zone) = raise(&policy)?;
    let names = Follow { zone: "a.never.app.example".to_owned(), ..one(Kind::Host, 190) };
    let (asked, went) = follow(&wall, "app.service", &names)?;
    ensure!((asked.refused, went.refused) == (1, 1), "{asked:?} {went:?}");
    Ok(())
}

/// Holds a connection, or a flow of datagrams, to where a name led, beyond its time; then another policy comes.
fn outlives(existing: &str, over_tcp: bool) -> Result<()> {
    let policy = POLICY
        .replace("mode = \"enforce\"", &format!("mode = \"enforce\"\nexisting = \"{existing}\""))
        .replace("\"tcp/8443-8444\"", "\"tcp/8443-8446\", \"udp/8446\"");
    let (mut wall, _zone) = raise(&policy)?;
    let names = Follow { ttl: 0, ..one(Kind::Host, 180) };
    all_went(&names, &follow(&wall, "app.service", &names)?)?;
    let to = SocketAddr::new(Kind::Host.address(180, false), 8446);
    let (tcp, udp) = if over_tcp { ([to].into(), [].into()) } else { ([].into(), [to].into()) };
    wall.echo(&tcp, &udp)?;
    let mut held = wall.start(&at("app.service"), Act::Hold { to, tcp: over_tcp })?;
    ensure!(held.exchange()?.ok, "at first");
    thread::sleep(Duration::from_secs(GRACE_SECS + 1));
    let report = held.exchange()?;
    ensure!(report.ok, "after its time: {report:?}");
    let more = "[[allow]]\nname = \"unrelated\"\nto = [\"10.9.9.9\"]\nports = [\"tcp/1\"]\n";
    let said = wall.agent.apply(&format!("{policy}\n{more}"))?;
    ensure!(said.code == 0, "{said:?}");
    thread::sleep(Duration::from_millis(500));
    let report = held.exchange()?;
    ensure!(report.ok, "under another policy: {report:?}");
    // In that one no rule has the port, whatever the name.
    let said = wall.agent.apply(&policy.replace("\"tcp/8443-8446\", \"udp/8446\"", "\"tcp/8443\""))?;
    ensure!(said.code == 0, "{said:?}");
    thread::sleep(Duration::from_millis(500));
    let report = held.exchange()?;
    ensure!(report.ok == (existing == "keep" && over_tcp), "when no rule leads there: {report:?}");
    Ok(())
}

#[test]
fn what_began_in_time_goes_on() -> Result<()> {
    outlives("keep", true)?;
    outlives("keep", false)
}

#[test]
fn what_began_in_time_goes_on_where_others_are_cut() -> Result<()> {
    outlives("cut", true)
}

/// Names that are asked for, one after the other.
const MANY: u32 = 10_000;

#[test]
fn ten_thousand_names_one_after_the_other() -> Result<()> {
    let (wall, _zone) = raise(POLICY)?;
    let cgroup = wall.tree.child("stub.service")?;
    let near = &wall.network.near;
    let _unbound = Unbound::forward(wall.probe(), near, Some(cgroup), &wall.scratch(""), STUB, ZONE)?;
    let third = MANY / 4;
    for (server, tcp, ttl, first) in [
        (ZONE, false, 1, 0),
        (ZONE, true, 0, third),
        (STUB, false, 1, 2 * third),
        (STUB, false, 300, 3 * third),
    ] {
        let server = SocketAddr::new(server, 53);
        let names = Follow { server, tcp, v6: None, ttl, first, count: third, ..one(Kind::Host, 0) };
        let names = Follow { zone: "many.app.example".to_owned(), ..names };
        all_went(&names, &follow(&wall, "app.service", &names)?)?;
        // What the stub kept, or what has to be asked for anew.
        let again = Follow { count: 100, ..names.clone() };
        all_went(&again, &follow(&wall, "app.service", &again)?)?;
        let others = wall.run(&at("other.service"), Act::Follow(Follow { count: 100, ..names.clone() }))?;
        ensure!(others.tallies[1].refused == 100, "another workload: {:?}", others.tallies);
    }
    println!("{MANY} names");
    thread::sleep(Duration::from_secs(1 + GRACE_SECS + 1));
    let late =
        Act::Tcp { to: SocketAddr::new(Kind::Host.address(third + 1, true), PORT), by: TcpBy::Connect };
    let late = wall.run(&at("app.service"), late)?;
    ensure!(late.is_refused(), "after its time: {late:?}");
    Ok(())
}

#[test]
fn a_real_cache_in_between_works_whoever_makes_it() -> Result<()> {
    let (wall, _zone) = raise(POLICY)?;
    let cgroup = wall.tree.child("stub.service")?;
    let _dnsmasq = Dnsmasq::forward(wall.probe(), &wall.network.near, Some(cgroup), &[STUB], ZONE)?;
    for (tcp, kind) in [(false, Kind::Host), (true, Kind::Host), (false, Kind::Alias), (false, Kind::Many)] {
        let names = Follow { server: SocketAddr::new(STUB, 53), tcp, v6: None, ttl: 60, ..one(kind, 100) };
        let names = Follow { count: 20, zone: "cached.app.example".to_owned(), ..names };
        for round in 0..2 {
            let result = follow(&wall, "app.service", &names)?;
            all_went(&names, &result).with_context(|| format!("round {round}"))?;
        }
    }
    Ok(())
}
