//! Takes an event, gives what it is grouped by.

use std::sync::Arc;

use crate::alert::PolicyRules;
use crate::alert::kind::Kind;
use crate::alert::names::registered;
use crate::event::{EnrichedEvent, ExeId, Outcome};

/// Refusals that count as repeats of each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FlowKey {
    pub(super) kind: Kind,
    pub(super) outcome: Outcome,
    pub(super) reason: u8,
    pub(super) rule: Option<Arc<str>>,
    pub(super) owner: Owner,
    pub(super) protocol: u8,
    /// See [`RefusedKey::entry`].
    pub(super) entry: u64,
    /// Under which the name was registered, where that is why it was refused.
    pub(super) domain: Option<Arc<str>>,
    /// `None` sums up every destination.
    pub(super) destination: Option<([u64; 2], u16)>,
}

/// Whose refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    pub(super) program: Program,
    pub(super) uid: Option<u32>,
    pub(super) cgroup: u64,
}

/// By the executable, which holds whether or not its path could be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Program {
    Exe(ExeId),
    Thread([u8; 16]),
}

impl FlowKey {
    /// The key of an event that this policy judged.
    pub(super) fn of(event: &EnrichedEvent, policy: Option<&PolicyRules>) -> Self {
        let rule = policy.and_then(|policy| policy.rule(event.rule));
        Self {
            kind: Kind::of(event, rule.map(AsRef::as_ref)),
            outcome: event.outcome,
            reason: event.reason as u8,
            rule: rule.cloned(),
            owner: Owner {
                program: event.exe.map_or(Program::Thread(event.comm), Program::Exe),
                uid: event.uid,
                cgroup: event.refused.cgroup,
            },
            protocol: event.flow.protocol,
            entry: event.refused.entry,
            domain: registered(event),
            destination: Some((event.refused.destination, event.refused.destination_port)),
        }
    }
}
