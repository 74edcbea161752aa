//! The test suite: every test of the workspace, as root, none skipped.

use anyhow::{Result, bail};

use crate::{
    host::{Host, Privilege},
    program::{self, Profile},
    setup::{self, Need},
    step,
    tools::NEXTEST,
};

/// Sets up, runs the examples in the documentation and then all tests; arguments go to the test runner.
pub fn run(host: &Host, arguments: &[String]) -> Result<()> {
    setup::ensure(host, &[Need::Build, Need::Test])?;
    let runner = host.root_runner("the test suite (it loads kernel programs and makes namespaces)")?;
    if host.privilege == Privilege::SudoAsking {
        step::say("the tests run as root: sudo asks for your password once");
        step::run(std::process::Command::new("sudo").arg("--validate"))?;
    }
    program::build_for_tests(host, Profile::Dev)?;

    // The runner goes last, so that its summary is the last thing on the terminal.
    let examples = step::status(host.cargo().args(["test", "--doc", "--quiet"]))?;

    let mut nextest = host.cargo();
    let own = NEXTEST.locate(host)?;
    if own.starts_with(&host.root) {
        nextest = std::process::Command::new(own);
        nextest.current_dir(&host.root);
    }
    nextest.args(["nextest", "run"]).args(arguments);
    nextest.env("DNSWALL_BIN", Profile::Dev.agent(host));
    if let Some(runner) = runner {
        nextest.env(runner_variable(), runner);
    }
    let tests = step::status(&mut nextest)?;

    match (examples.success(), tests.success()) {
        (true, true) => Ok(()),
        (false, true) => bail!("the examples in the documentation failed ({examples}); see above"),
        (true, false) => bail!("the tests failed ({tests})"),
        (false, false) => {
            bail!("the examples in the documentation failed ({examples}), and the tests ({tests})")
        }
    }
}

/// What cargo calls the runner setting of the machine we are on.
fn runner_variable() -> String {
    format!("CARGO_TARGET_{}_RUNNER", host_target().to_uppercase().replace('-', "_"))
}

/// What the compiler calls the machine we are on.
pub fn host_target() -> String {
    format!("{}-unknown-linux-{}", std::env::consts::ARCH, ENVIRONMENT)
}

const ENVIRONMENT: &str = if cfg!(target_env = "musl") { "musl" } else { "gnu" };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runner_variable_is_cargos() {
        let variable = runner_variable();
        assert!(variable.starts_with("CARGO_TARGET_") && variable.ends_with("_RUNNER"), "{variable}");
        assert!(!variable.contains('-') && variable == variable.to_uppercase(), "{variable}");
    }
}
