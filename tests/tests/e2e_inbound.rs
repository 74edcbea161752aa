//! What begins at the other end: replies leave, questions come in only from whom they are served.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dnswall_agent::demo::network::{NEAR_V4, NEAR_V6};
use dnswall_tests::act::{Act, dns, tcp, udp};
use dnswall_tests::case::{allowed, case, refused};
use dnswall_tests::check::check_wall;
use dnswall_tests::lab::packet::checksum;
use dnswall_tests::pace::within;
use dnswall_tests::probe::dns::question;
use dnswall_tests::resolver::{Dnsmasq, FOREIGN, RESOLVER};
use dnswall_tests::wall::Wall;
use dnswall_tests::who::at;
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};

#[test]
fn replies_leave_and_nothing_else_does() -> Result<()> {
    let mut wall = Wall::raise("version = 1\nmode = \"enforce\"\n")?;
    let web = at("web.service");
    for (place, from) in [("10.77.0.2:8080", "198.51.100.9:0"), ("[fd00:77::2]:8080", "[2001:db8:9::9]:0")] {
        let (place, from): (SocketAddr, SocketAddr) = (place.parse()?, from.parse()?);
        let tcp = wall.start(&web, Act::Serve { at: place, tcp: true })?;
        let udp = wall.start(&web, Act::Serve { at: place, tcp: false })?;
        let mut stream = connect_from(&wall, from, place)?;
        for _ in 0..3 {
            stream.write_all(b"hello")?;
            let mut buffer = [0; 5];
            stream.read_exact(&mut buffer).with_context(|| format!("reply from tcp {place}"))?;
        }
        let socket = wall.network.far.run(|| UdpSocket::bind(from))?;
        socket.set_read_timeout(Some(within(Duration::from_secs(2))))?;
        for _ in 0..3 {
            socket.send_to(b"hello", place)?;
            socket.recv(&mut [0; 16]).with_context(|| format!("reply from udp {place}"))?;
        }
        drop((tcp, udp));
    }
    ensure!(wall.agent.alerts()?.is_empty(), "{:?}", wall.agent.alerts()?);
    // Whoever was served is not thereby allowed.
    let no = refused("egress.denied");
    check_wall(
        &mut wall,
        &[
            case("the client, by TCP", web.clone(), tcp("198.51.100.9:9000"), no),
            case("the client, by UDP", web.clone(), udp("198.51.100.9:9000"), no),
            case("the client, by UDP over IPv6", web, udp("[2001:db8:9::9]:9000"), no),
        ],
    )
}

/// What goes to a client's port 53 is an answer and no question, whatever it holds. A datagram goes there from port 53 alone.
#[test]
fn a_client_on_port_53_is_answered() -> Result<()> {
    let serve =
        "version = 1\nmode = \"enforce\"\n[dns.serve]\nfrom = [\"198.51.100.0/24\", \"2001:db8:9::/48\"]\n";
    let wall = Wall::raise(serve)?;
    let web = at("web.service");
    for (near, from) in [(NEAR_V4.into(), "198.51.100.9:53"), (NEAR_V6.into(), "[2001:db8:9::9]:53")] {
        let from: SocketAddr = from.parse()?;
        let (stream_at, at) = (SocketAddr::new(near, 8080), SocketAddr::new(near, 53));
        let _tcp = wall.start(&web, Act::Serve { at: stream_at, tcp: true })?;
        let _udp = wall.start(&web, Act::Serve { at, tcp: false })?;
        let mut stream = connect_from(&wall, from, stream_at)?;
        let socket = wall.network.far.run(|| UdpSocket::bind(from))?;
        socket.set_read_timeout(Some(within(Duration::from_secs(2))))?;
        for _ in 0..3 {
            stream.write_all(b"hello, hello")?;
            stream.read_exact(&mut [0; 12]).with_context(|| format!("answer over TCP to {from}"))?;
            socket.send_to(b"hello, hello", at)?;
            socket.recv(&mut [0; 12]).with_context(|| format!("answer to {from}"))?;
        }
    }
    ensure!(wall.agent.alerts()?.is_empty(), "{:?}", wall.agent.alerts()?);
    Ok(())
}

