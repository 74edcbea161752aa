//! The verdict of record: every packet a socket sends, whatever made it.

use crate::emit::{self, Judged};
use crate::image::{KernelImage, decide};
use crate::packet::{self, Packet, half, linear, unknown};
use crate::question::{self, Place, Plain};
use crate::replies;
use crate::socket::{self, Owner, zero};
use crate::source::{self, LOOPBACK};
use crate::tunnel;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_sk_fullsock;
use core::mem::MaybeUninit;
use dnswall_common::event::hook;
use dnswall_common::flow::{Address, Flow, PORT_DNS, is_encapsulation, is_tunnel, protocol};
use dnswall_common::image::{EXISTING_CUT, MODE_AUDIT};
use dnswall_common::packet::{TCP_ACK, TCP_RST, TCP_SYN, is_essential};
use dnswall_common::reason::{Action, Reason, Verdict, is_deny, pack, unpack};
use dnswall_common::socket::{SOCKET_INBOUND, SOCKET_RAW, SocketState};
use dnswall_common::verifier::{forget, opaque};

/// Lets the packet pass.
const PASS: i32 = 1;
/// Drops the packet; `send()` gets EPERM where the kernel passes it on.
const DROP: i32 = 0;
/// `TCP_SYN_RECV`: accepted by fast open, before the handshake's end.
const STATE_SYN_RECV: u32 = 3;
/// `TCP_LISTEN`
const STATE_LISTEN: u32 = 10;
/// `SOCK_STREAM`
const TYPE_STREAM: u32 = 1;

/// Judges one packet.
#[inline(always)]
pub fn judge(skb: *mut __sk_buff) -> i32 {
    let place = judge_flow(skb);
    if place <= PASS {
        return (opaque(place as u64) & 1) as i32;
    }
    question::judge(skb, forget(place as u64, unknown(skb)) as u32)
}

/// [`DROP`], [`PASS`], or of a packet that may pass as far as its headers go, where its question is ([`Place::number`]).
#[inline(never)]
fn judge_flow(skb: *mut __sk_buff) -> i32 {
    let Some(image) = KernelImage::active() else {
        // Nothing is published yet: the wall is being raised, and has nothing to say.
        return PASS;
    };
    if (is_on_loopback(skb) && source::is_plain(skb)) || is_known(skb, &image) {
        match question::plain(skb, image.slot) {
            Plain::Other => return PASS,
            Plain::Message(place) => return place.number(),
            Plain::Unread => {}
        }
    }
    let honest = forget(source::is_honest(skb, &image), unknown(skb));
    judge_slowly(skb, socket::state(socket::of(skb)), &image, honest)
}

#[inline(always)]
fn is_on_loopback(skb: *mut __sk_buff) -> bool {
    // SAFETY: the context is valid.
    unsafe { (*skb).ifindex == LOOPBACK }
}

/// The short way: a plain packet to where this socket was allowed to send under this very policy, or of a connection that
/// it accepted, from a source that was looked at. A function of its own: its frame must not lie under that of a refusal.
#[inline(never)]
fn is_known(skb: *mut __sk_buff, image: &KernelImage) -> bool {
    let Some(state) = socket::state(socket::of(skb)) else {
        return false;
    };
    if state.flags & SOCKET_RAW != 0 || is_on_loopback(skb) {
        return false;
    }
    if let Some(header) = linear::<40>(skb)
        && header[0] == 0x45
    {
        if (header[6] & 0x3f) | header[7] != 0 {
            return false;
        }
        let [source, address] = ends4(header);
        let port = [header[22], header[23]];
        return is_known_to(state, image, source, address, header[9], port, header[33]);
    }
    if let Some(header) = linear::<28>(skb)
        && header[0] == 0x45
        && header[9] == protocol::UDP
    {
        if (header[6] & 0x3f) | header[7] != 0 {
            return false;
        }
        let [source, address] = ends4(header);
        return is_known_to(state, image, source, address, protocol::UDP, [header[22], header[23]], 0);
    }
    if let Some(header) = linear::<60>(skb)
        && header[0] >> 4 == 6
    {
        let source = Address::V6(half(header, 8), half(header, 16));
        let address = Address::V6(half(header, 24), half(header, 32));
        // This host hears it as well: a tunnel may have come since.
        if address.is_group() {
            return false;
        }
        let port = [header[42], header[43]];
        return is_known_to(state, image, source, address, header[6], port, header[53]);
    }
    false
}

