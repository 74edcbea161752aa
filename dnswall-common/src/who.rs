//! Who a flow belongs to, as the policy sees it: a set of `from` entries.

use crate::limits::SELECTORS_MAX;

/// Words of a [`Who`].
pub const WHO_WORDS: usize = SELECTORS_MAX / 64;

/// A set of selectors (the distinct `from` entries of a policy), one bit each. Bit 0 is in every socket's set.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Who {
    /// Bit `i % 64` of word `i / 64` is selector `i`.
    pub words: [u64; WHO_WORDS],
}

const _: () = assert!(size_of::<Who>() == 32);

impl Who {
    /// No selector at all: matches no rule.
    pub const NONE: Self = Self { words: [0; WHO_WORDS] };
    /// Every selector, whether the policy has it or not.
    pub const ALL: Self = Self { words: [u64::MAX; WHO_WORDS] };
    /// Only bit 0: what is known of a socket of which nothing is known.
    pub const EVERYONE: Self = {
        let mut words = [0; WHO_WORDS];
        words[0] = 1;
        Self { words }
    };

    /// Whether the two sets share a selector.
    #[inline(always)]
    pub fn intersects(&self, other: &Self) -> bool {
        (self.words[0] & other.words[0])
            | (self.words[1] & other.words[1])
            | (self.words[2] & other.words[2])
            | (self.words[3] & other.words[3])
            != 0
    }

    /// Selectors in both.
    #[inline(always)]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            words: [
                self.words[0] & other.words[0],
                self.words[1] & other.words[1],
                self.words[2] & other.words[2],
                self.words[3] & other.words[3],
            ],
        }
    }

    /// Selectors in either.
    #[inline(always)]
    pub fn or(&self, other: &Self) -> Self {
        Self {
            words: [
                self.words[0] | other.words[0],
                self.words[1] | other.words[1],
                self.words[2] | other.words[2],
                self.words[3] | other.words[3],
            ],
        }
    }

    /// Selectors that the other has not.
    #[inline(always)]
    pub fn without(&self, other: &Self) -> Self {
        Self {
            words: [
                self.words[0] & !other.words[0],
                self.words[1] & !other.words[1],
                self.words[2] & !other.words[2],
                self.words[3] & !other.words[3],
            ],
        }
    }

    /// Whether every selector of this set is in the other.
    #[inline(always)]
    pub fn is_within(&self, other: &Self) -> bool {
        (self.words[0] & !other.words[0])
            | (self.words[1] & !other.words[1])
            | (self.words[2] & !other.words[2])
            | (self.words[3] & !other.words[3])
            == 0
    }

    /// Adds selector `index`; an index of [`SELECTORS_MAX`] or more is not a selector and changes nothing.
    pub fn insert(&mut self, index: usize) {
        if let Some(word) = self.words.get_mut(index / 64) {
            *word |= 1 << (index % 64);
        }
    }

    /// Whether selector `index` is in the set.
    pub fn contains(&self, index: usize) -> bool {
        self.words.get(index / 64).is_some_and(|word| word & (1 << (index % 64)) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in_and_nothing_else() {
        let mut set = Who::NONE;
        for index in [0, 63, 64, 255] {
            set.insert(index);
        }
        set.insert(SELECTORS_MAX);
        let held: [usize; 4] = [0, 63, 64, 255];
        for index in 0..SELECTORS_MAX {
            assert_eq!(set.contains(index), held.contains(&index), "{index}");
        }
        assert!(!set.contains(SELECTORS_MAX));
        assert!(set.intersects(&Who::EVERYONE));
        assert!(!Who::NONE.intersects(&Who::ALL));
        assert_eq!(set.and(&Who::EVERYONE), Who::EVERYONE);
        assert_eq!(set.or(&Who::ALL), Who::ALL);
        assert_eq!(set.without(&Who::ALL), Who::NONE);
        assert_eq!(set.without(&Who::EVERYONE).or(&Who::EVERYONE), set);
        assert!(!set.without(&Who::EVERYONE).contains(0));
        assert!(set.is_within(&set) && set.is_within(&Who::ALL) && Who::NONE.is_within(&set));
        assert!(!set.is_within(&Who::EVERYONE));
    }
}
