//! Raw sockets, other protocols, and what only privileged processes send.

use anyhow::{Result, ensure};
use dnswall_tests::act::{Act, UdpBy, icmp, raw, raw_forged, raw_own, raw_ping, segment, udp_by};
use dnswall_tests::ask::{message, wire};
use dnswall_tests::case::{allowed, case, passes, refused, refused_for};
use dnswall_tests::check::check;
use dnswall_tests::wall::Wall;
use dnswall_tests::who::at;

#[test]
fn raw_sockets_are_for_some_and_their_packets_are_judged() -> Result<()> {
    let policy = r#"
version = 1
mode = "enforce"
[dns]
resolvers = ["169.254.169.253", "fd00:ec2::253"]
[raw]
from = [{ unit = "netops.service" }]
[[allow]]
name = "sctp"
to = ["10.0.4.0/24", "2001:db8:4::/48"]
ports = ["sctp/9999"]
[[allow]]
name = "udp"
to = ["10.0.4.0/24"]
ports = ["udp/1000-2000"]
[[allow]]
name = "lab"
to = ["10.0.5.0/24"]
"#;
    let netops = || at("netops.service");
    let no = refused("egress.denied");
    let no_socket = refused_for("socket.raw", "raw-socket");
    let fragment = refused_for("egress.denied", "fragment");
    let route = refused_for("egress.denied", "source-route");
    let tunnel = refused_for("egress.denied", "tunnel");
    let make = |family, kind, protocol| Act::Socket { family, kind, protocol };
    let question = refused_for("dns.malformed", "malformed-question");
    let split = refused_for("dns.malformed", "split-question");
    check(
        policy,
        &[
            case(
                "UDP by hand to a foreign resolver",
                netops(),
                raw("198.51.100.53:53", 17),
                refused("dns.direct"),
            ),
            case("the same, IPv6", netops(), raw("[2001:db8::53]:53", 17), refused("dns.direct")),
            case(
                "with a header of its own",
                netops(),
                raw_own("198.51.100.53:53", 17, 0, &[]),
                refused("dns.direct"),
            ),
            case(
                "UDP by hand to the resolver, no question",
                netops(),
                raw("169.254.169.253:53", 17),
                question,
            )
            .unexplained(),
            case("with a header of its own", netops(), raw_own("169.254.169.253:53", 17, 0, &[]), question)
                .unexplained(),
            // Beside those of a connection, of which it may be a part.
            case("TCP by hand to the resolver", netops(), question_by_hand("169.254.169.253:53"), split)
                .unexplained(),
            case("the same on loopback", netops(), question_by_hand("127.0.0.53:53"), split).unexplained(),
            case("and over IPv6", netops(), question_by_hand("[::1]:53"), split).unexplained(),
            case(
                "in a neighbour's name",
                netops(),
                raw_forged("169.254.169.253:53", 17),
                refused_for("dns.direct", "forged-source"),
            )
            .unexplained(),
            case(
                "the same where anything may go",
                netops(),
                raw_forged("10.0.5.1:1", 47),
                refused_for("egress.denied", "forged-source"),
            )
            .unexplained(),
            case("UDP by hand, not allowed", netops(), raw("10.0.4.1:999", 17), no),
            case("UDP by hand, allowed", netops(), raw("10.0.4.1:1000", 17), allowed("allow.udp")),
            case("SCTP", netops(), raw("10.0.4.1:9999", 132), allowed("allow.sctp")),
            case("SCTP, IPv6", netops(), raw("[2001:db8:4::1]:9999", 132), allowed("allow.sctp")),
            case("SCTP, another port", netops(), raw("10.0.4.1:9998", 132), no),
            case("SCTP, elsewhere", netops(), raw("10.0.6.1:9999", 132), no),
            case("GRE where everything may go", netops(), raw("10.0.5.1:1", 47), allowed("allow.lab")),
            case("GRE", netops(), raw("10.0.4.1:1", 47), no),
            case("GRE to this host", netops(), raw("127.0.0.1:1", 47), tunnel).unexplained(),
            case("IGMP to this host", netops(), raw("127.0.0.1:1", 2), tunnel).unexplained(),
            case("IP in IP", netops(), raw("10.0.4.1:1", 4), no),
            case("ESP with a header of its own", netops(), raw_own("10.0.4.1:1", 50, 0, &[]), no),
            case("neighbour discovery stays on the link", netops(), icmp("2001:db8:7::1", 133), no),
            case("a process may not write errors", netops(), icmp("2001:db8:7::1", 1), no),
            case("a first fragment", netops(), raw_own("10.0.5.1:1", 17, 0x2000, &[]), fragment)
                .unexplained(),
            case("a later fragment", netops(), raw_own("10.0.5.1:1", 17, 100, &[]), fragment).unexplained(),
            case("a loose source route", netops(), raw_own("10.0.5.1:1", 17, 0, &LOOSE), route).unexplained(),
            case("a strict source route", netops(), raw_own("10.0.5.1:1", 17, 0, &STRICT), route)
                .unexplained(),
            case(
                "a harmless option",
                netops(),
                raw_own("10.0.5.1:1", 17, 0, &[1, 1, 1, 0]),
                allowed("allow.lab"),
            ),
            case("SYN by hand", netops(), segment("10.0.6.1:80", SYN), no),
            case("ACK by hand", netops(), segment("10.0.6.1:80", ACK), no),
            case("SYN and ACK by hand", netops(), segment("10.0.6.1:80", SYN | ACK), no),
            case("RST by hand", netops(), segment("10.0.6.1:80", RST), no),
            case("no flag at all", netops(), segment("10.0.6.1:80", 0), no),
            case("ACK to a resolver", netops(), segment("198.51.100.53:53", ACK), refused("dns.direct")),
            case("SYN by hand, allowed", netops(), segment("10.0.5.1:80", SYN), allowed("allow.lab")),
            case(
                "ICMP may be opened by anyone",
                at("app.service"),
                raw_ping("10.0.5.1"),
                allowed("allow.lab"),
            ),
            case("UDP", at("app.service"), make(libc::AF_INET, libc::SOCK_RAW, 17), no_socket),
            case("TCP, IPv6", at("app.service"), make(libc::AF_INET6, libc::SOCK_RAW, 6), no_socket),
            case("everything", at("app.service"), make(libc::AF_INET, libc::SOCK_RAW, 255), no_socket),
            case(
                "a forged unit",
                at("app.service/netops.service"),
                make(libc::AF_INET, libc::SOCK_RAW, 17),
                no_socket,
            ),
            case(
                "a datagram in fragments",
                at("app.service"),
                udp_by("10.0.4.1:1500", UdpBy::Large),
                allowed("allow.udp"),
            ),
            case("fragments, not allowed", at("app.service"), udp_by("10.0.4.1:2500", UdpBy::Large), no),
        ],
    )
}

