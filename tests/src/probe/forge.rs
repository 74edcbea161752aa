//! Packets to oneself that seem to come from elsewhere: the kernel answers whom they seem to come from.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

use super::attempt::{Attempt, Failed, Step, greeting, socket};
use super::icmp::echo_request;
use super::option::{self, source6};
use crate::act::Report;
use crate::trick::{Forged, Forgery};

/// Sends one; that nothing comes back says nothing.
pub fn send(forged: &Forged, wait_ms: u64) -> Report {
    let Forged { source, to, by } = *forged;
    Attempt::run(|_| {
        let domain = Domain::for_address(to);
        let (kind, protocol) = match (by, to) {
            (Forgery::Tcp, _) => (Type::STREAM, Protocol::TCP),
            (Forgery::Ping, SocketAddr::V4(_)) => (Type::DGRAM, Protocol::ICMPV4),
            (Forgery::Ping, SocketAddr::V6(_)) => (Type::DGRAM, Protocol::ICMPV6),
            _ => (Type::DGRAM, Protocol::UDP),
        };
        let listener = match by {
            Forgery::Tcp => Some(listen(to).step("listen")?),
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
        take_address(&made, source)?;
        match by {
            Forgery::Tcp => {
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

fn listen(at: SocketAddr) -> io::Result<Socket> {
    let listener = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    listener.set_reuse_address(true)?;
    listener.bind(&at.into())?;
    listener.listen(1)?;
    Ok(listener)
}
