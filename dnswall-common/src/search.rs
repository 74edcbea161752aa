//! Takes a key and sorted interval starts laid out as an implicit B-tree, gives the value of the key's interval.
//!
//! A policy's destinations become a sorted list of interval starts with a class each. Kept as a static B-tree
//! without child pointers (node `i` has its children at `i * (B + 1) + 1 ..`), a lookup among 20,000 starts touches
//! four nodes, reads nothing else, and costs the same whatever the prefix lengths are. The kernel's LPM trie walks
//! one node a bit instead.
//!
//! A node's value `r` is the value of the interval that holds every key with exactly `r` of the node's starts at or
//! below it, so the last node visited has the answer and no step depends on a branch.

use crate::limits::LEVELS_MAX;
use crate::verifier::{next, not_zero, opaque};

/// Starts in an IPv4 node.
pub const FANOUT4: usize = 16;
/// Starts in an IPv6 or port node.
pub const FANOUT8: usize = 8;

/// A node over 32-bit keys.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node4 {
    /// Interval starts, ascending; padded with `u32::MAX`.
    pub keys: [u32; FANOUT4],
    /// Value by rank.
    pub values: [u32; FANOUT4 + 1],
    /// Keeps the size a multiple of 8.
    pub padding: u32,
}

/// A node over 128-bit keys, kept as two halves.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node6 {
    /// Upper halves of the interval starts, padded with `u64::MAX`.
    pub highs: [u64; FANOUT8],
    /// Lower halves.
    pub lows: [u64; FANOUT8],
    /// Value by rank.
    pub values: [u32; FANOUT8 + 1],
    /// Keeps the size a multiple of 8.
    pub padding: u32,
}

/// A node over keys below 2^63 (see [`crate::flow::port_key`]).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodePort {
    /// Interval starts, ascending; padded with [`PORT_KEY_PADDING`].
    pub keys: [u64; FANOUT8],
    /// Value by rank.
    pub values: [u32; FANOUT8 + 1],
    /// Keeps the size a multiple of 8.
    pub padding: u32,
}

/// Greater than every port key and still below 2^63, so that the subtraction in [`NodePort::rank`] stays exact.
pub const PORT_KEY_PADDING: u64 = u64::MAX >> 2;

const _: () = assert!(size_of::<Node4>() == 136 && core::mem::offset_of!(Node4, values) == 64);
const _: () = assert!(size_of::<Node6>() == 168 && core::mem::offset_of!(Node6, values) == 128);
const _: () = assert!(size_of::<NodePort>() == 104 && core::mem::offset_of!(NodePort, values) == 64);

/// 1 when `left < right` as unsigned 64-bit numbers, else 0, without a branch.
#[inline(always)]
fn borrow(left: u64, right: u64) -> u64 {
    let difference = left.wrapping_sub(right);
    opaque(opaque((!left & right) | ((!left | right) & difference)) >> 63)
}

impl Node4 {
    /// How many of the node's starts are at or below `key`: 0 to 16.
    #[inline(always)]
    pub fn rank(&self, key: u32) -> usize {
        let above = opaque(key as u64 + 1);
        let mut rank = 0;
        let mut at = 0;
        while at < FANOUT4 {
            rank += (self.keys[at] as u64).wrapping_sub(above) >> 63;
            at += 1;
        }
        rank as usize
    }
}

impl NodePort {
    /// How many of the node's starts are at or below `key`: 0 to 8.
    #[inline(always)]
    pub fn rank(&self, key: u64) -> usize {
        let above = opaque(key + 1);
        let mut rank = 0;
        let mut at = 0;
        while at < FANOUT8 {
            rank += self.keys[at].wrapping_sub(above) >> 63;
            at += 1;
        }
        rank as usize
    }
}

