//! Takes rules and classes, gives what class, protocol and port lead to: cells of terms, and the port tree's starts.

use super::classes::Classes;
use super::rules::FlatRule;
use crate::policy::Problem;
use dnswall_common::image::{CELL_ALLOWS, CELL_NAMED, Cell, Term};
use dnswall_common::limits::{CELLS_MAX, NODES_PORT_MAX, TERMS_MAX, TERMS_PER_CELL_MAX};
use dnswall_common::reason::Action;
use dnswall_common::search::FANOUT8;
use dnswall_common::who::Who;
use std::collections::{BTreeSet, HashMap};

/// Starts that fit the port tree.
const STARTS_MAX: usize = NODES_PORT_MAX * FANOUT8;
/// So many times what fits is counted; what needs more is said to need more.
const COUNTED_TIMES_MAX: usize = 4;

/// The cells of a policy. Cell 0 is "no rule".
#[derive(Debug)]
pub(super) struct Cells {
    pub(super) cells: Vec<Cell>,
    pub(super) terms: Vec<Term>,
    /// Port keys where another cell begins, ascending.
    pub(super) starts: Vec<(u128, u32)>,
    /// Rules that have a term somewhere.
    pub(super) used: BTreeSet<u32>,
    /// What rules say of questions for their names; 0 when they say nothing.
    pub(super) questions: u32,
    by_rules: HashMap<(Vec<u32>, bool), u32>,
    /// How many terms there would be: beyond what fits they are counted and not kept.
    terms_wanted: usize,
    /// A rule that is one too many for one destination and port was told.
    crowded: bool,
}

/// Builds the cells of every class. Every limit that is exceeded is a problem, with how much there would be and a rule
/// involved; what is given then holds only what fits.
pub(super) fn build(rules: &[FlatRule], classes: &Classes, problems: &mut Vec<Problem>) -> Cells {
    let nobody = Cell { first: 0, count: 0, flags: 0 };
    let mut cells = Cells {
        cells: vec![nobody],
        terms: Vec::new(),
        starts: Vec::new(),
        used: BTreeSet::new(),
        questions: 0,
        by_rules: HashMap::from([((Vec::new(), false), 0)]),
        terms_wanted: 0,
        crowded: false,
    };
    let mut last = 0..0;
    for (class, members) in classes.members().iter().enumerate().skip(1) {
        if let Some(rule) = members.last().filter(|_| cells.excesses().is_empty()) {
            last = rules[*rule as usize].span.clone();
        }
        cells.add_class(class, members, rules, problems);
        if cells.is_countless() {
            break;
        }
    }
    cells.questions = cells.add_questions(rules, problems);
    problems.extend(
        cells
            .excesses()
            .into_iter()
            .map(|(message, why, hint)| Problem::error(last.clone(), message).why(why).hint(hint)),
    );
    cells
}

