//! Names that rules lead to: how the kernel knows them in a question, and what it remembers of their answers.
//!
//! A rule's names are its list, and each list has a number. A pattern (`api.example.com`, `*.example.org`) belongs to lists; an
//! address that an answer gave for a name is remembered with the pattern of that name, for the workload that asked.

use crate::identity::path_step;
use crate::name::{LABEL_WORDS, LabelWords, lower_case};
use crate::verifier::{forget, mask, not_zero, opaque};

/// Words of a [`NameSet`].
pub const LIST_WORDS: usize = 4;
/// Lists of names of one policy, that of number 0 included, which stands for "no name needed".
pub const LISTS_MAX: usize = 64 * LIST_WORDS;
/// Words that hold a whole name in wire form.
pub const NAME_WORDS: usize = 32;
/// Places of a socket's questions that an id may have; the oldest question of these goes first.
pub const ASKED_WAYS: usize = 8;
/// Groups of such places: by the id's lower bits, so that few questions are looked at.
pub const ASKED_SETS: usize = 16;
/// Patterns that are remembered of one address, for one workload.
pub const PATTERNS_PER_ADDRESS_MAX: usize = 8;
/// Changes the hash of a name's suffix to the number of the pattern of what is below that name.
pub const BELOW: u64 = 0x6265_6c6f_7720_6974;
/// Port, under the protocol [`crate::flow::protocol::SERVE`], by which it is compiled whose answers count that come from a stub on
/// this host.
pub const PORT_STUB: u16 = 54;
/// The longest time to live that counts, in seconds.
pub const TTL_MAX: u32 = 86_400;
/// How much longer than its time to live an address counts, in seconds: programs look up first and connect then.
pub const GRACE_SECS: u64 = 10;

/// A set of lists of names. Number 0 is in each that counts.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NameSet {
    /// Bit `i % 64` of word `i / 64` is list `i`.
    pub words: [u64; LIST_WORDS],
}

impl NameSet {
    /// Nothing is known of the address but itself.
    pub const NONE: Self = Self { words: [1, 0, 0, 0] };

    /// [`Self::NONE`], of which the verifier knows nothing; `unknown` as for [`forget`].
    #[inline(always)]
    pub fn none(unknown: u64) -> Self {
        let nothing = forget(0, unknown);
        Self { words: [nothing | 1, nothing, nothing, nothing] }
    }

    /// Adds a list.
    pub fn insert(&mut self, list: u8) {
        self.words[usize::from(list) / 64] |= 1 << (list % 64);
    }

    /// Adds the lists of another set. `unknown` as for [`forget`].
    #[inline(always)]
    pub fn add(&mut self, other: &Self, unknown: u64) {
        let mut at = 0;
        // VERIFIER: unrolled, without a branch.
        while at < LIST_WORDS {
            self.words[at] = forget(self.words[at] | other.words[at], unknown);
            at += 1;
        }
    }

    /// 1 when the list is in the set, else 0; without a branch.
    #[inline(always)]
    pub fn holds(&self, list: u8) -> u64 {
        let (word, bit) = (list as u64 >> 6, list as u64 & 63);
        let mut held = 0;
        let mut at = 0;
        // VERIFIER: unrolled, without a branch.
        while at < LIST_WORDS {
            held |= (1 - not_zero(word ^ at as u64)) & (self.words[at] >> bit);
            at += 1;
        }
        held & 1
    }
}

/// Key of map `NAMES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PatternKey {
    /// The pattern's number: the hash of the name's suffixes ([`crate::name`]), with [`BELOW`] for what is below it.
    pub pattern: u64,
    /// Which image.
    pub slot: u32,
    /// Zero.
    pub padding: u32,
}

/// Value of map `NAMES`. The name itself is there because a hash may be somebody's choice.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Every list that has this pattern, or one that holds all of its names.
    pub lists: NameSet,
    /// Bytes of the name, the root's included.
    pub bytes: u64,
    /// In wire form, in lower case, zeroes behind it.
    pub name: [u64; NAME_WORDS],
}

/// What stands for a pattern in a set that says which ones cannot be in map `NAMES`: word and bit.
#[inline(always)]
pub const fn filter_place(pattern: u64) -> (usize, u32) {
    let bit = pattern as usize & (FILTER_WORDS * 64 - 1);
    (bit / 64, (bit % 64) as u32)
}

/// Words of that set.
pub const FILTER_WORDS: usize = 1_024;

/// Value of map `ASKED`: what a socket asked last of names that rules lead to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The questions, those of a set side by side.
    pub questions: [Question; ASKED_SETS * ASKED_WAYS],
    /// Where the next one of each set goes, not reduced.
    pub next: [u16; ASKED_SETS],
    /// Over TCP: [`STREAM_KNOWN`] and the sequence number at which the next message begins, or [`STREAM_UNKNOWN`]; 0 before it was
    /// looked at. What begins elsewhere is a part of a message, which may hold anything.
    pub stream: u64,
}

