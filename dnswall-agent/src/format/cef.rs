//! Takes an alert, gives it as ArcSight's Common Event Format, version 0.
//!
//! `CEF:0|vendor|product|version|kind|title|severity|key=value key=value …`. In the header `\` and `|` are escaped, in
//! values `\` and `=`; a line break cannot get there. Values are cut at what the dictionary of keys allows. IPv6
//! addresses have keys of their own, and what has no key is in the custom ones with a label each.

use std::fmt::{Display, Write as _};
use std::net::IpAddr;

use super::sentence::{sentence, title};
use super::value::{VALUE_BYTES_MAX, bounded};
use super::{PRODUCT, VERSION};
use crate::alert::{Alert, AlertFlow, AlertPod, AlertWorkload, Severity};
use crate::event::{EventHook, Outcome};

/// Bytes of `dvchost`.
const DEVICE_HOST_BYTES_MAX: usize = 100;
/// Bytes of `destinationDnsDomain`.
const DOMAIN_BYTES_MAX: usize = 255;
/// Bytes of `fileHash`.
const HASH_BYTES_MAX: usize = 255;
/// Bytes of `proto` and `app`.
const PROTOCOL_BYTES_MAX: usize = 31;

/// The line.
pub fn line(alert: &Alert) -> String {
    let header = [PRODUCT, PRODUCT, VERSION, alert.kind.name(), title(alert.kind)].map(header);
    let mut line = format!("CEF:0|{}|{}|", header.join("|"), severity(alert.severity));
    line.push_str(&extension(alert).text);
    line
}

/// Of ten, in the middle of what CEF calls by the same words.
pub(super) const fn severity(severity: Severity) -> u8 {
    match severity {
        Severity::Info => 1,
        Severity::Low => 3,
        Severity::Medium => 5,
        Severity::High => 8,
        Severity::Critical => 10,
    }
}

fn header(text: &str) -> String {
    escaped(&bounded(text, VALUE_BYTES_MAX), '|')
}

/// With a backslash before each backslash and each of the other.
fn escaped(text: &str, other: char) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if character == '\\' || character == other {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

#[derive(Default)]
struct Extension {
    text: String,
}

impl Extension {
    /// A number, an address or a word of our own.
    fn put(&mut self, key: &str, value: impl Display) {
        let space = if self.text.is_empty() { "" } else { " " };
        let _ = write!(self.text, "{space}{key}={value}");
    }

    /// Text, unless there is none.
    fn text(&mut self, key: &str, value: Option<&str>, bytes_max: usize) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.put(key, escaped(&bounded(value, bytes_max), '='));
        }
    }

    /// Text under a key that says what it is called.
    fn custom(&mut self, key: &str, label: &str, value: Option<&str>) {
        if value.is_some_and(|value| !value.is_empty()) {
            self.put(&format!("{key}Label"), label);
            self.text(key, value, VALUE_BYTES_MAX);
        }
    }

    fn number(&mut self, key: &str, label: &str, value: impl Display) {
        self.put(&format!("{key}Label"), label);
        self.put(key, value);
    }
}

fn extension(alert: &Alert) -> Extension {
    let mut extension = Extension::default();
    let is_ingress = alert.flow.as_ref().is_some_and(|flow| flow.hook == EventHook::Ingress);
    extension.put("rt", alert.time.as_millisecond());
    extension.put("start", alert.first.as_millisecond());
    extension.put("end", alert.last.as_millisecond());
    extension.put("cnt", alert.count);
    extension.put("externalId", alert.id);
    extension.text("dvchost", Some(&alert.host), DEVICE_HOST_BYTES_MAX);
    extension.put("cat", alert.kind);
    extension.text("reason", Some(&alert.reason), VALUE_BYTES_MAX);
    match alert.verdict {
        Some(Outcome::Denied) => {
            extension.put("act", "denied");
            extension.put("outcome", "failure");
        }
        Some(Outcome::WouldDeny) => {
            extension.put("act", "would-deny");
            extension.put("outcome", "success");
        }
        None => {}
    }
    if let Some(flow) = &alert.flow {
        put_flow(&mut extension, flow, is_ingress);
    }
    let name = alert.flow.as_ref().and_then(|flow| flow.destination_name.as_deref());
    if let Some(dns) = &alert.dns {
        extension.put("app", "DNS");
        extension.text("destinationDnsDomain", Some(&dns.name), DOMAIN_BYTES_MAX);
    } else {
        extension.text("destinationDnsDomain", name, DOMAIN_BYTES_MAX);
    }
    put_process(&mut extension, alert, is_ingress);
    put_custom(&mut extension, alert);
    extension.text("msg", Some(&sentence(alert)), VALUE_BYTES_MAX);
    extension
}

