//! What commands and agent say to each other, and what `--output json` prints. Fields are only ever added.

mod blocklists;
mod events;
mod picture;
mod proof;
mod selftest;

pub use blocklists::{
    Blocklists, FetchStatus, ListStatus, NameChecked, NameRequest, UpdateRequest, UpdateStatus, Updated,
};
pub use events::EventsQuery;
pub use picture::{ConnectionSeen, Delivery, NameSeen, Picture, PictureLeftOut, Totals, WorkloadSeen};
pub use proof::{AttemptStatus, ProofStatus};
pub use selftest::{AlertTestRequest, AlertTested, SelftestStatus, StepShown};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::alert::mute::MuteStatus;
use crate::asked::ResolverStatus;
use crate::compile::Change;
use crate::kubernetes::KubernetesStatus;
use crate::policy::Problem;
use crate::spool::{SinkStatus, SpoolStatus};

/// `GET /v1/status`: what stands, and what it counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// Version of the kernel layouts.
    pub abi: u32,
    /// The agent's process.
    pub pid: u32,
    /// Since when it runs, RFC 3339.
    pub started: String,
    /// For how long.
    pub uptime_secs: u64,
    /// `enforce` or `audit`, where no scope says otherwise.
    pub mode: String,
    /// The policy that decides.
    pub policy: PolicyStatus,
    /// Until when it does so, while it waits for its confirmation.
    #[serde(default)]
    pub pending: Option<PendingStatus>,
    /// The wall's cgroup.
    pub cgroup: CgroupStatus,
    /// Where the wall is pinned.
    pub pins: String,
    /// Where the agent keeps its policies.
    pub state: String,
    /// Connections from before the wall; `None` where the wall was taken over, or as long as they are looked for.
    #[serde(default)]
    pub older: Option<OlderStatus>,
    /// What is attached.
    pub hooks: Vec<HookStatus>,
    /// What each rule of the running generation counted; rule 0 is the default.
    pub rules: Vec<RuleStatus>,
    /// What was refused, by reason, since the wall was raised.
    pub reasons: Vec<ReasonStatus>,
    /// What the kernel and the agent count about themselves: events sent, suppressed, lost, …
    pub counters: BTreeMap<String, u64>,
    /// What resolvers were asked and how they answered, where the policy tells of questions.
    #[serde(default)]
    pub resolvers: Vec<ResolverStatus>,
    /// Where alerts go.
    pub sinks: Vec<SinkStatus>,
    /// The file that keeps alerts until every sink has them.
    #[serde(default)]
    pub spool: SpoolStatus,
    /// Alerts that nobody wants, and how many there were.
    #[serde(default)]
    pub mutes: Vec<MuteStatus>,
    /// Whether alerts arrive.
    #[serde(default)]
    pub selftest: SelftestStatus,
    /// Who is asked for the labels of pods; `None` is nobody.
    #[serde(default)]
    pub kubernetes: Option<KubernetesStatus>,
    /// What the canary proved last.
    #[serde(default)]
    pub proof: ProofStatus,
    /// What was done to the wall.
    #[serde(default)]
    pub tamper: TamperStatus,
    /// What the agent gave up.
    #[serde(default)]
    pub sandbox: SandboxStatus,
    /// What somebody should look at.
    pub warnings: Vec<String>,
}

/// What the agent may still do, as the kernel has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxStatus {
    /// Its capabilities.
    pub capabilities: Vec<String>,
    /// Nothing it starts can get more.
    pub no_new_privileges: bool,
    /// A filter refuses the system calls that it does not need.
    pub system_calls_filtered: bool,
}

/// The policy that decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Its name.
    pub name: String,
    /// SHA-256 of its text, hexadecimal.
    pub digest: String,
    /// Which publication it is.
    pub generation: u32,
    /// The file it came from, or `built-in`.
    pub origin: String,
    /// When it was published, RFC 3339.
    pub applied_at: String,
}

/// A policy that is taken back unless it is confirmed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingStatus {
    /// Seconds until it is taken back.
    pub seconds_left: u64,
    /// What decides again then.
    pub back_to: PolicyPast,
}

/// The wall's cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupStatus {
    /// Its directory.
    pub path: String,
    /// Its path from the root of the version 2 hierarchy, as /proc/PID/cgroup shows it.
    pub name: String,
    /// Its id.
    pub id: u64,
}

/// One attached program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookStatus {
    /// Program.
    pub name: String,
    /// Where the kernel calls it.
    pub attach: String,
    /// The kernel's number for the link.
    pub link_id: u32,
    /// The kernel's number for the program.
    pub program_id: u32,
    /// Instructions the verifier walked; kernels before 5.16 do not tell.
    pub instructions: Option<u32>,
    /// `attached`, `gone`, `replaced`, `not-effective`, or `not-available` where this kernel has no such hook.
    #[serde(default)]
    pub state: String,
    /// Programs of others that run at this hook before ours: number and, where it may be asked, name.
    #[serde(default)]
    pub before: Vec<String>,
    /// Those that run after it.
    #[serde(default)]
    pub after: Vec<String>,
}

