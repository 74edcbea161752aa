//! Takes the name of a DNS question, label by label, and gives a keyed hash for each of its suffixes.
//!
//! A name is hashed from the right, so that each suffix has a hash of its own: that of `www.example.com` is one step from
//! that of `example.com`. Letters count in lower case (RFC 4343), and a label is hashed with its length, so that no label is
//! another one with zeroes behind it.

use crate::identity::path_step;
use crate::reason::Reason;
use crate::verifier::{forget, next};

/// Labels of a name that is looked at; one with more is refused. Names below `ip6.arpa` have 34, block lists of IPv6
/// addresses asked over DNS a few more.
pub const LABELS_MAX: usize = 40;
/// Bytes of a label (RFC 1035, 2.3.4).
pub const LABEL_BYTES_MAX: u8 = 63;
/// Bytes of a name as it is in a message, lengths and root included (RFC 1035, 2.3.4).
pub const NAME_BYTES_MAX: u32 = 255;
/// Words that hold a label and the length before it.
pub const LABEL_WORDS: usize = 8;

/// A label as it is in a message: its length, its bytes, and whatever comes behind it.
pub type LabelWords = [u64; LABEL_WORDS];

/// Reads the name that begins at `at`; puts the hash of each label, from the left, into `hashes`. Gives how many there are
/// (0 for the root; [`Reason::TooManyLabels`] when they do not fit) and where the name ends. `load` copies what is there, as much as fits, `load_long` a label of this length and zeroes behind it; both give `false` behind the end;
/// `unknown` gives a number the verifier knows nothing of.
///
/// # Errors
/// The reason why the question is refused.
#[inline(always)]
pub fn read_labels<const N: usize>(
    key: u64,
    at: u32,
    hashes: &mut [u64; N],
    unknown: impl Fn() -> u64,
    mut load: impl FnMut(u32, &mut LabelWords) -> bool,
    load_long: impl Fn(u32, u8, &mut LabelWords) -> bool,
) -> Result<(u64, u32), Reason> {
    // Not zeroes: the compiler would have them set a byte at a time.
    let mut words = [unknown(); LABEL_WORDS];
    let mut here = at;
    let mut count = 0;
    // VERIFIER: N rounds with a known index each, and one for the end.
    while count <= N {
        if !load(here, &mut words) {
            return Err(Reason::MalformedQuestion);
        }
        let length = words[0] as u8;
        if length == 0 {
            return Ok((count as u64, here + 1));
        }
        // A pointer (or a label of a kind that was never used): none has a place in a question.
        if length > LABEL_BYTES_MAX {
            return Err(Reason::MalformedQuestion);
        }
        if count == N {
            break;
        }
        if is_long(length) && !load_long(here, length, &mut words) {
            return Err(Reason::MalformedQuestion);
        }
        hashes[count] = label_hash(key, &words, length);
        here = forget(here as u64 + length as u64 + 1, unknown()) as u32;
        count = next(count);
    }
    Err(Reason::TooManyLabels)
}

/// The hash of a label with its length before it: of one word, or two, or of a long label all of them, behind which there have to be
/// zeroes ([`is_long`]).
#[inline(always)]
pub fn label_hash(key: u64, words: &LabelWords, length: u8) -> u64 {
    let length = length as u64;
    // Three ways and no more: a verifier walks on from each.
    if length < 8 {
        return path_step(key, lower_case(words[0] & without(7 - length)));
    }
    let mut hash = path_step(key, lower_case(words[0]));
    if length < 16 {
        return path_step(hash, lower_case(words[1] & without(15 - length)));
    }
    let mut at = 1;
    // VERIFIER: seven rounds with a known index each.
    while at < LABEL_WORDS {
        hash = path_step(hash, lower_case(words[at]));
        at = next(at);
    }
    hash
}

/// Whether the hash of a label takes all words, whatever its length.
#[inline(always)]
pub const fn is_long(length: u8) -> bool {
    length >= 16
}

/// All bytes of a word but the last ones, up to seven.
#[inline(always)]
fn without(bytes: u64) -> u64 {
    u64::MAX >> (8 * (bytes & 7))
}

/// The hash of a suffix that is one label longer.
#[inline(always)]
pub const fn suffix_step(suffix: u64, label: u64) -> u64 {
    path_step(suffix, label)
}

/// The same eight bytes with `A` to `Z` in lower case, without a branch. A length byte is below `A`, all of them.
#[inline(always)]
pub const fn lower_case(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let seven = word & (0x7f * ONES);
    let from_a = seven + (0x80 - b'A' as u64) * ONES;
    let above_z = seven + (0x7f - b'Z' as u64) * ONES;
    let is_letter = (from_a ^ above_z) & !word & (0x80 * ONES);
    word | is_letter >> 2
}

#[cfg(test)]
mod tests {
    use super::*;

    extern crate std;
    use std::collections::HashSet;

    #[test]
    fn what_is_behind_a_label_does_not_count_and_every_byte_of_it_does() {
        let mut seen = HashSet::new();
        for length in 1..=LABEL_BYTES_MAX {
            let label = |change: usize, behind: u8| {
                let mut bytes = [if is_long(length) { 0 } else { behind }; 64];
                bytes[0] = length;
                bytes[1..=usize::from(length)].fill(b'a');
                bytes[change] ^= 1;
                let words = core::array::from_fn(|at| {
                    u64::from_le_bytes(bytes[8 * at..8 * at + 8].try_into().unwrap())
                });
                label_hash(7, &words, length)
            };
            for change in 0..=usize::from(length) {
                let hash = label(change, 0);
                assert_eq!(hash, label(change, 0xff), "{length} {change}");
                assert!(seen.insert(hash), "{length} {change}");
            }
        }
    }
}