/// Source and destination of an IPv4 header.
#[inline(always)]
fn ends4<const N: usize>(header: &[u8; N]) -> [Address; 2] {
    let at = |at: usize| {
        Address::V4(u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]))
    };
    [at(12), at(16)]
}

#[inline(always)]
fn is_known_to(
    state: &SocketState,
    image: &KernelImage,
    source: Address,
    address: Address,
    next_header: u8,
    port: [u8; 2],
    tcp_flags: u8,
) -> bool {
    let flow = Flow { address, protocol: next_header, port: u16::from_be_bytes(port) };
    match next_header {
        // It answers in whatever name it was called by, also one that called from port 53.
        protocol::TCP if state.flags & SOCKET_INBOUND != 0 && tcp_flags & TCP_SYN == 0 => {
            flow.port != PORT_DNS && socket::was_allowed(state, image, &socket::accepted(&flow))
        }
        protocol::TCP | protocol::UDP => {
            socket::was_allowed(state, image, &flow) && socket::is_known_source(state, image, source)
        }
        _ => false,
    }
}

/// The long way: read everything, decide, tell.
#[inline(always)]
fn judge_slowly(
    skb: *mut __sk_buff,
    mut state: Option<&mut SocketState>,
    image: &KernelImage,
    honest: u64,
) -> i32 {
    let (mut packet, mut owner) = (MaybeUninit::<Packet>::uninit(), MaybeUninit::<Owner>::uninit());
    let (packet, owner) = (zero(&mut packet), zero(&mut owner));
    let readable = packet::read(skb, packet);
    packet::forget_way(skb, packet);
    match &mut state {
        Some(state) => socket::recorded_owner(state, image, owner),
        None => socket::old_owner(skb, image, owner),
    }
    let verdict = match readable {
        Err(reason) => Verdict::without_rule(Action::Deny, reason),
        Ok(()) => {
            // Known in as many ways as there are to it, and each would be walked on from: see `forget_way`.
            let mut first = forget(verdict(skb, state, image, packet, owner), unknown(skb));
            if honest == 0 && has_to_be_true(first) && !may_forge(image, owner) {
                first = pack(Verdict::without_rule(Action::Deny, Reason::ForgedSource));
            }
            let last = reviewed(skb, image, packet, forget(first, unknown(skb)));
            // SAFETY: the functions packed it.
            unsafe { unpack(last) }
        }
    };
    if verdict.action == Action::Allow {
        if verdict.reason == Reason::Rule {
            emit::allowed(image, &verdict);
        }
        if asks(verdict.reason)
            && let Some(place) = Place::of(packet, image.slot, is_raw(skb))
        {
            return forget(place.number() as u64, unknown(skb)) as i32;
        }
        return PASS;
    }
    refuse(skb, image, packet, owner, &verdict)
}

/// Whether a raw socket that was recorded sends it.
#[inline(always)]
fn is_raw(skb: *mut __sk_buff) -> bool {
    socket::state(socket::of(skb)).is_some_and(|state| state.flags & SOCKET_RAW != 0)
}

/// Whether what passes for this reason to port 53 is a question, not an answer to somebody who asks from there.
#[inline(always)]
fn asks(reason: Reason) -> bool {
    !matches!(reason, Reason::Reply | Reason::Inbound | Reason::KernelOwn)
}

