//! Takes what a list, a policy or a person writes for a domain name, gives the name as it is asked for.

use std::borrow::Cow;
use std::fmt;

use dnswall_common::name::{LABEL_BYTES_MAX, LABEL_WORDS, LABELS_MAX, LabelWords, label_hash, suffix_step};

/// Characters of a name, dots between its labels included (RFC 1035: 255 bytes with lengths and root).
const NAME_CHARACTERS_MAX: usize = 253;

/// A domain name: lower case, in A-labels (RFC 5890), without the root's dot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName<'t>(Cow<'t, str>);

/// Why a text is not a domain name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAName {
    /// Nothing, or nothing between two dots.
    Empty,
    /// More than 63 characters between two dots, or more than 253 in all.
    TooLong,
    /// More labels than are looked at.
    TooDeep,
    /// Something that no name is made of.
    Character,
    /// An address.
    Address,
}

impl NotAName {
    /// The same in words.
    pub const fn why(self) -> &'static str {
        match self {
            Self::Empty => "there is nothing between two of its dots",
            Self::TooLong => "a label has at most 63 characters, a name 253",
            Self::TooDeep => "a name has at most 40 labels",
            Self::Character => "a name is made of letters, digits, hyphens, underscores and dots",
            Self::Address => "no name ends in a number",
        }
    }
}

impl<'t> DomainName<'t> {
    /// Reads a name, with or without a dot at its end, in any case and script.
    ///
    /// # Errors
    /// Why it is none.
    pub fn new(text: &'t str) -> Result<Self, NotAName> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let name = match text.bytes().all(is_plain) {
            true => Cow::Borrowed(text),
            false if text.is_ascii() => Cow::Owned(text.to_ascii_lowercase()),
            // Lists have names with underscores and hyphens where IDNA has none; only what is not ASCII needs it.
            false => Cow::Owned(idna::domain_to_ascii(text).map_err(|_| NotAName::Character)?),
        };
        check(&name)?;
        Ok(Self(name))
    }

    /// The same, of its own.
    pub fn into_owned(self) -> DomainName<'static> {
        DomainName(Cow::Owned(self.0.into_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The hash of each suffix, from the last label's to the whole name's.
    pub fn suffixes(&self, key: u64) -> impl Iterator<Item = u64> {
        self.0.rsplit('.').scan(key, move |suffix, label| {
            *suffix = suffix_step(*suffix, hash_of(key, label));
            Some(*suffix)
        })
    }
}

impl fmt::Display for DomainName<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.')
}

fn check(name: &str) -> Result<(), NotAName> {
    if name.len() > NAME_CHARACTERS_MAX {
        return Err(NotAName::TooLong);
    }
    let mut labels = 0;
    let mut last = "";
    for label in name.split('.') {
        if label.is_empty() {
            return Err(NotAName::Empty);
        }
        if label.len() > usize::from(LABEL_BYTES_MAX) {
            return Err(NotAName::TooLong);
        }
        if !label.bytes().all(is_plain) {
            return Err(NotAName::Character);
        }
        labels += 1;
        last = label;
    }
    if labels > LABELS_MAX {
        return Err(NotAName::TooDeep);
    }
    // No top-level domain is a number (RFC 3696, 2): what ends in one is an address, or a part of one.
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NotAName::Address);
    }
    Ok(())
}

fn hash_of(key: u64, label: &str) -> u64 {
    let mut bytes = [0; 8 * LABEL_WORDS];
    bytes[0] = label.len() as u8;
    bytes[1..=label.len()].copy_from_slice(label.as_bytes());
    let words: LabelWords = std::array::from_fn(|at| {
        let word = bytes[8 * at..8 * at + 8].try_into().expect("eight bytes");
        u64::from_le_bytes(word)
    });
    label_hash(key, &words, label.len() as u8)
}
