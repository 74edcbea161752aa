//! Takes an alert, gives it in the words of the Elastic Common Schema 9.4: one JSON object.
//!
//! What ECS has no field for is under `dnswall`. `event.id` is the alert's id: whoever uses it as `_id` stores an alert
//! that arrives twice once.

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::object::without_holes;
use super::sentence::sentence;
use super::value::{
    ANCESTOR_BYTES_MAX, IMAGE_BYTES_MAX, LABEL_BYTES_MAX, VALUE_BYTES_MAX, bounded, image_parts, named, value,
};
use super::{PRODUCT, VERSION};
use crate::alert::{
    Alert, AlertBlocklist, AlertDns, AlertFlow, AlertLost, AlertNames, AlertParent, AlertPod, AlertPolicy,
    AlertProcess, AlertTamper, AlertWorkload, Kind, Severity,
};
use crate::event::{EventHook, Outcome};

/// The version of ECS.
pub const ECS_VERSION: &str = "9.4.0";

/// The object in one line.
pub fn line(alert: &Alert) -> String {
    object(alert).to_string()
}

/// The object.
pub fn object(alert: &Alert) -> Value {
    let Alert {
        schema: _,
        time,
        id,
        kind,
        verdict,
        severity,
        attack,
        reason,
        rule,
        policy,
        flow,
        dns,
        process,
        workload,
        host,
        count,
        first,
        last,
        tamper,
        selftest,
        names,
        limited,
        lost,
        blocklist,
        marks: _,
    } = alert;
    let AlertPolicy { name: policy_name, generation, digest } = policy;
    let AlertWorkload { cgroup, unit, slice, container, container_name, image, runtime, pod } = workload;
    let is_ingress = flow.as_ref().is_some_and(|flow| flow.hook == EventHook::Ingress);
    let ends = flow.as_ref().map(ends);
    let name = flow.as_ref().and_then(|flow| flow.destination_name.as_deref());
    without_holes(json!({
        "@timestamp": date(*time),
        "ecs": { "version": ECS_VERSION },
        "message": sentence(alert),
        "event": {
            // A heartbeat is no alert to anybody but who misses it.
            "kind": if selftest.is_some() { "state" } else { "alert" },
            "category": category(*kind),
            "type": types(alert),
            "action": action(alert),
            "code": kind.name(),
            "reason": value(reason),
            "id": id.to_string(),
            "module": PRODUCT,
            "dataset": "dnswall.alert",
            "provider": PRODUCT,
            "severity": level(*severity),
            "risk_score": risk_score(*severity),
            "start": date(*first),
            "end": date(*last),
        },
        "network": flow.as_ref().map(|flow| network(flow, dns.is_some(), is_ingress)),
        "source": ends.as_ref().map(|(source, _)| source),
        "destination": ends.as_ref().map(|(_, destination)| destination),
        "dns": dns.as_ref().map(question),
        "process": of_process(process),
        "user": { "id": process.uid.map(|uid| uid.to_string()), "name": process.user.as_deref().map(named) },
        "container": {
            "id": container.as_deref().map(value),
            "name": container_name.as_deref().map(named),
            "image": image.as_deref().map(image_parts).map(|(name, tag)| json!({
                "name": bounded(name, IMAGE_BYTES_MAX),
                "tag": [tag.map(named)],
            })),
            "runtime": runtime.as_deref().map(named),
        },
        "orchestrator": pod.as_ref().map(orchestrator),
        "host": { "name": value(host), "hostname": value(host) },
        "observer": { "type": "firewall", "vendor": PRODUCT, "product": PRODUCT, "version": VERSION },
        "rule": {
            "name": rule.as_deref().map(value),
            "category": rule.as_ref().map(|_| kind.name()),
            "ruleset": policy_name.as_deref().map(value),
            "version": policy_name.as_ref().map(|_| generation.to_string()),
        },
        "threat": threat(attack, dns.as_ref()),
        "related": {
            "hash": [process.hash.as_ref().map(|hash| &hash.sha256)],
            "ip": flow.iter().flat_map(|flow| [flow.source, flow.destination]).flatten().collect::<Vec<IpAddr>>(),
            "hosts": [Some(value(host)), dns.as_ref().map(|dns| value(&dns.name)), name.map(value)],
            "user": [process.user.as_deref().map(value)],
        },
        "dnswall": {
            "verdict": verdict.map(|verdict| match verdict {
                Outcome::Denied => "denied",
                Outcome::WouldDeny => "would-deny",
            }),
            "count": count,
            "policy": { "generation": generation, "digest": digest.as_deref().map(value) },
            "cgroup": cgroup.as_deref().map(value),
            "unit": unit.as_deref().map(value),
            "slice": slice.as_deref().map(value),
            "node": pod.as_ref().and_then(|pod| pod.node.as_deref()).map(named),
            "flow": flow.as_ref().map(own_flow),
            "list": dns.as_ref().map(|dns| json!({ "line": dns.line, "digest": dns.list_digest.as_deref().map(value) })),
            "parents": process.parents.iter().map(|parent| of_parent(parent, ANCESTOR_BYTES_MAX)).collect::<Vec<Value>>(),
            "tamper": tamper.as_ref().map(of_tamper),
            "selftest": selftest.as_ref().map(|test| json!({ "number": test.number, "latency_us": test.latency_us })),
            "names": names.as_ref().map(of_names),
            "limited": limited.as_ref().map(|limited| json!({ "alerts": limited.alerts })),
            "lost": lost.as_ref().map(of_lost),
            "blocklist": blocklist.as_ref().map(of_blocklist),
        },
    }))
}

