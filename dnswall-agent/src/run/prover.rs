//! Keeps proving that the wall stands: tries what is forbidden, looks at what the kernel holds, mends what can be mended,
//! and tells. On a thread of its own, which nothing else waits for.

mod judged;

use std::fs::{self, File};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use dnswall_common::flow::Address;
use dnswall_common::limits::EVENT_INTERVAL_NS;
use jiff::Timestamp;

use self::judged::{judged, not_tried};
use super::engine::Engine;
use super::lock::Lock;
use super::outlet::Outlet;
use super::selftest::{Begun, Selftests};
use crate::alert::{AlertPolicy, Asked, group};
use crate::compile::Identity;
use crate::config::ProofConfig;
use crate::control::api::{AttemptStatus, HookStatus, ProofStatus};
use crate::doctor::checks::version;
use crate::event::Clocks;
use crate::kernel::{Hold, Mended, executable_identity, find_cgroup2};
use crate::proof::arrival::is_documentation_address;
use crate::proof::attempt::{Attempt, source_towards};
use crate::proof::canary::{self, Nothing, Planned, Proof, Tried};
use crate::proof::checks::{self, HookState};
use crate::proof::finding::{Remedy, Treated};
use crate::proof::home::{self, Place};
use crate::proof::{Arrival, Facts, Finding, Home, Record, Tamper, Teller, teller, tried};

/// How long an event may take from the kernel to the reader.
const EVENT_WITHIN: Duration = Duration::from_secs(5);
/// A little more than the time in which the kernel tells of a flow once.
const WORD_EVERY: Duration = Duration::from_nanos(EVENT_INTERVAL_NS + EVENT_INTERVAL_NS / 10);
/// How often is tried again what was refused and not told, or judged by a policy that was replaced meanwhile.
const TRIES_MAX: u32 = 3;

/// What one try came to: as it is shown, and what each attempt proves.
type Attempted = (Vec<AttemptStatus>, Vec<(Planned, Proof)>);

/// What is known of the wall, for whoever asks.
#[derive(Clone)]
pub struct Proofs {
    hold: Arc<Mutex<Hold>>,
    record: Arc<Mutex<Record>>,
}

/// What the prover works with.
pub struct ProverParts {
    /// The policy and the wall.
    pub engine: Arc<Mutex<Engine>>,
    /// Where what is known is kept.
    pub proofs: Proofs,
    /// Where alerts go.
    pub outlet: Arc<Outlet>,
    /// Where the canary's events come back.
    pub arrival: Arc<Arrival>,
    /// How often.
    pub config: ProofConfig,
    /// The least time between two alerts about the same.
    pub interval: Duration,
    /// This host's name.
    pub host: String,
    /// The kernel's release.
    pub release: String,
    /// The directory of the pins.
    pub pins: PathBuf,
    /// Between two tests of whether alerts arrive.
    pub heartbeat: Option<Duration>,
    /// The tests so far.
    pub selftests: Selftests,
}

/// What the prover is told.
pub enum Order {
    /// Test whether alerts arrive, and say that the test's alert is on its way.
    Test(SyncSender<Begun>),
    /// End.
    Stop,
}

/// The thread's belongings.
pub struct Prover {
    parts: ProverParts,
    teller: Teller,
    home: Option<Home>,
    called: Option<String>,
    has_tags: bool,
    /// Of the directory of pins, as this agent locked it.
    pins_inode: Option<u64>,
    _lock: Option<Lock>,
    /// What the canary found last; it stands until the next try.
    leaks: Vec<Treated>,
    /// When the canary tried last.
    tried: Option<Instant>,
    /// When the last test was that was due.
    beaten: Option<Instant>,
}

impl Proofs {
    /// Of a wall that was just raised.
    pub fn new(hold: Hold) -> Self {
        Self { hold: Arc::new(Mutex::new(hold)), record: Arc::default() }
    }

    /// What was proven last.
    pub fn record(&self) -> Record {
        locked(&self.record).clone()
    }

