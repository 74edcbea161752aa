//! Tables of packets through the programs themselves (`BPF_PROG_TEST_RUN`). The sockets are the kernel's dummies: of
//! nobody's, so only what holds for everyone is seen here.

use std::fs;
use std::net::Ipv4Addr;

use anyhow::Result;
use dnswall_common::reason::Reason;
use dnswall_tests::lab::packet::protocol::{ICMP, ICMPV6, SCTP, TCP, UDP, UDP_LITE};
use dnswall_tests::lab::packet::{
    ACK, RST, SYN, URG, fragment4, icmp, ip, ip_from, ipv4, question, tcp, udp, with_extensions, with_options,
};
use dnswall_tests::lab::{Direction, Lab, Outcome};
use dnswall_tests::lists;

const POLICY: &str = r#"
version = 1
mode = "enforce"

[dns]
resolvers = ["192.0.2.53", "2001:db8::53"]

[dns.serve]
from = ["10.0.0.0/8", "2001:db8:10::/48"]

[[allow]]
name = "web"
to = ["198.51.100.0/24", "2001:db8:1::/48"]
ports = ["tcp/443", "udp/443", "udp/4000-5000"]

[[allow]]
name = "ping"
to = ["198.51.100.7", "2001:db8:1::7"]
ports = ["icmp/echo"]

[[allow]]
name = "sctp"
to = ["198.51.100.8"]
ports = ["sctp/9"]

[[allow]]
name = "all"
to = ["203.0.113.9", "2001:db8:9::9"]

[[deny]]
name = "hole"
to = ["198.51.100.66", "2001:db8:1::66"]
"#;

