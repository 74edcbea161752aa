//! The sockets of one network namespace, as the kernel lists them (`NETLINK_SOCK_DIAG`), and how one is ended.
//!
//! Asked with the wall's map of sockets, the kernel adds what the wall recorded of each (`INET_DIAG_SK_BPF_STORAGES`, Linux
//! 5.7), but for UDP (`inet_sk_diag_fill` skips what is no connection): a TCP socket of which nothing is recorded is older
//! than the wall.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use dnswall_common::flow::protocol;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send};

use super::message::{Message, attributes, field, messages};
use super::recorded::Recorded;

/// How long the kernel may take for one part of its answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// A part of an answer is at most 32 KiB (`netlink_dump`).
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A socket that asks about the sockets of the namespace it was opened in.
#[derive(Debug)]
pub struct SockDiag {
    socket: OwnedFd,
    sequence: u32,
}

/// One socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// IANA protocol.
    pub protocol: u8,
    /// [`state`]
    pub state: u8,
    /// Own address; IPv4 also where the socket writes it as IPv6.
    pub local: SocketAddr,
    /// The other end's.
    pub remote: SocketAddr,
    /// A listener that takes IPv6 only.
    pub v6_only: bool,
    /// Who made it, as the initial user namespace counts.
    pub uid: u32,
    /// Its inode; 0 when no process holds it.
    pub inode: u32,
    /// Its cgroup (Linux 5.9).
    pub cgroup: Option<u64>,
    /// What the wall recorded.
    pub recorded: Option<Recorded>,
    /// What the kernel knows it by.
    pub id: SocketId,
}

/// What the kernel knows a socket by: nothing else has its cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId {
    family: u8,
    protocol: u8,
    /// `struct inet_diag_sockid`
    bytes: [u8; ID_BYTES],
}

impl SocketId {
    /// No socket's.
    pub const NONE: Self = Self { family: 0, protocol: 0, bytes: [0; ID_BYTES] };

    /// The number that no other socket has, as BPF programs see it.
    pub fn cookie(&self) -> u64 {
        // Two words, the lower one first.
        let word = |at| field(&self.bytes, at).map_or(0, u32::from_ne_bytes);
        u64::from(word(44)) << 32 | u64::from(word(40))
    }
}

/// States of a socket (`net/tcp_states.h`); UDP sockets have two of them.
pub mod state {
    /// Connected.
    pub const ESTABLISHED: u8 = 1;
    /// Connecting.
    pub const SYN_SENT: u8 = 2;
    /// Closed here; data may still be on its way.
    pub const FIN_WAIT1: u8 = 4;
    /// An unconnected UDP socket.
    pub const CLOSE: u8 = 7;
    /// Closed at the other end.
    pub const CLOSE_WAIT: u8 = 8;
    /// Closed at the other end, then here.
    pub const LAST_ACK: u8 = 9;
    /// A listener.
    pub const LISTEN: u8 = 10;
    /// Closed at both ends at once.
    pub const CLOSING: u8 = 11;
}

/// Which sockets are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Those that may still send, TCP and UDP, and listeners.
    All,
    /// TCP sockets that are connecting.
    Opening,
}

/// States in which a TCP socket may still send data, and listeners.
const TCP_STATES: [u8; 7] = [
    state::ESTABLISHED,
    state::SYN_SENT,
    state::FIN_WAIT1,
    state::CLOSE_WAIT,
    state::LAST_ACK,
    state::LISTEN,
    state::CLOSING,
];
const UDP_STATES: [u8; 2] = [state::ESTABLISHED, state::CLOSE];

