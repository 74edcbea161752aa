//! Random pairs of policies take each other's place under load: every verdict is that of the policy whose generation it
//! names. What both allow is never refused, what both refuse never passes.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use dnswall_tests::act::{Act, Errand, ErrandBy, Tally, address};
use dnswall_tests::process::Process;
use dnswall_tests::wall::Wall;
use dnswall_tests::who::{Exe, Who, at};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

/// A rule, by the places in the tables below.
#[derive(Clone, Copy, Debug)]
struct Rule {
    allows: bool,
    network: usize,
    ports: usize,
    from: usize,
}

#[test]
fn two_policies_that_differ_in_all_ways_take_turns() -> Result<()> {
    let rule = |allows, network, ports, from| Rule { allows, network, ports, from };
    let a = [rule(true, 0, 2, 0), rule(true, 2, 0, 3), rule(false, 3, 1, 0)];
    let b = [rule(true, 1, 2, 1), rule(true, 3, 2, 0), rule(true, 0, 0, 2)];
    let mut wall = raise()?;
    let seen = take_turns(&mut wall, &a, &b)?;
    ensure!(
        seen.both > 0 && seen.neither > 0 && seen.one > 0 && seen.told > 0,
        "not all was tried: {seen:?}"
    );
    Ok(())
}

#[test]
fn any_two_policies_take_turns() -> Result<()> {
    let wall = RefCell::new(raise()?);
    let rule = (prop::bool::weighted(0.75), 0..NETWORKS.len(), 0..PORTS.len(), 0..FROM.len());
    let rule = rule.prop_map(|(allows, network, ports, from)| Rule { allows, network, ports, from });
    // Some rules are in both, at other places.
    let rules = || prop::collection::vec(rule.clone(), 0..4);
    let pair = (rules(), rules(), rules())
        .prop_map(|(shared, a, b)| ([&shared[..], &a].concat(), [b, shared].concat()));
    let config = Config { cases: CASES, max_shrink_iters: 8, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&pair, |(a, b)| {
            let seen = take_turns(&mut wall.borrow_mut(), &a, &b);
            seen.map(drop).map_err(|error| TestCaseError::fail(format!("{error:#}")))
        })
        .map_err(|error| anyhow::anyhow!("{error}"))
}

/// How many flows there were of each kind.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    both: usize,
    neither: usize,
    one: usize,
    /// Alerts that were compared.
    told: usize,
}

/// Plays two policies in turn, under load.
fn take_turns(wall: &mut Wall, a: &[Rule], b: &[Rule]) -> Result<Seen> {
    let policies = [wall.fill_in(&text(a, 0)), wall.fill_in(&text(b, FILLERS))];
    let rules = [a, b];
    let first = wall.agent.status()?["policy"]["generation"].as_u64().context("a generation")?;
    let skip = wall.agent.alerts()?.len();
    ensure!(wall.agent.apply(&policies[0])?.code == 0);
    let errands: Vec<Errand> =
        TO.iter().flat_map(|to| WAYS.iter().map(|by| Errand { to: address(to), by: *by })).collect();
    let mut flood = Vec::new();
    let mut steppers = Vec::new();
    for place in 0..WHO {
        let load = Act::Load { errands: errands.clone(), pause_us: PAUSE_US };
        flood.push((place, wall.start(&who(place), load)?));
        steppers.push((place, wall.start(&who(place), Act::Steps { errands: errands.clone() })?));
    }
    let started = flood.iter().chain(&steppers);
    let places = started.map(|(place, process)| (u64::from(process.pid()), *place)).collect();
    // Which policy each generation is.
    let mut generations = BTreeMap::new();
    for turn in 0..TURNS {
        if turn > 0 {
            ensure!(wall.agent.apply(&policies[turn % 2])?.code == 0);
        }
        let status = wall.agent.status()?;
        generations.insert(status["policy"]["generation"].as_u64().context("a generation")?, turn % 2);
        for (place, process) in &mut steppers {
            step(process, *place, &errands, rules[turn % 2])
                .with_context(|| format!("turn {turn} of\n{}\n{}", policies[0], policies[1]))?;
        }
        if turn < 2 {
            explained(wall, rules[turn])?;
        }
    }
    drop(steppers);
    let mut seen = Seen::default();
    for (place, process) in flood {
        let tallies = process.finish()?.tallies;
        for (errand, tally) in errands.iter().zip(&tallies) {
            let verdicts = rules.map(|rules| verdict(rules, place, errand).0);
            let right = match verdicts {
                [true, true] => tally.refused == 0 && tally.failed == 0 && tally.ok > 0,
                [false, false] => tally.ok == 0 && tally.failed == 0 && tally.refused > 0,
                _ => tally.failed <= TURNS as u64 && is_overtaken(tally),
            };
            ensure!(
                right,
                "{place} {errand:?}: {tally:?}, allowed {verdicts:?}\n{}\n{}",
                policies[0],
                policies[1]
            );
            match verdicts {
                [true, true] => seen.both += 1,
                [false, false] => seen.neither += 1,
                _ => seen.one += 1,
            }
        }
    }
    seen.told = told(wall, skip, first, &generations, &places, rules)?;
    println!("{seen:?}");
    Ok(seen)
}

