//! A flood of refusals: every one of them is in the count of an alert, or counted as what became of it; and an alert of
//! somebody else's comes through it. How fast it was is said and not judged: that is the machine's.

use std::time::Duration;

use anyhow::{Result, ensure};
use dnswall_tests::flood::{Flood, RARE_WITHIN};
use dnswall_tests::pace::within;

const TAKES: Duration = Duration::from_secs(10);

fn check(flood: &Flood) -> Result<()> {
    let outcome = flood.run()?;
    let (rate, rare) = (outcome.rate, outcome.rare);
    eprintln!("{rate:.0} refusals a second; the other one's alert after {rare:?}; {:?}", outcome.account);
    ensure!(rare <= within(RARE_WITHIN), "the other one's alert took {rare:?}");
    Ok(())
}

#[test]
fn one_destination_again_and_again() -> Result<()> {
    check(&Flood::at_one(2, TAKES))
}

#[test]
fn more_destinations_than_anybody_remembers() -> Result<()> {
    check(&Flood::at_ever_new(1, TAKES))
}
