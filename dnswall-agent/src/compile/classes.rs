//! Takes each rule's addresses, gives the classes: distinct sets of rules that hold for the same addresses, and where
//! along the address space each begins.

use super::intervals::Intervals;
use std::collections::{BTreeSet, HashMap};

/// Members of all classes together. Each class lists its rules, so rules that overlap everywhere cost their square;
/// this bounds it to 32 MiB.
pub(super) const CLASS_MEMBERS_MAX: usize = 8 * 1024 * 1024;

/// The classes of a policy, of both address families together. Class 0 is "no rule".
#[derive(Debug)]
pub(super) struct Classes {
    members: Vec<Vec<u32>>,
    by_fingerprint: HashMap<u128, u32>,
    member_count: usize,
}

/// There are more overlaps than [`CLASS_MEMBERS_MAX`]; the rule at hand when they were.
#[derive(Debug)]
pub(super) struct TooManyOverlaps {
    /// One of the rules that overlap.
    pub(super) rule: u32,
}

impl Classes {
    /// Only class 0.
    pub(super) fn new() -> Self {
        Self { members: vec![Vec::new()], by_fingerprint: HashMap::from([(0, 0)]), member_count: 0 }
    }

    /// The rules of each class, by number.
    pub(super) fn members(&self) -> &[Vec<u32>] {
        &self.members
    }

    /// Sweeps over the address space, gives the addresses where another class begins. Neighbours of the same class
    /// are one. `highest` is the last address of the family.
    ///
    /// # Errors
    /// When the rules overlap too much.
    pub(super) fn sweep<'a>(
        &mut self,
        rules: impl Iterator<Item = (u32, &'a Intervals)>,
        highest: u128,
    ) -> Result<Vec<(u128, u32)>, TooManyOverlaps> {
        let mut edges: Vec<(u128, u32)> = Vec::new();
        for (rule, addresses) in rules {
            for &(first, last) in addresses.as_slice() {
                edges.push((first, rule));
                if last < highest {
                    edges.push((last + 1, rule));
                }
            }
        }
        edges.sort_unstable();
        let (mut active, mut fingerprint) = (BTreeSet::new(), 0);
        let mut starts: Vec<(u128, u32)> = Vec::new();
        for group in edges.chunk_by(|left, right| left.0 == right.0) {
            for &(_, rule) in group {
                // A rule's intervals neither touch nor overlap: each edge changes sides.
                if !active.remove(&rule) {
                    active.insert(rule);
                }
                fingerprint ^= token(rule);
            }
            let class = self.class(fingerprint, &active).ok_or(TooManyOverlaps { rule: group[0].1 })?;
            if starts.last().map_or(0, |(_, class)| *class) != class {
                starts.push((group[0].0, class));
            }
        }
        Ok(starts)
    }

    fn class(&mut self, fingerprint: u128, active: &BTreeSet<u32>) -> Option<u32> {
        if let Some(class) = self.by_fingerprint.get(&fingerprint) {
            return Some(*class);
        }
        self.member_count += active.len();
        if self.member_count > CLASS_MEMBERS_MAX {
            return None;
        }
        let class = u32::try_from(self.members.len()).ok()?;
        self.members.push(active.iter().copied().collect());
        self.by_fingerprint.insert(fingerprint, class);
        Some(class)
    }
}

/// What a rule adds to a set's fingerprint. A set is known by the sum of its rules' tokens without carry, which an
/// edge changes in one step however large the set is; that two sets of one policy share 128 bits by accident is not
/// going to happen.
fn token(rule: u32) -> u128 {
    let half = |salt: u64| {
        let mut value = (u64::from(rule) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    };
    u128::from(half(0x243f_6a88_85a3_08d3)) << 64 | u128::from(half(0x1319_8a2e_0370_7344))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_address_has_the_class_of_its_rules(
            rules in proptest::collection::vec(proptest::collection::vec((0u8..40, 0u8..40), 0..4), 0..8)
        ) {
            let sets: Vec<Intervals> = rules
                .iter()
                .map(|parts| {
                    let part = |(a, b): &(u8, u8)| (u128::from(*a.min(b)), u128::from(*a.max(b)));
                    Intervals::union(parts.iter().map(part).collect())
                })
                .collect();
            let mut classes = Classes::new();
            let starts = classes.sweep(sets.iter().enumerate().map(|(i, set)| (i as u32, set)), u128::MAX).unwrap();
            for at in 0..=41u128 {
                let class = starts.iter().rev().find(|(start, _)| *start <= at).map_or(0, |(_, class)| *class);
                let expected: Vec<u32> = sets
                    .iter()
                    .enumerate()
                    .filter(|(_, set)| set.as_slice().iter().any(|(a, b)| (*a..=*b).contains(&at)))
                    .map(|(rule, _)| rule as u32)
                    .collect();
                prop_assert_eq!(&classes.members()[class as usize], &expected);
            }
            prop_assert!(starts.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 != pair[1].1));
            prop_assert!(starts.first().is_none_or(|(_, class)| *class != 0));
        }
    }

    #[test]
    fn the_last_address_needs_no_end() {
        let all = Intervals::union(vec![(0, u128::MAX)]);
        let mut classes = Classes::new();
        assert_eq!(classes.sweep([(7, &all)].into_iter(), u128::MAX).unwrap(), [(0, 1)]);
        let all4 = Intervals::union(vec![(0, u32::MAX.into())]);
        assert_eq!(classes.sweep([(7, &all4)].into_iter(), u32::MAX.into()).unwrap(), [(0, 1)]);
        assert_eq!(classes.members(), [vec![], vec![7]]);
        // The other family: the same set of rules is the same class.
        assert_eq!(
            classes.sweep([(7, &Intervals::union(vec![(3, 4)]))].into_iter(), u128::MAX).unwrap(),
            [(3, 1), (5, 0)]
        );
    }
}
