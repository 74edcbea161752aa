//! Takes enriched events of questions and answers, gives one record for each question: what was asked, by whom, and what came back.
//!
//! `EnrichedEvent → Pairs → DnsRecord`. Nothing here does I/O or reads a clock.

pub mod names;
pub mod pairs;
pub mod resolvers;
pub mod text;

use std::net::IpAddr;

use dnswall_common::flow::protocol;
use dnswall_common::reason::Reason;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::alert::moment;
use crate::alert::{AlertPolicy, AlertProcess, AlertWorkload, PolicyRules};
use crate::event::dns::{Answer, Question};
use crate::event::{EnrichedEvent, Outcome};

pub use names::{Asker, Names};
pub use pairs::{Pairs, PairsCounters};
pub use resolvers::ResolverStatus;

/// [`DnsRecord::schema`]. A key is only ever added; when one goes or changes its meaning, this number grows.
pub const SCHEMA: u32 = 1;

/// One question. The order of the fields is the order of the keys; a key whose value is not known is `null`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsRecord {
    /// [`SCHEMA`]
    pub schema: u32,
    /// When it was asked.
    #[serde(with = "moment")]
    pub time: Timestamp,
    /// What became of it.
    pub verdict: DnsVerdict,
    /// Why it was refused: a [`Reason`]'s name; `null` for one that was allowed.
    pub reason: Option<String>,
    /// The rule that refused it.
    pub rule: Option<String>,
    /// The policy that judged.
    pub policy: AlertPolicy,
    /// What was asked.
    pub dns: DnsAsked,
    /// What came back; `null` when nothing did within [`pairs::PATIENCE_NS`], or when it was refused.
    pub answer: Option<DnsAnswer>,
    /// How often the same question was asked until it was answered.
    pub tries: u32,
    /// Which process.
    pub process: AlertProcess,
    /// Which workload.
    pub workload: AlertWorkload,
    /// On which host.
    pub host: String,
}

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DnsVerdict {
    /// It was asked.
    Allowed,
    /// It was refused.
    Denied,
    /// It was asked, and would have been refused in enforce mode, or a list tells of it.
    WouldDeny,
}

/// What was asked, and whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsAsked {
    /// The name, as it was sent.
    pub name: String,
    /// The type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The message's id.
    pub id: u16,
    /// Who was asked.
    pub resolver: Option<IpAddr>,
    /// `udp` or `tcp`.
    pub protocol: String,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsAnswer {
    /// `NOERROR`, `NXDOMAIN`, …
    pub code: String,
    /// Addresses, in their order, as far as the kernel told them (512 bytes of an answer).
    pub addresses: Vec<IpAddr>,
    /// Names that it is another name of, likewise.
    pub aliases: Vec<String>,
    /// Whether the server left something out, as too much for a datagram.
    pub truncated: bool,
    /// Bytes of the message.
    pub bytes: u32,
    /// From question to answer, in microseconds.
    pub latency_us: u64,
}

impl DnsVerdict {
    /// Of an event in the ring of questions.
    pub const fn of(event: &EnrichedEvent) -> Self {
        match (event.reason, event.outcome) {
            (Reason::Asked, _) => Self::Allowed,
            (_, Outcome::Denied) => Self::Denied,
            (_, Outcome::WouldDeny) => Self::WouldDeny,
        }
    }
}

impl DnsRecord {
    /// Of a question that was told of, and its answer. Without `policy` (a generation nobody remembers) rule and policy stay `null`.
    pub fn new(
        event: &EnrichedEvent,
        question: &Question,
        policy: Option<&PolicyRules>,
        answer: Option<DnsAnswer>,
        tries: u32,
        host: &str,
    ) -> Self {
        let verdict = DnsVerdict::of(event);
        let is_refused = verdict != DnsVerdict::Allowed;
        let rule = match &event.listed {
            Some(listed) => Some(format!("blocklist.{}", listed.list)),
            None => policy.and_then(|policy| policy.rule(event.rule)).map(ToString::to_string),
        };
        Self {
            schema: SCHEMA,
            time: event.time,
            verdict,
            reason: is_refused.then(|| event.reason.name().to_owned()),
            rule: rule.filter(|_| is_refused),
            policy: AlertPolicy::new(policy, event.generation),
            dns: DnsAsked {
                name: question.name.clone(),
                kind: question.kind.clone(),
                id: question.id,
                resolver: event.flow.destination,
                protocol: if event.flow.protocol == protocol::TCP { "tcp" } else { "udp" }.to_owned(),
            },
            answer,
            tries,
            process: AlertProcess::new(event),
            workload: AlertWorkload::new(event),
            host: host.to_owned(),
        }
    }

    /// One line of JSON, without its end.
    ///
    /// # Panics
    /// Never: every field has a JSON form.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("every field of a record has a JSON form")
    }
}

impl DnsAnswer {
    /// Of an answer that came so long after the question.
    fn new(answer: Answer, latency_ns: u64) -> Self {
        let Answer { question: _, code, addresses, ttl_secs: _, aliases, truncated, bytes } = answer;
        Self { code, addresses, aliases, truncated, bytes, latency_us: latency_ns / 1_000 }
    }
}
