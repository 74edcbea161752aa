//! The connections that run now, and the policy: which of them one would refuse, which are older than the wall, and
//! which are ended.

use std::path::Path;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dnswall_common::event::Event;
use dnswall_common::flow::protocol;

use super::engine::{Change, Engine, EngineError, Running};
use super::fetcher;
use super::reader::Inbox;
use crate::compile::{Explanation, Outcome, explain_who};
use crate::connections::{self, Direction, Refused, Scene, Seen, SocketId, Wanted};
use crate::container::Seeker;
use crate::control::api::{ConnectionShown, LeftOut, OlderStatus, RehearseRequest, Rehearsed};
use crate::event::{Clocks, EnrichedEvent, Enricher, Roots, Users};
use crate::host::HostRoot;
use crate::kernel::{find_cgroup2, socket_map};
use crate::policy::{Existing, Policy};

/// Connections that are listed, or have an alert of their own. All are counted.
pub const LISTED_MAX: usize = 1_000;

/// What is known of the connections from before the wall.
pub type Older = Arc<Mutex<Option<OlderStatus>>>;

/// What an apply of this policy would change, and whom it would meet.
///
/// # Errors
/// Why an apply would refuse it.
pub fn rehearse(engine: &Mutex<Engine>, request: RehearseRequest) -> Result<Rehearsed, EngineError> {
    let RehearseRequest { text, origin } = request;
    fetcher::before_apply(engine, &text);
    let (running, Change { previous, diff }) = lock(engine).rehearse(text, &origin)?;
    let looked = look(engine, Wanted::All);
    let mut rehearsed = Rehearsed {
        name: running.policy.name.clone(),
        digest: running.origin.digest.clone(),
        mode: running.policy.mode.name().to_owned(),
        previous,
        changes: diff.changes,
        warnings: running.warnings.iter().map(ToString::to_string).collect(),
        ..Rehearsed::default()
    };
    match looked {
        Err(error) => rehearsed.left_out = blind(&error),
        Ok((seen, scene)) => {
            rehearsed.left_out = left_out(&seen);
            meet(engine, &running, &seen, &scene, &mut rehearsed);
        }
    }
    Ok(rehearsed)
}

fn meet(engine: &Mutex<Engine>, running: &Running, seen: &Seen, scene: &Scene, rehearsed: &mut Rehearsed) {
    // What is over may not have left yet, but nobody misses it.
    let refused =
        scene.refused(seen, &running.image).into_iter().filter(|refused| !refused.connection.closing);
    let mut naming = None;
    for refused in refused {
        match refused.explanation.outcome {
            Outcome::Denied => rehearsed.denied += 1,
            Outcome::WouldDeny | Outcome::Allowed => rehearsed.would_deny += 1,
        }
        if rehearsed.connections.len() >= LISTED_MAX {
            continue;
        }
        let passes = {
            let engine = lock(engine);
            scene.who(refused.connection, &engine.running().image).is_some_and(|who| {
                let now = explain_who(&engine.running().image, &who, &refused.connection.flow());
                now.outcome != Outcome::WouldDeny
            })
        };
        let naming = naming.get_or_insert_with(|| Naming::new(engine));
        let named = naming.enricher.as_mut().map(|enricher| {
            enricher.enrich(&refused.event(naming.clocks.monotonic_ns, 0, false), &naming.clocks)
        });
        rehearsed.connections.push(shown(&refused, fate(&refused, passes), named));
    }
}

