//! Connections and datagrams by io_uring, past the system calls that a monitor would watch.

use std::io::{self, Error};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::Duration;

use io_uring::squeue::Entry;
use io_uring::{IoUring, opcode, types};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::attempt::{Attempt, Step, greeting, socket};
use super::udp::receive;
use crate::act::Report;

/// How much is left to the ring.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// The socket too (from 5.19).
    pub makes_socket: bool,
    /// A thread of the kernel polls the ring: the process makes no system call at all.
    pub polled: bool,
}

/// Connects (TCP) or sends (UDP) by io_uring and waits for the echo.
pub fn reach(to: SocketAddr, tcp: bool, how: How, wait_ms: u64) -> Report {
    Attempt::run(|_| {
        let mut builder = IoUring::builder();
        if how.polled {
            builder.setup_sqpoll(POLL_IDLE_MS);
        }
        let mut ring = builder.build(1).step("ring")?;
        let (kind, protocol) = if tcp { (Type::STREAM, Protocol::TCP) } else { (Type::DGRAM, Protocol::UDP) };
        let domain = Domain::for_address(to);
        let made = if how.makes_socket {
            let (domain, kind, protocol) = (i32::from(domain), i32::from(kind), i32::from(protocol));
            let number =
                submit(&mut ring, opcode::Socket::new(domain, kind, protocol).build()).step("socket")?;
            // SAFETY: a descriptor the kernel just made for this process.
            let made = unsafe { Socket::from_raw_fd(number) };
            made.set_read_timeout(Some(Duration::from_millis(wait_ms.max(1)))).step("socket")?;
            made
        } else {
            socket(domain, kind, Some(protocol), wait_ms).step("socket")?
        };
        let descriptor = types::Fd(made.as_raw_fd());
        let address = SockAddr::from(to);
        let text = greeting();
        if tcp {
            let connect = opcode::Connect::new(descriptor, address.as_ptr().cast(), address.len());
            submit(&mut ring, connect.build()).step("connect")?;
            let send = opcode::Send::new(descriptor, text.as_ptr(), text.len() as u32);
            submit(&mut ring, send.build()).step("send")?;
        } else {
            let mut part = libc::iovec { iov_base: text.as_ptr().cast_mut().cast(), iov_len: text.len() };
            // SAFETY: msghdr is plain data for which all zeroes is a valid value.
            let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
            header.msg_name = address.as_ptr().cast_mut().cast();
            header.msg_namelen = address.len();
            header.msg_iov = &raw mut part;
            header.msg_iovlen = 1;
            // Not `Send` with an address, which kernels before 6.0 refuse.
            let send = opcode::SendMsg::new(descriptor, &raw const header);
            submit(&mut ring, send.build()).step("send")?;
        }
        receive(&made).step("receive").map(Some)
    })
}

/// Submits one entry and waits for its completion.
fn submit(ring: &mut IoUring, entry: Entry) -> io::Result<i32> {
    // SAFETY: what the entry points to (address, text and message) is the caller's, and outlives the wait below, as does
    // the socket.
    unsafe { ring.submission().push(&entry) }.map_err(Error::other)?;
    ring.submit_and_wait(1)?;
    let completion = ring.completion().next().ok_or_else(|| Error::other("no completion"))?;
    let result = completion.result();
    if result < 0 { Err(Error::from_raw_os_error(-result)) } else { Ok(result) }
}

/// After this many milliseconds without work the kernel's thread sleeps.
const POLL_IDLE_MS: u32 = 1000;
