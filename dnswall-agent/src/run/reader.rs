//! Takes events from the rings, gives alerts and records of questions. One thread, which never waits for a sink or a client: processes are
//! named at once, because they may be gone a moment later.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use dnswall_common::event::{Event, hook};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::hashed::Held;
use super::hasher::Hasher;
use super::outlet::Outlet;
use super::told::Counts;
use crate::alert::group::Left;
use crate::alert::lost::{LostSoFar, LostTeller};
use crate::alert::{Grouper, RuleBook, Standing};
use crate::asked::{Asker, Names, Pairs, ResolverStatus};
use crate::blocklist::Entry;
use crate::container::ContainerCounters;
use crate::event::{
    Clocks, DecodeError, DecodeFailures, EnrichedEvent, Enricher, EventHook, Hashes, address, decode,
    decode_question, dns, refused_key,
};
use crate::kernel::Ring;
use crate::proof::{Arrival, Claim};

/// How long the reader sleeps when there is nothing to read.
const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// Events read before the other duties get their turn.
const BURST_MAX: usize = 4096;
/// Events read before alerts that waited for a hash are told: in a flood they do not wait for all of it.
const RELEASE_EVERY: usize = 64;
/// Questions and answers read before an event is: in a flood of them, it does not wait for all.
const CATCH_UP_MAX: usize = 64;
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
    resolvers: Mutex<Vec<ResolverStatus>>,
    /// What was found elsewhere than in the ring.
    found: Mutex<Vec<Event>>,
    /// Who wants to know what is refused now.
    watcher: Mutex<Option<Watcher>>,
}

/// Somebody who waits for a look at what is refused.
#[derive(Debug)]
struct Watcher {
    flows_max: usize,
    workloads_max: usize,
    reply: SyncSender<Standing>,
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
    /// Where hashes of programs come from, and who reads those, where they are wanted.
    pub hashes: Option<Hashing>,
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

/// Hashes of programs.
pub struct Hashing {
    /// Where they come from.
    pub hashes: Arc<Hashes>,
    /// Who reads the programs.
    pub hasher: Arc<Hasher>,
}

/// The thread's belongings.
pub struct Reader {
    parts: Parts,
    failures: DecodeFailures,
    sweep: Sweep,
    /// Alerts that wait for a hash.
    held: Held,
    /// What answers led where.
    names: Names,
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

    /// What is refused now, up to the last packet; `None` when the reader does not answer in time. Who asks meanwhile takes the
    /// answer from who asked before.
    pub fn standing(&self, flows_max: usize, workloads_max: usize, patience: Duration) -> Option<Standing> {
        let (reply, standing) = sync_channel(1);
        *locked(&self.watcher) = Some(Watcher { flows_max, workloads_max, reply });
        standing.recv_timeout(patience).ok()
    }

    /// What the reader counted.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        locked(&self.counters).clone()
    }

