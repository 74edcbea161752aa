//! Takes options, gives a wall that stands and an agent that watches over it until it is told to end.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock, TryLockError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use dnswall_common::counter::Counter;
use dnswall_common::event::Refused;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::connected::{self, Older};
use super::desk::{Desk, DeskParts};
use super::engine::{self, Engine, EngineError};
use super::lock::Lock;
use super::looked::Looked;
use super::naming::{enricher, hashing, pods};
use super::options::Options;
use super::outlet::Outlet;
use super::prover::{Order, Proofs, Prover, ProverParts};
use super::reader::{Inbox, Parts, Reader, Sweep, Swept};
use super::selftest::Selftests;
use super::store::Store;
use super::told::Counts;
use super::{RunError, fetcher, notice, sandbox, ticker};
use crate::alert::blocklist::ListTeller;
use crate::alert::lost::LostTeller;
use crate::alert::mute::Mutes;
use crate::alert::{Grouper, RuleBook, group};
use crate::asked::Pairs;
use crate::blocklist::fetch::{Asked, Depot};
use crate::config::{AtStart, ListsConfig};
use crate::control::server::{self, Patience};
use crate::control::socket::PrivateSocket;
use crate::doctor::{self, Level, Report};
use crate::kernel::{self, Hold, Raised, WallOptions};
use crate::metrics::{self, Trouble};
use crate::policy::{BUILTIN_ORIGIN, Dns};
use crate::proof::Arrival;
use crate::remote::Trust;
use crate::sink::{self, Delivery, Sink};
use crate::spool::Spool;

/// Raises the wall and watches over it.
///
/// # Errors
/// Why the agent does not run. A wall that stood before still stands.
pub fn run(options: Options) -> Result<(), RunError> {
    if options.sandbox {
        sandbox::shed_capabilities().context("give up capabilities")?;
    }
    let report = doctor::examine(&options.pins, &options.host);
    refuse(&report)?;
    kernel::bpffs::ensure(&options.pins).map_err(RunError::Host)?;
    let _pins = Lock::take(&options.pins)?;
    let result = guard(&options, &report);
    if result.is_err() && !doctor::facts::wall_stands(&options.pins) {
        kernel::bpffs::remove(&options.pins);
    }
    result
}

