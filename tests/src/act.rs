//! One thing a process does on the network, as data: what the harness asks of the `probe` binary.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use crate::by::{Header, MessageBy, TcpBy, UdpBy};
use crate::feature::Feature;
use crate::trick::{Disguise, Forged, Handed, Handover, LinkBy};
use crate::zone::Follow;

/// Where, as whom, and what.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// Cgroup directory to move into first.
    pub cgroup: Option<PathBuf>,
    /// Network namespace to move into next.
    pub netns: Option<PathBuf>,
    /// User to become last.
    pub uid: u32,
    /// Cgroup directory of the other process, for [`Act::Handed`].
    pub maker: Option<PathBuf>,
    /// How long to wait for an answer, in milliseconds.
    pub wait_ms: u64,
    /// What to do.
    pub act: Act,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Act {
    /// Sends a datagram and waits for its echo.
    Udp {
        /// Where to.
        to: SocketAddr,
        /// By which system calls.
        by: UdpBy,
    },
    /// Connects, sends a line and waits for its echo.
    Tcp {
        /// Where to.
        to: SocketAddr,
        /// With which flavour of TCP.
        by: TcpBy,
    },
    /// Asks for the address of a name.
    Dns {
        /// The server.
        server: SocketAddr,
        /// Over TCP instead of UDP.
        tcp: bool,
        /// The name.
        name: String,
    },
    /// Sends a DNS message and waits for an answer.
    Message {
        /// The server.
        server: SocketAddr,
        /// The message, without the length that goes before it over TCP.
        message: Vec<u8>,
        /// In what pieces.
        by: MessageBy,
    },
    /// Asks for the addresses of many names, each of one server in turn, and reports for each server how many were answered
    /// and how many refused: with `EPERM` over UDP, with silence or an end over TCP.
    Names {
        /// Servers, and whether each is asked over TCP.
        servers: Vec<(SocketAddr, bool)>,
        /// A file of names, one in each line.
        names: PathBuf,
        /// How long silence is, in milliseconds.
        silence_ms: u64,
    },
    /// Asks for each of these names in turn, over UDP from one socket, and reports median and 99th percentile of how long the
    /// answers took, in nanoseconds.
    Time {
        /// The server.
        server: SocketAddr,
        /// A file of names, one in each line.
        names: PathBuf,
    },
    /// Serves the made-up zone ([`crate::zone`]) at these addresses: says [`READY`], and answers until its standard input ends.
    Zone {
        /// Where at.
        at: Vec<IpAddr>,
    },
    /// Asks for names of the made-up zone and goes where they lead; reports what came of the questions and of the connections.
    Follow(Follow),
    /// Sends an echo request from a ping socket, or from a raw one, and waits for the reply.
    Ping {
        /// Where to.
        to: IpAddr,
        /// From a raw socket.
        raw: bool,
    },
    /// Sends bytes as the payload of an IP protocol, from a raw socket, and waits for nothing.
    Raw {
        /// Where to.
        to: IpAddr,
        /// IANA protocol.
        protocol: u8,
        /// Who writes the IP header.
        header: Header,
        /// What follows the IP header.
        payload: Vec<u8>,
    },
    /// Makes a socket and does nothing with it.
    Socket {
        /// Address family.
        family: i32,
        /// Socket type.
        kind: i32,
        /// Protocol.
        protocol: i32,
    },
    /// Says [`READY`], then answers TCP connections or datagrams until its standard input ends.
    Serve {
        /// Where at.
        at: SocketAddr,
        /// TCP, else UDP.
        tcp: bool,
    },
    /// Holds a UDP socket of which it says that the kernel is to unwrap what arrives (`UDP_ENCAP`), says [`READY`], and stays
    /// until its standard input ends.
    Unwrap {
        /// Where at; others may share it.
        at: SocketAddr,
    },
    /// Says [`READY`] and waits for a datagram, then answers it from the same socket, from a connected one on the same port
    /// and from one on another port, and sends to each of `others` from the first. Reports sent and refused in this
    /// order.
    Answer {
        /// Where at.
        at: SocketAddr,
        /// Whom else to send to.
        others: Vec<SocketAddr>,
    },
    /// Says [`READY`], then sends a datagram to whoever sent the last one, once for each line of its standard input, with a
    /// report for each.
    Push {
        /// Where at.
        at: SocketAddr,
    },
    /// Opens a connection (or connects a UDP socket) and says [`READY`]; sends and awaits the echo once for each line
    /// of its standard input, with a report for each.
    Hold {
        /// Where to.
        to: SocketAddr,
        /// TCP, else UDP.
        tcp: bool,
    },
    /// Opens a raw ICMP socket and says [`READY`]; sends an echo reply that nobody asked for once for each line of its
    /// standard input, with a report for each.
    HoldRaw {
        /// Where to.
        to: IpAddr,
    },
    /// Makes a UDP socket and says [`READY`]; sends from a foreign address ([`crate::trick::Forgery::Corked`]) once for each
    /// line of its standard input, with a report for each.
    HoldForged(Forged),
    /// Says [`READY`]; then sends a datagram to each of `to`, round after round, until its standard input ends, and
    /// reports how many were sent and refused for each.
    Flood {
        /// Where to.
        to: Vec<SocketAddr>,
        /// All from one (IPv6) socket, else each from a fresh one.
        one_socket: bool,
    },
    /// Sends a datagram to each of `count` addresses from one socket, and reports how many were sent and refused.
    Sweep {
        /// The first address; the others follow it.
        from: SocketAddr,
        /// How many.
        count: u32,
    },
    /// Says [`READY`]; then sends datagrams as fast as it can, from a thread for each of `to`, until its standard input ends,
    /// and reports how many were sent and refused by each.
    Storm {
        /// Where to.
        to: Vec<SocketAddr>,
        /// To so many addresses in turn, of which that is the first; from a connected socket if it is 1.
        addresses: u32,
    },
    /// Does something else, in disguise.
    As {
        /// What it does to itself first.
        disguise: Disguise,
        /// What it does then.
        act: Box<Act>,
    },
    /// Uses a socket that another process made, as root and in another cgroup.
    Handed {
        /// Where to.
        to: SocketAddr,
        /// What it is.
        what: Handed,
        /// How it got here.
        how: Handover,
        /// The other's cgroup, below the wall's root.
        maker: String,
    },
    /// The other's part of [`Act::Handed`]: makes it, passes it over its standard input, and stays.
    Make {
        /// Where to.
        to: SocketAddr,
        /// What.
        what: Handed,
    },
    /// Makes a socket, becomes another program (`execve()`), and uses it there.
    Outlive {
        /// Where to.
        to: SocketAddr,
        /// What it makes.
        what: Handed,
        /// The other program: another probe.
        program: PathBuf,
    },
    /// The other program's part of [`Act::Outlive`]: uses what was left to it.
    Inherit {
        /// Where to.
        to: SocketAddr,
        /// What it is.
        what: Handed,
        /// Its descriptor.
        number: i32,
    },
    /// Makes the kernel answer a forged source.
    Forge(Forged),
    /// Joins a multicast group.
    Join {
        /// The group.
        group: IpAddr,
    },
    /// Sends a UDP datagram without a socket of the IP stack.
    Link {
        /// Where to.
        to: SocketAddr,
        /// How.
        by: LinkBy,
    },
    /// Says [`READY`]; then does each of `errands` in turn, round after round, until its standard input ends, and reports
    /// a tally for each.
    Load {
        /// What to do.
        errands: Vec<Errand>,
        /// Microseconds between two of them.
        pause_us: u64,
    },
    /// Says [`READY`]; does each of `errands` once for each line of its standard input, with a report of their tallies
    /// for each line.
    Steps {
        /// What to do.
        errands: Vec<Errand>,
    },
    /// Mounts a file that never answers over another, says [`READY`], and keeps it so until it ends. For root, and where there
    /// is FUSE.
    KeepSilent {
        /// The other.
        at: PathBuf,
    },
    /// Says [`READY`], makes whoever asks for its memory wait for that file, then sends a datagram, and stays.
    Stall {
        /// The file.
        file: PathBuf,
        /// Where to.
        to: SocketAddr,
    },
    /// Becomes another program.
    Launch {
        /// The program.
        program: PathBuf,
        /// Its arguments.
        arguments: Vec<String>,
    },
}

