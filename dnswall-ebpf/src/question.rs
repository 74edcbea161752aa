//! The question of a DNS message that may leave otherwise: whether it may be asked, by its name, its type and its form.
//!
//! Functions of their own beside each other, never inside that of the packet's verdict: their frames would not fit.

mod message;
mod named;
mod place;
mod quota;

use crate::emit::{self, Judged};
use crate::identity::{as_number, field, offsets, pointer};
use crate::image::KernelImage;
use crate::maps::{EXCEPTIONS, LISTED, TYPES};
use crate::packet::{self, Packet, unknown};
use crate::socket::{self, Owner, zero};
use aya_ebpf::bindings::__sk_buff;
use core::mem::MaybeUninit;
use dnswall_common::event::hook;
use dnswall_common::image::{MODE_AUDIT, MODE_ENFORCE};
use dnswall_common::limits::TYPE_WORDS;
use dnswall_common::listed::{self, ExceptionKey, exception, kind};
use dnswall_common::name::{LABELS_MAX, suffix_step};
use dnswall_common::named::BELOW;
use dnswall_common::quota::{LIMITS_QUESTIONS, TELLS_QUESTIONS};
use dnswall_common::reason::{Action, Reason, Verdict, is_deny, pack, unpack};
use dnswall_common::verifier::{forget, mask, next, opaque};
use message::{follow, read, reading};
use place::{OFFSET, OVER_TCP};
pub use place::{Place, Plain, plain};

/// Lets the packet pass.
const PASS: i32 = 1;
/// Drops the packet.
const DROP: i32 = 0;

/// What was found about a question: kept by whoever looks, because a function gives one number.
struct Finding {
    /// As [`pack`] makes it; 0 when there is nothing to say.
    verdict: u64,
    /// Hash of the longest suffix that a list refuses; 0 for none.
    denied: u64,
    /// Hash of the longest suffix that a list tells of; 0 for none.
    told: u64,
    /// Where the name ends; above [`STEPS_SHIFT`] what else is to be done (`limited` of the image), above [`PATTERN_SHIFT`]
    /// [`Finding::pattern_label`], and above [`MORE_SHIFT`] where the message behind this one begins, 0 for none.
    behind: u64,
}

impl Finding {
    /// Has the verifier know nothing of it any more: what was found in many ways is walked on from once.
    #[inline(always)]
    fn forget(&mut self, skb: *mut __sk_buff) {
        let unknown = unknown(skb);
        for word in [&mut self.verdict, &mut self.denied, &mut self.told, &mut self.behind] {
            *word = forget(*word, unknown);
        }
    }

    /// Where the name ends.
    #[inline(always)]
    fn end(&self) -> u32 {
        self.behind as u32 & ((1 << STEPS_SHIFT) - 1)
    }

    /// The label at which the name begins of the longest pattern that may be this name's.
    #[inline(always)]
    fn pattern_label(&self) -> u64 {
        self.behind >> PATTERN_SHIFT & PATTERN_MASK
    }

    /// See [`Finding::pattern_label`].
    #[inline(always)]
    fn set_pattern_label(&mut self, label: u64, unknown: u64) {
        self.behind =
            forget(self.behind & !(PATTERN_MASK << PATTERN_SHIFT) | label << PATTERN_SHIFT, unknown);
    }

    /// Whether one of these steps is to be done.
    #[inline(always)]
    fn has(&self, steps: u32) -> bool {
        self.behind >> STEPS_SHIFT & steps as u64 != 0
    }
}

/// See [`Finding::behind`].
const STEPS_SHIFT: u32 = 16;
/// See [`Finding::behind`].
const PATTERN_SHIFT: u32 = 24;
/// Bits of a label's number there.
const PATTERN_MASK: u64 = 0xff;
/// See [`Finding::behind`].
const MORE_SHIFT: u32 = 32;

