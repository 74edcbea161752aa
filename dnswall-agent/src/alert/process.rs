//! Takes an event, gives its process as an alert has it, who is above that, and the hash of its program.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::moment;
use crate::event::{EnrichedEvent, HashCell, Parent};

/// Which process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertProcess {
    /// Process id, as the host counts.
    pub pid: Option<u32>,
    /// When it started.
    #[serde(with = "moment::option")]
    pub start: Option<Timestamp>,
    /// Name of the thread.
    pub comm: Option<String>,
    /// Path of the executable, as its own mount namespace names it.
    pub exe: Option<String>,
    /// Arguments, joined by spaces.
    pub command_line: Option<String>,
    /// User id, as the host counts.
    pub uid: Option<u32>,
    /// The user's name on this host.
    pub user: Option<String>,
    /// Who started it.
    pub parent: Option<AlertParent>,
    /// Who is above the parent, nearest first, up to eight; empty when that is not known.
    #[serde(default)]
    pub parents: Vec<AlertParent>,
    /// The hash of its executable.
    #[serde(default)]
    pub hash: Option<AlertHash>,
}

/// A parent process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertParent {
    /// Process id.
    pub pid: u32,
    /// Path of its executable.
    pub exe: Option<String>,
    /// When it started.
    #[serde(default, with = "moment::option")]
    pub start: Option<Timestamp>,
    /// Its name.
    #[serde(default)]
    pub comm: Option<String>,
    /// Its arguments, the first bytes of them.
    #[serde(default)]
    pub command_line: Option<String>,
}

/// The hash of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertHash {
    /// SHA-256 in hexadecimal.
    pub sha256: String,
}

impl AlertProcess {
    /// The process of an event.
    pub(crate) fn new(event: &EnrichedEvent) -> Self {
        let process = &event.process;
        Self {
            pid: process.pid,
            start: event.started,
            comm: process.comm.clone(),
            exe: process.exe.clone(),
            command_line: process.command_line.clone(),
            uid: event.uid,
            user: event.user.as_deref().map(str::to_owned),
            parent: process.parent.as_deref().map(|parent| AlertParent::new(parent, event)),
            parents: process.parents.iter().map(|parent| AlertParent::new(parent, event)).collect(),
            hash: AlertHash::of(&process.hash),
        }
    }
}

impl AlertParent {
    /// A process above that of an event.
    fn new(parent: &Parent, event: &EnrichedEvent) -> Self {
        let Parent { pid, start_ns, comm, exe, command_line } = parent.clone();
        // As long before the event's process as the kernel's clock says.
        let start = event.started.zip(start_ns.zip(event.process.start_ns)).and_then(
            |(started, (start_ns, child_ns))| {
                let before = i64::try_from(child_ns.saturating_sub(start_ns)).ok()?;
                started.checked_sub(SignedDuration::from_nanos(before)).ok()
            },
        );
        Self { pid, exe, start, comm, command_line }
    }
}

impl AlertHash {
    /// The one in there, if it is known.
    pub(crate) fn of(cell: &HashCell) -> Option<Self> {
        cell.get().map(|hash| Self { sha256: hash.to_string() })
    }
}
