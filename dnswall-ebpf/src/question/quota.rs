//! How much may be asked: names of a shape that nobody needs, and too many questions of one workload.

use super::named::skip;
use super::place::{OFFSET, OVER_TCP, Place};
use super::{Finding, MORE_SHIFT};
use crate::image::KernelImage;
use crate::maps::{DISTINCT_EMPTY, DISTINCTS, OPEN_QUESTIONS, PACES};
use crate::packet::{self, unknown};
use crate::socket;
use crate::wire;
use aya_ebpf::bindings::{__sk_buff, BPF_NOEXIST};
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use dnswall_common::name::LABELS_MAX;
use dnswall_common::quota::{
    DISTINCT_BITS, DISTINCT_WORDS, Distinct, DistinctKey, LIMITS_ANSWERS, MINUTE_NS, PLACES_MAX, Pace,
    QuestionLimits, SECOND_NS, TYPES_MAX, is_generic,
};
use dnswall_common::reason::{Action, Reason, Verdict, pack};
use dnswall_common::verifier::{forget, next, not_zero};

/// Refuses the question if it is one too many, or its name has no shape. A function of its own, for its frame.
#[inline(never)]
pub(super) fn limit(skb: *mut __sk_buff, place: u32, finding: &mut Finding) -> u32 {
    let Some(image) = Place(place).image() else { return 0 };
    let header = image.header();
    let Some((limits, cgroup)) = limits(skb, &image) else { return 0 };
    let begins = (place & OFFSET) + if place & OVER_TCP != 0 { 2 } else { 0 } + 12;
    let ends = finding.end();
    let mut reason = forget(misshapen(skb, limits, begins, ends) as u64, unknown(skb));
    if reason == 0 {
        reason = forget(too_often(skb, limits, cgroup, ends) as u64, unknown(skb));
    }
    // The message behind it asks for the same name, perhaps for another type.
    let behind = (finding.behind >> MORE_SHIFT) as u32;
    if reason == 0 && behind != 0 {
        let ends = behind + ends.wrapping_sub(place & OFFSET);
        reason = forget(too_often(skb, limits, cgroup, ends) as u64, unknown(skb));
    }
    if reason == 0 && limits.names != 0 {
        reason = forget(too_many(skb, limits, cgroup, begins, ends) as u64, unknown(skb));
    }
    if reason != 0 {
        // SAFETY: the functions give the number of a reason. Not through a table of them: the verifier would walk each.
        let reason = unsafe { core::mem::transmute::<u8, Reason>(reason as u8) };
        finding.verdict = pack(Verdict { action: Action::Deny, reason, padding: 0, rule: limits.rule });
        finding.told = 0;
    } else if header.limited & LIMITS_ANSWERS != 0 {
        await_answer(skb, 1 + (behind != 0) as u64);
    }
    0
}

/// Takes note that this socket waits for answers: others are not weighed. A function of its own, for its frame.
#[inline(never)]
fn await_answer(skb: *mut __sk_buff, questions: u64) -> u32 {
    let sk = socket::of(skb);
    if sk.is_null() {
        return 0;
    }
    // SAFETY: checked for null; what has storage already is a full socket.
    if let Some(open) = unsafe { OPEN_QUESTIONS.find_or_create(sk) } {
        *open += questions;
    }
    0
}

/// The limits of who sends this, and under what is counted; `None` when there are none.
#[inline(always)]
fn limits(skb: *mut __sk_buff, image: &KernelImage) -> Option<(&'static QuestionLimits, u64)> {
    let state = socket::state(socket::of(skb))?;
    let cgroup = state.cgroup;
    let who = socket::who(state, image);
    image.question_limits(&who).map(|limits| (limits, cgroup))
}

/// The reason's number when the name has a shape that a limit refuses; else 0. A function of its own, for its frame.
#[inline(never)]
fn misshapen(skb: *mut __sk_buff, limits: &QuestionLimits, begins: u32, ends: u32) -> u32 {
    // Without the first length and the root: the dots are where the other lengths are.
    let bytes = ends.wrapping_sub(begins).wrapping_sub(2);
    if limits.name_bytes != 0 && bytes > limits.name_bytes as u32 && bytes < 256 {
        return Reason::NameLength as u32;
    }
    if limits.label_bytes == 0 && limits.labels == 0 {
        return 0;
    }
    let walked = walk(skb, begins);
    if limits.labels != 0 && walked & 0xff > limits.labels as u32 {
        return Reason::LabelCount as u32;
    }
    if limits.label_bytes != 0 && walked >> 8 > limits.label_bytes as u32 {
        return Reason::LabelLength as u32;
    }
    0
}

/// How many labels the name has that begins there and, above that, how long the longest is. A function of its own, for its frame.
#[inline(never)]
fn walk(skb: *mut __sk_buff, at: u32) -> u32 {
    let mut here = forget(at as u64, unknown(skb));
    let mut longest = forget(0, unknown(skb));
    let mut labels = forget(0, unknown(skb));
    let mut label = 0;
    // VERIFIER: a round for each label, from a state of which nothing is known.
    while label < LABELS_MAX {
        let Some([length]) = packet::load::<1>(skb, here as u32) else { break };
        if length == 0 {
            break;
        }
        if length as u64 > longest {
            longest = length as u64;
        }
        longest = forget(longest, unknown(skb));
        here = forget(here + length as u64 + 1, unknown(skb));
        labels = forget(labels + 1, unknown(skb));
        label = next(label);
    }
    (labels & 0xff | (longest & 0xff) << 8) as u32
}