/// With fast open it is the accepted socket that sends the SYN-ACK, and data may leave before the handshake's end.
#[test]
fn who_connects_by_fast_open_is_answered_at_once() -> Result<()> {
    let wall = Wall::raise("version = 1\nmode = \"enforce\"\n")?;
    for side in [&wall.network.near, &wall.network.far] {
        side.run(|| std::fs::write("/proc/sys/net/ipv4/tcp_fastopen", "3"))?;
    }
    for (place, from) in [("10.77.0.2:8081", "198.51.100.9:0"), ("[fd00:77::2]:8081", "[2001:db8:9::9]:0")] {
        let (place, from): (SocketAddr, SocketAddr) = (place.parse()?, from.parse()?);
        let _server = wall.start(&at("web.service"), Act::Serve { at: place, tcp: true })?;
        // The first one brings a cookie back.
        for _ in 0..3 {
            let answer = wall.network.far.run(|| ask_by_fast_open(from, place))?;
            ensure!(answer == *b"hello", "{place}: {answer:?}");
        }
    }
    let counters = wall.network.near.run(|| std::fs::read_to_string("/proc/thread-self/net/netstat"))?;
    ensure!(counter(&counters, "TCPFastOpenPassive") >= Some(4), "no data came with a SYN:\n{counters}");
    // Each SYN-ACK that was dropped would have left one.
    ensure!(wall.agent.alerts()?.is_empty(), "{:?}", wall.agent.alerts()?);
    Ok(())
}

fn ask_by_fast_open(from: SocketAddr, to: SocketAddr) -> std::io::Result<[u8; 5]> {
    let mut made = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    made.set_read_timeout(Some(within(Duration::from_secs(10))))?;
    made.bind(&from.into())?;
    made.send_to_with_flags(b"hello", &to.into(), libc::MSG_FASTOPEN)?;
    let mut answer = [0; 5];
    made.read_exact(&mut answer)?;
    Ok(answer)
}

/// One of the kernel's counters: a line of names, then a line of numbers.
fn counter(text: &str, name: &str) -> Option<u64> {
    let lines: Vec<&str> = text.lines().collect();
    lines.chunks(2).find_map(|pair| {
        let place = pair.first()?.split_whitespace().position(|word| word == name)?;
        pair.get(1)?.split_whitespace().nth(place)?.parse().ok()
    })
}

/// A client of a connection that this host has forgotten is told so at once, and does not wait. Over IPv4 the kernel answers
/// in the listener's name from 6.13.
#[test]
fn a_segment_of_no_connection_is_reset() -> Result<()> {
    let wall = Wall::raise("version = 1\nmode = \"enforce\"\n")?;
    let from = Ipv4Addr::new(198, 51, 100, 9);
    let _server = wall.start(&at("web.service"), Act::Serve { at: (NEAR_V4, 8082).into(), tcp: true })?;
    for port in [8082, 8083] {
        let mark = wall.capture.mark()?;
        let raw = wall.network.far.run(|| {
            let raw = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP))?;
            raw.bind(&SocketAddr::from((from, 0)).into())?;
            raw.send_to(&acknowledgement(from, port), &SocketAddr::from((NEAR_V4, 0)).into())?;
            Ok(raw)
        })?;
        let until = Instant::now() + within(Duration::from_secs(5));
        while wall.capture.since(mark, from.into()).is_empty() {
            ensure!(Instant::now() < until, "port {port}: no reset came");
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(raw);
    }
    ensure!(wall.agent.alerts()?.is_empty(), "{:?}", wall.agent.alerts()?);
    Ok(())
}

