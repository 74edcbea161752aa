//! Takes a compiled policy and a question, gives the answer as commands print it.

use super::question::{Question, What};
use crate::compile::{MapImage, Outcome, explain, explain_name};
use crate::control::api::Explained;

/// Asks the policy.
pub fn explained(image: &MapImage, question: Question) -> Explained {
    let Question { identity, shown, what } = question;
    let explanation = match what {
        What::Flow(flow) => explain(image, &identity, &flow),
        What::Name(name, protocol, port) => explain_name(image, &identity, &name, protocol, port),
    };
    let verdict = match explanation.outcome {
        Outcome::Allowed => "allow",
        Outcome::Denied => "deny",
        Outcome::WouldDeny => "would-deny",
    };
    Explained {
        verdict: verdict.to_owned(),
        reason: explanation.reason,
        line: Some(explanation.rule.line).filter(|line| *line > 0),
        rule: explanation.rule.name,
        mode: explanation.mode.name().to_owned(),
        existing: explanation.existing.name().to_owned(),
        scope: explanation.scope,
        why: explanation.because,
        matches: explanation.matches,
        passed_over: explanation.passed_over.into_iter().map(|rule| rule.name).collect(),
        policy: image.policy_name.clone(),
        digest: image.digest_text(),
        identity: shown,
    }
}
