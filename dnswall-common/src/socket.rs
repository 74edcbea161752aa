//! What is remembered about a socket, in the socket itself (`BPF_MAP_TYPE_SK_STORAGE`).
//!
//! Recorded when the socket is made and again when another process connects it; it cannot be evicted and goes when the socket goes.
//! The map is cloned on accept (`BPF_F_CLONE`): a socket whose cookie is not the recorded one was accepted by the
//! listener that was recorded, which is how inbound connections are known without guessing from ports.

use crate::flow::{Address, Flow};
use crate::identity::path_step;
use crate::who::Who;

/// Flow tags a socket remembers: destinations it was allowed to reach.
pub const TAGS: usize = 32;
/// Places among them where one tag may be. Which [`TAGS`]` / TAG_WAYS` sets there are to choose from, its low bits say.
pub const TAG_WAYS: usize = 4;

/// Owner and verdicts of a socket.
///
/// Threads that share a socket write here at the same time on several CPUs, so whatever a verdict is read from is
/// either one 64-bit store (the tags) or kept apart by the generation's parity (the selectors).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketState {
    /// Cookie of the socket this was recorded for.
    pub cookie: u64,
    /// Cgroup of the process that made or connected it.
    pub cgroup: u64,
    /// Network namespace cookie.
    pub netns: u64,
    /// When the process's leader started, nanoseconds since boot.
    pub start_ns: u64,
    /// The executable ([`crate::identity::exe_number`]); 0 when unknown.
    pub exe_number: u64,
    /// Device of the executable's superblock, `major << 20 | minor`.
    pub exe_device: u32,
    /// User id in the initial user namespace.
    pub uid: u32,
    /// Process id (thread group) in the initial pid namespace.
    pub pid: u32,
    /// [`SOCKET_RAW`] and the like.
    pub flags: u8,
    /// The parent's process id, bits 16 to 23 (see [`Self::parent`]).
    pub parent_high: u8,
    /// The same, bits 0 to 15.
    pub parent_low: u16,
    /// Name of the thread.
    pub comm: [u8; 16],
    /// The selectors this socket matches, by the parity of the generation they hold for.
    pub who: [Who; 2],
    /// The generations for which `who` holds; written after it.
    pub who_generation: [u32; 2],
    /// [`flow_tag`] of destinations that were allowed: [`TAG_WAYS`] places a set.
    pub allowed: [u64; TAGS],
    /// Generation of the newest tag in `allowed`: whether a connection was allowed before the policy changed.
    pub allowed_generation: u32,
    /// Counts up: which of its set's places a new tag takes when none is free.
    pub next_way: u16,
    /// 1 from `socket()` until a datagram comes unasked, or a port is chosen: until then no peer can be answered.
    pub never_heard: u16,
    /// [`source_tag`] of the last source that was looked at and is this host's; 0 for none. Whether a destination is allowed
    /// and whether the source is true are two questions, so one word for the second will do.
    pub source: u64,
}

impl SocketState {
    /// Process id (thread group) of the process's parent, in the initial pid namespace; 0 when unknown. It lies where builds that
    /// do not know it have the upper bytes of the flags, which they keep as they are: it needs no other layout. Three bytes hold
    /// every process id (`PID_MAX_LIMIT` is 2^22).
    #[inline(always)]
    pub const fn parent(&self) -> u32 {
        (self.parent_high as u32) << 16 | self.parent_low as u32
    }

    /// Records the parent. Not by the word: another CPU may be setting a flag.
    #[inline(always)]
    pub const fn set_parent(&mut self, pid: u32) {
        self.parent_high = (pid >> 16) as u8;
        self.parent_low = pid as u16;
    }
}

/// [`SocketState::flags`]: a raw socket.
pub const SOCKET_RAW: u8 = 1;

/// [`SocketState::flags`]: accepted by a listener, not connected by its process.
pub const SOCKET_INBOUND: u8 = 2;

/// [`SocketState::flags`]: has named a source that is not the host's, once: by `bind()`, in a control message, or perhaps as
/// a group's interface. What leaves from such a one was not put there by netfilter.
pub const SOCKET_FOREIGN: u8 = 4;

/// [`SocketState::flags`]: bound to a port its process chose, as servers do.
pub const SOCKET_BOUND: u8 = 8;

const _: () = assert!(size_of::<SocketState>() == 40 + 16 + 16 + 64 + 8 + 8 * TAGS + 16);
// Builds before had one word there, flags first.
const _: () = assert!(
    core::mem::offset_of!(SocketState, flags) == 52 && core::mem::offset_of!(SocketState, comm) == 56
);
const _: () = assert!((TAGS / TAG_WAYS).is_power_of_two() && TAG_WAYS == 4);

/// The key of [`flow_tag`] for one generation: what was allowed under another one has other tags.
#[inline(always)]
pub const fn flow_key(seed: u64, generation: u32) -> u64 {
    path_step(seed, generation as u64)
}

/// What stands for one allowed destination under one generation: a keyed hash, so that it is compared and stored as
/// one word. Never 0. An IPv4 destination fits one step, so that only two of them (the last bit is given away) share a
/// tag; nobody who does not know the key can tell which.
#[inline(always)]
pub const fn flow_tag(key: u64, flow: &Flow) -> u64 {
    let rest = (flow.protocol as u64) << 16 | flow.port as u64;
    let tag = match flow.address {
        Address::V4(address) => path_step(key, (address as u64) << 32 | rest),
        Address::V6(high, low) => path_step(path_step(path_step(key, high), low), rest),
    };
    tag | 1
}

/// [`Flow::protocol`] of the tag of a TCP connection that was accepted: no packet carries it (255 is reserved by IANA).
pub const ACCEPTED: u8 = 255;

/// What stands for an address of this host that packets come from. Never 0.
#[inline(always)]
pub const fn source_tag(seed: u64, address: Address) -> u64 {
    match address {
        Address::V4(address) => path_step(!seed, address as u64) | 1,
        Address::V6(high, low) => path_step(path_step(!seed, high), low) | 1,
    }
}

/// What stands for a peer that sent a datagram. Never 0.
#[inline(always)]
pub const fn peer_tag(seed: u64, address: Address, port: u16) -> u64 {
    let [high, low] = address.to_words();
    path_step(path_step(path_step(!seed, high), low), port as u64) | 1
}

/// What stands for a port of a network namespace.
#[inline(always)]
pub const fn port_tag(seed: u64, netns: u64, port: u16) -> u64 {
    path_step(path_step(!seed, netns), port as u64)
}

/// Value of map `REPLIES`: a time in nanoseconds since boot, whose last bit says what happened then. Clear: the peer sent
/// unasked, and may be answered for a while. Set: this socket wrote to it first, against the policy but only audited;
/// what it sends meanwhile is an answer, and opens nothing.
pub const REPLY_ASKED: u64 = 1;

/// Key of map `REPLIES`: a peer that sent a datagram to this socket, or to this port: a server may answer from another
/// socket of the same port (a connected one for each client, as DTLS and QUIC servers make).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReplyKey {
    /// The receiving socket's cookie; [`port_tag`] for one with [`SOCKET_BOUND`].
    pub receiver: u64,
    /// [`peer_tag`] of the peer.
    pub peer: u64,
}

const _: () = assert!(size_of::<ReplyKey>() == 16);
