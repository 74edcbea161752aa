//! Reads answers on their way to who asked, and remembers where names led that rules lead to. It lets everything pass.
//!
//! An answer counts for a question that this very socket asked, and from a resolver that anybody may ask; over loopback, from
//! a resolver of this host's that the policy names: by the owner of the socket that sends it, not by the address.

mod message;
mod weight;

use crate::emit;
use crate::identity::{as_number, field, offsets, pointer};
use crate::image::{KernelImage, decide};
use crate::learned::Asker;
use crate::maps::{ASKED, SOCKETS};
use crate::packet::{self, linear, unknown};
use crate::replies::is_own_copy;
use crate::socket::{self, Zero, zero};
use crate::source::LOOPBACK;
use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release};
use core::mem::MaybeUninit;
use dnswall_common::event::TELLS_ALL;
use dnswall_common::flow::{Address, Flow, PORT_DNS, protocol};
use dnswall_common::named::PORT_STUB;
use dnswall_common::packet::{IPV4_BYTES, IPV6_BYTES};
use dnswall_common::quota::LIMITS_ANSWERS;
use dnswall_common::reason::Action;
use dnswall_common::socket::{SOCKET_RAW, SocketState};
use dnswall_common::verifier::forget;
use message::read;

const PASS: i32 = 1;

/// A packet that reaches a socket, whatever becomes of it.
#[inline(always)]
pub fn arrives(skb: *mut __sk_buff) -> i32 {
    if !is_from_server(skb) || is_own_copy(skb) {
        return PASS;
    }
    let place = forget(find(skb) as u64, unknown(skb)) as u32;
    if place & LEARNS != 0 && !is_on_loopback(skb) {
        learn(skb, place);
    }
    if place & TELLS != 0 {
        tell(skb, place);
    }
    if place & WEIGHS != 0 {
        weight::weigh(skb, place);
    }
    PASS
}

/// A packet that leaves a socket over loopback, whatever becomes of it.
#[inline(always)]
pub fn leaves(skb: *mut __sk_buff) -> i32 {
    if is_on_loopback(skb) && is_from_server(skb) {
        let place = forget(find(skb) as u64, unknown(skb)) as u32;
        if place & LEARNS != 0 {
            learn_for_receiver(skb, place);
        }
    }
    PASS
}

#[inline(always)]
fn is_on_loopback(skb: *mut __sk_buff) -> bool {
    // SAFETY: the context is valid.
    unsafe { (*skb).ifindex == LOOPBACK }
}

/// Whether it may come from port 53: what has plain headers and does not is told here, at once.
#[inline(always)]
fn is_from_server(skb: *mut __sk_buff) -> bool {
    let Some(header) = linear::<{ IPV4_BYTES + 8 }>(skb) else { return true };
    if header[0] == 0x45 {
        return header[20] == 0 && header[21] == PORT_DNS as u8;
    }
    let Some(header) = linear::<{ IPV6_BYTES + 8 }>(skb) else { return true };
    !matches!(header[6], protocol::TCP | protocol::UDP) || (header[40] == 0 && header[41] == PORT_DNS as u8)
}

/// The image that counted when the place was found.
#[inline(always)]
fn image(place: u32) -> Option<KernelImage> {
    KernelImage::in_slot(u32::from(place & SLOT != 0))
}

/// A function of its own, for its frame.
#[inline(never)]
fn learn(skb: *mut __sk_buff, place: u32) -> u32 {
    let Some(image) = image(place) else { return 0 };
    let sk = socket::of(skb);
    let Some(state) = socket::state(sk) else { return 0 };
    // SAFETY: the socket has storage, so it is a full one.
    let Some(asked) = (unsafe { ASKED.find(sk) }) else { return 0 };
    let rule = answers(skb, &image, state, place, PORT_DNS as u32);
    if rule == 0 || rule != image.header().resolvers_rule {
        return 0;
    }
    let (cgroup, netns, seed) = (state.cgroup, state.netns, image.header().seed);
    let mut asker = Asker { cgroup, netns, pattern: forget(0, unknown(skb)), seed };
    read(skb, place, asked, &mut asker)
}

