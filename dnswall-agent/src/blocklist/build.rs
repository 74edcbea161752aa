//! Takes block lists and known-good names, gives [`Lists`]: the table, the exact index, the exceptions, and an account of
//! each list. A list that cannot be used is left out as a whole, and its account says why.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use dnswall_common::limits;
use dnswall_common::listed::kind;

use super::exceptions::{Exceptions, Own};
use super::format::{Format, Guess, Line, Lines, Meaning, Rubbish};
use super::index::{self, Record};
use super::known_good::KnownGood;
use super::lists::{ExactLists, List, ListAccount, ListAction, Lists, RubbishAccount};
use super::source::Source;
use super::table::{self, Key};

/// Lines that a list's format is told from.
const GUESSED_LINES_MAX: usize = 1_000;
/// Entries of all lists together: the table is 64 MiB then.
pub const NAMES_MAX: usize = 11_700_000;
/// Exceptions of all lists together: they are kept as text while lists are built.
pub const EXCEPTIONS_MAX: usize = 1_000_000;

/// Opens a list; `None` is for one that cannot be looked at from here.
pub type Open<'o> = &'o dyn Fn(&List) -> io::Result<Option<File>>;
/// A file for the index: on disk, or when that fails in memory.
pub type MakeIndex<'m> = &'m dyn Fn(Place) -> io::Result<File>;

/// Where an index is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a directory of the agent's.
    Disk,
    /// In memory.
    Memory,
}

/// Why nothing can be made of the lists at all.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The index cannot be written.
    #[error("write the index of listed names: {0}")]
    Write(#[source] io::Error),
    /// More exceptions than the kernel's map holds.
    #[error("{0} names need an exception from the lists, the kernel holds {max}", max = limits::EXCEPTIONS_MAX)]
    TooManyExceptions(usize),
}

/// What was there before the lists are read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Before<'b> {
    /// What was made of the same lists.
    pub lists: Option<&'b Lists>,
    /// Names of those that may change as they like, this once.
    pub accepted: &'b [String],
}

/// Reads one list, and only counts.
pub fn survey(list: &List, known_good: KnownGood, key: u64, open: Open<'_>) -> ListAccount {
    Builder::new(known_good, key, open, Before::default()).account(0, list)
}

/// Reads the lists; `key` is that of the hashes. Of a list that cannot be used what `before` has of it goes on.
///
/// # Errors
/// See [`BuildError`].
pub fn build(
    lists: &[List],
    known_good: KnownGood,
    key: u64,
    open: Open<'_>,
    before: Before<'_>,
    index: MakeIndex<'_>,
) -> Result<Lists, BuildError> {
    let mut builder = Builder::new(known_good, key, open, before);
    let accounts = lists.iter().enumerate().map(|(at, list)| builder.account(at as u16, list)).collect();
    builder.finish(lists, accounts, index)
}

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it cannot be looked at from here")]
    Elsewhere,
    #[error("all lists together have more than {NAMES_MAX} names")]
    TooMany,
    #[error("all lists together have more than {EXCEPTIONS_MAX} exceptions")]
    TooManyExceptions,
}

struct Builder<'b> {
    key: u64,
    known_good: KnownGood,
    open: Open<'b>,
    before: Before<'b>,
    records: Vec<Record>,
    exceptions: Exceptions,
}

impl<'b> Builder<'b> {
    fn new(known_good: KnownGood, key: u64, open: Open<'b>, before: Before<'b>) -> Self {
        let lists = before.lists.filter(|before| before.exact.key == key);
        Self {
            key,
            known_good,
            open,
            before: Before { lists, ..before },
            records: Vec::new(),
            exceptions: Exceptions::default(),
        }
    }

    fn account(&mut self, at: u16, list: &List) -> ListAccount {
        let mut account = ListAccount {
            name: list.name.clone(),
            path: list.source.to_string(),
            action: list.action.name().to_owned(),
            ..ListAccount::default()
        };
        let mut rubbish = BTreeMap::new();
        self.exceptions.win.push(false);
        let begin = self.records.len();
        match self.read(at, list, &mut account, &mut rubbish) {
            Ok(()) => {}
            Err(ReadError::Elsewhere) => return ListAccount { unread: true, ..account },
            Err(error) => account.trouble = Some(error.to_string()),
        }
        let rubbish = rubbish.into_iter();
        account.rubbish = rubbish
            .map(|(why, (lines, first_line)): (&str, _)| RubbishAccount {
                why: why.to_owned(),
                lines,
                first_line,
            })
            .collect();
        self.unrepeat(begin, &mut account);
        if account.trouble.is_none() && !list.entries.contains(&account.entries) {
            let (least, most) = (list.entries.start(), list.entries.end());
            account.trouble =
                Some(format!("it has {} entries, and should have {least} to {most}", account.entries));
        }
        if account.trouble.is_none() {
            account.trouble = self.changed_too_much(list, account.entries);
        }
        if account.trouble.is_some() {
            self.records.truncate(begin);
            self.exceptions.forget(at);
            account.digest = None;
            self.take_from_before(at, list, &mut account);
        }
        account
    }

