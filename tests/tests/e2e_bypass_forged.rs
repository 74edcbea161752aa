//! Packets to oneself in another's name: the kernel's answer would carry them to a forbidden address. The ones over IPv6
//! are a user's without any capability.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use dnswall_tests::act::{Act, UdpBy, address, udp, udp_by};
use dnswall_tests::feature::Feature;
use dnswall_tests::trick::{Forged, Forgery};
use dnswall_tests::wall::Wall;
use dnswall_tests::who::{Who, at};
use serde_json::Value;

#[test]
fn the_kernel_answers_no_forged_source() -> Result<()> {
    let wall = Wall::raise(
        "version = 1\nmode = \"enforce\"\n[[allow]]\nto = [\"239.1.1.1\"]\nports = [\"udp/9\"]\n",
    )?;
    let (user, root) = (at("app.service").uid(65534), at("app.service"));
    let mut tries = vec![
        (&user, Forgery::Udp, "[2001:db8:4::9]:9999", "[fd00:77::2]:5999"),
        (&user, Forgery::UdpControl, "[2001:db8:4::5]:9999", "[fd00:77::2]:5994"),
        (&user, Forgery::Ping, "[2001:db8:4::9]:9999", "[fd00:77::2]:5999"),
        (&user, Forgery::Tcp, "[2001:db8:4::9]:9999", "[fd00:77::2]:5998"),
        (&user, Forgery::UdpBoundTwice, "[2001:db8:4::8]:9998", "[fd00:77::2]:5997"),
        (&user, Forgery::TcpBoundTwice, "[2001:db8:4::8]:9998", "[fd00:77::2]:5996"),
        (&user, Forgery::BoundToGroup, "[2001:db8:4::a]:9997", "[fd00:77::2]:5992"),
        (&user, Forgery::Corked, "[2001:db8:4::b]:9997", "[fd00:77::2]:5991"),
        (&root, Forgery::RawToItself, "[2001:db8:4::7]:0", "[fd00:77::2]:0"),
        (&root, Forgery::Udp, "10.0.4.9:9999", "10.77.0.2:5999"),
        (&root, Forgery::Udp, "240.0.4.9:9999", "10.77.0.2:5997"),
        (&root, Forgery::Ping, "10.0.4.9:9999", "10.77.0.2:5999"),
        (&root, Forgery::Tcp, "10.0.4.9:9999", "10.77.0.2:5998"),
        (&root, Forgery::GroupInterface, "10.0.4.10:9999", "10.77.0.2:5993"),
        (&root, Forgery::OwnCopy, "10.0.4.11:68", "10.77.0.2:67"),
        (&root, Forgery::BoundToGroup, "10.0.4.12:9999", "10.77.0.2:5990"),
        (&root, Forgery::Corked, "10.0.4.13:9999", "10.77.0.2:5989"),
    ];
    if Feature::Multipath.is_here()? {
        tries.push((&user, Forgery::Multipath, "[2001:db8:4::6]:9999", "[fd00:77::2]:5995"));
    } else {
        println!("not run: multipath TCP: a subflow's forged source");
    }
    let mut leaked = Vec::new();
    for (who, by, source, to) in &tries {
        let forged = Forged { source: address(source), to: address(to), by: *by };
        leaked.extend(leak(&wall, who, forged, forged.source.ip())?);
    }
    ensure!(leaked.is_empty(), "LEAKED:\n{}", leaked.join("\n"));
    // Each was really tried: the wall tells of every flow.
    for (_, by, source, _) in &tries {
        told(&wall, "forged-source", source).with_context(|| format!("told of {by:?}"))?;
    }
    Ok(())
}

/// What a socket named before there was a wall nobody knows.
#[test]
fn a_socket_older_than_the_wall_sends_in_nobodys_name() -> Result<()> {
    let mut wall = Wall::build()?;
    let user = at("app.service").uid(65534);
    let forged =
        |source| Forged { source: address(source), to: address("[fd00:77::2]:5988"), by: Forgery::Corked };
    let [without, with] = ["[2001:db8:4::1]:0", "[2001:db8:4::2]:0"].map(forged);
    let mut held = [wall.start(&user, Act::HoldForged(without))?, wall.start(&user, Act::HoldForged(with))?];
    let mark = wall.capture.mark()?;
    let report = held[0].exchange()?;
    wall.capture.mark()?;
    ensure!(
        !wall.capture.since(mark, without.source.ip()).is_empty(),
        "without a wall nothing leaves: {report:?}"
    );
    wall.agent.start(Some("version = 1\nmode = \"enforce\"\n"))?;
    let mark = wall.capture.mark()?;
    let report = held[1].exchange()?;
    wall.capture.mark()?;
    let arrived = wall.capture.since(mark, with.source.ip()).len();
    ensure!(report.errno == Some(libc::EPERM) && arrived == 0, "{report:?}, {arrived} arrived");
    told(&wall, "forged-source", "[2001:db8:4::2]:0")
}

