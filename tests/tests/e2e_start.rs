//! How an agent starts: without a policy, beside another, where it cannot.

use std::fs;

use anyhow::{Result, ensure};
use dnswall_tests::act::{Act, address, tcp, udp};
use dnswall_tests::agent::Agent;
use dnswall_tests::case::{case, would_refuse};
use dnswall_tests::check::check_wall;
use dnswall_tests::wall::Wall;
use dnswall_tests::who::at;
use serde_json::Value;

#[test]
fn without_a_policy_it_reports_and_blocks_nothing() -> Result<()> {
    let mut wall = Wall::build()?;
    wall.agent.start(None)?;
    let status = wall.agent.status()?;
    ensure!(status["mode"] == "audit" && status["policy"]["origin"] == "built-in", "{status}");
    let log = wall.agent.log();
    ensure!(log.contains("resolvers assumed") || log.contains("names no resolver"), "{log}");
    check_wall(
        &mut wall,
        &[
            case("a connection", at("app.service"), tcp("203.0.113.7:443"), would_refuse("egress.denied")),
            case("a datagram", at("app.service"), udp("10.0.3.7:99"), would_refuse("egress.denied")),
        ],
    )
}

#[test]
fn a_second_agent_for_the_same_wall_does_not_start() -> Result<()> {
    let wall = Wall::raise("version = 1\nmode = \"enforce\"\n")?;
    let before = wall.agent.status()?;
    let mut second = Agent::prepare(wall.scratch("").as_path(), wall.tree.directory())?;
    ensure!(second.start(Some("version = 1\nmode = \"audit\"\n")).is_err(), "two agents for one wall");
    let after = wall.agent.status()?;
    ensure!(after["pid"] == before["pid"] && after["policy"] == before["policy"], "{after}");
    // Not its wall to take down.
    std::mem::forget(second);
    ensure!(wall.run(&at("app.service"), udp("10.0.3.7:99"))?.is_refused());
    Ok(())
}

#[test]
fn where_it_cannot_stand_it_says_so() -> Result<()> {
    let wall = Wall::build()?;
    let path = |name: &str| wall.scratch(name).to_string_lossy().into_owned();
    let pins = wall.agent.pins().to_string_lossy().into_owned();
    for cgroup in [path("."), path("missing"), "/proc".into()] {
        let said = wall.agent.say(&[
            "agent",
            "run",
            "--cgroup",
            &cgroup,
            "--pins",
            &pins,
            "--state",
            &path("state"),
            "--socket",
            &path("control.sock"),
            "--config",
            &path("agent.toml"),
        ])?;
        ensure!(said.code == 4, "{cgroup}: {said:?}");
        ensure!(said.errors.contains("cgroup"), "{said:?}");
    }
    fs::write(wall.agent.config_path(), "[alerts]\ninterval = \"soon\"\ncolour = 1\n")?;
    let said = wall.agent.say(&["agent", "run", "--config", &path("agent.toml")])?;
    ensure!(
        said.code == 3 && said.errors.contains("agent.toml:2") && said.errors.contains("colour"),
        "{said:?}"
    );
    ensure!(!wall.agent.pins().join("v1").exists());
    Ok(())
}

#[test]
fn alerts_outlive_the_rotation_of_their_file() -> Result<()> {
    let mut wall = Wall::build()?;
    let config = fs::read_to_string(wall.agent.config_path())?;
    fs::write(wall.agent.config_path(), format!("{config}max-bytes = 65536\nkeep = 9\n"))?;
    wall.agent.start(Some("version = 1\nmode = \"enforce\"\n"))?;
    let to: Vec<_> = (1..=60).map(|host| address(&format!("203.0.113.{host}:99"))).collect();
    let flood = wall.start(&at("app.service"), Act::Flood { to: to.clone(), one_socket: false })?;
    std::thread::sleep(std::time::Duration::from_millis(1500));
    flood.finish()?;
    wall.agent.stop()?;
    let mut alerts: Vec<Value> = Vec::new();
    for number in 0..=9 {
        let suffix = if number == 0 { String::new() } else { format!(".{number}") };
        let path = format!("{}{suffix}", wall.agent.alerts_path().display());
        let text = fs::read_to_string(path).unwrap_or_default();
        alerts.extend(text.lines().map(serde_json::from_str).collect::<Result<Vec<_>, _>>()?);
    }
    for to in to {
        let told = alerts.iter().any(|alert| alert["flow"]["destination"] == to.ip().to_string());
        ensure!(told, "no alert about {to} in {} alerts", alerts.len());
    }
    ensure!(fs::metadata(wall.agent.alerts_path())?.len() <= 65536);
    ensure!(wall.agent.alerts_path().with_extension("ndjson.1").exists(), "it was not rotated");
    Ok(())
}
