//! This machine and this clone: where things are, who runs us, and how to become root.

use std::{
    env, fs,
    io::{self, IsTerminal as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::toolchain;

/// What every command needs to know of where it runs.
pub struct Host {
    /// The root of this clone.
    pub root: PathBuf,
    /// Where cargo puts what it builds.
    pub target: PathBuf,
    /// How root's work is done.
    pub privilege: Privilege,
}

/// How something that needs root is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// We are root.
    Root,
    /// sudo works without a question.
    Sudo,
    /// sudo will ask for a password on this terminal.
    SudoAsking,
    /// Neither.
    None,
}

impl Host {
    /// Looks at this machine; fails outside a clone of this repository.
    pub fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let root = root.canonicalize().with_context(|| format!("open this clone at {}", root.display()))?;
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(directory) => root.join(directory),
            None => root.join("target"),
        };
        Ok(Self { root, target, privilege: Privilege::find() })
    }

    /// cargo, as it runs us, in this clone.
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root).env("RUSTUP_AUTO_INSTALL", "0");
        command
    }

    /// The program as root; fails with what to do when nobody here can become root.
    pub fn as_root(&self, program: impl AsRef<Path>, why: &str) -> Result<Command> {
        let mut command = Command::new("sudo");
        match self.privilege {
            Privilege::Root => return Ok(Command::new(program.as_ref())),
            Privilege::Sudo => command.args(["--non-interactive", "--preserve-env", "--"]),
            Privilege::SudoAsking => command.args(["--preserve-env", "--"]),
            Privilege::None => bail!(
                "{why} needs root, and this is user {} with no sudo that works here.\n\
                 Do this: run the same command as root, or install sudo and allow this user to use it.",
                effective_user()
            ),
        };
        command.arg(program.as_ref());
        Ok(command)
    }

    /// What cargo puts before each test binary so that it runs as root; `None` when we are root already.
    pub fn root_runner(&self, why: &str) -> Result<Option<String>> {
        let command = self.as_root("", why)?;
        if self.privilege == Privilege::Root {
            return Ok(None);
        }
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        Ok(Some(format!("sudo {}", words.join(" ")).trim_end().to_owned()))
    }

    /// A program installed below `.tools` of this clone.
    pub fn tool(&self, name: &str) -> PathBuf {
        self.root.join(".tools/bin").join(name)
    }
}

impl Privilege {
    fn find() -> Self {
        if effective_user() == 0 {
            return Self::Root;
        }
        let sudo = || Command::new("sudo");
        if toolchain::succeeds(sudo().args(["--non-interactive", "true"])) {
            return Self::Sudo;
        }
        if io::stdin().is_terminal() && toolchain::succeeds(sudo().arg("--version")) {
            return Self::SudoAsking;
        }
        Self::None
    }
}

/// The effective user id: the owner of our own entry in /proc.
fn effective_user() -> u32 {
    fs::metadata("/proc/self").map_or(u32::MAX, |own| own.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(privilege: Privilege) -> Host {
        Host { root: "/clone".into(), target: "/clone/target".into(), privilege }
    }

    #[test]
    fn root_runs_things_directly_and_others_through_sudo() {
        let direct = host(Privilege::Root).as_root("apt-get", "installing").expect("root can");
        assert_eq!(direct.get_program(), "apt-get");
        let through = host(Privilege::Sudo).as_root("apt-get", "installing").expect("sudo can");
        assert_eq!(crate::step::shown(&through), "sudo --non-interactive --preserve-env -- apt-get");
    }

    #[test]
    fn without_root_the_message_says_what_for_and_what_to_do() {
        let error = host(Privilege::None).as_root("apt-get", "installing packages").expect_err("nobody can");
        let error = error.to_string();
        assert!(error.contains("installing packages needs root") && error.contains("Do this:"), "{error}");
    }

    #[test]
    fn the_runner_of_tests_is_sudo_only_for_others_than_root() {
        assert_eq!(host(Privilege::Root).root_runner("testing").expect("root"), None);
        assert_eq!(
            host(Privilege::Sudo).root_runner("testing").expect("sudo").as_deref(),
            Some("sudo --non-interactive --preserve-env --")
        );
    }

    #[test]
    fn this_clone_is_found() {
        assert!(Host::find().expect("a clone").root.join("xtask/Cargo.toml").exists());
    }
}
