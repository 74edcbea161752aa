//! Counts a refusal and tells the agent, at most once a second per flow; tells it of questions and answers.

use crate::answer::{OFFSET, OVER_IPV6, OVER_TCP};
use crate::image::KernelImage;
use crate::maps::{CROWD, EVENTS, QUESTIONS, REASONS, REFUSED, RULES, count};
use crate::packet::Packet;
use crate::socket::{self, Owner};
use crate::wire;
use aya_ebpf::bindings::{__sk_buff, BPF_NOEXIST, BPF_RB_AVAIL_DATA};
use aya_ebpf::helpers::generated::{
    bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_ringbuf_query, bpf_skb_load_bytes,
};
use core::ffi::c_void;
use dnswall_common::counter::Counter;
use dnswall_common::event::{
    Event, IDENTITY_OLD_SOCKET, IDENTITY_SOCKET, Refused, RefusedKey, TELLS_NONE, hook, is_sampled,
};
use dnswall_common::flow::{PORT_DNS, protocol};
use dnswall_common::image::MODE_ENFORCE;
use dnswall_common::limits::{EVENT_INTERVAL_NS, EVENT_PAYLOAD_BYTES, EVENT_RETRY_NS, RING_BYTES, RULES_MAX};
use dnswall_common::reason::{Reason, Verdict};
use dnswall_common::socket::SocketState;
use dnswall_common::verifier::opaque;

/// What is refused, apart from whose it is.
pub struct Refusal {
    /// Under what it is counted; made by [`key`].
    pub key: RefusedKey,
    pub hook: u8,
    pub mode: u8,
    pub family: u8,
    pub source_port: u16,
    pub packet_bytes: u32,
    pub source: [u64; 2],
    /// The packet, and where in it a DNS message begins; null for an attempt or another protocol.
    pub skb: *mut __sk_buff,
    pub payload_offset: u32,
}

/// Under what a refusal is counted. `port` is the destination's, `entry` a listed name's hash ([`Event::entry`]).
#[inline(always)]
pub fn key(
    owner: &Owner,
    reason: Reason,
    destination: [u64; 2],
    protocol: u8,
    port: u16,
    entry: u64,
) -> RefusedKey {
    RefusedKey {
        cgroup: owner.cgroup,
        destination,
        entry,
        pid: owner.pid,
        destination_port: port,
        protocol,
        reason: reason as u8,
    }
}

/// What became of a packet that was read.
pub struct Judged {
    pub verdict: Verdict,
    /// See [`Event::entry`].
    pub entry: u64,
    /// Where a DNS message begins; 0 for another protocol.
    pub payload_offset: u32,
    pub hook: u8,
    pub mode: u8,
}

/// [`refused`] for a packet. A function of its own, for its frame.
#[inline(never)]
pub fn packet_refused(
    image: &KernelImage,
    skb: *mut __sk_buff,
    packet: &Packet,
    owner: &Owner,
    judged: &Judged,
) {
    let refusal = of_packet(skb, packet, owner, judged);
    tell(image, owner, socket::recorded(skb), &judged.verdict, &refusal);
}

/// What is refused of a packet.
#[inline(always)]
fn of_packet(skb: *mut __sk_buff, packet: &Packet, owner: &Owner, judged: &Judged) -> Refusal {
    let (network, transport) = (&packet.network, &packet.transport);
    // SAFETY: the context is valid.
    let packet_bytes = unsafe { (*skb).len };
    Refusal {
        key: key(
            owner,
            judged.verdict.reason,
            network.destination.to_words(),
            network.protocol,
            transport.destination_port,
            judged.entry,
        ),
        hook: judged.hook,
        mode: judged.mode,
        family: packet.family,
        source: network.source.to_words(),
        source_port: transport.source_port,
        packet_bytes,
        skb,
        payload_offset: judged.payload_offset,
    }
}

/// Counts the refusal by rule and reason, and sends an event unless the same flow had one within the last second. `recorded`
/// is null for a socket older than the wall; not a borrow, because other CPUs write there too.
#[inline(never)]
pub fn refused(
    image: &KernelImage,
    owner: &Owner,
    recorded: *const SocketState,
    verdict: &Verdict,
    refusal: &Refusal,
) {
    tell(image, owner, recorded, verdict, refusal);
}

