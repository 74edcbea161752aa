//! Links, addresses and routes by rtnetlink, so that nothing but the kernel is needed to build a network.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send};

/// A route socket of the namespace in which it was opened.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

impl Netlink {
    /// Opens one in the calling thread's namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None, // NETLINK_ROUTE is 0
        )?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Makes a pair of joined interfaces, `name` here and `peer` in the other namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_veth(&mut self, name: &str, peer: &str, peer_namespace: impl AsFd) -> io::Result<()> {
        // The kernel looks at a new carrier at once only where an interface's index differs from its peer's
        // (linkwatch_urgent_event); in two new namespaces both would be 2, and packets be lost for up to a second.
        let mut message = Message::new(libc::RTM_NEWLINK, CREATE, &link(VETH_INDEX, 0));
        message.text(libc::IFLA_IFNAME, name);
        message.nest(libc::IFLA_LINKINFO, |info| {
            info.text(libc::IFLA_INFO_KIND, "veth");
            info.nest(libc::IFLA_INFO_DATA, |data| {
                data.nest(VETH_INFO_PEER, |other| {
                    other.bytes.extend(link(VETH_INDEX + 1, 0));
                    other.text(libc::IFLA_IFNAME, peer);
                    let descriptor = peer_namespace.as_fd().as_raw_fd();
                    other.attribute(libc::IFLA_NET_NS_FD, &descriptor.to_ne_bytes());
                });
            });
        });
        self.ask(message)
    }

    /// Sets an interface up.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_up(&mut self, name: &str) -> io::Result<()> {
        let index = self.index(name)?;
        self.ask(Message::new(libc::RTM_NEWLINK, 0, &link(index, libc::IFF_UP as u32)))
    }

    /// Whether an interface carries packets: it is up, and so is what it is joined to.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_running(&mut self, name: &str) -> io::Result<bool> {
        let index = self.index(name)?;
        let answer = self.exchange(Message::new(libc::RTM_GETLINK, 0, &link(index, 0)))?;
        let flags = field(&answer, 24).map(u32::from_ne_bytes);
        match (kind(&answer), flags) {
            (Some(libc::RTM_NEWLINK), Some(flags)) => Ok(flags & libc::IFF_RUNNING as u32 != 0),
            _ => acknowledged(&answer).map(|()| false),
        }
    }

    /// Gives an interface an address, usable at once (no duplicate address detection).
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_address(&mut self, name: &str, address: IpAddr, prefix_bits: u8) -> io::Result<()> {
        let index = self.index(name)?;
        let (family, bytes) = family_and_bytes(address);
        let mut header = vec![family, prefix_bits, IFA_F_NODAD, 0];
        header.extend(index.to_ne_bytes());
        let mut message = Message::new(libc::RTM_NEWADDR, CREATE, &header);
        message.attribute(libc::IFA_LOCAL, &bytes);
        message.attribute(libc::IFA_ADDRESS, &bytes);
        self.ask(message)
    }

    /// Sends everything without a better route to `gateway`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_default_route(&mut self, gateway: IpAddr) -> io::Result<()> {
        let (family, bytes) = family_and_bytes(gateway);
        let header = route(family, 0, libc::RT_TABLE_MAIN, libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST);
        let mut message = Message::new(libc::RTM_NEWROUTE, CREATE, &header);
        message.attribute(libc::RTA_GATEWAY, &bytes);
        self.ask(message)
    }

    /// Makes every address of a network this namespace's own, without listing them.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_own_network(&mut self, network: IpAddr, prefix_bits: u8) -> io::Result<()> {
        let index = self.index("lo")?;
        let (family, bytes) = family_and_bytes(network);
        let header = route(family, prefix_bits, libc::RT_TABLE_LOCAL, libc::RT_SCOPE_HOST, libc::RTN_LOCAL);
        let mut message = Message::new(libc::RTM_NEWROUTE, CREATE, &header);
        message.attribute(libc::RTA_DST, &bytes);
        message.attribute(libc::RTA_OIF, &index.to_ne_bytes());
        self.ask(message)
    }

    fn index(&self, name: &str) -> io::Result<u32> {
        Ok(rustix::net::netdevice::name_to_index(&self.socket, name)?)
    }

    fn ask(&mut self, message: Message) -> io::Result<()> {
        acknowledged(&self.exchange(message)?)
    }

    fn exchange(&mut self, message: Message) -> io::Result<Vec<u8>> {
        self.sequence += 1;
        let bytes = message.finish(self.sequence);
        send(&self.socket, &bytes, SendFlags::empty())?;
        let mut answer = vec![0; ANSWER_BYTES_MAX];
        let (length, _) = recv(&self.socket, &mut answer[..], RecvFlags::empty())?;
        answer.truncate(length);
        Ok(answer)
    }
}