/// A source that no host has: the kernel would answer a group, or all, on the link.
#[test]
fn what_comes_from_a_group_is_answered_on_no_link() -> Result<()> {
    let wall = Wall::raise("version = 1\nmode = \"enforce\"\n")?;
    for (source, to) in [
        ("239.1.1.9:0", "10.77.0.2:0"),
        ("255.255.255.255:0", "10.77.0.2:0"),
        ("224.0.0.251:0", "127.0.0.1:0"),
        ("[::]:0", "[fd00:77::2]:0"),
    ] {
        let forged = Forged { source: address(source), to: address(to), by: Forgery::RawNobodys };
        let mark = wall.capture.mark()?;
        let report = wall.run(&at("app.service"), Act::Forge(forged))?;
        wall.capture.mark()?;
        let arrived = wall.capture.since(mark, forged.source.ip()).len();
        ensure!(report.errno == Some(libc::EPERM) && arrived == 0, "{source}: {report:?}, {arrived} arrived");
    }
    Ok(())
}

#[test]
fn an_allowed_destination_is_told_no_forged_source() -> Result<()> {
    let policy = r#"
version = 1
mode = "enforce"
[[allow]]
name = "friends and a group"
to = ["2001:db8:3::7", "10.0.3.7", "ff15::7", "239.1.1.7"]
ports = ["udp/9999", "icmp/echo"]
[[allow]]
name = "a group to connect to"
to = ["239.1.1.1"]
ports = ["udp/9"]
"#;
    let wall = Wall::raise(policy)?;
    let (user, root) = (at("app.service").uid(65534), at("app.service"));
    for to in ["[2001:db8:3::7]:9999", "10.0.3.7:9999", "[ff15::7]:9999"] {
        let mark = wall.capture.mark()?;
        wall.run(&user, udp(to))?;
        wall.capture.mark()?;
        ensure!(!wall.capture.since(mark, address(to).ip()).is_empty(), "{to} is allowed, and hears nothing");
    }
    let tries = [
        (&user, Forgery::Udp, "[2001:db8:4::1]:9999", "[2001:db8:3::7]:9999"),
        (&user, Forgery::UdpControl, "[2001:db8:4::2]:9999", "[2001:db8:3::7]:9999"),
        (&user, Forgery::UdpBoundTwice, "[2001:db8:4::3]:9999", "[2001:db8:3::7]:9999"),
        (&root, Forgery::Udp, "10.0.4.4:9999", "10.0.3.7:9999"),
        (&user, Forgery::Udp, "[2001:db8:4::5]:9999", "[ff15::7]:9999"),
        (&root, Forgery::GroupInterface, "10.0.4.6:9999", "10.0.3.7:9999"),
        (&root, Forgery::GroupInterface, "10.0.4.7:9999", "239.1.1.7:9999"),
        (&user, Forgery::Ping, "[2001:db8:4::8]:9999", "[2001:db8:3::7]:9999"),
        (&root, Forgery::Ping, "10.0.4.8:9999", "10.0.3.7:9999"),
        (&user, Forgery::BoundToGroup, "[2001:db8:4::9]:9999", "[2001:db8:3::7]:9999"),
        (&user, Forgery::Corked, "[2001:db8:4::a]:9999", "[2001:db8:3::7]:9999"),
        (&root, Forgery::BoundToGroup, "10.0.4.9:9999", "10.0.3.7:9999"),
        (&root, Forgery::Corked, "10.0.4.10:9999", "10.0.3.7:9999"),
    ];
    let mut leaked = Vec::new();
    for (who, by, source, to) in tries {
        let forged = Forged { source: address(source), to: address(to), by };
        leaked.extend(leak(&wall, who, forged, forged.to.ip())?);
        told(&wall, "forged-source", source).with_context(|| format!("told of {by:?}"))?;
    }
    ensure!(leaked.is_empty(), "LEAKED:\n{}", leaked.join("\n"));
    Ok(())
}

