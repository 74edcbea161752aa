//! Socket options and ways of sending for which there is no safe wrapper.

use std::fs::File;
use std::io::{self, Error, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use socket2::{SockAddr, Socket};

use crate::act::{FRIEND, FRIEND_V6};

/// The cable's name on the near side.
pub const CABLE: &str = "eth0";
/// `IP_PKTINFO`'s and `IPV6_PKTINFO`'s source: the near side's addresses.
const OWN_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const OWN_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, 2);
/// `IPV6_FLOWINFO_SEND`, which libc lacks.
const IPV6_FLOWINFO_SEND: i32 = 33;
/// Loose source and record route.
const LOOSE: u8 = 131;

/// Sets an option whose value is these bytes.
///
/// # Errors
/// The kernel's.
pub fn set(socket: &impl AsRawFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let length = value.len() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes of a live slice.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), length) };
    if set < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// Sets an option whose value is a number.
///
/// # Errors
/// The kernel's.
pub fn set_number(socket: &impl AsRawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    set(socket, level, name, &value.to_ne_bytes())
}

/// The friend of the same family as `to`.
pub fn friend(to: SocketAddr) -> io::Result<SocketAddr> {
    let friend = if to.is_ipv4() { FRIEND } else { FRIEND_V6 };
    friend.parse().map_err(Error::other)
}

/// A source route through the friend: an IPv4 option, or a segment routing header.
///
/// # Errors
/// The kernel's.
pub fn route_through_friend(socket: &Socket, to: SocketAddr) -> io::Result<()> {
    match (friend(to)?.ip(), to.ip()) {
        (IpAddr::V4(friend), _) => {
            let option = [&[LOOSE, 7, 4][..], &friend.octets(), &[0]].concat();
            set(socket, libc::IPPROTO_IP, libc::IP_OPTIONS, &option)
        }
        (IpAddr::V6(friend), IpAddr::V6(to)) => {
            let header = [&[0, 4, 4, 1, 1, 0, 0, 0][..], &to.octets(), &friend.octets()].concat();
            set(socket, libc::IPPROTO_IPV6, libc::IPV6_RTHDR, &header)
        }
        _ => Err(Error::other("two families")),
    }
}

/// A hop-by-hop header that says nothing, before all this socket sends.
///
/// # Errors
/// The kernel's: it is for root.
pub fn hop_by_hop(socket: &Socket) -> io::Result<()> {
    set(socket, libc::IPPROTO_IPV6, libc::IPV6_HOPOPTS, &[0, 0, 1, 4, 0, 0, 0, 0])
}

/// Sends with the source address and the device named.
///
/// # Errors
/// The kernel's.
pub fn send_from_own(socket: &Socket, to: SocketAddr, text: &[u8]) -> io::Result<()> {
    let index = rustix::net::netdevice::name_to_index(socket, CABLE)?.to_ne_bytes();
    if to.is_ipv4() {
        let info = [&index[..], &OWN_V4.octets(), &[0; 4]].concat();
        send_with(socket, Some(to), text, libc::IPPROTO_IP, libc::IP_PKTINFO, &info)
    } else {
        send_with(socket, Some(to), text, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &source6(OWN_V6, index))
    }
}

/// The value of an `IPV6_PKTINFO`.
pub fn source6(address: Ipv6Addr, index: [u8; 4]) -> Vec<u8> {
    [&address.octets()[..], &index].concat()
}

/// Sends on a connected socket with a time to live of its own, which makes the kernel look the route up again.
///
/// # Errors
/// The kernel's.
pub fn send_with_ttl(socket: &Socket, to: SocketAddr, text: &[u8]) -> io::Result<()> {
    let ttl = 9i32.to_ne_bytes();
    if to.is_ipv4() {
        send_with(socket, None, text, libc::IPPROTO_IP, libc::IP_TTL, &ttl)
    } else {
        send_with(socket, None, text, libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, &ttl)
    }
}