    /// What each resolver did.
    pub fn resolvers(&self) -> Vec<ResolverStatus> {
        locked(&self.resolvers).clone()
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
        let (failures, held, names) = Default::default();
        Self { parts, failures, sweep, held, names, events_lost: None }
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
            let drained = self.drain() & (self.drain_questions(BURST_MAX) < BURST_MAX);
            self.show(drained);
            let now_ns = Clocks::read().monotonic_ns;
            self.release(if stopping { u64::MAX } else { now_ns });
            if (stopping && drained) || now_ns.saturating_sub(told_ns) >= ROUND_NS {
                told_ns = now_ns;
                // Only now: the counts may not be older than the events.
                let swept = if stopping { self.sweep_at_last() } else { (self.sweep)() };
                let counts = swept.map(|swept| self.learn(swept));
                self.tell(stopping && drained);
                if let Some(hashing) = &self.parts.hashes {
                    hashing.hasher.look_after(now_ns);
                }
                if stopping && drained {
                    return counts;
                }
            }
            self.parts.inbox.last_round_ns.store(now_ns, Ordering::Release);
        }
    }

    /// What is refused now, for whoever asked, with what the kernel counted since the last round: a rate over two looks would
    /// otherwise be off by a round.
    fn show(&mut self, drained: bool) {
        let Some(Watcher { flows_max, workloads_max, reply }) = locked(&self.parts.inbox.watcher).take()
        else {
            return;
        };
        // As ever, the counts may not be older than the events.
        if drained && let Some(swept) = (self.sweep)() {
            self.learn(swept);
        }
        // Nobody waits any more when it took too long.
        let _ = reply.try_send(self.parts.grouper.standing(flows_max, workloads_max));
    }

    /// Takes in what the kernel counted, tells what nobody did, and gives the counts.
    fn learn(&mut self, Swept { counts, events_lost }: Swept) -> Counts {
        self.events_lost = events_lost;
        self.parts.grouper.counted(counts.iter().copied(), &Clocks::read());
        self.tell_left();
        counts
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
        let Parts { book, pairs, inbox, .. } = &mut self.parts;
        let book = book.read().unwrap_or_else(PoisonError::into_inner);
        book.policies().for_each(|policy| pairs.name_resolvers(policy.resolvers()));
        *locked(&inbox.resolvers) = pairs.resolvers();
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
            self.parts.enricher.ask_hash(&enriched);
            let book = self.parts.book.read().unwrap_or_else(PoisonError::into_inner);
            let alert = self.parts.grouper.tell_once(&enriched, &book, &clocks);
            let hash = enriched.process.hash.clone();
            let alert = self.held.take(alert, hash, clocks.monotonic_ns);
            alert.iter().for_each(|alert| self.parts.outlet.deliver(alert));
        }
    }

    /// Delivers the alerts that need not wait for their hash any more.
    fn release(&mut self, now_ns: u64) {
        if let Some(hashing) = &self.parts.hashes {
            hashing.hashes.heard();
        }
        self.held.release(now_ns).iter().for_each(|alert| self.parts.outlet.deliver(alert));
    }

    fn wait(&self) {
        let Parts { ring, questions, hashes, .. } = &self.parts;
        let mut ready = vec![PollFd::new(ring, PollFlags::IN), PollFd::new(questions, PollFlags::IN)];
        ready.extend(hashes.as_ref().map(|hashing| PollFd::new(&hashing.hashes, PollFlags::IN)));
        let patience_ns = self.held.patience_ns(Clocks::read().monotonic_ns);
        let nap = patience_ns.map_or(NAP, |patience_ns| {
            let tv_nsec = i64::try_from(patience_ns).unwrap_or(NAP.tv_nsec).min(NAP.tv_nsec);
            Timespec { tv_sec: 0, tv_nsec }
        });
        if let Err(error) = poll(&mut ready, Some(&nap))
            && error != rustix::io::Errno::INTR
        {
            tracing::error!(%error, "wait for events");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    // Whether the ring is empty now.
    fn drain(&mut self) -> bool {
        let mut questions_left = BURST_MAX;
        for read in 0..BURST_MAX {
            if read % RELEASE_EVERY == RELEASE_EVERY - 1 {
                self.release(Clocks::read().monotonic_ns);
            }
            let event = match self.parts.ring.next(decode) {
                None => return true,
                Some(event) => match readable(event, &mut self.failures) {
                    Some(event) => event,
                    None => continue,
                },
            };
            // The answer that led to an address is in the other ring by now.
            questions_left -= self.drain_questions(questions_left.min(CATCH_UP_MAX));
            let Self { parts, held, names, .. } = self;
            let Parts { enricher, grouper, book, outlet, arrival, .. } = parts;
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
            enricher.ask_hash(&enriched);
            enriched.destination_name = led(&enriched, names);
            let hash = enriched.process.hash.clone();
            let book = book.read().unwrap_or_else(PoisonError::into_inner);
            enriched.listed = listed(&enriched, &book);
            let alert = grouper.observe(enriched, &book, &clocks);
            let alert = alert.and_then(|alert| held.take(alert, hash, clocks.monotonic_ns));
            alert.iter().for_each(|alert| outlet.deliver(alert));
        }
        false
    }

    // How many of its ring there were; fewer than `most` when it is empty now.
    fn drain_questions(&mut self, most: usize) -> usize {
        let Self { parts, failures, names, .. } = self;
        let Parts { questions, enricher, book, outlet, pairs, .. } = parts;
        for read in 0..most {
            let event = match questions.next(decode_question) {
                None => return read,
                Some(event) => match readable(event, failures) {
                    Some(event) => event,
                    None => continue,
                },
            };
            if event.hook == hook::ANSWER {
                for answer in dns::answers(&event) {
                    let asker = Asker { cgroup: event.cgroup, netns: event.netns };
                    let server = address(event.source);
                    // Only what was asked for leads anywhere.
                    if let Some(record) = pairs.answered(event.cookie, server, answer.clone(), event.time_ns)
                    {
                        names.learn(asker, &record.dns.name, &answer, event.time_ns);
                        outlet.observe(&record);
                    }
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
        most
    }

    fn count(&self) -> BTreeMap<String, u64> {
        let (group, pairs) = (self.parts.grouper.counters(), self.parts.pairs.counters());
        let hashing = self.parts.hashes.as_ref();
        let hashed = hashing.map(|hashing| hashing.hashes.counters()).unwrap_or_default();
        let stuck = hashing.map_or(0, |hashing| hashing.hasher.stuck());
        let ContainerCounters { named, unnamed, late, stuck: containers_stuck } =
            self.parts.enricher.container_counters();
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
            ("cgroups-unnamed", self.parts.enricher.workloads().unnamed()),
            ("cgroups-unwatched", self.parts.enricher.workloads().unwatched()),
            ("process-reads-stuck", crate::event::patience::stuck() as u64),
            ("process-reads-untried", crate::event::patience::untried()),
            ("programs-hashed", hashed.read),
            ("programs-unhashed", hashed.failed),
            ("program-hashes-crowded-out", hashed.crowded_out),
            ("program-reads-stuck", stuck as u64),
            ("alerts-without-their-hash", self.held.unhashed()),
            ("containers-named", named),
            ("containers-unnamed", unnamed),
            ("container-reads-late", late),
            ("container-reads-stuck", containers_stuck),
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

/// The name that led there, of what wants to leave.
fn led(event: &EnrichedEvent, names: &mut Names) -> Option<Arc<str>> {
    let address = event.flow.destination.filter(|_| event.hook != EventHook::Ingress)?;
    let asker = Asker { cgroup: event.refused.cgroup, netns: event.netns };
    names.find(asker, address, event.time_ns)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change in them is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
