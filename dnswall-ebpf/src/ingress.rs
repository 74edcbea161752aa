//! Packets on their way in: who may ask a DNS server here, and which datagrams may be answered.

use crate::egress::LOOPBACK;
use crate::emit::{self, Refusal};
use crate::image::{KernelImage, decide};
use crate::maps::{REPLIES, count};
use crate::packet::{self, Packet};
use crate::socket::{self, Owner, zero};
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use core::mem::MaybeUninit;
use dnswall_common::counter::Counter;
use dnswall_common::event::hook;
use dnswall_common::flow::{Flow, PORT_DNS, protocol};
use dnswall_common::image::MODE_AUDIT;
use dnswall_common::packet::{TCP_ACK, TCP_SYN};
use dnswall_common::reason::{Action, Reason, Verdict};
use dnswall_common::socket::{ReplyKey, peer_tag};
use dnswall_common::who::Who;

const PASS: i32 = 1;
const DROP: i32 = 0;

/// Judges one packet. One that cannot be read asks nobody anything and passes: the stack will not read it either.
#[inline(always)]
pub fn judge(skb: *mut __sk_buff) -> i32 {
    // SAFETY: the context is valid.
    if unsafe { (*skb).ifindex } == LOOPBACK {
        return PASS;
    }
    let mut packet = MaybeUninit::<Packet>::uninit();
    let packet = zero(&mut packet);
    if packet::read(skb, packet).is_err() {
        return PASS;
    }
    match packet.network.protocol {
        protocol::TCP => {
            let opening = packet.transport.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN;
            if opening && packet.transport.destination_port == PORT_DNS {
                judge_question(skb, packet)
            } else {
                PASS
            }
        }
        protocol::UDP | protocol::UDP_LITE => {
            if packet.transport.destination_port != PORT_DNS {
                remember_peer(skb, packet);
                return PASS;
            }
            // A response to a resolver that asks from port 53. There is nothing to answer: whoever sends one must not
            // open the way to itself.
            if is_response(skb, packet) { PASS } else { judge_question(skb, packet) }
        }
        _ => PASS,
    }
}

/// Whether the message says it is a response (the QR bit): a resolver that asks from port 53 is answered there.
#[inline(always)]
fn is_response(skb: *mut __sk_buff, packet: &Packet) -> bool {
    match packet::load::<1>(skb, packet.payload_offset() + 2) {
        Some([flags]) => flags & 0x80 != 0,
        None => false,
    }
}

/// Whether whoever sent this may ask a DNS server here.
#[inline(always)]
fn judge_question(skb: *mut __sk_buff, packet: &Packet) -> i32 {
    let Some(image) = KernelImage::active() else {
        return PASS;
    };
    let asker = Flow { address: packet.network.source, protocol: protocol::SERVE, port: PORT_DNS };
    let mut verdict = decide(&image, &asker, &Who::EVERYONE);
    if verdict.action == Action::Allow {
        emit::allowed(&image, &verdict);
        remember_peer(skb, packet);
        return PASS;
    }
    if verdict.reason != Reason::ImageUnreadable {
        verdict = Verdict::without_rule(Action::Deny, Reason::NotServed);
    }
    let result = refuse(skb, &image, &verdict, packet);
    if result == PASS {
        remember_peer(skb, packet);
    }
    result
}

/// Tells of the refusal; drops the packet unless this workload is only audited. A function of its own, for its frame.
#[inline(never)]
fn refuse(skb: *mut __sk_buff, image: &KernelImage, verdict: &Verdict, packet: &Packet) -> i32 {
    let mut owner = MaybeUninit::<Owner>::uninit();
    let owner = zero(&mut owner);
    match socket::state(socket::of(skb)) {
        Some(state) => socket::recorded_owner(state, image, owner),
        None => socket::old_owner(skb, image, owner),
    }
    let (mode, _) = image.header().treatment(&owner.who);
    // SAFETY: the context is valid.
    let packet_bytes = unsafe { (*skb).len };
    let is_udp = packet.network.protocol != protocol::TCP;
    let refusal = Refusal {
        hook: hook::INGRESS,
        mode,
        family: packet.family,
        protocol: packet.network.protocol,
        source: packet.network.source.to_words(),
        destination: packet.network.destination.to_words(),
        source_port: packet.transport.source_port,
        destination_port: packet.transport.destination_port,
        packet_bytes,
        skb,
        payload_offset: if is_udp { packet.payload_offset() } else { 0 },
    };
    emit::refused(image, owner, verdict, &refusal);
    if mode == MODE_AUDIT { PASS } else { DROP }
}

/// Remembers who sent a datagram, unless this socket asked for it.
#[inline(never)]
fn remember_peer(skb: *mut __sk_buff, packet: &Packet) {
    if packet.network.protocol == protocol::TCP {
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
    let peer = peer_tag(image.header().seed, back.address, back.port);
    // An answer to what this socket sent, under this policy or the one before, opens nothing.
    if let Some(state) = socket::state(socket::of(skb))
        && (socket::was_allowed(state, &image, &back) || socket::was_allowed_before(state, &image, &back))
    {
        return;
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let key = ReplyKey { cookie: socket::cookie(skb), peer };
    // Written in place where it can be: an insert into an LRU costs five times as much.
    if let Some(seen_ns) = REPLIES.get_ptr_mut(key) {
        // SAFETY: a live entry; one aligned store.
        unsafe { seen_ns.write_volatile(now) };
    } else if REPLIES.insert(key, now, 0).is_err() {
        count(Counter::RepliesFailed);
    }
}
