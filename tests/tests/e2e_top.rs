//! `dnswall top` at a terminal: who talks to whom, what is refused and how often, and a terminal that is as it was before.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dnswall_tests::act::{Act, address, dns, tcp};
use dnswall_tests::resolver::FOREIGN;
use dnswall_tests::terminal::Terminal;
use dnswall_tests::wall::Wall;
use dnswall_tests::who::at;
use rustix::process::Signal;
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
const DATABASE: &str = "10.0.3.7:5432";
const FLOODED: &str = "10.0.4.7:99";

fn flood() -> Act {
    Act::Flood { to: vec![address(FLOODED)], one_socket: false }
}

fn raise() -> Result<Wall> {
    let mut wall = Wall::raise(POLICY)?;
    wall.echo(&[address(DATABASE)].into(), &[].into())?;
    Ok(wall)
}

fn top(wall: &Wall) -> Result<Terminal> {
    let mut terminal = Terminal::start(wall.agent.command(&["top", "--interval", "500ms"]), 24, 120)?;
    terminal.wait_for("the first picture", |screen| screen.contains("1 workloads"))?;
    ensure!(terminal.is_taken()?, "{}", terminal.screen());
    Ok(terminal)
}

/// The line of the screen that has all of this in it.
fn line<'s>(screen: &'s str, words: &[&str]) -> Option<&'s str> {
    screen.lines().find(|line| words.iter().all(|word| line.contains(word)))
}

#[test]
fn a_flood_is_seen_with_its_true_count_beside_what_is_allowed() -> Result<()> {
    let wall = raise()?;
    let mut held = wall.start(&at("orders.service"), Act::Hold { to: address(DATABASE), tcp: true })?;
    ensure!(held.exchange()?.ok, "the connection that is allowed");
    let mut terminal = top(&wall)?;
    let flooding = wall.start(&at("web.service"), flood())?;
    // At once by its rate, of which an alert each second says nothing.
    let fast = |screen: &str| {
        let line = line(screen, &["web.service", FLOODED])?;
        let rate = line.split_whitespace().nth(1)?;
        rate.strip_suffix('k')
            .map_or_else(|| rate.parse().ok(), |it| it.parse::<f64>().ok().map(|it| it * 1e3))
    };
    terminal.wait_for("a rate", |screen| fast(screen).is_some_and(|rate| rate > 500.0))?;
    ensure!(line(&terminal.screen(), &["orders.service", "  1  "]).is_some(), "{}", terminal.screen());
    terminal.press("3")?;
    terminal.wait_for("the flow", |screen| {
        line(screen, &["web.service", FLOODED, "denied", "no-rule"]).is_some()
    })?;
    thread::sleep(Duration::from_millis(1_500));
    let refused = flooding.finish()?.counts[0].1.to_string();
    terminal.wait_for(&format!("{refused} refusals"), |screen| {
        line(screen, &["web.service", FLOODED, &format!(" {refused} ")]).is_some()
    })?;
    terminal.press("2")?;
    terminal
        .wait_for("the connection", |screen| line(screen, &["orders.service", "tcp", DATABASE]).is_some())?;
    ensure!(line(&terminal.screen(), &[FLOODED]).is_none(), "{}", terminal.screen());
    // Names, and rows that are filtered.
    ensure!(wall.run(&at("web.service"), dns(FOREIGN))?.is_refused(), "the question");
    terminal.press("\t\t")?;
    terminal.wait_for("the name", |screen| line(screen, &["web.service", "no-rule"]).is_some())?;
    terminal.press("/orders\r1")?;
    terminal.wait_for("what is filtered", |screen| {
        line(screen, &["orders.service"]).is_some() && line(screen, &["web.service"]).is_none()
    })?;
    terminal.press("\x1b")?;
    terminal.wait_for("all of it", |screen| line(screen, &["web.service"]).is_some())?;
    for (rows, columns) in [(5, 30), (40, 160)] {
        terminal.resize(rows, columns)?;
        terminal.wait_for("another size", |screen| screen.contains("web.service"))?;
    }
    terminal.press("q")?;
    let status = terminal.ended()?;
    ensure!(status.success() && terminal.is_as_before()?, "{status}");
    Ok(())
}

