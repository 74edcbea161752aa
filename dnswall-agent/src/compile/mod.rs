//! Takes a checked policy and what is known of this host, gives the image the kernel will hold.
//!
//! `Policy → FlatRule → Classes → Cells → MapImage`: rules become one list in the order of precedence, sets of rules
//! that hold for the same addresses become classes, what a class does at a port becomes a cell, and two kinds of
//! search tree find them. `from` entries become bits, and tables by which the kernel finds the bits of a process.
//! Nothing here does I/O or reads a clock: what depends on the host comes through [`Environment`].

mod capacity;
mod cells;
mod classes;
mod destinations;
mod diff;
mod environment;
mod explain;
mod identity;
mod image;
mod intervals;
mod named;
mod names;
mod quotas;
mod rules;
mod tree;
mod who;

pub use capacity::Excess;
pub use diff::{Change, PolicyDiff, diff};
pub use environment::{Environment, FileId, FixedEnvironment, RootCgroup};
pub use explain::{Explanation, Outcome, explain, explain_name, explain_who};
pub use identity::Identity;
pub use image::{MapImage, ScopeInfo};
pub use names::wanted;
pub use rules::{ENCRYPTED, RuleInfo, Section};
pub use who::{EXECUTABLES_PER_PATTERN_MAX, NameEntry};

use crate::policy::{
    Encrypted, Events, Existing, Limits, Mode, Policy, Problem, Problems, Scope, Selector, Warning,
};
use classes::{CLASS_MEMBERS_MAX, Classes};
use dnswall_common::event::{TELLS_ALL, TELLS_DENIED, TELLS_NONE};
use dnswall_common::image::{
    EXISTING_CUT, EXISTING_KEEP, ImageHeader, MODE_AUDIT, MODE_ENFORCE, Scope as ScopeEntry,
};
use dnswall_common::limits::{NODES4_MAX, NODES6_MAX, RULES_MAX, SCOPES_MAX};
use dnswall_common::quota::{LIMITS_ANSWERS, LIMITS_QUESTIONS, TELLS_QUESTIONS};
use dnswall_common::reason::Action;
use dnswall_common::search::{FANOUT4, FANOUT8};
use dnswall_common::who::Who;
use rules::{FlatRule, Known};
use std::collections::HashSet;
use who::Selectors;

/// Compiles a policy for a host. The warnings say which parts of it do nothing there.
///
/// # Errors
/// Every reason why this host or the kernel's tables cannot hold it.
pub fn compile(policy: &Policy, environment: &dyn Environment) -> Result<(MapImage, Vec<Warning>), Problems> {
    let problems = match compile_with(policy, Known::Refused, environment) {
        Err(problems) if environment.has_decided() && policy.dns.encrypted == Encrypted::Deny => problems,
        compiled => return compiled,
    };
    // One that has decided goes on: the list may have grown since, or not have been there.
    let Ok((image, mut warnings)) = compile_with(policy, Known::LeftOut, environment) else {
        return Err(problems);
    };
    let warning = Problem::warning(
        policy.dns.encrypted_at.span.clone(),
        "known resolvers of encrypted DNS are not refused",
    )
    .why("the policy does not fit beside them; port 853 alone is closed, as far as no rule names it")
    .hint("make room as `dnswall policy check` says, or write encrypted = \"allow\" into [dns]");
    warnings.extend(policy.problems(vec![warning]).list().to_vec());
    Ok((image, warnings))
}

