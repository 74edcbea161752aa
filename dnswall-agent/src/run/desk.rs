//! Answers what commands ask the running agent.

use std::collections::HashMap;
use std::sync::mpsc::{Sender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use dnswall_common::ABI_VERSION;
use dnswall_common::counter::{Counter, RuleCounter};
use dnswall_common::image::MODE_AUDIT;
use dnswall_common::reason::Reason;
use jiff::Timestamp;

use super::connected::{self, Older};
use super::engine::{CONFIRM_RANGE, Change, Engine, EngineError, Running};
use super::explained::explained;
use super::fetcher::{self, UpdateError};
use super::lookout::{Lookout, View};
use super::names;
use super::outlet::{Outlet, Stream};
use super::prover::{Order, Proofs};
use super::question::Question;
use super::reader::Inbox;
use super::selftest::{self, Begun, Selftests};
use super::store::Origin;
use crate::alert::filter::Filter;
use crate::compile::RuleInfo;
use crate::control::api::{
    AlertTestRequest, AlertTested, Applied, ApplyRequest, Blocklists, CgroupStatus, ErrorBody, EventsQuery,
    ExplainRequest, Explained, NameChecked, NameRequest, PendingStatus, Picture, PolicyPast, PolicyShown,
    PolicyStatus, ReasonStatus, RehearseRequest, Rehearsed, RuleStatus, SelftestStatus, Status,
    UpdateRequest, Updated,
};
use crate::control::server::{Agent, Refusal, Told};
use crate::digest::hexadecimal;
use crate::kernel::PublishError;
use crate::kubernetes::Pods;
use crate::metrics::Trouble;
use crate::policy::encrypted::KNOWN;
use crate::policy::{Encrypted, Mode};
use crate::spool::Trace;

/// The agent as commands see it.
pub struct Desk {
    parts: DeskParts,
    lookout: Lookout,
    started: Timestamp,
    since: Instant,
}

/// What the desk answers from.
pub struct DeskParts {
    /// The policy and the wall.
    pub engine: Arc<Mutex<Engine>>,
    /// Where alerts go.
    pub outlet: Arc<Outlet>,
    /// What the reader counted.
    pub inbox: Arc<Inbox>,
    /// What was proven of the wall.
    pub proofs: Proofs,
    /// The tests of whether alerts arrive.
    pub selftests: Selftests,
    /// What the prover is told.
    pub orders: Sender<Order>,
    /// Between two tests of whether alerts arrive.
    pub heartbeat: Option<Duration>,
    /// Where policies are kept.
    pub state: String,
    /// What somebody should look at from the start on.
    pub notes: Vec<String>,
    /// What was found of connections older than the wall.
    pub older: Older,
    /// Why metrics are not served.
    pub metrics: Trouble,
    /// Who knows pods' labels.
    pub pods: Option<Arc<Pods>>,
}

impl Desk {
    /// For this agent.
    pub fn new(parts: DeskParts) -> Self {
        Self { parts, lookout: Lookout::default(), started: Timestamp::now(), since: Instant::now() }
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        // The running policy is only replaced whole.
        self.parts.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Agent for Desk {
    fn status(&self) -> Result<Status, Refusal> {
        let engine = self.engine();
        let running = engine.running();
        let maps = engine.wall().maps();
        let DeskParts {
            engine: _,
            outlet,
            inbox,
            proofs,
            selftests: _,
            orders: _,
            heartbeat: _,
            state,
            notes,
            older,
            metrics,
            pods,
        } = &self.parts;
        let kubernetes = pods.as_ref().map(|pods| pods.status());
        let mut warnings = notes.clone();
        warnings.extend(running.warnings.iter().map(|warning| format!("policy: {warning}")));
        warnings.extend(fetcher::warnings(&running.policy, &running.environment));
        warnings.extend(engine.trouble().map(str::to_owned));
        warnings.extend(engine.lapsed().map(str::to_owned));
        warnings.extend(engine.wall().missing().iter().map(ToString::to_string));
        if !inbox.is_alive() {
            warnings.push("the reader of events is stuck: refusals are counted, but not reported".to_owned());
        }
        warnings.extend(metrics.now());
        warnings.extend(kubernetes.as_ref().and_then(|status| {
            let error = status.error.as_ref()?;
            Some(format!("kubernetes: pods are named without their labels: {}: {error}", status.server))
        }));
        let record = proofs.record();
        // What the kernel does, whatever was published.
        let judged = engine.wall().header();
        let mut policy = policy_status(running);
        let mode = match judged {
            Some(header) => {
                let digest = hexadecimal(&header.digest);
                if (header.generation, &digest) != (policy.generation, &policy.digest) {
                    warnings.push(format!(
                        "the kernel judges by generation {} ({digest}), not by the one that was published, {} ({})",
                        header.generation, policy.generation, policy.digest
                    ));
                }
                (policy.generation, policy.digest) = (header.generation, digest);
                mode_name(header.mode)
            }
            None => "none",
        };
        let rules = maps.rule_counters(running.image.rules.len()).map_err(failed)?;
        let reasons = maps.reason_counters().map_err(failed)?;
        let kernel = maps.counters().map_err(failed)?;
        let selftest = self.selftest_status(lost_of(&kernel));
        let mut counters = inbox.counters();
        for counter in Counter::ALL {
            let count = kernel.get(*counter as usize).copied().unwrap_or_default();
            counters.insert(counter.name().to_owned(), count);
        }
        let root = engine.root();
        let (spool, sinks) = outlet.status();
        let mutes = outlet.mutes();
        let over = mutes.iter().filter(|mute| mute.is_over);
        warnings.extend(
            over.map(|mute| format!("agent.toml: a [[mute]] was until {}: {}", mute.until, mute.reason)),
        );
        warnings.extend(spool.trouble.iter().map(|trouble| format!("spool: {trouble}")));
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            abi: ABI_VERSION,
            pid: std::process::id(),
            started: format!("{:.0}", self.started),
            uptime_secs: self.since.elapsed().as_secs(),
            mode: mode.to_owned(),
            policy,
            pending: pending(&engine),
            cgroup: CgroupStatus {
                path: engine.wall().cgroup().display().to_string(),
                name: root.path,
                id: root.id,
            },
            pins: engine.wall().pins().display().to_string(),
            state: state.clone(),
            hooks: proofs.hooks(),
            older: older.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            rules: by_rule(&running.image.rules, &rules),
            reasons: Reason::ALL
                .iter()
                .filter_map(|reason| {
                    let counted = reasons.get(*reason as usize)?;
                    let (denied, would_deny) = (counted.denied, counted.would_deny);
                    let refuses = denied + would_deny > 0;
                    refuses.then(|| ReasonStatus { name: reason.name().to_owned(), denied, would_deny })
                })
                .collect(),
            counters,
            resolvers: inbox.resolvers(),
            spool,
            mutes,
            selftest,
            kubernetes,
            sinks,
            sandbox: super::sandbox::status(),
            warnings,
            proof: record.proof,
            tamper: record.tamper,
        })
    }

    fn policy(&self) -> Result<PolicyShown, Refusal> {
        let engine = self.engine();
        let running = engine.running();
        let history = engine.history().into_iter().map(past);
        Ok(PolicyShown {
            policy: policy_status(running),
            mode: running.policy.mode.name().to_owned(),
            text: running.policy.text.clone(),
            essentials: ESSENTIALS.map(str::to_owned).to_vec(),
            encrypted_dns: match running.policy.dns.encrypted {
                Encrypted::Deny => KNOWN.to_string(),
                Encrypted::Allow => String::new(),
            },
            history: history.collect(),
        })
    }

    fn apply(&self, request: ApplyRequest) -> Result<Applied, Refusal> {
        let ApplyRequest { text, origin, confirm_secs } = request;
        fetcher::before_apply(&self.parts.engine, &text);
        let mut engine = self.engine();
        let (change, how) = match confirm_secs.map(Duration::from_secs) {
            None => (engine.apply(text, &origin).map_err(refusal)?, "applied".to_owned()),
            Some(time) => {
                let deadline = deadline(time)?;
                let change = engine.try_out(text, &origin, deadline).map_err(refusal)?;
                (change, format!("applied, to be confirmed within {} s", time.as_secs()))
            }
        };
        let applied = applied(&engine, change);
        note(&how, &applied);
        Ok(applied)
    }

    fn rehearse(&self, request: RehearseRequest) -> Result<Rehearsed, Refusal> {
        connected::rehearse(&self.parts.engine, request).map_err(refusal)
    }

    fn confirm(&self) -> Result<Applied, Refusal> {
        let mut engine = self.engine();
        let change = engine.confirm(Instant::now()).map_err(refusal)?;
        let applied = applied(&engine, change);
        note("confirmed", &applied);
        Ok(applied)
    }

    fn rollback(&self) -> Result<Applied, Refusal> {
        let mut engine = self.engine();
        let change = engine.rollback().map_err(refusal)?;
        let applied = applied(&engine, change);
        note("brought back", &applied);
        Ok(applied)
    }

    fn explain(&self, request: ExplainRequest) -> Result<Explained, Refusal> {
        let host = self.engine().running().environment.again();
        let question = Question::parse(&request, &host)
            .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.error, Some(error.hint)))?;
        Ok(explained(&self.engine().running().image, question))
    }

    fn blocklists(&self) -> Result<Blocklists, Refusal> {
        Ok(names::blocklists(self.engine().running()))
    }

    fn update_blocklists(&self, request: UpdateRequest) -> Result<Updated, Refusal> {
        fetcher::update(&self.parts.engine, &request).map_err(|error| {
            let shown = error.to_string();
            match error {
                UpdateError::Unknown { known, .. } => {
                    let hint = format!("the policy that decides has: {known}");
                    Refusal::new(StatusCode::NOT_FOUND, shown, Some(&hint))
                }
                UpdateError::Engine(error) => refusal(error),
            }
        })
    }

    fn check_name(&self, request: NameRequest) -> Result<NameChecked, Refusal> {
        let name = names::read(&request.name)
            .map_err(|why| Refusal::new(StatusCode::BAD_REQUEST, why, Some(names::HINT)))?;
        names::check(&self.engine().running().image, &name).map_err(|error| failed(error.into()))
    }

    fn test_alerts(&self, request: AlertTestRequest) -> Result<AlertTested, Refusal> {
        let within = Duration::from_secs(request.within_secs);
        if within > TEST_WITHIN_MAX {
            let error = format!("a test may take {} s at most", TEST_WITHIN_MAX.as_secs());
            return Err(Refusal::new(StatusCode::BAD_REQUEST, error, None));
        }
        let busy = || {
            let error = "the thread that proves the wall does not answer";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error, Some("the log says what it does"))
        };
        let (reply, begun) = sync_channel(1);
        self.parts.orders.send(Order::Test(reply)).map_err(|_| busy())?;
        let begun = begun.recv_timeout(BEGUN_WITHIN).map_err(|_| busy())?;
        Ok(self.tested(&begun, if begun.ring_ns.is_some() { within } else { Duration::ZERO }))
    }

    fn picture(&self) -> Result<Picture, Refusal> {
        let DeskParts { engine, outlet, inbox, .. } = &self.parts;
        self.lookout.look(&View { engine, inbox, outlet }, || self.status())
    }

    fn events(&self, query: &EventsQuery) -> Result<Told, Refusal> {
        let refused = |error: String| Refusal::new(StatusCode::BAD_REQUEST, error, None);
        let filter = Filter::parse(&query.filter, Timestamp::now()).map_err(refused)?;
        if query.dns && !filter.is_empty() {
            return Err(refused("questions are not filtered, alerts are".to_owned()));
        }
        let stream = if query.dns { Stream::Questions } else { Stream::Alerts };
        let (last, live) = self.parts.outlet.events(stream, query.last.min(LAST_MAX), &filter);
        Ok(Told { last, live, filter })
    }
}

