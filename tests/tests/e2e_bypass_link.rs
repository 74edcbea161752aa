//! What leaves below the sockets that the wall sees, as docs/bypasses.md says it: by whom it can be done, and what it
//! looks like when it is. Families and protocols that this kernel does not have are seen not to be there.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dnswall_agent::kernel::lsm;
use dnswall_tests::act::{Act, UdpBy, address, udp, udp_by};
use dnswall_tests::pace::within;
use dnswall_tests::probe::option::set_number;
use dnswall_tests::trick::LinkBy;
use dnswall_tests::wall::Wall;
use dnswall_tests::who::{Who, at};
use socket2::{Domain, Socket, Type};

const NOTHING: &str = "version = 1\nmode = \"enforce\"\n";

/// Where the kernel has no active BPF LSM nobody refuses it to root.
#[test]
fn frames_take_a_privilege_and_a_kernel_that_refuses_them() -> Result<()> {
    let wall = Wall::raise(NOTHING)?;
    let refused = lsm::obstacle().is_none();
    for by in [LinkBy::Packet, LinkBy::PacketBypass] {
        let to = "198.51.100.53:53";
        let (report, arrived) = send(&wall, &user(), to, by)?;
        ensure!(
            report == Some(libc::EPERM) && arrived == 0,
            "{by:?} as a user: {report:?}, {arrived} arrived"
        );
        let (report, arrived) = send(&wall, &root(), to, by)?;
        let expected = if refused {
            report == Some(libc::EPERM) && arrived == 0
        } else {
            report.is_none() && arrived > 0
        };
        ensure!(expected, "{by:?} as root, refused {refused}: {report:?}, {arrived} arrived");
    }
    Ok(())
}

/// A tunnel of a process's own takes a device, which the wall refuses where the kernel says who opens it (6.1). The outer
/// packets of the kernel's tunnels are nobody's.
#[test]
fn tunnels_take_a_privilege_and_the_kernels_outer_packets_are_not_seen() -> Result<()> {
    for by in [LinkBy::Tun, LinkBy::Vxlan] {
        let wall = Wall::raise(&format!(
            "{NOTHING}[[allow]]\nname = \"inner\"\nto = [\"10.0.3.0/24\"]\nports = [\"udp/9000\"]\n"
        ))?;
        let to = "198.51.100.54:4789";
        let (report, arrived) = send(&wall, &user(), to, by)?;
        ensure!(report.is_some() && arrived == 0, "{by:?} as a user: {report:?}, {arrived} arrived");
        let (report, arrived) = send(&wall, &root(), to, by)?;
        let open = wall.agent.status()?["warnings"].to_string().contains("/dev/net/tun");
        let expected = match by {
            LinkBy::Tun if !open => report == Some(libc::EPERM) && arrived == 0,
            _ => report.is_none() && arrived > 0,
        };
        ensure!(expected, "{by:?} as root, devices open {open}: {report:?}, {arrived} arrived");
    }
    Ok(())
}

/// Nodes of clusters have tunnels, and whoever speaks to one over loopback, or to all, has the kernel send on what is inside. Only those
/// whom `[unjudged]` names may, and that it works for them shows that it was tried.
#[test]
fn a_tunnel_of_this_host_takes_nothing_from_it() -> Result<()> {
    let policy = format!(
        "{NOTHING}[[allow]]\nto = [\"10.77.0.255\", \"255.255.255.255\", \"224.0.0.1\", \"ff02::1\"]\n[unjudged]\nfrom = [{{ unit = \"overlay.service\" }}]\n"
    );
    let wall = Wall::raise(&policy)?;
    let to = "198.51.100.55:53";
    send(&wall, &root(), to, LinkBy::Overlay)?;
    let trusted = at("overlay.service").uid(65534);
    let (report, arrived) = send(&wall, &trusted, to, LinkBy::Unwrapped)?;
    ensure!(report.is_none() && arrived >= 8, "not all was unwrapped: {report:?}, {arrived} arrived");
    for who in [user(), root()] {
        let (report, arrived) = send(&wall, &who, to, LinkBy::Unwrapped)?;
        ensure!(report == Some(libc::EPERM) && arrived == 0, "{report:?}, {arrived} arrived");
    }
    wall.agent.wait_for_alert(0, |alert| alert["reason"] == "tunnel")?;
    // Whoever asks from the tunnel's port is answered.
    let place = address("10.77.0.2:8080");
    let _server = wall.start(&user(), Act::Serve { at: place, tcp: false })?;
    let client = wall.network.far.run(|| UdpSocket::bind("198.51.100.9:8472"))?;
    client.set_read_timeout(Some(within(Duration::from_secs(2))))?;
    client.send_to(b"hello", place)?;
    client.recv(&mut [0; 16]).context("the answer to a tunnel's port")?;
    Ok(())
}

/// Anybody may say so of a socket of his own, on a port that he shares with others.
#[test]
fn who_says_that_he_has_a_tunnel_stops_nobody() -> Result<()> {
    let wall =
        Wall::raise(&format!("{NOTHING}[[allow]]\nto = [\"239.255.255.250\"]\nports = [\"udp/1900\"]\n"))?;
    let _tunnel = wall.start(&user(), Act::Unwrap { at: address("0.0.0.0:1900") })?;
    let mark = wall.capture.mark()?;
    let to = "239.255.255.250:1900";
    let report = wall.run(&at("other.service"), udp(to))?;
    wall.capture.mark()?;
    let arrived = wall.capture.to_port(mark, 17, address(to)).len();
    ensure!(report.is_silence() && arrived == 1, "{report:?}, {arrived} arrived");
    Ok(())
}