fn date(time: Timestamp) -> String {
    format!("{time:.6}")
}

const fn category(kind: Kind) -> [&'static str; 2] {
    match kind {
        Kind::Tamper | Kind::BlocklistRejected | Kind::BlocklistStale => {
            ["configuration", "intrusion_detection"]
        }
        _ => ["intrusion_detection", "network"],
    }
}

/// Of the values that ECS expects for the categories.
fn types(alert: &Alert) -> Vec<&'static str> {
    let verdict = match alert.verdict {
        Some(Outcome::Denied) => "denied",
        Some(Outcome::WouldDeny) => "allowed",
        None => "info",
    };
    let protocol = alert.dns.as_ref().map(|_| "protocol");
    std::iter::once(verdict).chain(protocol).collect()
}

/// `dns-direct-denied`, `dns-direct-would-deny`, `tamper-link-detached`.
fn action(alert: &Alert) -> String {
    let kind = alert.kind.name().replace('.', "-");
    match alert.verdict {
        Some(Outcome::Denied) => kind + "-denied",
        Some(Outcome::WouldDeny) => kind + "-would-deny",
        None => format!("{kind}-{}", value(&alert.reason)),
    }
}

/// From 1 to 5, in the order of the severities.
const fn level(severity: Severity) -> u8 {
    severity as u8 + 1
}

/// The scores that Elastic's own rules have for the same words.
const fn risk_score(severity: Severity) -> u8 {
    match severity {
        Severity::Info => 1,
        Severity::Low => 21,
        Severity::Medium => 47,
        Severity::High => 73,
        Severity::Critical => 99,
    }
}

fn network(flow: &AlertFlow, is_dns: bool, is_ingress: bool) -> Value {
    let number = flow.protocol_number();
    let transport = match (flow.protocol.as_str(), number) {
        ("icmpv6", _) => Some("ipv6-icmp"),
        (name, Some(_)) if name.parse::<u8>().is_err() => Some(name),
        _ => None,
    };
    json!({
        "direction": if is_ingress { "ingress" } else { "egress" },
        "transport": transport,
        "iana_number": number.map(|number| number.to_string()),
        "type": match flow.destination.or(flow.source) {
            Some(IpAddr::V4(_)) => Some("ipv4"),
            Some(IpAddr::V6(_)) => Some("ipv6"),
            None => None,
        },
        "protocol": is_dns.then_some("dns"),
        "community_id": flow.community_id.as_deref().map(value),
    })
}

fn ends(flow: &AlertFlow) -> (Value, Value) {
    let end = |address: Option<IpAddr>, port: Option<u16>, name: Option<&str>| json!({ "ip": address, "address": address, "port": port, "domain": name.map(value) });
    let name = flow.destination_name.as_deref();
    (end(flow.source, flow.source_port, None), end(flow.destination, flow.destination_port, name))
}

fn question(dns: &AlertDns) -> Value {
    let AlertDns { name, kind, id, resolver: _, list: _, entry: _, line: _, list_digest: _ } = dns;
    json!({ "type": "query", "id": id.to_string(), "question": { "name": value(name), "type": value(kind) } })
}

