//! Takes the limits of a policy, gives the sets of them that the kernel holds.

use dnswall_common::quota::{DISTINCT_WORDS, LIMITS_MAX, QuestionLimits, TypeLimit};

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
    if sets.len() > LIMITS_MAX {
        let last = policy.scopes.last().map_or(0..0, |scope| scope.place.span.clone());
        problems.push(
            Problem::error(last, format!("this policy has {} different sets of limits", sets.len()))
                .why(format!("the kernel holds {LIMITS_MAX}, that of [dns.limits] included"))
                .hint("give scopes the same limits"),
        );
    }
    let mut limits = [QuestionLimits::default(); LIMITS_MAX];
    for (place, (_, set)) in limits.iter_mut().zip(sets) {
        *place = set;
    }
    Quotas { limits, scopes }
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
        domain_bits: names_per_domain.map_or(0, bits_of),
        nxdomains: nxdomain_per_minute.unwrap_or(0),
        ..QuestionLimits::default()
    };
    for (place, (kind, bytes)) in set.answers.iter_mut().zip(answer_bytes) {
        *place = TypeLimit { bytes: *bytes, kind: (*kind).into() };
    }
    set
}

/// How many bits so many different names set, about (linear counting).
fn bits_of(names: u32) -> u32 {
    let bits = (DISTINCT_WORDS * 64) as f64;
    ((bits * (1.0 - (-f64::from(names) / bits).exp())).round() as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dnswall_common::quota::DISTINCT_MAX;

    #[test]
    fn bits_tell_how_many_names_there_were() {
        assert_eq!((bits_of(1), bits_of(10)), (1, 10));
        for names in [100, 500, 1_000, DISTINCT_MAX] {
            let mut bits = [false; DISTINCT_WORDS * 64];
            let mut hash = 1u64;
            let mut asked = 0;
            while bits.iter().filter(|bit| **bit).count() < bits_of(names) as usize {
                hash = hash.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                bits[(hash >> 40) as usize % bits.len()] = true;
                asked += 1;
            }
            assert!((names * 8 / 10..names * 12 / 10).contains(&asked), "{names}: {asked}");
        }
    }
}
