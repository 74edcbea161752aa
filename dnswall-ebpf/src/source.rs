//! Whether a packet comes from where it says. A process that gives itself another's address sends to itself, or to whom
//! it may, and the answer goes to the other: the kernel's own reset, error, echo or handshake, or an innocent server's.
//!
//! The packet says it, and the addresses of its namespace's devices, at that very moment. One that no device has is made up
//! unless it is netfilter that wrote it (the hook comes after source NAT): then the socket itself has no such address, and
//! never named one (`bind.rs`), since it may be bound anew, and a corked datagram keeps its source. Whoever `[unjudged]` names may do it all the same.

use crate::identity::{field, offsets, pointer};
use crate::image::KernelImage;
use crate::local_address::{Pair, is_group, ours_among};
use crate::packet::{half, linear};
use crate::{socket, tunnel};
use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::bpf_sk_fullsock;
use dnswall_common::flow::{Address, protocol};
use dnswall_common::packet::{IPV4_BYTES, IPV6_BYTES};
use dnswall_common::socket::SOCKET_FOREIGN;
use dnswall_common::verifier::{forget, not_zero, opaque, unbounded};

/// `SOCK_RAW`
const TYPE_RAW: u32 = 3;
/// The loopback device has this index in every network namespace (`LOOPBACK_IFINDEX`).
pub const LOOPBACK: u32 = 1;

/// Whether a packet on the loopback device plainly says where it comes from: a loopback address, or the same address it
/// goes to, which a raw socket may have made up; has nothing between its headers that leads it elsewhere; and is for nobody
/// who sends it on. Nearly all are. A function of its own, for its frame.
#[inline(never)]
pub fn is_plain(skb: *mut __sk_buff) -> bool {
    // Volatile, so that the compiler keeps the context an argument: the verifier takes no packet pointers there.
    // SAFETY: the context is valid.
    if unsafe { core::ptr::addr_of!((*skb).len).read_volatile() } < IPV4_BYTES as u32 {
        return false;
    }
    if let Some(header) = linear::<IPV6_BYTES>(skb)
        && header[0] >> 4 == 6
    {
        let (high, low) = (half(header, 8), half(header, 16));
        let is_there = (high == 0 && low == 1) || (high == half(header, 24) && low == half(header, 32));
        return is_there
            && match header[6] {
                protocol::UDP => !tunnel::takes(skb, true, IPV6_BYTES as u32),
                next_header => matches!(next_header, protocol::TCP | protocol::ICMPV6),
            }
            && !is_raw(socket::of(skb));
    }
    if let Some(header) = linear::<IPV4_BYTES>(skb)
        && header[0] == 0x45
    {
        let within = header[12] == 127 && header[16] == 127;
        let is_there = header[12] == 127
            || (header[12] ^ header[16])
                | (header[13] ^ header[17])
                | (header[14] ^ header[18])
                | (header[15] ^ header[19])
                == 0;
        return is_there
            && match header[9] {
                protocol::UDP => !tunnel::takes(skb, false, IPV4_BYTES as u32),
                next_header => matches!(next_header, protocol::TCP | protocol::ICMP),
            }
            && ((within && header[9] != protocol::TCP) || !is_raw(socket::of(skb)));
    }
    false
}

