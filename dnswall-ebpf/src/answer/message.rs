//! Reads answers step by step: one loop over labels, pointers and records, since loops within loops are more than a verifier walks.

use super::{OFFSET, OVER_IPV6, OVER_TCP, image};
use crate::learned::{Asker, remember};
use crate::maps::count;
use crate::packet::{self, unknown};
use aya_ebpf::bindings::__sk_buff;
use dnswall_common::counter::Counter;
use dnswall_common::name::{LABEL_BYTES_MAX, LabelWords};
use dnswall_common::named::{Asked, NameHash, STREAM_KNOWN, question_tag};
use dnswall_common::packet::{IPV4_BYTES, IPV6_BYTES};
use dnswall_common::verifier::{forget, mask, next, not_zero};

/// Labels, pointers and records of a packet's messages that are read; what is behind teaches nothing.
const STEPS_MAX: usize = 96;

/// What comes next.
mod stage {
    /// A message.
    pub const MESSAGE: u64 = 0;
    /// A label of the name that was asked for, or its end.
    pub const QUESTION: u64 = 1;
    /// The same of the name that owns a record.
    pub const OWNER: u64 = 2;
    /// The same of the name that an alias stands for.
    pub const TARGET: u64 = 3;
}

/// How far it was read. All of it is forgotten each step: the verifier walks a step once, not once for each way into it.
struct Walk {
    /// See [`stage`].
    stage: u64,
    /// Where the next byte is.
    here: u64,
    /// Where the message begins.
    base: u64,
    /// Where it ends.
    stop: u64,
    /// Where the name at hand ends in its record, once a pointer was followed; 0 before.
    end: u64,
    /// Labels of the name at hand, so far.
    labels: u64,
    /// Their hash.
    hash: NameHash,
    /// Hash of the name whose addresses are wanted.
    wanted: u64,
    /// Where that name is, counted from the message: a record's owner is nearly always a pointer to it.
    wanted_at: u64,
    /// Where the record at hand ends.
    record_end: u64,
    /// Records still to be read.
    left: u64,
    /// The shortest time to live of the aliases so far.
    ttl: u64,
    /// What names are hashed with.
    key: u64,
}

impl Walk {
    #[inline(always)]
    fn forget(&mut self, skb: *mut __sk_buff) {
        let forget = |number| forget(number, unknown(skb));
        self.stage = forget(self.stage);
        self.here = forget(self.here);
        self.base = forget(self.base);
        self.stop = forget(self.stop);
        self.end = forget(self.end);
        self.labels = forget(self.labels);
        self.hash.forget(forget);
        self.wanted = forget(self.wanted);
        self.wanted_at = forget(self.wanted_at);
        self.record_end = forget(self.record_end);
        self.left = forget(self.left);
        self.ttl = forget(self.ttl);
    }

    /// Begins a name.
    #[inline(always)]
    fn name(&mut self, skb: *mut __sk_buff, stage: u64, at: u64) {
        self.stage = forget(stage, unknown(skb));
        self.here = at;
        self.end = forget(0, unknown(skb));
        self.labels = self.end;
        self.hash = NameHash::new(self.key);
    }

    /// Goes on with the record there, or with what is behind the message.
    #[inline(always)]
    fn record(&mut self, skb: *mut __sk_buff, at: u64) {
        let some = not_zero(self.left);
        self.left -= some;
        let more = mask(some, unknown(skb));
        let here = (at & more) | (self.stop & !more);
        self.name(skb, stage::OWNER * some, here);
    }

    /// Goes on with the message there.
    #[inline(always)]
    fn message(&mut self, skb: *mut __sk_buff, at: u64) {
        self.name(skb, stage::MESSAGE, at);
    }
}

