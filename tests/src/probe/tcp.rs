//! A connection, a line and its echo.

use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::attempt::{Attempt, Failed, Step, as_six, greeting, socket};
use super::udp::receive;
use super::uring;
use crate::act::{FRIEND, Report, TcpBy};

/// Connects, sends and waits for what comes back.
pub fn connect(to: SocketAddr, by: TcpBy, wait_ms: u64) -> Report {
    if by == TcpBy::Uring {
        return uring::reach(to, true, wait_ms);
    }
    Attempt::run(|_| {
        let mut made = make(to, by, wait_ms)?;
        let text = greeting();
        match by {
            TcpBy::Reconnected => {
                let friend: SocketAddr = FRIEND.parse().map_err(io::Error::other).step("connect")?;
                made.connect(&friend.into()).step("befriend")?;
                rustix::net::connect_unspec(&made).map_err(io::Error::from).step("disconnect")?;
            }
            TcpBy::DeferredConnect => defer_connect(&made).step("defer")?,
            _ => {}
        }
        if by == TcpBy::FastOpen {
            made.send_to_with_flags(text.as_bytes(), &to.into(), libc::MSG_FASTOPEN).step("connect")?;
        } else {
            let target = if by == TcpBy::SixSocket { as_six(to) } else { to };
            // Not SO_SNDTIMEO: a connect it cuts short says EINPROGRESS.
            made.connect_timeout(&target.into(), Duration::from_millis(wait_ms.max(1))).step("connect")?;
            made.write_all(text.as_bytes()).step("send")?;
        }
        match receive(&made).step("receive")? {
            text if text.is_empty() => Err(("receive", io::ErrorKind::UnexpectedEof.into())),
            text => Ok(Some(text)),
        }
    })
}

fn defer_connect(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option's value is an int that outlives the call, and its length is given.
    let set = unsafe {
        let value = (&raw const on).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, value, length)
    };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn make(to: SocketAddr, by: TcpBy, wait_ms: u64) -> Result<Socket, Failed> {
    let domain = if by == TcpBy::SixSocket { Domain::IPV6 } else { Domain::for_address(to) };
    let protocol = if by == TcpBy::Multipath { Protocol::MPTCP } else { Protocol::TCP };
    let made = socket(domain, Type::STREAM, Some(protocol), wait_ms).step("socket")?;
    if by == TcpBy::SourcePort53 {
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 53).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 53).into(),
        };
        made.set_reuse_address(true).step("bind")?;
        made.bind(&any.into()).step("bind")?;
    }
    Ok(made)
}