fn guard(options: &Options, report: &Report) -> Result<(), RunError> {
    let store = Store::open(&options.state)?;
    let depot = Arc::new(depot(options)?);
    let socket = PrivateSocket::bind(&options.socket)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(64)
        .thread_name("control")
        .enable_all()
        .build()
        .context("start the runtime")?;
    // From here on a signal ends the agent in order.
    let signals = runtime.block_on(async { Signals::catch() }).context("catch signals")?;

    // Before the wall is raised: one that cannot be opened is no reason to leave a wall without an agent.
    let sinks = sinks(options)?;
    let names: Vec<String> = sinks.iter().map(|sink| sink.name().to_owned()).collect();
    let (spool, writer, lanes) =
        Spool::open(&options.state.join(SPOOL_FILE), options.spool_bytes_max, &names)
            .map_err(anyhow::Error::from)?;

    let book = Arc::new(RwLock::new(RuleBook::default()));
    let wall = WallOptions { cgroup: options.cgroup.clone(), pins: options.pins.clone() };
    let (host, file) = (options.host.clone(), options.policy.as_deref());
    let (mut engine, raised) =
        Engine::start(&wall, host, file, store, Arc::clone(&book), Arc::clone(&depot))?;
    announce(&engine, raised, options);
    fetcher::clean(&depot, &engine.texts());
    kernel::memory::give_back();

    let outlet = Arc::new(Outlet::new(
        spool,
        Mutes::new(options.mutes.clone()),
        options.alerts.limits,
        options.alerts.interval,
    ));
    let shown = Arc::clone(&outlet);
    spawn("spool", move || writer.run(|entry| shown.show(&entry.json)))?;
    for (lane, sink) in lanes.into_iter().zip(sinks) {
        let delivery = Delivery::new(lane, sink);
        let name = format!("sink {}", delivery.name());
        spawn(&name, move || delivery.run())?;
    }
    let (inbox, arrival) = (Arc::new(Inbox::default()), Arc::new(Arrival::default()));
    let hold = Hold::of(engine.wall()).context("take hold of the wall")?;
    let [ring, questions] = engine.wall_mut().take_rings().context("take the rings")?;
    let hashing = hashing(options.process.hash).context("start to read programs")?;
    let hashes = hashing.as_ref().map(|hashing| Arc::clone(&hashing.hashes));
    let (pods, no_pods) = pods(options)?;
    let parts = Parts {
        ring,
        questions,
        pairs: Pairs::new(host_name()),
        enricher: enricher(engine.wall().cgroup(), &options.host, hashes, pods.clone())?,
        hashes: hashing,
        grouper: Grouper::new(options.alerts.interval, &host_name()),
        book,
        outlet: Arc::clone(&outlet),
        inbox: Arc::clone(&inbox),
        arrival: Arc::clone(&arrival),
        lost: LostTeller::new(&host_name(), Box::new(group::new_id)),
    };
    // Counts of maps that are gone say nothing about new ones.
    let told = engine.take_told();
    let told = match raised {
        Raised::New | Raised::Crossed { carried: false, .. } => {
            outlet.forget_told();
            Counts::new()
        }
        // One that ended in order left everything, one that was killed what is saved with its alerts.
        Raised::TookOver | Raised::Replaced | Raised::Crossed { carried: true, .. } if told.is_empty() => {
            let told = outlet.told().into_iter();
            told.map(|(key, refusals)| (key, Refused { last_event_ns: 0, refusals })).collect()
        }
        Raised::TookOver | Raised::Replaced | Raised::Crossed { carried: true, .. } => told,
    };
    let engine = Arc::new(Mutex::new(engine));
    let reader = Reader::new(parts, told, sweep(&engine));
    let reader = spawn("events", move || reader.run())?;
    let proofs = Proofs::new(hold);
    let selftests = Selftests::new(&options.state);
    let parts = ProverParts {
        engine: Arc::clone(&engine),
        proofs: proofs.clone(),
        outlet: Arc::clone(&outlet),
        arrival: Arc::clone(&arrival),
        config: options.proof,
        interval: options.alerts.interval,
        host: host_name(),
        release: report.kernel.clone(),
        pins: options.pins.clone(),
        heartbeat: options.heartbeat,
        selftests: selftests.clone(),
    };
    let mut prover = Prover::new(parts);
    if let Err(leak) = prover.first()
        && options.proof.at_start == AtStart::Refuse
    {
        inbox.stop();
        // What there is to tell is told all the same.
        let _ = join("events", reader);
        settle(&outlet);
        return Err(RunError::Unproven(leak));
    }
    let (proving, orders) = std::sync::mpsc::channel::<Order>();
    let prover = spawn("proof", move || prover.run(&orders))?;
    let (ticking, until) = std::sync::mpsc::channel::<()>();
    let (ticked, watched) = (Arc::clone(&engine), Arc::clone(&inbox));
    let ticker = spawn("ticker", move || ticker::run(&ticked, &watched, &until))?;

    let (fetching, until) = std::sync::mpsc::channel::<()>();
    let (fetched, told) = (Arc::clone(&engine), Arc::clone(&outlet));
    let mut lists = ListTeller::new(&host_name(), Box::new(group::new_id));
    let tell = move |engine: &Mutex<Engine>| {
        fetcher::alerts(engine, &mut lists).iter().for_each(|alert| told.deliver(alert));
    };
    // Not waited for at the end: a server may take its time.
    spawn("lists", move || fetcher::run(&fetched, &until, tell))?;

    let older = Older::default();
    if raised == Raised::New {
        let (engine, inbox, older) = (Arc::clone(&engine), Arc::clone(&inbox), Arc::clone(&older));
        // Not waited for, here or at the end: the wall stands, and what is younger than it is judged.
        spawn("older", move || connected::judge_older(&engine, &inbox, &older))?;
    }

    let (changed, changes) = std::sync::mpsc::sync_channel::<()>(1);
    lock(&engine).tell_changes(changed);
    let cutting = Arc::clone(&engine);
    // Not waited for either: the packets are refused already.
    spawn("cut", move || connected::cut_refused(&cutting, &changes))?;

    let mut notes = notes(report);
    notes.extend(no_pods);
    notes.extend(confine(options.sandbox));
    let state = options.state.display().to_string();
    let parts = DeskParts {
        engine: Arc::clone(&engine),
        outlet: Arc::clone(&outlet),
        inbox: Arc::clone(&inbox),
        proofs,
        selftests,
        orders: proving.clone(),
        heartbeat: options.heartbeat,
        state,
        notes,
        older,
        metrics: Trouble::default(),
        pods: pods.clone(),
    };
    let trouble = parts.metrics.clone();
    let desk = Arc::new(Desk::new(parts));
    if let Some(address) = options.metrics.address {
        let looked = Looked::new(Arc::clone(&desk), Arc::clone(&inbox), options.proof.interval);
        // Not waited for at the end: it holds nothing.
        spawn("metrics", move || metrics::run(address, Arc::new(looked), &trouble))?;
    }
    let listener = socket.listener.try_clone().context("share the socket")?;
    let served: anyhow::Result<()> = runtime.block_on(async {
        let listener = tokio::net::UnixListener::from_std(listener).context("listen on the socket")?;
        let server = tokio::spawn(server::serve(listener, desk, Patience::default()));
        notice::ready(&summary(&lock(&engine)));
        signals.wait(&engine, options.policy.as_deref()).await;
        server.abort();
        Ok(())
    });

    notice::stopping();
    drop(socket);
    drop((ticking, fetching));
    if let Some(pods) = pods {
        pods.stop();
    }
    // An error only says that it has ended already.
    let _ = proving.send(Order::Stop);
    arrival.stop();
    let proven = join("proof", prover);
    let ticked = join("ticker", ticker);
    give_back(&mut lock(&engine));
    inbox.stop();
    let told = join("events", reader);
    // What the next agent is not to tell again has to be on disk first.
    let settled = settle(&outlet);
    let read = told.map(|told| {
        let left = told.filter(|_| settled).map(|told| lock(&engine).leave_told(&told));
        if let Some(Err(error)) = left {
            tracing::warn!("the next agent will tell some refusals again: {error}");
        }
    });
    // Not waited for: a client may hold its request open.
    runtime.shutdown_background();
    tracing::info!(
        "the agent ends; the wall keeps standing at {} (`dnswall agent detach --pins {}` takes it down)",
        options.cgroup.display(),
        options.pins.display()
    );
    served.and(proven).and(ticked).and(read).map_err(RunError::from)
}