/// Looks for the connections that are older than the wall, right after it was raised: reports those that the policy
/// refuses, and ends them where it says so.
pub fn judge_older(engine: &Mutex<Engine>, inbox: &Inbox, older: &Older) {
    let mut status = OlderStatus::default();
    match look(engine, Wanted::All) {
        Err(error) => {
            tracing::warn!("connections older than the wall were not looked at: {error:#}");
            status.left_out = blind(&error);
        }
        Ok((mut seen, scene)) => {
            seen.connections.retain(connections::Connection::is_older);
            status.left_out = left_out(&seen);
            let (refused, generation) = judged(engine, &seen, &scene);
            let doomed: Vec<(usize, SocketId)> =
                refused.iter().filter(|refused| refused.is_cut()).map(socket).collect();
            let (cut, trouble) = connections::cut(&seen, &doomed);
            status.cut = cut.len();
            status.not_cut = trouble.map(|error| not_cut(&error));
            let listed: Vec<&Refused<'_>> =
                refused.iter().filter(|refused| !refused.connection.closing || refused.is_cut()).collect();
            status.refused = listed.len();
            let now_ns = Clocks::read().monotonic_ns;
            let events: Vec<Event> = listed
                .iter()
                .take(LISTED_MAX)
                .map(|refused| refused.event(now_ns, generation, cut.contains(&refused.connection.id)))
                .collect();
            inbox.tell(events);
        }
    }
    say(&status);
    *older.lock().unwrap_or_else(PoisonError::into_inner) = Some(status);
}

/// After each change of the policy, ends the connections that the running one refuses and cuts, until nobody can change it
/// any more. The kernel drops their packets as it is, but for those that are older than the wall; ended, both ends hear
/// of it.
pub fn cut_refused(engine: &Mutex<Engine>, changed: &Receiver<()>) {
    while changed.recv().is_ok() {
        let wanted = if cuts(&lock(engine).running().policy) { Wanted::All } else { Wanted::Opening };
        cut_now(engine, wanted);
    }
}

fn cut_now(engine: &Mutex<Engine>, wanted: Wanted) {
    let (seen, scene) = match look(engine, wanted) {
        Ok(looked) => looked,
        Err(error) => return tracing::warn!("connections to cut were not looked for: {error:#}"),
    };
    let (refused, _) = judged(engine, &seen, &scene);
    let doomed: Vec<(usize, SocketId)> =
        refused.iter().filter(|refused| refused.is_cut()).map(socket).collect();
    let (cut, trouble) = connections::cut(&seen, &doomed);
    if !cut.is_empty() {
        tracing::info!("{} connections that the policy refuses were ended", cut.len());
    }
    if let Some(error) = trouble {
        tracing::warn!("{}", not_cut(&error));
    }
}

fn cuts(policy: &Policy) -> bool {
    policy.existing == Existing::Cut || policy.scopes.iter().any(|scope| scope.existing == Existing::Cut)
}

fn judged<'s>(engine: &Mutex<Engine>, seen: &'s Seen, scene: &Scene) -> (Vec<Refused<'s>>, u32) {
    let engine = lock(engine);
    (scene.refused(seen, &engine.running().image), engine.running().generation)
}

fn socket(refused: &Refused<'_>) -> (usize, SocketId) {
    (refused.connection.namespace, refused.connection.id)
}

/// Not with the engine's lock: it may take seconds, and the service manager is told that all is well by who holds it.
fn look(engine: &Mutex<Engine>, wanted: Wanted) -> anyhow::Result<(Seen, Scene)> {
    Ok((see(engine, wanted)?, Scene::look(&find_cgroup2()?)))
}

/// The connections that run now.
///
/// # Errors
/// When nothing can be seen.
pub fn see(engine: &Mutex<Engine>, wanted: Wanted) -> anyhow::Result<Seen> {
    let pins = lock(engine).wall().pins().to_owned();
    Ok(connections::look(Path::new("/proc"), Some(socket_map(&pins)?), wanted)?)
}

fn say(status: &OlderStatus) {
    let OlderStatus { refused, cut, not_cut, left_out: LeftOut { namespaces, sockets, .. } } = status;
    if *refused > 0 {
        let rest = refused - cut;
        tracing::warn!(
            "{refused} connections are older than the wall and against the policy: {cut} were cut, {rest} live on"
        );
    }
    if let Some(why) = not_cut {
        tracing::warn!("{why}");
    }
    if *namespaces + *sockets > 0 {
        tracing::warn!(
            "connections in {namespaces} network namespaces, and {sockets} more sockets, were not looked at"
        );
    }
}

fn not_cut(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => {
            "this kernel cannot end connections (CONFIG_INET_DIAG_DESTROY is not set): \
                                   restart what holds those that are older than the wall"
                .to_owned()
        }
        _ => format!("some connections could not be ended: {error}"),
    }
}

