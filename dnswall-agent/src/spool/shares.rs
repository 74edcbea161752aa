//! Takes what is put on disk, by whose alert it is and how bad, and gives which alert makes room for others. Pure; the store
//! keeps one of these beside its tables.
//!
//! What every sink has goes first, the oldest before the others. Of the rest the workload gives room that takes the most, so
//! that a flood buries only its own; of its alerts the least severe, and of those the oldest. What the agent says of itself
//! has a part of the whole that no workload gets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;

use crate::alert::{Alert, Severity};

/// The agent's own alerts keep this part of the whole, whatever workloads do.
const OWN_DIVISOR: u64 = 8;
/// How many severities there are.
const RANKS: usize = Severity::ALL.len();

/// Whose alert it is, and how bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Of a workload, [`Place::OWN`] of the agent itself, and [`Place::UNKNOWN`] where nobody knows.
    pub owner: u64,
    /// The severity as a number; no more than the worst.
    pub rank: u8,
}

impl Place {
    /// The agent itself.
    pub const OWN: u64 = 0;
    /// Nobody knows whose.
    pub const UNKNOWN: u64 = 1;
    /// Of an alert from a time when none of this was written down.
    pub const OLD: Self = Self { owner: Self::UNKNOWN, rank: Severity::Medium as u8 };

    /// The place of an alert.
    pub fn of(alert: &Alert) -> Self {
        Self { owner: owner(alert), rank: alert.severity as u8 }
    }
}

/// A number for the workload of an alert: the container, or the unit, which is the outermost directory, so that whoever
/// may make cgroups below its own gets no more by that. It is written to disk, and only whose share is whose hangs on it.
pub fn owner(alert: &Alert) -> u64 {
    if alert.kind.is_own() {
        return Place::OWN;
    }
    let workload = &alert.workload;
    let named = [&workload.container, &workload.unit, &workload.slice, &workload.cgroup];
    let Some((at, name)) = named.iter().enumerate().find_map(|(at, name)| Some((at, name.as_ref()?))) else {
        return Place::UNKNOWN;
    };
    // SipHash: nobody finds a name that falls together with another workload's.
    let mut hasher = DefaultHasher::new();
    (at, name).hash(&mut hasher);
    hasher.finish().max(Place::UNKNOWN + 1)
}

/// What is on disk.
#[derive(Clone, Debug, Default)]
pub struct Shares {
    rows: BTreeMap<u64, Row>,
    shares: HashMap<u64, Share>,
    /// By what they take, the most last.
    by_cost: BTreeSet<(u64, u64)>,
    cost: u64,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    place: Place,
    cost: u32,
}

#[derive(Clone, Debug, Default)]
struct Share {
    cost: u64,
    ranks: [BTreeSet<u64>; RANKS],
}

impl Shares {
    /// How many alerts there are.
    pub fn alerts(&self) -> u64 {
        self.rows.len() as u64
    }

    /// The room they take, in bytes.
    pub const fn cost(&self) -> u64 {
        self.cost
    }

    /// The number of the oldest.
    pub fn first(&self) -> Option<u64> {
        self.rows.first_key_value().map(|(number, _)| *number)
    }

    /// Whether this one is there.
    pub fn has(&self, number: u64) -> bool {
        self.rows.contains_key(&number)
    }

    /// How many numbers of a range are not there.
    pub fn missing(&self, range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        range.end - range.start - self.rows.range(range).count() as u64
    }

    /// Puts one in; one that is there already stays as it is.
    pub fn insert(&mut self, number: u64, place: Place, cost: u64) {
        let place = Place { rank: place.rank.min(RANKS as u8 - 1), ..place };
        let row = Row { place, cost: u32::try_from(cost).unwrap_or(u32::MAX) };
        if self.rows.contains_key(&number) {
            return;
        }
        self.rows.insert(number, row);
        self.change(place.owner, |share| {
            share.ranks[usize::from(place.rank)].insert(number);
            share.cost += u64::from(row.cost);
        });
        self.cost += u64::from(row.cost);
    }

    /// Takes one out.
    pub fn remove(&mut self, number: u64) {
        let Some(Row { place, cost }) = self.rows.remove(&number) else { return };
        self.change(place.owner, |share| {
            share.ranks[usize::from(place.rank)].remove(&number);
            share.cost -= u64::from(cost);
        });
        self.cost -= u64::from(cost);
    }

    fn change(&mut self, owner: u64, change: impl FnOnce(&mut Share)) {
        let share = self.shares.entry(owner).or_default();
        self.by_cost.remove(&(share.cost, owner));
        change(share);
        if share.cost > 0 {
            self.by_cost.insert((share.cost, owner));
        } else {
            self.shares.remove(&owner);
        }
    }