#[test]
fn an_agent_may_go_and_come_back() -> Result<()> {
    let mut wall = raise()?;
    let mut terminal = top(&wall)?;
    wall.agent.kill()?;
    terminal.wait_for("that it is gone", |screen| screen.contains("AGENT GONE"))?;
    wall.agent.start(None)?;
    terminal.wait_for("that it is back", |screen| !screen.contains("AGENT GONE"))?;
    ensure!(wall.run(&at("web.service"), tcp(FLOODED))?.is_refused(), "the connection");
    terminal.wait_for("what is refused now", |screen| line(screen, &["web.service", FLOODED]).is_some())?;
    terminal.signal(Signal::TERM)?;
    let status = terminal.ended()?;
    ensure!(status.success() && terminal.is_as_before()?, "{status}");
    Ok(())
}

#[test]
fn without_a_terminal_a_picture_is_printed() -> Result<()> {
    let wall = raise()?;
    let mut held = wall.start(&at("orders.service"), Act::Hold { to: address(DATABASE), tcp: true })?;
    ensure!(held.exchange()?.ok, "the connection that is allowed");
    let flooding = wall.start(&at("web.service"), flood())?;
    thread::sleep(Duration::from_millis(1_200));
    let refused = flooding.finish()?.counts[0].1;
    thread::sleep(Duration::from_millis(1_200));
    let (code, picture) = wall.agent.ask(&["top", "--once"])?;
    ensure!(code == 0, "{picture}");
    let row = |list: &str, path: &str, is: &str| {
        let rows = picture[list].as_array().context("a list")?;
        let found = rows.iter().find(|row| row.pointer(path).is_some_and(|it| it == is));
        found.cloned().with_context(|| format!("{is} in {}", picture[list]))
    };
    let flow = row("refused", "/workload/unit", "web.service")?;
    ensure!(flow["count"] == refused && flow["flow"]["destination_port"] == 99, "{refused}: {flow}");
    ensure!(row("workloads", "/workload/unit", "web.service")?["refused"] == refused, "{picture}");
    let connection = row("connections", "/destination", DATABASE)?;
    ensure!(
        connection["workload"]["unit"] == "orders.service" && connection["connections"] == 1,
        "{connection}"
    );
    ensure!(picture["totals"]["denied"].as_u64() >= Some(refused) && picture["stands"] == true, "{picture}");
    ensure!(picture["left_out"]["errors"].as_array().is_some_and(Vec::is_empty), "{}", picture["left_out"]);

    let said = wall.agent.say(&["top"])?;
    ensure!(said.code == 0 && line(&said.text, &["web.service", &refused.to_string()]).is_some(), "{said:?}");
    ensure!(line(&said.text, &["orders.service", DATABASE]).is_some(), "{said:?}");
    let said = wall.agent.say(&["top", "--output", "json", "--iterations", "2", "--interval", "500ms"])?;
    let pictures: Vec<Value> = said
        .text
        .lines()
        .map(|line| serde_json::from_str(line).context("read a picture"))
        .collect::<Result<_>>()?;
    ensure!(pictures.len() == 2, "{said:?}");
    ensure!(pictures[0]["monotonic_ms"].as_u64() <= pictures[1]["monotonic_ms"].as_u64(), "{said:?}");
    Ok(())
}

#[test]
fn without_an_agent_the_terminal_stays_as_it_is() -> Result<()> {
    let mut wall = raise()?;
    wall.agent.stop()?;
    let mut terminal = Terminal::start(wall.agent.command(&["top"]), 24, 80)?;
    let status = terminal.ended()?;
    ensure!(status.code() == Some(5) && terminal.is_as_before()?, "{status}: {}", terminal.screen());
    ensure!(terminal.screen().contains("cannot be reached"), "{}", terminal.screen());
    Ok(())
}