/// Tells of the refusal; drops the packet unless this workload is only audited. A function of its own, for its frame.
/// Of a packet that could not be read to the end, what was read is told.
#[inline(never)]
fn refuse(
    skb: *mut __sk_buff,
    image: &KernelImage,
    packet: &Packet,
    owner: &Owner,
    verdict: &Verdict,
) -> i32 {
    let (mode, _) = image.header().treatment(&owner.who);
    let is_dns = packet.transport.destination_port == PORT_DNS
        && matches!(packet.network.protocol, protocol::UDP | protocol::UDP_LITE);
    let judged = Judged {
        verdict: *verdict,
        entry: 0,
        payload_offset: if is_dns { packet.payload_offset() } else { 0 },
        hook: hook::EGRESS,
        mode,
    };
    emit::packet_refused(image, skb, packet, owner, &judged);
    emit::question_judged(image, skb, packet, owner, &judged);
    if mode != MODE_AUDIT {
        return DROP;
    }
    pass(skb, image, packet)
}

/// Lets pass what is only audited, and what answers it. A function of its own, for the caller's frame.
#[inline(never)]
fn pass(skb: *mut __sk_buff, image: &KernelImage, packet: &Packet) -> i32 {
    replies::remember_asked(skb, image, &packet.outbound());
    PASS
}

/// The verdict for a readable packet whatever it says of its source, as the bytes of a [`Verdict`]. A function of its own,
/// for its frame.
#[inline(never)]
fn verdict(
    skb: *mut __sk_buff,
    state: Option<&mut SocketState>,
    image: &KernelImage,
    packet: &Packet,
    owner: &Owner,
) -> u64 {
    // Known in as many ways as there are to it, and the rules would be walked from each.
    let known = forget(before_rules(skb, state, image, packet, owner), unknown(skb));
    if known != 0 {
        return known;
    }
    let decided = by_rules(skb, image, packet, owner);
    if is_deny(decided) && lives_on(skb, image, packet, owner, decided) {
        return pack(Verdict::without_rule(Action::Allow, Reason::Established));
    }
    decided
}

/// The verdict of the rules, as the bytes of a [`Verdict`]. A function of its own, for its frame.
#[inline(never)]
fn by_rules(skb: *mut __sk_buff, image: &KernelImage, packet: &Packet, owner: &Owner) -> u64 {
    let flow = packet.outbound();
    // A rule for a loopback address (a stub resolver) holds on the loopback device alone: a socket that is bound to another
    // device would have the packet leave there.
    if flow.address.is_loopback() {
        return pack(Verdict::without_rule(Action::Deny, Reason::NoRule));
    }
    pack(decide(image, &flow, &owner.who, socket::recorded(skb)))
}

/// Whether a flow goes on that the policy it last asked allowed: while only a name is lacking, whose time is over, it does. One that is
/// refused for something else where what exists is cut never does again. A function of its own, for its frame.
#[inline(never)]
fn lives_on(skb: *mut __sk_buff, image: &KernelImage, packet: &Packet, owner: &Owner, decided: u64) -> bool {
    let Some(state) = socket::state(socket::of(skb)) else { return false };
    // SAFETY: `by_rules` packed it.
    if unsafe { unpack(decided) }.reason == Reason::NameUnknown {
        let begins = packet.network.protocol == protocol::TCP && packet.transport.tcp_flags & TCP_SYN != 0;
        return !begins
            && state.flags & SOCKET_RAW == 0
            && socket::was_allowed_before(state, image, &packet.outbound());
    }
    if packet.network.protocol == protocol::TCP && image.header().treatment(&owner.who).1 == EXISTING_CUT {
        // For good: a later policy that keeps what exists does not bring it back.
        state.allowed_generation = 0;
    }
    false
}

/// The verdict for what the rules are not asked about, as the bytes of a [`Verdict`]; 0 for anything else. A function of its own, for
/// its frame.
#[inline(never)]
fn before_rules(
    skb: *mut __sk_buff,
    state: Option<&mut SocketState>,
    image: &KernelImage,
    packet: &Packet,
    owner: &Owner,
) -> u64 {
    let on_loopback = is_on_loopback(skb);
    let verdict = match state {
        _ if is_for_tunnel(skb, packet) && !may_forge(image, owner) => {
            Some(Verdict::without_rule(Action::Deny, Reason::Tunnel))
        }
        Some(state) if on_loopback => Some(verdict_loopback(skb, state, packet)),
        None if on_loopback => Some(Verdict::without_rule(Action::Allow, Reason::Loopback)),
        Some(state) => recorded_before(skb, state, image, packet, owner)
            .map(|reason| Verdict::without_rule(Action::Allow, reason)),
        None => old_before(skb, packet).map(|reason| Verdict::without_rule(Action::Allow, reason)),
    };
    verdict.map_or(0, pack)
}

