//! Takes the limits of a policy, gives the sets of them that the kernel holds.

use dnswall_common::quota::{LIMITS_MAX, LIMITS_STRICTEST, QuestionLimits, TypeLimit};

use super::rules::{RuleInfo, Section};
use crate::policy::{Limits, Policy, Problem};

/// The sets of limits, each once, that of `[dns]` first.
pub(super) struct Quotas {
    pub(super) limits: [QuestionLimits; LIMITS_MAX],
    /// Which set each scope has.
    pub(super) scopes: Vec<u8>,
}

/// Collects them; rules that stand for them are added to `rules`.
pub(super) fn compile(policy: &Policy, rules: &mut Vec<RuleInfo>, problems: &mut Vec<Problem>) -> Quotas {
    let mut sets: Vec<(Limits, QuestionLimits)> = Vec::new();
    let mut number = |limits: &Limits, name: String, line: usize| {
        if let Some(at) = sets.iter().position(|(known, _)| known == limits) {
            return at;
        }
        let mut set = set(limits);
        if !limits.is_none() {
            set.rule = rules.len() as u32;
            rules.push(RuleInfo { name, section: Section::Dns, line });
        }
        sets.push((limits.clone(), set));
        sets.len() - 1
    };
    number(&policy.dns.limits, "dns.limits".to_owned(), policy.dns.limits_at.line);
    let mut scopes = Vec::new();
    for (index, scope) in policy.scopes.iter().enumerate() {
        let name = scope.name.clone().unwrap_or_else(|| index.to_string());
        let at = number(&scope.limits, format!("scope.{name}.limits"), scope.place.line);
        scopes.push(u8::try_from(at).unwrap_or(u8::MAX));
    }
    // The last place is for the strictest.
    if sets.len() >= LIMITS_MAX {
        let last = policy.scopes.last().map_or(0..0, |scope| scope.place.span.clone());
        problems.push(
            Problem::error(last, format!("this policy has {} different sets of limits", sets.len()))
                .why(format!("the kernel holds {}, that of [dns.limits] included", LIMITS_MAX - 1))
                .hint("give scopes the same limits"),
        );
    }
    let mut limits = [QuestionLimits::default(); LIMITS_MAX];
    let strictest = strictest(sets.iter().map(|(_, set)| set));
    for (place, (_, set)) in limits.iter_mut().zip(sets) {
        *place = set;
    }
    limits[usize::from(LIMITS_STRICTEST)] = strictest;
    Quotas { limits, scopes }
}

/// The smallest of each that is limited at all; the rule is that of the first set that limits something.
fn strictest<'s>(sets: impl Iterator<Item = &'s QuestionLimits>) -> QuestionLimits {
    fn least<T: Copy + Ord + Default>(one: T, other: T) -> T {
        let none = T::default();
        if one == none {
            other
        } else if other == none {
            one
        } else {
            one.min(other)
        }
    }
    sets.fold(QuestionLimits::default(), |all, set| {
        let mut answers = all.answers;
        for limit in set.answers.iter().filter(|limit| limit.bytes != 0) {
            let same = answers.iter().position(|known| known.bytes != 0 && known.kind == limit.kind);
            // Of more types than there are places those that come first.
            if let Some(at) = same.or_else(|| answers.iter().position(|known| known.bytes == 0)) {
                let bytes = least(answers[at].bytes, limit.bytes);
                answers[at] = TypeLimit { bytes, kind: limit.kind };
            }
        }
        QuestionLimits {
            name_bytes: least(all.name_bytes, set.name_bytes),
            label_bytes: least(all.label_bytes, set.label_bytes),
            labels: least(all.labels, set.labels),
            padding: 0,
            questions: least(all.questions, set.questions),
            names: least(all.names, set.names),
            nxdomains: least(all.nxdomains, set.nxdomains),
            answers,
            rule: if all.rule == 0 { set.rule } else { all.rule },
        }
    })
}

fn set(limits: &Limits) -> QuestionLimits {
    let Limits {
        name_length,
        label_length,
        labels,
        questions_per_second,
        names_per_domain,
        nxdomain_per_minute,
        answer_bytes,
    } = limits;
    let mut set = QuestionLimits {
        name_bytes: name_length.unwrap_or(0),
        label_bytes: label_length.unwrap_or(0),
        labels: labels.unwrap_or(0),
        questions: questions_per_second.unwrap_or(0),
        names: names_per_domain.unwrap_or(0),
        nxdomains: nxdomain_per_minute.unwrap_or(0),
        ..QuestionLimits::default()
    };
    for (place, (kind, bytes)) in set.answers.iter_mut().zip(answer_bytes) {
        *place = TypeLimit { bytes: *bytes, kind: (*kind).into() };
    }
    set
}
