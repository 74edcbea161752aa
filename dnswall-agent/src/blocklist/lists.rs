//! The block lists of a policy, ready: takes a name, says what they make of it and which entry says so.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dnswall_common::listed::{Bucket, exception, find, kind};
use serde::{Deserialize, Serialize};

use super::bounds::Change;
use super::format::Format;
use super::index::{Index, Record};
use super::known_good::KnownGood;
use super::name::DomainName;
use crate::remote::ServerUrl;

/// What a listed name meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ListAction {
    /// It is refused.
    Deny,
    /// It is told of.
    Alert,
}

impl ListAction {
    /// As a policy writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Alert => "alert",
        }
    }
}

/// A list as the policy has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// What alerts call it.
    pub name: String,
    /// Where it is.
    pub source: ListSource,
    /// How it is written, if that is said.
    pub format: Option<Format>,
    /// What its names meet.
    pub action: ListAction,
    /// How many entries it may have.
    pub entries: RangeInclusive<usize>,
    /// How much it may change.
    pub change: Change,
}

/// Where a list is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListSource {
    /// In a file, as the host calls it.
    File(PathBuf),
    /// It is fetched.
    Url {
        /// From there.
        url: ServerUrl,
        /// That often.
        refresh: Duration,
    },
}

impl ListSource {
    /// Where it is fetched, and how often, if it is.
    pub const fn url(&self) -> Option<(&ServerUrl, Duration)> {
        match self {
            Self::File(_) => None,
            Self::Url { url, refresh } => Some((url, *refresh)),
        }
    }
}

impl fmt::Display for ListSource {
    /// Without what is secret in it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(formatter),
            Self::Url { url, refresh: _ } => url.fmt(formatter),
        }
    }
}

/// What came of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListAccount {
    /// What alerts call it.
    pub name: String,
    /// Where it is: a path, or a URL without what is secret in it.
    pub path: String,
    /// `deny` or `alert`.
    pub action: String,
    /// How it is written.
    pub format: String,
    /// Lines in all.
    pub lines: u32,
    /// Entries that count.
    pub entries: usize,
    /// Exceptions it makes.
    pub exceptions: usize,
    /// Entries that it has already, or takes back by an exception of its own.
    pub repeated: usize,
    /// Entries about names that are known to be good.
    pub protected: usize,
    /// What could not be used, by why.
    pub rubbish: Vec<RubbishAccount>,
    /// Why the list does not count, or an older reading of it does.
    pub trouble: Option<String>,
    /// SHA-256 of the file that counts, as it lies there, compressed or not.
    #[serde(default)]
    pub digest: Option<String>,
    /// Nobody looked: the agent fetches it, and this was read without one.
    #[serde(default)]
    pub unread: bool,
}

/// Lines of which nothing could be used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RubbishAccount {
    /// Why.
    pub why: String,
    /// How many.
    pub lines: usize,
    /// The first of them.
    pub first_line: u32,
}

/// A name that is not refused though a list has it, or one above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// The hash of the name's suffix.
    pub hash: u64,
    /// See [`exception`].
    pub bits: u64,
}

/// Everything the lists of a policy come to.
#[derive(Debug, Default)]
pub struct Lists {
    /// What the kernel searches; nothing when no list has a name.
    pub table: Vec<Bucket>,
    /// What it takes back.
    pub exceptions: Vec<Exception>,
    /// One for each list.
    pub accounts: Vec<ListAccount>,
    /// The exact lists.
    pub exact: Arc<ExactLists>,
}

/// The exact lists, on disk: what alerts need, for as long as one of their policies is remembered.
#[derive(Debug, Default)]
pub struct ExactLists {
    pub(super) index: Option<Index>,
    pub(super) lists: Vec<List>,
    /// Of each list, SHA-256 of the file it was read from.
    pub(super) digests: Vec<Option<String>>,
    /// Of each list, whether its exceptions win over longer entries ([`Format::exceptions_win`]).
    pub(super) exceptions_win: Vec<bool>,
    /// What each list takes back, sorted.
    pub(super) exceptions: Vec<Record>,
    /// Of each name that is taken back, the hashes of all its suffixes: what a later reading needs, when a list is worse then.
    pub(super) suffixes: HashMap<u64, Box<[u64]>>,
    pub(super) known_good: KnownGood,
    /// The key of the hashes.
    pub(super) key: u64,
}

/// An entry of a list.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// Which list.
    pub list: String,
    /// The name in it.
    pub entry: String,
    /// Which names it holds for: `exact`, `subtree` (the name and those below) or `below`.
    pub meaning: String,
    /// Line of the list, from 1.
    pub line: u32,
    /// What the list does: `deny` or `alert`.
    pub action: String,
    /// SHA-256 of the version of the list that has it.
    #[serde(default)]
    pub digest: Option<String>,
}

