//! Takes events from the rings, gives alerts and records of questions. One thread, which never waits for a sink or a client: processes are
//! named at once, because they may be gone a moment later.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use dnswall_common::event::{Event, hook};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::outlet::Outlet;
use super::told::Counts;
use crate::alert::group::Left;
use crate::alert::lost::{LostSoFar, LostTeller};
use crate::alert::{Grouper, RuleBook};
use crate::asked::Pairs;
use crate::blocklist::Entry;
use crate::event::{
    Clocks, DecodeError, DecodeFailures, EnrichedEvent, Enricher, address, decode, decode_question, dns,
    refused_key,
};
use crate::kernel::Ring;
use crate::proof::{Arrival, Claim};

/// How long the reader sleeps when there is nothing to read.
const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// Events read before the other duties get their turn.
const BURST_MAX: usize = 4096;
/// How often repeats are told and counters are shown.
const ROUND_NS: u64 = 1_000_000_000;
/// How often the counts are asked for before the reader ends.
const LAST_TRIES: u32 = 40;
/// A reader that has not been round for so long is stuck.
const STUCK: Duration = Duration::from_secs(20);

/// What the reader and the rest of the agent say to each other.
#[derive(Debug, Default)]
pub struct Inbox {
    stop: AtomicBool,
    last_round_ns: AtomicU64,
    counters: Mutex<BTreeMap<String, u64>>,
    /// What was found elsewhere than in the ring.
    found: Mutex<Vec<Event>>,
}

/// Reads the kernel's counts; nothing when that has to wait for somebody.
pub type Sweep = Box<dyn FnMut() -> Option<Swept> + Send>;

/// What the kernel counted.
pub struct Swept {
    /// Refusals, by flow.
    pub counts: Counts,
    /// Events for which there was no room; `None` when that cannot be read.
    pub events_lost: Option<u64>,
}

/// What the reader works with.
pub struct Parts {
    /// Where events come from.
    pub ring: Ring,
    /// Where questions and answers come from.
    pub questions: Ring,
    /// Has answers find their questions.
    pub pairs: Pairs,
    /// Names processes and workloads.
    pub enricher: Enricher,
    /// Makes alerts.
    pub grouper: Grouper,
    /// Names rules.
    pub book: Arc<RwLock<RuleBook>>,
    /// Where alerts go.
    pub outlet: Arc<Outlet>,
    /// What the rest of the agent says.
    pub inbox: Arc<Inbox>,
    /// Who waits for the canary's events.
    pub arrival: Arc<Arrival>,
    /// Says what was lost.
    pub lost: LostTeller,
}

/// The thread's belongings.
pub struct Reader {
    parts: Parts,
    failures: DecodeFailures,
    sweep: Sweep,
    /// As it was read last.
    events_lost: Option<u64>,
}

impl Inbox {
    /// Asks the reader to tell what it has and end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Has the reader tell what was found elsewhere than in the ring, each once.
    pub fn tell(&self, events: Vec<Event>) {
        locked(&self.found).extend(events);
    }

    /// What the reader counted.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        locked(&self.counters).clone()
    }

    /// Whether the reader still goes round.
    pub fn is_alive(&self) -> bool {
        self.quiet() < STUCK
    }

    /// Since when it has not been round.
    pub fn quiet(&self) -> Duration {
        let since = Clocks::read().monotonic_ns.saturating_sub(self.last_round_ns.load(Ordering::Acquire));
        Duration::from_nanos(since)
    }
}

impl Reader {
    /// With these parts; `told` is what an agent before this one had told already.
    pub fn new(mut parts: Parts, told: Counts, sweep: Sweep) -> Self {
        let clocks = Clocks::read();
        parts.grouper.already_told(told, &clocks);
        parts.inbox.last_round_ns.store(clocks.monotonic_ns, Ordering::Release);
        Self { parts, failures: DecodeFailures::default(), sweep, events_lost: None }
    }

