//! What a process does to look like another, or to have another's socket.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What a process does to itself before it acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Disguise {
    /// Takes a name as `ps` shows it (`PR_SET_NAME`).
    Named(String),
    /// Becomes root of a user namespace of its own.
    UserNamespace,
    /// Becomes root of a user namespace and of a network namespace, both its own, with the loopback device up.
    NetNamespace,
    /// Sees its own cgroup as the root (`CLONE_NEWCGROUP`).
    CgroupNamespace,
    /// Runs the bytes of this file from memory (`memfd_create`).
    Memfd(PathBuf),
    /// Runs this file through the dynamic loader.
    Loader(PathBuf),
    /// Runs itself from this path, over which it has mounted itself, for root.
    MountedOver(PathBuf),
    /// Runs this file by its path.
    Exec(PathBuf),
    /// Tells the kernel that it runs this file (`PR_SET_MM_EXE_FILE`).
    ExeFile(PathBuf),
    /// Lets sockets have no memory for what the wall keeps with them (`net.core.optmem_max`), for root.
    NoSocketMemory,
}

/// How a socket came into the hands of the process that uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Handover {
    /// Passed over a UNIX socket (`SCM_RIGHTS`).
    Passed,
    /// Taken from the other process (`pidfd_getfd`).
    Taken,
    /// Inherited from the parent.
    Inherited,
    /// Its own, from before it moved to another cgroup.
    Migrated,
}

/// What the other process made, and what this one does with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Handed {
    /// An unconnected UDP socket: `sendto`.
    Udp,
    /// A UDP socket the other has connected and used: `send`.
    UdpConnected,
    /// A UDP socket the other has connected, which this one connects again: `connect`, `send`.
    UdpConnectedAgain,
    /// An unconnected TCP socket: `connect`.
    Tcp,
    /// A TCP connection: `send`.
    TcpConnected,
    /// A ping socket: `sendto`.
    Ping,
}

/// How the kernel is made to write to an address: by something that seems to come from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Forgery {
    /// A datagram to a closed port of one's own: the kernel's error quotes it.
    Udp,
    /// The same, with the source in a control message.
    UdpControl,
    /// An echo request to an address of one's own: the reply carries what it carried.
    Ping,
    /// A connection to a listener of one's own: its SYN-ACK, and all that follows from an accomplice's ACK.
    Tcp,
    /// [`Self::Udp`] from a socket that is then bound once more, to nothing: that fails, and changes nothing.
    UdpBoundTwice,
    /// [`Self::Tcp`] likewise.
    TcpBoundTwice,
    /// [`Self::Udp`] from a socket that was then disconnected and bound to a group: that succeeds, and the source stays.
    BoundToGroup,
    /// [`Self::Udp`], held back by the socket until that is bound to an address of one's own.
    Corked,
    /// An echo request by hand to an address of one's own, from a group, from all or from nobody. Takes a raw socket.
    RawNobodys,
    /// [`Self::Tcp`] by multipath TCP, whose first subflow the kernel makes.
    Multipath,
    /// An echo request that says it comes from where it goes, and goes over the loopback device all the same. Takes a raw
    /// socket.
    RawToItself,
    /// A datagram from a socket that was connected to a group whose interface has the address (`IP_MULTICAST_IF`): no call
    /// named it as a source.
    GroupInterface,
    /// A datagram of a DHCP client's to all, by hand: this host hears it, too, and then a server here answers whom it seemed
    /// to come from.
    OwnCopy,
    /// A connection to oneself that is begun by hand: it goes over the loopback device to an address elsewhere, a listener
    /// here answers in that one's name, and the kernel resets it there.
    HeaderAway,
    /// A connection to oneself from an address of one's own; the accepted socket is then bound to the cable.
    LedOut,
    /// A datagram that travels by way of an address of one's own (segment routing), from where the kernel sends it on: for
    /// root, who has told the kernel to.
    Segments,
}

/// A forged source and where what seems to come from it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forged {
    /// Whom it seems to come from, and who is answered.
    pub source: SocketAddr,
    /// An address and port of one's own.
    pub to: SocketAddr,
    /// How.
    pub by: Forgery,
}

/// Ways to send a frame without a socket of the IP stack: no cgroup hook sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkBy {
    /// `AF_PACKET`, the kernel writes the link header.
    Packet,
    /// `AF_PACKET` that goes past the queueing discipline (`PACKET_QDISC_BYPASS`).
    PacketBypass,
    /// A TUN device, whose packets the kernel then forwards.
    Tun,
    /// A VXLAN tunnel: the outer packets.
    Vxlan,
    /// A VXLAN tunnel that others made: a datagram over loopback, whose inner packet the kernel sends on.
    Unwrapped,
    /// What the one before needs, for root: the tunnel's device, and a kernel that forwards. Sends nothing.
    Overlay,
}
