//! Without a wall everything arrives: what the other tests call refused was refused by the wall.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use dnswall_tests::act::{Act, TcpBy, UdpBy, raw, raw_own, tcp, udp};
use dnswall_tests::case::{allowed, case, refused};
use dnswall_tests::check::check;
use dnswall_tests::resolver::{ANSWER, FOREIGN, FOREIGN_V6, RESOLVER};
use dnswall_tests::wall::Wall;
use dnswall_tests::who::{Exe, at};

#[test]
fn everything_arrives_where_there_is_no_wall() -> Result<()> {
    let mut wall = Wall::build()?;
    let (v4, v6): (SocketAddr, SocketAddr) = ("10.0.3.7:9000".parse()?, "[2001:db8:1::7]:9000".parse()?);
    wall.echo(&BTreeSet::from([v4, v6]), &BTreeSet::from([v4, v6]))?;
    let orders = at("orders.service").uid(65534).exe(Exe::Copy("orders"));
    let admin = at("admin.service");

    let mut acts = Vec::new();
    for to in [v4, v6] {
        for by in [
            UdpBy::Sendto,
            UdpBy::Connected,
            UdpBy::Sendmmsg,
            UdpBy::SixSocket,
            UdpBy::Retargeted,
            UdpBy::Uring,
            UdpBy::Large,
        ] {
            acts.push((&orders, Act::Udp { to, by }, 17));
        }
        for by in [TcpBy::Connect, TcpBy::SixSocket, TcpBy::FastOpen, TcpBy::Multipath, TcpBy::Uring] {
            acts.push((&orders, Act::Tcp { to, by }, 6));
        }
        acts.push((&admin, Act::Udp { to, by: UdpBy::SourcePort53 }, 17));
        acts.push((&admin, Act::Tcp { to, by: TcpBy::SourcePort53 }, 6));
    }
    for (who, act, protocol) in acts {
        let mark = wall.capture.mark()?;
        let report = wall.run(who, act.clone())?;
        if let Some(feature) = act.needs()
            && !feature.is_here()?
        {
            ensure!(feature.lacking(&report).is_none(), "{:?}", feature.lacking(&report));
            println!("not run: {}: {act:?}", feature.name());
            continue;
        }
        ensure!(report.ok, "{act:?}: {report:?}");
        wall.capture.mark()?;
        let (Act::Udp { to, .. } | Act::Tcp { to, .. }) = act else { continue };
        ensure!(!wall.capture.to_port(mark, protocol, to).is_empty(), "{act:?} did not arrive");
    }

    for (to, raw) in [(FOREIGN, false), (FOREIGN_V6, false), (FOREIGN, true), (FOREIGN_V6, true)] {
        let report = wall.run(&admin, Act::Ping { to, raw })?;
        ensure!(report.ok, "ping {to}, raw {raw}: {report:?}");
    }
    for server in [FOREIGN, FOREIGN_V6, RESOLVER] {
        for tcp in [false, true] {
            let act = Act::Dns { server: (server, 53).into(), tcp, name: "www.example.com".into() };
            let report = wall.run(&orders, act)?;
            ensure!(report.received.as_deref() == Some(ANSWER), "{server}, tcp {tcp}: {report:?}");
        }
    }
    for act in [raw("198.51.100.53:10", 132), raw_own("198.51.100.53:10", 132, 0, &[])] {
        let mark = wall.capture.mark()?;
        let report = wall.run(&admin, act.clone())?;
        ensure!(report.ok, "{act:?}: {report:?}");
        wall.capture.mark()?;
        let arrived = wall.capture.to_port(mark, 132, "198.51.100.53:10".parse()?);
        // What is sent by hand is sent twice.
        ensure!(arrived.len() == 2, "{act:?}: {arrived:?}");
    }
    Ok(())
}

#[test]
fn what_serves_is_reached_and_what_holds_goes_on() -> Result<()> {
    use std::io::{Read, Write};
    let mut wall = Wall::build()?;
    let to: SocketAddr = "10.0.3.7:9000".parse()?;
    wall.echo(&BTreeSet::from([to]), &BTreeSet::from([to]))?;
    let server = wall.start(&at("web.service"), Act::Serve { at: "10.77.0.2:8080".parse()?, tcp: true })?;
    let mut stream = wall.network.far.run(|| std::net::TcpStream::connect("10.77.0.2:8080"))?;
    stream.write_all(b"hello")?;
    let mut buffer = [0; 5];
    stream.read_exact(&mut buffer)?;
    ensure!(&buffer == b"hello");
    drop(server);

    for tcp in [true, false] {
        let mut held = wall.start(&at("orders.service"), Act::Hold { to, tcp })?;
        for _ in 0..3 {
            ensure!(held.exchange()?.ok);
        }
    }
    let flood = wall.start(
        &at("orders.service"),
        Act::Flood { to: vec![to, "10.0.3.8:9".parse()?], one_socket: false },
    )?;
    std::thread::sleep(std::time::Duration::from_millis(50));
    let report = flood.finish()?;
    ensure!(
        report.counts.len() == 2 && report.counts.iter().all(|(sent, refused)| *sent > 0 && *refused == 0)
    );
    Ok(())
}

#[test]
fn a_table_that_is_wrong_is_found_out() -> Result<()> {
    let policy = "version = 1\nmode = \"enforce\"\n[[allow]]\nname = \"all\"\nto = [\"10.0.3.0/24\"]\n";
    let leak = case("leak", at("app.service"), tcp("10.0.3.7:1"), refused("egress.denied"));
    let drop = case("drop", at("app.service"), udp("10.0.4.7:1"), allowed("allow.all"));
    let alarm = case("alarm", at("app.service"), udp("10.0.4.8:1"), refused("dns.direct"));
    let error = format!("{:#}", check(policy, &[leak, drop, alarm]).err().context("nobody noticed")?);
    for words in [
        "3 of 3 cases",
        "did not get EPERM",
        "LEAKED: ",
        "no such alert",
        "was not answered",
        "nothing arrived",
        "there was an alert",
        "/kind is \"egress.denied\", not \"dns.direct\"",
        "says verdict \"allow\", not deny",
        "says verdict \"deny\", not allow",
    ] {
        ensure!(error.contains(words), "{words} is not in:\n{error}");
    }
    Ok(())
}
