//! What a guest finds: takes programs, makes the archives that the kernel unpacks into its memory.
//!
//! Everything is at the path it has on this host, because the tests know theirs from when they were compiled.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::{archive::remove, kernels::Kernel, programs::Job};
use crate::{packages::TEST_PROGRAMS, step, toolchain::stdout_of};

/// The guest's first process.
const INIT: &str = include_str!("init.sh");
/// The users that the tests name.
const USERS: &str =
    "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n";
const GROUPS: &str = "root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n";
/// Those of the tests' programs that are too much for a guest's memory, or of use only beside one that is; no test of the
/// matrix starts one.
const TOO_LARGE: &[&str] = &[
    "python3",
    "openssl",
    "runc",
    "systemd-nspawn",
    "prometheus",
    "promtool",
    "curl",
    "rsyslogd",
    "journalctl",
];
/// How much longer a test waits in a guest without hardware virtualisation.
const SLOWNESS: u32 = 8;

/// A tree of files that becomes the guest's root.
pub struct Tree {
    root: PathBuf,
    busybox: PathBuf,
}

impl Tree {
    /// Lays out what all kernels share.
    pub fn build(
        directory: &Path,
        busybox: &Path,
        agent: &Path,
        ours: &[&Path],
        data: &[&Path],
    ) -> Result<Self> {
        let tree = Self { root: directory.join("root"), busybox: busybox.to_owned() };
        remove(&tree.root)?;
        step::say("the guest's files are put together");
        let theirs: Vec<PathBuf> = TEST_PROGRAMS
            .iter()
            .filter(|program| !TOO_LARGE.contains(&program.program))
            .map(|program| found(program.program))
            .collect::<Result<_>>()?;
        let mut libraries = BTreeSet::new();
        for path in ours {
            let place = tree.place(path)?;
            // Debug information is most of a test's hundred megabytes.
            let stripped = Command::new("strip").arg("-o").arg(&place).arg(path).status();
            if !stripped.context("run strip (package binutils)")?.success() {
                bail!("strip {} failed", path.display());
            }
            libraries.extend(needed(path));
        }
        for path in &theirs {
            tree.copy(path)?;
            libraries.extend(needed(path));
        }
        for path in libraries.iter().map(PathBuf::as_path).chain(data.iter().copied()) {
            tree.copy(path)?;
        }
        fs::copy(busybox, tree.place(Path::new("/bin/busybox"))?).context("copy busybox")?;
        for (path, text) in [
            ("/init", INIT),
            ("/etc/passwd", USERS),
            ("/etc/group", GROUPS),
            ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
            ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
            ("/etc/resolv.conf", "nameserver 127.0.0.1\n"),
            ("/environment", &environment(agent)),
        ] {
            tree.write(path, text)?;
        }
        Ok(tree)
    }

    /// The archive of these files, of the jobs and of one kernel's modules.
    pub fn pack(&self, kernel: &Kernel, into: &Path) -> Result<()> {
        let mut archive = File::create(into).with_context(|| format!("create {}", into.display()))?;
        // The kernel unpacks one archive after another.
        for root in [&self.root, &kernel.modules] {
            self.append(root, &mut archive)?;
        }
        Ok(())
    }

    /// Writes down what a guest does, each with its time.
    pub fn set_jobs(&self, jobs: &[Job]) -> Result<()> {
        let lines: String = jobs
            .iter()
            .map(|Job { check, name, command }| {
                format!("{check} {name} {} {}\n", check.job_secs_max(), command.join(" "))
            })
            .collect();
        self.write("/jobs", &lines)
    }

    fn append(&self, root: &Path, archive: &mut File) -> Result<()> {
        let mut find = Command::new(&self.busybox)
            .args(["find", "."])
            .current_dir(root)
            .stdout(Stdio::piped())
            .spawn()?;
        let names = find.stdout.take().context("take the list of files")?;
        // Whoever builds it, in the guest root owns everything.
        let mut cpio = Command::new(&self.busybox);
        cpio.args(["cpio", "-o", "-H", "newc", "-R", "0:0"]).current_dir(root);
        let packed = cpio.stdin(names).stdout(archive.try_clone()?).stderr(Stdio::null()).status();
        let listed = find.wait().context("wait for the list of files")?;
        if !packed.context("run busybox cpio")?.success() || !listed.success() {
            bail!("{} could not be packed", root.display());
        }
        Ok(())
    }

    fn copy(&self, path: &Path) -> Result<()> {
        let place = self.place(path)?;
        if !place.exists() {
            fs::copy(path, &place).with_context(|| format!("copy {}", path.display()))?;
        }
        Ok(())
    }

    fn write(&self, path: &str, text: &str) -> Result<()> {
        let place = self.place(Path::new(path))?;
        fs::write(&place, text).with_context(|| format!("write {}", place.display()))?;
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&place, executable).with_context(|| format!("change {}", place.display()))
    }

    /// Where the guest's file of this path is; its directories are made, for everyone to enter.
    fn place(&self, path: &Path) -> Result<PathBuf> {
        let place = self.root.join(path.strip_prefix("/").unwrap_or(path));
        let directory = place.parent().context("name a directory")?;
        fs::create_dir_all(directory).with_context(|| format!("make directory {}", directory.display()))?;
        Ok(place)
    }
}

/// What the tests read from their environment.
fn environment(agent: &Path) -> String {
    format!(
        "export DNSWALL_BIN={}\nexport DNSWALL_TEST_SLOWNESS={SLOWNESS}\nexport DNSWALL_TEST_LACKING=tell\n\
         export DNSWALL_TEST_KEEP=/run/kept-walls\n",
        agent.display()
    )
}

/// Where a program is, for root.
fn found(program: &str) -> Result<PathBuf> {
    let places = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let path = places.iter().map(|place| Path::new(place).join(program)).find(|path| path.exists());
    path.with_context(|| format!("{program} is not in any of {}", places.join(" ")))
}

/// The shared libraries of a program, and what loads them.
fn needed(program: &Path) -> BTreeSet<PathBuf> {
    let text = stdout_of(Command::new("ldd").arg(program)).unwrap_or_default();
    text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}
