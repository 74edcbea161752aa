//! Takes an alert, gives it in the words of the Open Cybersecurity Schema Framework 1.8: one JSON object.
//!
//! | alert | class | activity |
//! |---|---|---|
//! | a packet or an attempt with a question | DNS Activity, 4003 | Query |
//! | another packet or attempt | Network Activity, 4001 | Refuse; in audit mode Open for an attempt, else Traffic |
//! | a socket or a device being opened, tampering, `alerts.lost`, `blocklist.*` | Detection Finding, 2004: nothing went anywhere | Create |
//!
//! `metadata.uid` is the alert's id, by which one that arrives twice is found out. `time` is when the last refusal that
//! is counted was seen, `start_time` the first. What OCSF has no attribute for is under `unmapped`.

mod parts;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::object::without_holes;
use super::sentence::{sentence, title};
use super::value::value;
use super::{PRODUCT, VERSION};
use crate::alert::{Alert, Severity};
use crate::event::{EventHook, Outcome};

/// The version of OCSF.
pub const OCSF_VERSION: &str = "1.8.0";
/// `count` is an integer of 32 bits there; what is more stays this.
const COUNT_MAX: u64 = i32::MAX as u64;

/// A class of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Dns,
    Network,
    Finding,
}

impl Class {
    const fn of(alert: &Alert) -> Self {
        match (&alert.flow, &alert.dns) {
            (Some(flow), _)
                if matches!(flow.hook, EventHook::SockCreate | EventHook::Socket | EventHook::Device) =>
            {
                Self::Finding
            }
            (Some(_), Some(_)) => Self::Dns,
            (Some(_), None) => Self::Network,
            (None, _) => Self::Finding,
        }
    }

    const fn uid(self) -> u32 {
        match self {
            Self::Dns => 4_003,
            Self::Network => 4_001,
            Self::Finding => 2_004,
        }
    }

    /// Network Activity or Findings.
    const fn category(self) -> u32 {
        self.uid() / 1_000
    }
}

/// The event in one line.
pub fn line(alert: &Alert) -> String {
    event(alert).to_string()
}

/// The event.
pub fn event(alert: &Alert) -> Value {
    let class = Class::of(alert);
    let activity = activity(class, alert);
    let common = json!({
        "category_uid": class.category(),
        "class_uid": class.uid(),
        "activity_id": activity,
        "type_uid": class.uid() * 100 + activity,
        "severity_id": severity(alert.severity),
        "time": milliseconds(alert.time),
        "start_time": milliseconds(alert.first),
        "end_time": milliseconds(alert.last),
        "count": alert.count.min(COUNT_MAX),
        "message": sentence(alert),
        "status_detail": value(&alert.reason),
        "metadata": metadata(alert),
        "action_id": action(alert),
        "disposition_id": disposition(alert),
        "is_alert": true,
        "firewall_rule": { "name": alert.rule.as_deref().map(value) },
        "policy": parts::policy(&alert.policy),
        "device": parts::device(&alert.host),
        "osint": parts::osint(alert.dns.as_ref()),
        "unmapped": parts::unmapped(alert),
    });
    let own = match class {
        Class::Finding => finding(alert),
        Class::Dns | Class::Network => traffic(alert),
    };
    let mut event = Map::new();
    for part in [common, own] {
        if let Value::Object(part) = part {
            event.extend(part);
        }
    }
    without_holes(Value::Object(event))
}

/// What is only in events of traffic.
fn traffic(alert: &Alert) -> Value {
    let Some(flow) = &alert.flow else { return Value::Null };
    let is_ingress = flow.hook == EventHook::Ingress;
    let (name, hash) = (flow.destination_name.as_deref(), alert.process.hash.as_ref());
    json!({
        "status_id": match alert.verdict {
            Some(Outcome::Denied) => Some(FAILURE),
            _ => None,
        },
        "attacks": parts::attacks(&alert.attack),
        "actor": (!is_ingress).then(|| parts::actor(alert)),
        "src_endpoint": parts::endpoint(flow.source, flow.source_port, (!is_ingress).then_some(&*alert.host), None),
        "dst_endpoint": parts::endpoint(flow.destination, flow.destination_port, is_ingress.then_some(&*alert.host), name),
        "connection_info": parts::connection(flow),
        "query": alert.dns.as_ref().map(parts::query),
        "query_time": alert.dns.as_ref().map(|_| milliseconds(alert.time)),
        "observables": parts::observables(flow, alert.dns.as_ref(), hash.filter(|_| !is_ingress)),
    })
}

