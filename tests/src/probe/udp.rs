//! A datagram and its echo.

use std::io::{self, Read};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::attempt::{Attempt, Failed, Step, as_six, greeting, socket};
use super::uring;
use crate::act::{DECOY, DECOY_V6, Report, UdpBy};

/// Sends one and waits for what comes back.
pub fn send(to: SocketAddr, by: UdpBy, wait_ms: u64) -> Report {
    if by == UdpBy::Uring {
        return uring::reach(to, false, wait_ms);
    }
    Attempt::run(|_| {
        let socket = make(to, by, wait_ms)?;
        let mut text = greeting();
        if by == UdpBy::Large {
            text += &"-".repeat(LARGE_BYTES);
        }
        match by {
            UdpBy::Connected => {
                socket.connect(&to.into()).step("connect")?;
                socket.send(text.as_bytes()).step("send")?;
            }
            UdpBy::Retargeted => {
                let decoy = if to.is_ipv4() { DECOY } else { DECOY_V6 };
                let decoy: SocketAddr = decoy.parse().map_err(io::Error::other).step("connect")?;
                socket.connect(&decoy.into()).step("connect")?;
                // A connected socket receives nothing from elsewhere.
                return socket.send_to(text.as_bytes(), &to.into()).step("send").map(|_| None);
            }
            UdpBy::Sendmmsg => send_two(&socket, to, text.as_bytes()).step("send")?,
            UdpBy::SixSocket => {
                socket.send_to(text.as_bytes(), &as_six(to).into()).map(drop).step("send")?;
            }
            UdpBy::Lite => {
                // Nobody answers UDP-Lite; that it arrives is seen elsewhere.
                return socket.send_to(text.as_bytes(), &to.into()).step("send").map(|_| None);
            }
            UdpBy::Sendto | UdpBy::SourcePort53 | UdpBy::Large | UdpBy::Uring => {
                socket.send_to(text.as_bytes(), &to.into()).map(drop).step("send")?;
            }
        }
        receive(&socket).step("receive").map(Some)
    })
}

fn make(to: SocketAddr, by: UdpBy, wait_ms: u64) -> Result<Socket, Failed> {
    let domain = if by == UdpBy::SixSocket { Domain::IPV6 } else { Domain::for_address(to) };
    let protocol = if by == UdpBy::Lite { Protocol::from(libc::IPPROTO_UDPLITE) } else { Protocol::UDP };
    let made = socket(domain, Type::DGRAM, Some(protocol), wait_ms).step("socket")?;
    if by == UdpBy::SourcePort53 {
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 53).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 53).into(),
        };
        made.bind(&any.into()).step("bind")?;
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

fn send_two(socket: &Socket, to: SocketAddr, payload: &[u8]) -> io::Result<()> {
    let address = SockAddr::from(to);
    let mut part = libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() };
    // SAFETY: msghdr is plain data for which all zeroes is a valid value.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_name = address.as_ptr().cast_mut().cast();
    header.msg_namelen = address.len();
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    let mut messages = [libc::mmsghdr { msg_hdr: header, msg_len: 0 }; 2];
    // SAFETY: the two headers point to `address`, `part` and `payload`, which outlive the call; the kernel only
    // reads them, and writes `msg_len`.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), 2, 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// More than two Ethernet frames hold.
const LARGE_BYTES: usize = 3500;
