//! The one front door of this repository: `cargo xtask COMMAND`.
//!
//! Every command first sets up what it needs and says what it does; none asks a question. One file, one noun:
//! [`host`] is this machine and this clone, [`step`] one announced command, [`packages`] what Debian provides,
//! [`tools`] what cargo installs into `.tools`, [`setup`] brings them together; [`program`], [`suite`], [`lint`],
//! [`fuzz`] and [`vm`] are the work; [`dashboard`] writes a file that is made; [`tidy`] keeps the rules that no compiler
//! knows.

use std::{num::NonZeroUsize, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};
use host::Host;
use setup::Need;

mod dashboard;
mod each;
mod fuzz;
mod host;
mod lint;
mod packages;
mod program;
mod setup;
mod step;
mod suite;
mod tidy;
#[path = "../../dnswall-agent/build/toolchain.rs"]
mod toolchain;
mod tools;
mod vm;

/// Set up, build, run and check dnswall.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install whatever is missing to build, test and lint.
    Setup {
        /// Only what building needs, not what the tests and the lints need.
        #[arg(long)]
        build_only: bool,
    },
    /// Set up and build the agent (release).
    Build,
    /// Set up, build and run the agent in the foreground: audit mode, live alerts. Extra arguments go to `dnswall agent run`.
    Run {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Set up and run every test. Extra arguments go to `cargo nextest run`.
    Test {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Formatting, clippy for the host and for the kernel programs, tidy, licences.
    Lint,
    /// This project's own rules, with file, line and rule.
    Tidy,
    /// Write the dashboard for Grafana anew: deploy/grafana/dnswall.json.
    Dashboard,
    /// Measure the kernel programs, in nanoseconds per packet. Extra arguments go to the benchmark.
    Bench {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Load every program and compare the verifier's instruction counts with the budget. Extra arguments go to the check.
    Verify {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Set up, build, and play rounds of deaths, upgrades, rollbacks and policy flips under a constant flood; fails when one
    /// forbidden packet arrived or one allowed one was refused.
    Soak {
        #[arg(long, default_value_t = 1_000)]
        rounds: u32,
    },
    /// Set up, build and play the demo: a small server under attack, in namespaces of its own.
    Demo {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Boot other kernels in QEMU, run the checks on each, and print a table. Extra arguments are parts of test names.
    Vm {
        /// Series, separated by commas; `newest` is the newest in Debian's archive.
        #[arg(long = "kernel", value_delimiter = ',', default_value = vm::SERIES)]
        kernels: Vec<vm::Series>,
        /// What to look at, separated by commas; everything unless told.
        #[arg(long = "check", value_enum, value_delimiter = ',')]
        checks: Vec<vm::Check>,
        /// Use this machine's hardware virtualisation instead of emulation.
        #[arg(long)]
        kvm: bool,
        /// How many guests run at a time; a guest is busy with one to two processors.
        #[arg(long, default_value = "1")]
        guests: NonZeroUsize,
        /// Only tests whose name contains one of these.
        filters: Vec<String>,
    },
    /// Set up, and let every target look for input that breaks it; or one target.
    Fuzz {
        /// How long each target looks.
        #[arg(long, default_value_t = fuzz::SECONDS)]
        seconds: u64,
        /// config, control, event, packet, policy, question or kernel.
        target: Option<String>,
    },
    /// What the CI does: test, fuzz for a short while, load the programs on other kernels, then lint.
    Ci,
}

fn main() -> ExitCode {
    match perform(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(command: Command) -> Result<()> {
    let host = Host::find()?;
    match command {
        Command::Setup { build_only: true } => setup::ensure(&host, &[Need::Build]),
        Command::Setup { build_only: false } => {
            // The kernels for guests come through apt: elsewhere there are none to boot.
            let guests = packages::apt_is_here().then_some(Need::Guests);
            let needs = [Need::Build, Need::Test, Need::Lint, Need::Fuzz];
            let needs: Vec<Need> = needs.into_iter().chain(guests).collect();
            setup::ensure(&host, &needs)
        }
        Command::Build => program::build_agent(&host).map(|path| println!("built {}", path.display())),
        Command::Run { arguments } => program::run_agent(&host, &arguments),
        Command::Test { arguments } => suite::run(&host, &arguments),
        Command::Lint => lint::run(&host),
        Command::Tidy => tidy::run(&host),
        Command::Dashboard => dashboard::write(&host),
        Command::Bench { arguments } => program::run_bench(&host, &arguments),
        Command::Verify { arguments } => program::run_measure(&host, "verify", &arguments),
        Command::Soak { rounds } => program::run_soak(&host, rounds),
        Command::Demo { arguments } => program::run_demo(&host, &arguments),
        Command::Vm { kernels, checks, kvm, guests, filters } => {
            let checks = if checks.is_empty() { vm::Check::ALL.to_vec() } else { checks };
            vm::run(&host, &vm::Run { kernels, checks, filters, kvm, guests })
        }
        Command::Fuzz { seconds, target } => fuzz::run(&host, seconds, target.as_deref()),
        Command::Ci => suite::run(&host, &[])
            .and_then(|()| fuzz::run(&host, fuzz::SECONDS_IN_CI, None))
            .and_then(|()| vm::run(&host, &vm::Run::in_ci()))
            .and_then(|()| lint::run(&host)),
    }
}

/// The names of all commands, for the rule that the documentation mentions each.
fn command_names() -> Vec<String> {
    use clap::CommandFactory as _;
    Arguments::command().get_subcommands().map(|command| command.get_name().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn arguments_after_a_command_are_passed_on_untouched() {
        let parsed = Arguments::parse_from(["xtask", "test", "-E", "binary(e2e)", "--no-capture"]);
        let Command::Test { arguments } = parsed.command else { panic!("not the test command") };
        assert_eq!(arguments, ["-E", "binary(e2e)", "--no-capture"]);
        let parsed = Arguments::parse_from(["xtask", "run", "--policy", "p.toml"]);
        let Command::Run { arguments } = parsed.command else { panic!("not the run command") };
        assert_eq!(arguments, ["--policy", "p.toml"]);
    }

    #[test]
    fn kernels_and_checks_are_lists() {
        let parsed = Arguments::parse_from([
            "xtask",
            "vm",
            "--kernel",
            "6.1,newest",
            "--check",
            "load,packets",
            "dns",
        ]);
        let Command::Vm { kernels, checks, kvm, filters, .. } = parsed.command else {
            panic!("not the vm command")
        };
        assert_eq!(kernels, [vm::Series::Numbered(6, 1), vm::Series::Newest]);
        assert_eq!(checks, [vm::Check::Load, vm::Check::Packets]);
        assert!(!kvm && filters == ["dns"]);
        let Command::Vm { kernels, .. } = Arguments::parse_from(["xtask", "vm"]).command else {
            panic!("no")
        };
        assert_eq!(kernels.len(), 4);
    }

    #[test]
    fn every_command_has_a_name() {
        let names = command_names();
        for name in [
            "setup", "build", "run", "test", "lint", "tidy", "bench", "verify", "soak", "demo", "vm", "fuzz",
            "ci",
        ] {
            assert!(names.iter().any(|known| known == name), "{name} is missing from {names:?}");
        }
    }
}
