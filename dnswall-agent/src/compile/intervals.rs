//! A set of numbers as intervals: addresses, or protocols with ports.

/// Intervals with both ends included, ascending, neither touching nor overlapping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Intervals(Vec<(u128, u128)>);

impl Intervals {
    /// The union of intervals in any order.
    pub(super) fn union(mut parts: Vec<(u128, u128)>) -> Self {
        parts.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::with_capacity(parts.len());
        for (first, last) in parts {
            match merged.last_mut() {
                Some((_, end)) if end.checked_add(1).is_none_or(|next| first <= next) => {
                    *end = last.max(*end)
                }
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    /// What is here and not there.
    pub(super) fn without(&self, other: &Self) -> Self {
        let mut left = Vec::with_capacity(self.0.len());
        let mut holes = other.0.as_slice();
        for &(first, last) in &self.0 {
            let passed = holes.partition_point(|hole| hole.1 < first);
            holes = &holes[passed..];
            let mut at = Some(first);
            for &(hole_first, hole_last) in holes.iter().take_while(|hole| hole.0 <= last) {
                match at {
                    Some(start) if start < hole_first => left.push((start, hole_first - 1)),
                    _ => {}
                }
                at = hole_last.checked_add(1);
            }
            match at {
                Some(start) if start <= last => left.push((start, last)),
                _ => {}
            }
        }
        Self(left)
    }

    /// Whether nothing is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The intervals.
    pub(super) fn as_slice(&self) -> &[(u128, u128)] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A small universe with both ends of the large one: numbers 0 to 15 stay, 16 to 31 lie at the upper end.
    fn number(small: u8) -> u128 {
        if small < 16 { small.into() } else { u128::MAX - u128::from(31 - small) }
    }

    fn intervals() -> impl Strategy<Value = Vec<(u128, u128)>> {
        let ends = (0u8..32, 0u8..32).prop_map(|(a, b)| (number(a.min(b)), number(a.max(b))));
        proptest::collection::vec(ends, 0..6)
    }

    fn holds(parts: &[(u128, u128)], at: u128) -> bool {
        parts.iter().any(|(first, last)| (*first..=*last).contains(&at))
    }

    proptest! {
        #[test]
        fn sets_hold_what_they_should(a in intervals(), b in intervals()) {
            let (left, right) = (Intervals::union(a.clone()), Intervals::union(b.clone()));
            let difference = left.without(&right);
            for at in (0..32).map(number) {
                prop_assert_eq!(holds(left.as_slice(), at), holds(&a, at));
                prop_assert_eq!(holds(difference.as_slice(), at), holds(&a, at) && !holds(&b, at));
            }
            for set in [&left, &difference] {
                for pair in set.as_slice().windows(2) {
                    prop_assert!(pair[0].1 < pair[1].0);
                }
            }
            prop_assert!(left.as_slice().windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
        }
    }
}