/// Whether a packet with this verdict has to come from where it says. What answers does so in whatever name it was called
/// by, and what the kernel itself sends it sends in its own.
#[inline(always)]
fn has_to_be_true(verdict: u64) -> bool {
    // SAFETY: `verdict` packed it.
    let Verdict { action, reason, .. } = unsafe { unpack(verdict) };
    action == Action::Allow
        && matches!(reason, Reason::Rule | Reason::Established | Reason::Essential | Reason::Loopback)
}

/// What becomes of a verdict in the end: what passes is remembered, what does not may be an answer. A function of its own,
/// for its frame.
#[inline(never)]
fn reviewed(skb: *mut __sk_buff, image: &KernelImage, packet: &Packet, verdict: u64) -> u64 {
    if is_on_loopback(skb) {
        return verdict;
    }
    // SAFETY: `judge_slowly` packed it.
    let Verdict { action, reason, .. } = unsafe { unpack(verdict) };
    let flow = packet.outbound();
    match (action, socket::state(socket::of(skb))) {
        (Action::Allow, Some(state)) => match reason {
            // The listener says so of its answers as well, and has no connection.
            Reason::Inbound if state.flags & SOCKET_INBOUND != 0 => {
                socket::remember_allowed(state, image, &socket::accepted(&flow));
            }
            Reason::Rule | Reason::Established => socket::remember_allowed(state, image, &flow),
            _ => {}
        },
        (Action::Allow, None) => {}
        (Action::Deny, state) => {
            let may_answer =
                state.is_none_or(|state| state.flags & SOCKET_RAW == 0 && state.never_heard == 0);
            if may_answer && replies::is_reply(skb, image, packet, &flow) {
                return pack(Verdict::without_rule(Action::Allow, Reason::Reply));
            }
        }
    }
    verdict
}

/// Why a packet passes whatever the rules say, of a socket whose owner is recorded.
#[inline(always)]
fn recorded_before(
    skb: *mut __sk_buff,
    state: &mut SocketState,
    image: &KernelImage,
    packet: &Packet,
    owner: &Owner,
) -> Option<Reason> {
    let flow = packet.outbound();
    if is_essential(flow.protocol, packet.transport.source_port, flow.port, flow.address, true) {
        return Some(Reason::Essential);
    }
    if let Some(reason) = continues(skb, state, image, packet, &flow, owner) {
        return Some(reason);
    }
    // What `connect()` was allowed a moment ago, or was sent from another source: counted then.
    let was_allowed = state.flags & SOCKET_RAW == 0 && socket::was_allowed(state, image, &flow);
    was_allowed.then_some(Reason::Established)
}

/// For a packet on the loopback device that does not plainly come from this host: whoever it says it comes from is
/// answered, by the kernel's own errors, echoes and handshakes. A server here that was connected to may stand for any
/// address (AnyIP, a transparent proxy).
#[inline(always)]
fn verdict_loopback(skb: *mut __sk_buff, state: &mut SocketState, packet: &Packet) -> Verdict {
    let answers = packet.network.protocol == protocol::TCP
        && state.flags & SOCKET_RAW == 0
        && (packet.transport.tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN | TCP_ACK
            || socket::is_inbound(state, skb));
    let reason = if answers { Reason::Inbound } else { Reason::Loopback };
    Verdict::without_rule(Action::Allow, reason)
}

/// Whether this host would unwrap it and send on what is inside: on the loopback device, or of an IPv6 group, of which it
/// takes a copy behind this hook (IPv4's is gone by now, see `group.rs`). A tunnel's own packets to its group are no way in.
#[inline(always)]
fn is_for_tunnel(skb: *mut __sk_buff, packet: &Packet) -> bool {
    let is_v6 = packet.family != 4;
    let network = &packet.network;
    let on_loopback = is_on_loopback(skb);
    let is_heard =
        on_loopback || (is_v6 && network.destination.is_group() && !socket::is_kernels(socket::address(skb)));
    is_heard
        && match network.protocol {
            protocol::UDP => tunnel::takes(skb, is_v6, network.header_bytes),
            other => is_tunnel(other) || (on_loopback && is_encapsulation(other)),
        }
}

