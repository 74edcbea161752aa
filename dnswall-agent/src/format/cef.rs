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
use crate::alert::{Alert, AlertFlow, Severity};
use crate::event::{EventHook, Outcome};

/// Bytes of `dvchost`.
const DEVICE_HOST_BYTES_MAX: usize = 100;
/// Bytes of `destinationDnsDomain`.
const DOMAIN_BYTES_MAX: usize = 255;
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
    if let Some(dns) = &alert.dns {
        extension.put("app", "DNS");
        extension.text("destinationDnsDomain", Some(&dns.name), DOMAIN_BYTES_MAX);
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
}

fn put_custom(extension: &mut Extension, alert: &Alert) {
    let workload = &alert.workload;
    let home = workload.container.as_deref().or(workload.unit.as_deref()).or(workload.cgroup.as_deref());
    let dns = alert.dns.as_ref();
    extension.custom("cs1", "rule", alert.rule.as_deref());
    extension.custom("cs2", "list", dns.and_then(|dns| dns.list.as_deref()));
    extension.custom("cs3", "listEntry", dns.and_then(|dns| dns.entry.as_deref()));
    extension.custom("cs4", "questionType", dns.map(|dns| dns.kind.as_str()));
    extension.custom("cs5", "workload", home);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::sample;
    use proptest::prelude::*;

    /// What a reader makes of a line, by the letter of the format: the header's seven fields, then keys and values.
    fn read(line: &str) -> (Vec<String>, Vec<(String, String)>) {
        let (mut header, mut field, mut characters) = (Vec::new(), String::new(), line.chars());
        while header.len() < 7 {
            match characters.next().unwrap() {
                '\\' => field.push(characters.next().filter(|c| ['\\', '|'].contains(c)).unwrap()),
                '|' => header.push(std::mem::take(&mut field)),
                character => field.push(character),
            }
        }
        // A key is what stands between the last space before an `=` without backslash and that.
        let (mut pairs, mut text): (Vec<(String, String)>, _) = (Vec::new(), String::new());
        while let Some(character) = characters.next() {
            match character {
                '\\' => text.push(characters.next().filter(|c| ['\\', '='].contains(c)).unwrap()),
                '=' => {
                    let key = match text.rsplit_once(' ') {
                        Some((value, key)) => {
                            pairs.last_mut().unwrap().1 = value.to_owned();
                            key.to_owned()
                        }
                        None => std::mem::take(&mut text),
                    };
                    assert!(key.chars().all(|c| c.is_ascii_alphanumeric()), "key {key:?}");
                    pairs.push((key, String::new()));
                    text = String::new();
                }
                character => text.push(character),
            }
        }
        pairs.last_mut().unwrap().1 = text;
        (header, pairs)
    }

    fn check(alert: &Alert) {
        let line = line(alert);
        assert!(!line.contains(char::is_control), "{line}");
        let (header, pairs) = read(&line);
        assert_eq!(header[..4], ["CEF:0", PRODUCT, PRODUCT, VERSION]);
        assert_eq!(header[4..6], [alert.kind.name(), title(alert.kind)]);
        let mut keys: Vec<&str> = pairs.iter().map(|(key, _)| key.as_str()).collect();
        keys.sort_unstable();
        assert!(keys.is_sorted_by(|a, b| a < b), "a key twice: {keys:?}");
        let of = |key: &str| pairs.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str());
        let text = |text: Option<&str>, max| text.filter(|t| !t.is_empty()).map(|text| bounded(text, max));
        assert_eq!(of("dvchost"), text(Some(&alert.host), DEVICE_HOST_BYTES_MAX).as_deref());
        assert_eq!(
            of("flexString1"),
            text(alert.process.command_line.as_deref(), VALUE_BYTES_MAX).as_deref()
        );
        assert_eq!(of("cs1"), text(alert.rule.as_deref(), VALUE_BYTES_MAX).as_deref());
        assert_eq!(of("externalId"), Some(alert.id.to_string()).as_deref());
        assert_eq!(of("msg"), Some(&*sentence(alert)));
        for (_, value) in &pairs {
            assert!(value.len() <= VALUE_BYTES_MAX);
        }
    }

    #[test]
    fn every_alert_is_read_back() {
        for (_, alert) in sample::alerts() {
            check(&alert);
        }
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
        let shown = ["listed", "connect", "ingress", "unjudged", "tamper", "hostile"];
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
            check(&sample::hostile(&text));
            check(&sample::hostile(&ugly));
            check(&sample::hostile_tampering(&ugly));
        }
    }
}
