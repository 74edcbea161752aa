//! Where a take-over may be cut short. In what is shipped this does nothing; in a trial build (feature `trial-build`)
//! the environment says at which step the agent fails or dies, so that tests can try every one of them.

use anyhow::Result;

/// `fail@N` or `die@N`: at the N-th step of this process.
#[cfg(feature = "trial-build")]
const VARIABLE: &str = "DNSWALL_FAULT";

/// One step, about to be taken.
///
/// # Errors
/// In a trial build, when the environment asks for it.
#[cfg(not(feature = "trial-build"))]
#[inline]
pub fn step(_name: &str) -> Result<()> {
    Ok(())
}

/// One step, about to be taken.
///
/// # Errors
/// When the environment asks for it.
#[cfg(feature = "trial-build")]
pub fn step(name: &str) -> Result<()> {
    use std::sync::atomic::{AtomicU64, Ordering};
    static STEPS: AtomicU64 = AtomicU64::new(0);

    let number = STEPS.fetch_add(1, Ordering::Relaxed) + 1;
    let Ok(wanted) = std::env::var(VARIABLE) else { return Ok(()) };
    if wanted == format!("fail@{number}") {
        anyhow::bail!("step {number} ({name}) fails, as {VARIABLE} asks");
    }
    if wanted == format!("die@{number}") {
        eprintln!("step {number} ({name}): dies, as {VARIABLE} asks");
        // As kill -9 would: nothing is cleaned up.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
    Ok(())
}
