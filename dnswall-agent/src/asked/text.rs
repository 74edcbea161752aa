//! Takes a record, gives one line for a person: when, what became of it, what was asked, what came back, who.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use super::{DnsAnswer, DnsRecord, DnsVerdict};
use crate::alert::text::{Line, time_of_day};

/// Columns that short lines are filled up to.
const WHAT_WIDTH: usize = 44;
const ANSWER_WIDTH: usize = 44;
/// Addresses that are shown one by one.
const SHOWN_MAX: usize = 2;

const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();
const WHO: Style = AnsiColor::Cyan.on_default();
const DENIED: Style = AnsiColor::Red.on_default().bold();
const WOULD_DENY: Style = AnsiColor::Yellow.on_default();

/// One line, without its end.
pub fn line(record: &DnsRecord, colour: bool) -> String {
    let mut line = Line::new(colour);
    line.put(DIM, &format!("{}  ", time_of_day(record.time)));
    match record.verdict {
        DnsVerdict::Allowed => line.put(DIM, "allowed     "),
        DnsVerdict::Denied => line.put(DENIED, "DENIED      "),
        DnsVerdict::WouldDeny => line.put(WOULD_DENY, "would-deny  "),
    }
    line.restart();
    line.put(Style::new(), &format!("{} ", record.dns.kind));
    line.put(BOLD, &record.dns.name);
    line.fill_to(WHAT_WIDTH);
    match (&record.answer, &record.reason) {
        (Some(answer), _) => line.put(Style::new(), &shown(answer)),
        (None, Some(reason)) => {
            let rule = record.rule.as_deref().unwrap_or("default");
            line.put(Style::new(), &format!("{reason} ({rule})"));
        }
        (None, None) => line.put(WOULD_DENY, "no answer"),
    }
    line.fill_to(ANSWER_WIDTH);
    let process = &record.process;
    let name = process.exe.as_deref().or(process.comm.as_deref()).unwrap_or("?");
    line.put(WHO, &format!("{name}[{}]", process.pid.map_or("?".to_owned(), |pid| pid.to_string())));
    if let Some(home) = record.workload.short_name() {
        line.put(DIM, &format!(" {home}"));
    }
    if let Some(resolver) = record.dns.resolver {
        line.put(DIM, &format!(" asked {resolver}"));
    }
    if record.tries > 1 {
        line.put(BOLD, &format!(" ×{}", record.tries));
    }
    line.text
}

fn shown(answer: &DnsAnswer) -> String {
    let DnsAnswer { code, addresses, aliases, truncated, bytes: _, latency_us } = answer;
    let mut text = code.clone();
    if let Some(alias) = aliases.last() {
        let _ = write!(text, " {alias}");
    }
    for address in addresses.iter().take(SHOWN_MAX) {
        let _ = write!(text, " {address}");
    }
    if addresses.len() > SHOWN_MAX {
        let _ = write!(text, " +{}", addresses.len() - SHOWN_MAX);
    }
    if *truncated {
        text.push_str(" truncated");
    }
    let _ = write!(text, " in {}.{} ms", latency_us / 1_000, latency_us % 1_000 / 100);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::sample;
    use crate::event::dns::Question;

    #[test]
    fn lines_say_what_was_asked_and_what_came_back() {
        let mut event = sample::enriched();
        let question = Question { name: "www.example.com".to_owned(), kind: "A".to_owned(), id: 7 };
        let refused = DnsRecord::new(&event, &question, None, None, 1, "web-1");
        event.reason = dnswall_common::reason::Reason::Asked;
        let silent = DnsRecord::new(&event, &question, None, None, 3, "web-1");
        let answer = DnsAnswer {
            code: "NOERROR".to_owned(),
            addresses: ["192.0.2.1", "192.0.2.2", "2001:db8::1"].map(|it| it.parse().unwrap()).to_vec(),
            aliases: vec!["cdn.example.net".to_owned()],
            truncated: true,
            bytes: 120,
            latency_us: 4_290,
        };
        let answered = DnsRecord { answer: Some(answer), ..silent.clone() };
        let lines = [refused, silent, answered].map(|record| line(&record, false));
        insta::assert_snapshot!(lines.join("\n"));
    }
}