/// A segment with a question in it.
fn question_by_hand(to: &str) -> Act {
    let question = message(&wire("www.example"), 1, &[]);
    match segment(to, ACK) {
        Act::Raw { to, protocol, header, payload } => {
            let payload = [&payload[..], &[0, question.len() as u8], &question].concat();
            Act::Raw { to, protocol, header, payload }
        }
        other => other,
    }
}

#[test]
fn neighbour_discovery_on_the_link_passes() -> Result<()> {
    let solicit = icmp("ff02::2", 133);
    let policy = "version = 1\nmode = \"enforce\"\n";
    check(
        policy,
        &[
            case("router solicitation", at("net.service"), solicit, passes("essential")).unexplained(),
            // This host hears it, too, and would take whatever address it offers.
            case("router advertisement", at("net.service"), icmp("ff02::1", 134), refused("egress.denied")),
            case("redirect", at("net.service"), icmp("ff02::1", 137), refused("egress.denied")),
        ],
    )
}

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
/// Through 10.0.6.1, where the packet may not go.
const LOOSE: [u8; 8] = [131, 7, 4, 10, 0, 6, 1, 0];
const STRICT: [u8; 8] = [137, 7, 4, 10, 0, 6, 1, 0];

/// Errors, replies and resets are the kernel's alone to write; a socket of which nothing is recorded is not for that the kernel's.
#[test]
fn a_raw_socket_older_than_the_wall_is_a_processs() -> Result<()> {
    let mut wall = Wall::build()?;
    let destinations = ["198.51.100.7", "2001:db8:9::7"];
    let mut held = destinations
        .iter()
        .map(|to| wall.start(&at("app.service"), Act::HoldRaw { to: to.parse()? }))
        .collect::<Result<Vec<_>>>()?;
    let mut sent = |wall: &Wall| -> Result<Vec<(bool, usize)>> {
        let each = held.iter_mut().zip(destinations).map(|(held, to)| {
            let mark = wall.capture.mark()?;
            let report = held.exchange()?;
            wall.capture.mark()?;
            Ok((report.ok, wall.capture.since(mark, to.parse()?).len()))
        });
        each.collect()
    };
    let before = sent(&wall)?;
    ensure!(before.iter().all(|(ok, arrived)| *ok && *arrived > 0), "without a wall: {before:?}");
    wall.agent.start(Some("version = 1\nmode = \"enforce\"\n"))?;
    let after = sent(&wall)?;
    ensure!(after.iter().all(|sent| *sent == (false, 0)), "with one: {after:?}");
    Ok(())
}