/// Reads every message of a packet, and remembers where they lead. A function of its own, for its frame.
#[inline(never)]
pub fn read(skb: *mut __sk_buff, place: u32, asked: &mut Asked, asker: &mut Asker) -> u32 {
    let Some(image) = image(place) else { return 0 };
    let key = image.header().seed;
    let over_tcp = forget((place & OVER_TCP) as u64, unknown(skb)) as u32;
    let begins = forget(
        if over_tcp != 0 { message_in(skb, place, asked) } else { (place & OFFSET) as u64 },
        unknown(skb),
    );
    if begins == 0 {
        return 0;
    }
    let mut walk = Walk {
        stage: stage::MESSAGE,
        here: begins,
        base: 0,
        stop: 0,
        end: 0,
        labels: 0,
        hash: NameHash::new(key),
        wanted: 0,
        wanted_at: 0,
        record_end: 0,
        left: 0,
        ttl: 0,
        key,
    };
    let mut step = 0;
    // VERIFIER: STEPS_MAX rounds, each from a state of which nothing is known.
    while step < STEPS_MAX {
        walk.forget(skb);
        let goes_on = if walk.stage == stage::MESSAGE {
            begin(skb, &mut walk, over_tcp, asked)
        } else {
            part(skb, &mut walk, asked, asker)
        };
        if goes_on == 0 {
            break;
        }
        step = next(step);
    }
    0
}

/// Where in a segment the next message of its stream begins; 0 when none does. What comes before the kernel looks at the segment's place
/// in the stream is not believed: the number is one that the connection itself gave. A function of its own, for its frame.
#[inline(never)]
fn message_in(skb: *mut __sk_buff, place: u32, asked: &Asked) -> u64 {
    let header = if place & OVER_IPV6 != 0 { IPV6_BYTES } else { IPV4_BYTES } as u32;
    let Some(number) = packet::load::<4>(skb, header + 4) else { return 0 };
    let (stream, payload) = (asked.stream, place & OFFSET);
    let before = (stream as u32).wrapping_sub(u32::from_be_bytes(number));
    // SAFETY: the context is valid.
    let bytes = unsafe { (*skb).len }.wrapping_sub(payload);
    if stream & STREAM_KNOWN == 0 || before >= bytes || before > OFFSET {
        return 0;
    }
    (payload + before) as u64
}

/// Reads the header of a message; 0 when there is none. One that is no answer is left out. A function of its own, for its frame.
#[inline(never)]
fn begin(skb: *mut __sk_buff, walk: &mut Walk, over_tcp: u32, asked: &mut Asked) -> u32 {
    // SAFETY: the context is valid.
    let total = unsafe { (*skb).len } as u64;
    let mut base = walk.here;
    let mut stop = total;
    if base >= total {
        return 0;
    }
    if over_tcp != 0 {
        let Some([high, low]) = packet::load::<2>(skb, base as u32) else { return 0 };
        base += 2;
        let length = (high as u64) << 8 | low as u64;
        stop = base + length;
        let begins = (asked.stream as u32).wrapping_add(2 + length as u32);
        asked.stream = forget(STREAM_KNOWN | begins as u64, unknown(skb));
        if stop > total {
            return 0;
        }
    }
    let Some([_, _, flags, code, questions_high, questions, answers_high, answers]) =
        packet::load::<8>(skb, base as u32)
    else {
        return 0;
    };
    (walk.base, walk.stop) = (base, stop);
    // RFC 1035, 4.1.1: a response to a query, without an error, to one question.
    if ((flags & 0xf8) ^ 0x80) | (code & 0x0f) | questions_high | (questions ^ 1) != 0 {
        walk.message(skb, stop);
        return 1;
    }
    walk.left = (answers_high as u64) << 8 | answers as u64;
    walk.ttl = forget(u32::MAX as u64, unknown(skb));
    walk.name(skb, stage::QUESTION, base + 12);
    1
}

/// Two upper bits: what follows is where the rest of the name is (RFC 1035, 4.1.4).
const POINTER: u8 = 0xc0;

/// Reads a label, a pointer or the end of a name with what is behind it; 0 when it cannot be read. A function of its own, for its
/// frame.
#[inline(never)]
fn part(skb: *mut __sk_buff, walk: &mut Walk, asked: &mut Asked, asker: &mut Asker) -> u32 {
    let here = walk.here;
    let Some([length]) = packet::load::<1>(skb, here as u32) else { return 0 };
    let is_pointer = length >= POINTER;
    if !is_pointer && length != 0 {
        return label(skb, walk, length as u32);
    }
    // Where the name ends in its record: behind the first pointer, or here.
    let jumped = mask(walk.end, unknown(skb));
    let after = (walk.end & jumped) | ((here + 1 + is_pointer as u64) & !jumped);
    let mut is_other = not_zero(walk.hash.finish() ^ walk.wanted);
    if is_pointer {
        let Some([low]) = packet::load::<1>(skb, here as u32 + 1) else { return 0 };
        let target = (length as u64 & 0x3f) << 8 | low as u64;
        is_other = (walk.stage ^ stage::OWNER) | (target ^ walk.wanted_at) | walk.end | walk.labels;
        if is_other != 0 {
            walk.end = after;
            walk.here = walk.base + target;
            return 1;
        }
    } else if walk.stage == stage::QUESTION {
        return question(skb, walk, after, asked, asker);
    } else if walk.stage == stage::TARGET {
        walk.wanted = walk.hash.finish();
        walk.record(skb, walk.record_end);
        return 1;
    }
    record(skb, walk, forget(after, unknown(skb)), forget(is_other, unknown(skb)), asker)
}

