//! A few rounds of what `cargo xtask soak` does a thousand of.

use anyhow::Result;
use dnswall_tests::soak;

#[test]
fn nothing_leaks_and_nothing_is_refused_over_deaths_upgrades_and_flips() -> Result<()> {
    let sum = soak::run(ROUNDS, |_, _| {})?;
    println!("{sum}");
    sum.verdict()
}

/// Everything that can happen, some of it twice.
const ROUNDS: usize = 20;
