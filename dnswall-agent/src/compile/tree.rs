//! Takes sorted interval starts with their values, gives the nodes of an implicit B-tree as
//! [`dnswall_common::search`] walks it.

use dnswall_common::search::{FANOUT4, FANOUT8, Node4, Node6, NodePort, PORT_KEY_PADDING};

/// The IPv4 tree. Starts ascend strictly; keys below the first have the value 0.
pub(super) fn nodes4(starts: &[(u128, u32)]) -> Vec<Node4> {
    let slots = Slots::new(starts.len(), FANOUT4);
    slots.fill(starts, |keys, values| {
        let mut node = Node4 { keys: [u32::MAX; FANOUT4], values: [0; FANOUT4 + 1], padding: 0 };
        for (to, from) in node.keys.iter_mut().zip(keys) {
            // The caller's starts are IPv4 addresses.
            *to = *from as u32;
        }
        node.values.copy_from_slice(values);
        node
    })
}

/// The IPv6 tree. Starts ascend strictly; keys below the first have the value 0.
pub(super) fn nodes6(starts: &[(u128, u32)]) -> Vec<Node6> {
    let slots = Slots::new(starts.len(), FANOUT8);
    slots.fill(starts, |keys, values| {
        let mut node = Node6 {
            highs: [u64::MAX; FANOUT8],
            lows: [u64::MAX; FANOUT8],
            values: [0; FANOUT8 + 1],
            padding: 0,
        };
        for (at, key) in keys.iter().enumerate() {
            node.highs[at] = (key >> 64) as u64;
            node.lows[at] = *key as u64;
        }
        node.values.copy_from_slice(values);
        node
    })
}

/// The port tree. Starts ascend strictly; keys below the first have the value 0.
pub(super) fn nodes_port(starts: &[(u128, u32)]) -> Vec<NodePort> {
    let slots = Slots::new(starts.len(), FANOUT8);
    slots.fill(starts, |keys, values| {
        let mut node = NodePort { keys: [PORT_KEY_PADDING; FANOUT8], values: [0; FANOUT8 + 1], padding: 0 };
        for (to, from) in node.keys.iter_mut().zip(keys) {
            // The caller's starts are port keys, far below 2^63.
            *to = *from as u64;
        }
        node.values.copy_from_slice(values);
        node
    })
}

/// Which sorted position each place of each node holds.
struct Slots {
    fanout: usize,
    /// Position of node `i`'s first place among the sorted starts, and whether a subtree lies before it.
    first: Vec<Vec<usize>>,
}

impl Slots {
    /// As many nodes as hold `count` starts, numbered in the order of an in-order walk.
    fn new(count: usize, fanout: usize) -> Self {
        let mut slots = Self { fanout, first: vec![Vec::with_capacity(fanout); count.div_ceil(fanout)] };
        let mut next = 0;
        slots.walk(0, &mut next);
        slots
    }

    fn walk(&mut self, node: usize, next: &mut usize) {
        if node >= self.first.len() {
            return;
        }
        for place in 0..self.fanout {
            self.walk(node * (self.fanout + 1) + 1 + place, next);
            self.first[node].push(*next);
            *next += 1;
        }
        self.walk(node * (self.fanout + 1) + 1 + self.fanout, next);
    }

    /// Builds every node from its keys (those that exist) and its values by rank.
    fn fill<N>(&self, starts: &[(u128, u32)], node: impl Fn(&[u128], &[u32]) -> N) -> Vec<N> {
        // Value of the interval that begins at the start in this position; past the end, of the last one.
        let value_at = |position: usize| match starts.get(position).or(starts.last()) {
            Some((_, value)) => *value,
            None => 0,
        };
        let (mut keys, mut values) = (Vec::with_capacity(self.fanout), Vec::with_capacity(self.fanout + 1));
        self.first
            .iter()
            .map(|positions| {
                keys.clear();
                values.clear();
                values.push(positions[0].checked_sub(1).map_or(0, value_at));
                for position in positions {
                    keys.extend(starts.get(*position).map(|(key, _)| *key));
                    values.push(value_at(*position));
                }
                node(&keys, &values)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dnswall_common::search::{find_port, find4, find6};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn naive(starts: &[(u128, u32)], key: u128) -> u32 {
        starts.iter().rev().find(|(start, _)| *start <= key).map_or(0, |(_, value)| *value)
    }

    fn check(starts: &[(u128, u32)], keys: impl Iterator<Item = u128>) {
        let v4: Vec<(u128, u32)> =
            starts.iter().filter(|(start, _)| *start <= u32::MAX.into()).copied().collect();
        let ports: Vec<(u128, u32)> = starts.iter().filter(|(start, _)| *start < 1 << 60).copied().collect();
        let (nodes4, nodes6, nodes_port) = (nodes4(&v4), nodes6(starts), nodes_port(&ports));
        for key in keys {
            let (high, low) = ((key >> 64) as u64, key as u64);
            let found = find6(nodes6.len() as u32, high, low, |index| nodes6.get(index as usize));
            assert_eq!(found, Some(naive(starts, key)), "{key:#x} of {} starts", starts.len());
            if let Ok(key) = u32::try_from(key) {
                let found = find4(nodes4.len() as u32, key, |index| nodes4.get(index as usize));
                assert_eq!(found, Some(naive(&v4, key.into())), "{key:#x} of {} starts", v4.len());
            }
            if key < 1 << 60 {
                let found = find_port(nodes_port.len() as u32, low, |index| nodes_port.get(index as usize));
                assert_eq!(found, Some(naive(&ports, key)), "{key:#x} of {} starts", ports.len());
            }
        }
    }

    #[test]
    fn every_size_up_to_three_levels_finds_every_boundary() {
        // 16 and 8 fill a node, 288 and 80 two levels.
        for count in (0..=90).chain([287, 288, 289, 290, 728, 729, 1000]) {
            let starts: Vec<(u128, u32)> = (0..count).map(|i| (u128::from(i) * 3 + 5, i + 1)).collect();
            let keys = (0..u128::from(count) * 3 + 9).chain([u32::MAX.into(), (1 << 60) - 1, u128::MAX]);
            check(&starts, keys);
        }
    }

    #[test]
    fn the_greatest_key_is_a_key_like_any_other() {
        for count in 0..40u32 {
            let mut starts: Vec<(u128, u32)> = (0..count).map(|i| (u128::from(i), i + 1)).collect();
            starts.push((u32::MAX.into(), 100));
            check(&starts, [u128::from(u32::MAX) - 1, u32::MAX.into()].into_iter());
            starts.push((u128::MAX, 200));
            check(&starts, [u128::MAX - 1, u128::MAX, u32::MAX.into()].into_iter());
        }
    }

    proptest! {
        #[test]
        fn trees_find_what_a_scan_finds(
            starts in proptest::collection::btree_map(
                prop_oneof![any::<u32>().prop_map(u128::from), any::<u64>().prop_map(u128::from), any::<u128>()],
                any::<u32>(),
                0..400,
            ),
            others in proptest::collection::vec(any::<u128>(), 20),
        ) {
            let starts: BTreeMap<u128, u32> = starts;
            let starts: Vec<(u128, u32)> = starts.into_iter().collect();
            let near = starts.iter().flat_map(|(start, _)| {
                [start.saturating_sub(1), *start, start.saturating_add(1)]
            });
            check(&starts, near.collect::<Vec<_>>().into_iter().chain(others));
        }
    }
}
