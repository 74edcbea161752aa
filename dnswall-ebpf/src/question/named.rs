//! Names that rules lead to, or refuse: what is asked for them is remembered, so that the answer may teach.

use super::place::{BY_HAND, OFFSET, OVER_TCP, Place};
use super::{Finding, MORE_SHIFT, deny};
use crate::image::{KernelImage, ask_cell};
use crate::maps::{ASKED, NAME_FILTER, NAMES};
use crate::packet::{self, unknown};
use crate::socket;
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_tcp_sock;
use dnswall_common::name::{LABELS_MAX, LabelWords, lower_case};
use dnswall_common::named::{
    FILTER_WORDS, NAME_WORDS, NameHash, NameSet, Pattern, PatternKey, STREAM_KNOWN, STREAM_UNKNOWN,
    filter_place, question_tag,
};
use dnswall_common::reason::{Action, Reason, Verdict, pack, unpack};
use dnswall_common::verifier::{forget, next, opaque};
use dnswall_common::who::Who;

/// Whether there is such a pattern.
#[inline(always)]
pub fn may_be(image: &KernelImage, pattern: u64) -> bool {
    let (word, bit) = filter_place(pattern);
    let first = image.slot * FILTER_WORDS as u32;
    if NAME_FILTER.get(first + word as u32).is_none_or(|word| word >> bit & 1 == 0) {
        return false;
    }
    let key = PatternKey { pattern, slot: image.slot, padding: 0 };
    // SAFETY: only whether it is there is asked.
    unsafe { NAMES.get(key) }.is_some()
}

/// Takes note of where answers begin in the stream of a connection of which none has come yet: each begins where the one before it
/// ends. A function of its own, for its frame.
#[inline(never)]
pub fn begin_stream(skb: *mut __sk_buff) -> u32 {
    let sk = socket::of(skb);
    if sk.is_null() {
        return 0;
    }
    // SAFETY: checked for null; the helper answers null for anything but a TCP connection.
    let connection = unsafe { bpf_tcp_sock(sk) };
    // SAFETY: checked for null above.
    let Some(asked) = (unsafe { ASKED.find_or_create(sk) }) else { return 0 };
    if connection.is_null() || asked.stream != 0 {
        return 0;
    }
    // SAFETY: checked for null.
    let (received, next) = unsafe { ((*connection).bytes_received, (*connection).rcv_nxt) };
    // With fast open the server's number is not known yet.
    let is_known = received == 0 && next != 0;
    asked.stream = if is_known { STREAM_KNOWN | next as u64 } else { STREAM_UNKNOWN };
    0
}

/// Refuses the question if a rule refuses the name, else remembers it. A function of its own, for its frame.
#[inline(never)]
pub fn ask(skb: *mut __sk_buff, place: u32, finding: &mut Finding, number: u64) -> u32 {
    let Some(image) = Place(place).image() else { return 0 };
    let over_tcp = place & OVER_TCP != 0;
    let message = (place & OFFSET) + if over_tcp { 2 } else { 0 };
    let key = PatternKey { pattern: number, slot: image.slot, padding: 0 };
    // SAFETY: another image may be written over it meanwhile: then it is refused, or not remembered.
    let Some(pattern) = (unsafe { NAMES.get(key) }) else { return 0 };
    let begins = skip(skb, message + 12, finding.pattern_label());
    if !is_name(skb, begins, finding.end(), pattern) {
        // Two names of one hash: that is nobody's accident.
        finding.verdict = deny(Reason::DeniedName);
        finding.told = 0;
        return 0;
    }
    let verdict = forget(refusal(skb, &image, pattern), unknown(skb));
    if verdict != 0 {
        finding.verdict = verdict;
        finding.told = 0;
        return 0;
    }
    if place & BY_HAND == 0 {
        note(skb, message, finding, number);
    }
    0
}

/// What a rule says to the question for a name of this pattern, as the bytes of a [`Verdict`]; 0 when none refuses it. A function of its
/// own, for its frame.
#[inline(never)]
fn refusal(skb: *mut __sk_buff, image: &KernelImage, pattern: &Pattern) -> u64 {
    let cell = image.header().question_cell;
    if cell == 0 {
        return 0;
    }
    // Of a socket that is older than the wall only what holds for everyone is asked.
    let mut who = socket::state(socket::of(skb)).map_or(Who::EVERYONE, |state| socket::who(state, image));
    // Nobody that is known: every [[deny]] holds, or hiding would lead past it to a resolver on loopback.
    if !who.intersects(&Who::ALL) {
        who = Who::ALL;
    }
    let known = &mut NameSet::none(unknown(skb));
    known.add(&pattern.lists, unknown(skb));
    let verdict = forget(ask_cell(image, cell, &who, known), unknown(skb));
    // SAFETY: the function packed it.
    let Verdict { action, reason, rule, .. } = unsafe { unpack(verdict) };
    if action != Action::Deny || reason != Reason::Rule {
        return 0;
    }
    pack(Verdict { action, reason: Reason::DeniedName, padding: 0, rule })
}

