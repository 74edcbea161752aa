//! Hostile input: builds the checks of `fuzz/` with libFuzzer and lets each look for what breaks it.
//!
//! The compiler that builds everything else will do: what libFuzzer follows is put in by options of its code generator,
//! and the checks hold no unsafe code that a sanitizer would have to watch. `cargo fuzz` works here too.

use std::{fs, num::NonZeroUsize, path::Path, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::{
    each::each,
    host::Host,
    setup::{self, Need},
    step,
    suite::host_target,
};

/// The targets that run in libFuzzer; each has a corpus of its name.
pub const TARGETS: [&str; 7] = ["config", "control", "event", "list", "packet", "policy", "question"];
/// Packets through the kernel's programs, compared with the host's reader: no libFuzzer, but root.
pub const KERNEL: &str = "kernel";
/// Seconds for each target, unless said otherwise.
pub const SECONDS: u64 = 60;
/// Seconds for each target in CI.
pub const SECONDS_IN_CI: u64 = 20;

/// Targets that run at the same time: each keeps one processor busy.
const AT_A_TIME: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);

/// Bytes of one input; the files of a corpus are no longer.
const INPUT_BYTES_MAX: u32 = 4096;
/// Seconds for one input. The longest takes milliseconds.
const INPUT_SECONDS_MAX: u32 = 10;
/// Megabytes of memory for one target.
const MEMORY_MB_MAX: u32 = 2048;

/// Coverage of edges and comparisons, as `cargo fuzz` asks for it.
const FLAGS: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// Runs one target or all of them, each for so long; all have their turn before a finding is an error.
pub fn run(host: &Host, seconds: u64, target: Option<&str>) -> Result<()> {
    let chosen: Vec<&str> = match target {
        Some(KERNEL) => Vec::new(),
        Some(target) if TARGETS.contains(&target) => vec![target],
        Some(other) => bail!("there is no target {other}; there are {} and {KERNEL}", TARGETS.join(", ")),
        None => TARGETS.to_vec(),
    };
    let mut found = Vec::new();
    if !chosen.is_empty() {
        setup::ensure(host, &[Need::Fuzz])?;
        let programs = build(host)?;
        let hunts = each(&chosen, AT_A_TIME, |target| Ok(hunt(host, &programs, target, seconds)))?;
        for (target, hunt) in chosen.iter().zip(hunts) {
            if let Err(error) = hunt {
                eprintln!("{error:#}");
                found.push(*target);
            }
        }
    }
    if target.is_none_or(|target| target == KERNEL)
        && let Err(error) = differ(host, seconds)
    {
        eprintln!("{error:#}");
        found.push(KERNEL);
    }
    if !found.is_empty() {
        bail!("found something: {}", found.join(", "));
    }
    step::say("nothing found");
    Ok(())
}

/// Builds all of them; the directory they are in.
fn build(host: &Host) -> Result<PathBuf> {
    let target = host.target.join("fuzz");
    fs::create_dir_all(&target).with_context(|| format!("make {}", target.display()))?;
    // No check loads the kernel's programs, so none are built.
    let object = target.join("no-object");
    fs::write(&object, "").with_context(|| format!("write {}", object.display()))?;
    let mut cargo = host.cargo();
    cargo.args(["build", "--package", "dnswall-fuzz", "--features", "libfuzzer", "--profile", "fuzz"]);
    for name in TARGETS {
        cargo.args(["--bin", name]);
    }
    // With a target, what runs while building is built without the options.
    cargo.args(["--target", &host_target()]).arg("--target-dir").arg(&target);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f")).env("DNSWALL_BPF_OBJECT", &object);
    step::run(&mut cargo)?;
    Ok(target.join(host_target()).join("fuzz"))
}

/// One target. What it learns stays in the target directory; what breaks it is kept there and named.
fn hunt(host: &Host, programs: &Path, target: &str, seconds: u64) -> Result<()> {
    let learnt = host.target.join("fuzz/learnt").join(target);
    let broken = host.target.join("fuzz/broken");
    for directory in [&learnt, &broken] {
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    }
    let mut command = Command::new(programs.join(target));
    command.current_dir(&host.root);
    command.arg(&learnt).arg(host.root.join("fuzz/corpus").join(target));
    command.args([
        format!("-max_total_time={seconds}"),
        format!("-max_len={INPUT_BYTES_MAX}"),
        format!("-timeout={INPUT_SECONDS_MAX}"),
        format!("-rss_limit_mb={MEMORY_MB_MAX}"),
        format!("-artifact_prefix={}/{target}-", broken.display()),
        "-print_final_stats=1".to_owned(),
        "-verbosity=0".to_owned(),
        "-print_funcs=0".to_owned(),
    ]);
    step::run(&mut command).with_context(|| {
        format!(
            "{target} broke on the input named above, in {}.\n\
             Mend it, then keep the input, made small (`{} -minimize_crash=1 FILE`), as fuzz/corpus/{target}/NAME: \
             `cargo xtask test` replays it from then on",
            broken.display(),
            programs.join(target).display()
        )
    })
}

/// The kernel's programs beside the host's reader. Built as the tests are: the kernel runs the same object either way.
fn differ(host: &Host, seconds: u64) -> Result<()> {
    setup::ensure(host, &[Need::Build])?;
    step::run(host.cargo().args(["build", "--package", "dnswall-tests", "--bin", "differ"]))?;
    let mut command = host.as_root(host.target.join("debug/differ"), "loading programs into the kernel")?;
    step::run(command.current_dir(&host.root).arg(seconds.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_a_program_with_a_corpus() {
        let fuzz = Host::find().expect("a clone").root.join("fuzz");
        for target in TARGETS {
            assert!(fuzz.join("fuzz_targets").join(target).with_extension("rs").exists(), "{target}");
            assert!(fuzz.join("corpus").join(target).is_dir(), "{target}");
        }
        assert_eq!(fs::read_dir(fuzz.join("fuzz_targets")).expect("the targets").count(), TARGETS.len());
    }

    #[test]
    fn an_unknown_target_is_told_the_known_ones() {
        let error = run(&Host::find().expect("a clone"), 1, Some("x")).expect_err("no such target");
        assert!(error.to_string().contains("config, control"), "{error}");
    }
}