/// A TCP segment with nothing but ACK, from port 9999.
fn acknowledgement(from: Ipv4Addr, port: u16) -> Vec<u8> {
    let mut segment = vec![0; 20];
    segment[..2].copy_from_slice(&9999u16.to_be_bytes());
    segment[2..4].copy_from_slice(&port.to_be_bytes());
    (segment[12], segment[13]) = (5 << 4, 0x10);
    let pseudo = [&from.octets()[..], &NEAR_V4.octets(), &[0, 6, 0, 20]].concat();
    let words = [pseudo, segment.clone()].concat();
    let sum: u32 = words.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    segment[16..18].copy_from_slice(&(!(((sum & 0xffff) + (sum >> 16)) as u16)).to_be_bytes());
    segment
}

#[test]
fn questions_come_in_only_from_whom_they_are_served() -> Result<()> {
    let serve =
        "version = 1\nmode = \"enforce\"\n[dns.serve]\nfrom = [\"198.51.100.0/24\", \"2001:db8:9::/48\"]\n";
    let nobody = "version = 1\nmode = \"enforce\"\n[dns]\nresolvers = [\"169.254.169.253\"]\n";
    let audit = nobody.replace("enforce", "audit");
    let wall = Wall::raise(serve)?;
    let cgroup = wall.tree.child("dnsmasq.service")?;
    let own = [IpAddr::V4(NEAR_V4), IpAddr::V6(NEAR_V6)];
    let _dnsmasq = Dnsmasq::start(wall.probe(), &wall.network.near, Some(cgroup), &own)?;
    let served = [("198.51.100.9:0", NEAR_V4.into()), ("[2001:db8:9::9]:0", NEAR_V6.into())];
    let others = [("203.0.113.9:0", NEAR_V4.into()), ("[2001:db8:a::9]:0", NEAR_V6.into())];

    let expect = |from: &[(&str, IpAddr)], answered: bool, verdict: Option<&str>| -> Result<()> {
        for (from, to) in from {
            for tcp in [false, true] {
                let from: SocketAddr = from.parse()?;
                let alerts = wall.agent.alerts()?.len();
                let got = ask_from(&wall, from, (*to, 53).into(), tcp);
                ensure!(got.is_ok() == answered, "{from} asks {to}, tcp {tcp}: {got:?}");
                let protocol = if tcp { "tcp" } else { "udp" };
                let ours = |alert: &Value| {
                    alert["flow"]["source"] == from.ip().to_string() && alert["flow"]["protocol"] == protocol
                };
                let Some(verdict) = verdict else {
                    ensure!(!wall.agent.alerts()?[alerts..].iter().any(ours), "{from} asks {to}: an alert");
                    continue;
                };
                let alert = wall.agent.wait_for_alert(alerts, |alert| ours(alert))?;
                ensure!(alert["kind"] == "ingress.dns" && alert["verdict"] == verdict, "{alert}");
                ensure!(
                    alert["reason"] == "not-served" && alert["flow"]["destination_port"] == 53,
                    "{alert}"
                );
            }
        }
        Ok(())
    };
    expect(&served, true, None)?;
    expect(&others, false, Some("denied"))?;
    ensure!(wall.agent.apply(nobody)?.code == 0);
    std::thread::sleep(Duration::from_millis(1100)); // one alert a second for each flow
    expect(&served, false, Some("denied"))?;
    ensure!(wall.agent.apply(&audit)?.code == 0);
    std::thread::sleep(Duration::from_millis(1100));
    expect(&served, true, Some("would-deny"))
}

