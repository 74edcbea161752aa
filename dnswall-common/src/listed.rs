//! A table of the names in block lists: takes a suffix's hash, says which kinds of entry there are for it.
//!
//! Buckets of one cache line hold fourteen fingerprints of 36 bits. A hash leads to one bucket; only when that one was full
//! while the table was built, to a second one. So a name that was never asked before costs little more than a cache miss for
//! each label, at less than six bytes a name, and one in some four thousand million suffixes is taken for a listed one.

use crate::identity::path_step;
use crate::verifier::not_zero;

/// Fingerprints in a bucket.
pub const BUCKET_SLOTS: usize = 14;

/// What an entry says, as a number from 0 to 15; [`Bucket`] and [`find`] have a bit for each.
pub mod kind {
    /// The name and what is below it are refused.
    pub const DENY_SUBTREE: u8 = 0;
    /// The name alone is refused.
    pub const DENY_EXACT: u8 = 1;
    /// What is below the name is refused.
    pub const DENY_BELOW: u8 = 2;
    /// The same three, which are only told of.
    pub const ALERT_SUBTREE: u8 = 4;
    /// See [`ALERT_SUBTREE`].
    pub const ALERT_EXACT: u8 = 5;
    /// See [`ALERT_SUBTREE`].
    pub const ALERT_BELOW: u8 = 6;

    /// Kinds that hold for a name that goes on to the left.
    pub const OF_SUFFIX: u64 = 1 << DENY_SUBTREE | 1 << DENY_BELOW | 1 << ALERT_SUBTREE | 1 << ALERT_BELOW;
    /// Kinds that hold for a whole name.
    pub const OF_WHOLE: u64 = 1 << DENY_SUBTREE | 1 << DENY_EXACT | 1 << ALERT_SUBTREE | 1 << ALERT_EXACT;
    /// Kinds that refuse.
    pub const DENIES: u64 = 1 << DENY_SUBTREE | 1 << DENY_EXACT | 1 << DENY_BELOW;
}

/// What is said of a name that is not refused though a list has it, or one above it; a bit each.
pub mod exception {
    /// Nothing listed above it refuses the name itself.
    pub const DENY_EXACT: u64 = 1;
    /// Nothing listed above it refuses what is below it.
    pub const DENY_BELOW: u64 = 1 << 1;
    /// Nothing listed above it tells of the name itself.
    pub const ALERT_EXACT: u64 = 1 << 2;
    /// Nothing listed above it tells of what is below it.
    pub const ALERT_BELOW: u64 = 1 << 3;
    /// Nothing at all refuses or tells of the name itself: it is known to be good.
    pub const GOOD_EXACT: u64 = 1 << 4;
    /// The same of what is below it.
    pub const GOOD_BELOW: u64 = 1 << 5;

    /// What holds for a whole name.
    pub const OF_WHOLE: u64 = DENY_EXACT | ALERT_EXACT | GOOD_EXACT;
    /// What holds for a name that goes on to the left.
    pub const OF_SUFFIX: u64 = DENY_BELOW | ALERT_BELOW | GOOD_BELOW;
    /// What takes a refusal back.
    pub const OF_DENY: u64 = DENY_EXACT | DENY_BELOW;
    /// What takes a telling back.
    pub const OF_ALERT: u64 = ALERT_EXACT | ALERT_BELOW;
    /// What takes back whatever is listed anywhere.
    pub const OF_GOOD: u64 = GOOD_EXACT | GOOD_BELOW;
}

/// Key of map `EXCEPTIONS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExceptionKey {
    /// The hash of the name's suffix.
    pub hash: u64,
    /// Which image.
    pub slot: u32,
    /// Zero.
    pub padding: u32,
}

/// One cache line.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// The lower 32 bits of each fingerprint, two in a word; 0 for none.
    pub low: [u64; BUCKET_SLOTS / 2],
    /// The upper four bits of each, from the lowest bit up; [`OVERFLOWED`].
    pub high: u64,
}

/// [`Bucket::high`]: something that belongs here is in its second bucket.
pub const OVERFLOWED: u64 = 1 << 63;

const _: () = assert!(size_of::<Bucket>() == 64);

/// The lower part of a hash's fingerprint, never 0.
#[inline(always)]
const fn low(hash: u64) -> u64 {
    let low = hash & 0xffff_ffff;
    if low == 0 { 1 } else { low }
}

/// The upper part of a hash's fingerprint, for kind 0. Another kind's differs by its number, so that all kinds of a name
/// are found by one look, and those that no list has make nothing more likely.
#[inline(always)]
const fn high(hash: u64) -> u64 {
    (hash >> 32) & 15
}

