//! Questions that want to be something else, and what a port cannot tell.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use dnswall_tests::act::{Act, TcpBy, UdpBy, address, dns, tcp, tcp_by, udp, udp_by};
use dnswall_tests::case::{allowed, case, not_for_you, refused};
use dnswall_tests::check::check;
use dnswall_tests::resolver::{ANSWER, Dnsmasq, FOREIGN, RESOLVER, SECOND};
use dnswall_tests::wall::Wall;
use dnswall_tests::who::{DIG, Who, at};

const RESOLVER_ONLY: &str = r#"
version = 1
mode = "enforce"
[dns]
resolvers = ["169.254.169.253"]
clients = [{ unit = "stub.service" }]
[[allow]]
name = "web"
to = ["198.51.100.0/24"]
ports = ["tcp/443", "udp/443"]
"#;

#[test]
fn a_question_is_known_by_its_port_however_it_is_sent() -> Result<()> {
    let mut cases = Vec::new();
    for (name, by) in [("behind a friend's", UdpBy::SendmmsgMixed), ("corked", UdpBy::Corked)] {
        cases.push(case(name, nobody(), udp_by("198.51.100.53:53", by), refused("dns.direct").unheard()));
    }
    for (name, by) in [
        ("connected elsewhere first", UdpBy::ConnectedTwice),
        ("disconnected", UdpBy::Disconnected),
        ("with a control message", UdpBy::ControlMessage),
        ("with its source named", UdpBy::PacketInfo),
        ("from a shared port", UdpBy::SharedPort),
        ("bound to the device", UdpBy::BoundDevice),
        ("segmented", UdpBy::Segmented),
        ("without a copy", UdpBy::ZeroCopy),
        ("by sendfile", UdpBy::Sendfile),
        ("by splice", UdpBy::Spliced),
        ("a socket of io_uring's", UdpBy::UringSocket),
        ("by io_uring's polling thread", UdpBy::UringPolled),
    ] {
        cases.push(case(name, nobody(), udp_by("198.51.100.53:53", by), refused("dns.direct")));
        cases.push(case(name, nobody(), udp_by("[2001:db8::53]:53", by), refused("dns.direct")));
    }
    for (name, by) in [
        ("deferred", TcpBy::DeferredConnect),
        ("accepted before", TcpBy::Accepted),
        ("listened before", TcpBy::Listened),
        ("bound to the device", TcpBy::BoundDevice),
        ("a socket of io_uring's", TcpBy::UringSocket),
        ("by io_uring's polling thread", TcpBy::UringPolled),
    ] {
        cases.push(case(name, nobody(), tcp_by("198.51.100.53:53", by), refused("dns.direct")));
        cases.push(case(name, nobody(), tcp_by("[2001:db8::53]:53", by), refused("dns.direct")));
    }
    let marked = udp_by("198.51.100.53:53", UdpBy::Marked);
    cases.push(case("a mark", at("app.service"), marked, refused("dns.direct")));
    let policy = r#"
version = 1
mode = "enforce"
[dns]
resolvers = ["169.254.169.253"]
[[allow]]
name = "friend"
to = ["10.0.3.7"]
"#;
    check(policy, &cases)
}

#[test]
fn the_resolver_is_for_its_clients_and_for_questions_alone() -> Result<()> {
    let direct = not_for_you("dns.direct");
    let no = refused("egress.denied");
    check(
        RESOLVER_ONLY,
        &[
            case("its client", at("stub.service"), dns(RESOLVER), allowed("dns.resolvers")),
            case("its client, elsewhere", at("stub.service"), dns(SECOND), refused("dns.direct")),
            case("another", nobody(), dns(RESOLVER), direct),
            case("another, by hand", nobody(), udp_by("169.254.169.253:53", UdpBy::Connected), direct),
            case("its web server", at("stub.service"), tcp("169.254.169.253:443"), no),
            case("its web server, QUIC", at("stub.service"), udp("169.254.169.253:443"), no),
            case("another port of a foreign one", nobody(), udp("198.51.100.53:8053"), no),
            case("mDNS's port of a foreign one", nobody(), udp("198.51.100.53:5353"), no),
            case("over TLS", nobody(), tcp("198.51.100.53:853"), refused("dns.encrypted")),
            case("over QUIC", nobody(), udp("198.51.100.53:853"), refused("dns.encrypted")),
        ],
    )
}

