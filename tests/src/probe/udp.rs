//! A datagram and its echo.

use std::io::{self, Read};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use super::attempt::{Attempt, Failed, Step, as_six, greeting, socket};
use super::option::{self, CABLE, set_number};
use super::uring;
use crate::act::{DECOY, DECOY_V6, FRIEND, Report, UdpBy};

/// Sends one and waits for what comes back.
pub fn send(to: SocketAddr, by: UdpBy, wait_ms: u64) -> Report {
    if let UdpBy::Uring | UdpBy::UringSocket | UdpBy::UringPolled = by {
        let how = uring::How { makes_socket: by == UdpBy::UringSocket, polled: by == UdpBy::UringPolled };
        return uring::reach(to, false, how, wait_ms);
    }
    Attempt::run(|_| {
        let socket = make(to, by, wait_ms)?;
        let mut text = greeting();
        if by == UdpBy::Large {
            text += &"-".repeat(LARGE_BYTES);
        }
        // Nobody answers UDP-Lite, and a socket connected elsewhere receives nothing, over IPv6 not even after it was
        // disconnected (`__udp_disconnect` forgets the IPv4 peer alone, seen on 6.18). That it arrives is seen elsewhere.
        let silent =
            matches!(by, UdpBy::Retargeted | UdpBy::Lite) || (by == UdpBy::Disconnected && to.is_ipv6());
        send_by(&socket, to, by, text.as_bytes())?;
        if silent {
            return Ok(None);
        }
        receive(&socket).step("receive").map(Some)
    })
}

fn send_by(socket: &Socket, to: SocketAddr, by: UdpBy, text: &[u8]) -> Result<(), Failed> {
    let parse = |text: &str| text.parse::<SocketAddr>().map_err(io::Error::other).step("connect");
    match by {
        UdpBy::Connected | UdpBy::ControlMessage | UdpBy::Sendfile | UdpBy::Spliced => {
            socket.connect(&to.into()).step("connect")?;
        }
        UdpBy::Retargeted | UdpBy::ConnectedTwice => {
            let decoy = parse(if to.is_ipv4() { DECOY } else { DECOY_V6 })?;
            socket.connect(&decoy.into()).step("befriend")?;
        }
        UdpBy::Disconnected => {
            socket.connect(&option::friend(to).step("befriend")?.into()).step("befriend")?;
            rustix::net::connect_unspec(socket).map_err(io::Error::from).step("disconnect")?;
        }
        UdpBy::FormChanged => {
            socket.connect(&as_six(parse(FRIEND)?).into()).step("befriend")?;
            set_number(socket, libc::IPPROTO_IPV6, libc::IPV6_ADDRFORM, libc::AF_INET).step("change")?;
            rustix::net::connect_unspec(socket).map_err(io::Error::from).step("disconnect")?;
        }
        _ => {}
    }
    match by {
        UdpBy::Connected => socket.send(text).map(drop),
        UdpBy::ConnectedTwice => {
            socket.connect(&to.into()).step("connect")?;
            socket.send(text).map(drop)
        }
        UdpBy::ControlMessage => option::send_with_ttl(socket, to, text),
        UdpBy::Sendfile => option::send_file(socket, text),
        UdpBy::Spliced => option::send_pipe(socket, text),
        UdpBy::Sendmmsg => option::send_many(socket, &[to, to], text),
        UdpBy::SendmmsgMixed => option::send_many(socket, &[option::friend(to).step("befriend")?, to], text),
        UdpBy::SixSocket => socket.send_to(text, &as_six(to).into()).map(drop),
        UdpBy::PacketInfo => option::send_from_own(socket, to, text),
        UdpBy::FlowLabel => option::send_labelled(socket, to, text),
        UdpBy::ZeroCopy => {
            set_number(socket, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1).step("ask for zerocopy")?;
            socket.send_to_with_flags(text, &to.into(), libc::MSG_ZEROCOPY).map(drop)
        }
        UdpBy::Corked => {
            socket.send_to_with_flags(text, &to.into(), libc::MSG_MORE).step("send")?;
            set_number(socket, libc::IPPROTO_UDP, libc::UDP_CORK, 0)
        }
        _ => socket.send_to(text, &to.into()).map(drop),
    }
    .step("send")
}

fn make(to: SocketAddr, by: UdpBy, wait_ms: u64) -> Result<Socket, Failed> {
    let is_six = matches!(by, UdpBy::SixSocket | UdpBy::FormChanged);
    let domain = if is_six { Domain::IPV6 } else { Domain::for_address(to) };
    let protocol = if by == UdpBy::Lite { Protocol::from(libc::IPPROTO_UDPLITE) } else { Protocol::UDP };
    let made = socket(domain, Type::DGRAM, Some(protocol), wait_ms).step("socket")?;
    made.set_broadcast(true).step("broadcast")?;
    let any = |port: u16| -> SocketAddr {
        match to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
        }
    };
    match by {
        UdpBy::AfterForged => {
            let foreign = option::source6("2001:db8:4::99".parse().expect("an address"), [0; 4]);
            made.set_freebind_v6(true).step("take any address")?;
            let (level, name) = (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO);
            // It is refused; that is not what is asked.
            let _ = option::send_with(&made, Some(to), b"forged", level, name, &foreign);
        }
        UdpBy::SourcePort53 => made.bind(&any(53).into()).step("bind")?,
        UdpBy::SharedPort => {
            let twin = Socket::new(domain, Type::DGRAM, Some(protocol)).step("socket")?;
            twin.set_reuse_port(true).and_then(|()| made.set_reuse_port(true)).step("share")?;
            made.bind(&any(0).into()).step("bind")?;
            let shared = made.local_addr().step("bind")?;
            twin.bind(&shared).step("bind")?;
            // Until the process ends it takes none of the answers: it is connected elsewhere.
            let decoy = if to.is_ipv4() { DECOY } else { DECOY_V6 };
            let decoy: SocketAddr = decoy.parse().map_err(io::Error::other).step("connect")?;
            twin.connect(&decoy.into()).step("connect")?;
            std::mem::forget(twin);
        }
        UdpBy::BoundDevice => made.bind_device(Some(CABLE.as_bytes())).step("bind to device")?,
        UdpBy::Marked => made.set_mark(MARK).step("mark")?,
        UdpBy::Segmented => {
            set_number(&made, libc::SOL_UDP, libc::UDP_SEGMENT, SEGMENT_BYTES).step("segment")?;
        }
        UdpBy::SourceRoute => option::route_through_friend(&made, to).step("route")?,
        UdpBy::HopByHop => option::hop_by_hop(&made).step("hop by hop")?,
        _ => {}
    }
    Ok(made)
}

/// Receives some text.
///
/// # Errors
/// The kernel's.
pub fn receive(mut socket: &Socket) -> io::Result<String> {
    let mut buffer = [0; 4096];
    let length = socket.read(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// More than two Ethernet frames hold.
const LARGE_BYTES: usize = 3500;
/// Less than the greeting.
const SEGMENT_BYTES: i32 = 8;
/// CargoWall's proxy had this one, and let pass what bore it.
pub const MARK: u32 = 0xca12;