    /// Reads until it is told to stop, and gives the counts it had told by then; to be run on a thread of its own.
    pub fn run(mut self) -> Option<Counts> {
        let mut told_ns = 0;
        loop {
            let stopping = self.parts.inbox.stop.load(Ordering::Acquire);
            if !stopping {
                self.wait();
            }
            self.tell_found();
            // Both, whatever the first left: a flood of one kind does not keep the other waiting.
            let drained = self.drain() & self.drain_questions();
            let now_ns = Clocks::read().monotonic_ns;
            if (stopping && drained) || now_ns.saturating_sub(told_ns) >= ROUND_NS {
                told_ns = now_ns;
                // Only now: the counts may not be older than the events.
                let swept = if stopping { self.sweep_at_last() } else { (self.sweep)() };
                let counts = swept.map(|Swept { counts, events_lost }| {
                    self.events_lost = events_lost;
                    counts
                });
                if let Some(counts) = &counts {
                    self.parts.grouper.counted(counts.iter().copied(), &Clocks::read());
                    self.tell_left();
                }
                self.tell(stopping && drained);
                if stopping && drained {
                    return counts;
                }
            }
            self.parts.inbox.last_round_ns.store(now_ns, Ordering::Release);
        }
    }

    // Whoever is being waited for may finish meanwhile.
    fn sweep_at_last(&mut self) -> Option<Swept> {
        (0..LAST_TRIES).find_map(|_| {
            let counts = (self.sweep)();
            if counts.is_none() {
                std::thread::sleep(Duration::from_millis(50));
            }
            counts
        })
    }

    fn tell(&mut self, everything: bool) {
        let clocks = Clocks::read();
        let due =
            if everything { self.parts.grouper.flush(&clocks) } else { self.parts.grouper.due(&clocks) };
        due.iter().for_each(|alert| self.parts.outlet.deliver(alert));
        self.parts.outlet.summarize(&clocks, everything);
        self.tell_lost(&clocks, everything);
        let until_ns = if everything { u64::MAX } else { clocks.monotonic_ns };
        while let Some(record) = self.parts.pairs.due(until_ns) {
            self.parts.outlet.observe(&record);
        }
        *locked(&self.parts.inbox.counters) = self.count();
    }

    /// What an agent before this one was killed before it told.
    fn tell_left(&mut self) {
        let Parts { grouper, enricher, outlet, book, .. } = &mut self.parts;
        outlet.note(grouper.take_own_marks());
        for Left { key, entry, refusals } in grouper.take_left() {
            let clocks = Clocks::read();
            let book = book.read().unwrap_or_else(PoisonError::into_inner);
            let event = enricher.of_count(key, entry, book.newest().generation, &clocks);
            if let Some(alert) = grouper.adopt(event, refusals, &book, &clocks) {
                outlet.deliver(&alert);
            }
        }
    }

    /// What is in no alert, and which alerts did not arrive.
    fn tell_lost(&mut self, clocks: &Clocks, is_last: bool) {
        let Parts { grouper, outlet, lost, book, .. } = &mut self.parts;
        let (group, losses) = (grouper.counters(), outlet.losses());
        let so_far = LostSoFar {
            queue: losses.refused,
            memory: losses.unsaved_lost,
            refusals: group.overflowed + group.orphaned + losses.refused_refusals,
            events: self.events_lost,
            untold: losses.untold,
        };
        let policy = book.read().unwrap_or_else(PoisonError::into_inner).newest();
        if let Some(alert) = lost.round(so_far, policy, clocks, is_last) {
            tracing::error!("lost: {}", alert.own_words().unwrap_or_default());
            outlet.deliver(&alert);
        }
    }

    fn tell_found(&mut self) {
        let events = std::mem::take(&mut *locked(&self.parts.inbox.found));
        for event in events {
            let clocks = Clocks::read();
            let enriched = self.parts.enricher.enrich(&event, &clocks);
            let book = self.parts.book.read().unwrap_or_else(PoisonError::into_inner);
            let alert = self.parts.grouper.tell_once(&enriched, &book, &clocks);
            self.parts.outlet.deliver(&alert);
        }
    }

