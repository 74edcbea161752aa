//! Several walls on one host.

use anyhow::{Result, ensure};
use dnswall_tests::act::{address, tcp};
use dnswall_tests::agent::Agent;
use dnswall_tests::wall::Wall;
use dnswall_tests::who::at;

#[test]
fn a_wall_within_a_wall_refuses_what_either_refuses() -> Result<()> {
    let rule = |port: u16| {
        format!("[[allow]]\nname = \"port {port}\"\nto = [\"10.0.3.0/24\"]\nports = [\"tcp/{port}\"]\n")
    };
    let head = "version = 1\nmode = \"enforce\"\n";
    let mut wall = Wall::raise(&format!("{head}{}{}", rule(1), rule(2)))?;
    let ports: Vec<_> = (1..=4).map(|port| address(&format!("10.0.3.7:{port}"))).collect();
    wall.echo(&ports.iter().copied().collect(), &[].into())?;
    let inner = wall.tree.child("inner.slice")?;
    let directory = wall.scratch("inner");
    std::fs::create_dir(&directory)?;
    let mut agent = Agent::prepare(&directory, &inner)?;
    agent.start(Some(&format!("{head}{}{}", rule(2), rule(3))))?;

    let passes = |unit: &str| -> Result<Vec<bool>> {
        (1..=4).map(|port| Ok(wall.run(&at(unit), tcp(&format!("10.0.3.7:{port}")))?.ok)).collect()
    };
    ensure!(passes("app.service")? == [true, true, false, false], "{:?}", passes("app.service")?);
    ensure!(passes("inner.slice/app.service")? == [false, true, false, false], "in both");
    // Each tells only what it refused.
    ensure!(
        agent.alerts()?.iter().all(|alert| alert["workload"]["cgroup"].to_string().contains("inner.slice"))
    );
    let (outer, inner) = (wall.agent.status()?, agent.status()?);
    ensure!(outer["hooks"][0]["link_id"] != inner["hooks"][0]["link_id"]);
    agent.kill()?;
    ensure!(agent.detach()?.code == 0);
    ensure!(passes("inner.slice/app.service")? == [true, true, false, false], "the inner wall is down");
    Ok(())
}

#[test]
fn walls_side_by_side_know_nothing_of_each_other() -> Result<()> {
    let head = "version = 1\nmode = \"enforce\"\n";
    let open = format!("{head}[[allow]]\nname = \"all\"\nto = [\"any\"]\n");
    let (one, two) = (Wall::raise(head)?, Wall::raise(&open)?);
    let (mut one, mut two) = (one, two);
    for wall in [&mut one, &mut two] {
        wall.echo(&[address("10.0.3.7:1")].into(), &[].into())?;
    }
    for _ in 0..3 {
        ensure!(one.run(&at("app.service"), tcp("10.0.3.7:1"))?.is_refused());
        ensure!(two.run(&at("app.service"), tcp("10.0.3.7:1"))?.ok);
    }
    drop(one);
    ensure!(two.run(&at("app.service"), tcp("10.0.3.7:1"))?.ok);
    ensure!(two.agent.alerts()?.is_empty(), "{:?}", two.agent.alerts()?);
    Ok(())
}