/// Judges the message at `place`, the number of one, of a packet that may pass otherwise.
#[inline(always)]
pub fn judge(skb: *mut __sk_buff, place: u32) -> i32 {
    // Zeroes, of which the verifier does not know that: what is found then makes no other state.
    let nothing = || forget(0, unknown(skb));
    let finding = &mut Finding { verdict: nothing(), denied: nothing(), told: nothing(), behind: nothing() };
    let mut pattern = NO_PATTERN;
    if forget(is_unstable(skb, place) as u64, unknown(skb)) != 0 {
        finding.verdict = forget(deny(Reason::UnstableQuestion), unknown(skb));
    } else {
        pattern = look::<LABELS_FEW>(skb, place, finding);
        if pattern == MORE_LABELS {
            pattern = look::<LABELS_MAX>(skb, place, finding);
        }
    }
    // Also behind one that is only told of.
    if !is_deny(finding.verdict) && finding.behind >> MORE_SHIFT != 0 {
        follow(skb, place, finding);
    }
    if pattern > MORE_LABELS {
        finding.forget(skb);
        if !is_deny(finding.verdict) {
            named::ask(skb, place, finding, forget(pattern, unknown(skb)));
        }
    }
    finding.forget(skb);
    if !is_deny(finding.verdict) && finding.has(LIMITS_QUESTIONS) {
        quota::limit(skb, place, finding);
        finding.forget(skb);
    }
    if finding.verdict == 0 {
        if finding.has(TELLS_QUESTIONS) {
            tell(skb, place);
        }
        return PASS;
    }
    (opaque(refuse(skb, place, finding) as u64) & 1) as i32
}

#[inline(always)]
const fn deny(reason: Reason) -> u64 {
    pack(Verdict::without_rule(Action::Deny, reason))
}

/// 1 when the sender, or somebody else, may still write to what is in the packet: what is seen then need not be what leaves.
/// That is memory which was handed over, not copied (`MSG_ZEROCOPY`, `vmsplice()`, `sendfile()`). A datagram that was copied lies in the
/// linear part of the buffer; of a stream the kernel says so itself. A function of its own, for its frame.
#[inline(never)]
fn is_unstable(skb: *mut __sk_buff, place: u32) -> u32 {
    // SAFETY: the context is valid. Volatile, so that the addresses stay apart until they are numbers.
    let (start, end, total) = unsafe {
        let (start, end) = (core::ptr::addr_of!((*skb).data), core::ptr::addr_of!((*skb).data_end));
        (start.read_volatile() as u64, end.read_volatile() as u64, (*skb).len)
    };
    // What the device is to cut is refused for that.
    // SAFETY: the context is valid.
    if unsafe { (*skb).gso_size } != 0 {
        return 0;
    }
    if place & OVER_TCP == 0 {
        return (end.wrapping_sub(start) < total as u64) as u32;
    }
    if place & OFFSET >= total {
        return 0;
    }
    let (buffer, offsets) = (as_number(skb), offsets());
    let head = pointer(buffer, field!(offsets.buffer_head));
    let end = pointer(buffer, field!(offsets.buffer_end)) & 0xffff_ffff;
    let flags = pointer(head.wrapping_add(end), field!(offsets.shared_flags)) as u8;
    (flags & field!(offsets.shared_mask) as u8 != 0) as u32
}

/// The steps of [`Finding::behind`].
const STEPS: u64 = (LIMITS_QUESTIONS | TELLS_QUESTIONS) as u64;

/// Labels that nearly every name has at most: with room for just these, less is done for each question.
const LABELS_FEW: usize = 8;

/// What [`look`] gives for a name that no pattern is of.
const NO_PATTERN: u64 = 0;
/// What [`look`] gives when there has to be room for more labels. No pattern's number is so small, but by accident.
const MORE_LABELS: u64 = 1;

/// Reads the question and looks its name and type up. Gives the number of the longest pattern of names that rules lead to, and that may
/// be this name's.
#[inline(never)]
fn look<const N: usize>(skb: *mut __sk_buff, place: u32, finding: &mut Finding) -> u64 {
    let Some(image) = Place(place).image() else {
        finding.verdict = deny(Reason::ImageUnreadable);
        return NO_PATTERN;
    };
    let header = image.header();
    let mut hashes = [unknown(skb); N];
    let reading = forget(read(skb, place, &mut hashes, finding), unknown(skb));
    if reading & reading::NOTHING != 0 {
        return NO_PATTERN;
    }
    let reason = (reading >> reading::REASON_SHIFT) as u8;
    if N < LABELS_MAX && reason == Reason::TooManyLabels as u8 {
        return MORE_LABELS;
    }
    if reason != 0 {
        // SAFETY: `read` puts the number of a reason there. Not through a table of them: the verifier would walk each.
        let reason = unsafe { core::mem::transmute::<u8, Reason>(reason) };
        finding.verdict = deny(reason);
        return NO_PATTERN;
    }
    let labels = forget(reading & reading::LABELS, unknown(skb));
    finding.behind |= (header.limited as u64 & STEPS) << STEPS_SHIFT;
    let pattern = if N <= LABELS_FEW && header.listed_buckets != 0 {
        find::<N, { IN_NAMES | IN_LISTS }>(skb, place, &hashes, labels, finding)
    } else {
        if header.listed_buckets != 0 {
            find::<N, IN_LISTS>(skb, place, &hashes, labels, finding);
        }
        if header.named != 0 { find::<N, IN_NAMES>(skb, place, &hashes, labels, finding) } else { NO_PATTERN }
    };
    let pattern = forget(pattern, unknown(skb));
    if finding.verdict != 0 {
        return NO_PATTERN;
    }
    if header.listed_buckets != 0 {
        if finding.denied | finding.told != 0 && header.exceptions != 0 {
            except(skb, place, &hashes, labels, finding);
        }
        let (denied, told) = (finding.denied, finding.told);
        if denied | told != 0 {
            let action = if denied != 0 { Action::Deny } else { Action::Allow };
            let rule = header.listed_rule;
            finding.verdict = pack(Verdict { action, reason: Reason::ListedName, padding: 0, rule });
            if denied != 0 {
                return NO_PATTERN;
            }
        }
    }
    if header.types_rule != 0 && asks_denied_type(skb, &image, finding.end()) {
        let (action, rule) = (Action::Deny, header.types_rule);
        finding.verdict = pack(Verdict { action, reason: Reason::QuestionType, padding: 0, rule });
        finding.told = 0;
    }
    pattern
}

