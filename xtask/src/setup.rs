//! Setting up: takes the kinds of work to be done, finds what is missing for them, and installs exactly that.
//!
//! Running it again does nothing. What cannot be installed here is reported all at once, with what to do.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{
    host::Host,
    packages, step,
    toolchain::{Refusal, Toolchain, on_path, succeeds},
    tools::{BPF_LINKER, DENY, NEXTEST, TANSU},
};

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Compiling the kernel programs and the agent.
    Build,
    /// Running every test.
    Test,
    /// Running every lint.
    Lint,
    /// Booting other kernels.
    Guests,
    /// Building libFuzzer.
    Fuzz,
    /// Measuring beside other servers.
    Peers,
}

/// Makes sure that everything for this work is here.
pub fn ensure(host: &Host, needs: &[Need]) -> Result<()> {
    let mut problems = Vec::new();
    for need in needs {
        let outcome = match need {
            Need::Build => compiler(host).and_then(|()| linker(host)),
            Need::Test => programs(host, packages::TEST_PROGRAMS, "the tests")
                .and_then(|()| libraries(host))
                .and_then(|()| runner(host))
                .and_then(|()| broker(host)),
            Need::Lint => linter(host).and_then(|()| licence_check(host)),
            Need::Guests => emulator(host),
            Need::Fuzz => cxx(host),
            Need::Peers => programs(host, packages::PEERS, "the measurements"),
        };
        if let Err(error) = outcome {
            problems.push(format!("{error:#}"));
        }
    }
    if !problems.is_empty() {
        bail!("this machine is not set up:\n\n{}", problems.join("\n\n"));
    }
    Ok(())
}

/// A toolchain with library sources: found, from Debian, or by adding a component to rustup's.
fn compiler(host: &Host) -> Result<()> {
    if std::env::var_os("DNSWALL_BPF_OBJECT").is_some() {
        return Ok(());
    }
    let Err(refusals) = Toolchain::find() else { return Ok(()) };
    let offered = packages::apt_is_here() && {
        // A minimal image has no package lists until the first update.
        packages::is_offered(packages::COMPILER[0]) || refresh_lists(host)
    };
    if offered {
        packages::install(host, packages::COMPILER, "compiling the kernel programs")?;
    } else if succeeds(Command::new("rustup").arg("--version")) {
        step::say("no Debian package with the library sources here: adding them to rustup's toolchain");
        let mut rustup = Command::new("rustup");
        rustup.env("RUSTUP_AUTO_INSTALL", "0").args(["component", "add", "rust-src"]);
        // Its failure is explained below, with everything else that was tried.
        let _ = step::status(&mut rustup)?;
    }
    Toolchain::find().map(drop).or_else(|_| no_compiler(&refusals))
}

fn refresh_lists(host: &Host) -> bool {
    let update = host.as_root("apt-get", "refreshing apt's package lists");
    update.is_ok_and(|mut update| {
        let refreshed = step::run(update.args(["--quiet=2", "update"])).is_ok();
        refreshed && packages::is_offered(packages::COMPILER[0])
    })
}

fn no_compiler(refusals: &[Refusal]) -> Result<()> {
    let tried: Vec<_> = refusals.iter().map(|Refusal { name, why }| format!("  {name}: {why}")).collect();
    bail!(
        "no Rust toolchain with library sources, which the kernel programs need. Tried:\n{}\n\
         Do one of these, then run the same command again:\n\
         \x20 Debian 12 or later:   apt-get install {}\n\
         \x20 rustup and a network: rustup component add rust-src\n\
         \x20 neither:              DNSWALL_BPF_OBJECT=FILE with an object built elsewhere",
        tried.join("\n"),
        packages::COMPILER.join(" "),
    )
}