/// The reason's number when the workload asks too often, or was told too much; else 0. Counts the question. A function of its own, for
/// its frame.
#[inline(never)]
fn too_often(skb: *mut __sk_buff, limits: &QuestionLimits, cgroup: u64, ends: u32) -> u32 {
    let Some(pace) = pace(cgroup) else { return 0 };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: a live entry of the map. Other processors write there, too: a count may be off by what they do at the same moment.
    unsafe {
        if now.wrapping_sub((*pace).second_ns) >= SECOND_NS {
            (*pace).second_ns = now;
            (*pace).questions = 0;
        }
        (*pace).questions += 1;
        if limits.questions != 0 && (*pace).questions > limits.questions as u64 {
            return Reason::QuestionRate as u32;
        }
        if now.wrapping_sub((*pace).minute_ns) >= MINUTE_NS {
            return 0;
        }
        if limits.nxdomains != 0 && (*pace).nxdomains >= limits.nxdomains as u64 {
            return Reason::NxdomainRate as u32;
        }
        let Some([high, low]) = packet::load::<2>(skb, ends) else { return 0 };
        let place = limits.place_of((high as u16) << 8 | low as u16, unknown(skb));
        let most = limits.answers[place as usize & (TYPES_MAX - 1)].bytes as u64;
        if place < TYPES_MAX as u64 && (*pace).bytes[place as usize & (PLACES_MAX - 1)] >= most {
            return Reason::AnswerBytes as u32;
        }
    }
    0
}

/// What is counted of a workload. `None` when there is no room.
#[inline(always)]
fn pace(cgroup: u64) -> Option<*mut Pace> {
    if let Some(pace) = PACES.get_ptr_mut(cgroup) {
        return Some(pace);
    }
    let begun = Pace { second_ns: 0, minute_ns: 0, questions: 0, nxdomains: 0, bytes: [0; PLACES_MAX] };
    let _ = PACES.insert(cgroup, begun, BPF_NOEXIST.into());
    PACES.get_ptr_mut(cgroup)
}

/// The reason's number when the workload has asked for too many different names below the domain of this one, and not for this one; else
/// 0. A function of its own, for its frame.
#[inline(never)]
fn too_many(skb: *mut __sk_buff, limits: &QuestionLimits, cgroup: u64, begins: u32, ends: u32) -> u32 {
    let Some(image) = KernelImage::active() else { return 0 };
    let seed = image.header().seed;
    let domain_at = domain(skb, begins);
    if domain_at == begins {
        return 0;
    }
    let key = DistinctKey { cgroup, domain: wire::hash(skb, domain_at, ends, seed) };
    let name = wire::hash(skb, begins, ends, seed);
    if DISTINCTS.get_ptr_mut(key).is_none() {
        let Some(empty) = DISTINCT_EMPTY.get(0) else { return 0 };
        let _ = DISTINCTS.insert(key, empty, BPF_NOEXIST.into());
    }
    let Some(distinct) = DISTINCTS.get_ptr_mut(key) else { return 0 };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: a live entry of the map. Other processors write there, too: a bit may be lost, which is one name less.
    unsafe {
        if now.wrapping_sub((*distinct).minute_ns) >= MINUTE_NS {
            (*distinct).minute_ns = now;
            (*distinct).count = 0;
            let mut at = 0;
            // VERIFIER: DISTINCT_WORDS rounds with a known index each.
            while at < DISTINCT_WORDS {
                core::ptr::addr_of_mut!((*distinct).bits[at]).write_volatile(0);
                at = next(at);
            }
        }
        let (mut known, mut at) = (1, 0);
        // VERIFIER: DISTINCT_BITS rounds, without a branch.
        while at < DISTINCT_BITS {
            let (word, bit) = Distinct::place(name, at);
            known &= not_zero((*distinct).bits[word] & bit);
            at += 1;
        }
        if known != 0 {
            return 0;
        }
        if (*distinct).count >= limits.names as u64 {
            return Reason::NamesPerDomain as u32;
        }
        at = 0;
        // VERIFIER: the same.
        while at < DISTINCT_BITS {
            let (word, bit) = Distinct::place(name, at);
            (*distinct).bits[word] |= bit;
            at += 1;
        }
        (*distinct).count += 1;
    }
    0
}

/// Where the domain begins that somebody has registered, or may have: the last two labels of the name, or three where the second says
/// nothing below a country's two letters (`co.uk`). Of a shorter name its beginning. A function of its own, for its frame.
#[inline(never)]
fn domain(skb: *mut __sk_buff, begins: u32) -> u32 {
    let labels = forget((walk(skb, begins) & 0xff) as u64, unknown(skb));
    if labels <= 2 {
        return begins;
    }
    let second = forget(skip(skb, begins, labels - 2) as u64, unknown(skb)) as u32;
    let Some(word) = packet::load::<4>(skb, second) else { return begins };
    let country = second.wrapping_add(word[0] as u32 + 1);
    let is_country = matches!(packet::load::<1>(skb, country), Some([2]));
    let three = forget((is_country && is_generic(word)) as u64, unknown(skb));
    if three == 0 {
        return second;
    }
    skip(skb, begins, labels - 3)
}