fn compile_with(
    policy: &Policy,
    known: Known,
    environment: &dyn Environment,
) -> Result<(MapImage, Vec<Warning>), Problems> {
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    let mut selectors = Selectors::new();
    // First what may not be written at all: when there are too many, it is one that is written which is too many.
    let unjudged = openers(&policy.unjudged, &mut selectors);
    let raw = openers(&policy.raw, &mut selectors);
    let mut lists = named::Lists::default();
    let rules = rules::flatten(policy, known, &mut selectors, &mut lists);
    let leads_to_names = rules.iter().rfind(|rule| rule.names != 0);
    lists.check(leads_to_names.map_or(0..0, |rule| rule.span.clone()), &mut problems);
    let unlimited = who_asks_for_others(policy, &mut selectors);
    let (mut scope_entries, scopes) = scopes(policy, &mut selectors, &mut problems);
    let (tables, unconstrained) = selectors.resolve(environment, &mut problems, &mut warnings);
    let lookups = lookups(&rules, &mut problems);
    let mut infos: Vec<RuleInfo> = rules.iter().map(|rule| rule.info.clone()).collect();
    let names = names::compile(policy, environment, &mut infos, &mut problems, &mut warnings);
    let quotas = quotas::compile(policy, &mut infos, &mut problems);
    for (entry, limits) in scope_entries.iter_mut().zip(&quotas.scopes) {
        entry.limits = *limits;
    }
    let Some(lookups) = lookups.filter(|_| problems.is_empty()) else {
        return Err(policy.problems(problems));
    };
    warnings.extend(unused(&rules, &lookups.cells.used));
    let named = lists.patterns(environment.seed());
    let leads = rules.iter().any(|rule| rule.names != 0 && rule.action == Action::Allow);
    if leads {
        warnings.extend(believed(policy));
    }
    if limited(policy) != 0 {
        warnings.extend(asks_for_others(policy));
    }
    let resolvers_rule =
        rules.iter().position(|rule| rule.info.name == rules::RESOLVERS).unwrap_or_default() as u32;
    let root = environment.root_cgroup();
    let (nodes4, nodes6) = (tree::nodes4(&lookups.starts4), tree::nodes6(&lookups.starts6));
    let nodes_port = tree::nodes_port(&lookups.cells.starts);
    let header = ImageHeader {
        seed: environment.seed(),
        flow_key: 0,
        root_cgroup: root.id,
        generation: 0,
        nodes4: nodes4.len() as u32,
        nodes6: nodes6.len() as u32,
        nodes_port: nodes_port.len() as u32,
        listed_buckets: names.lists.table.len() as u32,
        exceptions: names.lists.exceptions.len() as u32,
        listed_rule: names.listed_rule,
        types_rule: names.types_rule,
        named: named.len() as u32,
        question_cell: lookups.cells.questions,
        resolvers_rule,
        netns_inode: environment.network_namespace(),
        told_of: match policy.dns.events {
            Events::Sampled(of) => of.get(),
            Events::Off | Events::Denied | Events::All => 1,
        },
        limited: limited(policy)
            | match policy.dns.events {
                Events::All | Events::Sampled(_) => TELLS_QUESTIONS,
                Events::Off | Events::Denied => 0,
            },
        mode: mode_number(policy.mode),
        existing: existing_number(policy.existing),
        scope_count: scopes.len() as u8,
        learns: u8::from(rules.iter().any(|rule| rule.names != 0 && !rule.addresses.is_empty())),
        tells: match policy.dns.events {
            Events::Off => TELLS_NONE,
            Events::Denied => TELLS_DENIED,
            Events::All | Events::Sampled(_) => TELLS_ALL,
        },
        padding: [0; 3],
        raw,
        unjudged,
        unlimited,
        limits: quotas.limits,
        unconstrained,
        scopes: scope_entries,
        digest: policy.digest,
    };
    let image = MapImage {
        header,
        nodes4,
        nodes6,
        nodes_port,
        cells: lookups.cells.cells,
        terms: lookups.cells.terms,
        users: tables.users.into_iter().collect(),
        exes: tables.exes.into_iter().collect(),
        paths: tables.paths.into_iter().collect(),
        names: tables.names,
        named,
        lists: names.lists,
        types: names.types,
        rules: infos,
        selectors: selectors.texts(),
        scopes,
        text: policy.text.clone(),
        digest: policy.digest,
        policy_name: policy.name.clone(),
        mode: policy.mode,
        existing: policy.existing,
        root,
    };
    Ok((image, policy.problems(warnings).list().to_vec()))
}