/// 0 when a packet says that it comes from another host, or (written by hand, on the loopback device) that it goes to one:
/// whoever answers there does so in its name; else 1. What was looked at is remembered. Before anything else is read, and a
/// function of its own: the verifier walks the search for an address once for each way that leads there.
#[inline(never)]
pub fn is_honest(skb: *mut __sk_buff, image: &KernelImage) -> u64 {
    let Some(Ends { source, destination, is_v6, next_header }) = Ends::of(skb) else {
        // Cut off: refused whatever it says. The kernel writes no header anywhere else than in the linear part.
        return 1;
    };
    // SAFETY: the context is valid. Volatile: see `is_plain`.
    let (on_loopback, unknown) = unsafe {
        let (device, length) = (core::ptr::addr_of!((*skb).ifindex), core::ptr::addr_of!((*skb).len));
        (device.read_volatile() == LOOPBACK, unbounded(length.read_volatile()))
    };
    let sk = socket::of(skb);
    if sk.is_null() {
        return 1;
    }
    // SAFETY: checked for null; the helper answers null for anything but a full socket.
    let full = unsafe { bpf_sk_fullsock(sk) };
    if full.is_null() {
        return 1;
    }
    // SAFETY: checked for null.
    let is_raw = unsafe { (*full).type_ } == TYPE_RAW;
    let by_hand = is_raw || !matches!(next_header, protocol::TCP | protocol::UDP | protocol::UDP_LITE);
    let flags = match socket::state(sk) {
        // On loopback an address may have left the host since it was looked at.
        Some(state)
            if !is_raw && !on_loopback && socket::is_known_source(state, image, address(source, is_v6)) =>
        {
            return 1;
        }
        Some(state) => state.flags,
        None if socket::is_kernels(socket::address(skb)) => {
            if by_hand {
                return 1;
            }
            0
        }
        // What a process's own has named before, or names now, nobody remembers.
        None => SOCKET_FOREIGN,
    };
    // Whoever answers that over loopback asks a router.
    let nameless = on_loopback && source[0] | source[1] == 0;
    let leads_away = is_raw && on_loopback && !matches!(next_header, protocol::ICMP | protocol::ICMPV6);
    let other = select(leads_away, destination, bound_to(full, is_v6));
    // A socket that is bound to a group sends from another address, which an earlier bind() may have named.
    let other_is_group = is_group(other, is_v6) as u64;
    // Numbers of which the verifier knows nothing: on 6.1 it walks the search once for each combination of them.
    let pair = Pair::new(source, other, is_v6).forgotten(unknown);
    let evidence = by_hand as u64
        | (is_group(source, is_v6) | is_group(destination, is_v6)) as u64
        | other_is_group
        | (flags & SOCKET_FOREIGN) as u64;
    let (evidence, leads_away) = (forget(evidence, unknown), forget(leads_away as u64, unknown));
    let nameless = forget(nameless as u64, unknown);
    let ours = ours_among(sk, &pair);
    let elsewhere = ours >> 1 ^ 1;
    let made_up = (ours & 1 ^ 1) & not_zero(evidence | elsewhere) | leads_away & elsewhere;
    let made_up = forget(made_up | nameless, unknown);
    if made_up == 0
        && let Some(state) = socket::state(sk)
    {
        socket::remember_source(state, image, address(pair.one, pair.is_v6 != 0));
    }
    made_up ^ 1
}

/// What a packet's first header says. Addresses as they are in memory, an IPv4 one in the first half of the first word: of a
/// type with two variants the compiler would touch what only one of them has, and the verifier takes no register that nobody
/// has written.
struct Ends {
    source: [u64; 2],
    destination: [u64; 2],
    is_v6: bool,
    /// What follows; what is behind IPv6 extension headers counts as written by hand.
    next_header: u8,
}

impl Ends {
    #[inline(always)]
    fn of(skb: *mut __sk_buff) -> Option<Self> {
        if let Some(header) = linear::<IPV6_BYTES>(skb)
            && header[0] >> 4 == 6
        {
            let word = |at: usize| half(header, at).to_be();
            return Some(Self {
                source: [word(8), word(16)],
                destination: [word(24), word(32)],
                is_v6: true,
                next_header: header[6],
            });
        }
        let header = linear::<IPV4_BYTES>(skb)?;
        let word = |at: usize| {
            u64::from(u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]))
        };
        Some(Self { source: [word(12), 0], destination: [word(16), 0], is_v6: false, next_header: header[9] })
    }
}

#[inline(always)]
fn select(first: bool, one: [u64; 2], other: [u64; 2]) -> [u64; 2] {
    let mask = opaque((first as u64).wrapping_neg());
    [(one[0] & mask) | (other[0] & !mask), (one[1] & mask) | (other[1] & !mask)]
}

#[inline(always)]
fn address(words: [u64; 2], is_v6: bool) -> Address {
    if is_v6 {
        Address::V6(u64::from_be(words[0]), u64::from_be(words[1]))
    } else {
        Address::V4(u32::from_be(words[0] as u32))
    }
}

/// What a socket has for its own address.
#[inline(always)]
fn bound_to(full: *mut bpf_sock, is_v6: bool) -> [u64; 2] {
    // SAFETY: the caller has checked for null. Word by word: the verifier knows the fields as such.
    unsafe {
        if !is_v6 {
            return [(*full).src_ip4 as u64, 0];
        }
        let words = [
            (*full).src_ip6[0] as u64,
            (*full).src_ip6[1] as u64,
            (*full).src_ip6[2] as u64,
            (*full).src_ip6[3] as u64,
        ];
        [words[1] << 32 | words[0], words[3] << 32 | words[2]]
    }
}

/// Whether the socket last heard from this host itself. One that was accepted there has its other end here: what it sends
/// elsewhere (it was bound to a device, or that end's address has left the host) is no answer to anybody.
#[inline(always)]
pub fn heard_on_loopback(skb: *mut __sk_buff) -> bool {
    let sock = socket::address(skb);
    sock == 0 || pointer(sock, field!(offsets().sock_rx_device)) as u32 == LOOPBACK
}

/// Whether whoever sends writes headers of its own: a raw socket, the kernel's own among them.
#[inline(always)]
fn is_raw(sk: *mut bpf_sock) -> bool {
    if sk.is_null() {
        return false;
    }
    // SAFETY: checked for null; the helper answers null for anything but a full socket.
    let full = unsafe { bpf_sk_fullsock(sk) };
    // SAFETY: as above.
    !full.is_null() && unsafe { (*full).type_ } == TYPE_RAW
}
