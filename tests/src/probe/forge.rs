//! Packets to oneself that seem to come from elsewhere: the kernel answers whom they seem to come from.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::Path;

use socket2::{Domain, Protocol, Socket, Type};

use super::attempt::{Attempt, Failed, Step, for_each_line, greeting, socket};
use super::icmp::echo_request;
use super::option::{self, CABLE, source6};
use crate::act::Report;
use crate::lab::packet::{checksum, ipv4};
use crate::trick::{Forged, Forgery};

/// Sends one; that nothing comes back says nothing.
pub fn send(forged: &Forged, wait_ms: u64) -> Report {
    let Forged { source, to, by } = *forged;
    Attempt::run(|_| {
        let domain = Domain::for_address(to);
        let (kind, protocol) = match (by, to) {
            (Forgery::Tcp | Forgery::TcpBoundTwice | Forgery::LedOut, _) => (Type::STREAM, Protocol::TCP),
            (Forgery::OwnCopy | Forgery::HeaderAway, _) => (Type::RAW, Protocol::ICMPV4),
            (Forgery::Multipath, _) => (Type::STREAM, Protocol::MPTCP),
            (Forgery::RawNobodys, SocketAddr::V4(_)) => (Type::RAW, Protocol::ICMPV4),
            (Forgery::RawToItself | Forgery::RawNobodys, _) => (Type::RAW, Protocol::ICMPV6),
            (Forgery::Ping, SocketAddr::V4(_)) => (Type::DGRAM, Protocol::ICMPV4),
            (Forgery::Ping, SocketAddr::V6(_)) => (Type::DGRAM, Protocol::ICMPV6),
            _ => (Type::DGRAM, Protocol::UDP),
        };
        let listener = match by {
            Forgery::Tcp
            | Forgery::TcpBoundTwice
            | Forgery::Multipath
            | Forgery::HeaderAway
            | Forgery::LedOut => Some(listen(to).step("listen")?),
            _ => None,
        };
        let made = socket(domain, kind, Some(protocol), wait_ms).step("socket")?;
        let text = greeting();
        if by == Forgery::UdpControl {
            made.set_freebind_v6(true).step("take any address")?;
            let IpAddr::V6(address) = source.ip() else {
                return Err(("family", ErrorKind::Unsupported.into()));
            };
            let info = source6(address, [0; 4]);
            option::send_with(
                &made,
                Some(to),
                text.as_bytes(),
                libc::IPPROTO_IPV6,
                libc::IPV6_PKTINFO,
                &info,
            )
            .step("send")?;
            return Ok(None);
        }
        match by {
            Forgery::GroupInterface => return by_group(&made, source, to).map(|()| None),
            Forgery::BoundToGroup if to.is_ipv4() => {
                made.bind(&SocketAddr::from((GROUP, 0)).into()).step("bind to a group")?;
                return by_group(&made, source, to).map(|()| None);
            }
            Forgery::OwnCopy => return by_own_copy(&made, source).map(|()| None),
            Forgery::HeaderAway => {
                let packet = begun_by_hand(to, source).step("family")?;
                made.set_header_included_v4(true).step("write the header")?;
                made.send_to(&packet, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).step("send")?;
                return Ok(None);
            }
            Forgery::LedOut => {
                let listener = listener.as_ref().ok_or(("listen", ErrorKind::NotFound.into()))?;
                made.bind(&source.into()).step("bind")?;
                made.connect(&to.into()).step("connect")?;
                let (accepted, _) = listener.accept().step("accept")?;
                accepted.bind_device(Some(CABLE.as_bytes())).step("bind to device")?;
                accepted.send(text.as_bytes()).step("send")?;
                std::thread::sleep(std::time::Duration::from_millis(wait_ms.min(200)));
                return Ok(None);
            }
            _ => {}
        }
        if by == Forgery::RawToItself {
            return echo6(&made, source.ip(), source.ip()).map(|()| None);
        }
        if by == Forgery::RawNobodys {
            let (IpAddr::V4(from), IpAddr::V4(own)) = (source.ip(), to.ip()) else {
                return echo6(&made, source.ip(), to.ip()).map(|()| None);
            };
            let echo = echo_request(8);
            let packet = ipv4(from, own, 1, &[], 0, &echo);
            made.set_header_included_v4(true).step("write the header")?;
            made.send_to(&packet, &to.into()).step("send")?;
            return Ok(None);
        }
        if by == Forgery::Segments {
            let header = segments(source.ip(), to.ip()).step("family")?;
            for name in ["all/seg6_enabled", "lo/seg6_enabled", "all/forwarding"] {
                fs::write(Path::new("/proc/sys/net/ipv6/conf").join(name), "1").step("tell the kernel")?;
            }
            option::set(&made, libc::IPPROTO_IPV6, libc::IPV6_RTHDR, &header).step("route")?;
            made.bind(&SocketAddr::new(to.ip(), 0).into()).step("bind")?;
            made.send_to(text.as_bytes(), &source.into()).step("send")?;
            return Ok(None);
        }
        // A port of its own choice would be kept, and the socket never be bound anew.
        let port = if matches!(by, Forgery::BoundToGroup | Forgery::Corked) { 0 } else { source.port() };
        take_address(&made, SocketAddr::new(source.ip(), port))?;
        match by {
            Forgery::BoundToGroup => {
                disconnect(&made).step("disconnect")?;
                let group: IpAddr = match to {
                    SocketAddr::V4(_) => GROUP.into(),
                    SocketAddr::V6(_) => GROUP_V6.into(),
                };
                made.bind(&SocketAddr::new(group, 0).into()).step("bind to a group")?;
                made.connect(&to.into()).step("connect")?;
                made.send(text.as_bytes()).step("send")?;
                return Ok(None);
            }
            Forgery::Corked => return let_go_later(&made, to).map(|()| None),
            _ => {}
        }
        if matches!(by, Forgery::UdpBoundTwice | Forgery::TcpBoundTwice) {
            let again = made.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into());
            if again.is_ok() {
                return Err(("bind again", ErrorKind::Other.into()));
            }
        }
        match by {
            Forgery::Tcp | Forgery::TcpBoundTwice | Forgery::Multipath => {
                made.set_nonblocking(true).step("connect")?;
                match made.connect(&to.into()) {
                    Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
                    other => other.step("connect")?,
                }
                // Long enough for the SYN-ACK to leave.
                std::thread::sleep(std::time::Duration::from_millis(wait_ms.min(200)));
                drop(listener);
            }
            Forgery::Ping => {
                let kind = if to.is_ipv4() { 8 } else { 128 };
                made.send_to(&echo_request(kind), &to.into()).step("send")?;
            }
            _ => {
                made.send_to(text.as_bytes(), &to.into()).step("send")?;
            }
        }
        Ok(None)
    })
}

