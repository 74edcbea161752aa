//! What alerts sinks did not get, and how many of those no alert told of yet.

use super::{Inner, Spool};
use crate::alert::Alert;

/// Alerts that are lost. Counts of this agent's are since it started; what sinks did not get is also of those before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Alerts that came when too many waited for the disk: no sink has them.
    pub refused: u64,
    /// Refusals that those stood for.
    pub refused_refusals: u64,
    /// Alerts that were only in memory, and found no room there.
    pub unsaved_lost: u64,
    /// For each sink with some, how many it did not get that no alert told of.
    pub untold: Vec<(String, u64)>,
}

impl Spool {
    /// What is lost at this moment.
    pub fn losses(&self) -> Losses {
        self.with_both(|store, inner| {
            let untold = inner.lanes.iter().map(|lane| (lane.name.clone(), lane.untold(inner, store)));
            Losses {
                refused: inner.counters.refused,
                refused_refusals: inner.counters.refused_refusals,
                unsaved_lost: inner.counters.unsaved_lost,
                untold: untold.filter(|(_, alerts)| *alerts > 0).collect(),
            }
        })
    }
}

impl Inner {
    /// What this alert says is lost is told. It is saved with it.
    pub(super) fn told_of(&mut self, alert: &Alert) {
        for sink in alert.lost.iter().flat_map(|lost| &lost.sinks) {
            if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.name == sink.name) {
                lane.told_of(sink.alerts);
            }
        }
    }
}