#[inline(always)]
fn tell(
    image: &KernelImage,
    owner: &Owner,
    recorded: *const SocketState,
    verdict: &Verdict,
    refusal: &Refusal,
) {
    count_verdict(image, verdict, refusal.mode == MODE_ENFORCE);
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    #[expect(clippy::needless_borrows_for_generic_args, reason = "a copy would take its place on the stack")]
    let refusals = match REFUSED.get_ptr_mut(&refusal.key) {
        Some(flow) => tick(flow, &refusal.key, now),
        None => begin(&refusal.key, now),
    };
    match refusals {
        SUPPRESSED => count(Counter::EventsSuppressed),
        LOST => count(Counter::EventsLost),
        refusals => send(image, owner, recorded, verdict, refusal, refusals),
    }
}

/// Instead of how many refusals an event tells: none, because its flow had one a moment ago.
const SUPPRESSED: u64 = 0;
/// The same, because the ring has no place.
const LOST: u64 = u64::MAX;

/// Whether there is room for an event of this workload's: in the second half of the ring for one a second, so that a flood of one
/// workload's does not bury what another one does.
#[expect(clippy::needless_borrows_for_generic_args, reason = "a copy would take its place on the stack")]
#[inline(always)]
fn has_place(cgroup: u64, now: u64) -> bool {
    let ring = core::ptr::addr_of!(EVENTS).cast_mut().cast::<c_void>();
    // SAFETY: that map is a ring (`bpf_ringbuf_query`, from 5.8).
    let waiting = unsafe { bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA.into()) };
    if waiting < RING_BYTES as u64 / 2 {
        return true;
    }
    if waiting > (RING_BYTES - RECORD_BYTES) as u64 {
        return false;
    }
    let Some(last) = CROWD.get_ptr_mut(&cgroup) else {
        // Without room to remember it there is place all the same.
        let _ = CROWD.insert(&cgroup, now, 0);
        return true;
    };
    // SAFETY: a live entry of the map; a lost race costs one event more.
    unsafe {
        if now.wrapping_sub(last.read_volatile()) < EVENT_INTERVAL_NS {
            return false;
        }
        last.write_volatile(now);
    }
    true
}

/// Bytes of an event in the ring, the kernel's header included.
const RECORD_BYTES: usize = size_of::<Event>() + 8;

/// Counts one more refusal of a flow; how many there were, if it is time for an event.
#[inline(always)]
fn tick(flow: *mut Refused, key: &RefusedKey, now: u64) -> u64 {
    // SAFETY: a live entry of the map, only added to atomically; a lost race for the time costs one event more.
    unsafe {
        let refusals = core::ptr::addr_of_mut!((*flow).refusals);
        add(refusals, 1);
        if now.wrapping_sub((*flow).last_event_ns) < EVENT_INTERVAL_NS {
            return SUPPRESSED;
        }
        let has_place = has_place(key.cgroup, now);
        (*flow).last_event_ns = told(has_place, now);
        if has_place { refusals.read_volatile() } else { LOST }
    }
}

/// Counts the first refusal of a flow.
#[inline(always)]
fn begin(key: &RefusedKey, now: u64) -> u64 {
    let has_place = has_place(key.cgroup, now);
    let flow = Refused { last_event_ns: told(has_place, now), refusals: 1 };
    // Not overwriting: another processor may have begun to count in between, and then this one adds to that.
    if REFUSED.insert(key, flow, BPF_NOEXIST.into()).is_err()
        && let Some(flow) = REFUSED.get_ptr_mut(key)
    {
        return tick(flow, key, now);
    }
    // Also when there is no room even to count by flow: told once each, or counted as lost.
    if has_place { 1 } else { LOST }
}

/// When the flow had its event: what found no place is tried again soon, and not at each refusal.
#[inline(always)]
fn told(has_place: bool, now: u64) -> u64 {
    if has_place { now } else { now.wrapping_sub(EVENT_INTERVAL_NS - EVENT_RETRY_NS) }
}

/// Counts an allowed flow by rule.
#[inline(always)]
pub fn allowed(image: &KernelImage, verdict: &Verdict) {
    if let Some(counter) = RULES.get_ptr_mut(rule_index(image, verdict)) {
        // SAFETY: this CPU's slot.
        unsafe { (*counter).allowed += 1 }
    }
}