impl Desk {
    /// A test as it is now, or when it is done or `patience` is over.
    fn tested(&self, begun: &Begun, patience: Duration) -> AlertTested {
        let trace = self.parts.outlet.trace(begun.id, patience);
        let lost = lost_of(&self.engine().wall().maps().counters().unwrap_or_default());
        self.shown(begun, trace.as_ref(), lost)
    }

    fn shown(&self, begun: &Begun, trace: Option<&Trace>, lost: u64) -> AlertTested {
        let DeskParts { outlet, inbox, .. } = &self.parts;
        let reader = selftest::Reader { alive: inbox.is_alive(), lost };
        selftest::shown(begun, trace, outlet.trouble().as_deref(), reader)
    }

    /// `lost` are the events for which the kernel had no room.
    fn selftest_status(&self, lost: u64) -> SelftestStatus {
        let DeskParts { selftests, heartbeat, .. } = &self.parts;
        SelftestStatus {
            last: selftests.last().map(|begun| {
                let trace = self.parts.outlet.trace(begun.id, Duration::ZERO);
                self.shown(&begun, trace.as_ref(), lost)
            }),
            arrived: selftests.arrived().map(|time| format!("{time:.3}")),
            interval_secs: heartbeat.map(|interval| interval.as_secs()),
        }
    }
}

