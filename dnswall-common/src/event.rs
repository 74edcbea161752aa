//! What the kernel tells the agent about one refused (or, in audit mode, would-be refused) packet or attempt.

use crate::limits::EVENT_PAYLOAD_BYTES;

/// [`Event::hook`]. Numbers are never reused.
pub mod hook {
    /// `cgroup_skb/egress`
    pub const EGRESS: u8 = 1;
    /// `cgroup_skb/ingress`
    pub const INGRESS: u8 = 2;
    /// `cgroup/connect4` and `connect6`
    pub const CONNECT: u8 = 3;
    /// `cgroup/sock_create`
    pub const SOCK_CREATE: u8 = 4;
    /// `lsm_cgroup/socket_create`: [`Event::destination_port`](super::Event) is the address family.
    pub const SOCKET: u8 = 5;
    /// `cgroup/dev`: [`Event::source_port`](super::Event) is the major number, `destination_port` the minor.
    pub const DEVICE: u8 = 6;
}

/// [`Event::identity`]: the owner comes from the socket's own storage.
pub const IDENTITY_SOCKET: u8 = 1;
/// [`Event::identity`]: the socket is older than the wall; cgroup and user are its own, the process is not known.
pub const IDENTITY_OLD_SOCKET: u8 = 2;

/// One refusal.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Nanoseconds since boot, suspend not counted (`bpf_ktime_get_ns`).
    pub time_ns: u64,
    /// The socket.
    pub cookie: u64,
    /// Its owner's cgroup.
    pub cgroup: u64,
    /// Its network namespace.
    pub netns: u64,
    /// When the owner's leader started, nanoseconds since boot; 0 when unknown.
    pub start_ns: u64,
    /// The owner's executable.
    pub exe_number: u64,
    /// How often this flow was refused since the kernel began to count it, this one included. Only ever grows, so
    /// that whoever reads loses nothing by reading late.
    pub refusals: u64,
    /// Hash of the listed name that this one is or is below ([`crate::name`]); 0 when it was refused for something else.
    pub entry: u64,
    /// Source (see [`crate::flow::Address::to_words`]); zero where the hook does not know it.
    pub source: [u64; 2],
    /// Destination.
    pub destination: [u64; 2],
    /// Device of the owner's executable, `major << 20 | minor`.
    pub exe_device: u32,
    /// The owner's user.
    pub uid: u32,
    /// The owner's process; 0 when unknown.
    pub pid: u32,
    /// Generation of the policy that judged.
    pub generation: u32,
    /// Rule that decided.
    pub rule: u32,
    /// Bytes of the packet; 0 for an attempt.
    pub packet_bytes: u32,
    /// Source port, host order.
    pub source_port: u16,
    /// Destination port, host order; for ICMP `type << 8 | code`.
    pub destination_port: u16,
    /// Bytes of `payload` that count.
    pub payload_bytes: u16,
    /// IANA protocol.
    pub protocol: u8,
    /// 4 or 6; 0 for what has no address ([`hook::SOCKET`], [`hook::DEVICE`]).
    pub family: u8,
    /// See [`hook`].
    pub hook: u8,
    /// A [`crate::reason::Reason`] as number.
    pub reason: u8,
    /// [`crate::image::MODE_ENFORCE`]: it was refused; [`crate::image::MODE_AUDIT`]: it would have been.
    pub mode: u8,
    /// [`IDENTITY_SOCKET`] or [`IDENTITY_OLD_SOCKET`].
    pub identity: u8,
    /// Zero.
    pub padding: [u8; 4],
    /// Name of the owner's thread.
    pub comm: [u8; 16],
    /// What follows the UDP or TCP header of a refused DNS message.
    pub payload: [u8; EVENT_PAYLOAD_BYTES],
}

const _: () = assert!(size_of::<Event>() == 64 + 32 + 24 + 16 + 16 + EVENT_PAYLOAD_BYTES);

/// Key of map `REFUSED`: refusals that count as the same.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RefusedKey {
    /// The owner's cgroup.
    pub cgroup: u64,
    /// Destination.
    pub destination: [u64; 2],
    /// See [`Event::entry`].
    pub entry: u64,
    /// The owner's process.
    pub pid: u32,
    /// Destination port.
    pub destination_port: u16,
    /// IANA protocol.
    pub protocol: u8,
    /// Reason's number.
    pub reason: u8,
}

/// Value of map `REFUSED`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// When the last event was sent, monotonic nanoseconds.
    pub last_event_ns: u64,
    /// Refusals so far; starts again at 1 when the entry was evicted in between.
    pub refusals: u64,
}

const _: () = assert!(size_of::<RefusedKey>() == 40 && size_of::<Refused>() == 16);
