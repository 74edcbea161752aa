//! What is said about block lists.

use serde::{Deserialize, Serialize};

use crate::blocklist::{Answer, ListAccount};

/// `GET /v1/blocklists`: the lists of the policy that decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocklists {
    /// Each of them.
    pub lists: Vec<ListStatus>,
    /// Entries that count, of all lists.
    pub entries: usize,
    /// Bytes of the table in the kernel.
    pub kernel_bytes: usize,
    /// Names that are not refused though a list has them or one above them.
    pub exceptions: usize,
}

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListStatus {
    /// What came of it.
    #[serde(flatten)]
    pub account: ListAccount,
    /// How it is kept up to date; nothing for a file.
    #[serde(default)]
    pub fetch: Option<FetchStatus>,
}

/// How a list is kept up to date. Times are RFC 3339.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchStatus {
    /// How often it is fetched.
    pub refresh_secs: u64,
    /// When the version that counts came.
    pub fetched: Option<String>,
    /// When the server last sent it, or said that it is still the one.
    pub confirmed: Option<String>,
    /// When it was tried last.
    pub tried: Option<String>,
    /// Why that brought nothing that counts.
    pub error: Option<String>,
    /// Tries since the last that was good.
    pub failures: u32,
    /// When it is tried next.
    pub next: Option<String>,
    /// The server has a name for the version (`ETag`), by which it is asked for another one.
    pub has_etag: bool,
    /// When the server says it was written.
    pub last_modified: Option<String>,
    /// Of the version, as it was sent; hexadecimal.
    pub sha256: Option<String>,
    /// Its bytes, as they were sent.
    pub bytes: u64,
    /// Its entries when it came.
    pub entries: usize,
}

/// `POST /v1/blocklists/update`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateRequest {
    /// Names of the lists; none is all of them.
    #[serde(default)]
    pub lists: Vec<String>,
    /// Versions count that shrank or grew too much, this once.
    #[serde(default)]
    pub accept: bool,
}

/// The answer to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Updated {
    /// Each list that was asked for.
    pub lists: Vec<UpdateStatus>,
}

/// What an update made of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateStatus {
    /// What alerts call it.
    pub name: String,
    /// Where it is: a path, or a URL without what is secret in it.
    pub source: String,
    /// `unchanged`; `changed`; `refused`, when what came does not count; `failed`, when nothing came.
    pub outcome: String,
    /// Entries that count now.
    pub entries: usize,
    /// Entries it has gained.
    pub added: usize,
    /// Entries it has lost.
    pub removed: usize,
    /// Why it was refused, or failed.
    pub why: Option<String>,
}

impl Updated {
    /// Whether every list is as its source has it.
    pub fn is_good(&self) -> bool {
        self.lists.iter().all(|list| matches!(list.outcome.as_str(), "unchanged" | "changed"))
    }
}

/// `POST /v1/blocklists/check`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameRequest {
    /// The name.
    pub name: String,
}

/// What the lists make of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameChecked {
    /// What becomes of a question for it, and why.
    #[serde(flatten)]
    pub answer: Answer,
    /// The rule that decides.
    pub rule: Option<String>,
    /// `enforce` or `audit`, where no scope says otherwise.
    pub mode: String,
}
