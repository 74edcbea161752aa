//! Takes the grouper as it is, gives what is refused now, for whoever looks at the agent: nothing is told or forgotten by it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use uuid::Uuid;

use super::{Flow, FlowKey, Grouper};
use crate::alert::{Alert, Tally};

/// What is refused now.
#[derive(Debug, Default)]
pub struct Standing {
    /// Flows that are kept apart. An alert's `count` has all refusals of its flow since `first`, and its `id` is the same in every
    /// look.
    pub flows: Vec<Alert>,
    /// Flows beyond these.
    pub flows_left_out: usize,
    /// What all flows of a workload sum up to, those that are left out included.
    pub workloads: Vec<WorkloadStanding>,
    /// Workloads beyond these, those that were refused least.
    pub workloads_left_out: usize,
    /// Refusals of no flow: nobody knows whose they are, or there was no room.
    pub unplaced: u64,
}

/// What all flows of one workload sum up to.
#[derive(Debug)]
pub struct WorkloadStanding {
    /// Refusals.
    pub refused: u64,
    /// Flows.
    pub flows: u64,
    /// The last of them, which says whose they are.
    pub last: Alert,
}

impl Grouper {
    /// What is refused now: of the flows half that were refused most, and half that were refused last.
    pub fn standing(&self, flows_max: usize, workloads_max: usize) -> Standing {
        let mut flows: Vec<(&Arc<FlowKey>, &Flow)> = self.flows.iter().collect();
        let (workloads, workloads_left_out) = self.by_workload(&flows, workloads_max);
        let left_out = flows.len().saturating_sub(flows_max);
        if left_out > 0 {
            flows.sort_by_key(|(_, flow)| Reverse(flow.total));
            flows[flows_max / 2..].sort_by_key(|(_, flow)| Reverse(flow.last));
            flows.truncate(flows_max);
        }
        Standing {
            flows: flows.iter().map(|(key, flow)| self.shown(key, flow)).collect(),
            flows_left_out: left_out,
            workloads,
            workloads_left_out,
            unplaced: self.counters.orphaned.saturating_add(self.counters.overflowed),
        }
    }

    fn by_workload(&self, flows: &[(&Arc<FlowKey>, &Flow)], max: usize) -> (Vec<WorkloadStanding>, usize) {
        struct Sum<'f> {
            refused: u64,
            flows: u64,
            last: (&'f FlowKey, &'f Flow),
        }
        let mut sums: HashMap<u64, Sum<'_>> = HashMap::new();
        for (key, flow) in flows {
            let sum = sums.entry(key.owner.cgroup).or_insert(Sum { refused: 0, flows: 0, last: (key, flow) });
            sum.refused = sum.refused.saturating_add(flow.total);
            sum.flows += 1;
            if flow.last > sum.last.1.last {
                sum.last = (key, flow);
            }
        }
        let mut sums: Vec<Sum<'_>> = sums.into_values().collect();
        sums.sort_by_key(|sum| Reverse(sum.refused));
        let left_out = sums.len().saturating_sub(max);
        sums.truncate(max);
        let standing = |Sum { refused, flows, last: (key, flow) }| WorkloadStanding {
            refused,
            flows,
            last: self.shown(key, flow),
        };
        (sums.into_iter().map(standing).collect(), left_out)
    }

    fn shown(&self, key: &FlowKey, flow: &Flow) -> Alert {
        let Flow { event, policy, first, last, total, .. } = flow;
        let tally = Tally { id: key.id(), count: *total, first: *first, last: *last };
        let mut alert = Alert::new(event, policy.as_deref(), &self.host, tally);
        // The parts that have no small bound.
        (alert.process.command_line, alert.process.parents) = (None, Vec::new());
        if let Some(parent) = &mut alert.process.parent {
            parent.command_line = None;
        }
        if let Some(pod) = &mut alert.workload.pod {
            pod.labels = None;
        }
        alert
    }
}

impl FlowKey {
    /// The same for the same flow, as long as the agent runs.
    fn id(&self) -> Uuid {
        let half = |salt: u8| {
            let mut hasher = DefaultHasher::new();
            (salt, self).hash(&mut hasher);
            hasher.finish()
        };
        Uuid::from_u64_pair(half(0), half(1))
    }
}
