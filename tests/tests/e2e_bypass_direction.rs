//! What looks as if it had begun at the other end.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Result, ensure};
use dnswall_tests::act::{Act, TcpBy, UdpBy, tcp_by, udp_by};
use dnswall_tests::case::{case, refused};
use dnswall_tests::check::check;
use dnswall_tests::tamper;
use dnswall_tests::wall::Wall;
use dnswall_tests::who::at;

const NOTHING: &str = "version = 1\nmode = \"enforce\"\n[dns]\nresolvers = [\"169.254.169.253\"]\n";

#[test]
fn a_servers_port_makes_no_server() -> Result<()> {
    let no = refused("egress.denied");
    let root = || at("web.service");
    check(
        NOTHING,
        &[
            case("from port 443", root(), tcp_by("198.51.100.9:50000", TcpBy::LowPort), no),
            case("from port 443, IPv6", root(), tcp_by("[2001:db8:9::9]:50000", TcpBy::LowPort), no),
            case("from port 53", root(), tcp_by("198.51.100.9:50000", TcpBy::SourcePort53), no),
            case("a datagram from port 53", root(), udp_by("198.51.100.9:50000", UdpBy::SourcePort53), no),
            case("from where it listens", root(), tcp_by("198.51.100.9:50000", TcpBy::SharedPort), no),
            case("with a socket it accepted", root(), tcp_by("198.51.100.9:50000", TcpBy::Accepted), no),
            case("with its listener", root(), tcp_by("198.51.100.9:50000", TcpBy::Listened), no),
        ],
    )
}

/// Whoever asks a port unasked is answered from that port, at the very port it asked from, port 53 left out, also by another
/// socket there (DTLS with a socket a client). A server that answers from another port (TFTP) needs a rule: that is a
/// limit, and said so.
#[test]
fn an_answer_goes_to_who_asked_from_the_port_that_was_asked() -> Result<()> {
    let wall = Wall::raise(NOTHING)?;
    for (at_place, peer, other) in [
        ("10.77.0.2:7000", "198.51.100.9:6000", "198.51.100.9:6001"),
        ("[fd00:77::2]:7000", "[2001:db8:9::9]:6000", "[2001:db8:9::9]:6001"),
    ] {
        let (place, peer, other): (SocketAddr, SocketAddr, SocketAddr) =
            (at_place.parse()?, peer.parse()?, other.parse()?);
        let beside =
            SocketAddr::new(if peer.is_ipv4() { "198.51.100.10" } else { "2001:db8:9::a" }.parse()?, 6000);
        let question = SocketAddr::new(peer.ip(), 53);
        let others = vec![other, beside, question];
        let mut server = wall.start(&at("web.service").uid(65534), Act::Answer { at: place, others })?;
        let socket = wall.network.far.run(|| UdpSocket::bind(peer))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mark = wall.capture.mark()?;
        socket.send_to(b"unasked", place)?;
        let counts = server.report()?.counts;
        ensure!(counts[0] == (1, 0), "the socket that was asked: {counts:?}");
        ensure!(counts[1] == (1, 0), "a child on the same port: {counts:?}");
        ensure!(counts[2] == (0, 1), "a socket on another port: {counts:?}");
        ensure!(counts[3..] == [(0, 1); 3], "another port, a neighbour, its port 53: {counts:?}");
        let mut answer = [0; 16];
        let length = socket.recv(&mut answer)?;
        ensure!(&answer[..length] == b"answer", "{answer:?}");
        wall.capture.mark()?;
        ensure!(wall.capture.to_port(mark, 17, peer).len() == 2, "two answers");
        for to in [other, beside, question] {
            ensure!(wall.capture.to_port(mark, 17, to).is_empty(), "{to} was reached");
        }
    }
    Ok(())
}

/// Under a policy that allows their addresses, a server's answers to its clients are no replies. The next one may leave
/// them to be replies, and the clients that are there do not begin anew.
#[test]
fn a_servers_clients_are_answered_when_a_policy_no_longer_allows_them() -> Result<()> {
    let open = "version = 1\nmode = \"enforce\"\n[[allow]]\nname = \"all\"\nto = [\"any\"]\n";
    let wall = Wall::raise(open)?;
    let clients = [("10.77.0.2:7000", "198.51.100.9:6000"), ("[fd00:77::2]:7000", "[2001:db8:9::9]:6000")];
    let mut sessions = Vec::new();
    for (place, peer) in clients {
        let (place, peer): (SocketAddr, SocketAddr) = (place.parse()?, peer.parse()?);
        let mut server = wall.start(&at("web.service").uid(65534), Act::Push { at: place })?;
        let client = wall.network.far.run(|| UdpSocket::bind(peer))?;
        for _ in 0..2 {
            client.send_to(b"hello", place)?;
            ensure!(server.exchange()?.ok, "a rule allows {peer}");
        }
        sessions.push((server, client, place));
    }
    // Whoever a rule allows is not remembered as asking.
    tamper::forget_replies(wall.agent.pins())?;
    ensure!(wall.agent.apply(NOTHING)?.code == 0);
    for (server, client, place) in &mut sessions {
        client.send_to(b"still there?", *place)?;
        wall.capture.mark()?;
        ensure!(server.exchange()?.ok, "whoever asks {place} is answered");
    }
    Ok(())
}

/// A port 53 that asks unasked is told nothing, so that nobody can open the way to a resolver from outside.
#[test]
fn who_asks_from_port_53_is_not_answered() -> Result<()> {
    let wall = Wall::raise(NOTHING)?;
    let (place, peer): (SocketAddr, SocketAddr) = ("10.77.0.2:7000".parse()?, "198.51.100.9:53".parse()?);
    let mut server = wall.start(&at("web.service"), Act::Answer { at: place, others: Vec::new() })?;
    let socket = wall.network.far.run(|| UdpSocket::bind(peer))?;
    let mark = wall.capture.mark()?;
    socket.send_to(b"unasked", place)?;
    let counts = server.report()?.counts;
    ensure!(counts == [(0, 1); 3], "{counts:?}");
    wall.capture.mark()?;
    ensure!(wall.capture.to_port(mark, 17, peer).is_empty(), "it was answered");
    Ok(())
}
