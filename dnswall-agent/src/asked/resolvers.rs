//! Takes records of questions, gives what each resolver did: how often it was asked, what it answered, and how fast.
//!
//! Only resolvers that a policy names have a line of their own; whoever else was asked is [`OTHER`], so that traffic makes no lines.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{DnsAnswer, DnsRecord, DnsVerdict};

/// Resolvers with a line of their own, those of policies before included.
pub const RESOLVERS_MAX: usize = 64;
/// What all others are called, and a code of an answer that has no name here.
pub const OTHER: &str = "other";
/// Codes of answers that are counted apart.
pub const CODES: [&str; 6] = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];
/// Upper bounds of how long an answer took, in seconds; what took longer is above them all. None is a whole number, which the two forms
/// of metrics write differently.
pub const LATENCY_SECONDS: [f64; 10] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25, 0.5, 2.5];

/// What one resolver did, as far as the policy tells of questions. Counts are of this agent, since it started.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ResolverStatus {
    /// Its address, or [`OTHER`].
    pub resolver: String,
    /// Questions that went to it.
    pub asked: u64,
    /// Questions to it that were refused.
    pub denied: u64,
    /// Of those that went to it, the ones that nobody answered in time.
    pub unanswered: u64,
    /// Answers by code.
    pub answers: BTreeMap<String, u64>,
    /// How many answers took as long as a bound of [`LATENCY_SECONDS`] at most and longer than the one before; the last took longer
    /// than all.
    pub latency: Vec<u64>,
    /// How long all answers took together.
    pub latency_secs: f64,
}

/// What all of them did.
#[derive(Debug, Default)]
pub struct Resolvers {
    named: BTreeMap<IpAddr, ResolverStatus>,
    other: Option<ResolverStatus>,
}

impl Resolvers {
    /// Gives resolvers a line before anybody asks them: a counter that begins with 1 has no rate.
    pub fn name(&mut self, resolvers: &[IpAddr]) {
        for resolver in resolvers {
            if self.named.len() < RESOLVERS_MAX {
                self.named.entry(*resolver).or_insert_with(|| ResolverStatus::new(&resolver.to_string()));
            }
        }
    }

    /// Counts a record; `named` are the resolvers of the policy that judged it.
    pub fn count(&mut self, record: &DnsRecord, named: &[IpAddr]) {
        let known = record.dns.resolver.filter(|resolver| {
            self.named.contains_key(resolver)
                || (named.contains(resolver) && self.named.len() < RESOLVERS_MAX)
        });
        let status = match known {
            Some(resolver) => {
                self.named.entry(resolver).or_insert_with(|| ResolverStatus::new(&resolver.to_string()))
            }
            None => self.other.get_or_insert_with(|| ResolverStatus::new(OTHER)),
        };
        status.count(record);
    }

    /// All of them: those that were named, and all others, if they were asked.
    pub fn status(&self) -> Vec<ResolverStatus> {
        self.named.values().chain(&self.other).cloned().collect()
    }
}

impl ResolverStatus {
    fn new(resolver: &str) -> Self {
        let answers = CODES.iter().chain([&OTHER]).map(|code| ((*code).to_owned(), 0)).collect();
        let latency = vec![0; LATENCY_SECONDS.len() + 1];
        Self { resolver: resolver.to_owned(), answers, latency, ..Self::default() }
    }

    fn count(&mut self, record: &DnsRecord) {
        if record.verdict == DnsVerdict::Denied {
            self.denied += 1;
            return;
        }
        self.asked += 1;
        let Some(DnsAnswer { code, latency_us, .. }) = &record.answer else {
            self.unanswered += 1;
            return;
        };
        let code = CODES.iter().find(|known| *known == code).unwrap_or(&OTHER);
        *self.answers.entry((*code).to_owned()).or_default() += 1;
        let seconds = Duration::from_micros(*latency_us).as_secs_f64();
        self.latency_secs += seconds;
        let above = LATENCY_SECONDS.iter().position(|bound| seconds <= *bound);
        self.latency[above.unwrap_or(LATENCY_SECONDS.len())] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::sample;
    use crate::event::dns::Question;
    use dnswall_common::reason::Reason;

    fn record(resolver: &str, answer: Option<(&str, u64)>) -> DnsRecord {
        let mut event = sample::enriched();
        (event.reason, event.flow.destination) = (Reason::Asked, resolver.parse().ok());
        let question = Question { name: "a.example".to_owned(), kind: "A".to_owned(), id: 1 };
        let answer = answer.map(|(code, latency_us)| DnsAnswer {
            code: code.to_owned(),
            addresses: Vec::new(),
            aliases: Vec::new(),
            truncated: false,
            bytes: 30,
            latency_us,
        });
        DnsRecord::new(&event, &question, None, answer, 1, "web-1")
    }

    fn counted(records: &[DnsRecord], named: &[IpAddr]) -> Vec<ResolverStatus> {
        let mut resolvers = Resolvers::default();
        records.iter().for_each(|record| resolvers.count(record, named));
        resolvers.status()
    }

    #[test]
    fn each_resolver_is_counted_apart() {
        let named: Vec<IpAddr> = ["192.0.2.1", "2001:db8::1"].map(|text| text.parse().unwrap()).into();
        let refused = DnsRecord { verdict: DnsVerdict::Denied, ..record("198.51.100.9", None) };
        let status = counted(
            &[
                record("192.0.2.1", Some(("NOERROR", 500))),
                record("192.0.2.1", Some(("NXDOMAIN", 501))),
                record("192.0.2.1", Some(("YXDOMAIN", 3_000_000))),
                record("192.0.2.1", None),
                record("2001:db8::1", Some(("NOERROR", 1))),
                refused,
            ],
            &named,
        );
        let [first, second, other] = &status[..] else { panic!("{status:?}") };
        assert_eq!(
            (first.resolver.as_str(), first.asked, first.denied, first.unanswered),
            ("192.0.2.1", 4, 0, 1)
        );
        assert_eq!((first.answers["NOERROR"], first.answers["NXDOMAIN"], first.answers[OTHER]), (1, 1, 1));
        assert_eq!((first.latency[0], first.latency[1], first.latency[LATENCY_SECONDS.len()]), (1, 1, 1));
        assert!((first.latency_secs - 3.001_001).abs() < 1e-9);
        assert_eq!((second.resolver.as_str(), second.asked), ("2001:db8::1", 1));
        assert_eq!((other.resolver.as_str(), other.asked, other.denied), (OTHER, 0, 1));
    }

    #[test]
    fn traffic_makes_no_lines() {
        let anybody: Vec<DnsRecord> =
            (0..255).map(|number| record(&format!("198.51.100.{number}"), None)).collect();
        let status = counted(&anybody, &[]);
        assert_eq!((status.len(), status[0].asked), (1, 255));
        // Nor do policies without end.
        let named: Vec<IpAddr> = anybody.iter().filter_map(|record| record.dns.resolver).collect();
        let status = counted(&anybody, &named);
        let mut resolvers = Resolvers::default();
        resolvers.name(&named);
        assert_eq!((status.len(), resolvers.status().len()), (RESOLVERS_MAX + 1, RESOLVERS_MAX));
        assert_eq!(status.iter().map(|status| status.asked).sum::<u64>(), 255);
    }
}