/// What is only in findings.
fn finding(alert: &Alert) -> Value {
    let data = json!({
        "opened": alert.flow.as_ref().map(|flow| value(&flow.protocol)),
        "tamper": alert.tamper.as_ref().map(parts::tamper),
        "lost": alert.lost.as_ref().map(parts::lost),
        "blocklist": alert.blocklist.as_ref().map(parts::blocklist),
    });
    json!({
        "status_id": NEW,
        "confidence_id": HIGH_CONFIDENCE,
        "actor": parts::actor(alert),
        "finding_info": {
            "uid": alert.id.to_string(),
            "title": title(alert.kind),
            "desc": sentence(alert),
            "types": [alert.kind.name()],
            "first_seen_time": milliseconds(alert.first),
            "last_seen_time": milliseconds(alert.last),
            "analytic": { "type_id": ANALYTIC_RULE, "name": alert.kind.name(), "uid": alert.kind.name() },
            "attacks": parts::attacks(&alert.attack),
        },
        "evidences": [{ "data": data }],
    })
}

/// Nothing came of it, of what was tried.
const FAILURE: u32 = 2;
/// Nobody looked at the finding yet.
const NEW: u32 = 1;
/// The kernel, or the agent itself, saw it.
const HIGH_CONFIDENCE: u32 = 3;
const ANALYTIC_RULE: u32 = 1;

const fn activity(class: Class, alert: &Alert) -> u32 {
    match (class, alert.verdict, &alert.flow) {
        (Class::Finding | Class::Dns, ..) => 1,
        (Class::Network, Some(Outcome::Denied), _) => 5,
        (Class::Network, _, Some(flow)) if matches!(flow.hook, EventHook::Connect) => 1,
        (Class::Network, ..) => 6,
    }
}

/// The same five words, in the same order.
const fn severity(severity: Severity) -> u32 {
    severity as u32 + 1
}

/// Denied, or observed.
const fn action(alert: &Alert) -> u32 {
    match alert.verdict {
        Some(Outcome::Denied) => 2,
        Some(Outcome::WouldDeny) | None => 3,
    }
}

/// Blocked, detected; corrected or not.
fn disposition(alert: &Alert) -> u32 {
    match (alert.verdict, &alert.tamper) {
        (Some(Outcome::Denied), _) => 2,
        (None, Some(tamper)) if tamper.mended => 11,
        (None, Some(_)) => 13,
        (Some(Outcome::WouldDeny) | None, _) => 15,
    }
}

fn metadata(alert: &Alert) -> Value {
    let has_entry = alert.dns.as_ref().is_some_and(|dns| dns.entry.is_some());
    let has_container = parts::container(&alert.workload).is_some();
    json!({
        "version": OCSF_VERSION,
        "product": { "name": PRODUCT, "vendor_name": PRODUCT, "version": VERSION },
        "profiles": [
            Some("host"),
            Some("security_control"),
            has_entry.then_some("osint"),
            has_container.then_some("container"),
        ],
        "uid": alert.id.to_string(),
        "event_code": alert.kind.name(),
    })
}

fn milliseconds(time: Timestamp) -> i64 {
    time.as_millisecond()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{sample, schema};

    #[test]
    fn every_alert_is_as_the_schema_says() {
        for (name, alert) in sample::alerts() {
            assert_eq!(schema::ocsf::problems(&event(&alert)), [""; 0], "{name}");
        }
    }

    #[test]
    fn the_class_is_that_of_what_happened() {
        let expected = |name| match name {
            "question" | "listed" | "denied-name" | "type" | "limit" | "ingress" | "container" | "pod"
            | "claimed" | "hostile" | "long" | "names" => 4_003,
            "raw" | "unjudged" | "device" | "mended" | "tamper" | "limited-all" | "lost" | "rejected"
            | "stale" | "hostile-lost" | "hostile-list" => 2_004,
            _ => 4_001,
        };
        for (name, alert) in sample::alerts() {
            assert_eq!(event(&alert)["class_uid"], expected(name), "{name}");
        }
    }

    #[test]
    fn what_would_be_denied_was_only_seen() {
        let alerts = sample::alerts();
        let of = |name: &str| {
            let event = event(&alerts.iter().find(|(known, _)| *known == name).unwrap().1);
            ["activity_id", "action_id", "disposition_id", "status_id"].map(|key| event[key].as_u64())
        };
        assert_eq!(of("question"), [Some(1), Some(2), Some(2), Some(2)]);
        assert_eq!(of("gre"), [Some(5), Some(2), Some(2), Some(2)]);
        assert_eq!(of("connect"), [Some(1), Some(3), Some(15), None]);
        assert_eq!(of("mended"), [Some(1), Some(3), Some(11), Some(1)]);
        assert_eq!(of("tamper"), [Some(1), Some(3), Some(13), Some(1)]);
    }

    #[test]
    fn one_of_each_class() {
        let shown = ["listed", "connect", "unjudged", "tamper", "pod"];
        for (name, alert) in sample::alerts().iter().filter(|(name, _)| shown.contains(name)) {
            let mut event = event(alert);
            event["metadata"]["product"]["version"] = "VERSION".into();
            insta::assert_json_snapshot!(*name, event);
        }
    }
}