    /// Every hook, as the kernel has it at this moment.
    pub fn hooks(&self) -> Vec<HookStatus> {
        let hooks = locked(&self.hold).hooks();
        let named = |programs: Vec<u32>| programs.into_iter().map(program_words).collect();
        hooks
            .iter()
            .map(|hook| {
                let state = checks::hook_state(hook);
                let is = hook.is.filter(|_| state != HookState::NotAvailable).unwrap_or_default();
                let (before, after) = checks::others(hook, &hooks);
                HookStatus {
                    name: hook.program.to_owned(),
                    attach: hook.attach.to_owned(),
                    link_id: is.id,
                    program_id: is.program,
                    instructions: hook.verified_instructions,
                    state: state.name().to_owned(),
                    before: named(before),
                    after: named(after),
                }
            })
            .collect()
    }
}

impl Prover {
    /// With these parts; nothing is looked at yet.
    pub fn new(parts: ProverParts) -> Self {
        let home = find_cgroup2().and_then(|mount| Home::find(&mount));
        let home = home.inspect_err(|error| tracing::warn!("the canary has no place: {error:#}")).ok();
        let cgroup = locked(&parts.engine).root().path;
        let teller = Teller::new(parts.interval, &parts.host, &cgroup, Box::new(group::new_id));
        Self {
            teller,
            called: home::called().ok(),
            home,
            // Before that a version 1 tag took sockets out of their version 2 cgroup.
            has_tags: version(&parts.release).is_some_and(|version| version < (5, 15)),
            pins_inode: fs::metadata(&parts.pins).ok().map(|metadata| metadata.ino()),
            _lock: None,
            leaks: Vec::new(),
            tried: None,
            beaten: None,
            parts,
        }
    }

    /// The first look and the first try.
    ///
    /// # Errors
    /// What was let through.
    pub fn first(&mut self) -> Result<(), String> {
        self.try_or_test();
        let leak = self.leaks.iter().find(|leak| leak.finding.tamper == Tamper::NotRefused);
        leak.map_or(Ok(()), |leak| Err(leak.finding.found.clone()))
    }