/// Honest limits, "not yet": questions are not looked into. What an allowed address and port carries is what it likes.
#[test]
fn what_is_inside_is_not_looked_at() -> Result<()> {
    let mut wall = Wall::raise(RESOLVER_ONLY)?;
    // A tunnel through the resolver: as much of a secret as fits a name.
    let secret = format!("{}.{}.tunnel.example", "5ec2e7".repeat(10), "0".repeat(60));
    let act = Act::Dns { server: (RESOLVER, 53).into(), tcp: false, name: secret };
    let report = wall.run(&at("stub.service"), act)?;
    ensure!(report.received.as_deref() == Some(ANSWER), "{report:?}");
    // Questions on a port that is allowed for something else; DNS over HTTPS is a connection like any other.
    let to: SocketAddr = "198.51.100.99:443".parse()?;
    wall.echo(&[to].into(), &[to].into())?;
    for act in [tcp("198.51.100.99:443"), udp("198.51.100.99:443")] {
        let report = wall.run(&nobody(), act)?;
        ensure!(report.ok, "{report:?}");
    }
    Ok(())
}

/// The verdict is about the connection, before anything is said: pieces, several questions in one message, or an
/// allowed question before another make no difference on the way to whom nobody may ask, and none on the other.
#[test]
fn nothing_is_allowed_for_what_it_asks() -> Result<()> {
    let wall = Wall::raise("version = 1\nmode = \"enforce\"\n[dns]\nresolvers = [\"169.254.169.253\"]\n")?;
    let app = at("app.service");
    let dig = |server: IpAddr, options: &[&str]| -> Result<String> {
        let server = format!("@{server}");
        let arguments = [&[server.as_str(), "+tries=1", "+time=1", "+short"][..], options].concat();
        let arguments = arguments.into_iter().map(String::from).collect();
        let act = Act::Launch { program: DIG.into(), arguments };
        Ok(wall.output(&app, act)?.0)
    };
    // Pipelined over one connection.
    let pipelined = ["+tcp", "+keepopen", "www.example.com", "second.example.com"];
    let answers = dig(RESOLVER, &pipelined)?;
    ensure!(answers.lines().filter(|line| *line == ANSWER).count() == 2, "{answers}");
    for options in
        [&pipelined[..], &["www.example.com"], &["+tcp", "www.example.com"], &["+edns=0", "+cookie", "x"]]
    {
        let mark = wall.capture.mark()?;
        let answers = dig(FOREIGN, options)?;
        ensure!(!answers.contains(ANSWER), "{options:?}: {answers}");
        wall.capture.mark()?;
        ensure!(wall.capture.since(mark, FOREIGN).is_empty(), "{options:?}: it arrived");
    }
    Ok(())
}

/// An honest limit: whoever may reach a program here, over loopback or otherwise, may have it ask.
#[test]
fn another_program_here_may_ask_for_others() -> Result<()> {
    let wall = Wall::raise(RESOLVER_ONLY)?;
    let cgroup = wall.tree.child("stub.service")?;
    let stub = "127.0.0.53".parse()?;
    let near = &wall.network.near;
    let _dnsmasq = Dnsmasq::forward(wall.probe(), near, Some(cgroup), &[stub], RESOLVER)?;
    let report = wall.run(&nobody(), dns(stub))?;
    ensure!(report.received.as_deref() == Some(ANSWER), "{report:?}");
    Ok(())
}

fn nobody() -> Who {
    at("app.service").uid(65534)
}

/// A rule for a stub resolver on loopback is none for the wire.
#[test]
fn a_loopback_resolver_is_not_asked_by_way_of_a_device() -> Result<()> {
    let wall =
        Wall::raise("version = 1\nmode = \"enforce\"\n[dns]\nresolvers = [\"127.0.0.53\", \"::1\"]\n")?;
    for to in ["127.0.0.53:53", "[::1]:53"] {
        let to = address(to);
        let mark = wall.capture.mark()?;
        let sent = wall.run(&nobody(), Act::Udp { to, by: UdpBy::BoundDevice })?;
        wall.run(&nobody(), Act::Tcp { to, by: TcpBy::BoundDevice })?;
        wall.capture.mark()?;
        let arrived = wall.capture.since(mark, to.ip()).len();
        ensure!(!sent.ok && arrived == 0, "{to}: {sent:?}, {arrived} arrived");
    }
    Ok(())
}
