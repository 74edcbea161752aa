//! Takes rules and classes, gives what class, protocol and port lead to: cells of terms, and the port tree's starts.

use super::classes::Classes;
use super::rules::FlatRule;
use crate::policy::Problem;
use dnswall_common::image::{Cell, Term};
use dnswall_common::limits::{CELLS_MAX, NODES_PORT_MAX, TERMS_MAX, TERMS_PER_CELL_MAX};
use dnswall_common::reason::Action;
use dnswall_common::search::FANOUT8;
use dnswall_common::who::Who;
use std::collections::{BTreeSet, HashMap};

/// Starts that fit the port tree.
const STARTS_MAX: usize = NODES_PORT_MAX * FANOUT8;

/// The cells of a policy. Cell 0 is "no rule".
#[derive(Debug)]
pub(super) struct Cells {
    pub(super) cells: Vec<Cell>,
    pub(super) terms: Vec<Term>,
    /// Port keys where another cell begins, ascending.
    pub(super) starts: Vec<(u128, u32)>,
    /// Rules that have a term somewhere.
    pub(super) used: BTreeSet<u32>,
    by_rules: HashMap<(Vec<u32>, bool), u32>,
}

/// Builds the cells of every class.
///
/// # Errors
/// When a limit is exceeded: which, by what, and a rule involved.
pub(super) fn build(rules: &[FlatRule], classes: &Classes) -> Result<Cells, Problem> {
    let nobody = Cell { first: 0, count: 0, allows: 0 };
    let mut cells = Cells {
        cells: vec![nobody],
        terms: Vec::new(),
        starts: Vec::new(),
        used: BTreeSet::new(),
        by_rules: HashMap::from([((Vec::new(), false), 0)]),
    };
    for (class, members) in classes.members().iter().enumerate().skip(1) {
        cells.add_class(class, members, rules)?;
    }
    Ok(cells)
}

impl Cells {
    fn add_class(&mut self, class: usize, members: &[u32], rules: &[FlatRule]) -> Result<(), Problem> {
        let base = (class as u128) << 24;
        let mut edges: Vec<(u128, u32)> = Vec::new();
        for member in members {
            for &(first, last) in rules[*member as usize].ports.as_slice() {
                edges.push((first, *member));
                edges.push((last + 1, *member));
            }
        }
        edges.sort_unstable();
        let mut active = BTreeSet::new();
        for group in edges.chunk_by(|left, right| left.0 == right.0) {
            for &(_, rule) in group {
                if !active.remove(&rule) {
                    active.insert(rule);
                }
            }
            let deciding = deciding(&active, rules);
            if deciding.len() > TERMS_PER_CELL_MAX {
                return Err(too_many_terms(&deciding, rules));
            }
            // A rule that can never decide still names the destination.
            let allows = active.iter().any(|rule| rules[*rule as usize].action == Action::Allow);
            let cell = self.cell(deciding, allows, rules)?;
            if self.starts.last().map_or(0, |(_, cell)| *cell) != cell {
                self.starts.push((base | group[0].0, cell));
            }
        }
        // The greatest key a rule can have is below the next class, so `last + 1` ended every interval.
        debug_assert!(active.is_empty());
        if self.starts.len() > STARTS_MAX {
            let message = format!("the rules need more than {STARTS_MAX} boundaries between ports");
            let rule = members.last().map_or(0..0, |rule| rules[*rule as usize].span.clone());
            return Err(Problem::error(rule, message)
                .why("each set of rules that share destinations needs its own list of ports")
                .hint("give rules with the same destinations the same ports, or merge rules that differ only in `to`"));
        }
        Ok(())
    }

    fn cell(&mut self, deciding: Vec<u32>, allows: bool, rules: &[FlatRule]) -> Result<u32, Problem> {
        let key = (deciding, allows);
        if let Some(cell) = self.by_rules.get(&key) {
            return Ok(*cell);
        }
        let deciding = &key.0;
        let span = deciding.last().map_or(0..0, |rule| rules[*rule as usize].span.clone());
        let cell = self.cells.len();
        let first = self.terms.len();
        for number in deciding {
            let rule = &rules[*number as usize];
            self.terms.push(Term {
                who: rule.who,
                rule: *number,
                action: rule.action as u8,
                padding: [0; 3],
            });
        }
        if cell >= CELLS_MAX || self.terms.len() > TERMS_MAX {
            let message =
                format!("the rules combine into more than {} lists of {TERMS_MAX} terms", CELLS_MAX);
            return Err(Problem::error(span, message)
                .why("each combination of rules for one destination and port is kept by itself")
                .hint("merge rules that differ only in `to`, or make rules overlap less"));
        }
        self.cells.push(Cell { first: first as u32, count: deciding.len() as u16, allows: allows.into() });
        self.used.extend(deciding);
        self.by_rules.insert(key, cell as u32);
        Ok(cell as u32)
    }
}

/// The rules that can decide, in the order of precedence: none whose every selector an earlier rule has.
fn deciding(active: &BTreeSet<u32>, rules: &[FlatRule]) -> Vec<u32> {
    let mut bound = Who::NONE;
    let mut deciding = Vec::new();
    for number in active {
        let who = &rules[*number as usize].who;
        if bound.or(who) != bound {
            deciding.push(*number);
            bound = bound.or(who);
        }
        if who.intersects(&Who::EVERYONE) {
            break;
        }
    }
    deciding
}

fn too_many_terms(deciding: &[u32], rules: &[FlatRule]) -> Problem {
    let over = &rules[deciding[TERMS_PER_CELL_MAX] as usize];
    let first = &rules[deciding[0] as usize];
    Problem::error(
        over.span.clone(),
        format!("{} rules answer for the same destination and port", deciding.len()),
    )
    .why(format!(
        "the kernel asks at most {TERMS_PER_CELL_MAX}; the first is {} (line {}), this is {}",
        first.info.name, first.info.line, over.info.name
    ))
    .hint("merge rules that differ only in `from` into one with a longer list")
}