/// Refuses a host on which the wall would stand and hold nothing.
fn refuse(report: &Report) -> Result<(), RunError> {
    let reasons: Vec<String> = report
        .failures()
        .map(|check| {
            let fix = check.fix.as_deref().unwrap_or_default();
            format!("{}: {}: {}. Do: {fix}", check.name, check.found, check.meaning)
        })
        .collect();
    if reasons.is_empty() { Ok(()) } else { Err(RunError::Unsuitable(reasons.join("\n"))) }
}

fn notes(report: &Report) -> Vec<String> {
    let warnings = report.checks.iter().filter(|check| check.level == Level::Warn);
    // What the agent mended itself by now, and what the wall says of itself.
    warnings
        .filter(|check| !["bpffs", "security modules"].contains(&check.name.as_str()))
        .map(|check| format!("{}: {}: {}", check.name, check.found, check.meaning))
        .collect()
}

/// All threads are there and the wall stands: nothing after this needs more. What is to be said when it is not so: an
/// agent on a host without seccomp is still better than none.
fn confine(sandbox: bool) -> Option<String> {
    let note = if sandbox {
        let failed = sandbox::refuse_system_calls().err()?;
        format!("sandbox: the agent's system calls are not filtered: {failed:#}")
    } else {
        "sandbox: it is off (agent.toml): the agent keeps every capability and system call".to_owned()
    };
    tracing::warn!("{note}");
    Some(note)
}

fn announce(engine: &Engine, raised: Raised, options: &Options) {
    let how = match raised {
        Raised::New => "raised".to_owned(),
        Raised::TookOver => "taken over".to_owned(),
        Raised::Replaced => "taken over, its programs replaced by this version's".to_owned(),
        Raised::Crossed { from, .. } => format!("raised beside one of layouts v{from}, which is taken down"),
    };
    tracing::info!(
        "the wall at {} is {how}: {}{}",
        options.cgroup.display(),
        summary(engine),
        assumed(engine)
    );
    if let Some(lapsed) = engine.lapsed() {
        tracing::warn!("{lapsed}");
    }
    if !options.host.is_ours() {
        tracing::info!("users and program files are looked up in {}", options.host.path().display());
    }
    if let Some(doubt) = options.host.doubt() {
        tracing::warn!("users and program files are looked up in /, which may not be the host's: {doubt}");
    }
    for missing in engine.wall().missing() {
        tracing::warn!("{missing}");
    }
    for warning in &engine.running().warnings {
        tracing::warn!("{}: {warning}", engine.running().policy.name);
    }
}

fn summary(engine: &Engine) -> String {
    let running = engine.running();
    format!(
        "policy {} ({}), mode {}, generation {}",
        running.policy.name, running.origin.origin, running.policy.mode, running.generation
    )
}

/// What the embedded policy takes for granted, for nobody wrote it down.
fn assumed(engine: &Engine) -> String {
    let running = engine.running();
    if running.origin.origin != BUILTIN_ORIGIN {
        return String::new();
    }
    let Dns { resolvers, stubs, .. } = &running.policy.dns;
    let addresses = stubs.iter().map(|stub| stub.address).chain(resolvers.iter().copied());
    let addresses: Vec<String> = addresses.map(|address| address.to_string()).collect();
    if addresses.is_empty() {
        return "; the host names no resolver, so every question is reported".to_owned();
    }
    format!("; resolvers assumed, as the host has them: {}", addresses.join(", "))
}

