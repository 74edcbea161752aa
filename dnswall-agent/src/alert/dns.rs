//! Takes an event, gives its question as an alert has it, and what a list has to do with that.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::event::EnrichedEvent;

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertDns {
    /// The name, escaped, without the last dot.
    pub name: String,
    /// The type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The message's id.
    pub id: u16,
    /// Who was asked.
    pub resolver: Option<IpAddr>,
    /// The block list that has the name, or one above it.
    #[serde(default)]
    pub list: Option<String>,
    /// The name in that list.
    #[serde(default)]
    pub entry: Option<String>,
    /// The line of the list where it stands.
    #[serde(default)]
    pub line: Option<u32>,
    /// SHA-256 of the version of the list that has it.
    #[serde(default)]
    pub list_digest: Option<String>,
}

impl AlertDns {
    /// The question of an event; `None` when it is no DNS message, or cannot be read.
    pub(crate) fn new(event: &EnrichedEvent) -> Option<Self> {
        let question = event.question.as_ref()?;
        let listed = event.listed.as_ref();
        Some(Self {
            name: question.name.clone(),
            kind: question.kind.clone(),
            id: question.id,
            resolver: event.flow.destination,
            list: listed.map(|listed| listed.list.clone()),
            entry: listed.map(|listed| listed.entry.clone()),
            line: listed.map(|listed| listed.line),
            list_digest: listed.and_then(|listed| listed.digest.clone()),
        })
    }
}
