//! Takes what a policy says of names, gives what the kernel holds of it: the lists, the types, the rules that stand for them.

use std::sync::Arc;

use dnswall_common::limits::TYPE_WORDS;
use dnswall_common::quota::LIMITS_MAX;

use super::environment::Environment;
use super::rules::{RuleInfo, Section};
use crate::blocklist::lists::RubbishAccount;
use crate::blocklist::{ListAccount, Lists, Trouble, Wanted, Which};
use crate::policy::{Policy, Problem, Warning};

/// Rules beside those that lead from an address to an answer: of types, of lists, and of each set of limits.
pub(super) const RULES_ASIDE_MAX: usize = 2 + LIMITS_MAX - 1;

/// What a policy says of names, compiled.
pub(super) struct Names {
    pub(super) lists: Arc<Lists>,
    /// A bit for each type that is refused.
    pub(super) types: Vec<u64>,
    /// The number of the rule that stands for all lists; 0 without any.
    pub(super) listed_rule: u32,
    /// The number of the rule that refuses types; 0 without any.
    pub(super) types_rule: u32,
}

/// Compiles it; the rules that stand for it are added to `rules`.
pub(super) fn compile(
    policy: &Policy,
    environment: &dyn Environment,
    rules: &mut Vec<RuleInfo>,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Warning>,
) -> Names {
    let mut add = |name: &str, section, line| {
        rules.push(RuleInfo { name: name.to_owned(), section, line });
        rules.len() as u32 - 1
    };
    let mut types = vec![0; TYPE_WORDS];
    for number in &policy.dns.deny_types {
        types[usize::from(*number) / 64] |= 1 << (number % 64);
    }
    let types_rule = match policy.dns.deny_types.is_empty() {
        true => 0,
        false => add("dns.deny-types", Section::Dns, policy.dns.place.line),
    };
    let listed_rule = match policy.blocklists.first() {
        None => 0,
        // Which list it was is not known to the kernel: the agent finds it out.
        Some(first) => add("blocklist", Section::Blocklist, first.place.line),
    };
    let lists = match environment.lists(wanted(policy, environment.seed())) {
        Ok((lists, troubles)) => {
            warnings.extend(troubles.iter().map(|trouble| warning(policy, trouble)));
            warnings.extend(
                lists.accounts.iter().enumerate().filter_map(|(at, account)| useless(policy, at, account)),
            );
            warnings.extend(
                lists.accounts.iter().enumerate().filter_map(|(at, account)| unread(policy, at, account)),
            );
            lists
        }
        Err(troubles) => {
            problems.extend(troubles.iter().map(|trouble| problem(policy, trouble)));
            Arc::default()
        }
    };
    Names { lists, types, listed_rule, types_rule }
}

/// What a policy says of lists.
pub fn wanted(policy: &Policy, key: u64) -> Wanted {
    Wanted {
        lists: policy.blocklists.iter().map(|blocklist| blocklist.list.clone()).collect(),
        known_good: policy.known_good.names.clone(),
        key,
    }
}

fn problem(policy: &Policy, trouble: &Trouble) -> Problem {
    let (span, what) = place(policy, trouble.of);
    let hint = match is_fetched(policy, trouble.of) {
        true => {
            "what comes has to be as the policy says; and for it to come, the policy that decides now has to let \
             dnswall.service ask the resolver and go to this host"
        }
        false => "mend the file, or what the policy says of it: a list counts as a whole, or not at all",
    };
    Problem::error(span, format!("{what} cannot be used")).why(trouble.what.clone()).hint(hint)
}

fn is_fetched(policy: &Policy, which: Which) -> bool {
    let Which::Block(at) = which else { return false };
    policy.blocklists.get(at).is_some_and(|it| it.list.source.url().is_some())
}

/// A list that the agent fetches, and nobody else.
fn unread(policy: &Policy, at: usize, account: &ListAccount) -> Option<Warning> {
    account.unread.then(|| {
        let (span, what) = place(policy, Which::Block(at));
        Problem::warning(span, format!("{what} was not looked at"))
            .why("the agent fetches it, and nothing is fetched without one")
            .hint("`dnswall policy apply` fetches it, and refuses the policy when it cannot be had")
    })
}

fn warning(policy: &Policy, trouble: &Trouble) -> Warning {
    let (span, what) = place(policy, trouble.of);
    let hint = match is_fetched(policy, trouble.of) {
        true => {
            "what was fetched of it before goes on, if anything was; `dnswall blocklist update` tries again"
        }
        false => "what was read of it before goes on, if anything was; mend the file, and it is read again",
    };
    Problem::warning(span, format!("{what} is not used as it is now")).why(trouble.what.clone()).hint(hint)
}

/// A list of which little could be used is perhaps of another format.
fn useless(policy: &Policy, at: usize, account: &ListAccount) -> Option<Warning> {
    let lines: usize = account.rubbish.iter().map(|rubbish| rubbish.lines).sum();
    let first = account.rubbish.iter().max_by_key(|rubbish| rubbish.lines)?;
    (lines > account.entries).then(|| {
        let (span, what) = place(policy, Which::Block(at));
        let RubbishAccount { why, first_line, .. } = first;
        Problem::warning(span, format!("{what} has more lines that are not used than entries"))
            .why(format!(
                "{lines} lines, read as {}: most are {why}, the first is line {first_line}",
                account.format
            ))
            .hint("write its `format`, if it was not told right: domains, hosts, abp, rpz or dnsmasq")
    })
}

fn place(policy: &Policy, which: Which) -> (std::ops::Range<usize>, String) {
    match which {
        Which::Block(at) => match policy.blocklists.get(at) {
            Some(it) => (it.source.clone(), format!("the list {}", it.list.name)),
            None => (0..0, "a list".to_owned()),
        },
        Which::KnownGood(at) => {
            let span = policy.known_good.sources.get(at).cloned();
            (span.unwrap_or(0..0), "this file of names that are known to be good".to_owned())
        }
        Which::All => {
            let first = policy.blocklists.first().map(|first| first.source.clone());
            (first.unwrap_or(0..0), "what the lists come to".to_owned())
        }
    }
}
