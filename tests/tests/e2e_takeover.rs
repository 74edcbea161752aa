//! The wall stands without its agent, and the next agent finds it standing.

use anyhow::{Context, Result, ensure};
use dnswall_tests::act::{Act, address, dns, dns_tcp, tcp, udp};
use dnswall_tests::resolver::{FOREIGN, RESOLVER};
use dnswall_tests::wall::Wall;
use dnswall_tests::who::{Exe, Who, at};
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
from = [{ unit = "orders.service" }]
"#;

#[test]
fn killed_and_taken_over_the_wall_answers_the_same() -> Result<()> {
    let mut wall = Wall::raise(POLICY)?;
    wall.echo(&[address("10.0.3.7:5432")].into(), &[address("10.0.4.7:99")].into())?;
    let (status, before) = (wall.agent.status()?, answers(&wall)?);
    ensure!(before == [true, false, false, true, false, false], "{before:?}");
    let mut held =
        wall.start(&at("orders.service"), Act::Hold { to: address("10.0.3.7:5432"), tcp: true })?;

    wall.agent.kill()?;
    ensure!(answers(&wall)? == before, "without an agent");
    // A cgroup that the agent never saw.
    ensure!(wall.run(&at("new.slice/orders.service"), tcp("10.0.3.7:5432"))?.ok, "a new cgroup, allowed");
    ensure!(
        wall.run(&at("new.slice/other.service"), tcp("10.0.3.7:5432"))?.is_refused(),
        "a new cgroup, refused"
    );
    ensure!(held.exchange()?.ok, "a connection from before");

    wall.agent.start(None)?;
    ensure!(answers(&wall)? == before, "with the next agent");
    ensure!(held.exchange()?.ok, "a connection from before");
    let next = wall.agent.status()?;
    ensure!(links(&next)? == links(&status)?, "links: {:?} became {:?}", links(&status)?, links(&next)?);
    ensure!(next["policy"]["digest"] == status["policy"]["digest"], "the last good policy is not the same");
    ensure!(next["pid"] != status["pid"]);
    // It hears again what the kernel has to say.
    let skip = wall.agent.alerts()?.len();
    let (_, process) = wall.attempt(&at("app.service"), dns(FOREIGN))?;
    wall.agent.wait_for_alert(skip, |alert| alert["process"]["pid"] == process.pid())?;
    Ok(())
}

#[test]
fn nothing_leaks_and_nothing_is_dropped_while_agents_die() -> Result<()> {
    let mut wall = Wall::raise(POLICY)?;
    let to = vec![address("10.0.3.7:5432"), address("10.0.4.7:99"), address("198.51.100.53:53")];
    let policy = POLICY.replace("tcp/5432", "udp/5432");
    ensure!(wall.agent.apply(&policy)?.code == 0);
    let mark = wall.capture.mark()?;
    let flood = wall.start(&at("orders.service"), Act::Flood { to: to.clone(), one_socket: false })?;
    for _ in 0..5 {
        wall.agent.kill()?;
        wall.agent.start(None)?;
    }
    let counts = flood.finish()?.counts;
    wall.capture.mark()?;
    println!("sent and refused over five deaths: {counts:?}");
    ensure!(counts[0].0 > 1000 && counts[0].1 == 0, "false drops: {counts:?}");
    ensure!(counts[1].0 == 0 && counts[2].0 == 0, "leaks: {counts:?}");
    ensure!(to[1..].iter().all(|to| wall.capture.to_port(mark, 17, *to).is_empty()), "something arrived");
    Ok(())
}

#[test]
fn a_stopped_agent_leaves_the_wall_and_detach_takes_it_down() -> Result<()> {
    let mut wall = Wall::raise(POLICY)?;
    wall.echo(&[address("10.0.3.7:5432")].into(), &[address("10.0.4.7:99")].into())?;
    let before = answers(&wall)?;
    ensure!(wall.agent.stop()? == 0, "an agent that is asked to end does so cleanly");
    ensure!(answers(&wall)? == before);
    let said = wall.agent.say(&["status"])?;
    ensure!(said.code == 5, "nobody answers: {said:?}");
    let said = wall.agent.detach()?;
    ensure!(said.code == 0, "{said:?}");
    ensure!(answers(&wall)? == [true; 6], "the wall is down");
    ensure!(!wall.agent.pins().exists() || wall.agent.pins().read_dir()?.next().is_none(), "pins are left");
    Ok(())
}

