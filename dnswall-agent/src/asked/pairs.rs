//! Questions that wait for their answers.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use super::resolvers::{ResolverStatus, Resolvers};
use super::{DnsAnswer, DnsRecord, DnsVerdict};
use crate::alert::PolicyRules;
use crate::event::EnrichedEvent;
use crate::event::dns::{Answer, Question};

/// How long a question waits, in nanoseconds: as long as libc does for one try.
pub const PATIENCE_NS: u64 = 5_000_000_000;
/// Questions that wait at most; then the oldest is told without its answer.
pub const WAITING_MAX: usize = 16_384;

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PairsCounters {
    /// Records given.
    pub records: u64,
    /// Of those, the ones that were asked and not answered in time.
    pub unanswered: u64,
    /// Of those, the ones that made room for others.
    pub crowded_out: u64,
    /// Answers to no question that waited: late, doubled, forged, or the question's event was lost.
    pub unasked: u64,
}

/// Who asked whom what: the socket, the resolver and the question.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    cookie: u64,
    resolver: Option<IpAddr>,
    id: u16,
    /// In lower case: a resolver may answer in another one.
    name: String,
    kind: String,
}

/// What a record is made of when it is told: as many as wait, it has to be little.
#[derive(Debug)]
struct Waiting {
    event: Arc<EnrichedEvent>,
    question: Question,
    policy: Option<Arc<PolicyRules>>,
    tries: u32,
    asked_ns: u64,
    number: u64,
}

/// The questions that wait.
#[derive(Debug)]
pub struct Pairs {
    host: String,
    waiting: HashMap<Key, Waiting>,
    /// In the order in which they were asked, those that are answered meanwhile included.
    order: VecDeque<(Key, u64)>,
    numbers: u64,
    counters: PairsCounters,
    resolvers: Resolvers,
}

impl Pairs {
    /// On the host of this name.
    pub fn new(host: String) -> Self {
        let (waiting, order) = (HashMap::new(), VecDeque::new());
        let (counters, resolvers) = (PairsCounters::default(), Resolvers::default());
        Self { host, waiting, order, numbers: 0, counters, resolvers }
    }

    /// Takes a question; gives what is to be told now: a refused one at once, or the oldest when there is no room for another.
    pub fn asked(
        &mut self,
        cookie: u64,
        question: Question,
        event: &Arc<EnrichedEvent>,
        policy: Option<&Arc<PolicyRules>>,
    ) -> Option<DnsRecord> {
        let key = Key::new(cookie, event.flow.destination, &question);
        let (event, policy, asked_ns) = (Arc::clone(event), policy.cloned(), event.time_ns);
        let asked = Waiting { event, question, policy, tries: 1, asked_ns, number: self.numbers + 1 };
        if DnsVerdict::of(&asked.event) == DnsVerdict::Denied {
            return Some(self.told(asked, None));
        }
        if let Some(waiting) = self.waiting.get_mut(&key) {
            waiting.tries += 1;
            return None;
        }
        let crowded = if self.waiting.len() >= WAITING_MAX { self.oldest(u64::MAX) } else { None };
        if crowded.is_some() {
            self.counters.crowded_out += 1;
        }
        self.numbers += 1;
        self.order.push_back((key.clone(), self.numbers));
        self.waiting.insert(key, asked);
        crowded
    }

    /// Takes an answer of a server's; gives the record of its question, if it is one's.
    pub fn answered(
        &mut self,
        cookie: u64,
        server: Option<IpAddr>,
        answer: Answer,
        at_ns: u64,
    ) -> Option<DnsRecord> {
        let Some(waiting) = self.waiting.remove(&Key::new(cookie, server, &answer.question)) else {
            self.counters.unasked += 1;
            return None;
        };
        self.forget_answered();
        let answer = DnsAnswer::new(answer, at_ns.saturating_sub(waiting.asked_ns));
        Some(self.told(waiting, Some(answer)))
    }

    /// The next record of a question that waited for long enough.
    pub fn due(&mut self, now_ns: u64) -> Option<DnsRecord> {
        self.oldest(now_ns.saturating_sub(PATIENCE_NS))
    }

    /// What was counted so far.
    pub const fn counters(&self) -> PairsCounters {
        self.counters
    }

    /// Counts what goes to these resolvers apart.
    pub fn name_resolvers(&mut self, resolvers: &[IpAddr]) {
        self.resolvers.name(resolvers);
    }

    /// What each resolver did so far.
    pub fn resolvers(&self) -> Vec<ResolverStatus> {
        self.resolvers.status()
    }

    fn told(&mut self, waiting: Waiting, answer: Option<DnsAnswer>) -> DnsRecord {
        self.counters.records += 1;
        let Waiting { event, question, policy, tries, .. } = waiting;
        let record = DnsRecord::new(&event, &question, policy.as_deref(), answer, tries, &self.host);
        self.resolvers.count(&record, policy.as_deref().map_or(&[], PolicyRules::resolvers));
        record
    }

    /// The oldest question, if it was asked before then.
    fn oldest(&mut self, before_ns: u64) -> Option<DnsRecord> {
        self.forget_answered();
        let (key, _) = self.order.front()?;
        if self.waiting.get(key)?.asked_ns > before_ns {
            return None;
        }
        let (key, _) = self.order.pop_front()?;
        let waiting = self.waiting.remove(&key)?;
        self.counters.unanswered += 1;
        Some(self.told(waiting, None))
    }