/// Remembers what this socket asks. A function of its own, for its frame.
#[inline(never)]
fn note(skb: *mut __sk_buff, message: u32, finding: &Finding, pattern: u64) -> u32 {
    let sk = socket::of(skb);
    if sk.is_null() {
        return 0;
    }
    // SAFETY: checked for null; what has storage already is a full socket.
    let Some(asked) = (unsafe { ASKED.find_or_create(sk) }) else { return 0 };
    let Some(image) = KernelImage::active() else { return 0 };
    let name = whole(skb, message + 12, image.header().seed);
    let behind = (finding.behind >> MORE_SHIFT) as u32;
    let mut at = message;
    let mut further = 0;
    // VERIFIER: two rounds: the message, and one for the same name behind it.
    while further < 2 {
        let Some([high, low]) = packet::load::<2>(skb, at) else { return 0 };
        let id = (high as u16) << 8 | low as u16;
        asked.put(id, question_tag(name, id), pattern, unknown(skb));
        if behind == 0 {
            return 0;
        }
        at = forget(behind as u64 + 2, unknown(skb)) as u32;
        further = next(further);
    }
    0
}

/// The hash of the whole name that begins there. A function of its own, for its frame.
#[inline(never)]
fn whole(skb: *mut __sk_buff, at: u32, key: u64) -> u64 {
    let mut hash = NameHash::new(key);
    let mut here = forget(at as u64, unknown(skb));
    let mut words: LabelWords = [unknown(skb); 8];
    let mut label = 0;
    // VERIFIER: a round for each label, from a state of which nothing is known.
    while label < LABELS_MAX {
        let Some([length]) = packet::load::<1>(skb, here as u32) else { break };
        if length == 0 || !packet::load_zeroed(skb, here as u32, length as u32 + 1, &mut words) {
            break;
        }
        hash.add(&words);
        hash.forget(|word| forget(word, unknown(skb)));
        here = forget(here + length as u64 + 1, unknown(skb));
        label = next(label);
    }
    hash.finish()
}

/// Where the label with this number begins, of the name that begins there.
#[inline(always)]
pub fn skip(skb: *mut __sk_buff, at: u32, labels: u64) -> u32 {
    let mut here = forget(at as u64, unknown(skb));
    let mut label = 0;
    // VERIFIER: a round for each label, from a state of which nothing is known.
    while label < LABELS_MAX {
        if label as u64 >= forget(labels, unknown(skb)) {
            break;
        }
        let Some([length]) = packet::load::<1>(skb, here as u32) else { break };
        here = forget(here + length as u64 + 1, unknown(skb));
        label = next(label);
    }
    here as u32
}

/// Words of a name that are compared at once.
const PART_WORDS: usize = 8;

/// Whether what stands there is the pattern's name, in any case. A function of its own, for its frame.
#[inline(never)]
fn is_name(skb: *mut __sk_buff, begins: u32, end: u32, pattern: &Pattern) -> bool {
    let bytes = end.wrapping_sub(begins) as u64;
    if bytes != pattern.bytes || bytes > 255 {
        return false;
    }
    let mut words: LabelWords = [unknown(skb); 8];
    let mut different = forget(0, unknown(skb));
    let mut at = 0;
    // VERIFIER: four rounds with a known index each.
    while at < NAME_WORDS / PART_WORDS {
        let from = (at * PART_WORDS * 8) as u64;
        let left = forget(bytes, unknown(skb)).wrapping_sub(from);
        if forget(bytes, unknown(skb)) <= from {
            break;
        }
        let part = if left < 64 { left } else { 64 };
        if !packet::load_zeroed(skb, begins + from as u32, part as u32, &mut words) {
            return false;
        }
        let mut word = 0;
        while word < PART_WORDS {
            different |= opaque(lower_case(words[word]) ^ pattern.name[at * PART_WORDS + word]);
            word += 1;
        }
        different = forget(different, unknown(skb));
        at = next(at);
    }
    different == 0
}