/// Which of `buckets` a hash leads to first and second. By its upper half, of which the fingerprint has four bits that say
/// the least of the place; then by another one.
#[inline(always)]
pub const fn places(hash: u64, buckets: u32) -> [u32; 2] {
    [place(hash, buckets), place(path_step(hash, PLACE_KEY), buckets)]
}

#[inline(always)]
const fn place(hash: u64, buckets: u32) -> u32 {
    (((hash >> 32) * buckets as u64) >> 32) as u32
}

/// Any number will do.
const PLACE_KEY: u64 = 0x6c69_7374_6564_0001;

impl Bucket {
    /// Puts a fingerprint into a slot that is free.
    pub const fn put(&mut self, slot: usize, hash: u64, kind: u8) {
        self.low[slot / 2] |= low(hash) << (32 * (slot % 2));
        self.high |= (high(hash) ^ kind as u64) << (4 * slot);
    }

    /// 0 when nothing here has this hash, as nearly always. Else something may.
    #[inline(always)]
    fn candidates(&self, hash: u64) -> u64 {
        let both = low(hash) | low(hash) << 32;
        let mut any = 0;
        let mut at = 0;
        // VERIFIER: unrolled, without a branch.
        while at < BUCKET_SLOTS / 2 {
            let different = self.low[at] ^ both;
            any |= different.wrapping_sub(0x1_0000_0001) & !different;
            at += 1;
        }
        any & 0x8000_0000_8000_0000
    }

    /// A bit for each kind of entry with this hash. A function of its own, for its frame.
    #[inline(never)]
    fn kinds(&self, hash: u64) -> u64 {
        let both = low(hash) | low(hash) << 32;
        // Sixteen times the same four bits.
        let high = self.high ^ (high(hash) * 0x1111_1111_1111_1111);
        let mut kinds = 0;
        let mut at = 0;
        // VERIFIER: unrolled, without a branch.
        while at < BUCKET_SLOTS / 2 {
            let different = self.low[at] ^ both;
            kinds |= (1 - not_zero(different << 32)) << ((high >> (8 * at)) & 15);
            kinds |= (1 - not_zero(different >> 32)) << ((high >> (8 * at + 4)) & 15);
            at += 1;
        }
        kinds
    }
}

/// A bit for each kind of entry with this hash; `None` when the table cannot be read.
#[inline(always)]
pub fn find<'t>(hash: u64, buckets: u32, bucket: impl Fn(u32) -> Option<&'t Bucket>) -> Option<u64> {
    let [first, second] = places(hash, buckets);
    let home = bucket(first)?;
    let mut away = home;
    let mut any = home.candidates(hash);
    if home.high & OVERFLOWED != 0 {
        away = bucket(second)?;
        any |= away.candidates(hash);
    }
    if any == 0 {
        return Some(0);
    }
    Some(home.kinds(hash) | away.kinds(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    extern crate std;
    use std::vec;

    #[test]
    fn kinds_of_a_name_are_told_apart_and_nothing_else_is_found() {
        let mut bucket = Bucket::default();
        let hash = 0x1234_5678_0000_0000;
        bucket.put(0, hash, kind::DENY_EXACT);
        bucket.put(13, hash, kind::ALERT_BELOW);
        bucket.put(5, 0xffff_ffff_ffff_ffff, kind::DENY_SUBTREE);
        let find = |hash| find(hash, 1, |at| (at == 0).then_some(&bucket)).unwrap();
        assert_eq!(find(hash), 1 << kind::DENY_EXACT | 1 << kind::ALERT_BELOW);
        assert_eq!(find(u64::MAX), 1 << kind::DENY_SUBTREE);
        // Other upper bits are another kind, which no list has here.
        assert_eq!(find(hash ^ 8 << 32) & (kind::OF_SUFFIX | kind::OF_WHOLE), 0);
        assert_eq!(find(hash ^ 2), 0);
    }

    #[test]
    fn a_second_bucket_is_looked_at_when_the_first_overflowed() {
        let hash = 0x9999_9999_1111_1111;
        let [first, second] = places(hash, 64);
        let mut table = vec![Bucket::default(); 64];
        table[second as usize].put(3, hash, kind::DENY_SUBTREE);
        let look = |table: &[Bucket]| find(hash, 64, |at| table.get(at as usize)).unwrap();
        assert_eq!(look(&table), 0);
        table[first as usize].high |= OVERFLOWED;
        assert_eq!(look(&table), 1 << kind::DENY_SUBTREE);
    }
}