/// See [`Asked::stream`].
pub const STREAM_KNOWN: u64 = 1 << 32;
/// See [`Asked::stream`].
pub const STREAM_UNKNOWN: u64 = 1 << 33;

/// One question.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// [`question_tag`]; 0 for none.
    pub tag: u64,
    /// The number of its pattern, changed by `tag`: read in the middle of a change it is no pattern's.
    pub pattern: u64,
}

impl Asked {
    /// Takes a question in the place of the same one, else of the oldest of its set. `unknown` as for [`mask`].
    #[inline(always)]
    pub fn put(&mut self, id: u16, tag: u64, pattern: u64, unknown: u64) {
        let set = id as usize & (ASKED_SETS - 1);
        let (mut same, mut at) = (0, 0);
        // VERIFIER: unrolled, without a branch.
        while at < ASKED_WAYS {
            let is_it = !mask(self.questions[set * ASKED_WAYS + at].tag ^ tag, unknown);
            same |= is_it & (at as u64 | ASKED_WAYS as u64);
            at += 1;
        }
        let is_new = 1 - not_zero(same);
        let next = self.next[set];
        self.next[set] = next.wrapping_add(is_new as u16);
        let old = mask(is_new, unknown);
        let way = forget((next as u64 & old) | (same & !old), unknown) as usize & (ASKED_WAYS - 1);
        self.questions[set * ASKED_WAYS + way] = Question { tag, pattern: pattern ^ tag };
    }

    /// Takes the question with this id and tag out, and gives its pattern; 0 for none. `unknown` as for [`mask`]. It is answered once: whoever
    /// guesses at it later guesses in vain.
    #[inline(always)]
    pub fn take(&mut self, id: u16, tag: u64, unknown: u64) -> u64 {
        let first = (id as usize & (ASKED_SETS - 1)) * ASKED_WAYS;
        let mut found = 0;
        let mut at = 0;
        // VERIFIER: unrolled, without a branch.
        while at < ASKED_WAYS {
            let Question { tag: theirs, pattern } = self.questions[first + at];
            let same = !mask(theirs ^ tag, unknown);
            found |= (pattern ^ tag) & same;
            self.questions[first + at].tag = theirs & !same;
            at += 1;
        }
        found
    }
}

/// Key of map `LEARNED`: whose, and where. What one workload has learned is no other's.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LearnedKey {
    /// The asker's cgroup.
    pub cgroup: u64,
    /// Its network namespace.
    pub netns: u64,
    /// The address (see [`crate::flow::Address::to_words`]).
    pub address: [u64; 2],
}

impl LearnedKey {
    /// What the numbers of an entry's patterns are changed by.
    #[inline(always)]
    pub const fn mark(&self, seed: u64) -> u64 {
        let whose = path_step(path_step(seed, self.cgroup), self.netns);
        path_step(path_step(whose, self.address[0]), self.address[1])
    }
}

/// Value of map `LEARNED`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// By which patterns' names.
    pub patterns: [Lead; PATTERNS_PER_ADDRESS_MAX],
}

/// A pattern that led to an address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lead {
    /// Its number, changed by [`LearnedKey::mark`]: found under another key, as entries are given away, it is no pattern's. 0 for none.
    pub pattern: u64,
    /// Until when, monotonic nanoseconds.
    pub until_ns: u64,
}

const _: () = assert!(
    size_of::<Pattern>() == 296 && size_of::<Asked>() == 16 * ASKED_SETS * ASKED_WAYS + 2 * ASKED_SETS + 8
);
const _: () = assert!(size_of::<LearnedKey>() == 32 && size_of::<Learned>() == 16 * PATTERNS_PER_ADDRESS_MAX);
const _: () = assert!(ASKED_SETS.is_power_of_two() && ASKED_WAYS.is_power_of_two());

/// How long an address counts that was given this time to live, in nanoseconds.
#[inline(always)]
pub const fn lifetime_ns(ttl: u32) -> u64 {
    let ttl = if ttl > TTL_MAX { TTL_MAX } else { ttl };
    (ttl as u64 + GRACE_SECS) * 1_000_000_000
}

/// A keyed hash of a whole name, label by label from the left: SipHash-1-3. What asks and what answers may each choose names, and
/// neither must find two of the same hash.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NameHash {
    words: [u64; 4],
}

impl NameHash {
    /// Of no label yet.
    #[inline(always)]
    pub fn new(key: u64) -> Self {
        let other = path_step(key, BELOW);
        Self {
            words: [
                key ^ 0x736f_6d65_7073_6575,
                other ^ 0x646f_7261_6e64_6f6d,
                key ^ 0x6c79_6765_6e65_7261,
                other ^ 0x7465_6462_7974_6573,
            ],
        }
    }

