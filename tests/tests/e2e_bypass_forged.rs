//! Packets to oneself in another's name: the kernel's answer would carry them to a forbidden address. The ones over IPv6
//! are a user's without any capability.

use anyhow::{Context as _, Result, ensure};
use dnswall_tests::act::{Act, address};
use dnswall_tests::feature::Feature;
use dnswall_tests::trick::{Forged, Forgery};
use dnswall_tests::wall::Wall;
use dnswall_tests::who::{Who, at};
use serde_json::Value;

#[test]
fn the_kernel_answers_no_forged_source() -> Result<()> {
    let wall = Wall::raise("version = 1\nmode = \"enforce\"\n")?;
    let (user, root) = (at("app.service").uid(65534), at("app.service"));
    let mut tries = vec![
        (&user, Forgery::Udp, "[2001:db8:4::9]:9999", "[fd00:77::2]:5999"),
        (&user, Forgery::UdpControl, "[2001:db8:4::5]:9999", "[fd00:77::2]:5994"),
        (&user, Forgery::Ping, "[2001:db8:4::9]:9999", "[fd00:77::2]:5999"),
        (&user, Forgery::Tcp, "[2001:db8:4::9]:9999", "[fd00:77::2]:5998"),
        (&user, Forgery::UdpBoundTwice, "[2001:db8:4::8]:9998", "[fd00:77::2]:5997"),
        (&user, Forgery::TcpBoundTwice, "[2001:db8:4::8]:9998", "[fd00:77::2]:5996"),
        (&root, Forgery::RawToItself, "[2001:db8:4::7]:0", "[fd00:77::2]:0"),
        (&root, Forgery::Udp, "10.0.4.9:9999", "10.77.0.2:5999"),
        (&root, Forgery::Udp, "240.0.4.9:9999", "10.77.0.2:5997"),
        (&root, Forgery::Ping, "10.0.4.9:9999", "10.77.0.2:5999"),
        (&root, Forgery::Tcp, "10.0.4.9:9999", "10.77.0.2:5998"),
    ];
    if Feature::Multipath.is_here()? {
        tries.push((&user, Forgery::Multipath, "[2001:db8:4::6]:9999", "[fd00:77::2]:5995"));
    } else {
        println!("not run: multipath TCP: a subflow's forged source");
    }
    let mut leaked = Vec::new();
    for (who, by, source, to) in &tries {
        let forged = Forged { source: address(source), to: address(to), by: *by };
        leaked.extend(leak(&wall, who, forged)?);
    }
    ensure!(leaked.is_empty(), "LEAKED:\n{}", leaked.join("\n"));
    // Each was really tried: the wall tells of every flow.
    for (_, by, source, _) in &tries {
        told(&wall, "forged-source", source).with_context(|| format!("told of {by:?}"))?;
    }
    Ok(())
}

#[test]
fn the_kernel_sends_nothing_on_for_a_segment_of_this_hosts_own() -> Result<()> {
    let wall = Wall::raise("version = 1\nmode = \"enforce\"\n")?;
    let forged = Forged {
        source: address("[2001:db8:4::9]:9999"),
        to: address("[fd00:77::2]:5999"),
        by: Forgery::Segments,
    };
    let leaked = leak(&wall, &at("app.service"), forged)?;
    ensure!(leaked.is_none(), "LEAKED: {leaked:?}");
    // From one's own address, by the header.
    told(&wall, "source-route", "[fd00:77::2]:0")
}

/// What arrived where it seemed to come from.
fn leak(wall: &Wall, who: &Who, forged: Forged) -> Result<Option<String>> {
    let mark = wall.capture.mark()?;
    let report = wall.run(who, Act::Forge(forged))?;
    // What it does before it sends, the kernel lets it do.
    ensure!(report.ok || report.errno == Some(libc::EPERM), "{forged:?} was not tried: {report:?}");
    wall.capture.mark()?;
    let arrived = wall.capture.since(mark, forged.source.ip());
    let Forged { source, by, .. } = forged;
    let said = || format!("{by:?} as uid {} from {source}: {} packets ({report:?})", who.uid, arrived.len());
    Ok((!arrived.is_empty()).then(said))
}

/// Waits for the alert of what seemed to come from there.
fn told(wall: &Wall, reason: &str, source: &str) -> Result<()> {
    let source = address(source).ip().to_string();
    let wanted = |alert: &Value| alert["reason"] == reason && alert["flow"]["source"] == source.as_str();
    wall.agent.wait_for_alert(0, wanted).map(drop)
}
