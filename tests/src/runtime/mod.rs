//! Real container runtimes: take a directory that an agent takes for the host's root, and a cgroup, give containers that live in
//! there and write their state as they always do.

mod containerd;
mod docker;
mod podman;
mod runc;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::place;

pub use containerd::Containerd;
pub use docker::Docker;
pub use podman::Podman;
pub use runc::run as run_runc;

/// Where a container's runtime puts it.
#[derive(Debug)]
pub struct Home {
    paths: Paths,
}

#[derive(Clone, Debug)]
struct Paths {
    root: PathBuf,
    rootfs: PathBuf,
    cgroup: String,
}

impl Home {
    /// For containers in this cgroup (its path from the hierarchy's root), on the host whose root is to be `root`.
    ///
    /// # Errors
    /// When there is no busybox.
    pub fn build(root: PathBuf, cgroup: String) -> Result<Self> {
        let rootfs = root.join("rootfs");
        fs::create_dir_all(rootfs.join("bin"))?;
        for directory in ["proc", "dev", "sys", "etc", "run", "tmp"] {
            fs::create_dir_all(rootfs.join(directory))?;
        }
        // Statically linked: it needs nothing but itself.
        fs::copy(place::on_path("busybox")?, rootfs.join("bin/busybox")).context("copy busybox")?;
        Ok(Self { paths: Paths { root, rootfs, cgroup } })
    }

    /// The host's root.
    pub fn root(&self) -> &Path {
        &self.paths.root
    }

    /// Writes a file of the host's.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.paths.root.join(path);
        fs::create_dir_all(path.parent().context("a directory")?)?;
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // In a hybrid hierarchy runtimes make cgroups of version 1 as well, and leave those around theirs.
        // Who looks after a container is in there until it has ended, too.
        let until = Instant::now() + LEFT_WITHIN;
        while !self.is_swept() && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Home {
    /// Whether nothing is left; what nobody uses is removed.
    fn is_swept(&self) -> bool {
        let top = self.paths.cgroup.trim_start_matches('/').split('/').next().unwrap_or_default();
        let mut is_swept = true;
        for hierarchy in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let is_version_1 = hierarchy.path().join("cgroup.clone_children").exists();
            if is_version_1 && !top.is_empty() {
                remove_empty(&hierarchy.path().join(top));
                remove_empty(&hierarchy.path().join("libpod_parent"));
                is_swept &= !hierarchy.path().join(top).exists();
            }
        }
        is_swept
    }
}

/// Removes a cgroup and those below it, as far as nobody is in them.
fn remove_empty(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_empty(&entry.path());
        }
    }
    // One that is used, or is not there, stays as it is.
    let _ = fs::remove_dir(cgroup);
}

const LEFT_WITHIN: Duration = Duration::from_secs(3);

/// The command of a container: a connection to somewhere, and how that went in one line.
pub fn connect(address: &str, port: u16) -> Vec<String> {
    shell(&format!("/bin/busybox nc -w 2 {address} {port} </dev/null 2>&1; true"))
}

/// The same, and a second in which its files are there.
pub fn connect_and_stay(address: &str, port: u16) -> Vec<String> {
    shell(&format!("/bin/busybox nc -w 2 {address} {port} </dev/null 2>&1; /bin/busybox sleep 1"))
}

/// The same after a while.
pub fn connect_later(address: &str, port: u16) -> Vec<String> {
    shell(&format!(
        "/bin/busybox sleep 1; /bin/busybox nc -w 2 {address} {port} </dev/null 2>&1; /bin/busybox sleep 30"
    ))
}

fn shell(command: &str) -> Vec<String> {
    ["/bin/busybox", "sh", "-c", command].map(str::to_owned).to_vec()
}

/// What a container is made of, as an archive.
fn archive(home: &Home) -> Result<PathBuf> {
    let archive = home.root().join("image.tar");
    output(Command::new("tar").arg("-C").arg(&home.paths.rootfs).arg("-cf").arg(&archive).arg("."))?;
    Ok(archive)
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{command:?}: {}: {said}\n{errors}", output.status);
    Ok(said)
}