/// One of many things done over and over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errand {
    /// Where to.
    pub to: SocketAddr,
    /// By which kind of socket.
    pub by: ErrandBy,
}

/// Sockets an errand may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrandBy {
    /// A datagram from a fresh socket each time.
    UdpFresh,
    /// A datagram by `sendto`, all from one socket.
    UdpSendto,
    /// A datagram by `send`, from one connected socket.
    UdpConnected,
    /// A fresh connection, and an echo over it.
    TcpFresh,
    /// An echo over one connection that stays.
    TcpHeld,
}

/// What came of one errand over all its rounds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Sent, or answered where an answer was awaited.
    pub ok: u64,
    /// Refused with `EPERM`.
    pub refused: u64,
    /// Anything else.
    pub failed: u64,
    /// The last thing else.
    pub failure: Option<String>,
}

/// What a probe saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// It went through, and the answer came if one was awaited.
    pub ok: bool,
    /// The step that failed: `socket`, `connect`, `send` or `receive`.
    pub step: Option<String>,
    /// Its error number.
    pub errno: Option<i32>,
    /// How long it took to succeed or fail, in microseconds.
    pub elapsed_us: u64,
    /// What came back.
    pub received: Option<String>,
    /// For a flood: datagrams sent and refused to each destination.
    pub counts: Vec<(u64, u64)>,
    /// For a load, or a step: what came of each errand.
    pub tallies: Vec<Tally>,
}

