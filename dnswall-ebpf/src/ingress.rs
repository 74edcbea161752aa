//! Packets on their way in: who may ask a DNS server here, and which datagrams may be answered.

use crate::emit::{self, Judged};
use crate::image::{KernelImage, decide};
use crate::packet::{self, Packet, half, linear};
use crate::replies::remember_peer;
use crate::socket::{self, Owner, zero};
use crate::source::LOOPBACK;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_sk_fullsock;
use core::mem::MaybeUninit;
use dnswall_common::event::hook;
use dnswall_common::flow::{Address, Flow, PORT_DNS, protocol};
use dnswall_common::image::MODE_AUDIT;
use dnswall_common::packet::{TCP_ACK, TCP_SYN};
use dnswall_common::reason::{Action, Reason, Verdict};
use dnswall_common::who::Who;

const PASS: i32 = 1;
const DROP: i32 = 0;

/// Judges one packet. One whose headers are not read to the end may still be read by the stack (an IPv6 fragment that is
/// whole, routing headers that are done with): it passes unless it reached a socket on port 53, and then it is a question.
#[inline(always)]
pub fn judge(skb: *mut __sk_buff) -> i32 {
    // SAFETY: the context is valid.
    if unsafe { (*skb).ifindex } == LOOPBACK {
        return PASS;
    }
    if is_awaited(skb) {
        return PASS;
    }
    let mut packet = MaybeUninit::<Packet>::uninit();
    let packet = zero(&mut packet);
    let readable = packet::read(skb, packet).is_ok();
    packet::forget_way(skb, packet);
    if !readable {
        return if is_on_port_53(skb) { judge_question(skb, packet) } else { PASS };
    }
    match packet.network.protocol {
        protocol::TCP => {
            if begins_question(packet.transport.tcp_flags, packet.transport.destination_port) {
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

/// The short way: a plain packet that asks no DNS server here and opens nothing. Of TCP that is all that does not begin
/// a connection to port 53, of UDP the answer to what this socket was allowed to send. A function of its own: its frame
/// must not lie under that of a refusal.
#[inline(never)]
fn is_awaited(skb: *mut __sk_buff) -> bool {
    if let Some(header) = linear::<40>(skb)
        && header[0] == 0x45
        && header[9] == protocol::TCP
    {
        return (header[6] & 0x3f) | header[7] == 0
            && !begins_question(header[33], u16::from_be_bytes([header[22], header[23]]));
    }
    if let Some(header) = linear::<28>(skb)
        && header[0] == 0x45
        && header[9] == protocol::UDP
    {
        let address = Address::V4(u32::from_be_bytes([header[12], header[13], header[14], header[15]]));
        let ports = [header[20], header[21], header[22], header[23]];
        return (header[6] & 0x3f) | header[7] == 0 && is_answer(skb, address, ports);
    }
    if let Some(header) = linear::<60>(skb)
        && header[0] >> 4 == 6
        && header[6] == protocol::TCP
    {
        return !begins_question(header[53], u16::from_be_bytes([header[42], header[43]]));
    }
    if let Some(header) = linear::<48>(skb)
        && header[0] >> 4 == 6
        && header[6] == protocol::UDP
    {
        let ports = [header[40], header[41], header[42], header[43]];
        return is_answer(skb, Address::V6(half(header, 8), half(header, 16)), ports);
    }
    false
}

/// Whether a TCP packet begins a connection to port 53.
#[inline(always)]
fn begins_question(tcp_flags: u8, port: u16) -> bool {
    tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN && port == PORT_DNS
}

/// Whether a UDP packet from there answers what its socket was allowed to send; `ports` are source and destination.
#[inline(always)]
fn is_answer(skb: *mut __sk_buff, address: Address, ports: [u8; 4]) -> bool {
    if u16::from_be_bytes([ports[2], ports[3]]) == PORT_DNS {
        return false;
    }
    let back = Flow { address, protocol: protocol::UDP, port: u16::from_be_bytes([ports[0], ports[1]]) };
    match (KernelImage::active(), socket::state(socket::of(skb))) {
        (Some(image), Some(state)) => socket::was_allowed(state, &image, &back),
        _ => false,
    }
}

/// Whether the socket a packet reached is bound to port 53.
#[inline(always)]
fn is_on_port_53(skb: *mut __sk_buff) -> bool {
    let sk = socket::of(skb);
    if sk.is_null() {
        return false;
    }
    // SAFETY: checked for null; the helper answers null for anything but a full socket.
    let full = unsafe { bpf_sk_fullsock(sk) };
    // SAFETY: as above. The field is in the host's byte order.
    !full.is_null() && unsafe { (*full).src_port } == u32::from(PORT_DNS)
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
    let mut verdict = decide(&image, &asker, &Who::EVERYONE, core::ptr::null());
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
    let is_udp = packet.network.protocol != protocol::TCP;
    let judged = Judged {
        verdict: *verdict,
        entry: 0,
        payload_offset: if is_udp { packet.payload_offset() } else { 0 },
        hook: hook::INGRESS,
        mode,
    };
    emit::packet_refused(image, skb, packet, owner, &judged);
    if mode == MODE_AUDIT { PASS } else { DROP }
}
