//! More than the wall has room for: verdicts do not depend on what is remembered, and every refusal is counted.

use anyhow::{Result, ensure};
use dnswall_common::limits::REFUSED_FLOWS_MAX;
use dnswall_tests::act::{Act, address, dns, tcp, udp};
use dnswall_tests::resolver::{FOREIGN, RESOLVER};
use dnswall_tests::wall::Wall;
use dnswall_tests::who::at;

#[test]
fn more_refused_flows_than_are_remembered_change_no_verdict() -> Result<()> {
    let mut wall = Wall::raise(
        r#"
version = 1
mode = "enforce"
[dns]
resolvers = ["169.254.169.253"]
[[allow]]
name = "lab"
to = ["10.0.3.0/24"]
"#,
    )?;
    let to = address("10.0.3.8:9000");
    wall.echo(&[to].into(), &[to].into())?;
    let app = at("app.service").uid(65534);
    let count = REFUSED_FLOWS_MAX as u32 + 5000;
    let before = denied(&wall)?;
    let report = wall.run(&app, Act::Sweep { from: address("[2001:db8:f::]:9000"), count })?;
    ensure!(report.counts == [(0, u64::from(count))], "{report:?}");
    ensure!(denied(&wall)? - before == u64::from(count), "counted: {}", denied(&wall)? - before);
    for (act, passes) in [
        (udp("10.0.3.8:9000"), true),
        (tcp("10.0.3.8:9000"), true),
        (dns(RESOLVER), true),
        (udp("10.0.4.8:9000"), false),
        (tcp("10.0.4.8:9000"), false),
        (dns(FOREIGN), false),
    ] {
        let report = wall.run(&app, act.clone())?;
        ensure!(report.ok == passes && report.is_refused() != passes, "{act:?}: {report:?}");
    }
    Ok(())
}

/// Refusals that the default counts.
fn denied(wall: &Wall) -> Result<u64> {
    let status = wall.agent.status()?;
    let rules = status["rules"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(rules.iter().filter(|rule| rule["name"] == "default").filter_map(|rule| rule["denied"].as_u64()).sum())
}
