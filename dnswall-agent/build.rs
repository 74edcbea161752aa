//! Builds the kernel programs, and leaves the object at `OUT_DIR/dnswall-ebpf` for the kernel room to embed.
//!
//! Takes: `../dnswall-ebpf`, a Rust toolchain that has its library sources, and bpf-linker, both as
//! `build/toolchain.rs` finds them. Nothing is ever downloaded here: that is `cargo xtask setup`.
//!
//! `DNSWALL_BPF_OBJECT=FILE` skips all of it and embeds that object (packagers, cross builds).

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};
use aya_build::Package;
use toolchain::{LINKER_VARIABLE, Refusal, Toolchain};

#[path = "build/toolchain.rs"]
mod toolchain;

/// Package and binary of the kernel programs; also the name of the object in `OUT_DIR`.
const EBPF: &str = "dnswall-ebpf";
/// Everything outside this package and `dnswall-ebpf` that the object is made from.
const SOURCES: [&str; 3] = ["dnswall-common/src", "dnswall-common/Cargo.toml", "Cargo.lock"];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not by returning it: RUST_BACKTRACE would bury what to do under twenty frames.
            eprintln!("\nerror: {error:#}\n");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<()> {
    for variable in
        ["DNSWALL_BPF_OBJECT", "DNSWALL_BPF_TOOLCHAIN", "AYA_BUILD_SKIP", "RUSTUP_TOOLCHAIN", LINKER_VARIABLE]
    {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=build/toolchain.rs");
    let out = env::var_os("OUT_DIR").context("OUT_DIR is not set: cargo runs this file")?;
    let object = PathBuf::from(out).join(EBPF);

    if let Some(prebuilt) = env::var_os("DNSWALL_BPF_OBJECT") {
        return embed_prebuilt(Path::new(&prebuilt), &object);
    }

    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("..").canonicalize()?;
    for source in SOURCES {
        println!("cargo:rerun-if-changed={}", root.join(source).display());
    }
    let toolchain = match Toolchain::find() {
        Ok(toolchain) => toolchain,
        Err(refusals) => return no_toolchain(&refusals),
    };
    let Some(linker) = toolchain::find_linker(&root) else { return no_linker(&root) };
    if linker.exists() {
        // Only an existing file: cargo runs this script every time when one that is named here is missing.
        println!("cargo:rerun-if-changed={}", linker.display());
    }

    // SAFETY: a build script has one thread at this point; `build_ebpf` starts its own only later. The variables
    // reach the inner build and nothing else: RUSTC_BOOTSTRAP lets a stable compiler accept `-Z build-std`.
    unsafe {
        env::set_var("RUSTC_BOOTSTRAP", "1");
        env::set_var("RUSTUP_AUTO_INSTALL", "0");
        env::set_var("CARGO_TERM_QUIET", "true");
        env::set_var(LINKER_VARIABLE, &linker);
        if let Some(path) = toolchain.path() {
            env::set_var("PATH", path);
        }
    }
    let package_dir = root.join(EBPF);
    let package_dir = package_dir.to_str().context("the path of this repository is not UTF-8")?;
    aya_build::build_ebpf(
        [Package { name: EBPF, root_dir: package_dir, ..Default::default() }],
        aya_build::Toolchain::Custom(&toolchain.name),
    )
    .with_context(|| {
        format!(
            "build the kernel programs with toolchain {} and {}\n\
             (the compiler's own words are in the warnings above; `cargo xtask setup` repairs a broken toolchain)",
            toolchain.name,
            linker.display()
        )
    })?;

    if object.exists() {
        strip_debug_info(&object);
        if env::var_os("CARGO_FEATURE_TRIAL_BUILD").is_some() {
            mark_trial(&object).context("mark the object of a trial build")?;
        }
    }
    Ok(())
}

/// Gives the object another digest: what follows the last section of an ELF file means nothing.
fn mark_trial(object: &Path) -> Result<()> {
    let mut bytes = fs::read(object)?;
    bytes.extend(b"a trial build, for tests of upgrades");
    Ok(fs::write(object, bytes)?)
}

/// Copies the object that a packager built elsewhere.
fn embed_prebuilt(prebuilt: &Path, object: &Path) -> Result<()> {
    println!("cargo:rerun-if-changed={}", prebuilt.display());
    fs::copy(prebuilt, object).with_context(|| {
        format!("copy {} (DNSWALL_BPF_OBJECT must name a finished eBPF object)", prebuilt.display())
    })?;
    Ok(())
}

fn no_toolchain(refusals: &[Refusal]) -> Result<()> {
    let refusals: String =
        refusals.iter().map(|Refusal { name, why }| format!("  {name}: {why}\n")).collect();
    bail!(
        "no Rust toolchain here can build the kernel programs (they need the sources of `core`):\n{refusals}\
         Do this:    cargo xtask setup\n\
         or by hand: apt-get install rustc-web cargo-web rust-web-src llvm-22-dev gcc   (Debian)\n\
         \x20           rustup component add rust-src                                      (rustup with a network)\n\
         or set DNSWALL_BPF_OBJECT to an object that was built elsewhere."
    )
}

fn no_linker(root: &Path) -> Result<()> {
    bail!(
        "bpf-linker is neither in {}/.tools/bin nor on PATH.\n\
         Do this:    cargo xtask setup\n\
         or by hand: LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0 --locked \
         --no-default-features --features llvm-22 --root .tools",
        root.display()
    )
}

/// Removes DWARF from the object when a tool for it is at hand; `.BTF` and `.BTF.ext` stay. An object that keeps its
/// debug info works as well and is ten times larger.
fn strip_debug_info(object: &Path) {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
    let host = env::var("HOST").unwrap_or_default();
    let own = toolchain::stdout_of(Command::new(rustc).arg("--print=sysroot"))
        .map(|sysroot| Path::new(&sysroot).join("lib/rustlib").join(host).join("bin/rust-objcopy"));
    let debian = PathBuf::from("/usr/lib/llvm-22/bin/llvm-objcopy");
    let tools = own.into_iter().chain([debian]).chain(toolchain::on_path("llvm-objcopy"));
    let stripped = object.with_extension("stripped");
    for tool in tools.filter(|tool| tool.exists()) {
        let done = toolchain::succeeds(Command::new(tool).arg("--strip-debug").arg(object).arg(&stripped));
        if done && fs::rename(&stripped, object).is_ok() {
            return;
        }
    }
}
