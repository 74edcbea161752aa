//! Takes an alert, gives it as a message of syslog as RFC 5424 has it.
//!
//! `<PRI>1 TIME HOST dnswall PID KIND [meta …][dnswall@PEN …] BOM text`. What a person reads is the message, and what a
//! program reads the structured data; where the message is a line of another format, that has it all and begins
//! without a byte order mark, which its readers would trip over (MSG-ANY in the RFC).
//!
//! How messages follow each other (a datagram each, or lengths before them) is the transport's. Without a line of
//! another format a message has at most [`MESSAGE_BYTES_MAX`] bytes.

use std::fmt::{Display, Write as _};

use super::sentence::sentence;
use super::value::{VALUE_BYTES_MAX, bounded};
use super::{Format, PRODUCT};
use crate::alert::{Alert, Severity};
use crate::event::Outcome;

/// What receivers should take (RFC 5425, 4.3.1), and no message is longer.
pub const MESSAGE_BYTES_MAX: usize = 8_192;
/// Stands in the name of the structured data until a configuration says another: the number for documentation
/// (RFC 5612), as nobody registered one for this project.
pub const ENTERPRISE_DOCUMENTATION: u32 = 32_473;
/// The greatest `sequenceId` (RFC 5424, 7.3.1); 1 comes after it.
pub const SEQUENCE_MAX: u64 = 2_147_483_647;
/// Bytes of a value in the structured data.
const PARAMETER_BYTES_MAX: usize = 255;
/// Bytes of the parent's program, so that the whole stays within [`MESSAGE_BYTES_MAX`].
const PARENT_BYTES_MAX: usize = 63;
/// Bytes of a message up to the end of its structured data, so that there is room for the text.
const STRUCTURED_BYTES_MAX: usize = MESSAGE_BYTES_MAX - VALUE_BYTES_MAX - 8;
/// Characters of HOSTNAME.
const HOST_CHARACTERS_MAX: usize = 255;
/// Stands where a character is none of PRINTUSASCII.
const UNPRINTABLE: char = '?';
/// Ends a host name that was cut.
const HOST_CUT_MARK: char = '~';
/// What a field has that has nothing.
const NIL: &str = "-";
/// Says that UTF-8 follows.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Names of facilities by number, as `syslog.conf` and its heirs write them.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
];

/// A facility.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Facility(u8);

impl Facility {
    /// Messages about security that not everybody may read.
    pub const AUTHPRIV: Self = Self(10);

    /// The names of all, in the order of their numbers.
    pub const NAMES: [&str; 24] = FACILITIES;

    /// By its name.
    pub fn named(name: &str) -> Option<Self> {
        let number = FACILITIES.iter().position(|known| *known == name)?;
        u8::try_from(number).ok().map(Self)
    }
}

/// How messages are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Syslog {
    /// The facility.
    pub facility: Facility,
    /// Private enterprise number in the name of the structured data.
    pub enterprise: u32,
    /// The process id of the agent.
    pub process: Option<u32>,
    /// What the message is: text, with structured data before it, or a line of another format.
    pub body: Format,
}

impl Default for Syslog {
    fn default() -> Self {
        Self {
            facility: Facility::AUTHPRIV,
            enterprise: ENTERPRISE_DOCUMENTATION,
            process: None,
            body: Format::Text { colour: false },
        }
    }
}

impl Syslog {
    /// The message, without an end of line. `nth` counts messages from 1, whence comes the `sequenceId`.
    ///
    /// One that would be longer than receivers take is text instead: what they cut off is lost, or taken for another message.
    pub fn message(&self, alert: &Alert, nth: Option<u64>) -> String {
        let message = self.message_of(alert, nth, self.body);
        if message.len() <= MESSAGE_BYTES_MAX {
            return message;
        }
        self.message_of(alert, nth, Format::Text { colour: false })
    }

    fn message_of(&self, alert: &Alert, nth: Option<u64>, body: Format) -> String {
        let Self { facility, enterprise, process, body: _ } = self;
        let priority = facility.0 * 8 + severity(alert.severity);
        let process = process.map_or_else(|| NIL.to_owned(), |process| process.to_string());
        let mut message = format!(
            "<{priority}>1 {:.6} {} {PRODUCT} {process} {} ",
            alert.time,
            host(&alert.host),
            alert.kind
        );
        if let Some(nth) = nth {
            let _ = write!(message, "[meta sequenceId=\"{}\"]", sequence(nth));
        }
        match body {
            Format::Text { .. } => {
                put_structured_data(&mut message, alert, *enterprise);
                let _ = write!(message, " {BYTE_ORDER_MARK}{}", sentence(alert));
            }
            other => {
                let nothing = if nth.is_none() { NIL } else { "" };
                let _ = write!(message, "{nothing} {}", other.encode(alert));
            }
        }
        message
    }
}

/// Info, notice, warning, error, critical.
pub(super) const fn severity(severity: Severity) -> u8 {
    match severity {
        Severity::Info => 6,
        Severity::Low => 5,
        Severity::Medium => 4,
        Severity::High => 3,
        Severity::Critical => 2,
    }
}

