//! How much may be asked: the shape of names, and how often, by workload.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use dnswall_agent::demo::network::NEAR_V4;
use dnswall_tests::act::{Act, MessageBy, Report, Tally};
use dnswall_tests::ask::{asked, message, wire};
use dnswall_tests::case::{Alarm, Case, Expect, allowed, case};
use dnswall_tests::check::check;
use dnswall_tests::pace::within;
use dnswall_tests::process::Process;
use dnswall_tests::resolver::Dnsmasq;
use dnswall_tests::wall::Wall;
use dnswall_tests::who::at;
use dnswall_tests::zone::{ELSEWHERE, Follow, Kind, ZONE};

/// Limits follow.
const POLICY: &str = r#"
version = 1
mode = "enforce"
[[dns.stub]]
address = "127.0.0.1"
from = [{ unit = "stub.service" }]
[[scope]]
name = "free"
from = [{ unit = "free.service" }]
limits = { questions-per-second = "none", names-per-domain = "none", nxdomain-per-minute = "none", answer-bytes = {} }
[dns]
resolvers = ["203.0.113.77", "fd00:ec2::77", "169.254.169.253"]
[dns.limits]
"#;

/// The stub, inside the wall.
const STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));

/// A wall with these limits, and a server of the made-up zone at the far side.
fn raise(limits: &str) -> Result<(Wall, Process)> {
    let mut wall = Wall::prepare()?;
    let zone = wall.zone()?;
    wall.agent.start_inside(wall.network.near.path());
    wall.agent.start(Some(&format!("{POLICY}{limits}\n")))?;
    Ok((wall, zone))
}

fn names(zone: &str, first: u32, count: u32) -> Follow {
    Follow::asks(Kind::Host, zone, first, count)
}

/// What came of the questions.
fn ask(wall: &Wall, unit: &str, follow: Follow) -> Result<Tally> {
    let report = wall.run(&at(unit), Act::Follow(follow))?;
    report.tallies.into_iter().next().context("a tally")
}

/// Asks the made-up zone's server once.
fn once(wall: &Wall, unit: &str, name: &str, kind: u16) -> Result<Report> {
    let server = SocketAddr::new(ZONE, 53);
    let message = message(&wire(name), kind, &[]);
    wall.run(&at(unit), Act::Message { server, message, by: MessageBy::Datagram })
}

const TXT: u16 = 16;

#[test]
fn names_that_nobody_needs_are_not_asked_for() -> Result<()> {
    let policy = r#"
version = 1
mode = "enforce"
[dns]
resolvers = ["169.254.169.253", "fd00:ec2::253"]
[dns.limits]
name-length = 40
label-length = 20
labels = 5
[[scope]]
name = "long names"
from = [{ unit = "long.service" }]
limits = { name-length = "none", labels = 8 }
[[scope]]
name = "only looked at"
from = [{ unit = "audited.service" }]
mode = "audit"
"#;
    let refused = |reason, rule| Expect::Refused(Alarm { kind: "dns.limit", reason, rule });
    let fine = allowed("dns.resolvers");
    let line = |name: &'static str, unit: &'static str, asks: &str, by, expect| -> Case {
        case(name, at(unit), asked(&message(&wire(asks), 1, &[]), by), expect).unexplained()
    };
    let (app, long) = ("app.service", "long.service");
    use MessageBy::{Datagram, Stream};
    let label = |bytes: usize| "x".repeat(bytes);
    // 20 + 1 + 19 bytes.
    let forty = format!("{}.{}", label(20), label(19));
    let more = format!("{}.{}", label(20), label(20));
    let longest = format!("{}.example", label(20));
    let longer = format!("{}.example", label(21));
    let by_labels = |rule| refused("label-count", rule);
    check(
        policy,
        &[
            line("as long as may be", app, &forty, Datagram, fine),
            line("longer", app, &more, Datagram, refused("name-length", "dns.limits")),
            line("longer over TCP", app, &more, Stream, refused("name-length", "dns.limits").unheard()),
            line("a label as long as may be", app, &longest, Datagram, fine),
            line("a longer one", app, &longer, Datagram, refused("label-length", "dns.limits")),
            line("as many labels", app, "a.b.c.d.example", Datagram, fine),
            line("one more", app, "a.b.c.d.e.example", Datagram, by_labels("dns.limits")),
            line("the root", app, "", Datagram, fine),
            line("elsewhere it may be longer", long, &more, Datagram, fine),
            line(
                "but not its labels",
                long,
                &longer,
                Datagram,
                refused("label-length", "scope.long names.limits"),
            ),
            line("more labels there", long, "a.b.c.d.e.f.g.h", Datagram, fine),
            line("and no more", long, "a.b.c.d.e.f.g.h.i", Datagram, by_labels("scope.long names.limits")),
            line(
                "where it is only looked at",
                "audited.service",
                &more,
                Datagram,
                Expect::WouldDeny(Alarm { kind: "dns.limit", reason: "name-length", rule: "dns.limits" }),
            ),
        ],
    )
}

