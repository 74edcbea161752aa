//! Where the built binaries are.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// The `dnswall` binary: `DNSWALL_BIN`, else the one in the target directory this test was built into.
///
/// # Errors
/// When it has not been built.
pub fn dnswall() -> Result<PathBuf> {
    match std::env::var_os("DNSWALL_BIN") {
        Some(path) => existing(PathBuf::from(path)),
        None => existing(profile_directory()?.join("dnswall")),
    }
}

/// A build of `dnswall` for tests of upgrades, beside the ordinary one.
///
/// # Errors
/// When it has not been built.
pub fn trial(build: Trial) -> Result<PathBuf> {
    let name = match build {
        Trial::Build => "dnswall-trial-build",
        Trial::Abi => "dnswall-trial-abi",
    };
    existing(dnswall()?.with_file_name(name))
}

/// What another build differs in. Both fail or die where `DNSWALL_FAULT` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// The digest of its kernel programs.
    Build,
    /// That, and the version of its layouts.
    Abi,
}

/// The `probe` binary; cargo builds it with the tests.
///
/// # Errors
/// When it has not been built.
pub fn probe() -> Result<PathBuf> {
    existing(profile_directory()?.join("probe"))
}

/// A program of the system's.
///
/// # Errors
/// When there is none of this name on `PATH`.
pub fn on_path(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").context("read PATH")?;
    let found = std::env::split_paths(&path).map(|directory| directory.join(program));
    found.into_iter().find(|path| path.is_file()).with_context(|| format!("find {program} on PATH"))
}

/// A program that `cargo xtask setup` compiles into `.tools`, or else one of this name on `PATH`.
///
/// # Errors
/// When there is none.
pub fn tool(program: &str) -> Result<PathBuf> {
    let own = PathBuf::from(TOOLS).join(program);
    if own.is_file() { Ok(own) } else { on_path(program).context("`cargo xtask setup` installs it") }
}

fn existing(path: PathBuf) -> Result<PathBuf> {
    if !path.is_file() {
        bail!("{} does not exist: build it first (cargo xtask test does)", path.display());
    }
    Ok(path)
}

/// `target/PROFILE`; test binaries are in its `deps`.
fn profile_directory() -> Result<PathBuf> {
    let this = std::env::current_exe().context("find the binary that runs")?;
    let directory = this.parent().context("find its directory")?;
    let profile = if directory.ends_with("deps") { directory.parent() } else { Some(directory) };
    Ok(profile.context("find the target directory")?.to_path_buf())
}

const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.tools/bin");