#[inline(always)]
fn count_verdict(image: &KernelImage, verdict: &Verdict, enforced: bool) {
    if let Some(counter) = RULES.get_ptr_mut(rule_index(image, verdict)) {
        // SAFETY: this CPU's slot, updated atomically: a softirq may refuse in between.
        unsafe {
            let field = if enforced {
                core::ptr::addr_of_mut!((*counter).denied)
            } else {
                core::ptr::addr_of_mut!((*counter).would_deny)
            };
            add(field, 1);
        }
    }
    if let Some(counter) = REASONS.get_ptr_mut(verdict.reason as u32) {
        // SAFETY: as above.
        unsafe {
            let field = if enforced {
                core::ptr::addr_of_mut!((*counter).denied)
            } else {
                core::ptr::addr_of_mut!((*counter).would_deny)
            };
            add(field, 1);
        }
    }
}

#[inline(always)]
fn rule_index(image: &KernelImage, verdict: &Verdict) -> u32 {
    image.slot * RULES_MAX as u32 + verdict.rule
}

/// Puts the event into the ring, or counts it as lost.
#[inline(always)]
fn send(
    image: &KernelImage,
    owner: &Owner,
    recorded: *const SocketState,
    verdict: &Verdict,
    refusal: &Refusal,
    refusals: u64,
) {
    let Some(mut entry) = EVENTS.reserve(0) else {
        count(Counter::EventsLost);
        return;
    };
    let event: *mut Event = entry.as_mut_ptr();
    // SAFETY: the reservation holds one event.
    unsafe {
        write(event, image, owner, recorded, verdict, refusal);
        (*event).refusals = refusals;
    }
    count(Counter::EventsSent);
    entry.submit(0);
}

/// Tells of a question, whatever became of it, if the policy wants to know. A function of its own, for its frame.
#[inline(never)]
pub fn question_judged(
    image: &KernelImage,
    skb: *mut __sk_buff,
    packet: &Packet,
    owner: &Owner,
    judged: &Judged,
) -> u32 {
    let (header, offset) = (image.header(), judged.payload_offset);
    if offset == 0 || header.tells == TELLS_NONE {
        return 0;
    }
    let Some(mut entry) = QUESTIONS.reserve(0) else {
        count(Counter::QuestionsLost);
        return 0;
    };
    let event: *mut Event = entry.as_mut_ptr();
    // SAFETY: the reservation holds one event.
    unsafe {
        let refusal = of_packet(skb, packet, owner, judged);
        write(event, image, owner, socket::recorded(skb), &judged.verdict, &refusal);
        (*event).cookie = bpf_get_socket_cookie(skb.cast());
        (*event).hook = hook::QUESTION;
    }
    count(Counter::QuestionsTold);
    entry.submit(0);
    0
}

/// Whether the message there is among those that are told of. A function of its own, for the callers' frames.
#[inline(never)]
pub fn is_told_of(image: &KernelImage, skb: *mut __sk_buff, offset: u32, is_over_tcp: bool) -> bool {
    let (seed, of) = (image.header().seed, image.header().told_of);
    if of == 1 {
        return true;
    }
    let name = offset + if is_over_tcp { 14 } else { 12 };
    let hash = wire::hash(skb, name, wire::end_of_name(skb, name), seed);
    // SAFETY: the context is valid.
    let cookie = unsafe { bpf_get_socket_cookie(skb.cast()) };
    is_sampled(hash, cookie, of)
}

/// Tells of what seems to be an answer, sent to this socket; `ends` are the packet's source and destination. A function of its own, for its
/// frame.
#[inline(never)]
pub fn answered(
    image: &KernelImage,
    skb: *mut __sk_buff,
    state: &SocketState,
    ends: &[[u64; 2]; 2],
    place: u32,
) -> u32 {
    let Some(mut entry) = QUESTIONS.reserve(0) else {
        count(Counter::QuestionsLost);
        return 0;
    };
    let event: *mut Event = entry.as_mut_ptr();
    // SAFETY: the reservation holds one event, the context is valid.
    unsafe {
        (*event).generation = image.generation;
        (*event).rule = 0;
        (*event).entry = 0;
        (*event).source = ends[0];
        (*event).destination = ends[1];
        (*event).packet_bytes = (*skb).len;
        (*event).source_port = PORT_DNS;
        (*event).destination_port = 0;
        (*event).protocol = if place & OVER_TCP != 0 { protocol::TCP } else { protocol::UDP };
        (*event).family = if place & OVER_IPV6 != 0 { 6 } else { 4 };
        (*event).hook = hook::ANSWER;
        (*event).reason = Reason::Asked as u8;
        (*event).mode = MODE_ENFORCE;
        write_owner(event, state.cgroup, state.uid, state.pid, state);
        write_payload(event, skb, place & OFFSET);
        (*event).cookie = bpf_get_socket_cookie(skb.cast());
    }
    count(Counter::QuestionsTold);
    entry.submit(0);
    0
}