/// A source that only the interface of a group says.
fn by_group(made: &Socket, source: SocketAddr, to: SocketAddr) -> Result<(), Failed> {
    let (IpAddr::V4(address), IpAddr::V4(there)) = (source.ip(), to.ip()) else {
        return Err(("family", ErrorKind::Unsupported.into()));
    };
    let device =
        rustix::net::netdevice::name_to_index(made, CABLE).map_err(io::Error::from).step("find the cable")?;
    made.set_ip_transparent_v4(true).step("take any address")?;
    // `struct ip_mreqn`
    let mut interface = vec![0; 4];
    interface.extend(address.octets());
    interface.extend(device.to_ne_bytes());
    option::set(made, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &interface).step("name the interface")?;
    if !there.is_multicast() {
        made.connect(&SocketAddr::from((GROUP, 9)).into()).step("connect to a group")?;
    }
    made.connect(&to.into()).step("connect")?;
    made.send(greeting().as_bytes()).step("send").map(drop)
}

/// One socket, made before anything else; a [`Forgery::Corked`] from it for each line of input, with a report.
///
/// # Errors
/// The kernel's while it makes the socket.
pub fn hold(forged: &Forged) -> io::Result<()> {
    let Forged { source, to, .. } = *forged;
    let made = socket(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP), 1)?;
    for_each_line(|| {
        Attempt::run(|_| {
            take_address(&made, SocketAddr::new(source.ip(), 0))?;
            let_go_later(&made, to).map(|()| None)
        })
    })
}

/// Sends from the address the socket is bound to when that is another one by then.
fn let_go_later(made: &Socket, to: SocketAddr) -> Result<(), Failed> {
    made.connect(&to.into()).step("connect")?;
    made.send_with_flags(greeting().as_bytes(), libc::MSG_MORE).step("hold back")?;
    disconnect(made).step("disconnect")?;
    made.bind(&SocketAddr::new(own(to), 0).into()).step("bind anew")?;
    // The last part of it; what becomes of the whole a socket's option would not say.
    made.send_to(b"", &to.into()).step("send").map(drop)
}