impl Node6 {
    /// How many of the node's starts are at or below the key: 0 to 8.
    #[inline(always)]
    pub fn rank(&self, high: u64, low: u64) -> usize {
        let mut below = 0;
        let mut at = 0;
        // VERIFIER: FANOUT8 rounds, not unrolled: eight at once do not fit the registers, and spill half a stack.
        while at < FANOUT8 {
            let (start_high, start_low) = (self.highs[at & (FANOUT8 - 1)], self.lows[at & (FANOUT8 - 1)]);
            let equal = 1 - not_zero(high ^ start_high);
            below += borrow(high, start_high) | (equal & borrow(low, start_low));
            at = next(at);
        }
        FANOUT8 - below as usize
    }
}

macro_rules! find {
    ($(#[$doc:meta])* $name:ident, $node:ty, $fanout:expr, ($($key:ident: $type:ty),*)) => {
        $(#[$doc])*
        #[inline(always)]
        pub fn $name<'a>(count: u32, $($key: $type,)* node: impl Fn(u32) -> Option<&'a $node>) -> Option<u32> {
            let mut index = 0u32;
            let mut value = 0;
            let mut level = 0;
            // VERIFIER: at most LEVELS_MAX rounds; the array lookup itself bounds the index.
            while level < LEVELS_MAX {
                if index >= count {
                    break;
                }
                let node = node(index)?;
                let rank = node.rank($($key),*);
                value = node.values[if rank > $fanout { $fanout } else { rank }];
                index = index * ($fanout as u32 + 1) + rank as u32 + 1;
                level = next(level);
            }
            Some(value)
        }
    };
}

find!(
    /// The value of the interval that holds `key`; 0 in an empty tree, `None` when a node cannot be read.
    find4, Node4, FANOUT4, (key: u32)
);
find!(
    /// The value of the interval that holds the 128-bit key; 0 in an empty tree, `None` when a node cannot be read.
    find6, Node6, FANOUT8, (high: u64, low: u64)
);
find!(
    /// The value of the interval that holds `key`; 0 in an empty tree, `None` when a node cannot be read.
    find_port, NodePort, FANOUT8, (key: u64)
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn borrow_is_less_than() {
        for left in [0, 1, 2, u64::MAX / 2, u64::MAX / 2 + 1, u64::MAX - 1, u64::MAX] {
            for right in [0, 1, 2, u64::MAX / 2, u64::MAX / 2 + 1, u64::MAX - 1, u64::MAX] {
                assert_eq!(borrow(left, right) == 1, left < right, "{left} {right}");
            }
        }
    }

    proptest! {
        #[test]
        fn ranks_count_starts_at_or_below(mut keys: [u128; FANOUT8], key: u128, narrow: bool) {
            if narrow {
                for key in &mut keys { *key = ((*key % 3) << 64) | ((*key >> 70) % 3); }
            }
            let key = if narrow { ((key % 3) << 64) | ((key >> 70) % 3) } else { key };
            keys.sort_unstable();
            let expected = keys.iter().filter(|start| **start <= key).count();
            let node = Node6 {
                highs: keys.map(|k| (k >> 64) as u64), lows: keys.map(|k| k as u64),
                values: [0; FANOUT8 + 1], padding: 0,
            };
            prop_assert_eq!(node.rank((key >> 64) as u64, key as u64), expected);
        }

        #[test]
        fn ranks_of_narrow_keys(mut keys: [u32; FANOUT4], key: u32) {
            keys.sort_unstable();
            let node = Node4 { keys, values: [0; FANOUT4 + 1], padding: 0 };
            prop_assert_eq!(node.rank(key), keys.iter().filter(|start| **start <= key).count());
            let wide: [u64; FANOUT8] = core::array::from_fn(|i| keys[i] as u64);
            let node = NodePort { keys: wide, values: [0; FANOUT8 + 1], padding: 0 };
            prop_assert_eq!(node.rank(key as u64), wide.iter().filter(|start| **start <= key as u64).count());
        }
    }
}
