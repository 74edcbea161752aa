//! A map of bounded size that forgets what was not asked for longest.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// At most `capacity` entries.
#[derive(Debug)]
pub struct Lru<K, V> {
    capacity: usize,
    entries: HashMap<K, Slot<V>>,
    by_use: BTreeMap<u64, K>,
    uses: u64,
}

#[derive(Debug)]
struct Slot<V> {
    used: u64,
    value: V,
}

impl<K: Clone + Eq + Hash, V> Lru<K, V> {
    /// An empty one; with capacity 0 it keeps nothing.
    pub fn new(capacity: usize) -> Self {
        Self { capacity, entries: HashMap::new(), by_use: BTreeMap::new(), uses: 0 }
    }

    /// The value, which counts as used.
    pub fn get(&mut self, key: &K) -> Option<&mut V> {
        let slot = self.entries.get_mut(key)?;
        self.by_use.remove(&slot.used);
        self.uses += 1;
        slot.used = self.uses;
        self.by_use.insert(slot.used, key.clone());
        Some(&mut slot.value)
    }

    /// Puts a value in, in place of the key's old one; when full, the least recently used one goes.
    pub fn insert(&mut self, key: K, value: V) {
        if self.capacity == 0 {
            return;
        }
        if let Some(old) = self.get(&key) {
            *old = value;
            return;
        }
        if self.entries.len() >= self.capacity
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.entries.remove(&oldest);
        }
        self.uses += 1;
        self.by_use.insert(self.uses, key.clone());
        self.entries.insert(key, Slot { used: self.uses, value });
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let slot = self.entries.remove(key)?;
        self.by_use.remove(&slot.used);
        Some(slot.value)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut lru = Lru::new(2);
        lru.insert("a", 1);
        lru.insert("b", 2);
        assert_eq!(lru.get(&"a"), Some(&mut 1));
        lru.insert("c", 3);
        assert_eq!(lru.get(&"b"), None);
        assert_eq!(lru.len(), 2);
        lru.insert("a", 4);
        assert_eq!(lru.get(&"a"), Some(&mut 4));
        assert_eq!(lru.remove(&"a"), Some(4));
        assert_eq!((lru.remove(&"a"), lru.len(), lru.is_empty()), (None, 1, false));
        assert_eq!(lru.by_use.len(), lru.entries.len());
    }

    #[test]
    fn no_capacity_keeps_nothing() {
        let mut lru = Lru::new(0);
        lru.insert(1, 1);
        assert!(lru.is_empty());
    }
}