#[test]
fn a_workload_asks_so_often_in_a_second() -> Result<()> {
    let (mut wall, _zone) = raise("questions-per-second = 40")?;
    let burst = |first| names("app.example", first, 100);
    let hasty = ask(&wall, "app.service", burst(0))?;
    // In two seconds, should the clock turn meanwhile.
    ensure!((20..=60).contains(&hasty.refused) && hasty.ok == 100 - hasty.refused, "{hasty:?}");
    let alert = wall.agent.wait_for_alert(0, |alert| alert["kind"] == "dns.limit")?;
    ensure!(alert["reason"] == "question-rate" && alert["rule"] == "dns.limits", "{alert}");
    let other = ask(&wall, "other.service", names("app.example", 0, 20))?;
    ensure!(other.ok == 20, "another workload: {other:?}");
    let free = ask(&wall, "free.service", burst(0))?;
    ensure!(free.ok == 100, "its scope has none: {free:?}");
    // The resolver asks for others.
    let cgroup = wall.tree.child("stub.service")?;
    let _stub = Dnsmasq::forward(wall.probe(), &wall.network.near, Some(cgroup), &[STUB], ZONE)?;
    for unit in ["a.service", "b.service", "c.service"] {
        let through =
            Follow { server: SocketAddr::new(STUB, 53), ..names(&format!("{unit}.example"), 0, 30) };
        let asked = ask(&wall, unit, through)?;
        ensure!(asked.ok == 30, "through the resolver: {asked:?}");
    }
    thread::sleep(Duration::from_millis(1_100));
    wall.agent.kill()?;
    let hasty = ask(&wall, "app.service", burst(500))?;
    ensure!((20..=60).contains(&hasty.refused), "with a dead agent: {hasty:?}");
    thread::sleep(Duration::from_millis(1_100));
    let calm = ask(&wall, "app.service", names("app.example", 0, 20))?;
    ensure!(calm.ok == 20, "the second is over: {calm:?}");
    Ok(())
}

#[test]
fn a_workload_asks_for_so_many_names_of_a_domain() -> Result<()> {
    let (wall, _zone) = raise("names-per-domain = 50")?;
    let many = ask(&wall, "app.service", names("tunnel.example", 0, 200))?;
    ensure!((147..=150).contains(&many.refused) && many.ok == 200 - many.refused, "{many:?}");
    let alert = wall.agent.wait_for_alert(0, |alert| alert["kind"] == "dns.limit")?;
    ensure!(alert["reason"] == "names-per-domain" && alert["rule"] == "dns.limits", "{alert}");
    // Deeper below it is below it; a name that was asked for may be asked for again.
    let deeper = ask(&wall, "app.service", names("a.b.tunnel.example", 0, 20))?;
    ensure!(deeper.refused >= 18, "{deeper:?}");
    let again = ask(&wall, "app.service", names("TUNNEL.example", 0, 40))?;
    ensure!(again.ok == 40, "asked before: {again:?}");
    let other = ask(&wall, "app.service", names("other.example", 0, 40))?;
    ensure!(other.ok == 40, "another domain: {other:?}");
    let other = ask(&wall, "other.service", names("tunnel.example", 0, 40))?;
    ensure!(other.ok == 40, "another workload: {other:?}");
    let free = ask(&wall, "free.service", names("tunnel.example", 0, 200))?;
    ensure!(free.ok == 200, "its scope has none: {free:?}");
    // What lies below co.uk is many people's.
    for zone in ["one.co.uk", "two.co.uk", "three.com.au"] {
        let asked = ask(&wall, "app.service", names(zone, 0, 40))?;
        ensure!(asked.ok == 40, "{zone}: {asked:?}");
    }
    let many = ask(&wall, "app.service", names("four.co.uk", 0, 200))?;
    ensure!((147..=150).contains(&many.refused), "{many:?}");
    // The names themselves: hosts right below a country's second level are domains of their own.
    let domains = ask(&wall, "app.service", names("co.uk", 0, 200))?;
    ensure!(domains.ok == 200, "{domains:?}");
    Ok(())
}