    fn wait(&self) {
        let rings = [&self.parts.ring, &self.parts.questions];
        let mut ready = rings.map(|ring| PollFd::new(ring, PollFlags::IN));
        if let Err(error) = poll(&mut ready, Some(&NAP))
            && error != rustix::io::Errno::INTR
        {
            tracing::error!(%error, "wait for events");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    // Whether the ring is empty now.
    fn drain(&mut self) -> bool {
        let Self { parts, failures, .. } = self;
        let Parts { ring, enricher, grouper, book, outlet, arrival, .. } = parts;
        for _ in 0..BURST_MAX {
            let event = match ring.next(decode) {
                None => return true,
                Some(event) => match readable(event, failures) {
                    Some(event) => event,
                    None => continue,
                },
            };
            let clocks = Clocks::read();
            let claim = arrival.claim(&event, clocks.monotonic_ns);
            if claim != Claim::Others {
                grouper.own(refused_key(&event), event.refusals, event.time_ns);
                if let Claim::ToBeTold { telling, latency_ns } = claim {
                    let enriched = enricher.enrich(&event, &clocks);
                    let book = book.read().unwrap_or_else(PoisonError::into_inner);
                    outlet.deliver(&grouper.selftest(&enriched, &book, *telling, latency_ns));
                }
                continue;
            }
            let mut enriched = enricher.enrich(&event, &clocks);
            let book = book.read().unwrap_or_else(PoisonError::into_inner);
            enriched.listed = listed(&enriched, &book);
            if let Some(alert) = grouper.observe(enriched, &book, &clocks) {
                outlet.deliver(&alert);
            }
        }
        false
    }

    // Whether the ring of questions is empty now.
    fn drain_questions(&mut self) -> bool {
        let Self { parts, failures, .. } = self;
        let Parts { questions, enricher, book, outlet, pairs, .. } = parts;
        for _ in 0..BURST_MAX {
            let event = match questions.next(decode_question) {
                None => return true,
                Some(event) => match readable(event, failures) {
                    Some(event) => event,
                    None => continue,
                },
            };
            if event.hook == hook::ANSWER {
                for answer in dns::answers(&event) {
                    let record = pairs.answered(event.cookie, address(event.source), answer, event.time_ns);
                    record.iter().for_each(|record| outlet.observe(record));
                }
                continue;
            }
            let mut enriched = enricher.enrich(&event, &Clocks::read());
            let book = book.read().unwrap_or_else(PoisonError::into_inner);
            enriched.listed = listed(&enriched, &book);
            let (enriched, policy) = (Arc::new(enriched), book.policy(event.generation));
            for question in dns::questions(&event) {
                let told = pairs.asked(event.cookie, question, &enriched, policy);
                told.iter().for_each(|record| outlet.observe(record));
            }
        }
        false
    }

    fn count(&self) -> BTreeMap<String, u64> {
        let (group, pairs) = (self.parts.grouper.counters(), self.parts.pairs.counters());
        let limited = self.parts.outlet.limited();
        let mut counters: BTreeMap<String, u64> = [
            ("alerts", group.alerts),
            ("refusals-observed", group.observed),
            ("refusals-told", group.told),
            ("refusals-pending", self.parts.grouper.pending().saturating_add(limited.pending)),
            ("alerts-folded", limited.folded),
            ("alerts-summed", limited.summaries),
            ("refusals-overflowed", group.overflowed),
            ("refusals-orphaned", group.orphaned),
            ("refusals-of-the-proof", group.own),
            ("cgroups-unnamed", self.parts.enricher.cgroups_unwalked()),
            ("process-reads-stuck", crate::event::patience::stuck() as u64),
            ("dns-records", pairs.records),
            ("dns-questions-unanswered", pairs.unanswered),
            ("dns-questions-crowded-out", pairs.crowded_out),
            ("dns-answers-unasked", pairs.unasked),
        ]
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count))
        .collect();
        for (field, count) in self.failures.iter().filter(|(_, count)| *count > 0) {
            counters.insert(format!("events-unreadable-{field}"), count);
        }
        counters
    }
}

/// The event, or what keeps it from being one, counted.
fn readable(event: Result<Event, DecodeError>, failures: &mut DecodeFailures) -> Option<Event> {
    event
        .inspect_err(|error| {
            if failures.total() == 0 {
                tracing::error!(%error, "an event of the kernel's cannot be read");
            }
            failures.count(error);
        })
        .ok()
}

/// The entry that a name was refused by, as the lists of the policy that judged have it. `None` also when none has it: the
/// kernel's table took the name for another, which happens to one of some 10⁹ names.
fn listed(event: &EnrichedEvent, book: &RuleBook) -> Option<Entry> {
    if event.refused.entry == 0 {
        return None;
    }
    let name = event.question.as_ref()?.name.as_str();
    let found = book.policy(event.generation)?.lists().identify(name, event.refused.entry);
    found.inspect_err(|error| tracing::error!("look up who lists a name: {error}")).ok().flatten()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change in them is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