    /// A fetched list is compared before it gets here.
    fn changed_too_much(&self, list: &List, entries: usize) -> Option<String> {
        let is_free = list.source.url().is_some() || self.before.accepted.contains(&list.name);
        let before = self.before.lists.filter(|_| !is_free)?;
        let known = before.exact.lists.iter().position(|known| known == list)?;
        list.change.check(before.accounts.get(known)?.entries, entries).err()
    }

    /// Of equal entries of a list the first counts.
    fn unrepeat(&mut self, begin: usize, account: &mut ListAccount) {
        let count = self.records.len();
        self.records[begin..].sort_unstable();
        let mut kept = begin;
        for at in begin..count {
            let record = self.records[at];
            let same = |other: &Record| (other.hash, other.meaning) == (record.hash, record.meaning);
            if kept == begin || !same(&self.records[kept - 1]) {
                self.records[kept] = record;
                kept += 1;
            }
        }
        self.records.truncate(kept);
        account.repeated += count - kept;
        account.entries = kept - begin;
    }

    /// What was read of the same list before, if anything was.
    fn take_from_before(&mut self, at: u16, list: &List, account: &mut ListAccount) {
        let Some(before) = self.before.lists else { return account.entries = 0 };
        let Some(known) = before.exact.lists.iter().position(|known| known == list) else {
            return account.entries = 0;
        };
        let records = before.exact.index.as_ref().and_then(|index| index.of_list(known as u16).ok());
        let Some(records) = records else { return account.entries = 0 };
        let renumbered = |record: Record| Record { list: at, ..record };
        self.records.extend(records.into_iter().map(renumbered));
        let exceptions = before.exact.exceptions.iter().filter(|record| usize::from(record.list) == known);
        for record in exceptions.copied() {
            if let Some(suffixes) = before.exact.suffixes.get(&record.hash) {
                self.exceptions.add(renumbered(record), suffixes.clone());
            }
        }
        self.exceptions.win[usize::from(at)] = before.exact.exceptions_win[known];
        if let (Some(old), trouble) = (before.accounts.get(known), account.trouble.take()) {
            *account = ListAccount { trouble, ..old.clone() };
        }
    }

    fn source(&self, list: &List) -> Result<Source, ReadError> {
        let file = (self.open)(list)?.ok_or(ReadError::Elsewhere)?;
        Ok(Source::open(file)?)
    }

    fn read(
        &mut self,
        at: u16,
        list: &List,
        account: &mut ListAccount,
        rubbish: &mut BTreeMap<&'static str, (usize, u32)>,
    ) -> Result<(), ReadError> {
        let format = match list.format {
            Some(format) => format,
            None => guess(self.source(list)?)?,
        };
        format.name().clone_into(&mut account.format);
        self.exceptions.win[usize::from(at)] = format.exceptions_win();
        let mut own =
            if format.has_exceptions() { self.read_exceptions(at, list, format)? } else { Own::default() };
        account.exceptions = own.count;
        if !format.exceptions_win() {
            // Longer entries count, and shorter ones are the kernel's to pass over.
            own = Own::default();
        }
        let mut note = |why: Rubbish, line: u32| rubbish.entry(why.name()).or_insert((0, line)).0 += 1;
        let mut lines = Lines::new(format);
        let file = (self.open)(list)?.ok_or(ReadError::Elsewhere)?;
        let mut source = Source::open_digested(file)?;
        let mut suffixes = Vec::new();
        while let Some(line) = source.next_line()? {
            let number = line.number;
            account.lines = number;
            let Some(text) = line.text else {
                note(Rubbish::Unreadable, number);
                continue;
            };
            let (key, known_good, records) = (self.key, &self.known_good, &mut self.records);
            let result = lines.read(text, &mut |entry| {
                if entry.is_exception {
                    return;
                }
                suffixes.clear();
                suffixes.extend(entry.name.suffixes(key));
                let Some(meaning) = known_good.remains(&suffixes, entry.meaning) else {
                    account.protected += 1;
                    return;
                };
                if own.covers(&suffixes, meaning) {
                    account.repeated += 1;
                    return;
                }
                let Some(hash) = suffixes.last() else { return };
                records.push(Record { hash: *hash, list: at, meaning, line: number });
            });
            if let Line::Rubbish(why) = result {
                note(why, number);
            }
            if self.records.len() > NAMES_MAX {
                return Err(ReadError::TooMany);
            }
        }
        account.digest = source.digest();
        Ok(())
    }