impl Report {
    /// Refused by the wall, as the application sees it.
    pub fn is_refused(&self) -> bool {
        !self.ok && self.errno == Some(libc::EPERM)
    }

    /// It stands, and what was sent is not answered: there is silence, or the agent has ended it.
    pub fn is_unanswered(&self) -> bool {
        let is_ended = self.errno == Some(libc::ECONNABORTED);
        self.step.as_deref() == Some("receive") && (self.is_silence() || is_ended)
    }

    /// Nothing came back and nobody said why.
    pub fn is_silence(&self) -> bool {
        !self.ok && matches!(self.errno, Some(libc::ETIMEDOUT | libc::EAGAIN))
    }
}

/// What a serving, holding or flooding probe says once it may be used.
pub const READY: &str = "ready";
/// Where [`UdpBy::Retargeted`] connects to first.
pub const DECOY: &str = "198.51.100.200:9";
/// The same over IPv6.
pub const DECOY_V6: &str = "[2001:db8::200]:9";
/// Where [`TcpBy::Reconnected`] and others go first: policies allow it.
pub const FRIEND: &str = "10.0.3.7:5432";
/// The same over IPv6.
pub const FRIEND_V6: &str = "[2001:db8:3::7]:5432";
/// Source of packets with a header of their own.
pub const OWN_SOURCE: [u8; 4] = [10, 77, 0, 2];
/// The same of packets that say they come from a neighbour.
pub const FORGED_SOURCE: [u8; 4] = [10, 77, 0, 99];
/// What echo probes send, with the process id behind it.
pub const GREETING: &str = "dnswall probe";

/// A datagram by `sendto`.
pub fn udp(to: &str) -> Act {
    udp_by(to, UdpBy::Sendto)
}

/// A datagram.
pub fn udp_by(to: &str, by: UdpBy) -> Act {
    Act::Udp { to: address(to), by }
}

/// A plain connection.
pub fn tcp(to: &str) -> Act {
    tcp_by(to, TcpBy::Connect)
}

/// A connection.
pub fn tcp_by(to: &str, by: TcpBy) -> Act {
    Act::Tcp { to: address(to), by }
}

