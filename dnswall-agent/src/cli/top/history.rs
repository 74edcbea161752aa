//! Takes pictures as they come, gives each with the rates since the one before.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use jiff::Timestamp;
use uuid::Uuid;

use crate::control::api::Picture;

/// Rates that are kept to be drawn.
const KEPT: usize = 240;

/// The pictures so far.
#[derive(Debug, Default)]
pub struct History {
    last: Option<Counts>,
    refused: VecDeque<u64>,
    seen: Seen,
}

/// A picture, and what happened since the one before. A rate that cannot be known is none.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The picture.
    pub picture: Picture,
    /// New flows allowed, a second.
    pub allowed: Option<f64>,
    /// Packets and attempts refused, a second.
    pub denied: Option<f64>,
    /// Those that would have been.
    pub would_deny: Option<f64>,
    /// Refusals a second, by flow.
    pub flows: HashMap<Uuid, f64>,
    /// By workload's cgroup.
    pub workloads: HashMap<Option<String>, f64>,
    /// Questions and refusals a second, by workload's cgroup and name.
    pub names: HashMap<NameKey, (f64, f64)>,
    /// All that were or would have been refused, a second, of each picture so far; the latest is the last.
    pub refused: Vec<u64>,
}

/// Workload's cgroup and name.
pub type NameKey = (Option<String>, String);

/// What a picture counted.
#[derive(Debug)]
struct Counts {
    pid: u32,
    generation: u32,
    time: Timestamp,
    monotonic_ms: u64,
    totals: (u64, u64, u64),
    flows: HashMap<Uuid, u64>,
    workloads: HashMap<Option<String>, u64>,
    names: HashMap<NameKey, (u64, u64)>,
}

impl History {
    /// Takes the next picture.
    pub fn see(&mut self, picture: Picture) -> Seen {
        let counts = Counts::of(&picture);
        // A busy agent gives the same picture again, of which there is nothing new to say.
        let is_same = |last: &Counts| (last.pid, last.monotonic_ms) == (counts.pid, counts.monotonic_ms);
        if self.last.as_ref().is_some_and(is_same) {
            return self.seen.clone();
        }
        // Another agent counts its flows anew.
        let before = self.last.take().filter(|before| before.pid == counts.pid);
        let elapsed = before.as_ref().map(|before| counts.monotonic_ms.saturating_sub(before.monotonic_ms));
        let mut seen = Seen { picture, ..Seen::default() };
        if let (Some(before), Some(elapsed @ 1..)) = (&before, elapsed) {
            seen.fill(&counts, before, elapsed as f64 / 1e3);
            let all = seen.denied.unwrap_or(0.0) + seen.would_deny.unwrap_or(0.0);
            self.refused.push_back(all.round() as u64);
            if self.refused.len() > KEPT {
                self.refused.pop_front();
            }
        }
        seen.refused = self.refused.iter().copied().collect();
        self.last = Some(counts);
        self.seen = seen.clone();
        seen
    }
}

impl Seen {
    fn fill(&mut self, now: &Counts, before: &Counts, secs: f64) {
        let rate = |now: u64, before: u64| now.checked_sub(before).map(|more| more as f64 / secs);
        // What each rule allowed is counted anew for each generation.
        self.allowed = rate(now.totals.0, before.totals.0).filter(|_| now.generation == before.generation);
        self.denied = rate(now.totals.1, before.totals.1);
        self.would_deny = rate(now.totals.2, before.totals.2);
        // What is new since then began with nothing; what was only left out before is not known.
        let first: HashMap<Uuid, Timestamp> =
            self.picture.refused.iter().map(|alert| (alert.id, alert.first)).collect();
        self.flows = rates(&now.flows, &before.flows, rate, |id| first[id] > before.time);
        let was_whole = |left_out: usize| left_out == 0;
        let workloads_whole = was_whole(self.picture.left_out.workloads);
        self.workloads = rates(&now.workloads, &before.workloads, rate, |_| workloads_whole);
        for (key, (asked, refused)) in &now.names {
            let (asked_before, refused_before) = before.names.get(key).copied().unwrap_or((*asked, *refused));
            let rates = (rate(*asked, asked_before), rate(*refused, refused_before));
            self.names.insert(key.clone(), (rates.0.unwrap_or(0.0), rates.1.unwrap_or(0.0)));
        }
    }
}

fn rates<K: Clone + Eq + Hash>(
    now: &HashMap<K, u64>,
    before: &HashMap<K, u64>,
    rate: impl Fn(u64, u64) -> Option<f64>,
    is_new: impl Fn(&K) -> bool,
) -> HashMap<K, f64> {
    now.iter()
        .filter_map(|(key, count)| {
            let rate = match before.get(key) {
                // A flow that was forgotten and came again.
                Some(before) => rate(*count, *before).or_else(|| rate(*count, 0)),
                None => is_new(key).then(|| rate(*count, 0)).flatten(),
            };
            Some((key.clone(), rate?))
        })
        .collect()
}

impl Counts {
    fn of(picture: &Picture) -> Self {
        let totals = &picture.totals;
        let key = |workload: &crate::alert::AlertWorkload| workload.cgroup.clone();
        Self {
            pid: picture.pid,
            generation: picture.policy.generation,
            time: picture.time,
            monotonic_ms: picture.monotonic_ms,
            totals: (totals.allowed, totals.denied, totals.would_deny),
            flows: picture.refused.iter().map(|alert| (alert.id, alert.count)).collect(),
            workloads: picture.workloads.iter().map(|it| (key(&it.workload), it.refused)).collect(),
            names: picture
                .names
                .iter()
                .map(|it| ((key(&it.workload), it.name.clone()), (it.asked, it.refused)))
                .collect(),
        }
    }
}
