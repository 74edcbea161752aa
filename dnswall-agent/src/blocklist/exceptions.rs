//! What lists take back: which list excepts a name, and what of that the kernel has to know.

use std::collections::{HashMap, HashSet};

use dnswall_common::listed::{Bucket, exception, find, kind};

use super::format::Meaning;
use super::index::Record;
use super::known_good::KnownGood;
use super::lists::{Exception, List, ListAction};
use super::name::DomainName;

/// The exceptions of all lists.
#[derive(Default)]
pub struct Exceptions {
    /// By the name's hash.
    pub names: HashMap<u64, Excepted>,
    /// By the list's number: whether its exceptions count whatever the lengths of its entries are.
    pub win: Vec<bool>,
}

/// A name that lists take back.
pub struct Excepted {
    /// Of all its suffixes, its own last.
    pub suffixes: Box<[u64]>,
    /// By whom.
    pub by: Vec<Record>,
}

impl Exceptions {
    /// Adds what a list says of a name.
    pub fn add(&mut self, record: Record, suffixes: Box<[u64]>) {
        let excepted = self.names.entry(record.hash).or_insert_with(|| Excepted { suffixes, by: Vec::new() });
        excepted.by.push(record);
    }

    /// Takes away whatever a list says.
    pub fn forget(&mut self, list: u16) {
        self.names.retain(|_, excepted| {
            excepted.by.retain(|record| record.list != list);
            !excepted.by.is_empty()
        });
    }

    /// Only what something listed, or a fingerprint like it, would refuse otherwise.
    pub fn of_kernel(
        &self,
        lists: &[List],
        records: &[Record],
        known_good: &KnownGood,
        key: u64,
        table: &[Bucket],
    ) -> Vec<Exception> {
        let mut made: HashMap<u64, u64> = HashMap::new();
        for (hash, Excepted { suffixes, .. }) in &self.names {
            let bits = [
                (ListAction::Deny, Part::Whole, exception::DENY_EXACT),
                (ListAction::Deny, Part::Below, exception::DENY_BELOW),
                (ListAction::Alert, Part::Whole, exception::ALERT_EXACT),
                (ListAction::Alert, Part::Below, exception::ALERT_BELOW),
            ]
            .into_iter()
            .filter(|(action, part, _)| {
                let of_action = |(list, _): &(u16, usize)| lists[usize::from(*list)].action == *action;
                let mut covering = covering(records, suffixes, *part).filter(of_action).peekable();
                covering.peek().is_some()
                    && covering.all(|(list, depth)| self.takes_back(list, depth, suffixes, *part))
            })
            .fold(0, |bits, (_, _, bit)| bits | bit);
            if bits != 0 {
                *made.entry(*hash).or_default() |= bits;
            }
        }
        let look = |hash: &u64, mask: u64| {
            find(*hash, table.len() as u32, |at| table.get(at as usize)).unwrap_or(u64::MAX) & mask != 0
        };
        for (text, is_below) in known_good.names() {
            let Ok(name) = DomainName::new(text) else { continue };
            let suffixes: Vec<u64> = name.suffixes(key).collect();
            let Some((hash, parents)) = suffixes.split_last() else { continue };
            if is_below {
                // Whatever is below it: none of those names is known, so none can be looked up.
                *made.entry(*hash).or_default() |= exception::GOOD_BELOW;
            } else if look(hash, kind::OF_WHOLE) || parents.iter().any(|parent| look(parent, kind::OF_SUFFIX))
            {
                *made.entry(*hash).or_default() |= exception::GOOD_EXACT;
            }
        }
        made.into_iter().map(|(hash, bits)| Exception { hash, bits }).collect()
    }

    /// Whether a list that holds for a part of a name at this suffix takes it back.
    fn takes_back(&self, list: u16, depth: usize, suffixes: &[u64], part: Part) -> bool {
        let above = suffixes.len() - 1;
        let excepts = |(at, hash): &(usize, &u64)| {
            self.names.get(hash).is_some_and(|excepted| {
                let theirs = excepted.by.iter().filter(|record| record.list == list);
                theirs.into_iter().any(|record| part.is_held(record.meaning, *at == above))
            })
        };
        let longest = suffixes.iter().enumerate().filter(excepts).map(|(at, _)| at).max();
        longest.is_some_and(|longest| self.win[usize::from(list)] || longest >= depth)
    }
}

/// Lists that hold for a part of what a name stands for, and at which of its suffixes.
fn covering(records: &[Record], suffixes: &[u64], part: Part) -> impl Iterator<Item = (u16, usize)> {
    let above = suffixes.len() - 1;
    suffixes.iter().enumerate().flat_map(move |(at, hash)| {
        let first = records.partition_point(|record| record.hash < *hash);
        records[first..]
            .iter()
            .take_while(move |record| record.hash == *hash)
            .filter(move |record| part.is_held(record.meaning, at == above))
            .map(move |record| (record.list, at))
    })
}

/// What an entry may stand for.
#[derive(Clone, Copy)]
enum Part {
    /// The name itself.
    Whole,
    /// What is below it.
    Below,
}

impl Part {
    /// Whether an entry at the name itself (`is_there`), or at a suffix of it, holds for this part.
    fn is_held(self, meaning: Meaning, is_there: bool) -> bool {
        match (is_there, self) {
            (false, _) | (true, Self::Below) => meaning.holds(false),
            (true, Self::Whole) => meaning.holds(true),
        }
    }
}

/// The exceptions of the list at hand.
#[derive(Default)]
pub struct Own {
    exact: HashSet<u64>,
    below: HashSet<u64>,
    /// How many there are.
    pub count: usize,
}

impl Own {
    /// Whether it is a new one.
    pub fn add(&mut self, hash: u64, meaning: Meaning) -> bool {
        let itself = meaning.holds(true) && self.exact.insert(hash);
        let below = meaning.holds(false) && self.below.insert(hash);
        self.count += usize::from(itself || below);
        itself || below
    }

    /// Whether an exception takes the whole entry back.
    pub fn covers(&self, suffixes: &[u64], meaning: Meaning) -> bool {
        let Some((whole, parents)) = suffixes.split_last() else { return false };
        if parents.iter().any(|parent| self.below.contains(parent)) {
            return true;
        }
        let (itself, below) = (self.exact.contains(whole), self.below.contains(whole));
        match meaning {
            Meaning::Exact => itself,
            Meaning::Below => below,
            Meaning::Subtree => itself && below,
        }
    }
}
