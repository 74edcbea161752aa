//! Takes parts of alerts, gives the cells that stand for them, the same in every table.

use jiff::Timestamp;

use super::columns::{Cell, Tone};
use crate::alert::{Alert, AlertProcess, AlertWorkload, Severity, text};
use crate::asked::DnsVerdict;
use crate::event::Outcome;

/// Day and second, in UTC as everywhere.
pub fn time(time: Timestamp) -> Cell {
    Cell::new(format!("{time:.0}").replace('T', " ").trim_end_matches('Z')).tone(Tone::Faint)
}

/// What became of it.
pub fn verdict(alert: &Alert) -> Cell {
    match alert.verdict {
        Some(Outcome::Denied) => Cell::new("denied").tone(Tone::Bad),
        Some(Outcome::WouldDeny) => Cell::new("would-deny").tone(Tone::Warn),
        None => Cell::of(None::<&str>),
    }
}

/// What became of a question.
pub fn answered(verdict: DnsVerdict) -> Cell {
    match verdict {
        DnsVerdict::Allowed => Cell::new("allowed"),
        DnsVerdict::Denied => Cell::new("denied").tone(Tone::Bad),
        DnsVerdict::WouldDeny => Cell::new("would-deny").tone(Tone::Warn),
    }
}

/// How bad it is.
pub fn severity(severity: Severity) -> Cell {
    let tone = match severity {
        Severity::Info | Severity::Low => Tone::Plain,
        Severity::Medium => Tone::Warn,
        Severity::High | Severity::Critical => Tone::Bad,
    };
    Cell::new(severity.name()).tone(tone)
}

/// Pod, container, unit or cgroup.
pub fn workload(workload: &AlertWorkload) -> Cell {
    Cell::of(workload.short_name())
}

/// The program.
pub fn process(process: &AlertProcess) -> Cell {
    Cell::of(text::program(process))
}

/// Its number.
pub fn pid(process: &AlertProcess) -> Cell {
    Cell::of(process.pid.map(|pid| pid.to_string()))
}

/// Which name was asked for, and the type; else the name that led to the destination.
pub fn name(alert: &Alert) -> Cell {
    match &alert.dns {
        Some(dns) => Cell::new(format!("{} {}", dns.name, dns.kind)),
        None => Cell::of(alert.flow.as_ref().and_then(|flow| flow.destination_name.as_deref())),
    }
}

/// The rule or reason; of tampering what was found and done, of a test which it is.
pub fn why(alert: &Alert) -> Cell {
    let mut why = text::why(alert);
    if let Some(tamper) = &alert.tamper {
        why = format!("{why}: {}; {}", tamper.found, tamper.done);
    }
    if let Some(selftest) = &alert.selftest {
        why = format!("test {}, {:.1} ms to the agent", selftest.number, selftest.latency_us as f64 / 1e3);
    }
    Cell::new(why)
}