/// What the lists make of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The name, as it is looked up.
    pub name: String,
    /// `denied`, `told` or `passes`.
    pub outcome: String,
    /// The entry that decides.
    pub by: Option<Entry>,
    /// Every entry that holds for the name, from the longest.
    pub entries: Vec<Entry>,
    /// The exception that some list makes for it.
    pub exception: Option<Entry>,
    /// The same in a sentence.
    pub because: String,
}

impl Lists {
    /// How many names there are, each kind of entry counted apart.
    pub fn entries(&self) -> usize {
        self.accounts.iter().map(|account| account.entries).sum()
    }

    /// What becomes of a question for this name, and why.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn check(&self, name: &DomainName<'_>) -> io::Result<Answer> {
        let exact = &self.exact;
        let found = exact.found(name.as_str())?;
        let Decision { denied, told } = self.decide(name);
        let hash = denied.or(told);
        let outcome = match (denied, told) {
            (Some(_), _) => "denied",
            (None, Some(_)) => "told",
            (None, None) => "passes",
        };
        let by = hash.and_then(|hash| found.deciding(hash)).map(|at| exact.entry(name.as_str(), at));
        let exception = exact.exception(name);
        let is_good = exact.known_good.holds(&name.suffixes(exact.key).collect::<Vec<_>>());
        let because = match (&by, &exception) {
            (Some(by), _) => format!("{} has {} in line {} ({})", by.list, by.entry, by.line, by.meaning),
            (None, _) if hash.is_some() => {
                "the kernel's table takes it for a listed name, and no list has it: put it into [known-good]"
                    .to_owned()
            }
            (None, _) if is_good => "it is known to be good ([known-good])".to_owned(),
            (None, Some(exception)) => {
                format!("{} takes {} back in line {}", exception.list, exception.entry, exception.line)
            }
            (None, None) => self.passed_over(),
        };
        let entries = found.all.iter().map(|at| exact.entry(name.as_str(), at)).collect();
        let name = name.to_string();
        Ok(Answer { name, outcome: outcome.to_owned(), by, entries, exception, because })
    }

    fn passed_over(&self) -> String {
        let unread = self.accounts.iter().filter(|account| account.unread);
        let unread: Vec<&str> = unread.map(|account| account.name.as_str()).collect();
        if unread.is_empty() {
            return "no list has it".to_owned();
        }
        format!(
            "no list that was read has it; the agent fetches {}, without one it is not read",
            unread.join(", ")
        )
    }

    /// As the kernel decides: the hash of the longest suffix that is refused, and of the longest that is told of.
    fn decide(&self, name: &DomainName<'_>) -> Decision {
        let suffixes: Vec<u64> = name.suffixes(self.exact.key).collect();
        let (mut denied, mut told) = (None, None);
        for (at, hash) in suffixes.iter().enumerate() {
            let mask = if at + 1 == suffixes.len() { kind::OF_WHOLE } else { kind::OF_SUFFIX };
            let buckets = self.table.len() as u32;
            let kinds = match buckets {
                0 => 0,
                _ => find(*hash, buckets, |at| self.table.get(at as usize)).unwrap_or(0) & mask,
            };
            if kinds & kind::DENIES != 0 {
                denied = Some(*hash);
            }
            if kinds & !kind::DENIES != 0 {
                told = Some(*hash);
            }
        }
        let mut decision = Decision { denied, told };
        let mut reached = exception::OF_GOOD;
        for (at, hash) in suffixes.iter().enumerate() {
            if denied == Some(*hash) {
                reached |= exception::OF_DENY;
            }
            if told == Some(*hash) {
                reached |= exception::OF_ALERT;
            }
            let part = if at + 1 == suffixes.len() { exception::OF_WHOLE } else { exception::OF_SUFFIX };
            let bits = self.exceptions.iter().filter(|exception| exception.hash == *hash);
            let bits = bits.fold(0, |bits, exception| bits | exception.bits) & part & reached;
            if bits & (exception::OF_GOOD | exception::OF_DENY) != 0 {
                decision.denied = None;
            }
            if bits & (exception::OF_GOOD | exception::OF_ALERT) != 0 {
                decision.told = None;
            }
        }
        decision
    }
}

