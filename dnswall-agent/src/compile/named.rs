//! Takes the names that rules lead to, gives the patterns by which the kernel knows them in a question.

use std::collections::HashMap;

use dnswall_common::limits::PATTERNS_MAX;
use dnswall_common::named::{BELOW, LISTS_MAX, NAME_WORDS, NameSet, Pattern as Entry};

use crate::blocklist::Pattern;
use crate::blocklist::name::DomainName;
use crate::policy::Problem;

/// The lists of names that rules lead to, each once.
#[derive(Debug, Default)]
pub(super) struct Lists {
    /// Sorted, each pattern once. A list's number is its place, from 1.
    lists: Vec<Vec<Pattern>>,
    by_content: HashMap<Vec<Pattern>, usize>,
}

impl Lists {
    /// The number of a list; too great a number when there are too many ([`Self::check`]).
    pub(super) fn number(&mut self, names: &[Pattern]) -> usize {
        let mut names = names.to_vec();
        names.sort();
        names.dedup();
        if let Some(number) = self.by_content.get(&names) {
            return *number;
        }
        self.lists.push(names.clone());
        self.by_content.insert(names, self.lists.len());
        self.lists.len()
    }

    /// Says when there are more lists, or names in them, than the kernel holds; `span` is of the rule that leads to names last.
    pub(super) fn check(&self, span: std::ops::Range<usize>, problems: &mut Vec<Problem>) {
        if self.lists.len() >= LISTS_MAX {
            problems.push(
                Problem::error(
                    span.clone(),
                    format!("{} rules have names of their own in `to`", self.lists.len()),
                )
                .why(format!("the kernel tells {} such lists apart", LISTS_MAX - 1))
                .hint("give rules with the same ports and workloads one list, or the same list"),
            );
        }
        let patterns: std::collections::BTreeSet<&Pattern> = self.lists.iter().flatten().collect();
        if patterns.len() > PATTERNS_MAX {
            problems.push(
                Problem::error(span, format!("the rules lead to {} names", patterns.len()))
                    .why(format!("the kernel holds {PATTERNS_MAX}"))
                    .hint("write *.NAME for many names below one"),
            );
        }
    }

    /// Every pattern by its number, with the lists that have it or one that holds all of its names.
    pub(super) fn patterns(&self, key: u64) -> Vec<(u64, Entry)> {
        let mut lists: HashMap<&Pattern, NameSet> = HashMap::new();
        for (index, list) in self.lists.iter().enumerate() {
            let Ok(number) = u8::try_from(index + 1) else { break };
            for pattern in list {
                lists.entry(pattern).or_insert(NameSet::NONE).insert(number);
            }
        }
        let mut patterns: Vec<(u64, Entry)> = lists
            .keys()
            .filter_map(|pattern| {
                let held = holding(pattern).filter_map(|above| lists.get(&above)).copied();
                let mut set = NameSet::NONE;
                held.for_each(|more| set.add(&more, 0));
                entry(pattern, set, key)
            })
            .collect();
        patterns.sort_by_key(|(number, _)| *number);
        patterns
    }
}

/// Every pattern that holds all names of this one: itself, and what is below each name above.
fn holding(pattern: &Pattern) -> impl Iterator<Item = Pattern> {
    let below = |name: &str| Pattern { name: name.to_owned(), is_below: true };
    let above = pattern.name.match_indices('.').map(move |(at, _)| below(&pattern.name[at + 1..]));
    std::iter::once(pattern.clone()).chain(above)
}

/// A pattern as the kernel has it.
fn entry(pattern: &Pattern, lists: NameSet, key: u64) -> Option<(u64, Entry)> {
    let name = DomainName::new(&pattern.name).ok()?;
    let hash = name.suffixes(key).last()?;
    let mut bytes = [0; NAME_WORDS * 8];
    let mut at = 0;
    for label in name.as_str().split('.') {
        bytes[at] = label.len() as u8;
        bytes[at + 1..=at + label.len()].copy_from_slice(label.as_bytes());
        at += label.len() + 1;
    }
    let words = std::array::from_fn(|word| {
        u64::from_le_bytes(bytes[8 * word..8 * word + 8].try_into().expect("eight bytes"))
    });
    let number = if pattern.is_below { hash ^ BELOW } else { hash };
    // The root's label is one zero more.
    Some((number, Entry { lists, bytes: at as u64 + 1, name: words }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text).unwrap()
    }

    #[test]
    fn a_pattern_belongs_to_every_list_that_holds_its_names() {
        let mut lists = Lists::default();
        let one = lists.number(&[pattern("*.example.com")]);
        let two = lists.number(&[pattern("api.example.com"), pattern("example.com")]);
        let three = lists.number(&[pattern("*.a.example.com"), pattern("*.com")]);
        // In another order, and twice.
        assert_eq!(
            lists.number(&[pattern("example.com"), pattern("api.example.com"), pattern("example.com")]),
            two
        );
        let patterns: HashMap<u64, Entry> = lists.patterns(7).into_iter().collect();
        assert_eq!(patterns.len(), 5);
        let held = |text: &str| {
            let (number, _) = entry(&pattern(text), NameSet::NONE, 7).unwrap();
            let set = patterns[&number].lists;
            [one, two, three].map(|list| set.holds(list as u8) == 1)
        };
        assert_eq!(held("api.example.com"), [true, true, true]);
        assert_eq!(held("example.com"), [false, true, true]);
        assert_eq!(held("*.example.com"), [true, false, true]);
        assert_eq!(held("*.a.example.com"), [true, false, true]);
        assert_eq!(held("*.com"), [false, false, true]);
    }

    #[test]
    fn the_name_is_as_it_stands_in_a_message() {
        let (number, entry) = entry(&pattern("*.b.example"), NameSet::NONE, 7).unwrap();
        let bytes: Vec<u8> = entry.name.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(&bytes[..11], b"\x01b\x07example\0");
        assert_eq!((entry.bytes, bytes[11..].iter().any(|byte| *byte != 0)), (11, false));
        let hash = DomainName::new("b.example").unwrap().suffixes(7).last().unwrap();
        assert_eq!(number, hash ^ BELOW);
    }
}