fn left_out(seen: &Seen) -> LeftOut {
    LeftOut { namespaces: seen.namespaces_left_out, sockets: seen.sockets_left_out, error: None }
}

fn blind(error: &anyhow::Error) -> LeftOut {
    LeftOut { error: Some(format!("{error:#}")), ..LeftOut::default() }
}

/// What becomes of a connection under the policy that refuses it. `passes`: under the one before it is not only audited,
/// so that the wall remembers it as allowed.
fn fate(refused: &Refused<'_>, passes: bool) -> &'static str {
    let Refused { connection, explanation: Explanation { outcome, existing, .. } } = refused;
    let remembered = passes || connection.recorded.is_none();
    match (outcome, existing) {
        (Outcome::WouldDeny | Outcome::Allowed, _) => "reported",
        _ if connection.protocol != protocol::TCP => "refused",
        _ if connection.opening => "cut",
        (_, Existing::Keep) if remembered => "kept",
        (_, Existing::Cut) if connection.direction == Direction::Unclear => "kept",
        _ => "cut",
    }
}

/// Names processes and workloads.
struct Naming {
    enricher: Option<Enricher>,
    clocks: Clocks,
}

impl Naming {
    fn new(engine: &Mutex<Engine>) -> Self {
        Self { enricher: enricher(engine).ok(), clocks: Clocks::read() }
    }
}

/// The path of the cgroup that the wall is around.
pub fn root(engine: &Mutex<Engine>) -> String {
    lock(engine).root().path
}

/// Whoever names processes and workloads of this wall.
///
/// # Errors
/// When there is no cgroup hierarchy.
pub fn enricher(engine: &Mutex<Engine>) -> anyhow::Result<Enricher> {
    let engine = lock(engine);
    let host = engine.running().environment.host().clone();
    let roots = roots(engine.wall().cgroup(), &host)?;
    let seeker = Seeker::new(host.clone(), roots.cgroup_mount.clone());
    // Labels of pods are shown nowhere here.
    Ok(Enricher::new(roots, Users::of(host), None).with_containers(seeker, None))
}

/// Where this host keeps what names come from.
///
/// # Errors
/// When there is no cgroup hierarchy.
pub fn roots(wall: &Path, host: &HostRoot) -> anyhow::Result<Roots> {
    Ok(Roots {
        cgroup_mount: find_cgroup2()?.path,
        wall: wall.to_owned(),
        proc: "/proc".into(),
        host: host.clone(),
    })
}

fn shown(refused: &Refused<'_>, fate: &str, named: Option<EnrichedEvent>) -> ConnectionShown {
    let Refused { connection, explanation } = refused;
    let mut shown = ConnectionShown {
        protocol: if connection.protocol == protocol::TCP { "tcp" } else { "udp" }.to_owned(),
        source: connection.local.to_string(),
        destination: connection.remote.to_string(),
        direction: match connection.direction {
            Direction::Outbound => "outbound",
            Direction::Unclear => "unclear",
        }
        .to_owned(),
        verdict: explanation.outcome.name().to_owned(),
        fate: fate.to_owned(),
        reason: explanation.reason.clone(),
        rule: explanation.rule.name.clone(),
        why: explanation.because.clone(),
        older: connection.is_older(),
        ..ConnectionShown::default()
    };
    if let Some(EnrichedEvent { process, workload, uid, user, .. }) = named {
        shown.pid = process.pid;
        shown.exe.clone_from(&process.exe);
        shown.command_line.clone_from(&process.command_line);
        (shown.uid, shown.user) = (uid, user.as_deref().map(str::to_owned));
        shown.cgroup.clone_from(&workload.cgroup);
        shown.unit.clone_from(&workload.unit);
        shown.container.clone_from(&workload.container);
    }
    shown
}

fn lock(engine: &Mutex<Engine>) -> MutexGuard<'_, Engine> {
    // The running policy is only replaced whole.
    engine.lock().unwrap_or_else(PoisonError::into_inner)
}
