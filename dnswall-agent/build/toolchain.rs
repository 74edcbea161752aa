//! What it takes to compile for the kernel: a Rust toolchain with library sources, and bpf-linker.
//!
//! Takes: what this machine has. Gives: where it is, or why each candidate will not do. Nothing is installed here.
//! The build script and `cargo xtask` share this file, so that what one installs the other finds.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

/// The oldest compiler that can build this workspace (`rust-version` in Cargo.toml).
const RUSTC_MINOR_MIN: u32 = 95;
/// What cargo calls the linker setting of the target that the object is built for.
pub const LINKER_VARIABLE: &str = "CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER";

/// A toolchain that can build `core` for the kernel.
pub struct Toolchain {
    /// As `rustup run` takes it: a name, or the directory that holds `bin/rustc`.
    pub name: String,
    /// Whether rustup is there to run it.
    pub rustup: bool,
}

/// A toolchain that was looked at, and why it will not do.
pub struct Refusal {
    /// The toolchain as it was asked for.
    pub name: String,
    /// Why it will not do.
    pub why: String,
}

impl Toolchain {
    /// The first that will do of: `DNSWALL_BPF_TOOLCHAIN` alone when set; else the active toolchain, rustup's
    /// `nightly`, Debian's in `/usr`.
    pub fn find() -> Result<Self, Vec<Refusal>> {
        let rustup = succeeds(Command::new("rustup").arg("--version"));
        let candidates = match env::var("DNSWALL_BPF_TOOLCHAIN") {
            Ok(wanted) => vec![wanted],
            Err(_) => {
                let active = env::var("RUSTUP_TOOLCHAIN").unwrap_or_else(|_| "stable".to_owned());
                vec![active, "nightly".to_owned(), "/usr".to_owned()]
            }
        };
        let mut refusals = Vec::new();
        for name in candidates {
            let toolchain = Self { name, rustup };
            match toolchain.why_not() {
                None => return Ok(toolchain),
                Some(why) => refusals.push(Refusal { name: toolchain.name, why }),
            }
        }
        Err(refusals)
    }

    /// A command that runs `program` of this toolchain, and never downloads one.
    pub fn command(&self, program: &str) -> Command {
        let mut command = match (self.rustup, self.name.starts_with('/')) {
            (true, _) => {
                let mut command = Command::new("rustup");
                command.args(["run", &self.name, program]);
                command
            }
            (false, true) => Command::new(Path::new(&self.name).join("bin").join(program)),
            (false, false) => Command::new(program),
        };
        if let Some(path) = self.path() {
            command.env("PATH", path);
        }
        command.env("RUSTUP_AUTO_INSTALL", "0");
        command
    }

    /// `PATH` with this toolchain's programs first, where nobody else puts them there.
    pub fn path(&self) -> Option<OsString> {
        let directory =
            (!self.rustup && self.name.starts_with('/')).then(|| Path::new(&self.name).join("bin"))?;
        let path = env::var_os("PATH").unwrap_or_default();
        env::join_paths([directory].into_iter().chain(env::split_paths(&path))).ok()
    }

    fn why_not(&self) -> Option<String> {
        let Some(version) = stdout_of(self.command("rustc").arg("--version")) else {
            return Some("not installed".to_owned());
        };
        if minor_of(&version) < RUSTC_MINOR_MIN {
            return Some(format!("{version} is older than 1.{RUSTC_MINOR_MIN}"));
        }
        let sysroot = stdout_of(self.command("rustc").arg("--print=sysroot")).unwrap_or_default();
        let sources = Path::new(&sysroot).join("lib/rustlib/src/rust/library/Cargo.lock");
        (!sources.exists())
            .then(|| format!("{version} has no library sources ({} is missing)", sources.display()))
    }
}

/// The linker: the one that cargo was told of, `.tools/bin/bpf-linker` below `root`, or one on `PATH`.
pub fn find_linker(root: &Path) -> Option<PathBuf> {
    if let Some(named) = env::var_os(LINKER_VARIABLE) {
        return Some(PathBuf::from(named));
    }
    let own = root.join(".tools/bin/bpf-linker");
    [own].into_iter().chain(on_path("bpf-linker")).find(|candidate| candidate.is_file())
}

/// Where `program` would be in each directory of `PATH`.
pub fn on_path(program: &str) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|directory| directory.join(program)).collect()
}

/// Whether the command ran and ended well; its words are of no interest.
pub fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// What the command printed, when it ended well.
pub fn stdout_of(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// `95` of `rustc 1.95.0 (…)`.
fn minor_of(version: &str) -> u32 {
    version.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0)
}
