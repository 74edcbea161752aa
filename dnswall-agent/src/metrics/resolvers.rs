//! Families of what resolvers were asked and answered, as far as the policy tells of questions.

use std::fmt;

use super::sheet::{Histogram, Sheet};
use crate::asked::ResolverStatus;
use crate::asked::resolvers::LATENCY_SECONDS;

pub(super) fn write(sheet: &mut Sheet<'_>, resolvers: &[ResolverStatus]) -> fmt::Result {
    sheet.counters(
        "dnswall_resolver_questions",
        "Questions that went to a resolver (asked) or were refused (denied); `other` are those that the policy does not name.",
        resolvers.iter().flat_map(|status| {
            let labels = |verdict| vec![("resolver", status.resolver.as_str()), ("verdict", verdict)];
            [(labels("asked"), status.asked), (labels("denied"), status.denied)]
        }),
    )?;
    sheet.counters(
        "dnswall_resolver_questions_unanswered",
        "Questions that went to a resolver and were not answered within five seconds.",
        resolvers.iter().map(|status| (vec![("resolver", status.resolver.as_str())], status.unanswered)),
    )?;
    sheet.counters(
        "dnswall_resolver_answers",
        "Answers of a resolver by code.",
        resolvers.iter().flat_map(|status| {
            let labels = |code| vec![("resolver", status.resolver.as_str()), ("code", code)];
            status.answers.iter().map(move |(code, count)| (labels(code.as_str()), *count))
        }),
    )?;
    sheet.histograms(
        "dnswall_resolver_answer_seconds",
        "How long a resolver took to answer.",
        resolvers.iter().map(|status| {
            let bounds = LATENCY_SECONDS.iter().copied().chain([f64::INFINITY]);
            let buckets = bounds.zip(status.latency.iter().copied()).collect();
            (vec![("resolver", status.resolver.as_str())], Histogram { sum: status.latency_secs, buckets })
        }),
    )
}
