//! Headers that hide what follows them, and raw sockets that were opened for something else.

use anyhow::Result;
use dnswall_tests::act::{Act, Header, address, icmp, raw_hidden};
use dnswall_tests::case::{allowed, case, refused, refused_for};
use dnswall_tests::check::check;
use dnswall_tests::who::at;

#[test]
fn extension_headers_by_hand_hide_nothing() -> Result<()> {
    let policy = r#"
version = 1
mode = "enforce"
[dns]
resolvers = ["169.254.169.253"]
[raw]
from = [{ unit = "netops.service" }]
[[allow]]
name = "lab"
to = ["2001:db8:3::/48"]
"#;
    let fragment = refused_for("egress.denied", "fragment");
    let route = refused_for("egress.denied", "source-route");
    let piled = refused_for("egress.denied", "extension-headers");
    let malformed = refused_for("egress.denied", "malformed");
    let option = |next: u8| vec![next, 0, 1, 4, 0, 0, 0, 0];
    // So many options before the datagram; the first one's number is the packet's own next header.
    let behind = |count: usize, port: u16| {
        let options = (1..count).flat_map(|_| option(60)).chain(option(17));
        options.chain(datagram(port)).collect::<Vec<u8>>()
    };
    let piece = |offset: u16, more: u16| {
        let field = (offset << 3 | more).to_be_bytes();
        [&[17, 0, field[0], field[1], 0, 0, 0, 7][..], &datagram(9000)].concat()
    };
    let routing = |kind: u8| [&[17, 2, kind, 0, 0, 0, 0, 0][..], &[0; 16], &datagram(9000)].concat();
    let mut cases = Vec::new();
    for (name, next, payload, expect) in [
        ("one option", 60, behind(1, 9000), allowed("allow.lab")),
        ("eight options", 60, behind(8, 9000), allowed("allow.lab")),
        ("nine options", 60, behind(9, 9000), piled),
        ("a question behind one", 60, behind(1, 53), refused("dns.direct")),
        ("a question behind eight", 60, behind(8, 53), refused("dns.direct")),
        ("a question behind nine", 60, behind(9, 53), piled),
        ("DNS over QUIC behind one", 60, behind(1, 853), refused("dns.encrypted")),
        ("a first piece", 44, piece(0, 1), fragment),
        ("a later piece", 44, piece(64, 0), fragment),
        ("a piece that is the whole", 44, piece(0, 0), fragment),
        ("a route of type 0", 43, routing(0), route),
        ("a route of type 2", 43, routing(2), route),
        ("a segment route", 43, routing(4), route),
        ("an option and nothing", 60, vec![17, 0], malformed),
        ("an option longer than the packet", 60, [&[17, 9, 1, 4][..], &[0; 12]].concat(), malformed),
        ("no next header", 59, vec![0; 16], malformed),
        ("half a datagram", 17, datagram(9000)[..4].to_vec(), malformed),
    ] {
        let to = address("[2001:db8:3::8]:9000").ip();
        let act = Act::Raw { to, protocol: next, header: Header::Kernel, payload };
        cases.push(case(name, at("netops.service"), act, expect).unexplained());
    }
    check(policy, &cases)
}

/// ICMP sockets are anyone's who has CAP_NET_RAW; they carry ICMP to where a rule lets it, and nothing else past a rule.
#[test]
fn a_socket_for_icmp_is_judged_by_what_it_sends() -> Result<()> {
    let policy = r#"
version = 1
mode = "enforce"
[dns]
resolvers = ["169.254.169.253"]
[[allow]]
name = "lab"
to = ["10.0.3.0/24"]
[[allow]]
name = "echo"
to = ["10.0.5.0/24", "2001:db8:5::/48"]
ports = ["icmp/echo"]
"#;
    let root = || at("app.service");
    let no = refused("egress.denied");
    let mut cases = vec![
        case("a question", root(), raw_hidden("198.51.100.53:53", 17), refused("dns.direct")),
        case("a question over TCP", root(), raw_hidden("198.51.100.53:53", 6), refused("dns.direct")),
        case(
            "a question where anything may go",
            root(),
            raw_hidden("10.0.3.8:53", 17),
            refused("dns.direct"),
        ),
        case("a datagram", root(), raw_hidden("10.0.4.8:9000", 17), no),
        case("a datagram where only echoes go", root(), raw_hidden("10.0.5.8:9000", 17), no),
        case("GRE", root(), raw_hidden("10.0.4.8:1", 47), no),
        case("where anything may go", root(), raw_hidden("10.0.3.8:9000", 17), allowed("allow.lab")),
    ];
    // Echo reply, unreachable, redirect, router solicitation, time exceeded, timestamp, mask reply; and IPv6's.
    for kind in [0, 3, 5, 10, 11, 13, 18] {
        cases.push(case("a message the kernel alone may write", root(), icmp("10.0.5.8", kind), no));
    }
    for kind in [1, 2, 3, 4, 129, 137, 138, 200] {
        cases.push(case("IPv6's", root(), icmp("2001:db8:5::8", kind), no));
    }
    check(policy, &cases)
}

/// A UDP datagram to a port.
fn datagram(port: u16) -> Vec<u8> {
    let numbers = [4000, port, 16, 0];
    numbers.into_iter().flat_map(u16::to_be_bytes).chain(*b"hidden!!").collect()
}