/// Whether the type that stands there is refused.
#[inline(always)]
fn asks_denied_type(skb: *mut __sk_buff, image: &KernelImage, at: u32) -> bool {
    packet::load::<2>(skb, at)
        .is_none_or(|[high, low]| is_denied_type(image, (high as u16) << 8 | low as u16))
}

#[inline(always)]
fn is_denied_type(image: &KernelImage, kind: u16) -> bool {
    let Some(words) = TYPES.get(image.slot) else {
        return true;
    };
    let mut at = kind as usize / 64;
    // SAFETY: an instruction that names one register and touches no memory; the verifier sees the bound.
    #[cfg(target_arch = "bpf")]
    unsafe {
        core::arch::asm!("{0} &= {1}", inout(reg) at, const TYPE_WORDS as i32 - 1, options(nomem, nostack));
    }
    at &= TYPE_WORDS - 1;
    words[at] >> (kind & 63) & 1 != 0
}

/// [`find`]: among the names that rules lead to.
const IN_NAMES: u32 = 1;
/// [`find`]: in the table of listed names.
const IN_LISTS: u32 = 2;

/// Looks every suffix up, the shortest first, where `IN` says: for few labels at once, for more the stack has no room. Gives the number of
/// the longest pattern that may be the name's, 0 for none. A function of its own, for its frame.
#[inline(never)]
fn find<const N: usize, const IN: u32>(
    skb: *mut __sk_buff,
    place: u32,
    hashes: &[u64; N],
    count: u64,
    finding: &mut Finding,
) -> u64 {
    let Some(image) = Place(place).image() else { return unreadable(finding) };
    let header = image.header();
    if IN & IN_NAMES != 0 && place & OVER_TCP != 0 && header.learns != 0 {
        named::begin_stream(skb);
    }
    let (mut suffix, buckets) = (header.seed, header.listed_buckets);
    let table = if IN & IN_LISTS != 0 { LISTED.get(image.slot) } else { None };
    if IN & IN_LISTS != 0 && table.is_none() {
        return unreadable(finding);
    }
    let mut longest = forget(NO_PATTERN, unknown(skb));
    let mut at = 0;
    // VERIFIER: N rounds with a known index each. The count is forgotten anew at each comparison.
    while at < N {
        let index = N - 1 - at;
        if (index as u64) < forget(count, unknown(skb)) {
            suffix = suffix_step(suffix, hashes[index]);
            if IN & IN_NAMES != 0 {
                let pattern = if index == 0 { suffix } else { suffix ^ BELOW };
                if named::may_be(&image, pattern) {
                    longest = forget(pattern, unknown(skb));
                    finding.set_pattern_label(index as u64, unknown(skb));
                }
            }
            if IN & IN_LISTS != 0 {
                let Some(kinds) = listed::find(suffix, buckets, |place| table.as_ref()?.get(place)) else {
                    return unreadable(finding);
                };
                if kinds != 0 {
                    let kinds = kinds & if index == 0 { kind::OF_WHOLE } else { kind::OF_SUFFIX };
                    // Without a branch: each would be walked on from.
                    let (denies, tells) =
                        (mask(kinds & kind::DENIES, unknown(skb)), mask(kinds & !kind::DENIES, unknown(skb)));
                    finding.denied = forget(finding.denied & !denies | suffix & denies, unknown(skb));
                    finding.told = forget(finding.told & !tells | suffix & tells, unknown(skb));
                }
            }
        }
        at = next(at);
    }
    longest
}