/// bpf-linker, compiled against Debian's LLVM, or fetched where there is no Debian.
fn linker(host: &Host) -> Result<()> {
    if std::env::var_os("DNSWALL_BPF_OBJECT").is_some() || BPF_LINKER.find(host).is_some() {
        return Ok(());
    }
    let by_hand = "bpf-linker is missing and cannot be had here.\n\
         Do one of these, then run the same command again:\n\
         \x20 Debian 12 or later: apt-get install llvm-22-dev gcc libc6-dev\n\
         \x20 elsewhere:          cargo binstall bpf-linker   (or install LLVM 22 with its headers in /usr/lib/llvm-22)";
    if packages::apt_is_here() {
        let missing = packages::missing(packages::LINKER);
        if !missing.is_empty() {
            packages::install(host, &missing, "compiling bpf-linker")?;
        }
    } else if let Some(fetched) = BPF_LINKER.fetch(host) {
        fetched?;
    } else if !std::path::Path::new("/usr/lib/llvm-22").exists() {
        bail!("{by_hand}");
    }
    if BPF_LINKER.find(host).is_none() {
        BPF_LINKER.install(host, "the kernel programs are linked with it")?;
    }
    if BPF_LINKER.find(host).is_none() {
        bail!("{by_hand}");
    }
    Ok(())
}

/// Real servers, clients and containers; `whose` says who starts them.
fn programs(host: &Host, wanted: &'static [packages::Program], whose: &str) -> Result<()> {
    let missing = packages::missing_programs(wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<_> = missing.iter().map(|missing| missing.package).collect();
    if packages::apt_is_here() {
        packages::install(host, &packages, whose)?;
    }
    let missing: Vec<_> = packages::missing_programs(wanted)
        .iter()
        .map(|missing| format!("  {} (Debian: {})", missing.program, missing.package))
        .collect();
    if !missing.is_empty() {
        bail!(
            "{whose} start these programs, which are not here:\n{}\n\
             Install them with this system's package manager, then run the same command again.",
            missing.join("\n")
        );
    }
    Ok(())
}

/// What those programs load. Without Debian's packages nobody knows whether it is here: then a test says so.
fn libraries(host: &Host) -> Result<()> {
    let missing = packages::missing(packages::TEST_LIBRARIES);
    if missing.is_empty() || !packages::apt_is_here() {
        return Ok(());
    }
    packages::install(host, &missing, "the tests")
}

/// QEMU. The kernels come from Debian's archive when they are needed.
fn emulator(host: &Host) -> Result<()> {
    let is_here = || succeeds(Command::new("qemu-system-x86_64").arg("--version"));
    if !is_here() && packages::apt_is_here() {
        packages::install(host, packages::EMULATOR, "booting other kernels")?;
    }
    if !is_here() {
        bail!("qemu-system-x86_64, in which other kernels are booted, is not here (Debian: qemu-system-x86)");
    }
    Ok(())
}

fn runner(host: &Host) -> Result<()> {
    match NEXTEST.find(host) {
        Some(_) => Ok(()),
        None => NEXTEST.install(host, "it runs the tests"),
    }
}

fn broker(host: &Host) -> Result<()> {
    match TANSU.find(host) {
        Some(_) => Ok(()),
        None => TANSU.install(host, "the tests send alerts to it"),
    }
}

/// A C++ compiler: libFuzzer comes as sources.
fn cxx(host: &Host) -> Result<()> {
    let is_here = || on_path("c++").iter().any(|path| path.exists());
    if !is_here() && packages::apt_is_here() {
        packages::install(host, packages::FUZZER, "compiling libFuzzer")?;
    }
    if !is_here() {
        bail!("c++ is missing, which libFuzzer is compiled with (Debian: {})", packages::FUZZER.join(" "));
    }
    Ok(())
}

/// Debian's compiler has its linter in a package of its own; rustup's toolchains bring theirs.
fn linter(host: &Host) -> Result<()> {
    let Ok(toolchain) = Toolchain::find() else { return Ok(()) };
    let debian = toolchain.name == "/usr" && packages::apt_is_here();
    if debian && packages::is_offered(packages::LINTER[0]) {
        let missing = packages::missing(packages::LINTER);
        if !missing.is_empty() {
            return packages::install(host, &missing, "linting the kernel programs");
        }
    }
    Ok(())
}

fn licence_check(host: &Host) -> Result<()> {
    match DENY.find(host) {
        Some(_) => Ok(()),
        None => DENY.install(host, "it checks licences and sources of the dependencies"),
    }
}
