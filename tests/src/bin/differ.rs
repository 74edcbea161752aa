//! `differ SECONDS`: random packets through the kernel's programs and the host's reader until they disagree.

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use dnswall_tests::differ::Differ;

/// Packets between two looks at the clock.
const ROUND: usize = 1000;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let seconds: u64 = std::env::args().nth(1).context("how many seconds?")?.parse().context("read them")?;
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).context("read the clock")?.as_nanos() as u64;
    println!("seed {seed}");
    let mut differ = Differ::new(seed)?;
    differ.replay()?;
    let until = Instant::now() + Duration::from_secs(seconds);
    let (mut packets, mut passed) = (0, 0);
    while Instant::now() < until {
        passed += differ.rounds(ROUND)?;
        packets += ROUND;
    }
    println!("{packets} packets, {passed} of them passed: kernel and host agree on every one");
    Ok(())
}