/// The same for who is about to receive what this socket sends over loopback. A function of its own, for its frame.
#[inline(never)]
fn learn_for_receiver(skb: *mut __sk_buff, place: u32) -> u32 {
    let Some(image) = image(place) else { return 0 };
    let Some(state) = socket::state(socket::of(skb)) else { return 0 };
    if state.flags & SOCKET_RAW != 0 || network_namespace(skb) != image.header().netns_inode {
        return 0;
    }
    if answers(skb, &image, state, place, PORT_STUB as u32) == 0 {
        return 0;
    }
    let seed = image.header().seed;
    let mut asker = Asker { cgroup: 0, netns: 0, pattern: forget(0, unknown(skb)), seed };
    let receiver = receiver(skb, place);
    if receiver.is_null() {
        return 0;
    }
    // SAFETY: checked for null, and given back on every way. What is stored in it stays for as long as this program runs.
    let asked = unsafe {
        if let Some(state) = SOCKETS.find(receiver) {
            (asker.cgroup, asker.netns) = (state.cgroup, state.netns);
        }
        let asked = ASKED.find(receiver);
        bpf_sk_release(receiver.cast());
        asked
    };
    // Only now: from here on the verifier knows of no socket, where it knew of each kind that may have been found.
    match asked {
        Some(asked) if asker.cgroup != 0 => read(skb, place, asked, &mut asker),
        _ => 0,
    }
}

/// Tells of what seems to be an answer. Whether it answers a question whoever reads finds out. A function of its own, for its frame.
#[inline(never)]
fn tell(skb: *mut __sk_buff, place: u32) -> u32 {
    let Some(image) = image(place) else { return 0 };
    let Some(state) = socket::state(socket::of(skb)) else { return 0 };
    let is_over_tcp = place & OVER_TCP != 0;
    let message = (place & OFFSET) + if is_over_tcp { 2 } else { 0 };
    let Some([_, _, flags]) = packet::load::<3>(skb, message) else { return 0 };
    // The beginning of an answer; not a later part of one, nor a segment without data.
    if flags & 0xf8 != 0x80 || !emit::is_told_of(&image, skb, place & OFFSET, is_over_tcp) {
        return 0;
    }
    let mut ends = [[0, IPV4_MARK], [0, IPV4_MARK]];
    if place & OVER_IPV6 != 0 {
        let Some(bytes) = packet::load::<32>(skb, 8) else { return 0 };
        ends = [
            [packet::half(&bytes, 0), packet::half(&bytes, 8)],
            [packet::half(&bytes, 16), packet::half(&bytes, 24)],
        ];
    } else {
        let Some([a, b, c, d, e, f, g, h]) = packet::load::<8>(skb, 12) else { return 0 };
        ends[0][1] |= u32::from_be_bytes([a, b, c, d]) as u64;
        ends[1][1] |= u32::from_be_bytes([e, f, g, h]) as u64;
    }
    emit::answered(&image, skb, state, &ends, place)
}

/// What stands before an IPv4 address among IPv6 ones.
const IPV4_MARK: u64 = 0xffff << 32;

/// Where messages begin in a packet from port 53, with what the bits below say; 0 for any other, and where answers do not matter. What
/// resolvers send has plain headers. A function of its own, for its frame.
#[inline(never)]
fn find(skb: *mut __sk_buff) -> u32 {
    let Some(image) = KernelImage::active() else { return 0 };
    let header = image.header();
    let steps = if header.learns != 0 { LEARNS } else { 0 }
        | if header.tells == TELLS_ALL { TELLS } else { 0 }
        | if header.limited & LIMITS_ANSWERS != 0 { WEIGHS } else { 0 };
    if steps == 0 {
        return 0;
    }
    let steps = steps | (image.slot * SLOT);
    let Some([version, ..]) = packet::load::<1>(skb, 0) else { return 0 };
    let (kind, at, bits) = if version == 0x45 {
        (packet::load::<1>(skb, 9), IPV4_BYTES as u32, steps)
    } else if version >> 4 == 6 {
        (packet::load::<1>(skb, 6), IPV6_BYTES as u32, steps | OVER_IPV6)
    } else {
        return 0;
    };
    let (Some([kind]), Some(ports)) = (kind, packet::load::<2>(skb, at)) else { return 0 };
    if u16::from_be_bytes(ports) != PORT_DNS {
        return 0;
    }
    match kind {
        protocol::UDP => (at + 8) | bits,
        protocol::TCP => match packet::load::<1>(skb, at + 12) {
            Some([words]) => (at + (words >> 4) as u32 * 4) | bits | OVER_TCP,
            None => 0,
        },
        _ => 0,
    }
}