/// `connect()` to no family: the socket keeps the address it was bound to, and has no port any more.
fn disconnect(made: &Socket) -> io::Result<()> {
    // SAFETY: sockaddr is plain data for which all zeroes is a valid value; AF_UNSPEC is 0.
    let nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    let length = size_of::<libc::sockaddr>() as u32;
    // SAFETY: a live address with its length.
    if unsafe { libc::connect(made.as_raw_fd(), &raw const nowhere, length) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// An address of one's own in the other's family.
fn own(to: SocketAddr) -> IpAddr {
    match to {
        SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    }
}

/// Sends an IPv6 echo request by hand, over the loopback device.
fn echo6(made: &Socket, from: IpAddr, to: IpAddr) -> Result<(), Failed> {
    let packet = echo_by_hand(from, to).step("family")?;
    option::set_number(made, libc::IPPROTO_IPV6, libc::IPV6_HDRINCL, 1).step("write the header")?;
    let loopback = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    made.send_to(&packet, &loopback.into()).step("send").map(drop)
}

/// First the datagram that this host hears as well, then what answers it.
fn by_own_copy(raw: &Socket, source: SocketAddr) -> Result<(), Failed> {
    let IpAddr::V4(address) = source.ip() else { return Err(("family", ErrorKind::Unsupported.into())) };
    let server = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).step("socket")?;
    server.set_broadcast(true).and_then(|()| raw.set_broadcast(true)).step("send to all")?;
    server.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 67)).into()).step("bind")?;
    let mut datagram: Vec<u8> = [68u16, 67, 16, 0].iter().flat_map(|word| word.to_be_bytes()).collect();
    datagram.extend([0; 8]);
    let packet = ipv4(address, Ipv4Addr::BROADCAST, 17, &[], 0, &datagram);
    raw.set_header_included_v4(true).step("write the header")?;
    // Whether it is refused or heard: what counts is what is answered.
    let _ = raw.send_to(&packet, &SocketAddr::from((Ipv4Addr::BROADCAST, 0)).into());
    std::thread::sleep(std::time::Duration::from_millis(100));
    let to = SocketAddr::new(source.ip(), 68);
    server.send_to(greeting().as_bytes(), &to.into()).step("send").map(drop)
}

/// An IPv4 packet that begins a TCP connection.
fn begun_by_hand(from: SocketAddr, to: SocketAddr) -> io::Result<Vec<u8>> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (from.ip(), to.ip()) else {
        return Err(ErrorKind::Unsupported.into());
    };
    let mut segment = vec![0; 20];
    segment[..2].copy_from_slice(&9999u16.to_be_bytes());
    segment[2..4].copy_from_slice(&from.port().to_be_bytes());
    (segment[12], segment[13], segment[14]) = (5 << 4, 2, 4);
    let pseudo = [&source.octets()[..], &destination.octets(), &[0, 6, 0, 20]].concat();
    let sum = checksum(&[pseudo, segment.clone()].concat());
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    Ok(ipv4(source, destination, 6, &[], 0, &segment))
}

/// Over IPv6 anyone may (`IPV6_FREEBIND`), over IPv4 it takes a privilege (`IP_TRANSPARENT`).
fn take_address(socket: &Socket, source: SocketAddr) -> Result<(), Failed> {
    match source {
        SocketAddr::V4(_) => socket.set_ip_transparent_v4(true).step("take any address")?,
        SocketAddr::V6(_) => socket.set_freebind_v6(true).step("take any address")?,
    }
    // A ping socket's port is its identifier, and the kernel's to choose.
    let mut source = source;
    if socket.protocol().ok().flatten().is_some_and(|it| it == Protocol::ICMPV6 || it == Protocol::ICMPV4) {
        source.set_port(0);
    }
    socket.bind(&source.into()).step("bind")
}

/// An IPv6 packet with an echo request.
fn echo_by_hand(from: IpAddr, to: IpAddr) -> io::Result<Vec<u8>> {
    let (IpAddr::V6(from), IpAddr::V6(to)) = (from, to) else { return Err(ErrorKind::Unsupported.into()) };
    let mut echo = echo_request(128);
    echo[2..4].fill(0);
    let upper = [&from.octets()[..], &to.octets(), &(echo.len() as u32).to_be_bytes(), &[0, 0, 0, 58]];
    let summed = [upper.concat(), echo.clone()].concat();
    echo[2..4].copy_from_slice(&checksum(&summed).to_be_bytes());
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((echo.len() as u16).to_be_bytes());
    packet.extend([58, 64]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(echo);
    Ok(packet)
}

/// A segment routing header (RFC 8754): first to one's own address, from there to the other. The last segment comes first.
fn segments(last: IpAddr, own: IpAddr) -> io::Result<Vec<u8>> {
    let (IpAddr::V6(last), IpAddr::V6(own)) = (last, own) else { return Err(ErrorKind::Unsupported.into()) };
    let mut header = vec![0, 4, 4, 1, 1, 0, 0, 0];
    header.extend(last.octets());
    header.extend(own.octets());
    Ok(header)
}

/// Nobody's group.
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 1, 1);
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0, 0x99);

fn listen(at: SocketAddr) -> io::Result<Socket> {
    let listener = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    listener.set_reuse_address(true)?;
    listener.bind(&at.into())?;
    listener.listen(1)?;
    Ok(listener)
}
