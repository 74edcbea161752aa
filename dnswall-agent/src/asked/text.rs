//! Takes a record, gives what a person wants to know of it: what came back, or why nothing did.

use std::fmt::Write as _;

use super::{DnsAnswer, DnsRecord};

/// Addresses that are shown one by one.
const SHOWN_MAX: usize = 2;

/// What became of the question: its answer, or why it was refused.
pub fn became(record: &DnsRecord) -> String {
    match (&record.answer, &record.reason) {
        (Some(answer), _) => shown(answer),
        (None, Some(reason)) => format!("{reason} ({})", record.rule.as_deref().unwrap_or("default")),
        (None, None) => "no answer".to_owned(),
    }
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
    fn it_is_said_what_came_back() {
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
        let said = [refused, silent, answered].map(|record| became(&record));
        insta::assert_snapshot!(said.join("\n"));
    }
}
