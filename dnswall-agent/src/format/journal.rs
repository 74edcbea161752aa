//! An alert as fields of the systemd journal (systemd.journal-fields(7)), in its export format: what a person reads is
//! `MESSAGE`, the whole alert is `DNSWALL_ALERT`, and what one searches by has fields of its own.

use super::Format;
use super::syslog;
use crate::alert::{Alert, text};

/// The fields of one entry.
pub fn fields(alert: &Alert) -> Vec<u8> {
    let mut fields = Fields(Vec::new());
    fields.put("MESSAGE", &text::line(alert, false));
    fields.put("PRIORITY", &syslog::severity(alert.severity).to_string());
    fields.put("SYSLOG_IDENTIFIER", "dnswall");
    fields.put("DNSWALL_ID", &alert.id.to_string());
    fields.put("DNSWALL_KIND", alert.kind.name());
    fields.put("DNSWALL_REASON", &alert.reason);
    fields.put("DNSWALL_COUNT", &alert.count.to_string());
    for (name, value) in [
        ("DNSWALL_RULE", alert.rule.as_deref()),
        ("DNSWALL_NAME", alert.dns.as_ref().map(|dns| dns.name.as_str())),
        ("DNSWALL_DOMAIN", alert.flow.as_ref().and_then(|flow| flow.destination_name.as_deref())),
        ("DNSWALL_SHA256", alert.process.hash.as_ref().map(|hash| hash.sha256.as_str())),
        ("DNSWALL_EXE", alert.process.exe.as_deref()),
        // As Docker's and Podman's own entries have them.
        ("CONTAINER_ID_FULL", alert.workload.container.as_deref()),
        ("CONTAINER_NAME", alert.workload.container_name.as_deref()),
        ("DNSWALL_POD", alert.workload.pod.as_ref().map(crate::alert::AlertPod::path).as_deref()),
        // `journalctl -u` shows what has this beside what the unit itself wrote.
        ("OBJECT_SYSTEMD_UNIT", alert.workload.unit.as_deref()),
    ] {
        if let Some(value) = value {
            fields.put(name, value);
        }
    }
    if let Some(pid) = alert.process.pid {
        fields.put("OBJECT_PID", &pid.to_string());
    }
    let destination = alert.flow.as_ref().and_then(|flow| flow.destination);
    if let Some(destination) = destination {
        fields.put("DNSWALL_DESTINATION", &destination.to_string());
    }
    fields.put("DNSWALL_ALERT", &Format::Json.encode(alert));
    fields.0
}

struct Fields(Vec<u8>);

impl Fields {
    /// With its length, so that nothing in it is taken for its end.
    fn put(&mut self, name: &str, value: &str) {
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(b'\n');
        self.0.extend_from_slice(&(value.len() as u64).to_le_bytes());
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(b'\n');
    }
}
