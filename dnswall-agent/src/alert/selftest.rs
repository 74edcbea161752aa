//! What an alert says that the agent made itself, to see whether alerts arrive: its number, how long it took so far, and what
//! became of the one before. Whoever gets none for longer than they are apart knows that something is broken.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::kind::Kind;
use super::severity::Severity;
use super::{Alert, AlertPolicy, PolicyRules, Tally};
use crate::event::EnrichedEvent;

/// A test of the way that alerts take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertSelftest {
    /// Counts the tests of this host, one more each.
    pub number: u64,
    /// Who wanted it.
    pub asked: Asked,
    /// From the kernel's refusal to the agent, in microseconds.
    pub latency_us: u64,
    /// What became of the test before this one.
    pub previous: Option<AlertDelivered>,
}

/// Who wanted a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Asked {
    /// It was due.
    Schedule,
    /// Somebody typed `dnswall alert test`.
    Command,
}

/// How far an alert has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertDelivered {
    /// The number of its test.
    pub number: u64,
    /// Which alert.
    pub id: Uuid,
    /// From the agent to the disk, in microseconds; `null` when it is not there.
    pub saved_us: Option<u64>,
    /// Each sink.
    pub sinks: Vec<AlertTaken>,
}

/// How far an alert has come with one sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertTaken {
    /// The sink's name.
    pub name: String,
    /// From the agent until the sink had it, in microseconds; `null` when it has not.
    pub taken_us: Option<u64>,
    /// Why not.
    pub error: Option<String>,
}

/// What the alert of a test says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Telling {
    /// Its id.
    pub id: Uuid,
    /// Counts the tests.
    pub number: u64,
    /// Who wanted it.
    pub asked: Asked,
    /// What became of the one before.
    pub previous: Option<AlertDelivered>,
}

impl Alert {
    /// Of a test, from the event of what the agent itself was refused.
    pub fn of_selftest(
        event: &EnrichedEvent,
        policy: Option<&PolicyRules>,
        host: &str,
        selftest: AlertSelftest,
        tally: Tally,
    ) -> Self {
        Self {
            kind: Kind::Selftest,
            severity: Severity::Info,
            attack: Vec::new(),
            policy: AlertPolicy::new(policy, event.generation),
            selftest: Some(selftest),
            ..Self::new(event, policy, host, tally)
        }
    }
}
