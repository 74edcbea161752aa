//! Families of the policy that decides.

use std::fmt;

use super::sample::seconds;
use super::sheet::{Sheet, State};
use crate::control::api::{PolicyStatus, Status};

/// What a policy does with what it refuses; `none` where the kernel has no policy.
const MODES: &[&str] = &["enforce", "audit", "none"];

pub(super) fn write(sheet: &mut Sheet<'_>, status: &Status) -> fmt::Result {
    let PolicyStatus { name, digest, generation, origin, applied_at } = &status.policy;
    sheet.info(
        "dnswall_policy",
        "The policy that decides: its name, the SHA-256 of its text, and the file it came from.",
        vec![("name", name), ("digest", digest), ("origin", origin)],
    )?;
    sheet.state(
        "dnswall_policy_mode",
        "What is done with what the policy refuses, where no scope says otherwise: 1 for the mode that is.",
        "mode",
        State { is: &status.mode, all: MODES },
    )?;
    sheet.gauge(
        "dnswall_policy_generation",
        "Which publication decides. It grows with each.",
        u64::from(*generation),
    )?;
    sheet.maybe(
        "dnswall_policy_applied_timestamp_seconds",
        "When the policy that decides was published.",
        seconds(applied_at),
    )?;
    let left = status.pending.as_ref().map(|pending| pending.seconds_left);
    sheet.gauge(
        "dnswall_policy_pending",
        "1 while a policy on trial waits for its confirmation.",
        u64::from(left.is_some()),
    )?;
    sheet.gauge(
        "dnswall_policy_pending_left_seconds",
        "Until the policy on trial is taken back; 0 when there is none.",
        left.unwrap_or_default(),
    )?;
    sheet.gauge(
        "dnswall_warnings",
        "What somebody should look at: the warnings of `dnswall status`.",
        status.warnings.len(),
    )
}