#[test]
fn who_is_told_too_often_that_there_is_no_such_name_asks_no_more() -> Result<()> {
    let (wall, _zone) = raise("nxdomain-per-minute = 20")?;
    for number in 0..20 {
        let report = once(&wall, "app.service", &format!("n{number}.nowhere.example"), 1)?;
        ensure!(report.ok, "{number}: {report:?}");
    }
    let late = once(&wall, "app.service", "n20.nowhere.example", 1)?;
    ensure!(late.is_refused(), "{late:?}");
    let alert = wall.agent.wait_for_alert(0, |alert| alert["kind"] == "dns.limit")?;
    ensure!(alert["reason"] == "nxdomain-rate", "{alert}");
    let exists = ask(&wall, "other.service", names("app.example", 0, 50))?;
    ensure!(exists.ok == 50, "names that exist: {exists:?}");
    // Somebody else, from the right port, to a server of the workload's that has asked nothing.
    let place = SocketAddr::new(NEAR_V4.into(), 8080);
    let _server = wall.start(&at("other.service"), Act::Push { at: place })?;
    let mut forged = message(&wire("n0.nowhere.example"), 1, &[]);
    (forged[2], forged[3]) = (0x81, 0x83);
    let stranger = wall.network.far.run(|| UdpSocket::bind("198.51.100.9:53"))?;
    for _ in 0..60 {
        stranger.send_to(&forged, place)?;
    }
    wall.capture.mark()?;
    ensure!(once(&wall, "other.service", "n0.nowhere.example", 1)?.ok, "another workload");
    for number in 0..40 {
        ensure!(
            once(&wall, "free.service", &format!("n{number}.nowhere.example"), 1)?.ok,
            "its scope has none"
        );
    }
    Ok(())
}

/// Answers "no such name" that nobody waits for: those of a server that may not be asked, and those of the resolver beyond the one that
/// was asked for, are not counted.
#[test]
fn only_what_a_socket_waits_for_is_weighed() -> Result<()> {
    let mut wall = Wall::prepare()?;
    wall.agent.start_inside(wall.network.near.path());
    wall.agent.start(Some(&format!("{POLICY}nxdomain-per-minute = 17\n")))?;
    let bind = |address| wall.network.far.run(|| UdpSocket::bind(SocketAddr::new(address, 53)));
    let (resolver, stranger) = (bind(ZONE)?, bind(ELSEWHERE)?);
    resolver.set_read_timeout(Some(within(Duration::from_secs(1))))?;
    let is_over = &AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        let server = scope.spawn(|| -> Result<()> {
            while !is_over.load(Ordering::Relaxed) {
                let mut question = [0; 512];
                let Ok((bytes, from)) = resolver.recv_from(&mut question) else { continue };
                let [answer, mut none] = [0x80, 0x83].map(|code| {
                    let mut answer = question[..bytes].to_vec();
                    (answer[2], answer[3]) = (0x81, code);
                    answer
                });
                if question[12..].starts_with(b"\x0bhost-60-1") {
                    // Before its socket has the answer it waits for.
                    stranger.send_to(&none, from)?;
                    resolver.send_to(&answer, from)?;
                } else {
                    resolver.send_to(&answer, from)?;
                    for id in 0..40 {
                        none[0] = id;
                        resolver.send_to(&none, from)?;
                    }
                }
            }
            Ok(())
        });
        let asked = || -> Result<()> {
            // Numbers that begin with 1, and others: sixteen from one socket, fewer than the limit.
            let strange = ask(&wall, "app.service", names("app.example", 100, 60))?;
            ensure!(strange.ok == 60, "a stranger's answers: {strange:?}");
            let late = ask(&wall, "late.service", names("app.example", 200, 16))?;
            ensure!(late.ok == 16, "answers behind the one: {late:?}");
            for unit in ["app.service", "late.service"] {
                let then = ask(&wall, unit, names("app.example", 160, 4))?;
                ensure!(then.ok == 4, "{unit} then: {then:?}");
            }
            Ok(())
        };
        let asked = asked();
        is_over.store(true, Ordering::Relaxed);
        server.join().map_err(|_| anyhow!("the server panicked"))??;
        asked
    })
}