impl ExactLists {
    /// The entry by which this name (in presentation form) was refused or told of, when `entry` is the hash that the kernel gave:
    /// of a list that refuses before one that only tells, and none of which the same list takes the name back.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub fn identify(&self, name: &str, entry: u64) -> io::Result<Option<Entry>> {
        let found = self.found(name)?;
        Ok(found.deciding(entry).map(|at| self.entry(name, at)))
    }

    /// Every entry that holds for a name, the longest first, then in the order of the lists.
    fn found(&self, name: &str) -> io::Result<Found> {
        let (mut all, mut suffixes_of) = (Vec::new(), Vec::new());
        for (at, suffix) in suffixes(name) {
            let Ok(suffix) = DomainName::new(suffix) else { continue };
            let Some(hash) = suffix.suffixes(self.key).last() else { continue };
            suffixes_of.push((at, hash));
            let Some(index) = &self.index else { continue };
            let mut records = index.find(hash)?;
            records.retain(|record| {
                record.meaning.holds(at == 0) && usize::from(record.list) < self.lists.len()
            });
            records.sort_by_key(|record| (record.list, record.line));
            all.extend(records.into_iter().map(|record| FoundAt { at, record }));
        }
        let taken_back =
            (0..self.lists.len() as u16).map(|list| self.takes_back(list, &suffixes_of, &all)).collect();
        let denies = self.lists.iter().map(|list| list.action == ListAction::Deny).collect();
        Ok(Found { all, taken_back, denies })
    }

    /// Whether a list has an exception for the name with these suffixes (where each begins, and its hash; the longest first).
    fn takes_back(&self, list: u16, suffixes: &[(usize, u64)], entries: &[FoundAt]) -> bool {
        let exception = suffixes.iter().find(|(at, hash)| self.excepts(list, *hash, *at == 0).is_some());
        let Some((exception, _)) = exception else { return false };
        let longest = entries.iter().find(|entry| entry.record.list == list).map(|entry| entry.at);
        self.exceptions_win.get(usize::from(list)).is_some_and(|wins| *wins)
            // The longer a suffix is, the earlier it begins.
            || longest.is_none_or(|longest| *exception <= longest)
    }

    fn excepts(&self, list: u16, hash: u64, is_whole: bool) -> Option<&Record> {
        let first = self.exceptions.partition_point(|exception| exception.hash < hash);
        let of_name = self.exceptions[first..].iter().take_while(|exception| exception.hash == hash);
        of_name.into_iter().find(|exception| exception.list == list && exception.meaning.holds(is_whole))
    }

    /// The longest exception that any list makes for a name.
    fn exception(&self, name: &DomainName<'_>) -> Option<Entry> {
        let text = name.as_str();
        suffixes(text).find_map(|(at, suffix)| {
            let hash = DomainName::new(suffix).ok()?.suffixes(self.key).last()?;
            let record = (0..self.lists.len() as u16).find_map(|list| self.excepts(list, hash, at == 0))?;
            Some(self.entry(text, &FoundAt { at, record: *record }))
        })
    }

    fn entry(&self, name: &str, found: &FoundAt) -> Entry {
        let FoundAt { at, record } = found;
        let list = &self.lists[usize::from(record.list)];
        Entry {
            list: list.name.clone(),
            entry: DomainName::new(&name[*at..]).map_or_else(|_| String::new(), |it| it.to_string()),
            meaning: record.meaning.name().to_owned(),
            line: record.line,
            action: list.action.name().to_owned(),
            digest: self.digests.get(usize::from(record.list)).cloned().flatten(),
        }
    }
}

/// An entry that holds for a name, and where in the name it begins.
#[derive(Debug)]
struct FoundAt {
    at: usize,
    record: Record,
}

/// Everything that lists have of a name.
#[derive(Debug)]
struct Found {
    all: Vec<FoundAt>,
    /// Of each list, whether it takes the name back.
    taken_back: Vec<bool>,
    /// Of each list, whether it refuses.
    denies: Vec<bool>,
}

impl Found {
    /// The entry that decides, when this is the hash of the one that the kernel found.
    fn deciding(&self, hash: u64) -> Option<&FoundAt> {
        let counts = self.all.iter().filter(|found| !self.taken_back[usize::from(found.record.list)]);
        counts.min_by_key(|found| {
            let tells = !self.denies[usize::from(found.record.list)];
            (tells, found.record.hash != hash, found.at)
        })
    }
}

struct Decision {
    denied: Option<u64>,
    told: Option<u64>,
}

/// Each suffix of a name in presentation form and where it begins, the longest first.
fn suffixes(name: &str) -> impl Iterator<Item = (usize, &str)> {
    let begins = std::iter::once(0).chain(name.match_indices('.').map(|(at, _)| at + 1));
    begins.map(move |at| (at, &name[at..])).filter(|(_, suffix)| !suffix.is_empty())
}
