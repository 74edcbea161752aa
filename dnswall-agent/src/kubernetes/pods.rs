//! The pods of this node that are known, and who wants to know of more.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::event::text::printable;

/// Labels of a pod.
pub type Labels = BTreeMap<String, String>;
/// Labels by the pods' uids.
pub(super) type ByUid = HashMap<Box<str>, Arc<Labels>>;

/// Bytes of why there was no list.
const ERROR_BYTES_MAX: usize = 1_000;
/// How often a server is asked because of pods that are not known.
pub(super) const ASKED_AGAIN: Duration = Duration::from_secs(10);

/// What is known of pods; shared by the thread that asks and all that want to know.
#[derive(Debug)]
pub struct Pods {
    node: Option<Arc<str>>,
    state: Mutex<State>,
    woken: Condvar,
}

#[derive(Debug, Default)]
struct State {
    by_uid: ByUid,
    /// The list before: what happened in a pod may be told after the pod is gone.
    before: ByUid,
    is_wanted: bool,
    is_over: bool,
    status: KubernetesStatus,
}

/// What `dnswall status` says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesStatus {
    /// Who is asked, without what may be secret in it.
    pub server: String,
    /// The node whose pods are asked for.
    pub node: Option<String>,
    /// Pods in the last list.
    pub pods: u64,
    /// When a list came last, RFC 3339.
    pub last: Option<String>,
    /// Lists that came.
    pub lists: u64,
    /// Requests that failed.
    pub failures: u64,
    /// Why the last one did, unless a list came since.
    pub error: Option<String>,
}

impl Pods {
    /// None are known yet.
    pub fn new(server: String, node: Option<String>) -> Self {
        let status = KubernetesStatus { server, node: node.clone(), ..KubernetesStatus::default() };
        let state = State { status, ..State::default() };
        Self { node: node.map(Arc::from), state: Mutex::new(state), woken: Condvar::new() }
    }

    /// What this node is called.
    pub fn node(&self) -> Option<&Arc<str>> {
        self.node.as_ref()
    }

    /// A pod's labels, if they are known; if not, they are asked for. Never waits for a server.
    pub fn labels(&self, uid: &str) -> Option<Arc<Labels>> {
        let mut state = self.state();
        let known = state.by_uid.get(uid).or_else(|| state.before.get(uid)).cloned();
        if known.is_none() && !state.is_wanted {
            state.is_wanted = true;
            self.woken.notify_all();
        }
        known
    }

    /// What there is to say.
    pub fn status(&self) -> KubernetesStatus {
        self.state().status.clone()
    }

    /// Ends the thread that asks, when it does not wait for a server.
    pub fn stop(&self) {
        self.state().is_over = true;
        self.woken.notify_all();
    }

    /// Waits until the list is to be asked for again: after `refresh`, or earlier because of a pod that is not known. `false`
    /// when it is over.
    pub(super) fn wait(&self, refresh: Duration) -> bool {
        let asked = Instant::now();
        let mut state = self.state();
        loop {
            let due = if state.is_wanted { refresh.min(ASKED_AGAIN) } else { refresh };
            let left = due.saturating_sub(asked.elapsed());
            if state.is_over || left.is_zero() {
                return !state.is_over;
            }
            state = self.woken.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What is asked for from now on was not in the list that is being asked for.
    pub(super) fn begin(&self) {
        self.state().is_wanted = false;
    }

    pub(super) fn put(&self, result: Result<ByUid, String>) {
        let mut state = self.state();
        match result {
            Ok(by_uid) => {
                state.status.pods = by_uid.len() as u64;
                state.before = std::mem::replace(&mut state.by_uid, by_uid);
                state.status.last = Some(format!("{:.0}", Timestamp::now()));
                state.status.lists += 1;
                state.status.error = None;
            }
            Err(error) => {
                // A server may have put anything into it.
                let error = printable(error.as_bytes(), ERROR_BYTES_MAX);
                if state.status.error.as_ref() != Some(&error) {
                    tracing::warn!("pods are named without their labels: {}: {error}", state.status.server);
                }
                state.status.failures += 1;
                state.status.error = Some(error);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change in it is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
