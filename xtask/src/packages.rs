//! What Debian provides: the packages each kind of work needs, which are missing, and their installation.

use std::{collections::BTreeSet, process::Command};

use anyhow::Result;

use crate::{
    host::Host,
    step,
    toolchain::{on_path, stdout_of},
};

/// A compiler with the sources of `core`.
pub const COMPILER: &[&str] = &["rustc-web", "cargo-web", "rust-web-src"];
/// What compiling bpf-linker and the host's programs takes.
pub const LINKER: &[&str] = &["llvm-22-dev", "gcc", "libc6-dev"];
/// What compiling libFuzzer takes.
pub const FUZZER: &[&str] = &["g++"];
/// The linter of [`COMPILER`], for the kernel programs.
pub const LINTER: &[&str] = &["rust-web-clippy"];

/// What other kernels are booted in.
pub const EMULATOR: &[&str] = &["qemu-system-x86"];

/// A program that tests or measurements start, and the package that brings it.
pub struct Program {
    /// The program's name on `PATH`.
    pub program: &'static str,
    /// Debian's package.
    pub package: &'static str,
}

/// Everything the tests start that is not ours.
pub const TEST_PROGRAMS: &[Program] = &[
    Program { program: "ip", package: "iproute2" },
    Program { program: "nsenter", package: "util-linux" },
    Program { program: "unshare", package: "util-linux" },
    Program { program: "dig", package: "bind9-dnsutils" },
    Program { program: "unbound", package: "unbound" },
    Program { program: "dnsmasq", package: "dnsmasq-base" },
    Program { program: "python3", package: "python3" },
    Program { program: "openssl", package: "openssl" },
    Program { program: "ping", package: "iputils-ping" },
    Program { program: "bpftool", package: "bpftool" },
    Program { program: "runc", package: "runc" },
    // What their state looks like is theirs alone to say.
    Program { program: "podman", package: "podman" },
    Program { program: "containerd", package: "containerd" },
    Program { program: "dockerd", package: "docker.io" },
    Program { program: "busybox", package: "busybox-static" },
    Program { program: "systemd-nspawn", package: "systemd-container" },
    Program { program: "prometheus", package: "prometheus" },
    Program { program: "promtool", package: "prometheus" },
    Program { program: "curl", package: "curl" },
    Program { program: "rsyslogd", package: "rsyslog" },
    Program { program: "journalctl", package: "systemd" },
    Program { program: "lognormalizer", package: "liblognorm-utils" },
];

/// What those programs load, which no program of that name tells of.
pub const TEST_LIBRARIES: &[&str] = &["rsyslog-gnutls", "python3-kafka"];

/// The servers beside which questions are measured.
pub const PEERS: &[Program] = &[
    Program { program: "unbound", package: "unbound" },
    Program { program: "dnsmasq", package: "dnsmasq-base" },
    Program { program: "named", package: "bind9" },
];

/// A package whose service starts by itself when installed, where only the program is wanted.
struct Service {
    package: &'static str,
    unit: &'static str,
    /// The socket that would start it again.
    socket: Option<&'static str>,
}

const SERVICES: &[Service] = &[
    Service { package: "unbound", unit: "unbound.service", socket: None },
    Service { package: "bind9", unit: "named.service", socket: None },
    Service { package: "prometheus", unit: "prometheus.service", socket: None },
    Service { package: "containerd", unit: "containerd.service", socket: None },
    Service { package: "docker.io", unit: "docker.service", socket: Some("docker.socket") },
    Service { package: "podman", unit: "podman.service", socket: Some("podman.socket") },
    Service { package: "rsyslog", unit: "rsyslog.service", socket: Some("syslog.socket") },
];

/// Whether packages can be looked up and installed here at all.
pub fn apt_is_here() -> bool {
    on_path("apt-get").iter().any(|path| path.exists())
}

/// Whether apt knows a package that can be installed under this name.
pub fn is_offered(package: &str) -> bool {
    stdout_of(Command::new("apt-cache").args(["policy", package]))
        .is_some_and(|policy| policy.contains("Candidate:") && !policy.contains("Candidate: (none)"))
}

/// Those of the packages that are not installed.
pub fn missing(packages: &[&'static str]) -> Vec<&'static str> {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat=${db:Status-Status} ${Package}\n"]).args(packages);
    // dpkg-query ends badly when one of them is unknown, and still lists the others.
    let listed = query.output().map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    not_installed(packages, &listed.unwrap_or_default())
}

fn not_installed(packages: &[&'static str], listed: &str) -> Vec<&'static str> {
    let installed: BTreeSet<&str> =
        listed.lines().filter_map(|line| line.strip_prefix("installed ")).map(str::trim).collect();
    packages.iter().copied().filter(|package| !installed.contains(package)).collect()
}

/// Those of the programs that are not on `PATH` (nor where root's programs are).
pub fn missing_programs(programs: &'static [Program]) -> Vec<&'static Program> {
    let elsewhere = |program: &str| {
        ["/usr/sbin", "/sbin"].iter().any(|directory| std::path::Path::new(directory).join(program).exists())
    };
    programs
        .iter()
        .filter(|wanted| {
            !on_path(wanted.program).iter().any(|path| path.exists()) && !elsewhere(wanted.program)
        })
        .collect()
}

/// Installs the packages without a question.
pub fn install(host: &Host, packages: &[&str], why: &str) -> Result<()> {
    let apt = || -> Result<Command> {
        let mut command = host.as_root("env", &format!("installing Debian packages ({why})"))?;
        command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet=2"]);
        command.args(["--option", "Dpkg::Use-Pty=0", "--option", "DPkg::Lock::Timeout=300"]);
        Ok(command)
    };
    step::say(&format!("installing Debian packages for {why}: {}", packages.join(" ")));
    step::run(apt()?.arg("update"))?;
    // --no-remove: rsyslog, for one, would take the place of another server of syslog that this host lives with.
    step::run(apt()?.args(["install", "--yes", "--no-install-recommends", "--no-remove"]).args(packages))?;
    for service in SERVICES.iter().filter(|service| packages.contains(&service.package)) {
        stop_service(host, service)?;
    }
    Ok(())
}

/// A server that Debian starts on installation would answer on this host's ports, 53 or 9090, a syslog server would keep this
/// host's log; nobody asked for that.
fn stop_service(host: &Host, service: &Service) -> Result<()> {
    if !on_path("systemctl").iter().any(|path| path.exists()) {
        return Ok(());
    }
    let Service { unit, socket, .. } = service;
    step::say(&format!("{unit} was installed to be tried only: it is stopped and disabled"));
    let systemctl = || host.as_root("systemctl", "stopping a service");
    // Also where systemd does not run now: it may later.
    step::run(systemctl()?.args(["disable", unit]))?;
    if !std::path::Path::new("/run/systemd/system").exists() {
        return Ok(());
    }
    step::run(systemctl()?.arg("stop").arg(unit).args(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packages_in_state_installed_count() {
        let listed = "installed gcc\nnot-installed llvm-22-dev\nconfig-files runc\n";
        assert_eq!(
            not_installed(&["gcc", "llvm-22-dev", "runc", "unbound"], listed),
            ["llvm-22-dev", "runc", "unbound"]
        );
    }

    #[test]
    fn nothing_is_installed_where_nothing_is_listed() {
        assert_eq!(not_installed(COMPILER, ""), COMPILER);
    }
}