/// Whether the owner may send in another's name, or into a tunnel: what comes of that the wall does not see.
#[inline(always)]
fn may_forge(image: &KernelImage, owner: &Owner) -> bool {
    image.header().unjudged.intersects(&owner.who)
}

/// The same of a socket that was never recorded.
#[inline(always)]
fn old_before(skb: *mut __sk_buff, packet: &Packet) -> Option<Reason> {
    let flow = packet.outbound();
    let from_process = !socket::is_kernels(socket::address(skb));
    if is_essential(flow.protocol, packet.transport.source_port, flow.port, flow.address, from_process) {
        return Some(Reason::Essential);
    }
    continues_old(skb, packet, &flow)
}

/// Why the packet belongs to a connection that already exists, if it does.
#[inline(always)]
fn continues(
    skb: *mut __sk_buff,
    state: &mut SocketState,
    image: &KernelImage,
    packet: &Packet,
    flow: &Flow,
    owner: &Owner,
) -> Option<Reason> {
    if flow.protocol != protocol::TCP || state.flags & SOCKET_RAW != 0 {
        return None;
    }
    let flags = packet.transport.tcp_flags;
    let sk = socket::of(skb);
    // SAFETY: checked for null.
    let listening = !sk.is_null() && unsafe { (*sk).state } == STATE_LISTEN;
    if flags & TCP_SYN != 0 {
        // With fast open it is the accepted socket that answers.
        let answers = flags & TCP_ACK != 0 && (listening || socket::is_inbound(state, skb));
        return answers.then_some(Reason::Inbound);
    }
    if listening {
        return carries_nothing(skb, packet).then_some(Reason::KernelOwn);
    }
    if socket::is_inbound(state, skb) && !source::heard_on_loopback(skb) {
        return Some(Reason::Inbound);
    }
    let (_, existing) = image.header().treatment(&owner.who);
    if existing != EXISTING_CUT && socket::was_allowed_before(state, image, flow) {
        socket::remember_allowed(state, image, flow);
        return Some(Reason::Established);
    }
    None
}

/// The same for a socket that was never recorded: older than the wall, or the kernel's own.
#[inline(always)]
fn continues_old(skb: *mut __sk_buff, packet: &Packet, flow: &Flow) -> Option<Reason> {
    let sk = socket::of(skb);
    if flow.protocol != protocol::TCP || sk.is_null() {
        return None;
    }
    let flags = packet.transport.tcp_flags;
    // SAFETY: checked for null; the helper answers null for anything but a full socket.
    let full = unsafe { bpf_sk_fullsock(sk) };
    if full.is_null() {
        // A request socket answers a SYN; nothing else sends through one.
        return (flags & TCP_ACK != 0).then_some(Reason::Inbound);
    }
    // SAFETY: checked for null.
    let (kind, answering) =
        unsafe { ((*full).type_, matches!((*full).state, STATE_LISTEN | STATE_SYN_RECV)) };
    if flags & TCP_SYN != 0 {
        return (flags & TCP_ACK != 0 && answering).then_some(Reason::Inbound);
    }
    if kind == TYPE_STREAM && !source::heard_on_loopback(skb) {
        return Some(Reason::Preexisting);
    }
    (socket::is_kernels(socket::address(skb)) && carries_nothing(skb, packet)).then_some(Reason::KernelOwn)
}

/// Whether it is a reset or an acknowledgement and nothing else: what the kernel answers to a segment of no connection,
/// through its control socket or, over IPv4 from 6.13, in the name of the listener.
#[inline(always)]
fn carries_nothing(skb: *mut __sk_buff, packet: &Packet) -> bool {
    // SAFETY: the context is valid.
    let length = unsafe { (*skb).len };
    packet.transport.tcp_flags & (TCP_RST | TCP_ACK) != 0 && length <= packet.payload_offset()
}