/// Whether nothing failed but connections that a change overtook between `connect()` and their first packet: the one policy
/// allowed the call, the other refuses the packet. The agent ends them; one that it looked for too soon waits in vain.
fn is_overtaken(tally: &Tally) -> bool {
    let Tally { ok: _, refused: _, failed, failure } = tally;
    let failure = failure.as_deref().unwrap_or_default();
    *failed == 0 || failure.contains("os error 103") || failure == "timed out"
}

/// What begins after a policy was applied meets that policy.
fn step(process: &mut Process, place: usize, errands: &[Errand], rules: &[Rule]) -> Result<()> {
    let tallies = process.exchange()?.tallies;
    for (errand, tally) in errands.iter().zip(&tallies) {
        let Tally { ok, refused, failed, failure: _ } = tally;
        let (allowed, rule) = verdict(rules, place, errand);
        let expected = if allowed { [1, 0, 0] } else { [0, 1, 0] };
        ensure!([*ok, *refused, *failed] == expected, "{place} {errand:?}: {tally:?}, but {rule} decides");
    }
    Ok(())
}

/// `policy explain` says what these rules say.
fn explained(wall: &Wall, rules: &[Rule]) -> Result<()> {
    for (place, to, tcp) in [(0, TO[0], false), (1, TO[1], true), (2, TO[2], false)] {
        let (who, to) = (who(place), address(to));
        let errand = Errand { to, by: if tcp { ErrandBy::TcpFresh } else { ErrandBy::UdpFresh } };
        let (allowed, rule) = verdict(rules, place, &errand);
        let cgroup = format!("cgroup:{}/{}", wall.tree.path(), who.cgroup);
        let exe = format!("exe:{}", who.exe_path(wall.probe(), &wall.copies()).display());
        let (host, port) =
            (to.ip().to_string(), format!("{}/{}", if tcp { "tcp" } else { "udp" }, to.port()));
        let asked = ["policy", "explain", "--from", &cgroup, "--from", &exe, "--to", &host, "--port", &port];
        let (_, said) = wall.agent.ask(&asked)?;
        let word = if allowed { "allow" } else { "deny" };
        ensure!(
            said["verdict"] == word && said["rule"] == rule,
            "{place} {errand:?}: {said}, but {rule} decides"
        );
    }
    Ok(())
}

/// Every alert names a generation of these turns, and the rule by which that one's policy refuses the flow.
fn told(
    wall: &Wall,
    skip: usize,
    first: u64,
    generations: &BTreeMap<u64, usize>,
    places: &BTreeMap<u64, usize>,
    rules: [&[Rule]; 2],
) -> Result<usize> {
    let mut told = 0;
    for alert in &wall.agent.alerts()?[skip..] {
        let generation = alert["policy"]["generation"].as_u64().context("a generation")?;
        if generation <= first {
            // Told late, of the pair before.
            continue;
        }
        let policy = generations.get(&generation).with_context(|| format!("nobody's generation: {alert}"))?;
        let to: IpAddr = alert["flow"]["destination"].as_str().context("a destination")?.parse()?;
        let by = if alert["flow"]["protocol"] == "tcp" { ErrandBy::TcpFresh } else { ErrandBy::UdpFresh };
        let pid = alert["process"]["pid"].as_u64().context("a process")?;
        let place = *places.get(&pid).with_context(|| format!("nobody's alert: {alert}"))?;
        let (allowed, rule) = verdict(rules[*policy], place, &Errand { to: SocketAddr::new(to, PORT), by });
        ensure!(!allowed, "generation {generation} allows it by {rule}: {alert}");
        ensure!(alert["rule"] == rule, "{rule} of generation {generation} refuses it: {alert}");
        told += 1;
    }
    Ok(told)
}