/// Reads a label. A function of its own, for its frame.
#[inline(never)]
fn label(skb: *mut __sk_buff, walk: &mut Walk, length: u32) -> u32 {
    let mut words: LabelWords = [unknown(skb); 8];
    if length > LABEL_BYTES_MAX as u32 || !packet::load_zeroed(skb, walk.here as u32, length + 1, &mut words)
    {
        return 0;
    }
    walk.hash.add(&words);
    walk.labels = forget(1, unknown(skb));
    walk.here += length as u64 + 1;
    1
}

/// What is behind the name of a question: goes on with its answers if this socket asked it, else with the next message. A function of its
/// own, for the caller's frame.
#[inline(never)]
fn question(skb: *mut __sk_buff, walk: &mut Walk, after: u64, asked: &mut Asked, asker: &mut Asker) -> u32 {
    let Some([high, low]) = packet::load::<2>(skb, walk.base as u32) else { return 0 };
    let (hash, id) = (walk.hash.finish(), (high as u16) << 8 | low as u16);
    let pattern = asked.take(id, question_tag(hash, id), unknown(skb));
    if pattern == 0 {
        walk.message(skb, walk.stop);
        return 1;
    }
    asker.pattern = forget(pattern, unknown(skb));
    walk.wanted = hash;
    // It begins behind the header.
    walk.wanted_at = forget(12, unknown(skb));
    // Type and class.
    walk.record(skb, after + 4);
    1
}

/// Types of record.
mod kind {
    pub const A: u64 = 1;
    pub const CNAME: u64 = 5;
    pub const AAAA: u64 = 28;
}

/// A record behind the name that owns it: an address of the name that is wanted is remembered, its alias is wanted from there on. 0
/// when it cannot be read. A function of its own, for its frame.
#[inline(never)]
fn record(skb: *mut __sk_buff, walk: &mut Walk, at: u64, is_other: u64, asker: &Asker) -> u32 {
    let Some([type_high, type_low, class_high, class, t3, t2, t1, t0, length_high, length]) =
        packet::load::<10>(skb, at as u32)
    else {
        return 0;
    };
    let length = (length_high as u64) << 8 | length as u64;
    let data = at + 10;
    let end = data + length;
    // RFC 2181, 8: a time to live with the upper bit set is none.
    let ttl = (t3 as u64) << 24 | (t2 as u64) << 16 | (t1 as u64) << 8 | t0 as u64;
    let ttl = ttl & !mask(ttl >> 31, unknown(skb));
    let longer = mask(walk.ttl.wrapping_sub(ttl) >> 63, unknown(skb));
    let ttl = forget((walk.ttl & longer) | (ttl & !longer), unknown(skb));
    let kind = forget((type_high as u64) << 8 | type_low as u64, unknown(skb));
    // Of the name, in class IN, and within the message.
    if is_other == 0 && class_high == 0 && class == 1 && end <= walk.stop {
        if kind == kind::CNAME {
            walk.ttl = ttl;
            walk.record_end = end;
            walk.wanted_at = data - walk.base;
            walk.name(skb, stage::TARGET, data);
            return 1;
        }
        let mut address = [0, 0xffff_0000_0000];
        let is_address = match kind {
            kind::A if length == 4 => packet::load::<4>(skb, data as u32).map(|four| {
                address[1] |= u32::from_be_bytes(four) as u64;
            }),
            kind::AAAA if length == 16 => packet::load::<16>(skb, data as u32).map(|sixteen| {
                address = [packet::half(&sixteen, 0), packet::half(&sixteen, 8)];
            }),
            _ => None,
        };
        if is_address.is_some() {
            let [high, low] = address.map(|word| forget(word, unknown(skb)));
            count(Counter::Learned);
            remember(asker, high, low, ttl as u32);
        }
    }
    walk.record(skb, end);
    1
}