    /// Which alert makes room, when all sinks have what is before `had`, and the whole is so large.
    pub fn next_to_go(&self, had: u64, cost_max: u64) -> Option<u64> {
        let oldest = self.first()?;
        if oldest < had {
            return Some(oldest);
        }
        let own_cost = self.shares.get(&Place::OWN).map_or(0, |own| own.cost);
        let may_keep = |owner: u64| owner == Place::OWN && own_cost <= cost_max / OWN_DIVISOR;
        let heaviest = self.by_cost.iter().rev().find(|(_, owner)| !may_keep(*owner));
        let (_, owner) = heaviest.or(self.by_cost.last())?;
        self.shares.get(owner)?.ranks.iter().find_map(BTreeSet::first).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{Kind, sample};
    use proptest::prelude::*;

    const WHOLE: u64 = 1_000;

    fn place(owner: u64, severity: Severity) -> Place {
        Place { owner, rank: severity as u8 }
    }

    /// Which go until no more than this is left.
    fn gone(shares: &mut Shares, had: u64, left: u64) -> Vec<u64> {
        let mut gone = Vec::new();
        while shares.cost() > left {
            let number = shares.next_to_go(had, WHOLE).unwrap();
            shares.remove(number);
            gone.push(number);
        }
        gone
    }

    #[test]
    fn a_flood_buries_its_own_alone() {
        let mut shares = Shares::default();
        shares.insert(0, place(7, Severity::Low), 10);
        shares.insert(1, place(8, Severity::High), 10);
        for number in 2..50 {
            shares.insert(number, place(9, Severity::Critical), 10);
        }
        assert!(gone(&mut shares, 0, 30).into_iter().eq(2..49));
        assert_eq!(gone(&mut shares, 0, 20).len(), 1, "all take the same: any");
    }

    #[test]
    fn the_least_severe_of_a_workload_goes_first_and_what_all_have_before_that() {
        let mut shares = Shares::default();
        for (number, severity) in
            [Severity::High, Severity::Low, Severity::Info, Severity::Low].iter().enumerate()
        {
            shares.insert(number as u64, place(9, *severity), 10);
        }
        assert_eq!(gone(&mut shares.clone(), 0, 0), [2, 1, 3, 0]);
        assert_eq!(gone(&mut shares, 1, 0), [0, 2, 1, 3], "the sinks have the first");
    }

    #[test]
    fn the_agents_own_alerts_keep_their_part_and_no_more() {
        let mut shares = Shares::default();
        for number in 0..20 {
            shares.insert(number, place(Place::OWN, Severity::Info), 10);
        }
        shares.insert(20, place(9, Severity::High), 30);
        shares.insert(21, place(8, Severity::High), 20);
        // An eighth of the whole is 125.
        assert!(gone(&mut shares, 0, 170).into_iter().eq(0..8), "its own are the most");
        assert_eq!(gone(&mut shares, 0, 120), [20, 21], "then everybody else's");
        assert_eq!(gone(&mut shares, 0, 100), [8, 9], "there is nothing else");
    }

    #[test]
    fn whoever_may_make_cgroups_has_one_share() {
        let mut alert = sample::alert();
        let own = owner(&alert);
        alert.workload.cgroup = Some("/system.slice/orders.service/below".to_owned());
        assert_eq!(owner(&alert), own);
        alert.workload.unit = Some("other.service".to_owned());
        assert_ne!(owner(&alert), own);
        alert.kind = Kind::Tamper;
        assert_eq!(owner(&alert), Place::OWN);
    }

    proptest! {
        /// What is added up as it changes is what is there.
        #[test]
        fn the_sums_are_right(steps in prop::collection::vec((0u64..40, 0u64..5, 0u8..9, 1u64..99), 1..200)) {
            let mut shares = Shares::default();
            for (number, owner, rank, cost) in steps {
                if rank > 6 { shares.remove(number) } else { shares.insert(number, Place { owner, rank }, cost) }
                let sum: u64 = shares.rows.values().map(|row| u64::from(row.cost)).sum();
                prop_assert_eq!(sum, shares.cost());
                prop_assert_eq!(shares.by_cost.iter().map(|(cost, _)| cost).sum::<u64>(), sum);
                let ranked = shares.shares.values().flat_map(|share| &share.ranks).map(BTreeSet::len).sum::<usize>();
                prop_assert_eq!(ranked as u64, shares.alerts());
                prop_assert_eq!(shares.missing(0..40), 40 - shares.alerts());
                prop_assert_eq!(shares.next_to_go(0, WHOLE).is_some(), shares.alerts() > 0);
            }
        }
    }
}