    /// Goes on until it is told to stop; to be run on a thread of its own.
    pub fn run(mut self, orders: &Receiver<Order>) {
        let ProofConfig { interval, watch, at_start: _ } = self.parts.config;
        let mut tried = Instant::now();
        loop {
            let left = interval.saturating_sub(tried.elapsed()).min(self.until_test());
            match orders.recv_timeout(left.min(watch)) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Order::Test(reply)) => {
                    tried = Instant::now();
                    let begun = self.test(Asked::Command);
                    // Whoever asked may have gone.
                    let _ = reply.try_send(begun);
                    continue;
                }
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            }
            if tried.elapsed() >= interval || self.until_test().is_zero() {
                tried = Instant::now();
                self.try_or_test();
            } else {
                self.round(false);
            }
            self.note_arrival();
        }
        let policy = self.policy();
        let alerts = self.teller.flush(&policy, &Clocks::read());
        alerts.iter().for_each(|alert| self.parts.outlet.deliver(alert));
    }

    /// Tries what is forbidden; when a test is due, what comes of it is everybody's to know.
    fn try_or_test(&mut self) {
        if self.until_test().is_zero() {
            self.beaten = Some(Instant::now());
            self.test(Asked::Schedule);
        } else {
            self.round(true);
        }
    }

    /// How long until a test is due.
    fn until_test(&self) -> Duration {
        let Some(every) = self.parts.heartbeat else { return Duration::MAX };
        self.beaten.map_or(Duration::ZERO, |beaten| every.saturating_sub(beaten.elapsed()))
    }

    /// Tries what is forbidden, and has an alert made of it.
    fn test(&mut self, asked: Asked) -> Begun {
        self.note_arrival();
        let outlet = Arc::clone(&self.parts.outlet);
        let telling = self.parts.selftests.next(asked, |id| outlet.trace(id, Duration::ZERO));
        let (number, id, time) = (telling.number, telling.id, Timestamp::now());
        outlet.follow(id);
        self.parts.arrival.tell(telling);
        self.round(true);
        let ring_ns = self.parts.arrival.told();
        let begun = Begun { number, id, time, proof: self.parts.proofs.record().proof, ring_ns };
        self.parts.selftests.begun(begun.clone());
        begun
    }

    fn note_arrival(&self) {
        self.parts.selftests.look(|id| self.parts.outlet.trace(id, Duration::ZERO));
    }

    fn round(&mut self, try_now: bool) {
        let mut found = self.watch(try_now);
        if try_now || found.iter().any(|treated| treated.mended) {
            self.leaks = self.canary();
            if !self.leaks.is_empty() {
                // Whatever let it through may be seen by now, and be mended.
                let more = self.watch(true);
                if more.iter().any(|treated| treated.mended) {
                    self.leaks = self.canary();
                }
                found.extend(more);
            }
        }
        found.extend(self.leaks.iter().cloned());
        let (policy, clocks) = (self.policy(), Clocks::read());
        let before = self.teller.count();
        let alerts = self.teller.round(found.clone(), &policy, &clocks);
        alerts.iter().for_each(|alert| self.parts.outlet.deliver(alert));
        if self.teller.count() > before {
            found.iter().for_each(|treated| tracing::error!("tampering: {}", teller::words(treated)));
        }
        let mut record = locked(&self.parts.proofs.record);
        if self.teller.count() > before {
            record.tamper.last = Some(format!("{:.0}", clocks.now));
        }
        record.tamper.count = self.teller.count();
        record.tamper.standing = self.teller.standing();
        record.tamper.looked = format!("{:.0}", clocks.now);
    }

    /// Looks at everything, and mends what can be mended.
    fn watch(&mut self, thoroughly: bool) -> Vec<Treated> {
        let facts = Facts::read(&locked(&self.parts.proofs.hold), self.has_tags);
        let mut findings = checks::judge(&facts, self.called.as_deref());
        let changed = locked(&self.parts.engine).changed(thoroughly);
        if !changed.is_empty() {
            findings.push(Finding {
                tamper: Tamper::MapEdited,
                object: changed.join(" "),
                found: "what the kernel judges by is not what was published".to_owned(),
                remedy: Remedy::Publish,
            });
        }
        let treated: Vec<Treated> = findings.into_iter().map(|finding| self.treat(finding)).collect();
        if !treated.is_empty() {
            self.lock_again();
        }
        treated
    }

    fn treat(&mut self, finding: Finding) -> Treated {
        let done = match finding.remedy {
            Remedy::Hook(program) => {
                locked(&self.parts.proofs.hold).mend(program).map(|mended| match mended {
                    Mended::ProgramPutBack => "our program was put back into the link".to_owned(),
                    Mended::AttachedAgain(link) => format!("attached and pinned again as link {link}"),
                    Mended::PinnedAgain => "pinned again".to_owned(),
                })
            }
            Remedy::MapPin(name) => {
                locked(&self.parts.proofs.hold).pin_map(name).map(|()| "pinned again".to_owned())
            }
            Remedy::Publish => locked(&self.parts.engine)
                .restore()
                .map(|generation| format!("the policy was published again, as generation {generation}"))
                .map_err(Into::into),
            Remedy::Accept => {
                self.home = find_cgroup2().and_then(|mount| Home::find(&mount)).ok();
                self.called = home::called().ok();
                Ok("the canary goes on from there".to_owned())
            }
            Remedy::Nothing => Err(anyhow::anyhow!("nothing can be done about it from here")),
        };
        match done {
            Ok(done) => Treated { finding, done, mended: true },
            Err(error) if finding.remedy == Remedy::Nothing => {
                Treated { finding, done: error.to_string(), mended: false }
            }
            Err(error) => {
                Treated { finding, done: format!("it could not be mended: {error:#}"), mended: false }
            }
        }
    }

    /// A directory that was removed and made anew is locked like the one before: no second agent may take it.
    fn lock_again(&mut self) {
        let inode = fs::metadata(&self.parts.pins).ok().map(|metadata| metadata.ino());
        if inode == self.pins_inode {
            return;
        }
        self.pins_inode = inode;
        match Lock::take(&self.parts.pins) {
            Ok(lock) => self._lock = Some(lock),
            Err(error) => tracing::error!("{error}"),
        }
    }

    /// Tries what is forbidden; what that found.
    fn canary(&mut self) -> Vec<Treated> {
        let mut tries = 0;
        let outcome = loop {
            tries += 1;
            match self.try_once() {
                Ok(Some((_, proofs))) if tries < TRIES_MAX && proofs.iter().any(is_untold) => {}
                Ok(None) if tries < TRIES_MAX => {}
                other => break other,
            }
        };
        let (mut status, findings) = match outcome {
            Ok(Some((attempts, proofs))) => judged(attempts, &proofs),
            Ok(None) => (*not_tried("not-tried", "the policy changed again and again meanwhile"), Vec::new()),
            Err(status) => (*status, Vec::new()),
        };
        status.time = format!("{:.0}", Timestamp::now());
        let mut record = locked(&self.parts.proofs.record);
        status.runs = record.proof.runs + 1;
        status.failures = record.proof.failures + u64::from(status.state == "failed");
        let now = || Some(status.time.clone());
        status.proven = if status.state == "proven" { now() } else { record.proof.proven.take() };
        if record.proof.state != status.state {
            tracing::info!("proof of the wall: {}: {}", status.state, status.note);
        }
        record.proof = status;
        drop(record);
        findings.into_iter().map(|finding| self.treat(finding)).collect()
    }

    /// One try; nothing when the policy was replaced meanwhile.
    fn try_once(&mut self) -> Result<Option<Attempted>, Box<ProofStatus>> {
        let no_place = |error: anyhow::Error| not_tried("not-tried", &format!("{error:#}"));
        let place = Place::choose(self.home.as_ref(), locked(&self.parts.engine).wall().cgroup());
        let identity = self.identity(&place).map_err(no_place)?;
        let (planned, generation) = {
            let engine = locked(&self.parts.engine);
            (canary::plan(&engine.running().image, &identity, is_usable), engine.running().generation)
        };
        let planned = planned.map_err(|nothing| match nothing {
            Nothing::Forbidden => {
                not_tried("nothing-forbidden", "the policy lets the agent go everywhere: nothing to try")
            }
            Nothing::Usable => not_tried("not-tried", "this host's own networks are documentation networks"),
        })?;
        let attempts: Vec<Attempt> = planned.iter().map(|planned| planned.attempt).collect();
        self.wait_for_a_word();
        let begun_ns = Clocks::read().monotonic_ns;
        let announce = |cookie, attempt| self.parts.arrival.expect(cookie, attempt);
        let made = tried::make(&place, &attempts, announce).map_err(no_place)?;
        let cookies: Vec<u64> = made.iter().map(|made| made.cookie).collect();
        // One that had no way there has no event either.
        let awaited: Vec<u64> =
            made.iter().filter(|made| made.error.is_none_or(is_eperm)).map(|made| made.cookie).collect();
        self.parts.arrival.wait(&awaited, EVENT_WITHIN);
        let arrived = self.parts.arrival.wait(&cookies, Duration::ZERO);
        let replaced = locked(&self.parts.engine).running().generation != generation
            || arrived.iter().flatten().any(|arrived| arrived.generation != generation);
        if replaced {
            return Ok(None);
        }
        let mut proofs = Vec::new();
        for ((planned, made), arrived) in planned.iter().zip(&made).zip(&arrived) {
            let counted =
                arrived.is_none() && made.error.is_none_or(is_eperm) && self.was_counted(planned, begun_ns);
            let tried = Tried { error: made.error, arrived: *arrived, counted };
            proofs.push((*planned, canary::judge(planned, &tried)));
        }
        canary::settle(&mut proofs);
        let shown =
            proofs.iter().zip(&made).zip(&arrived).map(|(((planned, proof), made), arrived)| AttemptStatus {
                protocol: if planned.attempt.tcp { "tcp" } else { "udp" }.to_owned(),
                to: planned.attempt.to.to_string(),
                expected: if planned.refused { Proof::Refused } else { Proof::Reported }.name().to_owned(),
                outcome: proof.name().to_owned(),
                error: made.error.map(|number| std::io::Error::from_raw_os_error(number).to_string()),
                latency_us: arrived.map(|arrived| (arrived.at - made.at).as_micros() as u64),
            });
        Ok(Some((shown.collect(), proofs)))
    }

    /// The kernel tells of the same flow once in a while only: what is tried earlier is counted, and not told.
    fn wait_for_a_word(&mut self) {
        let left = self.tried.map_or(Duration::ZERO, |tried| WORD_EVERY.saturating_sub(tried.elapsed()));
        thread::sleep(left);
        self.tried = Some(Instant::now());
    }

    /// Whom the policy takes the canary for.
    fn identity(&self, place: &Place) -> anyhow::Result<Identity> {
        let cgroup = match (place, &self.home) {
            (Place::Here, Some(home)) => home.name.clone(),
            _ => {
                let directory = place.directory(self.home.as_ref());
                let directory =
                    directory.ok_or_else(|| anyhow::anyhow!("the agent's cgroup is not known"))?;
                find_cgroup2()?.relative(directory)?
            }
        };
        let exe = File::open("/proc/self/exe").and_then(|file| executable_identity(&file)).ok();
        let uid = Some(rustix::process::geteuid().as_raw());
        Ok(Identity { cgroup, unit: None, container: None, uid, exe })
    }

    /// Whether the kernel counted a refusal there since then: then the wall judged, and only the word of it is missing.
    fn was_counted(&self, planned: &Planned, since_ns: u64) -> bool {
        let destination = planned.attempt.address().to_words();
        let (port, protocol) = (planned.attempt.to.port(), planned.attempt.protocol());
        let counts = locked(&self.parts.engine).counts().unwrap_or_default();
        counts.iter().any(|(key, entry)| {
            (key.destination, key.destination_port, key.protocol) == (destination, port, protocol)
                // One whose event found no place is marked as told a while ago.
                && entry.last_event_ns.saturating_add(EVENT_INTERVAL_NS) >= since_ns
        })
    }

    fn policy(&self) -> AlertPolicy {
        let engine = locked(&self.parts.engine);
        let running = engine.running();
        AlertPolicy {
            name: Some(running.policy.name.clone()),
            generation: running.generation,
            digest: Some(running.origin.digest.clone()),
        }
    }
}

fn is_untold((_, proof): &(Planned, Proof)) -> bool {
    *proof == Proof::Untold
}

// Refused by the wall: that is told, as is what it lets through in audit mode.
fn is_eperm(error: i32) -> bool {
    error == libc::EPERM
}

/// Whether an address is nobody's here: some hosts use the documentation's networks for themselves.
fn is_usable(to: IpAddr) -> bool {
    let words = |address: IpAddr| match address {
        IpAddr::V4(address) => Address::V4(address.to_bits()),
        IpAddr::V6(address) => Address::from_v6_bytes(&address.octets()),
    };
    let network = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits() >> 8),
        IpAddr::V6(address) => address.to_bits() >> 80,
    };
    source_towards(to).is_none_or(|from| {
        let neighbour = is_documentation_address(words(from)) && network(from) == network(to);
        // What goes there stays on this host.
        !from.is_loopback() && !neighbour
    })
}

fn program_words(id: u32) -> String {
    Hold::program(id).map_or_else(|| id.to_string(), |program| format!("{id} {}", program.name))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change in them is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