#[test]
fn what_answers_weigh_is_limited_by_type() -> Result<()> {
    // A name that has no such record is answered in some forty bytes.
    let (wall, _zone) = raise("answer-bytes = { TXT = 150, NULL = 1000000 }")?;
    let text = |number: u32| once(&wall, "app.service", &Kind::Host.name(60, number, "app.example"), TXT);
    let answered = (0..10).map(text).collect::<Result<Vec<_>>>()?.iter().filter(|report| report.ok).count();
    ensure!((3..=5).contains(&answered), "{answered} of 10");
    let late = text(11)?;
    ensure!(late.is_refused(), "{late:?}");
    let alert = wall.agent.wait_for_alert(0, |alert| alert["kind"] == "dns.limit")?;
    ensure!(alert["reason"] == "answer-bytes" && alert["dns"]["type"] == "TXT", "{alert}");
    let addresses = ask(&wall, "app.service", names("app.example", 0, 50))?;
    ensure!(addresses.ok == 50, "another type: {addresses:?}");
    let over_tcp = ask(&wall, "app.service", Follow { tcp: true, ..names("app.example", 0, 5) })?;
    ensure!(over_tcp.ok == 5, "over TCP: {over_tcp:?}");
    // Behind a question for addresses, in one segment.
    let name = wire(&Kind::Host.name(60, 1, "app.example"));
    let (first, second) = (message(&name, 1, &[]), message(&name, TXT, &[]));
    let both = [&first[..], &(second.len() as u16).to_be_bytes(), &second].concat();
    let server = SocketAddr::new(ZONE, 53);
    let both = Act::Message { server, message: both, by: MessageBy::TwoMessages };
    let fine = wall.run(&at("other.service"), both.clone())?;
    ensure!(fine.ok, "both, where neither is too much: {fine:?}");
    let report = wall.run(&at("app.service"), both)?;
    ensure!(!report.ok, "the second question of a segment: {report:?}");
    ensure!(
        once(&wall, "other.service", &Kind::Host.name(60, 1, "app.example"), TXT)?.ok,
        "another workload"
    );
    Ok(())
}

/// Deeper than the kernel looks nobody is anybody, and a resolver on loopback is asked all the same: by the strictest limits there are, and not
/// for what anybody may not ask.
#[test]
fn who_hides_is_limited_most() -> Result<()> {
    let policy = r#"
version = 1
mode = "enforce"
[[dns.stub]]
address = "127.0.0.1"
from = [{ unit = "stub.service" }]
[dns]
resolvers = ["203.0.113.77"]
[dns.limits]
name-length = 60
[[scope]]
name = "short names"
from = [{ unit = "short.service" }]
limits = { name-length = 30 }
[[scope]]
name = "any names"
from = [{ unit = "free.service" }]
limits = { name-length = "none" }
[[deny]]
to = ["*.no.example"]
from = [{ unit = "short.service" }]
"#;
    let mut wall = Wall::prepare()?;
    let _zone = wall.zone()?;
    wall.agent.start_inside(wall.network.near.path());
    wall.agent.start(Some(policy))?;
    let _stub = wall.start(&at("stub.service"), Act::Zone { at: vec![STUB] })?;
    let asks = |cgroup: &str, zone: &str| -> Result<Tally> {
        let follow = Follow { server: SocketAddr::new(STUB, 53), ..names(zone, 1, 1) };
        ask(&wall, cgroup, follow)
    };
    let deep = format!("free.service{}", "/d".repeat(40));
    // 27, 38 and 70 bytes.
    let [short, long, longer] = ["short-one.example", "rather-long-that-one.example", &"x".repeat(60)];
    for (cgroup, zone, may) in [
        ("short.service", short, true),
        ("short.service", long, false),
        ("free.service", longer, true),
        (&deep, short, true),
        (&deep, long, false),
        ("short.service", "no.example", false),
        ("free.service", "no.example", true),
        (&deep, "no.example", false),
    ] {
        let asked = asks(cgroup, zone)?;
        ensure!((asked.ok == 1, asked.refused == 1) == (may, !may), "{cgroup} asks below {zone}: {asked:?}");
    }
    Ok(())
}