fn put_flow(extension: &mut Extension, flow: &AlertFlow, is_ingress: bool) {
    extension.put("deviceDirection", u8::from(!is_ingress));
    extension.text("proto", Some(&flow.protocol.to_uppercase()), PROTOCOL_BYTES_MAX);
    for (address, key, key6, label6) in [
        (flow.source, "src", "c6a2", "Source IPv6 Address"),
        (flow.destination, "dst", "c6a3", "Destination IPv6 Address"),
    ] {
        match address {
            Some(IpAddr::V4(address)) => extension.put(key, address),
            Some(IpAddr::V6(address)) => extension.number(key6, label6, address),
            None => {}
        }
    }
    for (port, key) in [(flow.source_port, "spt"), (flow.destination_port, "dpt")] {
        if let Some(port) = port {
            extension.put(key, port);
        }
    }
    if let Some(icmp) = flow.icmp {
        extension.number("cn2", "icmpType", icmp.kind);
        extension.number("cn3", "icmpCode", icmp.code);
    }
}

/// The process is the source's, except where others ask it.
fn put_process(extension: &mut Extension, alert: &Alert, is_ingress: bool) {
    let process = &alert.process;
    let [pid, uid, program, user] =
        if is_ingress { ["dpid", "duid", "dproc", "duser"] } else { ["spid", "suid", "sproc", "suser"] };
    for (key, number) in [(pid, process.pid), (uid, process.uid)] {
        if let Some(number) = number {
            extension.put(key, number);
        }
    }
    extension.text(program, process.exe.as_deref().or(process.comm.as_deref()), VALUE_BYTES_MAX);
    extension.text(user, process.user.as_deref(), VALUE_BYTES_MAX);
    extension.text("fileHash", process.hash.as_ref().map(|hash| hash.sha256.as_str()), HASH_BYTES_MAX);
}

fn put_custom(extension: &mut Extension, alert: &Alert) {
    let home = home(&alert.workload);
    let dns = alert.dns.as_ref();
    extension.custom("cs1", "rule", alert.rule.as_deref());
    extension.custom("cs2", "list", dns.and_then(|dns| dns.list.as_deref()));
    extension.custom("cs3", "listEntry", dns.and_then(|dns| dns.entry.as_deref()));
    extension.custom("cs4", "questionType", dns.map(|dns| dns.kind.as_str()));
    extension.custom("cs5", "workload", home.as_deref());
    extension.custom("cs6", "attack", Some(&alert.attack.join(",")));
    extension.custom("flexString1", "commandLine", alert.process.command_line.as_deref());
    extension.custom("flexString2", "policy", alert.policy.name.as_deref());
    extension.number("cn1", "generation", alert.policy.generation);
    if let Some(names) = &alert.names {
        extension.number("cn2", "names", names.distinct);
    }
    if let Some(limited) = &alert.limited {
        extension.number("cn3", "standsFor", limited.alerts);
    }
}