/// What was done to the wall.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TamperStatus {
    /// How often something was found.
    pub count: u64,
    /// When something was found last, RFC 3339.
    pub last: Option<String>,
    /// What is still so.
    pub standing: Vec<String>,
    /// When the wall was looked at last, RFC 3339.
    pub looked: String,
}

impl Status {
    /// Whether the kernel does what the policy says, as far as it was looked at.
    pub fn stands(&self) -> bool {
        let hooks =
            || self.hooks.iter().all(|hook| matches!(hook.state.as_str(), "attached" | "not-available"));
        !self.hooks.is_empty() && hooks() && self.proof.state != "failed" && self.tamper.standing.is_empty()
    }
}

/// What one rule counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleStatus {
    /// Rule number.
    pub number: u32,
    /// Rule name.
    pub name: String,
    /// New flows allowed.
    pub allowed: u64,
    /// Packets and attempts refused.
    pub denied: u64,
    /// Packets and attempts that would have been refused.
    pub would_deny: u64,
}

/// What was refused for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonStatus {
    /// The reason.
    pub name: String,
    /// Packets and attempts refused.
    pub denied: u64,
    /// Packets and attempts that would have been refused.
    pub would_deny: u64,
}

/// `GET /v1/policy`: the policy that decides, whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PolicyShown {
    /// Which it is.
    #[serde(flatten)]
    pub policy: PolicyStatus,
    /// `enforce` or `audit`.
    pub mode: String,
    /// Its text.
    pub text: String,
    /// What is allowed without any rule.
    pub essentials: Vec<String>,
    /// The list of encrypted resolvers that are refused: its date and size; empty where they are not.
    #[serde(default)]
    pub encrypted_dns: String,
    /// The policies before it that `policy rollback` can bring back, the latest first.
    pub history: Vec<PolicyPast>,
}

/// A policy that was replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyPast {
    /// SHA-256 of its text, hexadecimal.
    pub digest: String,
    /// The file it came from, or `built-in`.
    pub origin: String,
    /// When it was published, RFC 3339.
    pub applied_at: String,
}

/// `POST /v1/policy/apply`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// Text of the policy.
    pub text: String,
    /// Where it comes from, for people.
    pub origin: String,
    /// Seconds after which the policy before it decides again unless this one is confirmed; `None` is for good. Left out
    /// then: an agent that does not know it refuses the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_secs: Option<u64>,
}

/// The answer to an apply, a confirmation or a rollback: what decides now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// The policy that decides now.
    #[serde(flatten)]
    pub policy: PolicyStatus,
    /// Until when, if it waits for its confirmation.
    #[serde(default)]
    pub pending: Option<PendingStatus>,
    /// `enforce` or `audit`.
    pub mode: String,
    /// Digest of the policy that decided before.
    pub previous: String,
    /// Whether the text differs from the one before.
    pub changed: bool,
    /// What differs.
    pub changes: Vec<Change>,
    /// Running connections that the policy refuses, as seen before it was applied. Filled in by the command.
    #[serde(default)]
    pub connections: Vec<ConnectionShown>,
    /// What somebody should look at.
    pub warnings: Vec<String>,
}

/// `POST /v1/policy/dry-run`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RehearseRequest {
    /// Text of the policy.
    pub text: String,
    /// Where it comes from, for people.
    pub origin: String,
}

/// The answer to a dry run: what an apply would change, and whom it would meet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rehearsed {
    /// The policy's name.
    pub name: String,
    /// SHA-256 of its text, hexadecimal.
    pub digest: String,
    /// `enforce` or `audit`.
    pub mode: String,
    /// Digest of the policy that decides.
    pub previous: String,
    /// What differs between them.
    pub changes: Vec<Change>,
    /// What somebody should look at.
    pub warnings: Vec<String>,
    /// Running connections that the policy refuses.
    pub denied: usize,
    /// Running connections that it would refuse if it enforced.
    pub would_deny: usize,
    /// The first of them.
    pub connections: Vec<ConnectionShown>,
    /// What could not be looked at.
    pub left_out: LeftOut,
}

