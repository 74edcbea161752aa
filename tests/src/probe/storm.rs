//! Datagrams as fast as they go: by io_uring, because every refused one ends a `sendmmsg`, and a system call for each costs as
//! much as its refusal. Takes a kernel from 6.0 on, which sends to an address so.

use std::io::{self, Error, Read};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use io_uring::{IoUring, opcode, types};
use socket2::SockAddr;

use crate::act::{READY, Report};

/// From a thread and a socket for each of `to`, until the standard input ends: to that address, if `addresses` is 1, else to it and
/// those that follow it, round after round.
///
/// # Errors
/// When no socket or ring can be made, or another error than a refusal comes.
pub fn storm(to: &[SocketAddr], addresses: u32) -> io::Result<Report> {
    static STOP: AtomicBool = AtomicBool::new(false);
    thread::spawn(|| {
        // An error ends it as well.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        STOP.store(true, Ordering::Relaxed);
    });
    println!("{READY}");
    let counts = thread::scope(|scope| {
        let each = |to: &SocketAddr| {
            let to = *to;
            scope.spawn(move || send(to, addresses, &STOP))
        };
        let threads: Vec<_> = to.iter().map(each).collect();
        let ended = threads.into_iter().map(|it| it.join().map_err(|_| Error::other("a thread panicked"))?);
        ended.collect::<io::Result<Vec<_>>>()
    })?;
    Ok(Report { ok: true, counts, ..Report::default() })
}

/// How many were sent, and how many refused.
fn send(to: SocketAddr, addresses: u32, stop: &AtomicBool) -> io::Result<(u64, u64)> {
    let any: SocketAddr =
        if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any)?;
    if addresses == 1 {
        socket.connect(to)?;
    }
    let mut ring: IoUring = IoUring::builder().setup_single_issuer().build(BATCH as u32)?;
    ring.submitter().register_files(&[socket.as_raw_fd()])?;
    let mut places: Vec<SockAddr> = (0..BATCH).map(|_| SockAddr::from(to)).collect();
    let (mut sent, mut refused, mut next) = (0, 0, 0);
    while !stop.load(Ordering::Relaxed) {
        for place in &mut places {
            let mut entry = opcode::Send::new(types::Fixed(0), PAYLOAD.as_ptr(), PAYLOAD.len() as u32);
            if addresses > 1 {
                *place = SockAddr::from(following(to, next));
                next = (next + 1) % addresses;
                entry = entry.dest_addr(place.as_ptr().cast()).dest_addr_len(place.len());
            }
            // SAFETY: text and address stay where they are until the completions of this batch are here.
            unsafe { ring.submission().push(&entry.build()) }.map_err(Error::other)?;
        }
        ring.submit_and_wait(BATCH)?;
        for completion in ring.completion() {
            match completion.result() {
                result if result >= 0 => sent += 1,
                result if result == -libc::EPERM => refused += 1,
                result => return Err(Error::from_raw_os_error(-result)),
            }
        }
    }
    Ok((sent, refused))
}

fn following(first: SocketAddr, by: u32) -> SocketAddr {
    match first {
        SocketAddr::V4(first) => (Ipv4Addr::from(first.ip().to_bits().wrapping_add(by)), first.port()).into(),
        SocketAddr::V6(first) => {
            (Ipv6Addr::from(first.ip().to_bits().wrapping_add(by.into())), first.port()).into()
        }
    }
}

/// Datagrams in a system call.
const BATCH: usize = 256;
const PAYLOAD: &[u8] = b"storm";
