//! Messages, read by a parser that others wrote and by the letter of the RFC.

use proptest::prelude::*;
use syslog_rfc5424::message::ProcId;
use syslog_rfc5424::{SyslogFacility, SyslogSeverity, parse_message};

use super::*;
use crate::format::sample;

fn agent(body: Format) -> Syslog {
    Syslog { process: Some(4_711), body, ..Syslog::default() }
}

/// The limits that the parser does not look at.
fn check_header(message: &str) {
    let fields: Vec<&str> = message.splitn(7, ' ').collect();
    let [priority, time, host, application, process, kind, rest] = fields.try_into().unwrap();
    let priority = priority.strip_prefix('<').unwrap().strip_suffix(">1").unwrap();
    assert!(priority.parse::<u8>().unwrap() <= 191 && !priority.starts_with('0'), "{priority}");
    assert!(time.ends_with('Z') && time.len() == "2026-03-01T12:00:02.000000Z".len(), "{time}");
    for (field, max) in [(host, 255), (application, 48), (process, 128), (kind, 32)] {
        assert!(
            (1..=max).contains(&field.len()) && field.bytes().all(|byte| (33..=126).contains(&byte)),
            "{field}"
        );
    }
    assert!(rest.starts_with(['-', '[']));
    assert!(!message.contains(['\n', '\r', '\0', '\u{2028}', '\u{85}']), "{message:?}");
}

fn check(alert: &Alert) {
    let message = agent(Format::Text { colour: false }).message(alert, Some(9));
    check_header(&message);
    assert!(message.len() <= MESSAGE_BYTES_MAX, "{} bytes", message.len());
    let read = parse_message(&message).unwrap();
    assert_eq!(read.facility, SyslogFacility::LOG_AUTHPRIV);
    assert_eq!((read.severity as u8, read.version), (severity(alert.severity), 1));
    assert_eq!(read.timestamp, Some(alert.time.as_second()));
    assert_eq!(read.appname.as_deref(), Some("dnswall"));
    assert_eq!(read.procid, Some(ProcId::PID(4_711)));
    assert_eq!(read.msgid.as_deref(), Some(alert.kind.name()));
    assert_eq!(read.msg, format!("\u{feff}{}", sentence(alert)));
    let of = |id: &str, name: &str| read.sd.find_tuple(id, name).cloned();
    assert_eq!(of("meta", "sequenceId").as_deref(), Some("9"));
    let text = |text: Option<&String>| {
        text.filter(|text| !text.is_empty()).map(|text| bounded(text, PARAMETER_BYTES_MAX))
    };
    let own = |name| of("dnswall@32473", name);
    assert_eq!(own("id"), Some(alert.id.to_string()));
    assert_eq!(own("rule"), text(alert.rule.as_ref()));
    assert_eq!(own("qname"), text(alert.dns.as_ref().map(|dns| &dns.name)));
    assert_eq!(own("unit"), text(alert.workload.unit.as_ref()));
    assert_eq!(own("object"), text(alert.tamper.as_ref().map(|tamper| &tamper.object)));
}

#[test]
fn every_alert_is_read_back() {
    for (_, alert) in sample::alerts() {
        check(&alert);
    }
}

#[test]
fn a_line_of_another_format_is_the_message_unless_it_is_too_long() {
    let mut long = 0;
    for (_, alert) in sample::alerts() {
        for body in [Format::Json, Format::Ecs, Format::Ocsf, Format::Cef, Format::Leef] {
            for nth in [None, Some(1)] {
                let message = agent(body).message(&alert, nth);
                check_header(&message);
                let read = parse_message(&message).unwrap();
                let line = body.encode(&alert);
                assert!(message.len() <= MESSAGE_BYTES_MAX);
                if line.len() > MESSAGE_BYTES_MAX {
                    // What a receiver would cut.
                    long += 1;
                    assert!(read.sd.len() > usize::from(nth.is_some()) && !read.msg.contains(&line));
                } else if message.contains(&line) {
                    assert!(read.msg == line, "{}", alert.kind);
                    assert_eq!(read.sd.is_empty(), nth.is_none());
                }
            }
        }
    }
    assert!(long > 0);
}

#[test]
fn severities_are_in_the_order_of_syslog() {
    let words = Severity::ALL.map(|severity| {
        let alert = Alert { severity, ..sample::alerts().remove(0).1 };
        parse_message(agent(Format::Cef).message(&alert, None)).unwrap().severity
    });
    let expected = [
        SyslogSeverity::SEV_INFO,
        SyslogSeverity::SEV_NOTICE,
        SyslogSeverity::SEV_WARNING,
        SyslogSeverity::SEV_ERR,
        SyslogSeverity::SEV_CRIT,
    ];
    assert_eq!(words, expected);
}

#[test]
fn facilities_have_names() {
    assert_eq!(Facility::named("authpriv"), Some(Facility::AUTHPRIV));
    assert_eq!(Facility::named("local7"), Some(Facility(23)));
    assert_eq!(Facility::named("local8"), None);
}

#[test]
fn the_sequence_begins_again() {
    let numbers = [0, 1, 2, SEQUENCE_MAX, SEQUENCE_MAX + 1, u64::MAX].map(sequence);
    assert_eq!(numbers[..5], [1, 1, 2, SEQUENCE_MAX, 1]);
    assert!(numbers[5] <= SEQUENCE_MAX);
}

#[test]
fn a_host_name_is_printable_and_not_too_long() {
    assert_eq!(host("web 1\n"), "web?1?");
    assert_eq!(host(""), "-");
    assert_eq!(host(&"x".repeat(255)), "x".repeat(255));
    assert_eq!(host(&"ß".repeat(256)), "?".repeat(254) + "~");
}

#[test]
fn the_worst_texts_stay_below_the_limit() {
    for text in ["\\", "\"", "]", "\n", "ß", "\u{2028}"] {
        let alert = sample::hostile(&text.repeat(5_000));
        let alert = Alert { count: u64::MAX, ..alert };
        check(&alert);
        check(&sample::hostile_tampering(&text.repeat(5_000)));
    }
}

#[test]
fn one_of_each_class() {
    let shown = ["listed", "connect", "ingress", "unjudged", "tamper", "hostile"];
    let alerts = sample::alerts();
    let mut lines: Vec<String> = alerts
        .iter()
        .filter(|(name, _)| shown.contains(name))
        .map(|(_, alert)| agent(Format::Text { colour: false }).message(alert, Some(1)))
        .collect();
    lines.push(agent(Format::Json).message(&alerts[0].1, None));
    insta::assert_snapshot!(lines.join("\n").replace(BYTE_ORDER_MARK, "BOM"));
}

proptest! {
    #[test]
    fn no_text_gets_out_of_its_value(text in any::<String>(), ugly in "[\\\\=\" a\n\\]\\[]{0,40}") {
        check(&sample::hostile(&text));
        check(&sample::hostile(&ugly));
        check(&sample::hostile_tampering(&ugly));
    }
}