/// From 1 to [`SEQUENCE_MAX`], and again.
const fn sequence(nth: u64) -> u64 {
    nth.saturating_sub(1) % SEQUENCE_MAX + 1
}

/// In PRINTUSASCII, and not too long.
fn host(host: &str) -> String {
    let printable = |character: char| if character.is_ascii_graphic() { character } else { UNPRINTABLE };
    let mut text: String = host.chars().take(HOST_CHARACTERS_MAX + 1).map(printable).collect();
    if text.len() > HOST_CHARACTERS_MAX {
        text.truncate(HOST_CHARACTERS_MAX - 1);
        text.push(HOST_CUT_MARK);
    }
    if text.is_empty() { NIL.to_owned() } else { text }
}

fn put_structured_data(message: &mut String, alert: &Alert, enterprise: u32) {
    let _ = write!(message, "[{PRODUCT}@{enterprise}");
    let mut put = |name: &str, value: &dyn Display| {
        let _ = write!(message, " {name}=\"{value}\"");
    };
    put("id", &alert.id);
    put("severity", &alert.severity);
    if let Some(verdict) = alert.verdict {
        put("verdict", &if verdict == Outcome::Denied { "denied" } else { "would-deny" });
    }
    put("count", &alert.count);
    put("generation", &alert.policy.generation);
    if let Some(names) = &alert.names {
        put("names", &names.distinct);
    }
    if let Some(limited) = &alert.limited {
        put("standsFor", &limited.alerts);
    }
    if let Some(flow) = &alert.flow {
        for (name, address) in [("src", flow.source), ("dst", flow.destination)] {
            if let Some(address) = address {
                put(name, &address);
            }
        }
        for (name, port) in [("spt", flow.source_port), ("dpt", flow.destination_port)] {
            if let Some(port) = port {
                put(name, &port);
            }
        }
    }
    let parent = alert.process.parent.as_ref();
    for (name, number) in
        [("pid", alert.process.pid), ("uid", alert.process.uid), ("ppid", parent.map(|parent| parent.pid))]
    {
        if let Some(number) = number {
            put(name, &number);
        }
    }
    let (flow, dns, process) = (alert.flow.as_ref(), alert.dns.as_ref(), &alert.process);
    let (attack, pod) = (alert.attack.join(","), alert.workload.pod.as_ref());
    let parent_program = parent
        .and_then(|parent| parent.exe.as_deref().or(parent.comm.as_deref()))
        .map(|program| bounded(program, PARENT_BYTES_MAX));
    for (name, text) in [
        ("reason", Some(alert.reason.as_str())),
        ("rule", alert.rule.as_deref()),
        ("policy", alert.policy.name.as_deref()),
        ("attack", Some(attack.as_str())),
        ("proto", flow.map(|flow| flow.protocol.as_str())),
        ("communityId", flow.and_then(|flow| flow.community_id.as_deref())),
        ("domain", flow.and_then(|flow| flow.destination_name.as_deref())),
        ("qname", dns.map(|dns| dns.name.as_str())),
        ("qtype", dns.map(|dns| dns.kind.as_str())),
        ("list", dns.and_then(|dns| dns.list.as_deref())),
        ("entry", dns.and_then(|dns| dns.entry.as_deref())),
        ("listDigest", dns.and_then(|dns| dns.list_digest.as_deref())),
        ("exe", process.exe.as_deref().or(process.comm.as_deref())),
        ("sha256", process.hash.as_ref().map(|hash| hash.sha256.as_str())),
        ("parent", parent_program.as_deref()),
        ("user", process.user.as_deref()),
        ("container", alert.workload.container.as_deref()),
        ("unit", alert.workload.unit.as_deref()),
        ("cgroup", alert.workload.cgroup.as_deref()),
        ("domain", alert.names.as_ref().and_then(|names| names.domain.as_deref())),
        ("listName", alert.blocklist.as_ref().map(|list| list.name.as_str())),
        ("object", alert.tamper.as_ref().map(|tamper| tamper.object.as_str())),
        ("pod", pod.map(|pod| pod.name.as_str())),
        ("namespace", pod.map(|pod| pod.namespace.as_str())),
        ("containerName", alert.workload.container_name.as_deref()),
        ("image", alert.workload.image.as_deref()),
        ("runtime", alert.workload.runtime.as_deref()),
        ("node", pod.and_then(|pod| pod.node.as_deref())),
    ] {
        let Some(text) = text.filter(|text| !text.is_empty()) else { continue };
        let parameter = format!(" {name}=\"{}\"", escaped(&bounded(text, PARAMETER_BYTES_MAX)));
        // Only where strangers' names are long and full of what has to be escaped: the last ones are left out.
        if message.len() + parameter.len() <= STRUCTURED_BYTES_MAX {
            message.push_str(&parameter);
        }
    }
    message.push(']');
}

/// With a backslash before what would end the value.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if ['"', '\\', ']'].contains(&character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

#[cfg(test)]
mod tests;