    /// With a label more: its length, its bytes and zeroes, always the same steps.
    #[inline(always)]
    pub fn add(&mut self, label: &LabelWords) {
        let mut at = 0;
        // VERIFIER: unrolled, without a branch.
        while at < LABEL_WORDS {
            let word = lower_case(opaque(label[at]));
            self.words[3] ^= word;
            self.round();
            self.words[0] ^= word;
            at += 1;
        }
    }

    /// The hash.
    #[inline(always)]
    pub fn finish(mut self) -> u64 {
        self.words[2] ^= 0xff;
        self.round();
        self.round();
        self.round();
        self.words[0] ^ self.words[1] ^ self.words[2] ^ self.words[3]
    }

    /// Has the verifier know nothing of it; `forget` is [`crate::verifier::forget`] with an unknown number.
    #[inline(always)]
    pub fn forget(&mut self, forget: impl Fn(u64) -> u64) {
        let mut at = 0;
        // VERIFIER: unrolled.
        while at < 4 {
            self.words[at] = forget(self.words[at]);
            at += 1;
        }
    }

    #[inline(always)]
    fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.words;
        a = a.wrapping_add(b);
        c = c.wrapping_add(d);
        b = b.rotate_left(13) ^ a;
        d = d.rotate_left(16) ^ c;
        a = a.rotate_left(32);
        a = a.wrapping_add(d);
        c = c.wrapping_add(b);
        d = d.rotate_left(21) ^ a;
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        self.words = [a, b, c, d];
    }
}

/// What an answer has to match: the name's hash and the message's id. Never 0.
#[inline(always)]
pub const fn question_tag(name: u64, id: u16) -> u64 {
    path_step(name, id as u64) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in_and_nothing_else() {
        let mut set = NameSet::NONE;
        for list in [1, 63, 64, 200, 255] {
            set.insert(list);
        }
        for list in 0..=255 {
            assert_eq!(set.holds(list), u64::from([0, 1, 63, 64, 200, 255].contains(&list)), "{list}");
        }
    }

    #[test]
    fn a_question_is_found_by_its_tag_alone_and_once() {
        let empty = Question { tag: 0, pattern: 0 };
        let mut asked =
            Asked { questions: [empty; ASKED_SETS * ASKED_WAYS], next: [0; ASKED_SETS], stream: 0 };
        asked.put(7, 77, 1200, 0);
        // The same again takes no place more.
        for _ in 0..20 {
            asked.put(7, 77, 1234, 0);
        }
        asked.put(7 + 16, 80, 5, 0);
        assert_eq!((asked.take(7 + 16, 80, 0), asked.take(7 + 16, 80, 0)), (5, 0), "it was answered");
        // Of one set, and one more than it holds.
        for id in 0..9 {
            asked.put(id * 16, u64::from(id) + 1, 99, 0);
        }
        assert_eq!((asked.take(7, 79, 0), asked.take(8, 77, 0), asked.take(7, 77, 0)), (0, 0, 1234));
        let mut known = |id: u16| asked.take(id * 16, u64::from(id) + 1, 0);
        assert_eq!((known(0), known(1), known(8), known(8)), (0, 99, 99, 0));
    }

    #[test]
    fn names_hash_alike_in_any_case_and_differ_by_where_labels_end() {
        let label = |text: &str| {
            let mut bytes = [0; 64];
            bytes[0] = text.len() as u8;
            bytes[1..=text.len()].copy_from_slice(text.as_bytes());
            core::array::from_fn(|at| u64::from_le_bytes(bytes[8 * at..8 * at + 8].try_into().unwrap()))
        };
        let hash = |labels: &[&str]| {
            let mut hash = NameHash::new(7);
            labels.iter().for_each(|text| hash.add(&label(text)));
            hash.finish()
        };
        assert_eq!(hash(&["WWW", "Example"]), hash(&["www", "example"]));
        assert_ne!(hash(&["www", "example"]), hash(&["wwwexample"]));
        assert_ne!(hash(&["www", "example"]), hash(&["example", "www"]));
        assert_ne!(hash(&[]), hash(&["a"]));
        let mut other = NameHash::new(8);
        other.add(&label("www"));
        assert_ne!(other.finish(), hash(&["www"]));
    }

    #[test]
    fn addresses_live_for_their_time_and_some_longer() {
        assert_eq!(lifetime_ns(0), 10_000_000_000);
        assert_eq!(lifetime_ns(300), 310_000_000_000);
        assert_eq!(lifetime_ns(u32::MAX), 86_410_000_000_000);
    }
}
