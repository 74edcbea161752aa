//! Takes an alert, gives it as IBM QRadar's Log Event Extended Format, version 2.0.
//!
//! `LEEF:2.0|vendor|product|version|kind|x09|key=value⇥key=value…`. LEEF knows no escapes: the header has only words of
//! our own, and values have neither tabs nor line breaks, because cleaning took them out. A key ends at the first `=`.

use std::fmt::{Display, Write as _};

use super::cef::severity;
use super::sentence::sentence;
use super::value::value;
use super::{PRODUCT, VERSION};
use crate::alert::Alert;
use crate::event::Outcome;

/// Between values: a tab, and how the header says so.
const DELIMITER: char = '\t';
const DELIMITER_NAME: &str = "x09";
/// How `devTime` is to be read, in the words of Java's `SimpleDateFormat`.
const TIME_FORMAT: &str = "yyyy-MM-dd HH:mm:ss.SSS Z";

/// The line.
pub fn line(alert: &Alert) -> String {
    let mut line = format!("LEEF:2.0|{PRODUCT}|{PRODUCT}|{VERSION}|{}|{DELIMITER_NAME}|", alert.kind);
    let header = line.len();
    let mut put = |key: &str, value: &dyn Display| {
        if line.len() > header {
            line.push(DELIMITER);
        }
        let _ = write!(line, "{key}={value}");
    };
    put("cat", &alert.kind);
    put("devTime", &alert.time.strftime("%Y-%m-%d %H:%M:%S%.3f +0000"));
    put("devTimeFormat", &TIME_FORMAT);
    put("sev", &severity(alert.severity));
    put("id", &alert.id);
    put("count", &alert.count);
    put("first", &format_args!("{:.3}", alert.first));
    put("last", &format_args!("{:.3}", alert.last));
    if let Some(verdict) = alert.verdict {
        put("verdict", &if verdict == Outcome::Denied { "denied" } else { "would-deny" });
    }
    let mut text = |key: &str, text: Option<&str>| {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            put(key, &value(text));
        }
    };
    let number = |number: Option<u32>| number.map(|number| number.to_string());
    text("identHostName", Some(&alert.host));
    text("reason", Some(&alert.reason));
    text("rule", alert.rule.as_deref());
    text("policy", alert.policy.name.as_deref());
    text("generation", Some(&alert.policy.generation.to_string()));
    text("attack", Some(&alert.attack.join(",")));
    if let Some(flow) = &alert.flow {
        let hook = serde_json::to_value(flow.hook).ok();
        text("hook", hook.as_ref().and_then(|hook| hook.as_str()));
        text("proto", Some(&flow.protocol));
        text("src", flow.source.map(|address| address.to_string()).as_deref());
        text("srcPort", number(flow.source_port.map(u32::from)).as_deref());
        text("dst", flow.destination.map(|address| address.to_string()).as_deref());
        text("dstPort", number(flow.destination_port.map(u32::from)).as_deref());
        text("icmpType", number(flow.icmp.map(|icmp| icmp.kind.into())).as_deref());
        text("icmpCode", number(flow.icmp.map(|icmp| icmp.code.into())).as_deref());
        text("dstDomain", flow.destination_name.as_deref());
        text("communityId", flow.community_id.as_deref());
    }
    if let Some(dns) = &alert.dns {
        text("qname", Some(&dns.name));
        text("qtype", Some(&dns.kind));
        text("list", dns.list.as_deref());
        text("listEntry", dns.entry.as_deref());
        text("listDigest", dns.list_digest.as_deref());
    }
    if let Some(names) = &alert.names {
        text("domain", names.domain.as_deref());
        text("names", Some(&names.distinct.to_string()));
        text("firstName", Some(&names.first));
    }
    text("standsFor", alert.limited.as_ref().map(|limited| limited.alerts.to_string()).as_deref());
    let process = &alert.process;
    text("usrName", process.user.as_deref());
    text("uid", number(process.uid).as_deref());
    text("pid", number(process.pid).as_deref());
    text("process", process.exe.as_deref().or(process.comm.as_deref()));
    text("commandLine", process.command_line.as_deref());
    text("sha256", process.hash.as_ref().map(|hash| hash.sha256.as_str()));
    let parent = process.parent.as_ref();
    text("parentPid", number(parent.map(|parent| parent.pid)).as_deref());
    text("parentProcess", parent.and_then(|parent| parent.exe.as_deref().or(parent.comm.as_deref())));
    text("container", alert.workload.container.as_deref());
    text("containerName", alert.workload.container_name.as_deref());
    text("image", alert.workload.image.as_deref());
    text("runtime", alert.workload.runtime.as_deref());
    if let Some(pod) = &alert.workload.pod {
        text("namespace", Some(&pod.namespace));
        text("pod", Some(&pod.name));
        text("node", pod.node.as_deref());
    }
    text("unit", alert.workload.unit.as_deref());
    text("cgroup", alert.workload.cgroup.as_deref());
    text("msg", Some(&sentence(alert)));
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::sample;
    use proptest::prelude::*;

    /// What a reader makes of a line, by IBM's description.
    fn read(line: &str) -> (Vec<&str>, Vec<(&str, &str)>) {
        let mut fields: Vec<&str> = line.splitn(7, '|').collect();
        let attributes = fields.pop().unwrap();
        assert_eq!(fields[5], "x09");
        (fields, attributes.split('\u{9}').map(|pair| pair.split_once('=').unwrap()).collect())
    }

    fn check(alert: &Alert) {
        let line = line(alert);
        assert!(!line.contains(|c: char| c.is_control() && c != '\t'), "{line:?}");
        let (header, pairs) = read(&line);
        assert_eq!(header[..5], ["LEEF:2.0", PRODUCT, PRODUCT, VERSION, alert.kind.name()]);
        let mut keys: Vec<&str> = pairs.iter().map(|(key, _)| *key).collect();
        assert!(keys.iter().all(|key| key.chars().all(|c| c.is_ascii_alphanumeric())), "{keys:?}");
        keys.sort_unstable();
        assert!(keys.is_sorted_by(|a, b| a < b), "a key twice: {keys:?}");
        let of =
            |key: &str| pairs.iter().find(|(known, _)| *known == key).map(|(_, value)| (*value).to_owned());
        let text = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(value);
        assert_eq!(of("identHostName"), text(Some(&alert.host)));
        assert_eq!(of("commandLine"), text(alert.process.command_line.as_deref()));
        assert_eq!(of("qname"), text(alert.dns.as_ref().map(|dns| dns.name.as_str())));
        assert_eq!(of("msg"), Some(sentence(alert)));
        let severity: u8 = of("sev").unwrap().parse().unwrap();
        assert!((1..=10).contains(&severity));
    }

    #[test]
    fn every_alert_is_read_back() {
        for (_, alert) in sample::alerts() {
            check(&alert);
        }
    }

    #[test]
    fn one_of_each_class() {
        let shown = ["listed", "connect", "ingress", "unjudged", "tamper", "hostile"];
        let lines: Vec<String> = sample::alerts()
            .iter()
            .filter(|(name, _)| shown.contains(name))
            .map(|(_, alert)| line(alert).replace(&format!("|{VERSION}|"), "|VERSION|").replace('\t', "⇥"))
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    proptest! {
        #[test]
        fn no_text_gets_out_of_its_value(text in any::<String>(), ugly in "[\\\\=|\t a\n\"\\]]{0,40}") {
            check(&sample::hostile(&text));
            check(&sample::hostile(&ugly));
            check(&sample::hostile_tampering(&ugly));
        }
    }
}
