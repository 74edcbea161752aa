//! How much may be asked: the shape of a name, and how often, of one workload.
//!
//! What is counted is kept in maps whose entries may go (`PACES`, `DISTINCTS`): a workload that is forgotten begins anew, so a limit is a
//! brake, no wall.

use crate::verifier::{forget, next};

/// Sets of limits in an image: that of number 0 is everyone's, the last one holds the strictest of each.
pub const LIMITS_MAX: usize = 16;
/// The set of who is known to be nobody a policy could name.
pub const LIMITS_STRICTEST: u8 = LIMITS_MAX as u8 - 1;
/// Types whose answers are weighed, in one set of limits.
pub const TYPES_MAX: usize = 4;
/// Places of a type's bytes: a power of two, and one at least for types without a limit.
pub const PLACES_MAX: usize = 8;
/// Workloads whose questions are counted; the one that did not ask for longest goes first.
pub const PACES_MAX: usize = 8_192;
/// Domains below which different names are counted, of all workloads together.
pub const DISTINCTS_MAX: usize = 4_096;
/// Words of [`Distinct::bits`].
pub const DISTINCT_WORDS: usize = 64;
/// Bits that each name sets.
pub const DISTINCT_BITS: usize = 3;
/// The most different names that can be told apart well enough to be limited: of a hundred a new one passes for one that was asked for
/// in some 2,500 cases once, of five hundred in thirty.
pub const DISTINCT_MAX: u32 = 500;

/// Nanoseconds in which questions are counted.
pub const SECOND_NS: u64 = 1_000_000_000;
/// Nanoseconds in which everything else is.
pub const MINUTE_NS: u64 = 60 * SECOND_NS;

/// [`crate::image::ImageHeader::limited`]: questions are looked at.
pub const LIMITS_QUESTIONS: u32 = 1;
/// [`crate::image::ImageHeader::limited`]: and answers.
pub const LIMITS_ANSWERS: u32 = 2;
/// [`crate::image::ImageHeader::limited`]: questions that may be asked are told of, as [`crate::image::ImageHeader::tells`] says.
pub const TELLS_QUESTIONS: u32 = 4;

/// One set of limits; 0 is none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct QuestionLimits {
    /// Bytes of a name, its dots included.
    pub name_bytes: u8,
    /// Bytes of a label.
    pub label_bytes: u8,
    /// Labels of a name.
    pub labels: u8,
    /// Zero.
    pub padding: u8,
    /// Questions in a second.
    pub questions: u32,
    /// Different names below one domain in a minute.
    pub names: u32,
    /// Answers in a minute that there is no such name.
    pub nxdomains: u32,
    /// What answers may weigh in a minute, by type.
    pub answers: [TypeLimit; TYPES_MAX],
    /// The rule that stands for them.
    pub rule: u32,
}

/// What the answers of one type may weigh in a minute.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TypeLimit {
    /// Bytes of their messages; 0 where there is no limit.
    pub bytes: u32,
    /// The type that was asked for.
    pub kind: u32,
}

/// Value of map `PACES`, by cgroup.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// When the second began, monotonic nanoseconds.
    pub second_ns: u64,
    /// When the minute did.
    pub minute_ns: u64,
    /// Questions in this second.
    pub questions: u64,
    /// Answers in this minute that there is no such name.
    pub nxdomains: u64,
    /// Bytes of answers in this minute, by place in [`QuestionLimits::answers`]; behind them what has no limit.
    pub bytes: [u64; PLACES_MAX],
}

/// Key of map `DISTINCTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DistinctKey {
    /// Whose questions.
    pub cgroup: u64,
    /// Hash of the domain.
    pub domain: u64,
}

/// Value of map `DISTINCTS`: which names were asked for, as far as a Bloom filter tells.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Distinct {
    /// When the minute began, monotonic nanoseconds.
    pub minute_ns: u64,
    /// How many different ones.
    pub count: u64,
    /// Bits that names have set ([`Distinct::place`]).
    pub bits: [u64; DISTINCT_WORDS],
}

