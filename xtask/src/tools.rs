//! What cargo installs into `.tools` of this clone: bpf-linker, the test runner, the licence check, a Kafka broker.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    host::Host,
    step,
    toolchain::{self, on_path, succeeds},
};

/// Where Debian keeps the LLVM that bpf-linker is compiled against.
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// A program from crates.io, at the version that was tried with the pinned compiler.
pub struct Tool {
    /// The crate, which is also the program.
    pub name: &'static str,
    /// The version, exactly.
    version: &'static str,
    features: &'static [&'static str],
    /// What its build has to know beyond [`QUICK`].
    variables: &'static [(&'static str, &'static str)],
    /// An argument with which it ends well at once.
    probe: &'static [&'static str],
}

/// Links eBPF objects. Its LLVM must be the compiler's (22 for rustc 1.95 to 1.97).
pub const BPF_LINKER: Tool = Tool {
    name: "bpf-linker",
    version: "0.13.0",
    features: &["--no-default-features", "--features", "llvm-22"],
    variables: &[("LLVM_PREFIX", LLVM_PREFIX)],
    probe: &["--version"],
};

/// Runs the tests, each in a process of its own.
pub const NEXTEST: Tool = Tool {
    name: "cargo-nextest",
    version: "0.9.143",
    features: &[],
    variables: &[],
    probe: &["nextest", "--version"],
};

/// Checks licences, bans and sources of the dependencies.
pub const DENY: Tool =
    Tool { name: "cargo-deny", version: "0.20.2", features: &[], variables: &[], probe: &["--version"] };

/// A Kafka broker that the tests send to.
pub const TANSU: Tool = Tool {
    name: "tansu",
    version: "0.6.0",
    features: &["--features", "dynostore"],
    variables: &[],
    probe: &["--version"],
};

/// A tool runs for seconds and is compiled for minutes: in a clean clone, before anything else can begin.
const QUICK: [(&str, &str); 5] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "false"),
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_STRIP", "true"),
];

impl Tool {
    /// Where it is, when it is there and starts.
    pub fn find(&self, host: &Host) -> Option<PathBuf> {
        let own = host.tool(self.name);
        let candidates = match self.name {
            // The same search as the build script's, so that what is found here is found there.
            "bpf-linker" => toolchain::find_linker(&host.root).into_iter().collect(),
            _ => [own].into_iter().chain(on_path(self.name)).collect::<Vec<_>>(),
        };
        candidates
            .into_iter()
            .filter(|candidate| candidate.is_file())
            .find(|candidate| succeeds(Command::new(candidate).args(self.probe)))
    }

    /// Where it is.
    pub fn locate(&self, host: &Host) -> Result<PathBuf> {
        self.find(host).with_context(|| format!("{} is not here; run `cargo xtask setup`", self.name))
    }

    /// Compiles it from crates.io into `.tools`.
    pub fn install(&self, host: &Host, why: &str) -> Result<()> {
        step::say(&format!("{} {} is missing ({why}): compiling it into .tools", self.name, self.version));
        let mut cargo = host.cargo();
        cargo.args(["install", self.name, "--version", self.version, "--locked"]).args(self.features);
        // --force: what is there by now was found not to start.
        cargo.args(["--force", "--root", ".tools"]).envs(QUICK).envs(self.variables.iter().copied());
        step::run(&mut cargo).with_context(|| {
            format!(
                "install {} from crates.io (is there a network, or a mirror in cargo's config?)",
                self.name
            )
        })
    }

    /// Fetches a finished program, where cargo-binstall is there to do so.
    pub fn fetch(&self, host: &Host) -> Option<Result<()>> {
        let binstall = on_path("cargo-binstall").into_iter().find(|path| path.exists())?;
        step::say(&format!("{} {} is missing: fetching it with cargo-binstall", self.name, self.version));
        let mut command = Command::new(binstall);
        command.current_dir(&host.root).args(["--no-confirm", "--root", ".tools"]);
        Some(step::run(command.arg(format!("{}@{}", self.name, self.version))))
    }
}