fn lost_of(counters: &[u64]) -> u64 {
    counters.get(Counter::EventsLost as usize).copied().unwrap_or_default()
}

/// Alerts that are shown at once.
const LAST_MAX: usize = 10_000;
/// How long somebody may wait for the sinks.
const TEST_WITHIN_MAX: Duration = Duration::from_secs(600);
/// How long the prover may take for a try, whatever it does first.
const BEGUN_WITHIN: Duration = Duration::from_secs(100);

/// What each rule counted; some are several to the kernel, and one to who wrote them.
fn by_rule(rules: &[RuleInfo], counted: &[RuleCounter]) -> Vec<RuleStatus> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut statuses: Vec<RuleStatus> = Vec::new();
    for ((number, rule), counted) in (0u32..).zip(rules).zip(counted) {
        let at = *places.entry(&rule.name).or_insert_with(|| {
            statuses.push(RuleStatus { number, name: rule.name.clone(), ..RuleStatus::default() });
            statuses.len() - 1
        });
        let status = &mut statuses[at];
        status.allowed += counted.allowed;
        status.denied += counted.denied;
        status.would_deny += counted.would_deny;
    }
    statuses
}

/// What passes without any rule (see [`dnswall_common::packet::is_essential`] and the reasons that allow).
pub const ESSENTIALS: [&str; 8] = [
    "packets that never leave this host (loopback)",
    "the rest of connections that were allowed when they began, and of those that began at the other end",
    "answers to datagrams received on the same socket",
    "neighbour discovery, router solicitation, multicast listening (ICMPv6 and IGMP, on the link)",
    "DHCP: from port 68 to 67 within private networks, from 546 to 547 on the link",
    "ICMP errors, redirects and answers to pings that the kernel itself writes",
    "the kernel's own packets without a process (RST, ICMP)",
    "AF_PACKET and raw sockets of the usual DHCP clients' units, where the policy has no [unjudged] or [raw]",
];

