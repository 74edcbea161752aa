//! Takes an alert, gives it as one sentence, for where a format wants something that a person can read.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::value::{bounded, value};
use crate::alert::{Alert, Kind};
use crate::event::Outcome;

/// What a kind is about, in words that never change.
pub const fn title(kind: Kind) -> &'static str {
    match kind {
        Kind::DnsDirect => "DNS to a server that is no resolver of this host",
        Kind::DnsEncrypted => "Encrypted DNS past the resolvers of this host",
        Kind::DnsName => "DNS question for a name that is refused",
        Kind::DnsType => "DNS question of a type that is refused",
        Kind::DnsLimit => "DNS question beyond a limit",
        Kind::DnsMalformed => "Something else than one question to a DNS server",
        Kind::EgressDenied => "Outbound traffic that no rule allows",
        Kind::IngressDns => "DNS question from outside to a server that is not served",
        Kind::SocketRaw => "Raw socket",
        Kind::SocketUnjudged => "Socket whose traffic is not judged",
        Kind::DeviceUnjudged => "Device whose traffic is not judged",
        Kind::Tamper => "Tampering with the wall",
        Kind::Selftest => "Test of whether alerts arrive",
        Kind::AlertsLost => "Alerts that did not arrive",
        Kind::BlocklistRejected => "Version of a list that does not count",
        Kind::BlocklistStale => "List that was not refreshed for long",
    }
}

/// Title, verdict, from whom to where, why, how often. At most [`super::value::VALUE_BYTES_MAX`] bytes.
pub fn sentence(alert: &Alert) -> String {
    let mut text = title(alert.kind).to_owned();
    text.push_str(match alert.verdict {
        Some(Outcome::Denied) => ", denied: ",
        Some(Outcome::WouldDeny) => ", would be denied: ",
        None => ": ",
    });
    if let Some(words) = alert.own_words() {
        text.push_str(&words);
        return value(&text);
    }
    if let Some(selftest) = &alert.selftest {
        let _ = write!(text, "number {}, ", selftest.number);
    }
    let process = &alert.process;
    let program = process.exe.as_ref().or(process.comm.as_ref());
    text.push_str(
        &program.map_or_else(|| "unknown".to_owned(), |program| bounded(program, PROGRAM_BYTES_MAX)),
    );
    if let Some(pid) = process.pid {
        let _ = write!(text, "[{pid}]");
    }
    if let Some(flow) = &alert.flow {
        let _ = write!(text, ", {}", flow.protocol);
        match (flow.destination, flow.destination_port) {
            (Some(address), Some(port)) => {
                let _ = write!(text, " to {}", SocketAddr::new(address, port));
            }
            (Some(address), None) => {
                let _ = write!(text, " to {address}");
            }
            (None, _) => {}
        }
        if let Some(name) = flow.destination_name.as_deref() {
            let _ = write!(text, " ({})", bounded(name, NAME_BYTES_MAX));
        }
    }
    if let Some(dns) = &alert.dns {
        let _ = write!(text, ", {} {}", bounded(&dns.name, NAME_BYTES_MAX), dns.kind);
    }
    if let Some(names) = &alert.names {
        let below = names
            .domain
            .as_ref()
            .map_or(String::new(), |domain| format!(" below {}", bounded(domain, NAME_BYTES_MAX)));
        let _ = write!(text, ", {} names{below}", names.distinct);
    }
    let _ = write!(text, " ({}), {} times", alert.reason, alert.count);
    if let Some(limited) = &alert.limited {
        let _ = write!(text, ", for {} alerts", limited.alerts);
    }
    value(&text)
}

/// Bytes of a program's path in a sentence.
const PROGRAM_BYTES_MAX: usize = 256;
/// Bytes of a name in a sentence.
const NAME_BYTES_MAX: usize = 255;