/// Resolvers on this host: what they ask they are asked by others, each of whom has limits of his own.
fn who_asks_for_others(policy: &Policy, selectors: &mut Selectors) -> Who {
    let recursors = policy.dns.recursors.iter().map(|recursor| &recursor.from);
    let stubs = policy.dns.stubs.iter().map(|stub| &stub.from);
    recursors.chain(stubs).fold(Who::NONE, |who, from| who.or(&openers(from, selectors)))
}

/// Whether questions are limited, and answers weighed for it.
fn limited(policy: &Policy) -> u32 {
    let all = || std::iter::once(&policy.dns.limits).chain(policy.scopes.iter().map(|scope| &scope.limits));
    let weighs = |limits: &Limits| limits.nxdomain_per_minute.is_some() || !limits.answer_bytes.is_empty();
    let questions = if all().all(Limits::is_none) { 0 } else { LIMITS_QUESTIONS };
    questions | if all().any(weighs) { LIMITS_ANSWERS } else { 0 }
}

/// An empty list is nobody here, not everyone.
fn openers(from: &[Selector], selectors: &mut Selectors) -> Who {
    if from.is_empty() { Who::NONE } else { selectors.allowed(from) }
}

/// What leads from an address and port to the rules.
struct Lookups {
    starts4: Vec<(u128, u32)>,
    starts6: Vec<(u128, u32)>,
    cells: cells::Cells,
}

/// `None` when there are too many to go on; every limit that is exceeded is a problem of its own.
fn lookups(rules: &[FlatRule], problems: &mut Vec<Problem>) -> Option<Lookups> {
    let span = |rule: u32| rules.get(rule as usize).map_or(0..0, |rule| rule.span.clone());
    if rules.len() + names::RULES_ASIDE_MAX > RULES_MAX {
        let message = format!("this policy has {} rules, those of [dns] included", rules.len() - 1);
        problems.push(
            Problem::error(span((RULES_MAX - names::RULES_ASIDE_MAX) as u32), message)
                .why(format!("the kernel counts at most {}", RULES_MAX - names::RULES_ASIDE_MAX - 1))
                .hint("merge rules that differ only in `to` or `ports`"),
        );
    }
    let mut classes = Classes::new();
    let too_many = |overlaps: classes::TooManyOverlaps| {
        Problem::error(span(overlaps.rule), "the destinations of the rules overlap too much")
            .why(format!(
                "sets of rules that share an address have more than {CLASS_MEMBERS_MAX} members together"
            ))
            .hint("merge rules with the same destinations")
    };
    let numbered = || (0u32..).zip(rules);
    let v4 = numbered().map(|(at, rule)| (at, &rule.addresses.v4));
    let v6 = numbered().map(|(at, rule)| (at, &rule.addresses.v6));
    let starts = classes
        .sweep(v4, u32::MAX.into())
        .and_then(|starts4| classes.sweep(v6, u128::MAX).map(|starts6| (starts4, starts6)));
    let (starts4, starts6) = starts.map_err(|overlaps| problems.push(too_many(overlaps))).ok()?;
    for (family, count, max) in
        [("IPv4", starts4.len(), NODES4_MAX * FANOUT4), ("IPv6", starts6.len(), NODES6_MAX * FANOUT8)]
    {
        if count > max {
            let message = format!("the rules need {count} boundaries between {family} destinations");
            problems.push(
                Problem::error(0..0, message)
                    .why(format!("the kernel holds {max}"))
                    .hint("merge destinations into larger networks"),
            );
        }
    }
    let cells = cells::build(rules, &classes, problems);
    Some(Lookups { starts4, starts6, cells })
}

/// What to think of before names are believed.
fn believed(policy: &Policy) -> Vec<Warning> {
    let dns = &policy.dns;
    let mut warnings = Vec::new();
    if dns.resolvers.is_empty() && dns.stubs.is_empty() {
        warnings.push(
            Problem::warning(dns.place.span.clone(), "rules lead to names, and nobody's answers count")
                .why("a name leads where an answer says that comes from `resolvers`, or from a [[dns.stub]]")
                .hint("write the resolvers that are asked into [dns]"),
        );
    }
    let open = dns.stubs.iter().filter(|stub| stub.from.is_empty());
    warnings.extend(open.map(|stub| {
        let message = format!("anybody here may answer as the stub at {}", stub.address);
        Problem::warning(stub.place.span.clone(), message)
            .why("rules lead to names; without `from` the answers of any process beside the agent count")
            .hint("write a [[dns.stub]] with this `address`, and whose it is: from = [{ unit = \"systemd-resolved.service\" }]")
    }));
    warnings
}

