//! Which UDP peers may be answered: those that sent to this socket, or to its port, unasked, for a while.

use crate::connect::socket_of;
use crate::image::KernelImage;
use crate::maps::{REPLIES, count};
use crate::packet::Packet;
use crate::socket;
use aya_ebpf::bindings::{__sk_buff, BPF_NOEXIST};
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_ns};
use aya_ebpf::programs::SockAddrContext;
use dnswall_common::counter::Counter;
use dnswall_common::flow::{Flow, PORT_DNS, protocol};
use dnswall_common::limits::REPLY_WINDOW_NS;
use dnswall_common::socket::{REPLY_ASKED, ReplyKey, SOCKET_BOUND, SocketState, peer_tag, port_tag};

/// `PACKET_LOOPBACK`, which `dev_loopback_xmit` gives the copy (unchanged from 5.10 to 7.2).
const PACKET_LOOPBACK: u32 = 5;

/// Whether the datagram answers one that came to this socket unasked.
///
/// Port 53 is left out: whoever can make a packet arrive from there could open the way to a resolver. A server here
/// answers a client that asks *from* port 53 only from its own port 53, which takes a privilege to bind.
#[inline(always)]
pub fn is_reply(skb: *mut __sk_buff, image: &KernelImage, packet: &Packet, flow: &Flow) -> bool {
    if !is_datagram(flow.protocol) || (flow.port == PORT_DNS && packet.transport.source_port != PORT_DNS) {
        return false;
    }
    // SAFETY: read at once.
    match unsafe { REPLIES.get(key(skb, image, flow)) } {
        Some(&seen) => seen & REPLY_ASKED == 0 && is_recent(seen, now()),
        None => false,
    }
}

/// Whether a datagram ever came from there unasked, as far as anybody remembers. A function of its own, for its frame.
#[inline(never)]
pub fn was_heard(ctx: &SockAddrContext, image: &KernelImage, state: &SocketState, flow: &Flow) -> bool {
    let seed = image.header().seed;
    let receiver = if state.flags & SOCKET_BOUND != 0 {
        // SAFETY: the context's socket is never null; the field is in the host's byte order.
        port_tag(seed, state.netns, unsafe { (*socket_of(ctx)).src_port } as u16)
    } else {
        // SAFETY: the context is valid.
        unsafe { bpf_get_socket_cookie(ctx.sock_addr.cast()) }
    };
    let key = ReplyKey { receiver, peer: peer_tag(seed, flow.address, flow.port) };
    // SAFETY: read at once.
    unsafe { REPLIES.get(key) }.is_some_and(|&seen| seen & REPLY_ASKED == 0)
}

#[inline(always)]
fn is_recent(seen: u64, now: u64) -> bool {
    now.wrapping_sub(seen) < REPLY_WINDOW_NS
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// Remembers who sent a datagram, unless this socket asked for it. A function of its own, for its frame.
#[inline(never)]
pub fn remember_peer(skb: *mut __sk_buff, packet: &Packet) {
    if !is_datagram(packet.network.protocol) || is_own_copy(skb) {
        return;
    }
    let Some(image) = KernelImage::active() else {
        return;
    };
    let back = Flow {
        address: packet.network.source,
        protocol: packet.network.protocol,
        port: packet.transport.source_port,
    };
    let state = socket::state(socket::of(skb));
    let asked = match &state {
        Some(state) if socket::was_allowed(state, &image, &back) => return,
        // What the policy before let out is perhaps answered now. A server's clients come all the same.
        Some(state)
            if state.flags & SOCKET_BOUND == 0 && socket::was_allowed_before(state, &image, &back) =>
        {
            REPLY_ASKED
        }
        _ => 0,
    };
    let now = now() & !REPLY_ASKED;
    let key = key(skb, &image, &back);
    // Written in place where it can be: an insert into an LRU costs five times as much.
    if let Some(entry) = REPLIES.get_ptr_mut(key) {
        // SAFETY: a live entry; one aligned load and store.
        unsafe {
            let seen = entry.read_volatile();
            if seen & REPLY_ASKED != 0 && is_recent(seen, now) {
                return;
            }
            entry.write_volatile(now);
        }
    } else if REPLIES.insert(key, now | asked, 0).is_err() {
        count(Counter::RepliesFailed);
    }
    if let Some(state) = state {
        state.never_heard = 0;
    }
}

/// Whether the packet is what this host's own sockets hear of what was sent to a group, or to all: nobody outside asked.
#[inline(always)]
pub fn is_own_copy(skb: *mut __sk_buff) -> bool {
    // SAFETY: the context is valid. Volatile, so that the field is read where it is.
    unsafe { core::ptr::addr_of!((*skb).pkt_type).read_volatile() == PACKET_LOOPBACK }
}

/// Remembers that this socket wrote to a peer that the policy refuses, but does not block: its answer must not make
/// what follows a reply.
#[inline(always)]
pub fn remember_asked(skb: *mut __sk_buff, image: &KernelImage, flow: &Flow) {
    if !is_datagram(flow.protocol) {
        return;
    }
    let asked = now() | REPLY_ASKED;
    let key = key(skb, image, flow);
    if let Some(entry) = REPLIES.get_ptr_mut(key) {
        // SAFETY: a live entry; one aligned store. It is a mark already, or too old to be a question.
        unsafe { entry.write_volatile(asked) };
    } else if REPLIES.insert(key, asked, BPF_NOEXIST.into()).is_err() {
        count(Counter::RepliesFailed);
    }
}

#[inline(always)]
fn key(skb: *mut __sk_buff, image: &KernelImage, flow: &Flow) -> ReplyKey {
    let seed = image.header().seed;
    ReplyKey { receiver: receiver(skb, seed), peer: peer_tag(seed, flow.address, flow.port) }
}

/// What peers are remembered by. The socket's own port, not the packet's, which address translation may have changed. A
/// function of its own: inlined, the compiler keeps the address of a context's field, which the verifier forbids.
#[inline(never)]
fn receiver(skb: *mut __sk_buff, seed: u64) -> u64 {
    let sk = socket::of(skb);
    match socket::state(sk) {
        Some(state) if state.flags & SOCKET_BOUND != 0 && !sk.is_null() => {
            // SAFETY: checked for null; the field is in the host's byte order.
            port_tag(seed, state.netns, unsafe { (*sk).src_port } as u16)
        }
        _ => socket::cookie(skb),
    }
}

#[inline(always)]
fn is_datagram(next_header: u8) -> bool {
    matches!(next_header, protocol::UDP | protocol::UDP_LITE)
}