/// Labels as ECS wants them: `key:value`.
fn orchestrator(pod: &AlertPod) -> Value {
    let AlertPod { namespace, name, uid, container: _, node: _, labels } = pod;
    let labels =
        labels.iter().flatten().map(|(key, label)| bounded(&format!("{key}:{label}"), LABEL_BYTES_MAX));
    json!({
        "type": "kubernetes",
        "namespace": named(namespace),
        "resource": {
            "type": "pod",
            "name": named(name),
            "id": uid.as_deref().map(named),
            "label": labels.collect::<Vec<_>>(),
        },
    })
}

fn of_process(process: &AlertProcess) -> Value {
    let AlertProcess { pid, start, comm, exe, command_line, uid: _, user: _, parent, parents: _, hash } =
        process;
    json!({
        "pid": pid,
        "start": start.map(date),
        "name": comm.as_deref().map(value),
        "executable": exe.as_deref().map(value),
        "command_line": command_line.as_deref().map(value),
        "parent": parent.as_ref().map(|parent| of_parent(parent, VALUE_BYTES_MAX)),
        "hash": hash.as_ref().map(|hash| json!({ "sha256": hash.sha256 })),
    })
}

fn of_parent(parent: &AlertParent, bytes_max: usize) -> Value {
    let AlertParent { pid, exe, start, comm, command_line } = parent;
    let value = |text: &str| bounded(text, bytes_max);
    json!({
        "pid": pid,
        "start": start.map(date),
        "name": comm.as_deref().map(value),
        "executable": exe.as_deref().map(value),
        "command_line": command_line.as_deref().map(value),
    })
}

/// Techniques, and the entry of the list that has the name.
fn threat(attack: &[String], dns: Option<&AlertDns>) -> Value {
    let mut techniques: Vec<&str> =
        attack.iter().map(|technique| technique.split('.').next().unwrap_or(technique)).collect();
    techniques.sort_unstable();
    techniques.dedup();
    let subtechniques: Vec<&String> = attack.iter().filter(|technique| technique.contains('.')).collect();
    let entry = dns.and_then(|dns| dns.entry.as_deref());
    json!({
        "framework": (!attack.is_empty()).then_some("MITRE ATT&CK"),
        "technique": { "id": techniques, "subtechnique": { "id": subtechniques } },
        "feed": { "name": dns.and_then(|dns| dns.list.as_deref()).map(value) },
        "indicator": entry.map(|entry| json!({ "type": "domain-name", "name": value(entry) })),
    })
}

/// What ECS has no field for.
fn own_flow(flow: &AlertFlow) -> Value {
    json!({
        "hook": flow.hook,
        "packet_bytes": flow.bytes,
        "icmp": flow.icmp.map(|icmp| json!({ "type": icmp.kind, "code": icmp.code })),
        "opened": flow.protocol_number().is_none().then(|| value(&flow.protocol)),
    })
}

fn of_names(names: &AlertNames) -> Value {
    let AlertNames { domain, distinct, first, samples } = names;
    let samples: Vec<String> = samples.iter().map(|name| named(name)).collect();
    json!({ "domain": domain.as_deref().map(named), "distinct": distinct, "first": named(first), "samples": samples })
}

fn of_lost(lost: &AlertLost) -> Value {
    let AlertLost { queue, memory, refusals, events, sinks } = lost;
    let sinks: Vec<Value> =
        sinks.iter().map(|sink| json!({ "name": value(&sink.name), "alerts": sink.alerts })).collect();
    json!({ "queue": queue, "memory": memory, "refusals": refusals, "events": events, "sinks": sinks })
}

fn of_blocklist(list: &AlertBlocklist) -> Value {
    let AlertBlocklist { name, source, found, over, fetched, entries } = list;
    json!({
        "name": value(name),
        "source": value(source),
        "found": value(found),
        "over": over,
        "fetched": fetched.map(date),
        "entries": entries,
    })
}

fn of_tamper(tamper: &AlertTamper) -> Value {
    let AlertTamper { object, found, done, mended } = tamper;
    json!({ "object": value(object), "found": value(found), "done": value(done), "mended": mended })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{sample, schema};

    #[test]
    fn every_alert_is_as_the_schema_says() {
        for (name, alert) in sample::alerts() {
            assert_eq!(schema::ecs::problems(&object(&alert)), [""; 0], "{name}");
        }
    }

    #[test]
    fn one_of_each_class() {
        let alerts = sample::alerts();
        for (name, alert) in alerts
            .iter()
            .filter(|(name, _)| ["listed", "connect", "unjudged", "tamper", "pod"].contains(name))
        {
            let mut object = object(alert);
            object["observer"]["version"] = "VERSION".into();
            insta::assert_json_snapshot!(*name, object);
        }
    }
}
