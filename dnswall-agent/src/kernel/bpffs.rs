//! The BPF file system, which keeps links and maps alive when the agent is not.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// Where the BPF file system usually is.
pub const USUAL: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC`
const MAGIC: u64 = 0xcafe_4a11;

/// Makes sure that `directory` exists on a BPF file system, private to root.
///
/// Where the usual mount point is not mounted yet it is; any other place is left alone unless it is an empty
/// directory of its own, which then gets a BPF file system of its own.
///
/// # Errors
/// Says what is in the way.
pub fn ensure(directory: &Path) -> Result<()> {
    let exists = nearest_existing(directory);
    if !is_bpffs(&exists)? {
        let at = if directory.starts_with(USUAL) { PathBuf::from(USUAL) } else { directory.to_owned() };
        fs::create_dir_all(&at).with_context(|| format!("make {}", at.display()))?;
        if fs::read_dir(&at).with_context(|| format!("read {}", at.display()))?.next().is_some() {
            bail!("{} is not on a BPF file system and not empty: choose another pin directory", at.display());
        }
        mount("bpf", &at, "bpf", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, c"mode=0700")
            .with_context(|| format!("mount a BPF file system at {}", at.display()))?;
    }
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
        .with_context(|| format!("make {} private", directory.display()))
}

/// Removes an empty pin directory, and the BPF file system that [`ensure`] mounted right there.
pub fn remove(directory: &Path) {
    if fs::remove_dir(directory).is_err()
        && fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
        && unmount(directory, UnmountFlags::empty()).is_ok()
    {
        // Best effort: an empty directory left behind does no harm.
        let _ = fs::remove_dir(directory);
    }
}

/// Whether the path is on a BPF file system.
///
/// # Errors
/// When the path cannot be looked at.
pub fn is_bpffs(path: &Path) -> Result<bool> {
    let status = rustix::fs::statfs(path).with_context(|| format!("look at {}", path.display()))?;
    Ok(status.f_type as u64 == MAGIC)
}

fn nearest_existing(path: &Path) -> PathBuf {
    path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/")).to_owned()
}