/// Bits of a place that are where messages begin.
pub const OFFSET: u32 = 0xffff;
/// Each message follows its length.
pub const OVER_TCP: u32 = 1 << 16;
/// The headers are those of IPv6.
pub const OVER_IPV6: u32 = 1 << 17;
/// The slot of the image that counted.
const SLOT: u32 = 1 << 18;
/// Rules lead to names.
const LEARNS: u32 = 1 << 19;
/// Answers are told of.
const TELLS: u32 = 1 << 20;
/// Answers are limited.
const WEIGHS: u32 = 1 << 21;

/// Where a packet comes from, zeroed first: the verifier wants every byte of an address written, also those that one of its
/// family has not.
struct From {
    address: Address,
}

// SAFETY: addresses whose first variant is all zero; whole words (asserted), aligned to 8.
unsafe impl Zero for From {}
const _: () = assert!(size_of::<From>().is_multiple_of(8));

/// The rule by which answers from where the packet comes from may be had (port 53), or count that this socket sends ([`PORT_STUB`]);
/// 0 for none. A function of its own, for its frame.
#[inline(never)]
fn answers(skb: *mut __sk_buff, image: &KernelImage, state: &mut SocketState, place: u32, port: u32) -> u32 {
    let who = socket::who(state, image);
    let mut from = MaybeUninit::<From>::uninit();
    let from = zero(&mut from);
    if place & OVER_IPV6 != 0 {
        let Some(bytes) = packet::load::<16>(skb, 8) else { return 0 };
        from.address = Address::V6(packet::half(&bytes, 0), packet::half(&bytes, 8));
    } else {
        let Some(bytes) = packet::load::<4>(skb, 12) else { return 0 };
        from.address = Address::V4(u32::from_be_bytes(bytes));
    }
    let over = if place & OVER_TCP != 0 { protocol::TCP } else { protocol::UDP };
    let protocol = if port == PORT_DNS as u32 { over } else { protocol::SERVE };
    let flow = Flow { address: from.address, protocol, port: port as u16 };
    let verdict = decide(image, &flow, &who, core::ptr::null());
    if verdict.action == Action::Allow { verdict.rule } else { 0 }
}

/// Inode number of the network namespace the packet's socket is in.
#[inline(always)]
fn network_namespace(skb: *mut __sk_buff) -> u32 {
    let (buffer, offsets) = (as_number(skb), offsets());
    let net = pointer(pointer(buffer, field!(offsets.buffer_sock)), field!(offsets.sock_net));
    pointer(net, field!(offsets.net_inode)) as u32
}

/// `BPF_F_CURRENT_NETNS`
const HERE: u64 = -1i64 as u64;

/// The socket that a packet over loopback reaches; null for none. It has to be given back. A function of its own, for its frame.
#[inline(never)]
fn receiver(skb: *mut __sk_buff, place: u32) -> *mut bpf_sock {
    // `bpf_sock_tuple`: addresses and ports as on the wire, of which the packet has them in the same order.
    let mut tuple = [0; 36];
    let bytes = if place & OVER_IPV6 != 0 {
        let Some(ends) = packet::load::<36>(skb, 8) else { return core::ptr::null_mut() };
        tuple = ends;
        36
    } else {
        let Some(ends) = packet::load::<12>(skb, 12) else { return core::ptr::null_mut() };
        tuple[..12].copy_from_slice(&ends);
        12
    };
    // SAFETY: the context is valid, and the tuple as long as it says.
    unsafe {
        if place & OVER_TCP != 0 {
            bpf_sk_lookup_tcp(skb.cast(), tuple.as_mut_ptr().cast(), bytes, HERE, 0)
        } else {
            bpf_sk_lookup_udp(skb.cast(), tuple.as_mut_ptr().cast(), bytes, HERE, 0)
        }
    }
}
