//! Takes enriched events, gives alerts: the stable JSON object that leaves the host.
//!
//! `EnrichedEvent → Grouper::observe → Alert`. The first refusal of a flow is an alert at once; repeats are counted
//! and told at most once an interval. Nothing here does I/O or reads a clock.

pub mod attack;
pub mod blocklist;
pub mod community_id;
mod dns;
pub mod filter;
pub mod flow;
pub mod group;
pub mod icmp;
pub mod kind;
pub mod ledger;
pub mod limit;
pub mod lost;
pub mod marks;
pub mod moment;
pub mod mute;
mod named;
pub mod names;
mod own;
mod process;
pub mod rules;
pub mod selftest;
pub mod severity;
pub mod text;
mod unjudged;
mod workload;

use std::fmt::Write as _;

use dnswall_common::event::RefusedKey;
use dnswall_common::reason::Reason;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use blocklist::AlertBlocklist;
pub use dns::AlertDns;
pub use flow::{AlertFlow, AlertIcmp};
pub use group::{GroupCounters, Grouper, Standing};
pub use kind::Kind;
pub use limit::AlertLimited;
pub use lost::{AlertLost, AlertLostBySink};
pub use names::AlertNames;
pub use own::AlertTamper;
pub use process::{AlertHash, AlertParent, AlertProcess};
pub use rules::{PolicyRules, RuleBook};
pub use selftest::{AlertDelivered, AlertSelftest, AlertTaken, Asked, Telling};
pub use severity::Severity;
pub use workload::{AlertPod, AlertWorkload};

use crate::event::{EnrichedEvent, Outcome};

/// [`Alert::schema`]. A key is only ever added; when one goes or changes its meaning, this number grows.
pub const SCHEMA: u32 = 1;

/// One alert. The order of the fields is the order of the keys; a key whose value is not known is `null`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// [`SCHEMA`]
    pub schema: u32,
    /// When the last refusal it counts was seen.
    #[serde(with = "moment")]
    pub time: Timestamp,
    /// Names this alert (UUID version 7); the same one may arrive twice.
    pub id: Uuid,
    /// What it is about.
    pub kind: Kind,
    /// Whether it was refused or, in audit mode, would have been; `null` when nothing was judged ([`Kind::Tamper`]), or only the
    /// kernel's count of it is left.
    pub verdict: Option<Outcome>,
    /// How bad that is.
    #[serde(default)]
    pub severity: Severity,
    /// The techniques of MITRE ATT&CK that somebody who means harm would be using; see [`attack`].
    #[serde(default)]
    pub attack: Vec<String>,
    /// Why: a [`Reason`]'s name, or of tampering what was done.
    pub reason: String,
    /// The rule that decided: its section and name, or `default`.
    pub rule: Option<String>,
    /// The policy that judged.
    pub policy: AlertPolicy,
    /// From where to where; `null` when it is not about traffic.
    pub flow: Option<AlertFlow>,
    /// What was asked, when it was a DNS message.
    pub dns: Option<AlertDns>,
    /// Which process.
    pub process: AlertProcess,
    /// Which workload.
    pub workload: AlertWorkload,
    /// On which host.
    pub host: String,
    /// How many refusals since the flow's previous alert.
    pub count: u64,
    /// When the flow was first refused.
    #[serde(with = "moment")]
    pub first: Timestamp,
    /// When it was last refused.
    #[serde(with = "moment")]
    pub last: Timestamp,
    /// What was done to the wall, when it is about that.
    #[serde(default)]
    pub tamper: Option<AlertTamper>,
    /// Which test it is, when it is one.
    #[serde(default)]
    pub selftest: Option<AlertSelftest>,
    /// The names below one domain that it counts, when that is what its flow has in common.
    #[serde(default)]
    pub names: Option<AlertNames>,
    /// How many alerts it stands for, when its workload had too many.
    #[serde(default)]
    pub limited: Option<AlertLimited>,
    /// What was lost, when it is about that.
    #[serde(default)]
    pub lost: Option<AlertLost>,
    /// What is the matter with a list, when it is about that.
    #[serde(default)]
    pub blocklist: Option<AlertBlocklist>,
    /// Up to which of the kernel's totals it tells, for the spool, which saves them with it. No part of its JSON.
    #[serde(skip)]
    pub marks: Vec<Mark>,
}

/// A flow as the kernel counts it, and how many of its refusals are told.
pub type Mark = (RefusedKey, u64);

/// The policy that judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertPolicy {
    /// Its name.
    pub name: Option<String>,
    /// Its number since the wall was raised.
    pub generation: u32,
    /// SHA-256 of its text.
    pub digest: Option<String>,
}

/// How often and when, and what to call it: what an event does not say about its alert.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    /// [`Alert::id`]
    pub id: Uuid,
    /// [`Alert::count`]
    pub count: u64,
    /// [`Alert::first`]
    pub first: Timestamp,
    /// [`Alert::last`]
    pub last: Timestamp,
}