/// What to think of before questions are limited.
fn asks_for_others(policy: &Policy) -> impl Iterator<Item = Warning> {
    let unnamed = policy.dns.stubs.iter().filter(|stub| stub.from.is_empty());
    unnamed.map(|stub| {
        let message = format!("whoever answers at {} is limited like anybody", stub.address);
        Problem::warning(stub.place.span.clone(), message)
            .why("it asks for all others here: one that asks too much would take the names of all")
            .hint("write a [[dns.stub]] with this `address`, and whose it is: from = [{ unit = \"systemd-resolved.service\" }]")
    })
}

/// Rules that no flow can reach, in none of their parts. The refusal of encrypted DNS is there whatever else there is.
fn unused<'r>(
    rules: &'r [FlatRule],
    used: &std::collections::BTreeSet<u32>,
) -> impl Iterator<Item = Warning> + 'r {
    let numbered = (0u32..).zip(rules);
    let mut decide: HashSet<&str> = numbered
        .filter(|(number, _)| used.contains(number))
        .map(|(_, rule)| rule.info.name.as_str())
        .collect();
    decide.insert(ENCRYPTED);
    rules.iter().skip(1).filter(move |rule| decide.insert(rule.info.name.as_str())).map(|rule| {
        Problem::warning(rule.span.clone(), format!("{} never decides", rule.info.name))
            .why("rules that come before it decide everything it names")
            .hint(
                "take it out, or narrow the rules before it: deny comes before [dns], [dns] with its refusal of encrypted \
                 resolvers before allow",
            )
    })
}

fn scopes(
    policy: &Policy,
    selectors: &mut Selectors,
    problems: &mut Vec<Problem>,
) -> ([ScopeEntry; SCOPES_MAX], Vec<ScopeInfo>) {
    let mut entries = [ScopeEntry::EMPTY; SCOPES_MAX];
    let mut infos = Vec::new();
    if let Some(scope) = policy.scopes.get(SCOPES_MAX) {
        let message = format!("this policy has {} scopes", policy.scopes.len());
        problems.push(
            Problem::error(scope.place.span.clone(), message)
                .why(format!("the kernel holds {SCOPES_MAX}"))
                .hint("merge scopes with the same `mode` and `existing`"),
        );
    }
    // Those without a place name workloads, too: how many there are is said at once.
    for scope in policy.scopes.iter().skip(SCOPES_MAX) {
        held(scope, selectors);
    }
    for (index, (scope, entry)) in policy.scopes.iter().zip(&mut entries).enumerate() {
        *entry = ScopeEntry {
            who: held(scope, selectors),
            mode: mode_number(scope.mode),
            existing: existing_number(scope.existing),
            limits: 0,
            padding: [0; 5],
        };
        let name = scope.name.clone().unwrap_or_else(|| index.to_string());
        infos.push(ScopeInfo {
            name: format!("scope.{name}"),
            line: scope.place.line,
            mode: scope.mode,
            existing: scope.existing,
        });
    }
    (entries, infos)
}

/// Whom a scope holds: one that only reports lets them out.
fn held(scope: &Scope, selectors: &mut Selectors) -> Who {
    match scope.mode {
        Mode::Audit => selectors.allowed(&scope.from),
        Mode::Enforce => selectors.bound(&scope.from),
    }
}

fn mode_number(mode: Mode) -> u8 {
    match mode {
        Mode::Enforce => MODE_ENFORCE,
        Mode::Audit => MODE_AUDIT,
    }
}

fn existing_number(existing: Existing) -> u8 {
    match existing {
        Existing::Keep => EXISTING_KEEP,
        Existing::Cut => EXISTING_CUT,
    }
}