    fn read_exceptions(&mut self, at: u16, list: &List, format: Format) -> Result<Own, ReadError> {
        let mut own = Own::default();
        let mut lines = Lines::new(format);
        let mut source = self.source(list)?;
        while let Some(line) = source.next_line()? {
            let Some(text) = line.text else { continue };
            let (key, number) = (self.key, line.number);
            lines.read(text, &mut |entry| {
                if !entry.is_exception {
                    return;
                }
                let suffixes: Box<[u64]> = entry.name.suffixes(key).collect();
                let Some(hash) = suffixes.last().copied() else { return };
                if own.add(hash, entry.meaning) {
                    let record = Record { hash, list: at, meaning: entry.meaning, line: number };
                    self.exceptions.add(record, suffixes);
                }
            });
            if self.exceptions.names.len() > EXCEPTIONS_MAX {
                return Err(ReadError::TooManyExceptions);
            }
        }
        Ok(own)
    }

    fn finish(
        mut self,
        lists: &[List],
        accounts: Vec<ListAccount>,
        index: MakeIndex<'_>,
    ) -> Result<Lists, BuildError> {
        self.records.sort_unstable();
        let mut keys: Vec<Key> = self
            .records
            .iter()
            .map(|record| {
                let action = lists[usize::from(record.list)].action;
                Key { hash: record.hash, kind: kind_of(record.meaning, action) }
            })
            .collect();
        keys.sort_unstable();
        keys.dedup();
        let table = if keys.is_empty() { Vec::new() } else { table::build(&keys) };
        drop(keys);
        let (records, key) = (&self.records, self.key);
        let exceptions = if table.is_empty() {
            Vec::new()
        } else {
            self.exceptions.of_kernel(lists, records, &self.known_good, key, &table)
        };
        if exceptions.len() > limits::EXCEPTIONS_MAX {
            return Err(BuildError::TooManyExceptions(exceptions.len()));
        }
        let write = |place| index(place).and_then(|file| index::write(file, &self.records));
        let index = write(Place::Disk).or_else(|_| write(Place::Memory)).map_err(BuildError::Write)?;
        let mut exceptions_by: Vec<Record> =
            self.exceptions.names.values().flat_map(|excepted| excepted.by.clone()).collect();
        exceptions_by.sort_unstable();
        let suffixes =
            self.exceptions.names.into_iter().map(|(hash, excepted)| (hash, excepted.suffixes)).collect();
        let exact = ExactLists {
            index: Some(index),
            lists: lists.to_vec(),
            digests: accounts.iter().map(|account| account.digest.clone()).collect(),
            exceptions_win: self.exceptions.win,
            exceptions: exceptions_by,
            suffixes,
            known_good: self.known_good,
            key: self.key,
        };
        Ok(Lists { table, exceptions, accounts, exact: Arc::new(exact) })
    }
}

fn guess(mut source: Source) -> io::Result<Format> {
    let mut guess = Guess::default();
    for _ in 0..GUESSED_LINES_MAX {
        let Some(line) = source.next_line()? else { break };
        if let Some(text) = line.text {
            guess.look(text);
        }
    }
    Ok(guess.format())
}

fn kind_of(meaning: Meaning, action: ListAction) -> u8 {
    match (action, meaning) {
        (ListAction::Deny, Meaning::Subtree) => kind::DENY_SUBTREE,
        (ListAction::Deny, Meaning::Exact) => kind::DENY_EXACT,
        (ListAction::Deny, Meaning::Below) => kind::DENY_BELOW,
        (ListAction::Alert, Meaning::Subtree) => kind::ALERT_SUBTREE,
        (ListAction::Alert, Meaning::Exact) => kind::ALERT_EXACT,
        (ListAction::Alert, Meaning::Below) => kind::ALERT_BELOW,
    }
}

#[cfg(test)]
mod tests;
