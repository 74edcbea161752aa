//! A policy changes as a whole, or not at all.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dnswall_tests::act::{Act, address, tcp, udp};
use dnswall_tests::case::{allowed, case, refused};
use dnswall_tests::check::check_wall;
use dnswall_tests::pace::within;
use dnswall_tests::wall::Wall;
use dnswall_tests::who::at;
use serde_json::Value;

#[test]
fn flows_that_both_policies_agree_on_never_get_another_verdict() -> Result<()> {
    flip(false)
}

#[test]
fn nor_do_they_on_a_socket_that_remembers() -> Result<()> {
    flip(true)
}

fn flip(one_socket: bool) -> Result<()> {
    let rule = |name: &str, to: &str| {
        format!("[[allow]]\nname = \"{name}\"\nto = [\"{to}\"]\nports = [\"udp/9000\"]\n")
    };
    let head = "version = 1\nmode = \"enforce\"\n";
    // What both agree on is not at the same place in both.
    let filler: String = (0..200).map(|i| rule(&format!("filler {i}"), &format!("203.0.113.{i}"))).collect();
    let a = format!("{head}{}{}", rule("both", "10.0.1.0/24"), rule("a", "10.0.2.0/24"));
    let b = format!("{head}{}{filler}{}", rule("b", "10.0.3.0/24"), rule("shared", "10.0.0.0/23"));
    let wall = Wall::raise(&a)?;
    let to = ["10.0.1.7:9000", "[2001:db8:1::1]:9000", "10.0.4.7:9000", "10.0.2.7:9000", "10.0.3.7:9000"];
    let mark = wall.capture.mark()?;
    let flood = wall.start(
        &at("app.service"),
        Act::Flood { to: to.iter().map(|to| address(to)).collect(), one_socket },
    )?;
    let until = Instant::now() + within(Duration::from_secs(5));
    let mut applied = 0;
    while Instant::now() < until && applied < 200 {
        for policy in [&b, &a] {
            let said = wall.agent.apply(policy)?;
            ensure!(said.code == 0, "{said:?}");
            applied += 1;
        }
    }
    let counts = flood.finish()?.counts;
    wall.capture.mark()?;
    println!("{applied} policies while these were sent and refused: {counts:?}");
    ensure!(counts[0].0 > 1000 && counts[0].1 == 0, "false drops of what both allow: {counts:?}");
    ensure!(counts[1].0 == 0 && counts[2].0 == 0, "leaks of what neither allows: {counts:?}");
    ensure!(
        counts[3].0 > 0 && counts[3].1 > 0 && counts[4].0 > 0 && counts[4].1 > 0,
        "nothing changed: {counts:?}"
    );
    for leaked in [to[1], to[2]] {
        ensure!(wall.capture.to_port(mark, 17, address(leaked)).is_empty(), "{leaked} arrived");
    }
    ensure!(wall.agent.status()?["policy"]["generation"].as_u64() > Some(applied), "generations are counted");
    Ok(())
}

#[test]
fn a_broken_policy_changes_nothing_and_says_every_mistake() -> Result<()> {
    let good = "version = 1\nmode = \"enforce\"\n[[allow]]\nname = \"database\"\nto = [\"10.0.3.0/24\"]\n";
    let broken = r#"version = 1
mode = "enforced"
colour = "blue"

[dns]
resolvers = ["169.254.169.2533"]

[[allow]]
name = "database"
to = ["10.0.3.7/24"]
ports = ["tcp/5432x"]
"#;
    let mut wall = Wall::raise(good)?;
    let before = wall.agent.status()?;
    let path = wall.scratch("broken.toml");
    std::fs::write(&path, broken)?;
    let path = path.to_string_lossy().into_owned();

    let said = wall.agent.say(&["policy", "apply", &path])?;
    ensure!(said.code == 3, "{said:?}");
    // Line and column of every mistake.
    for place in ["2:8", "3:1", "6:14", "10:7", "11:10"] {
        ensure!(
            said.errors.contains(&format!("broken.toml:{place}")),
            "{place} is not named:\n{}",
            said.errors
        );
    }
    let (code, problems) = wall.agent.ask(&["policy", "check", &path])?;
    let problems = problems["problems"].as_array().context("problems")?.clone();
    ensure!(code == 3 && problems.len() == 5, "{problems:?}");
    let lines: Vec<u64> = problems.iter().filter_map(|problem| problem["line"].as_u64()).collect();
    ensure!(lines == [2, 3, 6, 10, 11], "{lines:?}");

    let after = wall.agent.status()?;
    ensure!(after["policy"] == before["policy"], "{} became {}", before["policy"], after["policy"]);
    check_wall(
        &mut wall,
        &[
            case("still allowed", at("app.service"), tcp("10.0.3.7:5432"), allowed("allow.database")),
            case("still refused", at("app.service"), tcp("10.0.4.7:5432"), refused("egress.denied")),
        ],
    )
}

