//! Families of what rules and reasons counted.

use std::fmt;

use dnswall_common::reason::Reason;

use super::sheet::{Labels, Sheet};
use crate::control::api::{ReasonStatus, RuleStatus, Status};

/// Rules that have series of their own: the first of the policy. The others are counted together, as [`OTHER`].
pub const RULES_SHOWN_MAX: usize = 256;
/// What the rest is called. No rule is: what a policy names begins with `allow.`, `deny.` and the like.
pub const OTHER: &str = "other";

/// Reasons why something passes: a refusal never has them.
const PASSING: &[Reason] = &[
    Reason::Asked,
    Reason::Loopback,
    Reason::Established,
    Reason::Inbound,
    Reason::Reply,
    Reason::Essential,
    Reason::Preexisting,
    Reason::KernelOwn,
];

pub(super) fn write(sheet: &mut Sheet<'_>, status: &Status) -> fmt::Result {
    let rules = shown(&status.rules);
    sheet.counters(
        "dnswall_rule_allowed_flows",
        "New flows that a rule of the running policy allowed. Begins anew with each generation.",
        rules.iter().map(|rule| (vec![("rule", rule.name.as_str())], rule.allowed)),
    )?;
    sheet.counters(
        "dnswall_rule_refusals",
        "Packets and attempts that a rule of the running policy refused (denied), or would have (would-deny, audit). \
         Begins anew with each generation.",
        rules.iter().flat_map(|rule| {
            let labels = |verdict| -> Labels<'_> { vec![("rule", rule.name.as_str()), ("verdict", verdict)] };
            [(labels(DENIED), rule.denied), (labels(WOULD_DENY), rule.would_deny)]
        }),
    )?;
    sheet.gauge("dnswall_rules", "Rules that the running policy has.", status.rules.len())?;
    sheet.gauge(
        "dnswall_rules_folded",
        "Rules that are counted together as `other`, because the policy has too many.",
        status.rules.len().saturating_sub(RULES_SHOWN_MAX),
    )?;
    sheet.counters(
        "dnswall_refusals",
        "Packets and attempts refused (denied), or that would have been (would-deny, audit), since the wall was raised.",
        by_reason(&status.reasons).into_iter().flat_map(|(reason, denied, would_deny)| {
            let labels = |verdict| -> Labels<'_> { vec![("reason", reason), ("verdict", verdict)] };
            [(labels(DENIED), denied), (labels(WOULD_DENY), would_deny)]
        }),
    )
}

const DENIED: &str = "denied";
const WOULD_DENY: &str = "would-deny";

/// The first rules, and the sum of the others.
fn shown(rules: &[RuleStatus]) -> Vec<RuleStatus> {
    let mut shown: Vec<RuleStatus> = rules.iter().take(RULES_SHOWN_MAX).cloned().collect();
    if rules.len() > RULES_SHOWN_MAX {
        let mut other = RuleStatus { name: OTHER.to_owned(), ..RuleStatus::default() };
        for rule in &rules[RULES_SHOWN_MAX..] {
            let RuleStatus { number: _, name: _, allowed, denied, would_deny } = rule;
            other.allowed += allowed;
            other.denied += denied;
            other.would_deny += would_deny;
        }
        shown.push(other);
    }
    shown
}

/// Every reason that refuses, those that never did too: a counter that begins with 1 has no rate.
fn by_reason(counted: &[ReasonStatus]) -> Vec<(&'static str, u64, u64)> {
    let of = |reason: &Reason| {
        let found = counted.iter().find(|status| status.name == reason.name());
        let (denied, would_deny) = found.map_or((0, 0), |status| (status.denied, status.would_deny));
        (found.is_some() || !PASSING.contains(reason)).then(|| (reason.name(), denied, would_deny))
    };
    Reason::ALL.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_counted_together() {
        let rule = |number: u32| RuleStatus {
            number,
            name: format!("allow.{number}"),
            allowed: 1,
            denied: 2,
            would_deny: 3,
        };
        let few: Vec<RuleStatus> = (0..RULES_SHOWN_MAX as u32).map(rule).collect();
        assert_eq!(shown(&few), few);
        let many: Vec<RuleStatus> = (0..RULES_SHOWN_MAX as u32 + 10).map(rule).collect();
        let shown = shown(&many);
        assert_eq!(shown.len(), RULES_SHOWN_MAX + 1);
        let other = RuleStatus { number: 0, name: OTHER.to_owned(), allowed: 10, denied: 20, would_deny: 30 };
        assert_eq!(shown.last(), Some(&other));
    }

    #[test]
    fn reasons_that_never_refused_are_zero_and_those_that_pass_are_left_out() {
        let counted = [ReasonStatus { name: "no-rule".to_owned(), denied: 4, would_deny: 1 }];
        let reasons = by_reason(&counted);
        assert!(reasons.contains(&("no-rule", 4, 1)) && reasons.contains(&("listed-name", 0, 0)));
        assert!(reasons.iter().all(|(name, ..)| *name != "established"));
        assert_eq!(reasons.len(), Reason::ALL.len() - PASSING.len());
    }
}