/// Sends to an IPv6 address with a flow label.
///
/// # Errors
/// The kernel's.
pub fn send_labelled(socket: &Socket, to: SocketAddr, text: &[u8]) -> io::Result<()> {
    set_number(socket, libc::IPPROTO_IPV6, IPV6_FLOWINFO_SEND, 1)?;
    let SocketAddr::V6(mut to) = to else { return Err(Error::other("IPv4 has no flow labels")) };
    to.set_flowinfo(0x000a_bcde_u32.to_be());
    socket.send_to(text, &to.into()).map(drop)
}

/// `sendmsg` with one control message.
///
/// # Errors
/// The kernel's.
pub fn send_with(
    socket: &Socket,
    to: Option<SocketAddr>,
    text: &[u8],
    level: i32,
    kind: i32,
    value: &[u8],
) -> io::Result<()> {
    let address = to.map(SockAddr::from);
    let mut part = libc::iovec { iov_base: text.as_ptr().cast_mut().cast(), iov_len: text.len() };
    // Eight-byte words, for alignment.
    let mut control = [0u64; 16];
    // SAFETY: msghdr is plain data for which all zeroes is a valid value.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    if let Some(address) = &address {
        header.msg_name = address.as_ptr().cast_mut().cast();
        header.msg_namelen = address.len();
    }
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    // SAFETY: the macro's arithmetic; values here are at most 24 bytes, and the buffer is 128.
    header.msg_controllen = unsafe { libc::CMSG_SPACE(value.len() as u32) } as usize;
    // SAFETY: the control buffer is large enough for one message with this value, aligned, and outlives the call; address
    // and text do, too.
    let sent = unsafe {
        let message = libc::CMSG_FIRSTHDR(&raw const header);
        (*message).cmsg_level = level;
        (*message).cmsg_type = kind;
        (*message).cmsg_len = libc::CMSG_LEN(value.len() as u32) as usize;
        std::ptr::copy_nonoverlapping(value.as_ptr(), libc::CMSG_DATA(message), value.len());
        libc::sendmsg(socket.as_raw_fd(), &raw const header, 0)
    };
    if sent < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// `sendmmsg` of the same text to each of `to`; an error only if the first one fails.
///
/// # Errors
/// The kernel's.
pub fn send_many(socket: &Socket, to: &[SocketAddr], text: &[u8]) -> io::Result<()> {
    let addresses: Vec<SockAddr> = to.iter().copied().map(SockAddr::from).collect();
    let mut part = libc::iovec { iov_base: text.as_ptr().cast_mut().cast(), iov_len: text.len() };
    let mut messages = Vec::new();
    for address in &addresses {
        // SAFETY: msghdr is plain data for which all zeroes is a valid value.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_name = address.as_ptr().cast_mut().cast();
        header.msg_namelen = address.len();
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        messages.push(libc::mmsghdr { msg_hdr: header, msg_len: 0 });
    }
    let (first, count) = (messages.as_mut_ptr(), messages.len() as u32);
    // SAFETY: the headers point to `addresses`, `part` and `text`, which outlive the call; the kernel only reads them, and
    // writes `msg_len`.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), first, count, 0) };
    if sent < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// Sends a file's bytes from the kernel.
///
/// # Errors
/// The kernel's.
pub fn send_file(socket: &Socket, text: &[u8]) -> io::Result<()> {
    let mut file = File::from(rustix::fs::memfd_create("text", rustix::fs::MemfdFlags::empty())?);
    file.write_all(text)?;
    let mut offset = 0;
    rustix::fs::sendfile(socket, &file, Some(&mut offset), text.len())?;
    Ok(())
}

/// Moves a pipe's bytes into the socket.
///
/// # Errors
/// The kernel's.
pub fn send_pipe(socket: &Socket, text: &[u8]) -> io::Result<()> {
    let (out, into): (OwnedFd, OwnedFd) = rustix::pipe::pipe()?;
    File::from(into).write_all(text)?;
    rustix::pipe::splice(out.as_fd(), None, socket, None, text.len(), rustix::pipe::SpliceFlags::empty())?;
    Ok(())
}
