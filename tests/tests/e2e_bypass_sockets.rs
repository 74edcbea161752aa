//! The same datagram and the same connection by every system call, flag and socket option there is: what is refused one
//! way is refused in all of them, and what is allowed arrives in all of them.

use anyhow::Result;
use dnswall_tests::act::{TcpBy, UdpBy, tcp_by, udp_by};
use dnswall_tests::case::{Case, allowed, case, refused, refused_for};
use dnswall_tests::check::check;
use dnswall_tests::who::{Who, at};

const POLICY: &str = r#"
version = 1
mode = "enforce"
[[allow]]
name = "lab"
to = ["10.0.3.0/24", "2001:db8:3::/48"]
"#;

#[test]
fn datagrams_are_judged_however_they_are_sent() -> Result<()> {
    let ways = [
        ("connected", UdpBy::Connected),
        ("sendmmsg", UdpBy::Sendmmsg),
        ("connected elsewhere first", UdpBy::ConnectedTwice),
        ("disconnected from a friend", UdpBy::Disconnected),
        ("with a control message", UdpBy::ControlMessage),
        ("from a shared port", UdpBy::SharedPort),
        ("with its source named", UdpBy::PacketInfo),
        ("bound to the device", UdpBy::BoundDevice),
        ("segmented by the device", UdpBy::Segmented),
        ("without a copy", UdpBy::ZeroCopy),
        ("by sendfile", UdpBy::Sendfile),
        ("by splice", UdpBy::Spliced),
        ("larger than the path", UdpBy::Large),
        ("a socket of io_uring's", UdpBy::UringSocket),
        ("by io_uring's polling thread", UdpBy::UringPolled),
    ];
    let mut cases = Vec::new();
    for (name, by) in ways {
        cases.extend(both_ways(name, nobody(), |to| udp_by(to, by), ["10.0.3.8:9000", "10.0.4.8:9000"]));
        let six = ["[2001:db8:3::8]:9000", "[2001:db8:4::8]:9000"];
        cases.extend(both_ways(name, nobody(), |to| udp_by(to, by), six));
    }
    let six = ["[2001:db8:3::8]:9000", "[2001:db8:4::8]:9000"];
    let four = ["10.0.3.8:9000", "10.0.4.8:9000"];
    cases.extend(both_ways("a flow label", nobody(), |to| udp_by(to, UdpBy::FlowLabel), six));
    cases.extend(both_ways("an IPv6 socket made IPv4", nobody(), |to| udp_by(to, UdpBy::FormChanged), four));
    for to in [four, six] {
        cases.extend(both_ways("a mark", at("app.service"), |to| udp_by(to, UdpBy::Marked), to));
    }
    check(POLICY, &cases)
}

#[test]
fn what_the_system_call_hides_is_refused_all_the_same() -> Result<()> {
    // The first message of two leaves, so the call succeeds; a corked datagram leaves in a setsockopt, which says nothing.
    let no = refused("egress.denied").unheard();
    let yes = allowed("allow.lab");
    check(
        POLICY,
        &[
            case("behind a friend's", nobody(), udp_by("10.0.4.8:9000", UdpBy::SendmmsgMixed), no),
            case("behind a friend's", nobody(), udp_by("10.0.3.8:9000", UdpBy::SendmmsgMixed), yes),
            case("IPv6", nobody(), udp_by("[2001:db8:4::8]:9000", UdpBy::SendmmsgMixed), no),
            case("IPv6", nobody(), udp_by("[2001:db8:3::8]:9000", UdpBy::SendmmsgMixed), yes),
            case("corked", nobody(), udp_by("10.0.4.8:9000", UdpBy::Corked), no),
            case("corked", nobody(), udp_by("10.0.3.8:9000", UdpBy::Corked), yes),
            case("corked, IPv6", nobody(), udp_by("[2001:db8:4::8]:9000", UdpBy::Corked), no),
            case("corked, IPv6", nobody(), udp_by("[2001:db8:3::8]:9000", UdpBy::Corked), yes),
        ],
    )
}

