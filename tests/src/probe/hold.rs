//! Traffic that goes on while the policy changes.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol, Type};

use super::attempt::{Attempt, Step, as_six, for_each_line, greeting, socket};
use super::icmp::echo_request;
use super::udp::receive;
use crate::act::{READY, Report};

/// One connection; one exchange and one report for each line of input.
///
/// # Errors
/// The kernel's while it connects.
pub fn hold(to: SocketAddr, tcp: bool, wait_ms: u64) -> io::Result<()> {
    let (kind, protocol) = if tcp { (Type::STREAM, Protocol::TCP) } else { (Type::DGRAM, Protocol::UDP) };
    let mut made = socket(Domain::for_address(to), kind, Some(protocol), wait_ms)?;
    made.connect_timeout(&to.into(), Duration::from_millis(wait_ms.max(1)))?;
    for_each_line(|| {
        Attempt::run(|_| {
            made.write_all(greeting().as_bytes()).step("send")?;
            receive(&made).step("receive").map(Some)
        })
    })
}

/// One raw socket; one echo reply and one report for each line of input.
///
/// # Errors
/// The kernel's while it makes the socket.
pub fn hold_raw(to: IpAddr) -> io::Result<()> {
    let (domain, protocol, kind) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 129),
    };
    let made = socket(domain, Type::RAW, Some(protocol), 1)?;
    for_each_line(|| {
        Attempt::run(|_| {
            made.send_to(&echo_request(kind), &SocketAddr::new(to, 0).into()).step("send")?;
            Ok(None)
        })
    })
}

/// A datagram to each of `count` IPv6 addresses, of which the first is `from`.
///
/// # Errors
/// When no socket can be made, or another error than a refusal comes.
pub fn sweep(from: SocketAddr, count: u32) -> io::Result<Report> {
    let SocketAddr::V6(from) = from else { return Err(io::Error::other("only IPv6 has room for this")) };
    let socket = UdpSocket::bind("[::]:0")?;
    let (mut sent, mut refused) = (0, 0);
    for at in 0..count {
        let to = SocketAddr::from((Ipv6Addr::from(from.ip().to_bits() + u128::from(at)), from.port()));
        match socket.send_to(b"sweep", to) {
            Ok(_) => sent += 1,
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => refused += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(Report { ok: true, counts: vec![(sent, refused)], ..Report::default() })
}

/// Datagrams to each destination in turn until the standard input ends.
///
/// # Errors
/// When no socket can be made.
pub fn flood(to: &[SocketAddr], one_socket: bool) -> io::Result<Report> {
    static STOP: AtomicBool = AtomicBool::new(false);
    thread::spawn(|| {
        // An error ends it as well.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        STOP.store(true, Ordering::Relaxed);
    });
    println!("{READY}");
    let mut counts = vec![(0, 0); to.len()];
    let one = UdpSocket::bind("[::]:0")?;
    while !STOP.load(Ordering::Relaxed) {
        for (to, (sent, refused)) in to.iter().zip(&mut counts) {
            let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
            let sent_to = if one_socket {
                one.send_to(greeting().as_bytes(), as_six(*to))
            } else {
                UdpSocket::bind(any)?.send_to(greeting().as_bytes(), to)
            };
            match sent_to {
                Ok(_) => *sent += 1,
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => *refused += 1,
                Err(error) => return Err(error),
            }
        }
    }
    Ok(Report { ok: true, counts, ..Report::default() })
}
