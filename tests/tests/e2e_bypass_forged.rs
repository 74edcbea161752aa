//! Packets to oneself in another's name: the kernel's answer would carry them to a forbidden address. The ones over IPv6
//! are a user's without any capability.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use dnswall_tests::act::{Act, address};
use dnswall_tests::trick::{Forged, Forgery};
use dnswall_tests::wall::Wall;
use dnswall_tests::who::at;

#[test]
fn the_kernel_answers_no_forged_source() -> Result<()> {
    let wall = Wall::raise("version = 1\nmode = \"enforce\"\n")?;
    let (user, root) = (at("app.service").uid(65534), at("app.service"));
    let mut leaked = Vec::new();
    for (who, by, source, to) in [
        (&user, Forgery::Udp, "[2001:db8:4::9]:9999", "[fd00:77::2]:5999"),
        (&user, Forgery::UdpControl, "[2001:db8:4::9]:9999", "[fd00:77::2]:5999"),
        (&user, Forgery::Ping, "[2001:db8:4::9]:9999", "[fd00:77::2]:5999"),
        (&user, Forgery::Tcp, "[2001:db8:4::9]:9999", "[fd00:77::2]:5998"),
        (&root, Forgery::Udp, "10.0.4.9:9999", "10.77.0.2:5999"),
        (&root, Forgery::Ping, "10.0.4.9:9999", "10.77.0.2:5999"),
        (&root, Forgery::Tcp, "10.0.4.9:9999", "10.77.0.2:5998"),
    ] {
        let mark = wall.capture.mark()?;
        let forged = Forged { source: address(source), to: address(to), by };
        let report = wall.run(who, Act::Forge(forged))?;
        wall.capture.mark()?;
        let arrived = wall.capture.since(mark, forged.source.ip());
        if !arrived.is_empty() {
            leaked.push(format!(
                "{by:?} as uid {} from {source}: {} packets ({report:?})",
                who.uid,
                arrived.len()
            ));
        }
    }
    ensure!(leaked.is_empty(), "LEAKED:\n{}", leaked.join("\n"));
    // Each was really tried: the wall tells of every flow; the two of UDP over IPv6 are one.
    let alerts = wall.agent.alerts()?;
    let told: BTreeSet<String> = alerts
        .iter()
        .filter(|alert| alert["reason"] == "forged-source")
        .map(|alert| format!("{} {}", alert["flow"]["protocol"], alert["flow"]["source"]))
        .collect();
    ensure!(told.len() == 6, "told of {told:?}");
    Ok(())
}