fn mode_name(mode: u8) -> &'static str {
    if mode == MODE_AUDIT { Mode::Audit.name() } else { Mode::Enforce.name() }
}

fn deadline(time: Duration) -> Result<Instant, Refusal> {
    let (least, most) = CONFIRM_RANGE;
    let deadline = Instant::now().checked_add(time).filter(|_| (least..=most).contains(&time));
    deadline.ok_or_else(|| {
        let error = format!(
            "a policy cannot wait {} s for its confirmation, only {} to {} s",
            time.as_secs(),
            least.as_secs(),
            most.as_secs()
        );
        Refusal::new(StatusCode::BAD_REQUEST, error, None)
    })
}

fn pending(engine: &Engine) -> Option<PendingStatus> {
    engine.pending().map(|pending| PendingStatus {
        seconds_left: pending.seconds_left(Instant::now()),
        back_to: past(pending.before().origin.clone()),
    })
}

fn past(origin: Origin) -> PolicyPast {
    let Origin { origin, applied_at, digest } = origin;
    PolicyPast { digest, origin, applied_at }
}

fn policy_status(running: &Running) -> PolicyStatus {
    PolicyStatus {
        name: running.policy.name.clone(),
        digest: running.origin.digest.clone(),
        generation: running.generation,
        origin: running.origin.origin.clone(),
        applied_at: running.origin.applied_at.clone(),
    }
}