/// What a packet should meet.
enum Expect {
    /// Passes, and a rule of this name is counted.
    Rule(&'static str),
    /// Passes without a rule.
    Pass,
    /// Refused for this reason, by the rule of this name.
    Refused(Reason, &'static str),
}

use Expect::{Pass, Refused, Rule};

fn check(direction: Direction, cases: &[(&str, Vec<u8>, Expect)]) -> Result<()> {
    Lab::shared(POLICY, |lab| play(lab, direction, cases))
}

fn play(lab: &mut Lab, direction: Direction, cases: &[(&str, Vec<u8>, Expect)]) -> Result<()> {
    let mut wrong = Vec::new();
    for (name, packet, expect) in cases {
        let met = lab.run(direction, packet)?;
        let wanted = match expect {
            Rule(rule) => Outcome { passed: true, refused: None, rule: Some((*rule).to_owned()) },
            Pass => Outcome { passed: true, refused: None, rule: None },
            Refused(reason, rule) => {
                Outcome { passed: false, refused: Some(*reason), rule: Some((*rule).to_owned()) }
            }
        };
        if met != wanted {
            wrong.push(format!("{name}: met {met:?}, wanted {wanted:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} packets:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    Ok(())
}

fn datagram(to: &str, port: u16) -> Vec<u8> {
    ip(to, UDP, &udp(40_000, port, b"some payload"))
}

fn syn(to: &str, port: u16) -> Vec<u8> {
    ip(to, TCP, &tcp(port, SYN, b""))
}

fn no_rule() -> Expect {
    Refused(Reason::NoRule, "default")
}

#[test]
fn new_flows_meet_the_rules() -> Result<()> {
    check(
        Direction::Egress,
        &[
            ("udp to an allowed port", datagram("198.51.100.1", 443), Rule("allow.web")),
            ("udp, v6", datagram("2001:db8:1::1", 443), Rule("allow.web")),
            ("first port of a range", datagram("198.51.100.1", 4000), Rule("allow.web")),
            ("last port of a range", datagram("198.51.100.1", 5000), Rule("allow.web")),
            ("below a range", datagram("198.51.100.1", 3999), no_rule()),
            ("above a range", datagram("198.51.100.1", 5001), no_rule()),
            ("last address of a network", datagram("198.51.100.255", 443), Rule("allow.web")),
            ("address after a network", datagram("198.51.101.0", 443), no_rule()),
            ("address before a network", datagram("198.51.99.255", 443), no_rule()),
            ("v6 after a network", datagram("2001:db8:2::", 443), no_rule()),
            ("tcp syn", syn("198.51.100.1", 443), Rule("allow.web")),
            ("tcp syn, v6", syn("2001:db8:1::1", 443), Rule("allow.web")),
            ("tcp syn to another port", syn("198.51.100.1", 80), no_rule()),
            ("tcp to a udp range", syn("198.51.100.1", 4000), no_rule()),
            ("deny over allow", syn("198.51.100.66", 443), Refused(Reason::Rule, "deny.hole")),
            ("deny over allow, v6", datagram("2001:db8:1::66", 443), Refused(Reason::Rule, "deny.hole")),
            ("any port", syn("203.0.113.9", 1), Rule("allow.all")),
            ("any port, v6", datagram("2001:db8:9::9", 65_535), Rule("allow.all")),
            ("the greatest v4 address", datagram("255.255.255.255", 443), no_rule()),
            ("the least v4 address", datagram("0.0.0.1", 443), no_rule()),
            ("a v4-mapped destination on the wire", datagram("::ffff:198.51.100.1", 443), no_rule()),
            ("sctp", ip("198.51.100.8", SCTP, &udp(1, 9, b"12345678")), Rule("allow.sctp")),
            ("sctp to another port", ip("198.51.100.8", SCTP, &udp(1, 10, b"12345678")), no_rule()),
            ("udp-lite is udp", ip("198.51.100.1", UDP_LITE, &udp(1, 443, b"12345678")), Rule("allow.web")),
            ("an unknown protocol", ip("198.51.100.1", 47, &[0; 16]), no_rule()),
            ("an unknown protocol to an any rule", ip("203.0.113.9", 47, &[0; 16]), Rule("allow.all")),
            ("protocol 255", ip("198.51.100.1", 255, &[0; 16]), no_rule()),
        ],
    )
}

#[test]
fn dns_goes_to_the_resolvers_alone() -> Result<()> {
    let dns = |to: &str| ip(to, UDP, &udp(40_000, 53, &question("example.com")));
    check(
        Direction::Egress,
        &[
            ("resolver", dns("192.0.2.53"), Rule("dns.resolvers")),
            ("resolver, v6", dns("2001:db8::53"), Rule("dns.resolvers")),
            ("resolver, tcp", syn("192.0.2.53", 53), Rule("dns.resolvers")),
            ("resolver, another port", datagram("192.0.2.53", 5353), no_rule()),
            ("resolver, https", syn("192.0.2.53", 443), no_rule()),
            ("another server", dns("198.51.100.1"), no_rule()),
            ("another server, tcp", syn("198.51.100.1", 53), no_rule()),
            ("another server, v6", dns("2001:db8:1::1"), no_rule()),
            ("where everything is allowed", dns("203.0.113.9"), no_rule()),
            ("where everything is allowed, tcp", syn("203.0.113.9", 53), no_rule()),
            ("dns over tls where everything is allowed", syn("203.0.113.9", 853), no_rule()),
            ("dns over quic where everything is allowed", datagram("203.0.113.9", 853), no_rule()),
            ("udp-lite to port 53", ip("203.0.113.9", UDP_LITE, &udp(1, 53, b"12345678")), no_rule()),
        ],
    )
}

/// A question with a name in wire form, and a type.
fn asks_for(name: &[u8], kind: u8) -> Vec<u8> {
    [&[0x4d, 0x57, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], name, &[0, kind, 0, 1]].concat()
}

/// A name of four long labels, in wire form, that is so long.
fn long_name(bytes: usize) -> Vec<u8> {
    let label = |length: usize| [vec![length as u8], vec![b'n'; length]].concat();
    [label(63), label(63), label(63), label(bytes - 3 * 64 - 2), vec![0]].concat()
}

fn changed(message: &[u8], at: usize, byte: u8) -> Vec<u8> {
    let mut message = message.to_vec();
    message[at] = byte;
    message
}

/// To the resolver, from a port.
fn datagram_from(port: u16, message: &[u8]) -> Vec<u8> {
    ip("192.0.2.53", UDP, &udp(port, 53, message))
}

/// Messages in the first segment of a connection, each behind its length.
fn stream(flags: u8, messages: &[&[u8]]) -> Vec<u8> {
    let behind = |message: &&[u8]| [&(message.len() as u16).to_be_bytes(), *message].concat();
    let payload: Vec<u8> = messages.iter().flat_map(behind).collect();
    ip("192.0.2.53", TCP, &tcp(53, flags, &payload))
}

/// One message in such a segment, behind a length that is another's.
fn misfit(length: u16, message: &[u8]) -> Vec<u8> {
    ip("192.0.2.53", TCP, &tcp(53, SYN, &[&length.to_be_bytes(), message].concat()))
}

#[test]
fn only_questions_in_one_piece_leave() -> Result<()> {
    let fine = asks_for(b"\x03www\x07example\0", 1);
    let with = |at, byte| changed(&fine, at, byte);
    let asked = |message: &[u8]| datagram_from(40_000, message);
    let answer = with(2, 0x81);
    let length = fine.len() as u16;
    let rule = || Rule("dns.resolvers");
    let malformed = || Refused(Reason::MalformedQuestion, "default");
    let other = || Refused(Reason::NotAQuestion, "default");
    let split = || Refused(Reason::SplitQuestion, "default");
    // Taken for a label, each would end within these zeroes, and the name there.
    let label = |begin: &[u8]| asks_for(&[begin, &[0; 200]].concat(), 1);
    check(
        Direction::Egress,
        &[
            ("a question", asked(&fine), rule()),
            ("over tcp", stream(SYN, &[&fine]), rule()),
            ("an inverse query", asked(&with(2, 1 << 3)), other()),
            ("a status query", asked(&with(2, 2 << 3)), other()),
            ("operation 8", asked(&with(2, 8 << 3)), other()),
            ("256 answers", asked(&with(6, 1)), malformed()),
            ("256 authorities", asked(&with(8, 1)), malformed()),
            ("a name of 255 bytes", asked(&asks_for(&long_name(255), 1)), rule()),
            ("a name of 256 bytes", asked(&asks_for(&long_name(256), 1)), malformed()),
            ("a pointer", asked(&label(b"\x01a\xc0\x0c")), malformed()),
            ("a label of 64 bytes", asked(&label(&[64])), malformed()),
            ("a label of a kind that was never used", asked(&label(&[0x80])), malformed()),
            ("a question from port 53", datagram_from(53, &fine), rule()),
            ("an update from port 53", datagram_from(53, &with(2, 5 << 3)), other()),
            ("an answer from port 53", datagram_from(53, &answer), rule()),
            ("an answer from a port that ends like it", datagram_from(0x135, &answer), other()),
            ("an urgent byte", stream(SYN | URG, &[&fine]), split()),
            ("half a length", ip("192.0.2.53", TCP, &tcp(53, SYN, &[0])), split()),
            ("a length of more than there is", misfit(length + 1, &fine), split()),
            ("one that cuts off the class", misfit(length - 1, &fine), malformed()),
            ("one that cuts off the type, too", misfit(length - 4, &fine), malformed()),
            ("one within the name", misfit(20, &fine), malformed()),
        ],
    )
}

#[test]
fn a_second_message_asks_for_the_same_name() -> Result<()> {
    let fine = asks_for(b"\x03www\x07example\0", 1);
    let (short, long) = (&fine[..fine.len() - 1], asks_for(&long_name(255), 1));
    let split = || Refused(Reason::SplitQuestion, "default");
    // The flow was counted as allowed before.
    let denied = || Refused(Reason::QuestionType, "dns.resolvers");
    let behind = |first: &[u8], second: &[u8]| stream(SYN, &[first, second]);
    let first = stream(SYN, &[&fine]);
    let cases = [
        (
            "with another id, of another type",
            behind(&fine, &changed(&asks_for(b"\x03www\x07example\0", 28), 0, 1)),
            Rule("dns.resolvers"),
        ),
        ("in another case", behind(&fine, &asks_for(b"\x03WWW\x07exAmple\0", 28)), Rule("dns.resolvers")),
        ("another name", behind(&fine, &asks_for(b"\x03www\x07exbmple\0", 1)), split()),
        ("a longer one", behind(&fine, &asks_for(b"\x03www\x07example\x03org\0", 1)), split()),
        ("other flags", behind(&fine, &changed(&fine, 2, 0)), split()),
        ("a long name", behind(&long, &long), Rule("dns.resolvers")),
        ("one that differs at its end", behind(&long, &changed(&long, 12 + 253, b'x')), split()),
        ("without its end", behind(&fine, short), split()),
        ("less than it says", [&first[..], &[0, fine.len() as u8], short].concat(), split()),
        ("a third", stream(SYN, &[&fine, &fine, &fine]), split()),
        ("half a length", [&first[..], &[0]].concat(), split()),
        ("a refused type", behind(&fine, &asks_for(b"\x03www\x07example\0", 10)), denied()),
    ];
    Lab::shared(&POLICY.replace("[dns]\n", "[dns]\ndeny-types = [\"NULL\"]\n"), |lab| {
        play(lab, Direction::Egress, &cases)
    })
}

/// Where everything else stays and passes, headers without options are read in place.
#[test]
fn questions_on_loopback_are_looked_at() -> Result<()> {
    let fine = asks_for(b"\x03www\x07example\0", 1);
    let (update, answer) = (changed(&fine, 2, 5 << 3), changed(&fine, 2, 0x81));
    let to = |protocol, segment: &[u8]| ip_from(Some("127.0.0.1"), "127.0.0.53", protocol, segment);
    let to6 = |protocol, segment: &[u8]| ip_from(Some("::1"), "::1", protocol, segment);
    let (loopback, stub) = (Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 53));
    let behind = |message: &[u8]| [&(message.len() as u16).to_be_bytes(), message].concat();
    let with_option = |message: &[u8]| {
        let mut segment = tcp(53, SYN, &[&[1, 1, 1, 1], &behind(message)[..]].concat());
        segment[12] = 0x60;
        segment
    };
    let other = || Refused(Reason::NotAQuestion, "default");
    let split = || Refused(Reason::SplitQuestion, "default");
    let fragment = ipv4(loopback, stub, UDP, &[], 0x2000, &udp(40_000, 53, &fine));
    check(
        Direction::Loopback,
        &[
            ("a question", to(UDP, &udp(40_000, 53, &fine)), Pass),
            ("v6", to6(UDP, &udp(40_000, 53, &fine)), Pass),
            ("over tcp", to(TCP, &tcp(53, SYN, &behind(&fine))), Pass),
            ("over tcp, v6", to6(TCP, &tcp(53, SYN, &behind(&fine))), Pass),
            ("behind a tcp option", to(TCP, &with_option(&fine)), Pass),
            ("behind a tcp option, v6", to6(TCP, &with_option(&fine)), Pass),
            ("an update", to(UDP, &udp(40_000, 53, &update)), other()),
            ("an update, v6", to6(UDP, &udp(40_000, 53, &update)), other()),
            ("an update over tcp", to(TCP, &tcp(53, SYN, &behind(&update))), other()),
            ("an update over tcp, v6", to6(TCP, &tcp(53, SYN, &behind(&update))), other()),
            ("an update over udp-lite", to(UDP_LITE, &udp(40_000, 53, &update)), other()),
            (
                "an update behind an ip option",
                ipv4(loopback, stub, UDP, &[148, 4, 0, 0], 0, &udp(40_000, 53, &update)),
                other(),
            ),
            ("the first fragment of a question", fragment, Refused(Reason::Fragment, "default")),
            ("an urgent byte", to(TCP, &tcp(53, SYN | URG, &behind(&fine))), split()),
            ("an urgent byte, v6", to6(TCP, &tcp(53, SYN | URG, &behind(&fine))), split()),
            ("an answer from port 53", to(UDP, &udp(53, 53, &answer)), Pass),
            ("an answer from port 53, v6", to6(UDP, &udp(53, 53, &answer)), Pass),
            ("one from a port that ends like it", to(UDP, &udp(0x135, 53, &answer)), other()),
            ("one from a port that ends like it, v6", to6(UDP, &udp(0x135, 53, &answer)), other()),
            ("to a port that ends like it", to(UDP, &udp(40_000, 0x135, &update)), Pass),
            ("to a port that ends like it, v6", to6(UDP, &udp(40_000, 0x135, &update)), Pass),
        ],
    )
}

#[test]
fn what_every_host_needs_passes_and_no_more() -> Result<()> {
    check(
        Direction::Egress,
        &[
            ("icmp echo to a rule", ip("198.51.100.7", ICMP, &icmp(8, 0)), Rule("allow.ping")),
            ("icmpv6 echo to a rule", ip("2001:db8:1::7", ICMPV6, &icmp(128, 0)), Rule("allow.ping")),
            ("icmp echo elsewhere", ip("198.51.100.9", ICMP, &icmp(8, 0)), no_rule()),
            ("icmpv6 echo elsewhere", ip("2001:db8:1::9", ICMPV6, &icmp(128, 0)), no_rule()),
            ("echo reply of the kernel", ip("192.0.2.1", ICMP, &icmp(0, 0)), Pass),
            ("unreachable", ip("192.0.2.1", ICMP, &icmp(3, 1)), Pass),
            ("timestamp request", ip("192.0.2.1", ICMP, &icmp(13, 0)), no_rule()),
            ("redirect", ip("192.0.2.1", ICMP, &icmp(5, 0)), Pass),
            ("router advertisement", ip("192.0.2.1", ICMP, &icmp(9, 0)), no_rule()),
            ("listener report to a wide group", ip("ff05::1234", ICMPV6, &icmp(131, 0)), Pass),
            ("listener done to a wide group", ip("ff0e::1234", ICMPV6, &icmp(132, 0)), Pass),
            ("neighbour solicitation", ip("ff02::1:ff00:1", ICMPV6, &icmp(135, 0)), Pass),
            ("router solicitation", ip("ff02::2", ICMPV6, &icmp(133, 0)), Pass),
            ("multicast listener report", ip("ff02::16", ICMPV6, &icmp(143, 0)), Pass),
            ("igmp to a group", ip("224.0.0.22", 2, &[0; 8]), Pass),
            ("igmp to a host", ip("192.0.2.1", 2, &[0; 8]), no_rule()),
            ("dhcp", ip("255.255.255.255", UDP, &udp(68, 67, b"discover")), Pass),
            ("dhcp renewal", ip("10.0.0.1", UDP, &udp(68, 67, b"request")), Pass),
            ("dhcp to the internet", ip("203.0.113.1", UDP, &udp(68, 67, b"request")), no_rule()),
            ("dhcp from another port", ip("10.0.0.1", UDP, &udp(6800, 67, b"request")), no_rule()),
            ("dhcpv6", ip("ff02::1:2", UDP, &udp(546, 547, b"solicit")), Pass),
            ("dhcpv6 to a server", ip("fe80::1", UDP, &udp(546, 547, b"request")), Pass),
            ("dhcpv6 to another group", ip("ff02::2", UDP, &udp(546, 547, b"solicit")), no_rule()),
            ("dhcpv6 to a wider group", ip("ff05::1:2", UDP, &udp(546, 547, b"solicit")), no_rule()),
            ("dhcpv6 to the internet", ip("2001:db8:9::1", UDP, &udp(546, 547, b"request")), no_rule()),
            ("reset without payload", ip("192.0.2.1", TCP, &tcp(80, RST | ACK, b"")), Pass),
            ("reset with payload", ip("192.0.2.1", TCP, &tcp(80, RST | ACK, b"data")), no_rule()),
            ("bare acknowledgement", ip("192.0.2.1", TCP, &tcp(80, ACK, b"")), Pass),
            ("data of a connection nobody has", ip("192.0.2.1", TCP, &tcp(80, ACK, b"data")), no_rule()),
            ("syn and ack of no listener", ip("192.0.2.1", TCP, &tcp(80, SYN | ACK, b"")), no_rule()),
        ],
    )
}

#[test]
fn what_cannot_be_read_is_refused_with_its_reason() -> Result<()> {
    let refused = |reason| Refused(reason, "default");
    let segment = udp(40_000, 443, b"some payload");
    let web = "198.51.100.1";
    let web6 = "2001:db8:1::1";
    let mut short_header = ip(web, UDP, &segment);
    short_header[0] = 0x44;
    let mut no_version = ip(web, UDP, &segment);
    no_version[0] = 0x15;
    let lsrr = [131, 7, 4, 8, 8, 8, 8];
    let ssrr = [1, 7, 3, 4, 137, 3, 4];
    check(
        Direction::Egress,
        &[
            ("first fragment", fragment4(web, 0x2000, UDP, &segment), refused(Reason::Fragment)),
            ("later fragment", fragment4(web, 0x0001, UDP, &segment), refused(Reason::Fragment)),
            ("don't fragment", fragment4(web, 0x4000, UDP, &segment), Rule("allow.web")),
            ("header length 4", short_header, refused(Reason::Malformed)),
            ("version 1", no_version, refused(Reason::Malformed)),
            ("udp cut short", ip(web, UDP, &segment[..7]), refused(Reason::Malformed)),
            ("udp header alone", ip(web, UDP, &segment[..8]), Rule("allow.web")),
            ("tcp cut before its flags", ip(web, TCP, &tcp(443, SYN, b"")[..13]), refused(Reason::Malformed)),
            ("no segment at all", ip(web, UDP, &[]), refused(Reason::Malformed)),
            ("icmp cut short", ip(web, ICMP, &[8]), refused(Reason::Malformed)),
            ("loose source route", with_options(web, &lsrr, UDP, &segment), refused(Reason::SourceRoute)),
            (
                "strict one behind others",
                with_options(web, &ssrr, UDP, &segment),
                refused(Reason::SourceRoute),
            ),
            ("router alert", with_options(web, &[148, 4, 0, 0], UDP, &segment), Rule("allow.web")),
            (
                "option without a length",
                with_options(web, &[1, 1, 1, 148], UDP, &segment),
                refused(Reason::Malformed),
            ),
            ("option of length 0", with_options(web, &[148, 0], UDP, &segment), refused(Reason::Malformed)),
            ("ten words of options", with_options(web, &[1; 40], UDP, &segment), Rule("allow.web")),
            ("hop-by-hop", with_extensions(web6, &[(0, 0)], UDP, &segment), Rule("allow.web")),
            ("three", with_extensions(web6, &[(0, 1), (60, 2), (135, 0)], UDP, &segment), Rule("allow.web")),
            ("eight", with_extensions(web6, &[(60, 0); 8], UDP, &segment), Rule("allow.web")),
            ("nine", with_extensions(web6, &[(60, 0); 9], UDP, &segment), refused(Reason::ExtensionHeaders)),
            ("routing", with_extensions(web6, &[(43, 0)], UDP, &segment), refused(Reason::SourceRoute)),
            (
                "routing second",
                with_extensions(web6, &[(60, 0), (43, 0)], UDP, &segment),
                refused(Reason::SourceRoute),
            ),
            ("fragment header", with_extensions(web6, &[(44, 0)], UDP, &segment), refused(Reason::Fragment)),
            ("no next header", with_extensions(web6, &[], 59, &[]), refused(Reason::Malformed)),
            (
                "extension past the end",
                with_extensions(web6, &[(60, 0)], 60, &[]),
                refused(Reason::Malformed),
            ),
            (
                "extension past the end, of a protocol without ports",
                with_extensions(web6, &[(60, 0)], 50, &[])[..46].to_vec(),
                refused(Reason::Malformed),
            ),
            ("v6 udp cut short", with_extensions(web6, &[], UDP, &segment[..6]), refused(Reason::Malformed)),
            ("encrypted payload", with_extensions(web6, &[], 50, &[0; 16]), no_rule()),
        ],
    )
}

#[test]
fn only_who_may_ask_asks_here() -> Result<()> {
    let asks =
        |from: &str, to: &str| ip_from(Some(from), to, UDP, &udp(40_000, 53, &question("example.com")));
    let opens = |from: &str, port: u16| ip_from(Some(from), "10.0.0.1", TCP, &tcp(port, SYN, b""));
    let sends = |from: u16, to: u16, payload: &[u8]| {
        ip_from(Some("192.0.2.9"), "10.0.0.1", UDP, &udp(from, to, payload))
    };
    let mut answer = question("example.com");
    answer[2] |= 0x80;
    let refused = || Refused(Reason::NotServed, "default");
    check(
        Direction::Ingress,
        &[
            ("from the served network", asks("10.1.2.3", "10.0.0.1"), Rule("dns.serve")),
            ("from the served network, v6", asks("2001:db8:10::1", "2001:db8::1"), Rule("dns.serve")),
            ("from elsewhere", asks("192.0.2.9", "10.0.0.1"), refused()),
            ("from elsewhere, v6", asks("2001:db8:11::1", "2001:db8::1"), refused()),
            ("tcp from the served network", opens("10.1.2.3", 53), Rule("dns.serve")),
            ("tcp from elsewhere", opens("192.0.2.9", 53), refused()),
            ("an answer to port 53", sends(53, 53, &answer), Pass),
            ("something else", sends(1, 443, b"data"), Pass),
            ("tcp to something else", opens("192.0.2.9", 22), Pass),
            ("too short to be a question", sends(1, 53, b""), refused()),
        ],
    )
}

#[test]
fn audit_lets_pass_and_counts() -> Result<()> {
    Lab::shared(&POLICY.replace("mode = \"enforce\"", "mode = \"audit\""), |lab| {
        let met = lab.run(Direction::Egress, &syn("198.51.100.1", 80))?;
        assert_eq!(
            met,
            Outcome { passed: true, refused: Some(Reason::NoRule), rule: Some("default".to_owned()) },
            "reported, not refused"
        );
        lab.publish(POLICY)?;
        assert!(
            !lab.run(Direction::Egress, &syn("198.51.100.1", 80))?.passed,
            "the next generation enforces"
        );
        Ok(())
    })
}

/// By tables of two sizes, of which each is a map of its own.
#[test]
fn listed_names_are_not_asked_for() -> Result<()> {
    const LISTED: &str = r#"
version = 1
mode = "enforce"
[dns]
resolvers = ["192.0.2.53", "2001:db8::53"]
[[blocklist]]
name = "names"
source = "/nowhere"
"#;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("names.txt");
    let ask = |name: &str| ip("192.0.2.53", UDP, &udp(40_000, 53, &question(name)));
    let ask6 = |name: &str| ip("2001:db8::53", UDP, &udp(40_000, 53, &question(name)));
    // The first rule that counts them is the one that leads to the resolver.
    let (refused, resolvers) = (|| Refused(Reason::ListedName, "dns.resolvers"), || Rule("dns.resolvers"));
    for more in [0, 5_000] {
        let names: Vec<String> = (0..more).map(|index| format!("n{index}.example.net")).collect();
        fs::write(&path, format!("evil.example\n{}\n", names.join("\n")))?;
        let lists = lists::read(&path, directory.path())?;
        Lab::shared(POLICY, |lab| {
            lab.publish_lists(LISTED, &lists)?;
            play(
                lab,
                Direction::Egress,
                &[
                    ("the name", ask("evil.example"), refused()),
                    ("below it, in another case", ask6("www.EVIL.Example"), refused()),
                    ("below it, of eight labels", ask("1.2.3.4.5.6.evil.example"), refused()),
                    ("of nine", ask("1.2.3.4.5.6.7.evil.example"), refused()),
                    ("of nine, over IPv6", ask6("1.2.3.4.5.6.7.evil.example"), refused()),
                    ("another", ask("xevil.example"), resolvers()),
                    ("above it", ask6("example"), resolvers()),
                    ("another of nine labels", ask("1.2.3.4.5.6.7.xevil.example"), resolvers()),
                    (
                        "an encrypted resolver's",
                        ask("dns.google"),
                        Refused(Reason::DeniedName, "dns.resolvers"),
                    ),
                    ("the root", ask(""), resolvers()),
                ],
            )
        })?;
    }
    Ok(())
}