#[test]
fn a_question_behind_extension_headers_is_a_question() -> Result<()> {
    let wall = Wall::raise("version = 1\nmode = \"enforce\"\n")?;
    let cgroup = wall.tree.child("dnsmasq.service")?;
    let _dnsmasq = Dnsmasq::start(wall.probe(), &wall.network.near, Some(cgroup), &[IpAddr::V6(NEAR_V6)])?;
    let from: SocketAddrV6 = "[2001:db8:9::9]:4053".parse()?;
    let ear = wall.network.far.run(|| UdpSocket::bind(from))?;
    ear.set_read_timeout(Some(within(ANSWER_WITHIN)))?;
    let datagram = udp_datagram(from, NEAR_V6, &question("hidden.example"));
    // A fragment that is the whole, and nine empty destination options, which the stack reads through.
    let fragment = [&[17, 0, 0, 0, 0, 0, 0, 7][..], &datagram].concat();
    let option = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let options =
        [(0..8).flat_map(|_| option(60)).collect::<Vec<u8>>(), option(17).to_vec(), datagram].concat();
    for (header, bytes) in [(44, fragment), (60, options)] {
        let alerts = wall.agent.alerts()?.len();
        let raw = wall.network.far.run(|| Socket::new(Domain::IPV6, Type::RAW, Some(header.into())))?;
        raw.bind(&SocketAddrV6::new(*from.ip(), 0, 0, 0).into())?;
        raw.send_to(&bytes, &SocketAddrV6::new(NEAR_V6, 0, 0, 0).into())?;
        let alert = wall.agent.wait_for_alert(alerts, |alert| alert["kind"] == "ingress.dns")?;
        ensure!(alert["flow"]["source"] == from.ip().to_string(), "header {header}: {alert}");
        ensure!(ear.recv(&mut [0; 512]).is_err(), "header {header}: it was answered");
    }
    Ok(())
}

/// A UDP header and what it carries, from `from` to port 53.
fn udp_datagram(from: SocketAddrV6, to: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let header =
        |sum: u16| [from.port(), 53, length, sum].into_iter().flat_map(u16::to_be_bytes).collect::<Vec<u8>>();
    let pseudo = [&from.ip().octets()[..], &to.octets(), &u32::from(length).to_be_bytes(), &[0, 0, 0, 17]];
    let whole = [pseudo.concat(), header(0), payload.to_vec()].concat();
    [header(checksum(&whole)), payload.to_vec()].concat()
}

#[test]
fn a_resolver_on_this_host_serves_the_host_and_asks_for_it() -> Result<()> {
    let mut wall = Wall::raise(
        r#"
version = 1
mode = "enforce"
[dns]
resolvers = ["169.254.169.253"]
clients = [{ unit = "dnsmasq.service" }]
[[dns.stub]]
address = "127.0.0.53"
"#,
    )?;
    let cgroup = wall.tree.child("dnsmasq.service")?;
    let stub: IpAddr = "127.0.0.53".parse()?;
    let _dnsmasq = Dnsmasq::forward(wall.probe(), &wall.network.near, Some(cgroup), &[stub], RESOLVER)?;
    let app = at("app.service").uid(65534);
    check_wall(
        &mut wall,
        &[
            case("through the resolver here", app.clone(), dns(stub), allowed("dns.stub.0")).unexplained(),
            case("not past it", app.clone(), dns(RESOLVER), dnswall_tests::case::not_for_you("dns.direct")),
            case("nor elsewhere", app, dns(FOREIGN), refused("dns.direct")),
        ],
    )
}

fn connect_from(wall: &Wall, from: SocketAddr, to: SocketAddr) -> Result<TcpStream> {
    let socket = wall.network.far.run(|| Socket::new(Domain::for_address(to), Type::STREAM, None))?;
    socket.bind(&from.into())?;
    socket
        .connect_timeout(&to.into(), within(ANSWER_WITHIN))
        .with_context(|| format!("{from} connects to {to}"))?;
    socket.set_read_timeout(Some(within(ANSWER_WITHIN)))?;
    Ok(socket.into())
}

fn ask_from(wall: &Wall, from: SocketAddr, to: SocketAddr, tcp: bool) -> Result<()> {
    let question = question("inbound.example");
    let mut answer = [0; 512];
    if tcp {
        let mut stream = connect_from(wall, from, to)?;
        stream.write_all(&[&(question.len() as u16).to_be_bytes()[..], &question].concat())?;
        stream.read_exact(&mut answer[..2])?;
    } else {
        let socket = wall.network.far.run(|| UdpSocket::bind(from))?;
        socket.set_read_timeout(Some(within(ANSWER_WITHIN)))?;
        socket.send_to(&question, to)?;
        socket.recv(&mut answer)?;
    }
    Ok(())
}

const ANSWER_WITHIN: Duration = Duration::from_millis(1000);
