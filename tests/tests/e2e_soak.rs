//! A few rounds of what `cargo xtask soak` does a thousand of.

use anyhow::Result;
use dnswall_tests::pace::times;
use dnswall_tests::soak;

/// Everything that can happen, some of it twice.
#[test]
fn nothing_leaks_and_nothing_is_refused_over_deaths_upgrades_and_flips() -> Result<()> {
    let sum = soak::run(times(20, 12), |_, _| {})?;
    println!("{sum}");
    sum.verdict()
}
