//! What runs in the guest: builds the agent and the tests as `cargo xtask test` does, and lists the jobs of each check.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use serde_json::Value;

use crate::{
    host::Host,
    program::{self, Profile},
    step,
};

/// What is looked at on each kernel: a column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Check {
    /// The kernel takes every program.
    Load,
    /// Its verifier walks no more than the budget says.
    Budget,
    /// Tables of packets through the programs.
    Packets,
    /// The end-to-end tests: behaviour, ways around, take-over, policy swap.
    Behaviour,
}

impl Check {
    /// Every check, in the order of the table.
    pub const ALL: [Self; 4] = [Self::Load, Self::Budget, Self::Packets, Self::Behaviour];

    /// What one of its jobs may take, in the guest's own seconds. The soak's rounds take an emulated guest an hour when it is not
    /// alone; nothing that the CI does there may hang for so long.
    pub const fn job_secs_max(self) -> u64 {
        match self {
            Self::Behaviour => 3600,
            Self::Load | Self::Budget | Self::Packets => 1800,
        }
    }

    /// The check that a test file belongs to; `None` for what says nothing about a kernel.
    fn of_test_file(name: &str) -> Option<Self> {
        match name {
            "kernel_packets" | "kernel_questions" => Some(Self::Packets),
            _ if name.starts_with("e2e_") => Some(Self::Behaviour),
            _ => None,
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Load => "load",
            Self::Budget => "budget",
            Self::Packets => "packets",
            Self::Behaviour => "behaviour",
        })
    }
}

/// One thing a guest runs: it ends well or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The check it counts for; loading and the budget are one job of [`Check::Load`].
    pub check: Check,
    /// `file::test`, a file whose tests share one process, or `verify`.
    pub name: String,
    /// The program and its arguments, without spaces inside.
    pub command: Vec<String>,
}

/// Built programs.
pub struct Programs {
    /// The agent.
    pub agent: PathBuf,
    /// Other builds of it, for tests of upgrades.
    pub trials: Vec<PathBuf>,
    /// What the tests start that is ours.
    pub tools: Vec<PathBuf>,
    /// Test executables by the name of their file.
    tests: Vec<(String, PathBuf)>,
}

impl Programs {
    /// Builds what these checks need. What everybody has built anyway will do where a guest only loads programs; for
    /// behaviour it is worth building for speed.
    pub fn build(host: &Host, checks: &[Check]) -> Result<Self> {
        let behaves = checks.contains(&Check::Behaviour);
        let profile = if behaves { Profile::Guest } else { Profile::Dev };
        let mut trials = Vec::new();
        if behaves {
            program::build_for_tests(host, profile)?;
            trials.extend(profile.trial_agents(host));
        } else {
            step::run(host.cargo().args(["build", "--package", "dnswall-agent", "--bin", "dnswall"]))?;
        }
        let mut cargo = host.cargo();
        // All packages, as the test runner builds them: for one alone cargo would compile what it needs once more.
        cargo.args(["test", "--no-run", "--message-format", "json-render-diagnostics"]);
        cargo.args(["--profile", profile.name()]);
        step::say(&step::shown(&cargo));
        let output = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("run cargo")?;
        if !output.status.success() {
            bail!("the tests do not build ({})", output.status);
        }
        let mut built = Self::among(&String::from_utf8_lossy(&output.stdout), profile.agent(host));
        built.trials = trials;
        if built.tests.is_empty() {
            bail!("cargo built no tests of dnswall-tests");
        }
        Ok(built)
    }

    /// From cargo's messages.
    fn among(messages: &str, agent: PathBuf) -> Self {
        let mut built = Self { agent, trials: Vec::new(), tools: Vec::new(), tests: Vec::new() };
        for line in messages.lines() {
            let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
            let (Some(executable), Some(name)) =
                (message["executable"].as_str(), message["target"]["name"].as_str())
            else {
                continue;
            };
            if message["manifest_path"].as_str().is_none_or(|path| !path.ends_with("/tests/Cargo.toml")) {
                continue;
            }
            match (message["target"]["kind"][0].as_str(), message["profile"]["test"].as_bool()) {
                (Some("bin"), Some(false)) => built.tools.push(executable.into()),
                (Some("test"), Some(true)) => built.tests.push((name.to_owned(), executable.into())),
                _ => {}
            }
        }
        built.tests.sort();
        built
    }

