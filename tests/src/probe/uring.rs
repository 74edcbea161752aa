//! Connections and datagrams by io_uring, past the system calls that a monitor would watch.

use std::io::{self, Error};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use io_uring::squeue::Entry;
use io_uring::{IoUring, opcode, types};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::attempt::{Attempt, Step, greeting, socket};
use super::udp::receive;
use crate::act::Report;

/// Connects (TCP) or sends (UDP) by io_uring and waits for the echo.
pub fn reach(to: SocketAddr, tcp: bool, wait_ms: u64) -> Report {
    Attempt::run(|_| {
        let (kind, protocol) = if tcp { (Type::STREAM, Protocol::TCP) } else { (Type::DGRAM, Protocol::UDP) };
        let made = socket(Domain::for_address(to), kind, Some(protocol), wait_ms).step("socket")?;
        let descriptor = types::Fd(made.as_raw_fd());
        let address = SockAddr::from(to);
        let text = greeting();
        if tcp {
            let connect = opcode::Connect::new(descriptor, address.as_ptr().cast(), address.len());
            submit(&made, connect.build()).step("connect")?;
            let send = opcode::Send::new(descriptor, text.as_ptr(), text.len() as u32);
            submit(&made, send.build()).step("send")?;
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
            submit(&made, send.build()).step("send")?;
        }
        receive(&made).step("receive").map(Some)
    })
}

/// Submits one entry and waits for its completion.
fn submit(_socket: &Socket, entry: Entry) -> io::Result<()> {
    let mut ring = IoUring::new(1)?;
    // SAFETY: what the entry points to (address, text and message) is the caller's and outlives the wait below; `_socket`
    // keeps the descriptor open.
    unsafe { ring.submission().push(&entry) }.map_err(Error::other)?;
    ring.submit_and_wait(1)?;
    let completion = ring.completion().next().ok_or_else(|| Error::other("no completion"))?;
    if completion.result() < 0 { Err(Error::from_raw_os_error(-completion.result())) } else { Ok(()) }
}
