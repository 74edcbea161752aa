//! Loads every program and compares what the verifier walked with the budget in `tests/verifier-budget.toml`.
//!
//! Verifiers differ, and the budget has a table for those that do; a kernel is held to that of the newest series which
//! is not newer than itself. Kernels before 5.16 do not tell the count: there, what loads is within the kernel's own
//! limit, and that is all that is known. `--write` records what was seen.
//!
//! Exit code 1: a program is over its budget. 2: one does not load, or something else went wrong.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use dnswall_agent::kernel::hook::HOOKS;
use dnswall_agent::kernel::object::{self, Loaded};
use dnswall_tests::lab::budget::{Budget, KERNEL_LIMIT, TELLS_FROM, series};

fn main() -> ExitCode {
    match run(std::env::args().any(|argument| argument == "--write")) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(write: bool) -> Result<bool> {
    let kernel = series(&rustix::system::uname().release().to_string_lossy())?;
    let seen = walked()?;
    println!("{:16} {:>9} {:>9} {:>9}", "program", "walked", "budget", "of limit");
    if kernel < TELLS_FROM {
        for program in seen.keys() {
            println!("{program:16} {:>9} {KERNEL_LIMIT:>9} {:>9}", "loads", "untold");
        }
        return Ok(true);
    }
    let seen: BTreeMap<String, u32> = seen
        .into_iter()
        .map(|(program, count)| Some((program, count?)))
        .collect::<Option<_>>()
        .context("this kernel does not tell what its verifier walked, and those of its age do")?;
    let path = budget_path();
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let mut budget = Budget::read(&text)?;
    if write {
        budget.record(kernel, &seen);
        std::fs::write(&path, budget.text()).with_context(|| format!("write {}", path.display()))?;
    }
    let (_, table) = budget.of(kernel).context("the budget has no table for a kernel of this age")?;
    let mut fits = true;
    for (program, count) in &seen {
        let allowed = table.get(program).copied().unwrap_or(0);
        let share = f64::from(*count) * 100.0 / f64::from(KERNEL_LIMIT);
        let verdict = if *count <= allowed { "" } else { "  over budget" };
        println!("{program:16} {count:>9} {allowed:>9} {share:>8.1}%{verdict}");
        fits &= *count <= allowed;
    }
    Ok(fits)
}

/// Instructions the verifier walked, by program, where the kernel tells.
fn walked() -> Result<BTreeMap<String, Option<u32>>> {
    let Loaded { ebpf, missing } = object::load(None)?;
    HOOKS
        .iter()
        .filter(|hook| !missing.iter().any(|missing| missing.program == hook.program))
        .map(|hook| {
            let program = ebpf.program(hook.program).with_context(|| format!("find {}", hook.program))?;
            Ok((hook.program.to_owned(), program.info()?.verified_instruction_count()))
        })
        .collect()
}

fn budget_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("verifier-budget.toml")
}