/// A question over UDP.
pub fn dns(server: IpAddr) -> Act {
    Act::Dns { server: (server, 53).into(), tcp: false, name: NAME.into() }
}

/// A question over TCP.
pub fn dns_tcp(server: IpAddr) -> Act {
    Act::Dns { server: (server, 53).into(), tcp: true, name: NAME.into() }
}

/// An echo request from a ping socket.
pub fn ping(to: &str) -> Act {
    Act::Ping { to: host(to), raw: false }
}

/// An echo request from a raw socket.
pub fn raw_ping(to: &str) -> Act {
    Act::Ping { to: host(to), raw: true }
}

/// Bytes as the payload of an IP protocol: two ports, then zeroes.
pub fn raw(to: &str, protocol: u8) -> Act {
    let to = address(to);
    let mut payload = vec![0; 16];
    payload[..2].copy_from_slice(&9999u16.to_be_bytes());
    payload[2..4].copy_from_slice(&to.port().to_be_bytes());
    payload[4..6].copy_from_slice(&16u16.to_be_bytes());
    Act::Raw { to: to.ip(), protocol, header: Header::Kernel, payload }
}

/// The same with an IP header of one's own.
pub fn raw_own(to: &str, protocol: u8, fragment: u16, options: &[u8]) -> Act {
    match raw(to, protocol) {
        Act::Raw { to, protocol, payload, .. } => {
            Act::Raw { to, protocol, payload, header: Header::Own { fragment, options: options.to_vec() } }
        }
        other => other,
    }
}

/// The same in a neighbour's name.
pub fn raw_forged(to: &str, protocol: u8) -> Act {
    match raw(to, protocol) {
        Act::Raw { to, protocol, payload, .. } => Act::Raw { to, protocol, payload, header: Header::Forged },
        other => other,
    }
}

/// The same over a socket that was opened for ICMP.
pub fn raw_hidden(to: &str, protocol: u8) -> Act {
    match raw(to, protocol) {
        Act::Raw { to, protocol, payload, .. } => Act::Raw { to, protocol, payload, header: Header::Hidden },
        other => other,
    }
}

/// A TCP segment by hand.
pub fn segment(to: &str, flags: u8) -> Act {
    let to = address(to);
    let mut payload = vec![0; 20];
    payload[..2].copy_from_slice(&9999u16.to_be_bytes());
    payload[2..4].copy_from_slice(&to.port().to_be_bytes());
    payload[12] = 5 << 4;
    payload[13] = flags;
    Act::Raw { to: to.ip(), protocol: 6, header: Header::Kernel, payload }
}

/// An ICMP message by hand.
pub fn icmp(to: &str, kind: u8) -> Act {
    let to = host(to);
    let protocol = if to.is_ipv4() { 1 } else { 58 };
    Act::Raw { to, protocol, header: Header::Kernel, payload: vec![kind, 0, 0, 0, 0, 0, 0, 0] }
}

/// The same in disguise.
pub fn disguised(disguise: Disguise, act: Act) -> Act {
    Act::As { disguise, act: Box::new(act) }
}

/// A literal of a test.
///
/// # Panics
/// When it is no address.
pub fn address(text: &str) -> SocketAddr {
    text.parse().unwrap_or_else(|error| panic!("{text} in a test: {error}"))
}

fn host(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|error| panic!("{text} in a test: {error}"))
}

/// What questions are about.
pub const NAME: &str = "www.example.com";

impl Act {
    /// What it needs that not every kernel has.
    pub fn needs(&self) -> Option<Feature> {
        match self {
            Self::Tcp { by: TcpBy::Multipath, .. } => Some(Feature::Multipath),
            Self::Udp { by: UdpBy::Lite, .. } | Self::Message { by: MessageBy::Lite, .. } => {
                Some(Feature::UdpLite)
            }
            Self::Udp { by: UdpBy::UringSocket, .. } | Self::Tcp { by: TcpBy::UringSocket, .. } => {
                Some(Feature::UringSocket)
            }
            Self::As { act, .. } => act.needs(),
            _ => None,
        }
    }
}