/// What [`find`] gives when the image cannot be read.
#[inline(always)]
fn unreadable(finding: &mut Finding) -> u64 {
    finding.verdict = deny(Reason::ImageUnreadable);
    NO_PATTERN
}

/// Takes back what an exception covers: it does when it stands at what was found or below, or the name is known to be good.
/// A function of its own, for its frame.
#[inline(never)]
fn except<const N: usize>(
    skb: *mut __sk_buff,
    place: u32,
    hashes: &[u64; N],
    count: u64,
    finding: &mut Finding,
) -> u32 {
    let Some(image) = Place(place).image() else { return 1 };
    let mut suffix = image.header().seed;
    let (denied, told) = (finding.denied, finding.told);
    // Bits of exceptions that hold for what was found so far.
    let mut reached = forget(exception::OF_GOOD, unknown(skb));
    let mut holding = forget(0, unknown(skb));
    let mut at = 0;
    // VERIFIER: as in `find`.
    while at < N {
        let index = N - 1 - at;
        if (index as u64) < forget(count, unknown(skb)) {
            suffix = suffix_step(suffix, hashes[index]);
            reached |= !mask(suffix ^ denied, unknown(skb)) & exception::OF_DENY;
            reached |= !mask(suffix ^ told, unknown(skb)) & exception::OF_ALERT;
            let key = ExceptionKey { hash: suffix, slot: image.slot, padding: 0 };
            // SAFETY: an entry of the map that nobody removes while this image counts.
            if let Some(bits) = unsafe { EXCEPTIONS.get(key) } {
                let of = if index == 0 { exception::OF_WHOLE } else { exception::OF_SUFFIX };
                holding = forget(holding | (*bits & of & reached), unknown(skb));
            }
            reached = forget(reached, unknown(skb));
        }
        at = next(at);
    }
    if holding & (exception::OF_GOOD | exception::OF_DENY) != 0 {
        finding.denied = 0;
    }
    if holding & (exception::OF_GOOD | exception::OF_ALERT) != 0 {
        finding.told = 0;
    }
    0
}

/// Tells of a question that may be asked, if it is among those. A function of its own, for its frame.
#[inline(never)]
fn tell(skb: *mut __sk_buff, place: u32) -> u32 {
    let Some(image) = Place(place).image() else { return 0 };
    let is_over_tcp = place & OVER_TCP != 0;
    if !emit::is_told_of(&image, skb, place & OFFSET, is_over_tcp) {
        return 0;
    }
    let (mut packet, mut owner) = (MaybeUninit::<Packet>::uninit(), MaybeUninit::<Owner>::uninit());
    let (packet, owner) = (zero(&mut packet), zero(&mut owner));
    read_again(skb, &image, packet, owner);
    let verdict = Verdict::without_rule(Action::Allow, Reason::Asked);
    let (payload_offset, mode) = (place & OFFSET, MODE_ENFORCE);
    let judged = Judged { verdict, entry: 0, payload_offset, hook: hook::QUESTION, mode };
    emit::question_judged(&image, skb, packet, owner, &judged)
}

/// Tells of the question; drops it unless a list only tells, or this workload is only audited. A function of its own, for its
/// frame.
#[inline(never)]
fn refuse(skb: *mut __sk_buff, place: u32, finding: &Finding) -> i32 {
    let Some(image) = Place(place).image() else { return DROP };
    let (mut packet, mut owner) = (MaybeUninit::<Packet>::uninit(), MaybeUninit::<Owner>::uninit());
    let (packet, owner) = (zero(&mut packet), zero(&mut owner));
    read_again(skb, &image, packet, owner);
    // SAFETY: `look` packed it.
    let verdict = unsafe { unpack(finding.verdict) };
    let mode = match verdict.action {
        Action::Deny => image.header().treatment(&owner.who).0,
        Action::Allow => MODE_AUDIT,
    };
    let entry = if finding.denied != 0 { finding.denied } else { finding.told };
    let judged = Judged { verdict, entry, payload_offset: place & OFFSET, hook: hook::EGRESS, mode };
    emit::packet_refused(&image, skb, packet, owner, &judged);
    emit::question_judged(&image, skb, packet, owner, &judged);
    if mode == MODE_AUDIT { PASS } else { DROP }
}

/// Reads what was read before: what a change meanwhile leaves out, the event lacks.
#[inline(always)]
fn read_again(skb: *mut __sk_buff, image: &KernelImage, packet: &mut Packet, owner: &mut Owner) {
    let _ = packet::read(skb, packet);
    packet::forget_way(skb, packet);
    match socket::state(socket::of(skb)) {
        Some(state) => socket::recorded_owner(state, image, owner),
        None => socket::old_owner(skb, image, owner),
    }
}