/// What a look at the connections left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Network namespaces that this agent may not enter, or that are too many.
    pub namespaces: usize,
    /// Sockets and connections that are too many.
    pub sockets: usize,
    /// Why nothing could be looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A running connection that a policy refuses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionShown {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// This end: address and port.
    pub source: String,
    /// The other end.
    pub destination: String,
    /// `outbound`, or `unclear`: older than the wall, on a port that a process chose and nobody listens on.
    pub direction: String,
    /// `denied` or `would-deny` (audit).
    pub verdict: String,
    /// What becomes of it: `cut`; `kept` until it ends; `refused`, datagram by datagram; `reported` (audit).
    pub fate: String,
    /// The verdict's reason.
    pub reason: String,
    /// The rule that decides, or `default`.
    pub rule: String,
    /// Why, for people.
    pub why: String,
    /// It is older than the wall.
    pub older: bool,
    /// Process id.
    pub pid: Option<u32>,
    /// Path of the executable.
    pub exe: Option<String>,
    /// Arguments, joined by spaces.
    pub command_line: Option<String>,
    /// User id.
    pub uid: Option<u32>,
    /// The user's name.
    pub user: Option<String>,
    /// Path of the cgroup.
    pub cgroup: Option<String>,
    /// Unit.
    pub unit: Option<String>,
    /// Container id.
    pub container: Option<String>,
}

/// Connections that were there before the wall, and that the policy refused when it was raised.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OlderStatus {
    /// How many.
    pub refused: usize,
    /// How many of them were ended (`existing = "cut"`).
    pub cut: usize,
    /// Why some that should have been were not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_cut: Option<String>,
    /// What was not looked at.
    pub left_out: LeftOut,
}

/// `POST /v1/policy/explain`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// Who asks: `unit:…`, `cgroup:…`, `container:…`, `user:…`, `exe:…`, `pid:…`.
    pub from: Vec<String>,
    /// Where to: an address, or a name.
    pub to: String,
    /// Protocol and port: `tcp/443`, `udp/53`, `icmp/echo`.
    pub port: String,
}

/// The answer to an explain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// `allow`, `deny` or `would-deny` (audit).
    pub verdict: String,
    /// The verdict's reason.
    pub reason: String,
    /// The rule that decided, or `default`.
    pub rule: String,
    /// Its line in the policy.
    pub line: Option<usize>,
    /// `enforce` or `audit`, for this workload.
    pub mode: String,
    /// `keep` or `cut`, for this workload's live connections.
    pub existing: String,
    /// The scope that says so, if one does.
    pub scope: Option<String>,
    /// Why, for people.
    pub why: String,
    /// The `from` entries the workload matches, as the policy writes them.
    pub matches: Vec<String>,
    /// Rules that name this destination and port, but other workloads, and come before the one that decided.
    pub passed_over: Vec<String>,
    /// Which policy was asked.
    pub policy: String,
    /// Digest of that policy.
    pub digest: String,
    /// Whom the question was taken to mean.
    pub identity: IdentityShown,
}

/// Whom a question was taken to mean.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityShown {
    /// Path of the cgroup in the version 2 hierarchy.
    pub cgroup: String,
    /// Unit, when it was named.
    pub unit: Option<String>,
    /// Container id.
    pub container: Option<String>,
    /// User id.
    pub uid: Option<u32>,
    /// Executable: path, or what the kernel knows of it.
    pub exe: Option<String>,
}

/// The body of every answer that is not a success.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What happened and why.
    pub error: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Where the policy came from whose mistakes follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The mistakes in a policy, each with its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// The path of each question.
pub mod path {
    /// [`super::Status`]
    pub const STATUS: &str = "/v1/status";
    /// [`super::PolicyShown`]
    pub const POLICY: &str = "/v1/policy";
    /// [`super::ApplyRequest`], [`super::Applied`]
    pub const APPLY: &str = "/v1/policy/apply";
    /// [`super::RehearseRequest`], [`super::Rehearsed`]
    pub const DRY_RUN: &str = "/v1/policy/dry-run";
    /// [`super::Applied`]
    pub const CONFIRM: &str = "/v1/policy/confirm";
    /// [`super::Applied`]
    pub const ROLLBACK: &str = "/v1/policy/rollback";
    /// [`super::ExplainRequest`], [`super::Explained`]
    pub const EXPLAIN: &str = "/v1/policy/explain";
    /// [`super::Blocklists`]
    pub const BLOCKLISTS: &str = "/v1/blocklists";
    /// [`super::NameRequest`], [`super::NameChecked`]
    pub const BLOCKLISTS_CHECK: &str = "/v1/blocklists/check";
    /// [`super::UpdateRequest`], [`super::Updated`]
    pub const BLOCKLISTS_UPDATE: &str = "/v1/blocklists/update";
    /// [`super::AlertTestRequest`], [`super::AlertTested`]
    pub const ALERT_TEST: &str = "/v1/alert/test";
    /// [`super::Picture`]
    pub const PICTURE: &str = "/v1/picture";
    /// Alerts, one JSON object a line.
    pub const EVENTS: &str = "/v1/events";
}
