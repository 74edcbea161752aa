//! Reads a DNS message as far as its question goes.

use super::place::{BY_HAND, FROM_SERVER, OFFSET, OVER_TCP, Place, URGENT};
use super::{Finding, MORE_SHIFT, asks_denied_type, deny};
use crate::packet::{self, unknown};
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use dnswall_common::name::{self, LabelWords, NAME_BYTES_MAX, lower_case};
use dnswall_common::reason::{Action, Reason, Verdict, pack};
use dnswall_common::verifier::{forget, next, opaque};

/// What [`read`] gives: how many labels there are, and above that why there is no question.
pub mod reading {
    pub const LABELS: u64 = 0xff;
    pub const REASON_SHIFT: u32 = 24;
    /// There is nothing to judge.
    pub const NOTHING: u64 = 1 << 32;
}

/// Reads the message as far as the question goes, see [`reading`]. A function of its own, for its frame.
#[inline(never)]
pub fn read<const N: usize>(
    skb: *mut __sk_buff,
    place: u32,
    hashes: &mut [u64; N],
    finding: &mut Finding,
) -> u64 {
    let Some(image) = Place(place).image() else { return refused(Reason::ImageUnreadable) };
    let key = image.header().seed;
    // SAFETY: the context is valid.
    let (total, segment) = unsafe { ((*skb).len, (*skb).gso_size) };
    let mut offset = place & OFFSET;
    let over_tcp = place & OVER_TCP != 0;
    if over_tcp && place & (URGENT | BY_HAND) != 0 {
        return refused(Reason::SplitQuestion);
    }
    if over_tcp && offset >= total {
        // An acknowledgement, the beginning or the end of a connection.
        return reading::NOTHING;
    }
    if segment != 0 {
        return refused(Reason::SplitQuestion);
    }
    // Where the message ends; another one may follow over TCP.
    let mut stop = total;
    if over_tcp {
        let Some([high, low]) = packet::load::<2>(skb, offset) else {
            return refused(Reason::SplitQuestion);
        };
        offset += 2;
        stop = offset + ((high as u32) << 8 | low as u32);
        if stop > total {
            return refused(Reason::SplitQuestion);
        }
    }
    // RFC 1035, 4.1.1: id, flags, numbers of questions, answers, authorities.
    let Some(
        [_, _, flags, _, questions_high, questions, answers_high, answers, authorities_high, authorities],
    ) = packet::load::<10>(skb, offset)
    else {
        return refused(Reason::MalformedQuestion);
    };
    // Over TCP a server answers on a connection that it accepted, and that is not judged here.
    if flags & 0x80 != 0 && place & FROM_SERVER != 0 && !over_tcp {
        return reading::NOTHING;
    }
    // An answer, or another operation than a query.
    if flags & 0xf8 != 0 {
        return refused(Reason::NotAQuestion);
    }
    // One record may stand behind the question: what IXFR has already (RFC 1995).
    if questions_high | (questions ^ 1) | answers_high | answers | authorities_high | (authorities & !1) != 0
    {
        return refused(Reason::MalformedQuestion);
    }
    let begin = offset + 12;
    let result = name::read_labels(
        key,
        begin,
        hashes,
        || unknown(skb),
        |at, words| load_label(skb, at, stop, words),
        |at, length, words| packet::load_zeroed(skb, at, length as u32 + 1, words),
    );
    let (labels, end) = match result {
        Ok(name) => name,
        Err(reason) => return refused(reason),
    };
    if end.wrapping_sub(begin) > NAME_BYTES_MAX {
        return refused(Reason::MalformedQuestion);
    }
    // Type and class.
    if end > stop || stop.wrapping_sub(end) < 4 {
        return refused(Reason::MalformedQuestion);
    }
    let more = if stop < total { stop } else { 0 };
    finding.behind = forget((more as u64) << MORE_SHIFT | end as u64, unknown(skb));
    labels
}

/// Messages behind the first that are looked at.
const FURTHER_MAX: usize = 1;

