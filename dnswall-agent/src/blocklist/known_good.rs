//! Names that no list may refuse.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::PathBuf;

use super::format::Meaning;
use super::name::{DomainName, NotAName};
use super::source::Source;

/// `[known-good]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownGoodNames {
    /// Names.
    pub names: Vec<Pattern>,
    /// Files of names, as the host calls them.
    pub lists: Vec<PathBuf>,
}

/// `name` or `*.name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern {
    /// The name, as [`DomainName`] writes it.
    pub name: String,
    /// What is below it, and not itself.
    pub is_below: bool,
}

impl Pattern {
    /// Reads a name, with `*.` before it or without.
    ///
    /// # Errors
    /// Why it is none.
    pub fn new(text: &str) -> Result<Self, NotAName> {
        let (name, is_below) = text.strip_prefix("*.").map_or((text, false), |name| (name, true));
        Ok(Self { name: DomainName::new(name)?.to_string(), is_below })
    }

    /// Whether it is of every name that the other is of.
    pub fn holds(&self, other: &Self) -> bool {
        let is_below = || other.name.strip_suffix(&self.name).is_some_and(|left| left.ends_with('.'));
        self == other || (self.is_below && is_below())
    }
}

impl std::fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if self.is_below { "*." } else { "" })?;
        formatter.write_str(&self.name)
    }
}

/// Names of all files and of the policy together.
pub const KNOWN_GOOD_MAX: usize = 2_000_000;

/// Adds the names of a file: one in each line as in a policy, perhaps behind a rank and a comma, as lists of popular names have
/// it. Gives how many there were, and how many lines were none.
///
/// # Errors
/// When it cannot be read, or there are more than [`KNOWN_GOOD_MAX`].
pub fn read_names(file: File, key: u64, to: &mut KnownGood) -> io::Result<(usize, usize)> {
    let mut source = Source::open(file)?;
    let (mut names, mut rubbish) = (0, 0);
    while let Some(line) = source.next_line()? {
        let text = line.text.and_then(|text| std::str::from_utf8(text).ok()).unwrap_or("?");
        let text = text.trim_start_matches('\u{feff}').split('#').next().unwrap_or_default().trim();
        let text =
            text.split_once(',').filter(|(rank, _)| rank.parse::<u32>().is_ok()).map_or(text, |(_, it)| it);
        match Pattern::new(text.trim()) {
            _ if text.is_empty() => {}
            Ok(pattern) => {
                to.add(key, &pattern);
                names += 1;
            }
            Err(_) => rubbish += 1,
        }
        if to.names.len() > KNOWN_GOOD_MAX {
            return Err(io::Error::other(format!("more than {KNOWN_GOOD_MAX} names are known to be good")));
        }
    }
    Ok((names, rubbish))
}

/// The names of `[known-good]`.
#[derive(Debug, Default)]
pub struct KnownGood {
    /// Names as they are written: `true` for `*.name`.
    names: Vec<(String, bool)>,
    exact: HashSet<u64>,
    below: HashSet<u64>,
}

impl KnownGood {
    /// Adds a name, or what is below it.
    pub fn add(&mut self, key: u64, pattern: &Pattern) {
        let Pattern { name, is_below } = pattern;
        let Ok(domain) = DomainName::new(name) else { return };
        let Some(hash) = domain.suffixes(key).last() else { return };
        let set = if *is_below { &mut self.below } else { &mut self.exact };
        if set.insert(hash) {
            self.names.push((name.clone(), *is_below));
        }
    }

    /// The names, and whether what is below them is meant.
    pub fn names(&self) -> impl Iterator<Item = (&str, bool)> {
        self.names.iter().map(|(name, is_below)| (name.as_str(), *is_below))
    }

    /// What is left of an entry whose suffixes have these hashes, the whole name's last; `None` for nothing.
    pub fn remains(&self, suffixes: &[u64], meaning: Meaning) -> Option<Meaning> {
        let (whole, parents) = suffixes.split_last()?;
        if parents.iter().any(|parent| self.below.contains(parent)) {
            return None;
        }
        let itself = meaning.holds(true) && !self.exact.contains(whole);
        let below = meaning.holds(false) && !self.below.contains(whole);
        match (itself, below) {
            (true, true) => Some(Meaning::Subtree),
            (true, false) => Some(Meaning::Exact),
            (false, true) => Some(Meaning::Below),
            (false, false) => None,
        }
    }

    /// Whether a name with these suffixes is known to be good.
    pub fn holds(&self, suffixes: &[u64]) -> bool {
        let Some((whole, parents)) = suffixes.split_last() else { return false };
        self.exact.contains(whole) || parents.iter().any(|parent| self.below.contains(parent))
    }
}