/// Whoever may write where a star leads must not keep an agent from starting.
#[test]
fn what_has_decided_starts_though_a_star_names_too_much_by_now() -> Result<()> {
    let mut wall = Wall::prepare()?;
    let policy = wall.fill_in("version = 1\nmode = \"enforce\"\n[[allow]]\nto = [\"10.0.3.0/24\"]\nfrom = [{ exe = \"{copies}/*\" }]\n");
    wall.copy("tool")?;
    wall.agent.start(Some(&policy))?;
    wall.echo(&[address("10.0.3.8:9000")].into(), &[].into())?;
    let who = Who { exe: Exe::Copy("tool"), ..at("app.service") };
    wall.agent.kill()?;
    for number in 0..300 {
        let path = wall.copies().join(format!("a{number}"));
        std::fs::write(&path, "")?;
        std::os::unix::fs::chown(&path, Some(65534), None)?;
    }
    // The same file, as a unit names it, and none.
    for file in [Some(policy.as_str()), None] {
        wall.agent.start(file)?;
        ensure!(wall.run(&who, tcp("10.0.3.8:9000"))?.ok, "root's file is among those that count");
        wall.agent.kill()?;
    }
    let error = wall.agent.start(Some(&format!("{policy}# another\n"))).err().context("it started")?;
    ensure!(format!("{error:#}").contains("exit status: 3"), "{error:#}");
    wall.agent.start(None)
}

#[test]
fn an_agent_with_a_broken_policy_does_not_start_and_changes_nothing() -> Result<()> {
    let mut wall = Wall::raise(POLICY)?;
    wall.echo(&[address("10.0.3.7:5432")].into(), &[address("10.0.4.7:99")].into())?;
    let (status, before) = (wall.agent.status()?, answers(&wall)?);
    wall.agent.kill()?;
    let nobody =
        "version = 1\nmode = \"enforce\"\n[[deny]]\nto = [\"any\"]\nfrom = [{ user = \"no-such-user\" }]\n";
    for broken in ["version = 1\nmode = 7\n", nobody] {
        let error = wall.agent.start(Some(broken)).err().context("it started")?;
        ensure!(format!("{error:#}").contains("exit status: 3"), "{error:#}");
    }
    ensure!(answers(&wall)? == before);
    wall.agent.start(None)?;
    ensure!(wall.agent.status()?["policy"]["digest"] == status["policy"]["digest"]);
    ensure!(links(&wall.agent.status()?)? == links(&status)?);
    Ok(())
}

#[test]
fn a_policy_that_was_applied_is_the_one_restored() -> Result<()> {
    let mut wall = Wall::raise("version = 1\nmode = \"audit\"\n")?;
    wall.echo(&[address("10.0.3.7:5432")].into(), &[address("10.0.4.7:99")].into())?;
    ensure!(wall.agent.apply(POLICY)?.code == 0);
    let (status, before) = (wall.agent.status()?, answers(&wall)?);
    ensure!(wall.agent.stop()? == 0);
    // As after a reboot: nothing is pinned, only the state is there.
    ensure!(wall.agent.detach()?.code == 0);
    wall.agent.start(None)?;
    ensure!(wall.agent.status()?["policy"]["digest"] == status["policy"]["digest"]);
    ensure!(wall.agent.status()?["mode"] == "enforce");
    ensure!(answers(&wall)? == before);
    Ok(())
}

/// Whether each of a few flows gets through.
fn answers(wall: &Wall) -> Result<[bool; 6]> {
    let ask = |unit: &str, act| wall.run(&at(unit), act).map(|report| report.ok);
    Ok([
        ask("orders.service", tcp("10.0.3.7:5432"))?,
        ask("app.service", tcp("10.0.3.7:5432"))?,
        ask("app.service", dns(FOREIGN))?,
        ask("app.service", dns(RESOLVER))?,
        ask("app.service", dns_tcp(FOREIGN))?,
        ask("orders.service", udp("10.0.4.7:99"))?,
    ])
}

/// Name and link of each hook that this kernel has.
fn links(status: &Value) -> Result<Vec<(String, u64)>> {
    let hooks = status["hooks"].as_array().context("hooks")?;
    let links: Option<Vec<_>> = hooks
        .iter()
        .filter(|hook| hook["state"] != "not-available")
        .map(|hook| Some((hook["name"].as_str()?.to_owned(), hook["link_id"].as_u64().filter(|id| *id > 0)?)))
        .collect();
    let links = links.context("every hook has a name and a link id")?;
    ensure!(links.len() >= 7, "{links:?}");
    Ok(links)
}
