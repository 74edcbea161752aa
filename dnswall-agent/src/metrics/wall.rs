//! Families of the wall: what is attached, what was proven of it, what was done to it, and whose it is.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::sample::seconds;
use super::sheet::{Sheet, State};
use crate::control::api::{
    AttemptStatus, HookStatus, OlderStatus, ProofStatus, SandboxStatus, Status, TamperStatus,
};

/// What a hook can be.
const HOOK_STATES: &[&str] = &["attached", "gone", "replaced", "not-effective", "not-available"];
/// What a proof can come to.
const PROOF_STATES: &[&str] = &["proven", "failed", "nothing-forbidden", "not-tried"];

pub(super) fn write(sheet: &mut Sheet<'_>, status: &Status, proof_interval: Duration) -> fmt::Result {
    let abi = status.abi.to_string();
    sheet.info(
        "dnswall_build",
        "The agent's version, and that of the kernel layouts.",
        vec![("version", &status.version), ("abi", &abi)],
    )?;
    sheet.gauge(
        "dnswall_wall_stands",
        "Whether the kernel does what the policy says, as far as it was looked at.",
        u64::from(status.stands()),
    )?;
    hooks(sheet, &status.hooks)?;
    if let Some(OlderStatus { refused, cut, not_cut: _, left_out: _ }) = &status.older {
        sheet.gauges(
            "dnswall_older_connections",
            "Connections from before the wall that the policy refused when it was raised, and of them those that were ended.",
            [("refused", refused), ("cut", cut)].map(|(what, count)| (vec![("what", what)], *count)),
        )?;
    }
    proof(sheet, &status.proof, proof_interval)?;
    tamper(sheet, &status.tamper)?;
    sandbox(sheet, &status.sandbox)
}

fn hooks(sheet: &mut Sheet<'_>, hooks: &[HookStatus]) -> fmt::Result {
    sheet.gauges(
        "dnswall_hook_state",
        "Whether a program is attached as it should be: 1 for the state that is.",
        hooks.iter().flat_map(|hook| {
            let series = |state: &&'static str| {
                (vec![("hook", hook.name.as_str()), ("state", *state)], u64::from(*state == hook.state))
            };
            HOOK_STATES.iter().map(series)
        }),
    )
}

fn proof(sheet: &mut Sheet<'_>, proof: &ProofStatus, interval: Duration) -> fmt::Result {
    let ProofStatus { state, note: _, time, attempts, runs, failures, proven } = proof;
    sheet.state(
        "dnswall_proof_state",
        "What came of the last try of what is forbidden: 1 for the state that is.",
        "state",
        State { is: state, all: PROOF_STATES },
    )?;
    sheet.gauge(
        "dnswall_proof_interval_seconds",
        "Between two tries of what is forbidden.",
        interval.as_secs_f64(),
    )?;
    sheet.maybe(
        "dnswall_proof_tried_timestamp_seconds",
        "When what is forbidden was tried last.",
        seconds(time),
    )?;
    sheet.maybe(
        "dnswall_proof_last_proven_timestamp_seconds",
        "When a try last proved that the wall stands. It is the agent's heartbeat.",
        proven.as_deref().and_then(seconds),
    )?;
    sheet.counter("dnswall_proof_runs", "Tries of what is forbidden.", *runs)?;
    sheet.counter("dnswall_proof_failures", "Tries that were let through, or not told.", *failures)?;
    sheet.gauges(
        "dnswall_proof_latency_seconds",
        "From the last try to its event in the agent's hands, the longest by protocol.",
        latencies(attempts).into_iter().map(|(protocol, latency)| (vec![("protocol", protocol)], latency)),
    )
}

fn latencies(attempts: &[AttemptStatus]) -> BTreeMap<&str, f64> {
    let mut longest: BTreeMap<&str, f64> = BTreeMap::new();
    for attempt in attempts {
        let Some(latency_us) = attempt.latency_us else { continue };
        let longest = longest.entry(&attempt.protocol).or_default();
        *longest = longest.max(latency_us as f64 / 1e6);
    }
    longest
}

fn tamper(sheet: &mut Sheet<'_>, tamper: &TamperStatus) -> fmt::Result {
    let TamperStatus { count, last, standing, looked } = tamper;
    sheet.counter("dnswall_tamper", "How often it was found that somebody had changed the wall.", *count)?;
    sheet.gauge(
        "dnswall_tamper_standing",
        "Changes of the wall that could not be mended.",
        standing.len(),
    )?;
    sheet.maybe(
        "dnswall_tamper_last_timestamp_seconds",
        "When a change of the wall was found last.",
        last.as_deref().and_then(seconds),
    )?;
    sheet.maybe(
        "dnswall_wall_looked_timestamp_seconds",
        "When links, programs and maps were looked at last.",
        seconds(looked),
    )
}

fn sandbox(sheet: &mut Sheet<'_>, sandbox: &SandboxStatus) -> fmt::Result {
    let SandboxStatus { capabilities, no_new_privileges, system_calls_filtered } = sandbox;
    sheet.gauge("dnswall_sandbox_capabilities", "Capabilities that the agent has.", capabilities.len())?;
    sheet.gauge(
        "dnswall_sandbox_no_new_privileges",
        "Whether nothing that the agent starts can get more.",
        u64::from(*no_new_privileges),
    )?;
    sheet.gauge(
        "dnswall_sandbox_system_calls_filtered",
        "Whether the kernel refuses the agent the system calls that it does not need.",
        u64::from(*system_calls_filtered),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_latency_counts() {
        let attempt = |protocol: &str, latency_us| AttemptStatus {
            protocol: protocol.to_owned(),
            latency_us,
            ..AttemptStatus::default()
        };
        let attempts = [attempt("tcp", Some(250)), attempt("tcp", Some(1_500)), attempt("udp", None)];
        assert_eq!(latencies(&attempts), BTreeMap::from([("tcp", 0.0015)]));
    }
}
