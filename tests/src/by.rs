//! Ways of sending a datagram and flavours of TCP: the same thing done by other system calls and socket options.

use serde::{Deserialize, Serialize};

/// Ways of sending a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UdpBy {
    /// `sendto` on an unconnected socket.
    Sendto,
    /// `connect`, then `send`.
    Connected,
    /// `sendmmsg` with two messages on an unconnected socket.
    Sendmmsg,
    /// `sendmmsg` with a message to [`crate::act::FRIEND`] before the one that matters.
    SendmmsgMixed,
    /// An IPv6 socket, also for an IPv4 destination (v4-mapped).
    SixSocket,
    /// An IPv6 socket that `IPV6_ADDRFORM` made an IPv4 one.
    FormChanged,
    /// `connect` elsewhere ([`crate::act::DECOY`]), then `sendto` the destination.
    Retargeted,
    /// `connect` elsewhere, `connect` again, then `send`.
    ConnectedTwice,
    /// `connect` to [`crate::act::FRIEND`], disconnected (`AF_UNSPEC`), then `sendto`.
    Disconnected,
    /// `connect`, then `sendmsg` with a control message: the kernel asks the hook without an address.
    ControlMessage,
    /// A datagram in another's name before the one that matters (IPv6).
    AfterForged,
    /// From source port 53.
    SourcePort53,
    /// From a port that another socket of the process shares (`SO_REUSEPORT`).
    SharedPort,
    /// With the source address and the device named by `IP_PKTINFO`.
    PacketInfo,
    /// Bound to the cable (`SO_BINDTODEVICE`).
    BoundDevice,
    /// With a mark (`SO_MARK`), for root.
    Marked,
    /// A UDP-Lite socket.
    Lite,
    /// A datagram that the kernel cuts into fragments.
    Large,
    /// A datagram that the kernel or the device cuts into several (`UDP_SEGMENT`).
    Segmented,
    /// `MSG_ZEROCOPY`.
    ZeroCopy,
    /// `connect`, then `sendfile`.
    Sendfile,
    /// `connect`, then `splice` from a pipe.
    Spliced,
    /// Held back by `MSG_MORE`, let go by taking `UDP_CORK` away: no system call names a destination when it leaves.
    Corked,
    /// With a source route through [`crate::act::FRIEND`] or its IPv6 kin, by socket option.
    SourceRoute,
    /// With an IPv6 flow label.
    FlowLabel,
    /// Behind an IPv6 hop-by-hop header, for root.
    HopByHop,
    /// By io_uring.
    Uring,
    /// By io_uring, the socket too.
    UringSocket,
    /// By io_uring, from the kernel's polling thread.
    UringPolled,
}

/// Flavours of TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TcpBy {
    /// Plain `connect`.
    Connect,
    /// An IPv6 socket, also for an IPv4 destination (v4-mapped).
    SixSocket,
    /// `sendto` with `MSG_FASTOPEN`.
    FastOpen,
    /// Connected to [`crate::act::FRIEND`], disconnected, then `sendto` with `MSG_FASTOPEN`.
    FastOpenAgain,
    /// `TCP_FASTOPEN_CONNECT`: the SYN leaves with the first write.
    DeferredConnect,
    /// Multipath TCP.
    Multipath,
    /// From source port 53.
    SourcePort53,
    /// From source port 443, as a server would.
    LowPort,
    /// From a port that a listener of the process has too (`SO_REUSEPORT`).
    SharedPort,
    /// Bound to the cable (`SO_BINDTODEVICE`).
    BoundDevice,
    /// With a mark (`SO_MARK`), for root.
    Marked,
    /// With a source route through [`crate::act::FRIEND`], by socket option.
    SourceRoute,
    /// Connected to [`crate::act::FRIEND`] first, then disconnected (`AF_UNSPEC`), then connected.
    Reconnected,
    /// Accepted from a loopback peer, disconnected, then connected.
    Accepted,
    /// A listener that was disconnected, then connected.
    Listened,
    /// Said to be established without a handshake (`TCP_REPAIR`), for root.
    Repaired,
    /// `sendfile`.
    Sendfile,
    /// `splice` from a pipe.
    Spliced,
    /// `MSG_ZEROCOPY`.
    ZeroCopy,
    /// By io_uring.
    Uring,
    /// By io_uring, the socket too.
    UringSocket,
    /// By io_uring, from the kernel's polling thread.
    UringPolled,
}

/// In what pieces a DNS message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MessageBy {
    /// One datagram.
    Datagram,
    /// Two datagrams in one buffer, which the device would cut (`UDP_SEGMENT`).
    Segments,
    /// Two datagrams from port 53.
    FromPort53,
    /// Over TCP, from a socket bound to port 53.
    StreamFromPort53,
    /// Over UDP-Lite.
    Lite,
    /// With its length, in one segment.
    Stream,
    /// Its length, and a moment later the message.
    LengthApart,
    /// Its first half with the length, and a moment later the other.
    Halves,
    /// Twice, one behind the other in one segment.
    Twice,
    /// What follows the first length is written as it is: messages with their lengths between them, of the same length.
    TwoMessages,
    /// As [`Self::Stream`], with a minute's patience.
    Patient,
    /// In the first packet of the connection.
    FastOpen,
    /// With one byte before it that is urgent, so that the other end takes it out.
    Urgent,
    /// From memory of its own, not copied (`MSG_ZEROCOPY`): a datagram.
    ZeroCopy,
    /// The same over TCP.
    ZeroCopyStream,
    /// From a pipe into which its memory was mapped (`vmsplice()`): a datagram.
    Spliced,
    /// The same over TCP.
    SplicedStream,
}

/// Who writes the IP header of a raw packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Header {
    /// The kernel.
    Kernel,
    /// The process (IPv4 only), from [`crate::act::OWN_SOURCE`].
    Own {
        /// Fragment offset in units of eight bytes, and flags.
        fragment: u16,
        /// Options, a multiple of four bytes.
        options: Vec<u8>,
    },
    /// The process (IPv4 only), from [`crate::act::FORGED_SOURCE`].
    Forged,
    /// The process, over a socket that was opened for ICMP (`IP_HDRINCL`, IPv4 only).
    Hidden,
}
