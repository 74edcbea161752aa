//! Takes parts of an alert, gives the objects of OCSF that they are.

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::alert::attack::ATTACK_VERSION;
use crate::alert::{
    Alert, AlertBlocklist, AlertDns, AlertFlow, AlertHash, AlertLost, AlertNames, AlertParent, AlertPod,
    AlertPolicy, AlertProcess, AlertTamper, AlertWorkload,
};
use crate::event::EventHook;
use crate::format::value::{
    ANCESTOR_BYTES_MAX, IMAGE_BYTES_MAX, LABEL_BYTES_MAX, bounded, file_name, image_parts, named, value,
};

/// `device.type_id`: a server, which is what an agent for servers runs on.
const SERVER: u32 = 1;
/// `file.type_id`: a regular file.
const REGULAR_FILE: u32 = 1;
/// `fingerprint.algorithm_id`: SHA-256.
const SHA_256: u32 = 3;
/// `osint.type_id`: a domain.
const DOMAIN: u32 = 2;
/// `observable.type_id`: a host name.
const HOST_NAME: u32 = 1;
/// `observable.type_id`: an address.
const ADDRESS: u32 = 2;
/// `observable.type_id`: a hash.
const HASH: u32 = 8;

/// This host.
pub fn device(host: &str) -> Value {
    json!({ "hostname": value(host), "type_id": SERVER })
}

/// The policy that judged; its generation is its version.
pub fn policy(policy: &AlertPolicy) -> Value {
    let AlertPolicy { name, generation, digest } = policy;
    json!({
        "name": name.as_deref().map(value),
        "uid": digest.as_deref().map(value),
        "version": name.as_ref().map(|_| generation.to_string()),
    })
}

/// The process, or at least the user.
pub fn actor(alert: &Alert) -> Value {
    let AlertProcess { pid, start, comm, exe, command_line, uid, user, parent, parents, hash } =
        &alert.process;
    let user = json!({ "uid": uid.map(|uid| uid.to_string()), "name": user.as_deref().map(value) });
    if pid.is_none() {
        return json!({ "user": user });
    }
    json!({ "process": {
        "pid": pid,
        "name": comm.as_deref().map(value),
        "cmd_line": command_line.as_deref().map(value),
        "created_time": start.map(Timestamp::as_millisecond),
        "file": exe.as_deref().map(|path| file(path, hash.as_ref())),
        "user": user,
        "parent_process": parent.as_ref().map(parent_process),
        "ancestry": parent.iter().chain(parents).map(ancestor).collect::<Vec<Value>>(),
        "container": container(&alert.workload),
    }})
}

/// The container, if there is one that can be named.
pub fn container(workload: &AlertWorkload) -> Option<Value> {
    let AlertWorkload { cgroup: _, unit: _, slice: _, container, container_name, image, runtime, pod } =
        workload;
    (container.is_some() || container_name.is_some()).then(|| {
        let uid =
            pod.as_ref().and_then(|pod| pod.uid.as_deref()).filter(|uid| uuid::Uuid::try_parse(uid).is_ok());
        json!({
            "uid": container.as_deref().map(named),
            "name": container_name.as_deref().map(named),
            // An image has to have a `uid`: it is as it was asked for.
            "image": image.as_deref().map(|image| {
                let (name, _tag) = image_parts(image);
                json!({ "name": bounded(name, IMAGE_BYTES_MAX), "uid": bounded(image, IMAGE_BYTES_MAX) })
            }),
            "runtime": runtime.as_deref().map(named),
            "orchestrator": pod.as_ref().map(|_| "kubernetes"),
            "pod_uuid": uid,
            "labels": pod.as_ref().map(labels),
        })
    })
}

/// `key=value`, as Kubernetes writes selectors.
fn labels(pod: &AlertPod) -> Value {
    pod.labels
        .iter()
        .flatten()
        .map(|(key, label)| bounded(&format!("{key}={label}"), LABEL_BYTES_MAX))
        .collect()
}

fn parent_process(parent: &AlertParent) -> Value {
    let AlertParent { pid, exe, start, comm, command_line } = parent;
    json!({
        "pid": pid,
        "name": comm.as_deref().map(value),
        "cmd_line": command_line.as_deref().map(value),
        "created_time": start.map(Timestamp::as_millisecond),
        "file": exe.as_deref().map(|path| file(path, None)),
    })
}

/// A process above, as one of a list that begins with the parent.
fn ancestor(parent: &AlertParent) -> Value {
    let AlertParent { pid, exe, start, comm, command_line } = parent;
    let value = |text: &str| bounded(text, ANCESTOR_BYTES_MAX);
    json!({
        "pid": pid,
        "name": comm.as_deref().map(value),
        "path": exe.as_deref().map(value),
        "cmd_line": command_line.as_deref().map(value),
        "created_time": start.map(Timestamp::as_millisecond),
    })
}

fn file(path: &str, hash: Option<&AlertHash>) -> Value {
    json!({
        "name": value(file_name(path)),
        "path": value(path),
        "type_id": REGULAR_FILE,
        "hashes": hash.map(|hash| [json!({ "algorithm_id": SHA_256, "value": hash.sha256 })]),
    })
}

/// One end of a flow; `host` is its name where that is this host, `domain` the name that led there.
pub fn endpoint(
    address: Option<IpAddr>,
    port: Option<u16>,
    host: Option<&str>,
    domain: Option<&str>,
) -> Value {
    // A port alone is no end.
    let port = port.filter(|_| address.is_some() || host.is_some());
    json!({ "ip": address, "port": port, "hostname": host.map(value), "domain": domain.map(value) })
}

