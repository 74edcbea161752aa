//! What is said about block lists.

use serde::{Deserialize, Serialize};

use crate::blocklist::{Answer, ListAccount};

/// `GET /v1/blocklists`: the lists of the policy that decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocklists {
    /// Each of them.
    pub lists: Vec<ListAccount>,
    /// Entries that count, of all lists.
    pub entries: usize,
    /// Bytes of the table in the kernel.
    pub kernel_bytes: usize,
    /// Names that are not refused though a list has them or one above them.
    pub exceptions: usize,
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