/// An acknowledgement is an error message (`struct nlmsgerr`) whose error is zero.
fn acknowledged(answer: &[u8]) -> io::Result<()> {
    let error = field(answer, 16).map(i32::from_ne_bytes);
    match (kind(answer).map(i32::from), error) {
        (Some(libc::NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(libc::NLMSG_ERROR), Some(error)) => Err(io::Error::from_raw_os_error(-error)),
        _ => Err(io::Error::other("unexpected answer from rtnetlink")),
    }
}

fn kind(answer: &[u8]) -> Option<u16> {
    field(answer, 4).map(u16::from_ne_bytes)
}

fn field<const BYTES: usize>(answer: &[u8], at: usize) -> Option<[u8; BYTES]> {
    answer.get(at..at + BYTES)?.try_into().ok()
}

/// One request: a header, a fixed part and attributes.
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn new(kind: u16, flags: i32, fixed: &[u8]) -> Self {
        let ack = if kind == libc::RTM_GETLINK { 0 } else { libc::NLM_F_ACK };
        let flags = (libc::NLM_F_REQUEST | ack | flags) as u16;
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(fixed);
        Self { bytes }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nest(kind, |inner| inner.bytes.extend(value));
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.attribute(kind, &[value.as_bytes(), &[0]].concat());
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        fill(self);
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.bytes
    }
}

/// `struct ifinfomsg`
fn link(index: u32, flags: u32) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    bytes.extend(index.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes
}

/// `struct rtmsg`
fn route(family: u8, prefix_bits: u8, table: u8, scope: u8, kind: u8) -> [u8; 12] {
    [family, prefix_bits, 0, 0, table, RTPROT_BOOT, scope, kind, 0, 0, 0, 0]
}

fn family_and_bytes(address: IpAddr) -> (u8, Vec<u8>) {
    match address {
        IpAddr::V4(address) => (libc::AF_INET as u8, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6 as u8, address.octets().to_vec()),
    }
}

const CREATE: i32 = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
const ANSWER_BYTES_MAX: usize = 8192;
const VETH_INDEX: u32 = 7;
/// `linux/veth.h`
const VETH_INFO_PEER: u16 = 1;
/// `linux/if_addr.h`
const IFA_F_NODAD: u8 = 2;
/// `linux/rtnetlink.h`
const RTPROT_BOOT: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let mut message = Message::new(16, 0, &[]);
        message.nest(1, |inner| inner.text(2, "ab"));
        let bytes = message.finish(7);
        assert_eq!(bytes.len(), 16 + 4 + 8);
        assert_eq!(bytes[..4], 28u32.to_ne_bytes());
        assert_eq!(bytes[8..12], 7u32.to_ne_bytes());
        assert_eq!(bytes[16..18], 12u16.to_ne_bytes());
        assert_eq!(bytes[20..22], 7u16.to_ne_bytes());
        assert_eq!(bytes[24..28], *b"ab\0\0");
    }

    #[test]
    fn refusals_are_errors() {
        let mut answer = vec![0; 36];
        answer[4] = 2;
        assert!(acknowledged(&answer).is_ok());
        answer[16..20].copy_from_slice(&(-1i32).to_ne_bytes());
        assert_eq!(acknowledged(&answer).unwrap_err().raw_os_error(), Some(1));
        assert!(acknowledged(&answer[..10]).is_err());
    }
}
