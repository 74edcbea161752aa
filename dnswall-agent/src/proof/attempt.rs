//! One thing the canary tries: a datagram, or the beginning of a connection, that dies at the first hop even where it
//! gets out.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use dnswall_common::flow::{Address, protocol};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, connect, sendto, socket_with, sockopt};

/// Where to, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// A documentation address.
    pub to: SocketAddr,
    /// TCP, else UDP.
    pub tcp: bool,
}

/// A socket that is ready to try.
#[derive(Debug)]
pub struct Prepared {
    attempt: Attempt,
    socket: OwnedFd,
    /// The kernel's name for the socket.
    pub cookie: u64,
}

/// What the datagram says, to whoever should see it.
const GREETING: &[u8] = b"dnswall canary: this should have been refused";

impl Attempt {
    /// The destination as the kernel has it.
    pub fn address(&self) -> Address {
        match self.to.ip() {
            IpAddr::V4(address) => Address::V4(address.to_bits()),
            IpAddr::V6(address) => Address::from_v6_bytes(&address.octets()),
        }
    }

    /// IANA's number.
    pub const fn protocol(&self) -> u8 {
        if self.tcp { protocol::TCP } else { protocol::UDP }
    }

    /// Opens the socket. It is the calling process's from here on, and of its cgroup.
    ///
    /// # Errors
    /// The kernel's, as its number.
    pub fn prepare(self) -> Result<Prepared, i32> {
        self.open().map_err(|error| error.raw_os_error())
    }

    fn open(self) -> Result<Prepared, Errno> {
        let family = if self.to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let kind = if self.tcp { SocketType::STREAM } else { SocketType::DGRAM };
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        match self.to {
            SocketAddr::V4(_) => sockopt::set_ip_ttl(&socket, 1)?,
            SocketAddr::V6(_) => sockopt::set_ipv6_unicast_hops(&socket, Some(1))?,
        }
        let cookie = sockopt::socket_cookie(&socket)?;
        Ok(Prepared { attempt: self, socket, cookie })
    }
}

impl Prepared {
    /// Tries. `None` when nobody objected, else the error's number.
    pub fn act(&self) -> Option<i32> {
        let Self { attempt: Attempt { to, tcp }, socket, cookie: _ } = self;
        let done = if *tcp {
            connect(socket, to)
        } else {
            sendto(socket, GREETING, SendFlags::DONTWAIT, to).map(drop)
        };
        match done {
            // A connection that began: the packet is on its way.
            Ok(()) | Err(Errno::INPROGRESS) => None,
            Err(error) => Some(error.raw_os_error()),
        }
    }
}

/// The address this host would send from to there; nothing when there is no way. Connecting a UDP socket sends nothing.
pub fn source_towards(to: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let look = || -> io::Result<IpAddr> {
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect((to, 9))?;
        Ok(socket.local_addr()?.ip())
    };
    look().ok()
}