#[test]
fn rollback_brings_back_the_policy_before() -> Result<()> {
    let rule =
        |to: &str| format!("version = 1\nmode = \"enforce\"\n[[allow]]\nname = \"it\"\nto = [\"{to}\"]\n");
    let mut wall = Wall::raise(&rule("10.0.1.0/24"))?;
    let digest = |wall: &Wall| -> Result<Value> { Ok(wall.agent.status()?["policy"]["digest"].clone()) };
    let app = || at("app.service");
    let first = [
        case("the first's", app(), udp("10.0.1.1:1"), allowed("allow.it")),
        case("the second's", app(), udp("10.0.2.1:1"), refused("egress.denied")),
    ];
    let second = [
        case("the first's", app(), udp("10.0.1.1:1"), refused("egress.denied")),
        case("the second's", app(), udp("10.0.2.1:1"), allowed("allow.it")),
    ];
    let before = digest(&wall)?;
    check_wall(&mut wall, &first)?;
    let applied = wall.agent.apply(&rule("10.0.2.0/24"))?;
    ensure!(applied.code == 0, "{applied:?}");
    ensure!(digest(&wall)? != before);
    check_wall(&mut wall, &second)?;
    let rolled = wall.agent.say(&["policy", "rollback"])?;
    ensure!(rolled.code == 0, "{rolled:?}");
    ensure!(digest(&wall)? == before, "the digest is another");
    check_wall(&mut wall, &first)
}

#[test]
fn diff_says_what_apply_would_change() -> Result<()> {
    let one = "version = 1\nmode = \"enforce\"\n[[allow]]\nname = \"db\"\nto = [\"10.0.1.0/24\"]\n";
    let wall = Wall::raise(one)?;
    let path = wall.scratch("other.toml");
    std::fs::write(&path, one)?;
    let file = path.to_string_lossy().into_owned();
    let same = wall.agent.say(&["policy", "diff", &file])?;
    ensure!(same.code == 0, "{same:?}");
    std::fs::write(&path, one.replace("10.0.1.0", "10.0.2.0"))?;
    let other = wall.agent.say(&["policy", "diff", &file])?;
    ensure!(other.code == 1 && other.text.contains("db"), "{other:?}");
    let shown = wall.agent.say(&["policy", "show"])?;
    ensure!(shown.code == 0 && shown.text.contains("10.0.1.0/24"), "{shown:?}");
    ensure!(shown.text.contains("# encrypted DNS that is refused: "), "its list and date: {shown:?}");
    Ok(())
}

#[test]
fn connections_live_on_or_are_cut_as_the_policy_says() -> Result<()> {
    let open = "version = 1\nmode = \"enforce\"\n[[allow]]\nname = \"db\"\nto = [\"10.0.3.0/24\"]\n";
    let closed = "version = 1\nmode = \"enforce\"\n";
    let cut = "version = 1\nmode = \"enforce\"\nexisting = \"cut\"\n";
    let scoped = format!("{closed}[[scope]]\nfrom = [{{ unit = \"cut.service\" }}]\nexisting = \"cut\"\n");
    let to = address("10.0.3.7:5432");
    for (policy, who, lives) in [
        (closed, "app.service", true),
        (cut, "app.service", false),
        (&scoped, "app.service", true),
        (&scoped, "cut.service", false),
    ] {
        let mut wall = Wall::raise(open)?;
        wall.echo(&BTreeSet::from([to]), &BTreeSet::new())?;
        let mut held = wall.start(&at(who), Act::Hold { to, tcp: true })?;
        ensure!(held.exchange()?.ok);
        let said = wall.agent.apply(policy)?;
        ensure!(said.code == 0, "{said:?}");
        let report = held.exchange()?;
        ensure!(report.ok == lives, "{policy}: {who}: {report:?}");
        if !lives {
            ensure!(wall.agent.apply(closed)?.code == 0);
            let report = held.exchange()?;
            ensure!(!report.ok, "cut, then back under a policy that keeps what exists: {report:?}");
        }
        // Elsewhere: what is left of the cut one is the same flow to the alerts.
        check_wall(&mut wall, &[case("a new one", at(who), tcp("10.0.3.8:5432"), refused("egress.denied"))])?;
    }
    Ok(())
}