impl Alert {
    /// From the last event of its flow. Without `policy` (a generation nobody remembers) rule and policy stay `null`.
    pub fn new(event: &EnrichedEvent, policy: Option<&PolicyRules>, host: &str, tally: Tally) -> Self {
        let rule = policy.and_then(|policy| policy.rule(event.rule));
        let kind = Kind::of(event, rule.map(AsRef::as_ref));
        let flow = &event.flow;
        let techniques =
            attack::techniques(kind, event.reason, flow.protocol, flow.destination, flow.destination_port);
        let (severity, reason) = (Severity::of(kind, event.reason), Reason::name(event.reason));
        let policy = AlertPolicy::new(policy, event.generation);
        Self {
            verdict: Some(event.outcome),
            attack: techniques.iter().copied().map(str::to_owned).collect(),
            rule: match &event.listed {
                Some(listed) => Some(format!("blocklist.{}", listed.list)),
                None => rule.map(ToString::to_string),
            },
            flow: Some(AlertFlow::new(event)),
            dns: AlertDns::new(event),
            process: AlertProcess::new(event),
            workload: AlertWorkload::new(event),
            ..Self::blank(kind, severity, reason, policy, host, tally)
        }
    }

    /// What every alert has, and nothing else: nobody's traffic, and no word of who did it.
    pub(crate) fn blank(
        kind: Kind,
        severity: Severity,
        reason: &str,
        policy: AlertPolicy,
        host: &str,
        tally: Tally,
    ) -> Self {
        let Tally { id, count, first, last } = tally;
        Self {
            schema: SCHEMA,
            time: last,
            id,
            kind,
            verdict: None,
            severity,
            attack: Vec::new(),
            reason: reason.to_owned(),
            rule: None,
            policy,
            flow: None,
            dns: None,
            process: AlertProcess::default(),
            workload: AlertWorkload::default(),
            host: host.to_owned(),
            count,
            first,
            last,
            tamper: None,
            selftest: None,
            names: None,
            limited: None,
            lost: None,
            blocklist: None,
            marks: Vec::new(),
        }
    }

    /// The JSON object in one line, without its end.
    ///
    /// # Panics
    /// Never: every field has a JSON form.
    pub fn to_json(&self) -> String {
        let json = serde_json::to_string(self).expect("every field of an alert has a JSON form");
        if json.contains(breaks_line) { escaped(&json) } else { json }
    }

    /// The same with its end of line.
    ///
    /// # Panics
    /// Never, as [`Self::to_json`].
    pub fn to_json_line(&self) -> String {
        self.to_json() + "\n"
    }
}

impl AlertPolicy {
    /// The policy of a generation; `None` when nobody remembers it.
    pub(crate) fn new(policy: Option<&PolicyRules>, generation: u32) -> Self {
        Self {
            name: policy.map(|policy| policy.name().to_owned()),
            generation,
            digest: policy.map(|policy| policy.digest().to_owned()),
        }
    }
}

/// What JSON lets stand as it is, and some readers of lines or a terminal do not: DEL and C1, line and paragraph separators.
const fn breaks_line(character: char) -> bool {
    matches!(character, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}')
}

/// They are in strings only, so that an escape may stand for each.
fn escaped(json: &str) -> String {
    json.chars().fold(String::with_capacity(json.len()), |mut text, character| {
        let code = u32::from(character);
        let _ =
            if breaks_line(character) { write!(text, "\\u{code:04x}") } else { text.write_char(character) };
        text
    })
}

#[cfg(test)]
pub(crate) mod sample;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventHook;

    #[test]
    fn a_refused_question_as_json() {
        insta::assert_json_snapshot!(sample::alert());
    }

    #[test]
    fn what_nobody_knows_is_null() {
        let mut event = sample::enriched();
        event.process = Default::default();
        event.workload = Default::default();
        event.question = None;
        (event.uid, event.user, event.started) = (None, None, None);
        (event.flow.source, event.flow.source_port, event.flow.destination) = (None, None, None);
        event.flow.bytes = None;
        event.hook = EventHook::SockCreate;
        event.reason = Reason::RawSocket;
        event.outcome = Outcome::WouldDeny;
        let alert = Alert::new(&event, None, "web-1", sample::tally());
        insta::assert_json_snapshot!(alert);
    }

    #[test]
    fn an_alert_without_the_newer_keys_is_read() {
        let mut value = serde_json::to_value(sample::alert()).unwrap();
        let alert = value.as_object_mut().unwrap();
        for key in ["severity", "attack", "tamper", "selftest", "names", "limited", "lost", "blocklist"] {
            alert.remove(key).unwrap();
        }
        for key in ["community_id", "destination_name"] {
            alert["flow"].as_object_mut().unwrap().remove(key).unwrap();
        }
        alert["dns"].as_object_mut().unwrap().remove("list_digest").unwrap();
        for key in ["parents", "hash"] {
            alert["process"].as_object_mut().unwrap().remove(key).unwrap();
        }
        for key in ["start", "comm", "command_line"] {
            alert["process"]["parent"].as_object_mut().unwrap().remove(key).unwrap();
        }
        for key in ["container_name", "image", "runtime", "pod"] {
            alert["workload"].as_object_mut().unwrap().remove(key).unwrap();
        }
        let read: Alert = serde_json::from_value(value).unwrap();
        assert_eq!((read.severity, read.attack), (Severity::Medium, Vec::new()));
        assert_eq!(read.flow.unwrap().community_id, None);
    }

    #[test]
    fn a_line_is_one_line_and_reads_back() {
        let mut alert = sample::alert();
        alert.process.command_line = Some("a\nb\u{2028}\u{85}c\u{7f}ß".to_owned());
        let line = alert.to_json_line();
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.contains(r"a\nb\u2028\u0085c\u007fß"), "{line}");
        assert_eq!(serde_json::from_str::<Alert>(&line).unwrap(), alert);
    }
}