/// Pod, container's name and id, as far as they are known; else unit or cgroup. There is one key for it all.
fn home(workload: &AlertWorkload) -> Option<String> {
    let pod = workload.pod.as_ref().map(AlertPod::path);
    let parts = [pod, workload.container_name.clone(), workload.container.clone()];
    let container: Vec<String> = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect();
    if container.is_empty() {
        workload.unit.clone().or_else(|| workload.cgroup.clone())
    } else {
        Some(container.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;
    use crate::format::sample;

    /// What a parser that others wrote makes of lines: liblognorm's, which rsyslog uses. The header's fields, and keys with values.
    fn read(lines: &[String]) -> Vec<Map<String, Value>> {
        let directory = tempfile::tempdir().unwrap();
        let rules = directory.path().join("cef.rb");
        fs::write(&rules, "version=2\nrule=:%cef:cef%\n").unwrap();
        let input = directory.path().join("lines");
        // 2.0.6 takes the character after the header for a space, and ArcSight's own lines have none there.
        let apart = |line: &String| match line.match_indices('|').nth(bars(line) - 1) {
            Some((at, _)) => format!("{} {}\n", &line[..=at], &line[at + 1..]),
            None => panic!("no header: {line}"),
        };
        fs::write(&input, lines.iter().map(apart).collect::<String>()).unwrap();
        let mut command = Command::new("lognormalizer");
        command.arg("-r").arg(&rules).args(["-e", "json"]).stdin(fs::File::open(&input).unwrap());
        let output = command.output().expect("run lognormalizer (Debian: liblognorm-utils)");
        let text = String::from_utf8(output.stdout).unwrap();
        let parsed: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(parsed.len(), lines.len(), "{text}");
        let read = parsed.iter().zip(lines).map(|(parsed, line)| match &parsed["cef"] {
            Value::Object(read) => read.clone(),
            _ => panic!("not read: {line}"),
        });
        read.collect()
    }

    /// Bars up to the end of the header, those with a backslash included.
    fn bars(line: &str) -> usize {
        let (mut bars, mut ends, mut escaped) = (0, 0, false);
        for character in line.chars() {
            if character == '|' {
                bars += 1;
                ends += usize::from(!escaped);
            }
            escaped = character == '\\' && !escaped;
            if ends == 7 {
                break;
            }
        }
        bars
    }

    fn check(alerts: &[Alert]) {
        let lines: Vec<String> = alerts.iter().map(line).collect();
        for ((alert, line), read) in alerts.iter().zip(&lines).zip(read(&lines)) {
            assert!(!line.contains(char::is_control), "{line}");
            check_read(alert, &read, line);
        }
    }

    fn check_read(alert: &Alert, read: &Map<String, Value>, line: &str) {
        let own = severity(alert.severity).to_string();
        for (field, value) in [
            ("DeviceVendor", PRODUCT),
            ("DeviceProduct", PRODUCT),
            ("DeviceVersion", VERSION),
            ("SignatureID", alert.kind.name()),
            ("Name", title(alert.kind)),
            ("Severity", &own),
        ] {
            assert_eq!(read[field], value, "{field} of {line}");
        }
        let pairs = read["Extensions"].as_object().unwrap();
        // As many as there are `=` without a backslash: no key twice, and none that a text made.
        let written = line.replace("\\\\", "").replace("\\=", "").matches('=').count();
        assert_eq!(pairs.len(), written, "{line}");
        let of = |key: &str| pairs.get(key).map(|value| value.as_str().unwrap());
        let text = |text: Option<&str>, max| text.filter(|t| !t.is_empty()).map(|text| bounded(text, max));
        assert_eq!(of("rt"), Some(&*alert.time.as_millisecond().to_string()));
        assert_eq!(of("dvchost"), text(Some(&alert.host), DEVICE_HOST_BYTES_MAX).as_deref());
        let command = text(alert.process.command_line.as_deref(), VALUE_BYTES_MAX);
        assert_eq!(of("flexString1"), command.as_deref());
        assert_eq!(of("cs1"), text(alert.rule.as_deref(), VALUE_BYTES_MAX).as_deref());
        assert_eq!(of("externalId"), Some(&*alert.id.to_string()));
        assert_eq!(of("msg"), Some(&*sentence(alert)));
        assert!(pairs.values().all(|value| value.as_str().unwrap().len() <= VALUE_BYTES_MAX));
    }

    #[test]
    fn every_alert_is_read_back() {
        let alerts: Vec<Alert> = sample::alerts().into_iter().map(|(_, alert)| alert).collect();
        check(&alerts);
    }

    #[test]
    fn an_address_of_version_6_has_a_key_of_its_own() {
        let alerts = sample::alerts();
        let line = line(&alerts.iter().find(|(name, _)| *name == "icmp").unwrap().1);
        assert!(line.contains(" c6a2Label=Source IPv6 Address c6a2=2001:db8::5 "), "{line}");
        assert!(line.contains(" c6a3=2001:db8::7 ") && !line.contains(" src="), "{line}");
    }

    #[test]
    fn one_of_each_class() {
        let shown = ["listed", "connect", "ingress", "unjudged", "tamper", "pod", "hostile"];
        let lines: Vec<String> = sample::alerts()
            .iter()
            .filter(|(name, _)| shown.contains(name))
            .map(|(_, alert)| line(alert).replace(&format!("|{VERSION}|"), "|VERSION|"))
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    proptest! {
        #[test]
        fn no_text_gets_out_of_its_value(text in any::<String>(), ugly in "[\\\\=| a\n\"\\]]{0,40}") {
            check(&[sample::hostile(&text), sample::hostile(&ugly), sample::hostile_tampering(&ugly)]);
        }
    }
}