/// Looks at the message behind the first over TCP: it has to be whole, the last, and ask for the same name. That is how libc asks
/// for IPv4 and IPv6 addresses in one go. A function of its own, for its frame.
#[inline(never)]
pub fn follow(skb: *mut __sk_buff, place: u32, finding: &mut Finding) -> u32 {
    let Some(image) = Place(place).image() else {
        finding.verdict = deny(Reason::ImageUnreadable);
        return 0;
    };
    let types_rule = image.header().types_rule;
    // SAFETY: the context is valid.
    let total = unsafe { (*skb).len };
    let first = (place & OFFSET) + 2;
    // Everything but the id, up to the name's end.
    let same = finding.end().wrapping_sub(first + 2);
    let mut at = (finding.behind >> MORE_SHIFT) as u32;
    let mut further = 0;
    // VERIFIER: FURTHER_MAX rounds.
    while further < FURTHER_MAX {
        let Some([high, low]) = packet::load::<2>(skb, at) else { break };
        let begin = at + 2;
        let stop = begin + ((high as u32) << 8 | low as u32);
        if stop > total || stop.wrapping_sub(begin) < same + 6 || !is_same(skb, first + 2, begin + 2, same) {
            break;
        }
        if types_rule != 0 && asks_denied_type(skb, &image, begin + 2 + same) {
            let (action, rule) = (Action::Deny, types_rule);
            finding.verdict = pack(Verdict { action, reason: Reason::QuestionType, padding: 0, rule });
            finding.told = 0;
            return 0;
        }
        if stop == total {
            return 0;
        }
        at = forget(stop as u64, unknown(skb)) as u32;
        further = next(further);
    }
    finding.verdict = deny(Reason::SplitQuestion);
    // It is not for the list that tells of the first.
    finding.told = 0;
    0
}

/// Bytes of the longest question and what stands before it, but for the id: five times what is compared at once.
const COMPARED_MAX: u32 = 320;

/// Whether two parts of the packet say the same, in any case.
#[inline(always)]
fn is_same(skb: *mut __sk_buff, one: u32, other: u32, bytes: u32) -> bool {
    if bytes > COMPARED_MAX {
        return false;
    }
    let mut different = 0;
    let (mut ours, mut theirs): (LabelWords, LabelWords) = ([unknown(skb); 8], [unknown(skb); 8]);
    let mut at = 0;
    // VERIFIER: five rounds.
    while at < COMPARED_MAX as usize {
        let left = opaque((bytes as u64).wrapping_sub(at as u64));
        if at as u32 >= bytes {
            break;
        }
        let mut length = opaque(left - 1) & 0xffff;
        if length > 63 {
            length = 63;
        }
        let length = (length + 1) as u32;
        clear(skb, &mut ours);
        clear(skb, &mut theirs);
        // SAFETY: the words hold 64 bytes; the helper checks the offsets against the packet.
        let failed = unsafe {
            bpf_skb_load_bytes(skb.cast(), one + at as u32, ours.as_mut_ptr().cast(), length)
                | bpf_skb_load_bytes(skb.cast(), other + at as u32, theirs.as_mut_ptr().cast(), length)
        };
        different |= failed as u64;
        let mut word = 0;
        while word < 8 {
            different |= opaque(lower_case(ours[word]) ^ lower_case(theirs[word]));
            word += 1;
        }
        different = forget(different, unknown(skb));
        at = next(at + 63);
    }
    different == 0
}

/// Zeroes, of which the verifier does not know that.
#[inline(always)]
fn clear(skb: *mut __sk_buff, words: &mut LabelWords) {
    let zero = forget(0, unknown(skb));
    let mut at = 0;
    while at < words.len() {
        // SAFETY: a word of the array. Volatile: the compiler would call `memset`.
        unsafe { core::ptr::addr_of_mut!(words[at]).write_volatile(zero) };
        at += 1;
    }
}

#[inline(always)]
const fn refused(reason: Reason) -> u64 {
    (reason as u64) << reading::REASON_SHIFT
}

/// Copies a label and what is behind it, as much as there is and fits.
#[inline(always)]
fn load_label(skb: *mut __sk_buff, at: u32, total: u32, words: &mut LabelWords) -> bool {
    let left = opaque(total.wrapping_sub(at) as u64);
    if at >= total {
        return false;
    }
    // VERIFIER: 0 to 63, then one more.
    let mut length = opaque(left - 1) & 0xffff;
    if length > 63 {
        length = 63;
    }
    let length = length + 1;
    // SAFETY: the words hold 64 bytes; the helper checks the offset against the packet.
    unsafe { bpf_skb_load_bytes(skb.cast(), at, words.as_mut_ptr().cast(), length as u32) == 0 }
}