    /// Takes those out of the order's front that wait no more.
    fn forget_answered(&mut self) {
        let waits = |(key, number): &(Key, u64)| {
            self.waiting.get(key).is_some_and(|waiting| waiting.number == *number)
        };
        while self.order.front().is_some_and(|front| !waits(front)) {
            self.order.pop_front();
        }
        // Behind one that is not answered for long, many may be: what they take is bounded all the same.
        if self.order.len() > 4 * WAITING_MAX {
            self.order.retain(waits);
        }
    }
}

impl Key {
    fn new(cookie: u64, resolver: Option<IpAddr>, question: &Question) -> Self {
        let Question { name, kind, id } = question;
        Self { cookie, resolver, id: *id, name: name.to_ascii_lowercase(), kind: kind.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::sample;
    use dnswall_common::reason::Reason;

    const SERVER: &str = "198.51.100.53";

    fn pairs() -> Pairs {
        Pairs::new("web-1".to_owned())
    }

    fn question(name: &str, id: u16) -> Question {
        Question { name: name.to_owned(), kind: "A".to_owned(), id }
    }

    fn answer(name: &str, id: u16) -> Answer {
        Answer {
            question: question(name, id),
            code: "NOERROR".to_owned(),
            addresses: vec!["192.0.2.1".parse().unwrap()],
            ttl_secs: Some(60),
            aliases: Vec::new(),
            truncated: false,
            bytes: 45,
        }
    }

    fn ask(pairs: &mut Pairs, cookie: u64, name: &str, id: u16, at_ns: u64) -> Option<DnsRecord> {
        let mut event = sample::enriched();
        (event.reason, event.time_ns) = (Reason::Asked, at_ns);
        event.flow.destination = SERVER.parse().ok();
        pairs.asked(cookie, question(name, id), &Arc::new(event), None)
    }

    fn reply(pairs: &mut Pairs, cookie: u64, name: &str, id: u16, at_ns: u64) -> Option<DnsRecord> {
        pairs.answered(cookie, SERVER.parse().ok(), answer(name, id), at_ns)
    }

    #[test]
    fn an_answer_finds_its_question_and_no_other() {
        let mut pairs = pairs();
        assert!(ask(&mut pairs, 1, "a.example", 7, 1_000_000).is_none());
        assert!(ask(&mut pairs, 1, "A.Example", 7, 2_000_000).is_none(), "the same again");
        assert!(ask(&mut pairs, 2, "a.example", 7, 2_000_000).is_none());
        for (cookie, name, id) in [(3, "a.example", 7), (1, "b.example", 7), (1, "a.example", 8)] {
            assert!(reply(&mut pairs, cookie, name, id, 3_000_000).is_none());
        }
        let elsewhere = "198.51.100.54".parse().ok();
        assert!(
            pairs.answered(1, elsewhere, answer("a.example", 7), 3_000_000).is_none(),
            "nobody asked there"
        );
        let told = reply(&mut pairs, 1, "A.EXAMPLE", 7, 5_000_000).unwrap();
        assert_eq!((told.tries, told.answer.as_ref().unwrap().latency_us), (2, 4_000));
        assert!(reply(&mut pairs, 1, "a.example", 7, 6_000_000).is_none(), "once");
        let PairsCounters { records, unanswered, crowded_out, unasked } = pairs.counters();
        assert_eq!((records, unanswered, crowded_out, unasked), (1, 0, 0, 5));
    }

    #[test]
    fn what_is_refused_waits_for_nothing_and_what_is_not_answered_not_for_ever() {
        let mut pairs = pairs();
        let event = Arc::new(sample::enriched());
        let refused = pairs.asked(1, question("x", 1), &event, None);
        assert!(refused.is_some_and(|record| record.answer.is_none()));
        ask(&mut pairs, 1, "a", 1, 10);
        ask(&mut pairs, 1, "b", 2, 20);
        assert!(pairs.due(PATIENCE_NS + 9).is_none());
        assert_eq!(pairs.due(PATIENCE_NS + 10).unwrap().dns.name, "a");
        assert!(pairs.due(PATIENCE_NS + 10).is_none());
        assert!(reply(&mut pairs, 1, "a", 1, PATIENCE_NS + 11).is_none(), "too late");
        assert_eq!(pairs.due(u64::MAX).unwrap().dns.name, "b");
        assert_eq!(pairs.counters().unanswered, 2);
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut pairs = pairs();
        for number in 0..WAITING_MAX as u64 {
            assert!(ask(&mut pairs, number, "a", 1, number).is_none());
        }
        reply(&mut pairs, 1, "a", 1, 9).unwrap();
        assert!(ask(&mut pairs, 1, "a", 1, 1).is_none(), "there was room again");
        assert!(ask(&mut pairs, 99_999, "b", 1, 1).is_some());
        assert_eq!((pairs.counters().crowded_out, pairs.waiting.len()), (1, WAITING_MAX));
        // Answered ones behind one that waits are forgotten, too.
        for number in 0..10 * WAITING_MAX as u64 {
            ask(&mut pairs, 500_000, "c", number as u16, 1);
            reply(&mut pairs, 500_000, "c", number as u16, 2);
        }
        assert!(pairs.order.len() <= 4 * WAITING_MAX + 1);
    }
}
