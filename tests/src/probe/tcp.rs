//! A connection, a line and its echo.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::attempt::{Attempt, Failed, Step, as_six, greeting, socket};
use super::option::{self, CABLE, set_number};
use super::udp::{MARK, receive};
use super::uring;
use crate::act::{Report, TcpBy};

/// Connects, sends and waits for what comes back.
pub fn connect(to: SocketAddr, by: TcpBy, wait_ms: u64) -> Report {
    if let TcpBy::Uring | TcpBy::UringSocket | TcpBy::UringPolled = by {
        let how = uring::How { makes_socket: by == TcpBy::UringSocket, polled: by == TcpBy::UringPolled };
        return uring::reach(to, true, how, wait_ms);
    }
    Attempt::run(|_| {
        let mut made = make(to, by, wait_ms)?;
        let text = greeting();
        if let TcpBy::FastOpen | TcpBy::FastOpenAgain = by {
            made.send_to_with_flags(text.as_bytes(), &to.into(), libc::MSG_FASTOPEN).step("connect")?;
        } else {
            let target = if by == TcpBy::SixSocket { as_six(to) } else { to };
            // Not SO_SNDTIMEO: a connect it cuts short says EINPROGRESS.
            made.connect_timeout(&target.into(), Duration::from_millis(wait_ms.max(1))).step("connect")?;
            match by {
                TcpBy::Sendfile => option::send_file(&made, text.as_bytes()),
                TcpBy::Spliced => option::send_pipe(&made, text.as_bytes()),
                TcpBy::ZeroCopy => {
                    set_number(&made, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1).step("ask for zerocopy")?;
                    made.send_with_flags(text.as_bytes(), libc::MSG_ZEROCOPY).map(drop)
                }
                _ => made.write_all(text.as_bytes()),
            }
            .step("send")?;
        }
        match receive(&made).step("receive")? {
            text if text.is_empty() => Err(("receive", io::ErrorKind::UnexpectedEof.into())),
            text => Ok(Some(text)),
        }
    })
}

fn make(to: SocketAddr, by: TcpBy, wait_ms: u64) -> Result<Socket, Failed> {
    let domain = if by == TcpBy::SixSocket { Domain::IPV6 } else { Domain::for_address(to) };
    if by == TcpBy::Accepted {
        return accepted(domain, wait_ms).step("accept");
    }
    let protocol = if by == TcpBy::Multipath { Protocol::MPTCP } else { Protocol::TCP };
    let made = socket(domain, Type::STREAM, Some(protocol), wait_ms).step("socket")?;
    let any = |port: u16| -> SocketAddr {
        match to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
        }
    };
    let disconnect = || rustix::net::connect_unspec(&made).map_err(io::Error::from).step("disconnect");
    match by {
        TcpBy::SourcePort53 | TcpBy::LowPort => {
            made.set_reuse_address(true).step("bind")?;
            let port = if by == TcpBy::LowPort { 443 } else { 53 };
            made.bind(&any(port).into()).step("bind")?;
        }
        TcpBy::SharedPort => {
            let twin = Socket::new(domain, Type::STREAM, Some(protocol)).step("socket")?;
            twin.set_reuse_port(true).and_then(|()| made.set_reuse_port(true)).step("share")?;
            twin.bind(&any(0).into()).step("bind")?;
            made.bind(&twin.local_addr().step("bind")?).step("bind")?;
            twin.listen(1).step("listen")?;
            // It listens until the process ends.
            std::mem::forget(twin);
        }
        TcpBy::BoundDevice => made.bind_device(Some(CABLE.as_bytes())).step("bind to device")?,
        TcpBy::Marked => made.set_mark(MARK).step("mark")?,
        TcpBy::SourceRoute => option::route_through_friend(&made, to).step("route")?,
        TcpBy::Reconnected | TcpBy::FastOpenAgain => {
            made.connect(&option::friend(to).step("befriend")?.into()).step("befriend")?;
            disconnect()?;
        }
        TcpBy::DeferredConnect => {
            set_number(&made, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1).step("defer")?;
        }
        TcpBy::Listened => {
            made.listen(1).step("listen")?;
            // Ends a listener.
            made.shutdown(std::net::Shutdown::Read).step("disconnect")?;
        }
        TcpBy::Repaired => {
            set_number(&made, libc::IPPROTO_TCP, libc::TCP_REPAIR, 1).step("repair")?;
        }
        _ => {}
    }
    Ok(made)
}

/// A socket that was accepted, and is disconnected again.
fn accepted(domain: Domain, wait_ms: u64) -> io::Result<Socket> {
    let (any, mut loopback): (SocketAddr, SocketAddr) = match domain {
        Domain::IPV4 => ((Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv4Addr::LOCALHOST, 0).into()),
        _ => ((Ipv6Addr::UNSPECIFIED, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()),
    };
    let listener = socket(domain, Type::STREAM, Some(Protocol::TCP), wait_ms)?;
    listener.bind(&any.into())?;
    listener.listen(1)?;
    let client = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    loopback.set_port(listener.local_addr()?.as_socket().map_or(0, |at| at.port()));
    client.connect(&loopback.into())?;
    let (accepted, _) = listener.accept()?;
    rustix::net::connect_unspec(&accepted)?;
    let wait = Some(Duration::from_millis(wait_ms.max(1)));
    accepted.set_read_timeout(wait)?;
    accepted.set_write_timeout(wait)?;
    Ok(accepted)
}
