//! Loads every program and compares what the verifier walked with the budget in `tests/verifier-budget.toml`.
//!
//! A program over its budget fails; one that got much cheaper asks for the budget to be lowered, so that the next
//! regression shows. `--write` records what was seen.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use dnswall_agent::kernel::hook::HOOKS;
use dnswall_agent::kernel::object::{self, Loaded};

/// What every kernel from 5.2 on walks at most before it gives up.
const KERNEL_LIMIT: u32 = 1_000_000;
/// A budget leaves this much room above what was seen, in percent: compilers and kernels differ a little.
const ROOM_PERCENT: u32 = 15;

fn main() -> ExitCode {
    match run(std::env::args().any(|argument| argument == "--write")) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(write: bool) -> Result<bool> {
    let seen = walked()?;
    let path = budget_path();
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let mut budget: BTreeMap<String, u32> = dnswall_tests::lab::budget(&text)?;
    if write {
        // What this kernel does not load keeps its budget.
        budget.extend(seen.iter().map(|(program, count)| (program.clone(), allowed(*count))));
        std::fs::write(&path, budget_text(&budget)).with_context(|| format!("write {}", path.display()))?;
    }
    let mut fits = true;
    println!("{:16} {:>9} {:>9} {:>9}", "program", "walked", "budget", "of limit");
    for (program, count) in &seen {
        let allowed = budget.get(program).copied().unwrap_or(0);
        let share = f64::from(*count) * 100.0 / f64::from(KERNEL_LIMIT);
        let verdict = if *count <= allowed { "" } else { "  over budget" };
        println!("{program:16} {count:>9} {allowed:>9} {share:>8.1}%{verdict}");
        fits &= *count <= allowed;
    }
    Ok(fits)
}

/// Instructions the verifier walked, by program.
fn walked() -> Result<BTreeMap<String, u32>> {
    let Loaded { ebpf, missing } = object::load(None)?;
    HOOKS
        .iter()
        .filter(|hook| !missing.iter().any(|missing| missing.program == hook.program))
        .map(|hook| {
            let program = ebpf.program(hook.program).with_context(|| format!("find {}", hook.program))?;
            let count = program.info()?.verified_instruction_count();
            let count =
                count.context("this kernel does not tell what its verifier walked (5.16 and later do)")?;
            Ok((hook.program.to_owned(), count))
        })
        .collect()
}

/// What a program may take that takes this much now.
fn allowed(count: u32) -> u32 {
    (count + count * ROOM_PERCENT / 100).min(KERNEL_LIMIT)
}

fn budget_text(budget: &BTreeMap<String, u32>) -> String {
    let mut text =
        "# Instructions the verifier may walk, by program. Written by `cargo xtask verify --write`.\n"
            .to_owned();
    for (program, allowed) in budget {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{program} = {allowed}");
    }
    text
}

fn budget_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("verifier-budget.toml")
}
