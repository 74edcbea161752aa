//! Deaths, upgrades, rollbacks and policy flips under a constant flood, round after round; prints the numbers, and
//! fails when one forbidden packet arrived or one allowed one was refused.

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use dnswall_tests::soak;

/// Rounds of deaths, upgrades, rollbacks and policy flips under a constant flood.
#[derive(Parser)]
struct Arguments {
    /// Rounds; each is one such thing.
    #[arg(long, default_value_t = 1_000)]
    rounds: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let start = Instant::now();
    let sum = soak::run(arguments.rounds, |round, name| {
        if round.is_multiple_of(SHOWN_EVERY) {
            println!("{:>6} s  round {round}: {name}", start.elapsed().as_secs());
        }
    });
    match sum.and_then(|sum| {
        println!("{sum}");
        sum.verdict()
    }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

const SHOWN_EVERY: usize = 25;
