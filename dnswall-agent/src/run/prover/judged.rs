//! What a try came to: takes what each attempt proves, gives what the try is called and what is wrong.

use crate::control::api::{AttemptStatus, ProofStatus};
use crate::proof::canary::{Planned, Proof};
use crate::proof::finding::Remedy;
use crate::proof::{Finding, Tamper};

/// What a try is called, and what is wrong.
pub(super) fn judged(
    attempts: Vec<AttemptStatus>,
    proofs: &[(Planned, Proof)],
) -> (ProofStatus, Vec<Finding>) {
    let of = |wanted: &[Proof]| -> Vec<String> {
        let found = proofs.iter().zip(&attempts).filter(|((_, proof), _)| wanted.contains(proof));
        found
            .map(|(_, shown)| format!("{} to {} {}", shown.protocol, shown.to, said(&shown.outcome)))
            .collect()
    };
    let finding = |tamper, found: Vec<String>| Finding {
        tamper,
        object: "canary".to_owned(),
        found: found.join(", "),
        remedy: Remedy::Nothing,
    };
    let (leaks, untold) = (of(&[Proof::Passed, Proof::OtherMode]), of(&[Proof::Untold]));
    let (refused, reported) = (of(&[Proof::Refused]), of(&[Proof::Reported]));
    let (state, note) = if !leaks.is_empty() {
        ("failed", leaks.join(", "))
    } else if !untold.is_empty() {
        ("failed", untold.join(", "))
    } else if !refused.is_empty() {
        ("proven", "what is forbidden was refused, and its alert came".to_owned())
    } else if !reported.is_empty() {
        ("proven", "in audit mode: what would be refused was let through, and its alert came".to_owned())
    } else {
        ("not-tried", "there is no way to where it could be tried".to_owned())
    };
    let mut findings = Vec::new();
    if !leaks.is_empty() {
        findings.push(finding(Tamper::NotRefused, leaks));
    }
    if !untold.is_empty() {
        findings.push(finding(Tamper::NotReported, untold));
    }
    (ProofStatus { state: state.to_owned(), note, attempts, ..ProofStatus::default() }, findings)
}

fn said(outcome: &str) -> &str {
    match outcome {
        "passed" => "was let through",
        "other-mode" => "was treated as in the other mode",
        "untold" => "was judged, and the event did not come",
        other => other,
    }
}

pub(super) fn not_tried(state: &str, note: &str) -> Box<ProofStatus> {
    Box::new(ProofStatus { state: state.to_owned(), note: note.to_owned(), ..ProofStatus::default() })
}