/// What is sent to a group over the loopback device stays here.
#[test]
fn a_group_on_loopback_takes_no_rule() -> Result<()> {
    let wall = Wall::raise(NOTHING)?;
    let to = "239.1.1.1:9000";
    let report = wall.run(&user(), udp(to))?;
    ensure!(report.is_refused(), "over the cable: {report:?}");
    let added = wall
        .network
        .near
        .run(|| Command::new("ip").args(["route", "add", "239.1.1.0/24", "dev", "lo"]).status())?;
    ensure!(added.success(), "no route: {added}");
    let report = wall.run(&user(), udp(to))?;
    ensure!(report.is_silence(), "over loopback: {report:?}");
    // Where it would be sent on, by whatever port, it does.
    let router = wall.network.near.run(|| Socket::new(Domain::IPV4, Type::RAW, Some(IGMP.into())))?;
    set_number(&router, libc::IPPROTO_IP, MRT_INIT, 1)?;
    for act in [udp(to), udp_by(to, UdpBy::Connected), udp_by("239.1.1.1:0", UdpBy::Connected)] {
        let report = wall.run(&user(), act.clone())?;
        ensure!(report.is_refused(), "where multicast is routed, {act:?}: {report:?}");
    }
    Ok(())
}

/// AF_XDP sockets are made by anyone with CAP_NET_RAW; what they need beyond that, a program of theirs on the device, is
/// CAP_BPF and CAP_NET_ADMIN.
#[test]
fn express_sockets_take_a_privilege() -> Result<()> {
    let wall = Wall::raise(NOTHING)?;
    let act = Act::Socket { family: libc::AF_XDP, kind: libc::SOCK_RAW, protocol: 0 };
    let report = wall.run(&user(), act.clone())?;
    ensure!(report.errno == Some(libc::EPERM), "as a user: {report:?}");
    let report = wall.run(&root(), act)?;
    ensure!(report.ok == lsm::obstacle().is_some(), "as root: {report:?}");
    Ok(())
}

/// Families beside IP have their own way out, where the kernel has them at all. This one says which it has: a new name
/// in the list is a new row in the book.
#[test]
fn families_beside_ip_are_known() -> Result<()> {
    let wall = Wall::raise(NOTHING)?;
    for (name, family, kind, protocol, there) in [
        ("AX.25", libc::AF_AX25, libc::SOCK_DGRAM, 0, false),
        ("IPX", libc::AF_IPX, libc::SOCK_DGRAM, 0, false),
        ("AppleTalk", libc::AF_APPLETALK, libc::SOCK_DGRAM, 0, false),
        ("X.25", libc::AF_X25, libc::SOCK_SEQPACKET, 0, false),
        ("RDS", libc::AF_RDS, libc::SOCK_SEQPACKET, 0, false),
        ("PPPoE", libc::AF_PPPOX, libc::SOCK_DGRAM, 0, false),
        ("LLC", libc::AF_LLC, libc::SOCK_DGRAM, 0, false),
        ("InfiniBand", libc::AF_IB, libc::SOCK_DGRAM, 0, false),
        ("CAN", libc::AF_CAN, libc::SOCK_DGRAM, 0, false),
        ("TIPC", libc::AF_TIPC, libc::SOCK_DGRAM, 0, false),
        ("Bluetooth", libc::AF_BLUETOOTH, libc::SOCK_STREAM, 0, false),
        ("RXRPC", libc::AF_RXRPC, libc::SOCK_DGRAM, libc::PF_INET, false),
        ("802.15.4", libc::AF_IEEE802154, libc::SOCK_DGRAM, 0, false),
        ("Qualcomm IPC", QIPCRTR, libc::SOCK_DGRAM, 0, false),
        ("SMC", SMC, libc::SOCK_STREAM, 0, false),
        ("SMC, as a kind of TCP", libc::AF_INET, libc::SOCK_STREAM, IPPROTO_SMC, false),
        ("MCTP", MCTP, libc::SOCK_DGRAM, 0, false),
        ("virtual machine sockets", libc::AF_VSOCK, libc::SOCK_STREAM, 0, true),
        ("SCTP", libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP, false),
        ("SCTP, one to many", libc::AF_INET6, libc::SOCK_SEQPACKET, libc::IPPROTO_SCTP, false),
        ("DCCP", libc::AF_INET, SOCK_DCCP, libc::IPPROTO_DCCP, false),
        ("L2TP", libc::AF_INET, libc::SOCK_DGRAM, L2TP, false),
    ] {
        let report = wall.run(&user(), Act::Socket { family, kind, protocol })?;
        if there || report.ok {
            // Another kernel may have more, or less: what it makes is said by the book's row for it.
            println!("{name}: {report:?}");
            continue;
        }
        let missing = [libc::EAFNOSUPPORT, libc::ESOCKTNOSUPPORT, libc::EPROTONOSUPPORT, libc::EPERM];
        ensure!(report.errno.is_some_and(|errno| missing.contains(&errno)), "{name}: {report:?}");
    }
    Ok(())
}

/// The error number, and how many packets arrived.
fn send(wall: &Wall, who: &Who, to: &str, by: LinkBy) -> Result<(Option<i32>, usize)> {
    let mark = wall.capture.mark()?;
    let report = wall.run(who, Act::Link { to: address(to), by })?;
    wall.capture.mark()?;
    Ok((report.errno, wall.capture.to_port(mark, 17, address(to)).len()))
}

fn user() -> Who {
    at("app.service").uid(65534)
}

fn root() -> Who {
    at("app.service")
}

const IGMP: i32 = 2;
/// linux/mroute.h
const MRT_INIT: i32 = 200;
const QIPCRTR: i32 = 42;
const SMC: i32 = 43;
const IPPROTO_SMC: i32 = 256;
const MCTP: i32 = 45;
const SOCK_DCCP: i32 = 6;
const L2TP: i32 = 115;
