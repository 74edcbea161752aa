//! Weighs answers where that is limited: names that do not exist, and bytes by type.
//!
//! Only what answers a question of this very socket, and comes from whom it may ask: nobody else is to spend what a workload has.

use super::{OFFSET, OVER_TCP, answers, image};
use crate::maps::{OPEN_QUESTIONS, PACES};
use crate::packet::{self, unknown};
use crate::socket;
use crate::wire;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use dnswall_common::flow::PORT_DNS;
use dnswall_common::quota::{MINUTE_NS, PLACES_MAX, Pace, QuestionLimits};
use dnswall_common::verifier::{forget, next};

/// Messages of a segment that are weighed: as many as questions of one may leave.
const MESSAGES_MAX: usize = 2;
/// The code of an answer that there is no such name (RFC 1035, 4.1.1).
const NXDOMAIN: u8 = 3;

/// Weighs what is answered in a packet from port 53. A function of its own, for its frame.
#[inline(never)]
pub fn weigh(skb: *mut __sk_buff, place: u32) -> u32 {
    let is_awaited = forget(is_awaited(skb, place) as u64, unknown(skb));
    let Some(image) = image(place) else { return 0 };
    let sk = socket::of(skb);
    if is_awaited == 0 || sk.is_null() {
        return 0;
    }
    let Some(state) = socket::state(sk) else { return 0 };
    // SAFETY: the socket has storage, so it is a full one.
    let Some(open) = (unsafe { OPEN_QUESTIONS.find(sk) }) else { return 0 };
    let cgroup = state.cgroup;
    let who = socket::who(state, &image);
    // VERIFIER: 7.2 takes what only functions read that are called by others for dead (seen: "slot poisoned by dead code elimination").
    // SAFETY: a value of the frame, of integers and references.
    let image = unsafe { core::ptr::addr_of!(image).read_volatile() };
    let Some(limits) = image.question_limits(&who) else { return 0 };
    let Some(pace) = PACES.get_ptr_mut(cgroup) else { return 0 };
    // SAFETY: the context is valid.
    let total = unsafe { (*skb).len };
    let mut at = place & OFFSET;
    let mut message = 0;
    // VERIFIER: two rounds.
    while message < MESSAGES_MAX {
        let mut bytes = total.wrapping_sub(at);
        if place & OVER_TCP != 0 {
            let Some([high, low]) = packet::load::<2>(skb, at) else { break };
            bytes = (high as u32) << 8 | low as u32;
            at += 2;
        }
        if *open == 0 || add(skb, pace, limits, at, bytes) == 0 {
            break;
        }
        *open -= 1;
        at = forget((at + bytes) as u64, unknown(skb)) as u32;
        message = next(message);
    }
    0
}

/// Whether this socket waits for the packet, and it comes from a resolver that it may ask. A function of its own, for its frame.
#[inline(never)]
fn is_awaited(skb: *mut __sk_buff, place: u32) -> bool {
    let Some(image) = image(place) else { return false };
    let sk = socket::of(skb);
    let Some(state) = socket::state(sk) else { return false };
    // SAFETY: the socket has storage, so it is a full one.
    let Some(open) = (unsafe { OPEN_QUESTIONS.find(sk) }) else { return false };
    *open != 0 && answers(skb, &image, state, place, PORT_DNS as u32) != 0
}

/// Adds an answer to what its workload has been told; 0 when it is none. A function of its own, for its frame.
#[inline(never)]
fn add(skb: *mut __sk_buff, pace: *mut Pace, limits: &QuestionLimits, at: u32, bytes: u32) -> u32 {
    let Some([_, _, flags, code]) = packet::load::<4>(skb, at) else { return 0 };
    // The beginning of an answer; not a later part of one.
    if flags & 0xf8 != 0x80 {
        return 0;
    }
    let kind_at = forget(wire::end_of_name(skb, at + 12) as u64, unknown(skb)) as u32;
    let Some([high, low]) = packet::load::<2>(skb, kind_at) else { return 0 };
    let limited = limits.place_of((high as u16) << 8 | low as u16, unknown(skb));
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: a live entry of the map. Other processors write there, too: a count may be off by what they do at the same moment.
    unsafe {
        if now.wrapping_sub((*pace).minute_ns) >= MINUTE_NS {
            (*pace).minute_ns = now;
            (*pace).nxdomains = 0;
            (*pace).bytes = [0; PLACES_MAX];
        }
        if code & 0xf == NXDOMAIN {
            (*pace).nxdomains += 1;
        }
        (*pace).bytes[limited as usize & (PLACES_MAX - 1)] += bytes as u64;
    }
    1
}