const _: () = assert!(
    size_of::<QuestionLimits>() == 16 + 8 * TYPES_MAX + 4 && size_of::<Pace>() == 32 + 8 * PLACES_MAX
);
const _: () = assert!(TYPES_MAX.is_power_of_two() && TYPES_MAX < PLACES_MAX && PLACES_MAX.is_power_of_two());
const _: () = assert!(LIMITS_MAX.is_power_of_two() && DISTINCT_WORDS.is_power_of_two());

impl Distinct {
    /// Nothing was asked for.
    pub const EMPTY: Self = Self { minute_ns: 0, count: 0, bits: [0; DISTINCT_WORDS] };

    /// Word and bit of one of a name's bits, `of` [`DISTINCT_BITS`], by the name's hash.
    #[inline(always)]
    pub const fn place(hash: u64, of: usize) -> (usize, u64) {
        let part = hash >> (12 * of);
        ((part >> 6) as usize & (DISTINCT_WORDS - 1), 1 << (part & 63))
    }
}

impl QuestionLimits {
    /// Place of a type's limit; [`TYPES_MAX`] when it has none. `unknown` as for [`forget`].
    #[inline(always)]
    pub fn place_of(&self, kind: u16, unknown: u64) -> u64 {
        let mut place = TYPES_MAX as u64;
        let mut at = 0;
        // VERIFIER: TYPES_MAX rounds with a known index each.
        while at < TYPES_MAX {
            let TypeLimit { bytes, kind: limited } = self.answers[at];
            if bytes != 0 && limited == kind as u32 {
                place = at as u64;
            }
            place = forget(place, unknown);
            at = next(at);
        }
        place
    }
}

/// The second label of a name, with its length before it, counts as no domain of somebody's below a country's two letters: `co.uk`.
#[inline(always)]
pub fn is_generic(label: [u8; 4]) -> bool {
    let [length, first, second, third] = label;
    let third = if length == 3 { third | 0x20 } else { 0 };
    let word = [first | 0x20, second | 0x20, third];
    matches!(length, 2 | 3)
        && matches!(
            &word,
            b"co\0"
                | b"ac\0"
                | b"or\0"
                | b"ne\0"
                | b"go\0"
                | b"com"
                | b"net"
                | b"org"
                | b"gov"
                | b"edu"
                | b"gob"
                | b"mil"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_found_by_its_type() {
        let limit = |bytes, kind| TypeLimit { bytes, kind };
        let answers = [limit(10, 16), limit(0, 10), limit(20, 28), limit(0, 0)];
        let limits = QuestionLimits { answers, ..QuestionLimits::default() };
        let place = |kind| limits.place_of(kind, 77);
        assert_eq!((place(16), place(28), place(10), place(1), place(0)), (0, 2, 4, 4, 4));
    }

    #[test]
    fn names_are_told_apart_as_far_as_is_said() {
        let hash = |number: u64| crate::identity::path_step(7, number);
        let is_known = |distinct: &Distinct, hash: u64| {
            (0..DISTINCT_BITS)
                .map(|of| Distinct::place(hash, of))
                .all(|(word, bit)| distinct.bits[word] & bit != 0)
        };
        for (names, least) in [(100, 1_000), (DISTINCT_MAX.into(), 25)] {
            let mut distinct = Distinct::EMPTY;
            for name in 0..names {
                for (word, bit) in (0..DISTINCT_BITS).map(|of| Distinct::place(hash(name), of)) {
                    distinct.bits[word] |= bit;
                }
            }
            assert!((0..names).all(|name| is_known(&distinct, hash(name))));
            let mistaken = (names..names + 100_000).filter(|name| is_known(&distinct, hash(*name))).count();
            assert!(mistaken < 100_000 / least, "{mistaken} of 100,000 beside {names}");
        }
    }

    #[test]
    fn generic_words_are_known_whatever_stands_behind_them() {
        assert!(is_generic(*b"\x02co\x02") && is_generic(*b"\x03COM") && is_generic(*b"\x02Ac\x7f"));
        assert!(!is_generic(*b"\x03coo") && !is_generic(*b"\x04com") && !is_generic(*b"\x02xx\x02"));
        assert!(!is_generic(*b"\x01c\x02u"));
    }
}