/// Direction and protocol.
pub fn connection(flow: &AlertFlow) -> Value {
    let number = flow.protocol_number();
    json!({
        "direction_id": if flow.hook == EventHook::Ingress { 1 } else { 2 },
        "protocol_num": number,
        "protocol_name": number.map(|_| value(&flow.protocol)),
        "protocol_ver_id": match flow.destination.or(flow.source) {
            Some(IpAddr::V4(_)) => Some(4),
            Some(IpAddr::V6(_)) => Some(6),
            None => None,
        },
        "community_uid": flow.community_id.as_deref().map(value),
    })
}

/// What was asked.
pub fn query(dns: &AlertDns) -> Value {
    let AlertDns { name, kind, id, resolver: _, list: _, entry: _, line: _, list_digest: _ } = dns;
    json!({ "hostname": value(name), "type": value(kind), "packet_uid": id })
}

/// The entry of the list that has the name.
pub fn osint(dns: Option<&AlertDns>) -> Value {
    let Some((dns, entry)) = dns.and_then(|dns| Some((dns, dns.entry.as_deref()?))) else {
        return Value::Null;
    };
    json!([{ "type_id": DOMAIN, "value": value(entry), "name": dns.list.as_deref().map(value) }])
}

/// Techniques, each with the one it is part of.
pub fn attacks(techniques: &[String]) -> Value {
    let attack = |uid: &String| {
        let (technique, sub) = match uid.split_once('.') {
            Some((technique, _)) => (technique, Some(uid)),
            None => (uid.as_str(), None),
        };
        json!({ "version": ATTACK_VERSION, "technique": { "uid": technique }, "sub_technique": { "uid": sub } })
    };
    techniques.iter().map(attack).collect()
}

/// What one searches by.
pub fn observables(flow: &AlertFlow, dns: Option<&AlertDns>, hash: Option<&AlertHash>) -> Value {
    let address = |name: &str, address: Option<IpAddr>| {
        address.map(|address| json!({ "name": name, "type_id": ADDRESS, "value": address }))
    };
    let name =
        dns.map(|dns| json!({ "name": "query.hostname", "type_id": HOST_NAME, "value": value(&dns.name) }));
    let domain = flow
        .destination_name
        .as_deref()
        .map(|name| json!({ "name": "dst_endpoint.domain", "type_id": HOST_NAME, "value": value(name) }));
    let hash = hash.map(
        |hash| json!({ "name": "actor.process.file.hashes.value", "type_id": HASH, "value": hash.sha256 }),
    );
    let (source, destination) =
        (address("src_endpoint.ip", flow.source), address("dst_endpoint.ip", flow.destination));
    json!([name, source, destination, domain, hash])
}

/// What was lost.
pub fn lost(lost: &AlertLost) -> Value {
    let AlertLost { queue, memory, refusals, events, sinks } = lost;
    let sinks: Vec<Value> =
        sinks.iter().map(|sink| json!({ "name": value(&sink.name), "alerts": sink.alerts })).collect();
    json!({ "queue": queue, "memory": memory, "refusals": refusals, "events": events, "sinks": sinks })
}

/// What is the matter with a list.
pub fn blocklist(list: &AlertBlocklist) -> Value {
    let AlertBlocklist { name, source, found, over, fetched: _, entries } = list;
    json!({
        "name": value(name),
        "source": value(source),
        "found": value(found),
        "over": over,
        "entries": entries,
    })
}

fn names(names: &AlertNames) -> Value {
    let AlertNames { domain, distinct, first, samples } = names;
    let samples: Vec<String> = samples.iter().map(|name| named(name)).collect();
    json!({ "domain": domain.as_deref().map(named), "distinct": distinct, "first": named(first), "samples": samples })
}

/// What was done to the wall.
pub fn tamper(tamper: &AlertTamper) -> Value {
    let AlertTamper { object, found, done, mended } = tamper;
    json!({ "object": value(object), "found": value(found), "done": value(done), "mended": mended })
}

/// What OCSF has no attribute for.
pub fn unmapped(alert: &Alert) -> Value {
    let AlertWorkload { cgroup, unit, slice, container: _, container_name: _, image: _, runtime: _, pod } =
        &alert.workload;
    let flow = alert.flow.as_ref();
    let process = &alert.process;
    let is_ingress = flow.is_some_and(|flow| flow.hook == EventHook::Ingress);
    json!({
        "cgroup": cgroup.as_deref().map(value),
        "unit": unit.as_deref().map(value),
        "slice": slice.as_deref().map(value),
        // Where no process has it.
        "container": container(&alert.workload).filter(|_| is_ingress || process.pid.is_none()),
        "pod": pod.as_ref().map(|pod| json!({
            "namespace": named(&pod.namespace),
            "name": named(&pod.name),
            "node": pod.node.as_deref().map(named),
        })),
        "generation": alert.policy.generation,
        "hook": flow.map(|flow| flow.hook),
        "packet_bytes": flow.and_then(|flow| flow.bytes),
        "icmp": flow.and_then(|flow| flow.icmp).map(|icmp| json!({ "type": icmp.kind, "code": icmp.code })),
        "names": alert.names.as_ref().map(names),
        "limited": alert.limited.as_ref().map(|limited| json!({ "alerts": limited.alerts })),
        "list_line": alert.dns.as_ref().and_then(|dns| dns.line),
        "list_digest": alert.dns.as_ref().and_then(|dns| dns.list_digest.as_deref()).map(value),
        // Whoever is asked is no actor.
        "asked": is_ingress.then(|| json!({
            "pid": process.pid,
            "exe": process.exe.as_deref().map(value),
            "uid": process.uid,
            "user": process.user.as_deref().map(value),
        })),
    })
}