#[test]
fn connections_are_judged_however_they_begin() -> Result<()> {
    let ways = [
        ("deferred", TcpBy::DeferredConnect),
        ("fast open after a friend", TcpBy::FastOpenAgain),
        ("after a friend", TcpBy::Reconnected),
        ("accepted before", TcpBy::Accepted),
        ("listened before", TcpBy::Listened),
        ("from a port that is listened on", TcpBy::SharedPort),
        ("bound to the device", TcpBy::BoundDevice),
        ("by sendfile", TcpBy::Sendfile),
        ("by splice", TcpBy::Spliced),
        ("without a copy", TcpBy::ZeroCopy),
        ("a socket of io_uring's", TcpBy::UringSocket),
        ("by io_uring's polling thread", TcpBy::UringPolled),
        ("multipath", TcpBy::Multipath),
    ];
    let befriends = [TcpBy::FastOpenAgain, TcpBy::Reconnected];
    let mut cases = Vec::new();
    // Somebody has to listen at the friend's.
    let friends = [("10.0.3.7:5432", "a friend"), ("[2001:db8:3::7]:5432", "a friend, IPv6")];
    cases.extend(
        friends.map(|(to, name)| case(name, nobody(), tcp_by(to, TcpBy::Connect), allowed("allow.lab"))),
    );
    for (name, by) in ways {
        for to in [["10.0.3.8:9000", "10.0.4.8:9000"], ["[2001:db8:3::8]:9000", "[2001:db8:4::8]:9000"]] {
            let mut both = both_ways(name, nobody(), |to| tcp_by(to, by), to);
            if befriends.contains(&by) {
                both.reverse();
            }
            cases.extend(both);
        }
    }
    for (name, by) in [("from port 443", TcpBy::LowPort), ("a mark", TcpBy::Marked)] {
        let to = ["10.0.3.8:9000", "10.0.4.8:9000"];
        cases.extend(both_ways(name, at("app.service"), |to| tcp_by(to, by), to));
    }
    // Nobody shakes hands, so nobody answers: only the refusal can be seen.
    for to in ["10.0.4.8:9000", "[2001:db8:4::8]:9000"] {
        let act = tcp_by(to, TcpBy::Repaired);
        cases.push(case("said to be established", at("app.service"), act, refused("egress.denied")));
    }
    check(POLICY, &cases)
}

/// A socket option writes what only raw sockets wrote otherwise, and the address in the header is a friend's. Over IPv6
/// it takes no privilege.
#[test]
fn source_routes_by_socket_option_are_refused() -> Result<()> {
    let route = refused_for("egress.denied", "source-route");
    let mut cases = Vec::new();
    for (name, who, to) in [
        ("to whom it may", at("app.service"), "10.0.3.8:9000"),
        ("to whom it may not", at("app.service"), "10.0.4.8:9000"),
        ("IPv6, to whom it may", nobody(), "[2001:db8:3::8]:9000"),
        ("IPv6, to whom it may not", nobody(), "[2001:db8:4::8]:9000"),
    ] {
        cases.push(case(name, who, udp_by(to, UdpBy::SourceRoute), route).unexplained());
    }
    let to = tcp_by("10.0.4.8:9000", TcpBy::SourceRoute);
    cases.push(case("TCP, to whom it may not", at("app.service"), to, refused("egress.denied")));
    let to = tcp_by("10.0.3.7:9000", TcpBy::SourceRoute);
    cases.push(case("TCP, to whom it may", at("app.service"), to, route.unheard()).unexplained());
    check(POLICY, &cases)
}

#[test]
fn a_hop_by_hop_header_hides_nothing() -> Result<()> {
    let to = ["[2001:db8:3::8]:9000", "[2001:db8:4::8]:9000"];
    check(POLICY, &both_ways("hop by hop", at("app.service"), |to| udp_by(to, UdpBy::HopByHop), to))
}

/// To the first it may go, to the second it may not.
fn both_ways(
    name: &'static str,
    who: Who,
    act: impl Fn(&str) -> dnswall_tests::act::Act,
    to: [&str; 2],
) -> [Case; 2] {
    [
        case(name, who.clone(), act(to[0]), allowed("allow.lab")),
        case(name, who, act(to[1]), refused("egress.denied")),
    ]
}

fn nobody() -> Who {
    at("app.service").uid(65534)
}
