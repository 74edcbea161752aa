//! What `dnswall top` shows: one picture of the agent, bounded in everything that traffic can choose.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::PolicyStatus;
use crate::alert::{Alert, AlertWorkload, moment};

/// `GET /v1/picture`: who talks to whom, and what is refused, at one moment. Counts only grow while the agent runs, so that two
/// pictures give a rate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Picture {
    /// When it was taken.
    #[serde(with = "moment")]
    pub time: Timestamp,
    /// The same on the host's monotonic clock, in milliseconds: what rates are reckoned with.
    pub monotonic_ms: u64,
    /// The host's name.
    pub host: String,
    /// Version of the agent.
    pub version: String,
    /// The agent's process; another one counts from the start.
    pub pid: u32,
    /// For how long it runs.
    pub uptime_secs: u64,
    /// `enforce` or `audit`, where no scope says otherwise; `none` when the kernel has no policy.
    pub mode: String,
    /// The policy that decides.
    pub policy: PolicyStatus,
    /// Whether the kernel does what the policy says, as far as it was looked at.
    pub stands: bool,
    /// What was counted in all.
    pub totals: Totals,
    /// Whether alerts arrive.
    pub delivery: Delivery,
    /// What somebody should look at.
    pub warnings: Vec<String>,
    /// Workloads that have connections or were refused something.
    pub workloads: Vec<WorkloadSeen>,
    /// Connections that began here and run now.
    pub connections: Vec<ConnectionSeen>,
    /// What was refused: an alert for each flow. `id` names the flow from picture to picture, and `count` has all of its refusals
    /// since `first`, those between two alerts included.
    pub refused: Vec<Alert>,
    /// Names that were asked for, as far as the policy tells of questions, or refused.
    pub names: Vec<NameSeen>,
    /// What the lists above have no room for, or could not be seen.
    pub left_out: PictureLeftOut,
}

/// What was counted in all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Flows allowed (a connection counts once), under the running generation.
    pub allowed: u64,
    /// Packets and attempts refused, since the wall was raised.
    pub denied: u64,
    /// Packets and attempts that would have been refused.
    pub would_deny: u64,
    /// Events that found their ring full: their refusals are counted all the same.
    pub events_lost: u64,
    /// Questions and answers that found their ring full.
    pub questions_lost: u64,
    /// Alerts.
    pub alerts: u64,
}

/// Whether alerts arrive.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// How many sinks there are.
    pub sinks: usize,
    /// Those whose last attempt failed.
    pub failing: Vec<String>,
    /// Age of the oldest alert that some sink has not taken.
    pub oldest_waiting_secs: Option<f64>,
    /// Alerts that no sink will have: refused by the spool, evicted from it, or lost with memory.
    pub lost: u64,
    /// What is wrong with the spool.
    pub trouble: Option<String>,
}

/// One workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadSeen {
    /// Which.
    pub workload: AlertWorkload,
    /// Connections that began there and run now.
    pub connections: u64,
    /// Refusals of the flows that the agent remembers.
    pub refused: u64,
    /// How many flows that are.
    pub flows: u64,
    /// When it was last refused something.
    #[serde(with = "moment::option")]
    pub last: Option<Timestamp>,
    /// What that was, for people: protocol, destination, name.
    pub last_refused: Option<String>,
}

/// Connections of one program in one workload to one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionSeen {
    /// Which workload.
    pub workload: AlertWorkload,
    /// Path of the executable, or the name of the thread.
    pub program: Option<String>,
    /// The process, when it is only one.
    pub pid: Option<u32>,
    /// How many processes.
    pub processes: u64,
    /// The user's name, or number.
    pub user: Option<String>,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The other end: address and port.
    pub destination: String,
    /// How many.
    pub connections: u64,
    /// Of those, not answered yet.
    pub opening: u64,
    /// Of those, older than the wall.
    pub older: u64,
}

/// One name in one workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameSeen {
    /// Which workload.
    pub workload: AlertWorkload,
    /// The name, escaped, without the last dot.
    pub name: String,
    /// Questions that were asked, since somebody watches (the last thousand before that included).
    pub asked: u64,
    /// Refusals. Of a flow that was for several names, all stand with the last.
    pub refused: u64,
    /// When it was last asked for.
    #[serde(with = "moment")]
    pub last: Timestamp,
    /// The rule that refused it last, or the reason.
    pub rule: Option<String>,
    /// The code of the last answer.
    pub answer: Option<String>,
}

/// What a picture has no room for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PictureLeftOut {
    /// Workloads.
    pub workloads: usize,
    /// Rows of connections.
    pub connections: usize,
    /// Flows.
    pub refused: usize,
    /// Names.
    pub names: usize,
    /// Refusals that nobody knows whose they are, or that there was no room for.
    pub refusals: u64,
    /// Questions that came faster than they were counted.
    pub questions: u64,
    /// Network namespaces whose connections were not looked at.
    pub namespaces: usize,
    /// Sockets that were not looked at.
    pub sockets: usize,
    /// Why there are no connections, or no refusals.
    pub errors: Vec<String>,
}