/// A mark for good would be a way to silence a server: it names a source that is not the host's by mistake, or because whoever
/// asked it saw to that.
#[test]
fn who_sent_in_anothers_name_once_may_send_in_his_own() -> Result<()> {
    let policy =
        "version = 1\nmode = \"enforce\"\n[[allow]]\nto = [\"2001:db8:3::7\"]\nports = [\"udp/9000\"]\n";
    let mut wall = Wall::raise(policy)?;
    let to = address("[2001:db8:3::7]:9000");
    wall.echo(&[].into(), &[to].into())?;
    let report =
        wall.run(&at("app.service").uid(65534), udp_by("[2001:db8:3::7]:9000", UdpBy::AfterForged))?;
    ensure!(report.ok, "{report:?}");
    told(&wall, "forged-source", "[2001:db8:4::99]:0")
}

/// Accepted sockets answer whoever connected to them, and nobody else: a connection of this host with itself does not leave
/// it when its accepted end is bound to a device.
#[test]
fn a_connection_with_oneself_is_not_led_out() -> Result<()> {
    let wall = Wall::raise("version = 1\nmode = \"enforce\"\n")?;
    let user = at("app.service").uid(65534);
    for (source, to) in
        [("127.0.0.5:0", "10.77.0.2:5901"), ("[::1]:0", "[::1]:5902"), ("[::1]:0", "[fd00:77::2]:5903")]
    {
        let forged = Forged { source: address(source), to: address(to), by: Forgery::LedOut };
        let leaked = leak(&wall, &user, forged, forged.source.ip())?;
        ensure!(leaked.is_none(), "LEAKED: {leaked:?}");
        let there = forged.source.ip().to_string();
        let wanted = |alert: &Value| alert["flow"]["destination"] == there.as_str();
        wall.agent.wait_for_alert(0, wanted).with_context(|| format!("told of {source}"))?;
    }
    Ok(())
}

#[test]
fn the_kernel_resets_nobody_elsewhere_for_a_packet_by_hand() -> Result<()> {
    let wall = Wall::raise("version = 1\nmode = \"enforce\"\n")?;
    let forged =
        Forged { source: address("10.0.4.9:0"), to: address("10.77.0.2:5905"), by: Forgery::HeaderAway };
    let leaked = leak(&wall, &at("app.service"), forged, forged.source.ip())?;
    ensure!(leaked.is_none(), "LEAKED: {leaked:?}");
    told(&wall, "forged-source", "10.77.0.2:0")
}

#[test]
fn the_kernel_sends_nothing_on_for_a_segment_of_this_hosts_own() -> Result<()> {
    let wall = Wall::raise("version = 1\nmode = \"enforce\"\n")?;
    let forged = Forged {
        source: address("[2001:db8:4::9]:9999"),
        to: address("[fd00:77::2]:5999"),
        by: Forgery::Segments,
    };
    let leaked = leak(&wall, &at("app.service"), forged, forged.source.ip())?;
    ensure!(leaked.is_none(), "LEAKED: {leaked:?}");
    // From one's own address, by the header.
    told(&wall, "source-route", "[fd00:77::2]:0")
}

/// What arrived where nothing may: at the one it seemed to come from, or at the one it was sent to.
fn leak(wall: &Wall, who: &Who, forged: Forged, place: IpAddr) -> Result<Option<String>> {
    let mark = wall.capture.mark()?;
    let report = wall.run(who, Act::Forge(forged))?;
    // What it does before it sends, the kernel lets it do.
    ensure!(report.ok || report.errno == Some(libc::EPERM), "{forged:?} was not tried: {report:?}");
    wall.capture.mark()?;
    let arrived = wall.capture.since(mark, place);
    let Forged { source, by, .. } = forged;
    let said = || {
        format!("{by:?} as uid {} from {source}: {} packets at {place} ({report:?})", who.uid, arrived.len())
    };
    Ok((!arrived.is_empty()).then(said))
}

/// Waits for the alert of what seemed to come from there.
fn told(wall: &Wall, reason: &str, source: &str) -> Result<()> {
    let source = address(source).ip().to_string();
    let wanted = |alert: &Value| alert["reason"] == reason && alert["flow"]["source"] == source.as_str();
    wall.agent.wait_for_alert(0, wanted).map(drop)
}
