//! What the kernel tells the agent about one refused (or, in audit mode, would-be refused) packet or attempt, and about questions
//! and answers, where the policy wants to know of them.

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
    /// A question, whatever became of it. Only in map `QUESTIONS`, where nothing is limited.
    pub const QUESTION: u8 = 7;
    /// What seems to be an answer: from port 53, whoever sent it. Only in map `QUESTIONS`.
    pub const ANSWER: u8 = 8;
}

/// [`Event::identity`]: the owner comes from the socket's own storage.
pub const IDENTITY_SOCKET: u8 = 1;
/// [`Event::identity`]: the socket is older than the wall; cgroup and user are its own, the process is not known.
pub const IDENTITY_OLD_SOCKET: u8 = 2;

/// [`crate::image::ImageHeader::tells`]: no question is told of, but for alerts.
pub const TELLS_NONE: u8 = 0;
/// [`crate::image::ImageHeader::tells`]: each that is refused is.
pub const TELLS_DENIED: u8 = 1;
/// [`crate::image::ImageHeader::tells`]: those, and one in [`crate::image::ImageHeader::told_of`] of all others, with its answer.
pub const TELLS_ALL: u8 = 2;

/// Whether a question, and with it its answer, is among the one in `of` that are told, by the keyed hash of its name and the socket. Nobody
/// can choose a socket's cookie, nor knows the key.
#[inline(always)]
pub const fn is_sampled(name: u64, cookie: u64, of: u32) -> bool {
    let mut hash = (name ^ cookie).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0xd6e8_feb8_6659_fd93);
    ((hash >> 32) * of as u64) >> 32 == 0
}

/// One refusal, question or answer.
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
    /// The parent of the owner's process, when the socket was recorded; 0 when unknown (builds that do not know it write that).
    pub parent: u32,
    /// Name of the owner's thread.
    pub comm: [u8; 16],
    /// What follows the UDP or TCP header of a DNS message.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_so_many_questions_is_told() {
        let name = |number: u64| crate::identity::path_step(7, number);
        let told = |of: u32| {
            let questions = (0..200u64).flat_map(|cookie| (0..500u64).map(move |number| (cookie, number)));
            questions.filter(|(cookie, number)| is_sampled(name(*number), 4096 + cookie, of)).count()
        };
        assert_eq!(told(1), 100_000);
        for of in [2, 10, 100, 1000] {
            let expected = 100_000 / of as usize;
            assert!(told(of).abs_diff(expected) < 5 * expected.isqrt(), "one in {of}: {}", told(of));
        }
        // Neither of a socket nor of a name all or none.
        let of_socket = (0..1_000).filter(|number| is_sampled(name(*number), 1, 10)).count();
        let of_name = (0..1_000).filter(|cookie| is_sampled(name(1), *cookie, 10)).count();
        assert!((50..150).contains(&of_socket) && (50..150).contains(&of_name), "{of_socket} {of_name}");
    }
}
