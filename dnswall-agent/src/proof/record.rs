//! What was proven last, for whoever asks: `dnswall status`.

use crate::control::api::{ProofStatus, TamperStatus};

/// The proofs so far.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// The canary's.
    pub proof: ProofStatus,
    /// The watch's.
    pub tamper: TamperStatus,
}
