//! The lints: formatting, clippy for both targets with warnings as errors, tidy, licences. All run; all are reported.

use std::process::Command;

use anyhow::{Result, anyhow, bail};

use crate::{
    host::Host,
    setup::{self, Need},
    step, tidy,
    toolchain::{LINKER_VARIABLE, Toolchain, find_linker, succeeds},
    tools::DENY,
};

/// The target of the kernel programs.
const KERNEL_TARGET: &str =
    if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };

/// One lint: an error says that it was not passed.
type Lint = fn(&Host) -> Result<()>;

/// Sets up and runs every lint; fails when any does, after all have had their say.
pub fn run(host: &Host) -> Result<()> {
    setup::ensure(host, &[Need::Build, Need::Lint])?;
    let lints: [(&str, Lint); 5] = [
        ("formatting", formatting),
        ("clippy for the host", host_clippy),
        ("clippy for the kernel programs", kernel_clippy),
        ("tidy", tidy::run),
        ("licences, bans and sources", licences),
    ];
    let mut failed = Vec::new();
    for (name, lint) in lints {
        if let Err(error) = lint(host) {
            eprintln!("{name}: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    step::say("all lints passed");
    Ok(())
}

fn formatting(host: &Host) -> Result<()> {
    step::run(host.cargo().args(["fmt", "--all", "--check"]))
}

fn host_clippy(host: &Host) -> Result<()> {
    // Without --workspace: the default members are all but the kernel programs, which do not build for a host.
    step::run(host.cargo().args(["clippy", "--all-targets", "--", "--deny", "warnings"]))
}

/// Clippy of the toolchain that builds the object: no other accepts its `core`. Where it has none, its compiler's own
/// warnings must do, and that is said.
fn kernel_clippy(host: &Host) -> Result<()> {
    let Ok(toolchain) = Toolchain::find() else {
        bail!(
            "no toolchain here can build the kernel programs, so they cannot be linted; `cargo xtask setup`"
        );
    };
    let linker =
        find_linker(&host.root).ok_or_else(|| anyhow!("bpf-linker is missing; `cargo xtask setup`"))?;
    let has_clippy = succeeds(toolchain.command("cargo-clippy").arg("--version"));
    if !has_clippy {
        step::say(&format!(
            "toolchain {} has no clippy: its compiler's warnings are all that is checked here",
            toolchain.name
        ));
    }
    step::run(kernel_check(host, &toolchain, has_clippy).env(LINKER_VARIABLE, linker))
}

fn kernel_check(host: &Host, toolchain: &Toolchain, has_clippy: bool) -> Command {
    let mut command = toolchain.command("cargo");
    command.current_dir(&host.root).arg(if has_clippy { "clippy" } else { "check" });
    command.args(["--package", "dnswall-ebpf", "--release", "--target", KERNEL_TARGET, "-Zbuild-std=core"]);
    command.arg("--target-dir").arg(host.target.join("kernel-lint"));
    // As the build script does it: only this inner build may use what a stable compiler calls unstable.
    command.env("RUSTC_BOOTSTRAP", "1");
    command.env_remove("RUSTC").env_remove("RUSTC_WORKSPACE_WRAPPER").env_remove("CARGO");
    let mut flags = format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH);
    if has_clippy {
        command.args(["--", "--deny", "warnings"]);
    } else {
        flags.push_str("\u{1f}-Dwarnings");
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", flags);
    command
}

/// Advisories need a database from the network and are left to a scheduled job. The crates of every platform are looked
/// at, and building has fetched those of this one alone.
fn licences(host: &Host) -> Result<()> {
    step::run(host.cargo().args(["fetch", "--locked", "--quiet"]))?;
    let mut command = Command::new(DENY.locate(host)?);
    command.current_dir(&host.root).env("CARGO_NET_OFFLINE", "true");
    step::run(command.args(["--all-features", "check", "licenses", "bans", "sources"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(has_clippy: bool) -> String {
        let host = Host::find().expect("a clone");
        let toolchain = Toolchain { name: "/usr".to_owned(), rustup: true };
        step::shown(&kernel_check(&host, &toolchain, has_clippy))
    }

    #[test]
    fn warnings_in_the_kernel_programs_are_errors_either_way() {
        assert!(check(true).contains("cargo clippy --package dnswall-ebpf"), "{}", check(true));
        assert!(check(true).ends_with("-- --deny warnings"), "{}", check(true));
        assert!(
            check(false).contains("-Dwarnings") && check(false).contains("cargo check"),
            "{}",
            check(false)
        );
    }
}
