//! The programs this workspace builds, and running them: the agent, the demo, the measurements.

use std::{fs, os::unix::process::CommandExt as _, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    host::Host,
    packages,
    setup::{self, Need},
    step,
};

/// Sets up, builds the agent as it is shipped, and says where it is.
pub fn build_agent(host: &Host) -> Result<PathBuf> {
    setup::ensure(host, &[Need::Build])?;
    step::run(host.cargo().args(["build", "--release", "--package", "dnswall-agent", "--bin", "dnswall"]))?;
    Ok(host.target.join("release/dnswall"))
}

/// Builds the agent and becomes it: default policy, audit mode, alerts on this terminal, until Ctrl-C.
pub fn run_agent(host: &Host, arguments: &[String]) -> Result<()> {
    let agent = build_agent(host)?;
    let mut command = host.as_root(&agent, "attaching the wall to the kernel")?;
    command.args(["agent", "run"]).args(arguments);
    if arguments.is_empty() {
        let agent = agent.display();
        step::say(
            "a host without a policy of its own is only watched (audit mode): what would be refused is shown here.",
        );
        step::say(&format!("In another terminal: `{agent} policy show`, `{agent} status`."));
        step::say(&format!("Ctrl-C ends the agent; `{agent} agent detach` takes the wall down afterwards."));
    }
    become_program(command)
}

/// Builds the agent and plays the demo.
pub fn run_demo(host: &Host, arguments: &[String]) -> Result<()> {
    let agent = build_agent(host)?;
    let mut command = host.as_root(&agent, "the demo, which makes namespaces and a cgroup of its own,")?;
    command.arg("demo").args(arguments);
    become_program(command)
}

/// Measures; questions also beside the servers that refuse names, which are installed where apt is and left out elsewhere.
pub fn run_bench(host: &Host, arguments: &[String]) -> Result<()> {
    if packages::apt_is_here() && arguments.first().is_some_and(|measure| measure == "names") {
        setup::ensure(host, &[Need::Peers])?;
    }
    run_measure(host, "bench", arguments)
}

/// Builds one of the measuring programs of the tests package, and runs it as root.
pub fn run_measure(host: &Host, name: &str, arguments: &[String]) -> Result<()> {
    setup::ensure(host, &[Need::Build])?;
    let build = ["build", "--release", "--package", "dnswall-tests", "--package", "dnswall-agent"];
    step::run(host.cargo().args(build).args(["--bin", name, "--bin", "probe", "--bin", "dnswall"]))?;
    let program = host.target.join("release").join(name);
    let mut command = host.as_root(&program, "loading programs into the kernel")?;
    command.current_dir(&host.root).args(arguments);
    step::run(&mut command)
}

/// Builds the agent for tests: twice as the tests of upgrades need it, each copied to a place of its own, then as it is.
pub fn build_for_tests(host: &Host, profile: Profile) -> Result<()> {
    let build = ["build", "--package", "dnswall-agent", "--bin", "dnswall", "--profile", profile.name()];
    let agent = profile.agent(host);
    for (trial, copy) in TRIALS.iter().zip(profile.trial_agents(host)) {
        step::run(host.cargo().args(build).args(["--features", trial]))?;
        // A test that runs may hold the one before: the name gets a new file.
        let fresh = copy.with_extension("new");
        fs::copy(&agent, &fresh)
            .and_then(|_| fs::rename(&fresh, &copy))
            .with_context(|| format!("copy the agent to {}", copy.display()))?;
    }
    step::run(host.cargo().args(build))
}

/// Builds what the soak needs, and runs it as root.
pub fn run_soak(host: &Host, rounds: u32) -> Result<()> {
    setup::ensure(host, &[Need::Build])?;
    build_for_tests(host, Profile::Dev)?;
    step::run(host.cargo().args(["build", "--package", "dnswall-tests", "--bin", "soak", "--bin", "probe"]))?;
    let program = host.target.join("debug/soak");
    let mut command = host.as_root(&program, "the soak, which makes namespaces and a cgroup of its own,")?;
    command.current_dir(&host.root).args(["--rounds", &rounds.to_string()]);
    step::run(&mut command)
}

/// Features of the agent that make another build of it.
const TRIALS: [&str; 2] = ["trial-build", "trial-abi"];

/// How cargo builds what tests use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// As while it is developed.
    Dev,
    /// For an emulated processor.
    Guest,
}

impl Profile {
    /// What cargo calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dev => "dev",
            Self::Guest => "guest",
        }
    }

    /// Where the tests find the agent that was built with them.
    pub fn agent(self, host: &Host) -> PathBuf {
        let directory = match self {
            Self::Dev => "debug",
            Self::Guest => "guest",
        };
        host.target.join(directory).join("dnswall")
    }

    /// The same of the builds for tests of upgrades.
    pub fn trial_agents(self, host: &Host) -> [PathBuf; 2] {
        TRIALS.map(|trial| self.agent(host).with_file_name(format!("dnswall-{trial}")))
    }
}

/// Replaces this process, so that signals and the terminal belong to the program alone.
fn become_program(mut command: Command) -> Result<()> {
    step::say(&step::shown(&command));
    Err(command.exec()).with_context(|| format!("run `{}`", step::shown(&command)))
}