    /// Every file of ours that a guest needs for these checks.
    pub fn files(&self, checks: &[Check]) -> Vec<&Path> {
        let wanted = |name: &str| Check::of_test_file(name).is_some_and(|check| checks.contains(&check));
        let tests = self.tests.iter().filter(|(name, _)| wanted(name)).map(|(_, path)| path);
        self.tools
            .iter()
            .chain([&self.agent])
            .chain(&self.trials)
            .chain(tests)
            .map(PathBuf::as_path)
            .collect()
    }

    /// The jobs of these checks: of the tests those whose name contains one of the filters.
    pub fn jobs(&self, checks: &[Check], filters: &[String]) -> Result<Vec<Job>> {
        let mut jobs = Vec::new();
        if checks.contains(&Check::Load) || checks.contains(&Check::Budget) {
            let verify = self.tools.iter().find(|tool| tool.ends_with("verify"));
            let verify = verify.context("cargo built no `verify`")?.display().to_string();
            jobs.push(Job { check: Check::Load, name: "verify".to_owned(), command: vec![verify] });
        }
        for (file, path) in &self.tests {
            let Some(check) = Check::of_test_file(file).filter(|check| checks.contains(check)) else {
                continue;
            };
            let wanted: Vec<(String, String)> = list(path)?
                .into_iter()
                .map(|test| (format!("{file}::{test}"), test))
                .filter(|(name, _)| filters.is_empty() || filters.iter().any(|part| name.contains(part)))
                .collect();
            // The tables share what they load; the others each have a process of their own, as the runner gives them.
            let groups: Vec<&[(String, String)]> = match check {
                Check::Packets if !wanted.is_empty() => vec![&wanted],
                _ => wanted.chunks(1).collect(),
            };
            jobs.extend(groups.into_iter().map(|group| {
                let mut command = vec![path.display().to_string()];
                command.extend(["--exact", "--nocapture", "--test-threads=1"].map(str::to_owned));
                command.extend(group.iter().map(|(_, test)| test.clone()));
                let name = if group.len() > 1 { file.clone() } else { group[0].0.clone() };
                Job { check, name, command }
            }));
        }
        jobs.sort_by_key(|job| job.check);
        if jobs.is_empty() {
            bail!("no test has any of these in its name: {}", filters.join(" "));
        }
        Ok(jobs)
    }
}

/// The tests of an executable, as it lists them itself.
fn list(test: &Path) -> Result<Vec<String>> {
    let output = Command::new(test).args(["--list", "--format", "terse"]).output();
    let output = output.with_context(|| format!("list the tests of {}", test.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_messages_name_what_it_built() {
        let message = |package: &str, kind: &str, name: &str, test: bool, file: &str| {
            serde_json::json!({
                "reason": "compiler-artifact",
                "manifest_path": format!("/clone/{package}/Cargo.toml"),
                "target": { "kind": [kind], "name": name },
                "profile": { "test": test },
                "executable": format!("/t/{file}"),
            })
            .to_string()
        };
        let messages = [
            "not a message".to_owned(),
            message("xtask", "bin", "xtask", false, "xtask"),
            message("tests", "bin", "verify", false, "verify"),
            message("tests", "bin", "verify", true, "deps/verify-1"),
            message("tests", "test", "e2e_dns", true, "deps/e2e_dns-1"),
            message("tests", "test", "kernel_budget", true, "deps/kernel_budget-1"),
        ];
        let messages = messages.join("\n");
        let built = Programs::among(&messages, "/t/dnswall".into());
        assert_eq!(built.tools, [PathBuf::from("/t/verify")]);
        let files: Vec<_> = built.files(&[Check::Behaviour]).into_iter().map(Path::to_path_buf).collect();
        assert_eq!(files, ["/t/verify", "/t/dnswall", "/t/deps/e2e_dns-1"].map(PathBuf::from));
        let jobs = built.jobs(&[Check::Budget], &[]).expect("verify");
        assert_eq!((jobs.len(), jobs[0].check, jobs[0].name.as_str()), (1, Check::Load, "verify"));
    }
}