impl SockDiag {
    /// Opens one in the calling thread's namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::SOCK_DIAG),
        )?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Calls `each` with every socket that is wanted, until it says that it has enough.
    ///
    /// # Errors
    /// The kernel's, or that it took too long.
    pub fn list(
        &mut self,
        wanted: Wanted,
        map: Option<BorrowedFd<'_>>,
        deadline: Instant,
        each: &mut dyn FnMut(Found) -> bool,
    ) -> io::Result<()> {
        let lists: &[(u8, &[u8])] = match wanted {
            Wanted::All => &[(protocol::TCP, &TCP_STATES), (protocol::UDP, &UDP_STATES)],
            Wanted::Opening => &[(protocol::TCP, &[state::SYN_SENT])],
        };
        for &(protocol, states) in lists {
            let states = states.iter().fold(0u32, |mask, state| mask | 1 << state);
            for family in [libc::AF_INET, libc::AF_INET6] {
                let mut message = Message::new(
                    SOCK_DIAG_BY_FAMILY,
                    libc::NLM_F_DUMP,
                    &request(family as u8, protocol, states),
                );
                if let Some(map) = map {
                    message.nest(INET_DIAG_REQ_SK_BPF_STORAGES, |storages| {
                        storages.attribute(SK_DIAG_BPF_STORAGE_REQ_MAP_FD, &map.as_raw_fd().to_ne_bytes());
                    });
                }
                self.ask(message)?;
                if !self.answers(protocol, deadline, each)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Ends a connection: the process gets `ECONNABORTED`, the other end a reset.
    ///
    /// # Errors
    /// The kernel's: `ENOENT` when it has ended by itself, `EOPNOTSUPP` on a kernel without `CONFIG_INET_DIAG_DESTROY`.
    pub fn destroy(&mut self, socket: &SocketId) -> io::Result<()> {
        let SocketId { family, protocol, bytes } = socket;
        let mut fixed = request(*family, *protocol, u32::MAX);
        fixed[8..].copy_from_slice(bytes);
        self.ask(Message::new(SOCK_DESTROY, libc::NLM_F_ACK, &fixed))?;
        let mut answer = vec![0; ANSWER_BYTES_MAX];
        let (length, _) = recv(&self.socket, &mut answer[..], RecvFlags::empty())?;
        for (kind, body) in messages(&answer[..length.min(ANSWER_BYTES_MAX)]) {
            if i32::from(kind) == libc::NLMSG_ERROR {
                return acknowledged(body);
            }
        }
        Err(io::Error::other("unexpected answer from sock_diag"))
    }

    fn ask(&mut self, message: Message) -> io::Result<()> {
        self.sequence += 1;
        send(&self.socket, &message.finish(self.sequence), SendFlags::empty())?;
        Ok(())
    }

    // Whether to go on.
    fn answers(
        &mut self,
        protocol: u8,
        deadline: Instant,
        each: &mut dyn FnMut(Found) -> bool,
    ) -> io::Result<bool> {
        let mut answer = vec![0; ANSWER_BYTES_MAX];
        loop {
            if Instant::now() >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let (length, _) = recv(&self.socket, &mut answer[..], RecvFlags::empty())?;
            for (kind, body) in messages(&answer[..length.min(ANSWER_BYTES_MAX)]) {
                match i32::from(kind) {
                    libc::NLMSG_DONE => return Ok(true),
                    libc::NLMSG_ERROR => acknowledged(body)?,
                    _ if !found(body, protocol).is_none_or(&mut *each) => return Ok(false),
                    _ => {}
                }
            }
        }
    }
}

/// `struct inet_diag_req_v2`
fn request(family: u8, protocol: u8, states: u32) -> [u8; 8 + ID_BYTES] {
    let mut bytes = [0; 8 + ID_BYTES];
    bytes[..2].copy_from_slice(&[family, protocol]);
    bytes[4..8].copy_from_slice(&states.to_ne_bytes());
    bytes
}

/// `struct inet_diag_msg` and its attributes.
fn found(body: &[u8], protocol: u8) -> Option<Found> {
    let [family, state] = field(body, 0)?;
    let id: [u8; ID_BYTES] = field(body, 4)?;
    let address = |at: usize| -> Option<IpAddr> {
        Some(if i32::from(family) == libc::AF_INET {
            IpAddr::from(Ipv4Addr::from(field::<4>(&id, at)?))
        } else {
            IpAddr::from(Ipv6Addr::from(field::<16>(&id, at)?)).to_canonical()
        })
    };
    let port = |at: usize| field(&id, at).map(u16::from_be_bytes);
    let mut found = Found {
        protocol,
        state,
        local: SocketAddr::new(address(4)?, port(0)?),
        remote: SocketAddr::new(address(20)?, port(2)?),
        v6_only: false,
        uid: u32::from_ne_bytes(field(body, 64)?),
        inode: u32::from_ne_bytes(field(body, 68)?),
        cgroup: None,
        recorded: None,
        id: SocketId { family, protocol, bytes: id },
    };
    for (kind, value) in attributes(body.get(MSG_BYTES..)?) {
        match kind {
            INET_DIAG_SKV6ONLY => found.v6_only = value.first().is_some_and(|flag| *flag != 0),
            INET_DIAG_CGROUP_ID => found.cgroup = field(value, 0).map(u64::from_ne_bytes),
            INET_DIAG_SK_BPF_STORAGES => {
                let storages = attributes(value).flat_map(|(_, storage)| attributes(storage));
                found.recorded = storages.filter_map(|(_, bytes)| Recorded::read(bytes)).next();
            }
            _ => {}
        }
    }
    Some(found)
}

fn acknowledged(body: &[u8]) -> io::Result<()> {
    match field(body, 0).map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
        None => Err(io::Error::other("unexpected answer from sock_diag")),
    }
}

const ID_BYTES: usize = 48;
const MSG_BYTES: usize = 72;
/// `linux/sock_diag.h`
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const SK_DIAG_BPF_STORAGE_REQ_MAP_FD: u16 = 1;
/// `linux/inet_diag.h`
const INET_DIAG_REQ_SK_BPF_STORAGES: u16 = 2;
const INET_DIAG_SKV6ONLY: u16 = 11;
const INET_DIAG_SK_BPF_STORAGES: u16 = 20;
const INET_DIAG_CGROUP_ID: u16 = 21;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    fn all() -> Vec<Found> {
        let mut all = Vec::new();
        let deadline = Instant::now() + Duration::from_secs(60);
        SockDiag::open()
            .unwrap()
            .list(Wanted::All, None, deadline, &mut |found| {
                all.push(found);
                true
            })
            .unwrap();
        all
    }

    #[test]
    fn this_process_finds_its_own_sockets() {
        let listener = TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (_accepted, _) = listener.accept().unwrap();
        let datagrams = UdpSocket::bind("[::1]:0").unwrap();
        datagrams.connect("[::1]:9").unwrap();
        let all = all();
        let of = |protocol, local: SocketAddr| {
            all.iter().find(|found| (found.protocol, found.local) == (protocol, local))
        };
        let listening = of(protocol::TCP, SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)).unwrap();
        assert_eq!((listening.state, listening.v6_only), (state::LISTEN, false));
        let ours = of(protocol::TCP, stream.local_addr().unwrap()).unwrap();
        assert_eq!((ours.state, ours.remote), (state::ESTABLISHED, stream.peer_addr().unwrap()));
        assert_eq!(ours.uid, rustix::process::geteuid().as_raw());
        assert!(ours.cgroup.is_some() && ours.inode != 0 && ours.recorded.is_none());
        // The listener is dual: its end of the connection is an IPv6 socket.
        let theirs = of(protocol::TCP, stream.peer_addr().unwrap()).unwrap();
        assert_eq!((theirs.remote, theirs.id.family), (stream.local_addr().unwrap(), libc::AF_INET6 as u8));
        let udp = of(protocol::UDP, datagrams.local_addr().unwrap()).unwrap();
        assert_eq!((udp.state, udp.remote.port()), (state::ESTABLISHED, 9));
    }

    #[test]
    fn a_connection_is_ended_by_its_cookie() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_accepted, _) = listener.accept().unwrap();
        let ours = all().into_iter().find(|found| found.local == stream.local_addr().unwrap()).unwrap();
        let mut diag = SockDiag::open().unwrap();
        // Another socket's cookie, same addresses: nothing ends.
        let mut other = ours.id;
        other.bytes[40] ^= 0xff;
        diag.destroy(&other).unwrap_err();
        assert!(stream.take_error().unwrap().is_none());
        match diag.destroy(&ours.id) {
            // Ending takes CAP_NET_ADMIN.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return,
            ended => ended.unwrap(),
        }
        assert_eq!(stream.take_error().unwrap().unwrap().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(diag.destroy(&ours.id).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn what_is_cut_off_is_no_socket() {
        let mut body = vec![0; MSG_BYTES];
        body[0] = libc::AF_INET as u8;
        assert!(found(&body, protocol::TCP).is_some());
        for length in 0..MSG_BYTES {
            assert!(found(&body[..length], protocol::TCP).is_none());
        }
    }
}