fn applied(engine: &Engine, change: Change) -> Applied {
    let running = engine.running();
    let mut warnings: Vec<String> = running.warnings.iter().map(ToString::to_string).collect();
    warnings.extend(fetcher::warnings(&running.policy, &running.environment));
    warnings.extend(engine.trouble().map(str::to_owned));
    Applied {
        policy: policy_status(running),
        pending: pending(engine),
        mode: running.policy.mode.name().to_owned(),
        changed: change.previous != running.origin.digest,
        previous: change.previous,
        changes: change.diff.changes,
        connections: Vec::new(),
        warnings,
    }
}

// The log says when the policy became another one, whoever asked for it.
fn note(how: &str, applied: &Applied) {
    let Applied { policy: PolicyStatus { name, digest, generation, origin, applied_at: _ }, mode, .. } =
        applied;
    tracing::info!(
        "policy {name} ({origin}) was {how}: mode {mode}, generation {generation}, digest {digest}"
    );
    super::notice::status(&format!("policy {name} ({origin}), mode {mode}, generation {generation}"));
}

fn failed(error: anyhow::Error) -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"), None)
}

fn refusal(error: EngineError) -> Refusal {
    let shown = error.to_string();
    match error {
        EngineError::Invalid(problems) => {
            let body = ErrorBody {
                error: format!("{shown}; the policy that decided before still does"),
                hint: None,
                origin: Some(problems.origin().to_owned()),
                problems: problems.list().to_vec(),
            };
            Refusal { status: StatusCode::UNPROCESSABLE_ENTITY, body: Box::new(body) }
        }
        EngineError::Publish(PublishError::TooLarge(_)) => {
            let hint = Some("merge destinations into networks, or rules that differ only in `to` or `ports`");
            Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, shown, hint)
        }
        EngineError::OnTrial { .. } => {
            let hint = Some(
                "`dnswall policy confirm` keeps it, `dnswall policy rollback` takes it back; \
                 `dnswall policy apply --confirm` tries another one in its place",
            );
            Refusal::new(StatusCode::CONFLICT, shown, hint)
        }
        EngineError::NothingToConfirm | EngineError::TooLate => {
            let hint = Some("`dnswall status` shows the policy that decides");
            Refusal::new(StatusCode::CONFLICT, shown, hint)
        }
        EngineError::NoPrevious => {
            let hint = Some("`dnswall policy show` lists the policies that can be brought back");
            Refusal::new(StatusCode::CONFLICT, shown, hint)
        }
        other => {
            let hint = Some("the policy that decided before still does");
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{:#}", anyhow::Error::from(other)), hint)
        }
    }
}