/// Whether these rules allow it, and which decides: a second opinion that shares nothing with the compiler.
fn verdict(rules: &[Rule], place: usize, errand: &Errand) -> (bool, String) {
    let tcp = errand.by == ErrandBy::TcpFresh;
    let matches = |rule: &Rule| {
        NETWORKS[rule.network].1.contains(&errand.to.ip().to_string().as_str())
            && match PORTS[rule.ports].1 {
                (udp, _) if !tcp => udp,
                (_, tcp) => tcp,
            }
            && FROM[rule.from].1[place]
    };
    for (allows, kind) in [(false, "deny"), (true, "allow")] {
        if let Some(number) = rules.iter().position(|rule| rule.allows == allows && matches(rule)) {
            return (allows, format!("{kind}.rule {number}"));
        }
    }
    (false, "default".into())
}

fn text(rules: &[Rule], fillers: usize) -> String {
    let mut text = "version = 1\nmode = \"enforce\"\n".to_owned();
    let mut write = |kind: &str, name: &str, network: &str, ports: &str, from: &str| {
        let from = if from.is_empty() { String::new() } else { format!("from = [{from}]\n") };
        // Writing to a string does not fail.
        let _ =
            writeln!(text, "[[{kind}]]\nname = \"{name}\"\nto = [\"{network}\"]\nports = [{ports}]\n{from}");
    };
    for number in 0..fillers {
        let network = format!("203.0.113.{number}");
        write("allow", &format!("filler {number}"), &network, PORTS[2].0, "{ unit = \"no.service\" }");
    }
    for (number, rule) in rules.iter().enumerate() {
        let kind = if rule.allows { "allow" } else { "deny" };
        let (network, ports, from) = (NETWORKS[rule.network].0, PORTS[rule.ports].0, FROM[rule.from].0);
        write(kind, &format!("rule {number}"), network, ports, from);
    }
    text
}

fn raise() -> Result<Wall> {
    let mut wall = Wall::raise("version = 1\nmode = \"enforce\"\n")?;
    wall.copy(WORKER)?;
    let served: BTreeSet<SocketAddr> = TO.iter().map(|to| address(to)).collect();
    wall.echo(&served, &served)?;
    Ok(wall)
}

fn who(place: usize) -> Who {
    match place {
        0 => at("app.service").exe(Exe::Copy(WORKER)),
        1 => at("app.service"),
        _ => at("other.service"),
    }
}

const WHO: usize = 3;
const WORKER: &str = "worker";
const PORT: u16 = 9000;
const TO: [&str; 3] = ["10.0.1.7:9000", "10.0.2.7:9000", "[2001:db8:1::7]:9000"];
const WAYS: [ErrandBy; 4] =
    [ErrandBy::UdpFresh, ErrandBy::UdpSendto, ErrandBy::UdpConnected, ErrandBy::TcpFresh];
/// Networks, and which of the destinations they hold.
const NETWORKS: [(&str, &[&str]); 5] = [
    ("10.0.1.0/24", &["10.0.1.7"]),
    ("10.0.0.0/22", &["10.0.1.7", "10.0.2.7"]),
    ("10.0.2.7", &["10.0.2.7"]),
    ("2001:db8:1::/48", &["2001:db8:1::7"]),
    ("203.0.113.0/24", &[]),
];
/// Ports, and whether they hold those of UDP and of TCP.
const PORTS: [(&str, (bool, bool)); 3] = [
    ("\"udp/9000\"", (true, false)),
    ("\"tcp/8999-9001\"", (false, true)),
    ("\"udp/1-65535\", \"tcp/9000\"", (true, true)),
];
/// Whom a rule binds, and which of [`who`] that is.
const FROM: [(&str, [bool; WHO]); 5] = [
    ("", [true, true, true]),
    ("{ unit = \"app.service\" }", [true, true, false]),
    ("{ exe = \"{copies}/worker\" }", [true, false, false]),
    ("{ unit = \"other.service\" }", [false, false, true]),
    (
        "{ unit = \"app.service\", exe = \"{copies}/worker\" }, { unit = \"other.service\" }",
        [true, false, true],
    ),
];
/// Rules that only move the others to another place.
const FILLERS: usize = 30;
/// Random pairs.
const CASES: u32 = 6;
/// Policies in turn for each pair.
const TURNS: usize = 8;
const PAUSE_US: u64 = 500;
