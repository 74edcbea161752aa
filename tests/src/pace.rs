//! How long to wait: takes a limit for a machine that runs its own instructions, gives the one for this machine.
//!
//! `DNSWALL_TEST_SLOWNESS` says how many times slower this one is (`cargo xtask vm` sets it in an emulated guest). It
//! stretches how long something may take, never how much of it may go wrong; what is only tried again and again is tried less
//! often ([`times`]).

use std::sync::LazyLock;
use std::time::Duration;

/// How often something is repeated: on a machine that runs its own instructions, and on one that is slower.
pub fn times<T>(here: T, slower: T) -> T {
    if *SLOWNESS == 1 { here } else { slower }
}

/// Microseconds between two errands of a flood. A slower machine needs longer for one than a faster one rests: an agent
/// beside it would have no processor to load its programs on.
pub fn flood_pause_us() -> u64 {
    times(1_000, 20_000)
}

/// The limit, stretched.
///
/// # Panics
/// When the variable is no number from 1 to 100.
pub fn within(limit: Duration) -> Duration {
    limit * *SLOWNESS
}

static SLOWNESS: LazyLock<u32> = LazyLock::new(|| {
    let Ok(text) = std::env::var(VARIABLE) else { return 1 };
    let slowness = text.parse().ok().filter(|slowness| (1..=SLOWNESS_MAX).contains(slowness));
    slowness.unwrap_or_else(|| panic!("{VARIABLE}={text}: a number from 1 to {SLOWNESS_MAX}"))
});

const VARIABLE: &str = "DNSWALL_TEST_SLOWNESS";
const SLOWNESS_MAX: u32 = 100;