impl Cells {
    fn add_class(&mut self, class: usize, members: &[u32], rules: &[FlatRule], problems: &mut Vec<Problem>) {
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
            if self.is_countless() {
                return;
            }
            let mut deciding = deciding(active.iter().copied(), rules);
            self.limit(&mut deciding, rules, problems);
            // A rule that can never decide still names the destination.
            let allows = active.iter().any(|rule| rules[*rule as usize].action == Action::Allow);
            let cell = self.cell(deciding, allows, rules);
            if self.starts.last().map_or(0, |(_, cell)| *cell) != cell {
                self.starts.push((base | group[0].0, cell));
            }
        }
        // The greatest key a rule can have is below the next class, so `last + 1` ended every interval.
        debug_assert!(active.is_empty());
    }

    /// The cell of what rules say of questions for their names: what is refused, and encrypted resolvers that a rule opens.
    fn add_questions(&mut self, rules: &[FlatRule], problems: &mut Vec<Problem>) -> u32 {
        let asks = (0u32..).zip(rules).filter(|(_, rule)| rule.asks).map(|(number, _)| number);
        let mut deciding = deciding(asks, rules);
        self.limit(&mut deciding, rules, problems);
        self.cell(deciding, false, rules)
    }

    /// Leaves out what is more than is asked, and says so once.
    fn limit(&mut self, deciding: &mut Vec<u32>, rules: &[FlatRule], problems: &mut Vec<Problem>) {
        if deciding.len() > TERMS_PER_CELL_MAX {
            if !self.crowded {
                problems.push(too_many_terms(deciding, rules));
                self.crowded = true;
            }
            deciding.truncate(TERMS_PER_CELL_MAX);
        }
    }

    /// Whether there is so much that counting it is no use.
    fn is_countless(&self) -> bool {
        self.by_rules.len() > COUNTED_TIMES_MAX * CELLS_MAX
            || self.terms_wanted > COUNTED_TIMES_MAX * TERMS_MAX
            || self.starts.len() > COUNTED_TIMES_MAX * STARTS_MAX
    }

    /// What there is too much of: what it is, why, and what to do.
    fn excesses(&self) -> Vec<(String, String, &'static str)> {
        let at_least = if self.is_countless() { "more than " } else { "" };
        let mut excesses = Vec::new();
        let (starts, cells, terms) = (self.starts.len(), self.by_rules.len(), self.terms_wanted);
        if starts > STARTS_MAX {
            excesses.push((
                format!("the rules need {at_least}{starts} boundaries between ports"),
                format!(
                    "the kernel holds {STARTS_MAX}; each set of rules that share destinations needs its own list of ports"
                ),
                "give rules with the same destinations the same ports, or merge rules that differ only in `to`",
            ));
        }
        for (what, wanted, capacity) in [("lists", cells, CELLS_MAX), ("terms", terms, TERMS_MAX)] {
            if wanted > capacity {
                excesses.push((
                    format!("the rules combine into {at_least}{wanted} {what}"),
                    format!(
                        "the kernel holds {capacity}; each combination of rules for one destination and port is a list \
                         of its own, with a term for each rule"
                    ),
                    "merge rules that differ only in `to`, or make rules overlap less",
                ));
            }
        }
        excesses
    }

    fn cell(&mut self, deciding: Vec<u32>, allows: bool, rules: &[FlatRule]) -> u32 {
        let key = (deciding, allows);
        if let Some(cell) = self.by_rules.get(&key) {
            return *cell;
        }
        let deciding = &key.0;
        self.terms_wanted += deciding.len();
        let cell = self.by_rules.len() as u32;
        self.used.extend(deciding);
        if self.cells.len() < CELLS_MAX && self.terms_wanted <= TERMS_MAX {
            self.add_terms(deciding, allows, rules);
        }
        self.by_rules.insert(key, cell);
        cell
    }

    fn add_terms(&mut self, deciding: &[u32], allows: bool, rules: &[FlatRule]) {
        let first = self.terms.len();
        for number in deciding {
            let rule = &rules[*number as usize];
            self.terms.push(Term {
                who: rule.who,
                rule: *number,
                action: rule.action as u8,
                names: u8::try_from(rule.names).unwrap_or(u8::MAX),
                padding: [0; 2],
            });
        }
        let is_named = deciding.iter().any(|number| rules[*number as usize].names != 0);
        let flags = if allows { CELL_ALLOWS } else { 0 } | if is_named { CELL_NAMED } else { 0 };
        self.cells.push(Cell { first: first as u32, count: deciding.len() as u16, flags });
    }
}

/// The rules that can decide, in the order of precedence: none whose every selector an earlier rule has.
fn deciding(active: impl Iterator<Item = u32>, rules: &[FlatRule]) -> Vec<u32> {
    let mut bound = Who::NONE;
    let mut deciding = Vec::new();
    for number in active {
        let FlatRule { who, names, .. } = &rules[number as usize];
        if bound.or(who) == bound {
            continue;
        }
        deciding.push(number);
        // One that holds for some names leaves something to those behind it.
        if *names == 0 {
            bound = bound.or(who);
            if who.intersects(&Who::EVERYONE) {
                break;
            }
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
    .hint(if deciding.iter().any(|number| rules[*number as usize].names != 0) {
        "merge rules that differ only in `from`, or only in the names of `to`, into one with a longer list"
    } else {
        "merge rules that differ only in `from` into one with a longer list"
    })
}