/// Writes every field of an event that is about a refusal, or a question. Field by field, because an event does not fit the stack.
///
/// # Safety
/// `event` can be written.
#[inline(always)]
unsafe fn write(
    event: *mut Event,
    image: &KernelImage,
    owner: &Owner,
    recorded: *const SocketState,
    verdict: &Verdict,
    refusal: &Refusal,
) {
    // SAFETY: the caller's.
    unsafe {
        (*event).entry = refusal.key.entry;
        (*event).source = refusal.source;
        (*event).destination = refusal.key.destination;
        (*event).generation = image.generation;
        (*event).rule = verdict.rule;
        (*event).packet_bytes = refusal.packet_bytes;
        (*event).source_port = refusal.source_port;
        (*event).destination_port = refusal.key.destination_port;
        (*event).protocol = refusal.key.protocol;
        (*event).family = refusal.family;
        (*event).hook = refusal.hook;
        (*event).reason = verdict.reason as u8;
        (*event).mode = refusal.mode;
        write_owner(event, owner.cgroup, owner.uid, owner.pid, recorded);
        write_payload(event, refusal.skb, refusal.payload_offset);
    }
}

/// Writes whose it is, and when.
///
/// # Safety
/// `event` can be written; `recorded` is null, or a socket's storage, which lives as long as the socket the hook holds.
#[inline(always)]
unsafe fn write_owner(event: *mut Event, cgroup: u64, uid: u32, pid: u32, recorded: *const SocketState) {
    // SAFETY: the caller's.
    unsafe {
        // The one clock the agent can compare with its own.
        (*event).time_ns = bpf_ktime_get_ns();
        (*event).refusals = 0;
        (*event).cgroup = cgroup;
        (*event).uid = uid;
        (*event).pid = pid;
        match recorded.as_ref() {
            Some(state) => {
                (*event).cookie = state.cookie;
                (*event).netns = state.netns;
                (*event).start_ns = state.start_ns;
                (*event).exe_number = state.exe_number;
                (*event).exe_device = state.exe_device;
                (*event).comm = state.comm;
                (*event).parent = state.parent();
                (*event).identity = IDENTITY_SOCKET;
            }
            None => {
                (*event).cookie = 0;
                (*event).netns = 0;
                (*event).start_ns = 0;
                (*event).exe_number = 0;
                (*event).exe_device = 0;
                (*event).comm = [0; 16];
                (*event).parent = 0;
                (*event).identity = IDENTITY_OLD_SOCKET;
            }
        }
    }
}

/// Copies the DNS message there, as much as there is and fits; none for a null packet or offset 0.
///
/// # Safety
/// `event` can be written; `skb` is null or the context.
#[inline(always)]
unsafe fn write_payload(event: *mut Event, skb: *mut __sk_buff, offset: u32) {
    // SAFETY: the caller's.
    unsafe {
        (*event).payload_bytes = 0;
        if skb.is_null() || offset == 0 {
            return;
        }
        let total = (*skb).len as u64;
        let left = total.wrapping_sub(offset as u64);
        if left != 0 && left <= total {
            // VERIFIER: 0 to EVENT_PAYLOAD_BYTES - 1, then one more: never a copy of nothing.
            let mut length = opaque(left - 1);
            if length > EVENT_PAYLOAD_BYTES as u64 - 1 {
                length = EVENT_PAYLOAD_BYTES as u64 - 1;
            }
            let length = length + 1;
            let to = core::ptr::addr_of_mut!((*event).payload).cast();
            if bpf_skb_load_bytes(skb.cast(), offset, to, length as u32) == 0 {
                (*event).payload_bytes = length as u16;
            }
        }
    }
}

/// Adds atomically (the result is not used, which 5.10 lacks).
#[inline(always)]
unsafe fn add(value: *mut u64, amount: u64) {
    // SAFETY: the caller's pointer; one atomic add in memory.
    unsafe {
        core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) value, in(reg) amount, options(nostack));
    }
}
