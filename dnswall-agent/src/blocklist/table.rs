//! Takes the keys of listed names, gives the table the kernel searches ([`dnswall_common::listed`]).

use dnswall_common::listed::{BUCKET_SLOTS, Bucket, OVERFLOWED, places};

/// Of a hundred slots so many are used: fuller, and finding a second place takes moving more than one name.
const LOAD_PERCENT: usize = 80;
/// How often a table that did not come out is tried with more room.
const ATTEMPTS_MAX: usize = 8;

/// A slot that is free.
const FREE: u32 = u32::MAX;

/// One name in one meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The hash of the name's suffix.
    pub hash: u64,
    /// See [`dnswall_common::listed::kind`].
    pub kind: u8,
}

/// Builds the table.
///
/// # Panics
/// With more keys than a 32-bit number counts: a list's limit is far below.
pub fn build(keys: &[Key]) -> Vec<Bucket> {
    assert!(keys.len() < FREE as usize, "the caller bounds how many names there are");
    let mut buckets = (keys.len() * 100).div_ceil(BUCKET_SLOTS * LOAD_PERCENT).max(2);
    for _ in 0..ATTEMPTS_MAX {
        if let Some(table) = fill(keys, buckets as u32) {
            return table;
        }
        buckets += buckets.div_ceil(32);
    }
    unreachable!("a table that is a quarter larger than it needs to be has room for everything")
}

/// `None` when a key found no place.
fn fill(keys: &[Key], buckets: u32) -> Option<Vec<Bucket>> {
    let mut places = Places::new(keys, buckets);
    for at in 0..keys.len() as u32 {
        places.add(at)?;
    }
    Some(places.table())
}

struct Places<'k> {
    keys: &'k [Key],
    buckets: u32,
    slots: Vec<[u32; BUCKET_SLOTS]>,
    overflowed: Vec<bool>,
}

impl<'k> Places<'k> {
    fn new(keys: &'k [Key], buckets: u32) -> Self {
        let count = buckets as usize;
        Self { keys, buckets, slots: vec![[FREE; BUCKET_SLOTS]; count], overflowed: vec![false; count] }
    }

    /// The two buckets where a key may be.
    fn of(&self, key: u32) -> [usize; 2] {
        places(self.keys[key as usize].hash, self.buckets).map(|at| at as usize)
    }

    fn add(&mut self, key: u32) -> Option<()> {
        let [home, away] = self.of(key);
        if self.put(home, key) {
            return Some(());
        }
        self.overflowed[home] = true;
        if self.put(away, key) {
            return Some(());
        }
        // Whoever is at home there and has room elsewhere makes some.
        for slot in 0..BUCKET_SLOTS {
            let other = self.slots[home][slot];
            let [its_home, its_away] = self.of(other);
            if its_home == home && self.put(its_away, other) {
                self.slots[home][slot] = key;
                return Some(());
            }
        }
        None
    }

    fn put(&mut self, bucket: usize, key: u32) -> bool {
        match self.slots[bucket].iter_mut().find(|slot| **slot == FREE) {
            Some(slot) => {
                *slot = key;
                true
            }
            None => false,
        }
    }

    fn table(&self) -> Vec<Bucket> {
        let mut table = vec![Bucket::default(); self.slots.len()];
        for (bucket, (slots, overflowed)) in table.iter_mut().zip(self.slots.iter().zip(&self.overflowed)) {
            for (at, key) in slots.iter().enumerate().filter(|(_, key)| **key != FREE) {
                let Key { hash, kind } = self.keys[*key as usize];
                bucket.put(at, hash, kind);
            }
            if *overflowed {
                bucket.high |= OVERFLOWED;
            }
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dnswall_common::identity::path_step;
    use dnswall_common::listed::{find, kind};

    fn keys(count: u64) -> Vec<Key> {
        (0..count).map(|at| Key { hash: path_step(1, at), kind: kind::DENY_SUBTREE }).collect()
    }

    #[test]
    fn every_key_is_found_and_others_are_not() {
        for count in [0, 1, 2, 13, 14, 15, 1_000, 200_000] {
            let keys = keys(count);
            let table = build(&keys);
            let look = |hash| find(hash, table.len() as u32, |at| table.get(at as usize)).unwrap();
            for key in &keys {
                assert_eq!(look(key.hash) & 1, 1, "of {count}");
            }
            let wrong = (0..200_000).filter(|at| look(path_step(2, *at)) & kind::DENIES != 0).count();
            assert_eq!(wrong, 0, "of {count}");
            assert!(count < 1_000 || table.len() * 64 <= 6 * keys.len(), "six bytes a name");
        }
    }

    #[test]
    fn the_same_hash_in_several_kinds_is_found_in_all() {
        let hash = path_step(7, 7);
        let of = |kind| Key { hash, kind };
        let table = build(&[of(kind::DENY_EXACT), of(kind::DENY_BELOW), of(kind::ALERT_SUBTREE)]);
        let kinds = find(hash, table.len() as u32, |at| table.get(at as usize)).unwrap();
        assert_eq!(kinds, 1 << kind::DENY_EXACT | 1 << kind::DENY_BELOW | 1 << kind::ALERT_SUBTREE);
    }
}