fn sinks(options: &Options) -> Result<Vec<Box<dyn Sink>>, RunError> {
    let colour =
        std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    sink::open_all(options.alerts.terminal, &options.sinks, &options.host, colour)
        .map_err(|error| RunError::from(anyhow::Error::from(error)))
}

/// Where lists are that are fetched.
fn depot(options: &Options) -> anyhow::Result<Depot> {
    let directory = options.state.join("lists");
    let ListsConfig { ca, timeout } = options.lists.clone();
    Depot::open(directory.clone(), Asked { trust: Trust { ca, host: options.host.clone() }, timeout })
        .with_context(|| format!("use the directory of lists {}", directory.display()))
}

// Never waits: while a policy is being published, events go on.
fn sweep(engine: &Arc<Mutex<Engine>>) -> Sweep {
    let engine = Arc::clone(engine);
    Box::new(move || match engine.try_lock() {
        Ok(engine) => swept(&engine),
        Err(TryLockError::Poisoned(engine)) => swept(&engine.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    })
}

fn swept(engine: &Engine) -> Option<Swept> {
    let kernel = engine.wall().maps().counters().ok();
    let events_lost = kernel.and_then(|kernel| kernel.get(Counter::EventsLost as usize).copied());
    Some(Swept { counts: engine.counts()?, events_lost })
}

pub(super) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn catch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    // Until one says to end; the other one reads the policy's file again.
    async fn wait(mut self, engine: &Arc<Mutex<Engine>>, file: Option<&Path>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    let (engine, file) = (Arc::clone(engine), file.map(Path::to_owned));
                    let reloaded = tokio::task::spawn_blocking(move || reload(&engine, file.as_deref())).await;
                    if let Err(error) = reloaded {
                        tracing::error!(%error, "read the policy again");
                    }
                }
            }
        }
    }
}

fn reload(engine: &Mutex<Engine>, file: Option<&Path>) {
    let Some(file) = file else {
        tracing::warn!("SIGHUP: no --policy was given, so there is no file to read again");
        return;
    };
    let applied = engine::read(file).and_then(|(text, origin)| {
        fetcher::before_apply(engine, &text);
        let mut engine = lock(engine);
        engine.apply(text, &origin).map(|_| summary(&engine))
    });
    match applied {
        Ok(summary) => {
            tracing::info!("{} was read again: {summary}", file.display());
            notice::status(&summary);
        }
        Err(EngineError::Invalid(problems)) => {
            tracing::error!("the policy that decided before still does\n{}", problems.render(false));
        }
        Err(error) => {
            let error = anyhow::Error::from(error);
            tracing::error!("the policy that decided before still does: {error:#}");
        }
    }
}

/// A policy on trial ends with the agent: nobody would be there to take it back in time.
fn give_back(engine: &mut Engine) {
    match engine.go_back() {
        Ok(None) => {}
        Ok(Some(_)) => {
            tracing::warn!("the policy was not confirmed before the agent ends: {}", summary(engine));
        }
        Err(error) => {
            tracing::error!("the policy that was not confirmed stays until the next start: {error}")
        }
    }
}

fn lock(engine: &Mutex<Engine>) -> std::sync::MutexGuard<'_, Engine> {
    engine.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<JoinHandle<T>> {
    // The kernel keeps fifteen bytes of it.
    thread::Builder::new().name(name.to_owned()).spawn(work).with_context(|| format!("start thread {name}"))
}

fn join<T>(name: &str, thread: JoinHandle<T>) -> anyhow::Result<T> {
    thread.join().map_err(|_| anyhow::anyhow!("thread {name} failed"))
}

/// The spool, in the directory of the state.
const SPOOL_FILE: &str = "alerts.redb";
/// How long the agent waits for its sinks before it ends.
const SETTLE: Duration = Duration::from_secs(3);

// A sink that hangs (a full pipe, a dead disk) may not keep the agent from ending.
// Whether all that was told is on disk.
fn settle(outlet: &Outlet) -> bool {
    outlet.close();
    let until = Instant::now() + SETTLE;
    while !outlet.is_settled() && Instant::now() < until {
        thread::sleep(Duration::from_millis(10));
    }
    let (spool, sinks) = outlet.status();
    for sink in sinks.iter().filter(|sink| sink.waiting > 0) {
        tracing::warn!(
            sink = sink.name,
            alerts = sink.waiting,
            "alerts wait in the spool for the next agent"
        );
    }
    outlet.is_saved() && spool.unsaved == 0
}
