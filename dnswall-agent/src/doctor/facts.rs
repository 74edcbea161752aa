//! Reads what the kernel says of this host. The only file of this room that does I/O; what it finds is plain data.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::mountinfo::{self, Mount};
use crate::host::{self, HostRoot};
use crate::kernel::lsm;
use crate::kernel::pins::abi_of;

/// What was found on the host.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// `uname -r`.
    pub release: String,
    /// Every mount this process sees.
    pub mounts: Vec<Mount>,
    /// Whether this process is in the initial cgroup namespace; `None` when /proc does not say.
    pub initial_cgroup_namespace: Option<bool>,
    /// Whether this process is in the initial pid namespace.
    pub initial_pid_namespace: bool,
    /// Where users and program files are looked up.
    pub host: HostRoot,
    /// Whether users have names there.
    pub users: bool,
    /// The cgroup2 mount that counts, and whether its directory is the root of the hierarchy itself.
    pub cgroup2: Option<(Mount, bool)>,
    /// /sys/kernel/btf/vmlinux can be read.
    pub btf: bool,
    /// Active security modules; `None` when the kernel does not say.
    pub security_modules: Option<Vec<String>>,
    /// Why BPF LSM guards nothing here, if it does not.
    pub lsm_obstacle: Option<String>,
    /// Kernel lockdown: `none`, `integrity` or `confidentiality`.
    pub lockdown: Option<String>,
    /// Effective capabilities of this process, one bit each.
    pub capabilities: u64,
    /// kernel.unprivileged_bpf_disabled
    pub unprivileged_bpf_disabled: Option<u32>,
    /// net.core.bpf_jit_enable
    pub jit: Option<u32>,
    /// The limit of locked memory in bytes; `None` without limit.
    pub locked_memory_bytes: Option<u64>,
    /// Where pins are looked for.
    pub pins: PathBuf,
    /// Pin directories with something in them, by layout version.
    pub pinned: Vec<u32>,
}

impl Facts {
    /// Looks at this host; `pins` is the directory walls are pinned in, `host` its root.
    pub fn read(pins: &Path, host: &HostRoot) -> Self {
        let mounts = mountinfo::parse(&host::read_text("/proc/self/mountinfo").unwrap_or_default());
        let cgroup2 = mountinfo::cgroup2(&mounts, is_true_root);
        Self {
            release: rustix::system::uname().release().to_string_lossy().into_owned(),
            cgroup2,
            initial_cgroup_namespace: fs::metadata("/proc/self/ns/cgroup")
                .ok()
                .map(|namespace| namespace.ino() == INITIAL_CGROUP_NAMESPACE),
            initial_pid_namespace: host::has_initial_pids(Path::new("/proc")),
            host: host.clone(),
            users: host.has_users(),
            btf: fs::File::open("/sys/kernel/btf/vmlinux").is_ok(),
            security_modules: lsm::security_modules(),
            lsm_obstacle: lsm::obstacle(),
            lockdown: read_trimmed("/sys/kernel/security/lockdown").as_deref().and_then(bracketed),
            capabilities: fs::read_to_string("/proc/self/status")
                .ok()
                .and_then(|status| effective_capabilities(&status))
                .unwrap_or_default(),
            unprivileged_bpf_disabled: read_number("/proc/sys/kernel/unprivileged_bpf_disabled"),
            jit: read_number("/proc/sys/net/core/bpf_jit_enable"),
            locked_memory_bytes: rustix::process::getrlimit(rustix::process::Resource::Memlock).current,
            pins: pins.to_owned(),
            pinned: pinned_versions(pins),
            mounts,
        }
    }
}

/// Versions of the layouts for which something is pinned in `pins`.
pub fn pinned_versions(pins: &Path) -> Vec<u32> {
    let mut versions: Vec<u32> = fs::read_dir(pins)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| fs::read_dir(entry.path()).is_ok_and(|mut inside| inside.next().is_some()))
        .filter_map(|entry| abi_of(&entry.path()))
        .collect();
    versions.sort_unstable();
    versions
}

/// Whether a wall is pinned in `pins`, of whatever version: the next agent takes it over.
pub fn wall_stands(pins: &Path) -> bool {
    !pinned_versions(pins).is_empty()
}

// PROC_CGROUP_INIT_INO in include/linux/proc_ns.h, unchanged since 4.6.
const INITIAL_CGROUP_NAMESPACE: u64 = 0xefff_fffb;

// kernfs gives inode number 1 to its root directory alone, whoever looks at it from whatever namespace.
fn is_true_root(point: &Path) -> bool {
    fs::metadata(point).is_ok_and(|metadata| metadata.ino() == 1)
}

fn read_trimmed(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn read_number(path: &str) -> Option<u32> {
    read_trimmed(path)?.parse().ok()
}

// `none [integrity] confidentiality`
fn bracketed(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(chosen, _)| chosen.to_owned())
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use dnswall_common::ABI_VERSION;

    #[test]
    fn kernel_files_are_read() {
        assert_eq!(bracketed("none [integrity] confidentiality"), Some("integrity".to_owned()));
        assert_eq!(bracketed("none"), None);
        assert_eq!(effective_capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n"), Some(0x1ff_ffff_ffff));
        assert_eq!(effective_capabilities("CapEff:\tnothing"), None);
    }

    #[test]
    fn pins_count_when_something_is_in_them() {
        let directory = tempfile::tempdir().unwrap();
        assert!(pinned_versions(&directory.path().join("missing")).is_empty());
        let ours = format!("v{ABI_VERSION}/links");
        for name in [ours.as_str(), "v777-1/maps", "v999", "other/x"] {
            fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        assert_eq!(pinned_versions(directory.path()), [ABI_VERSION, 777]);
        assert!(wall_stands(directory.path()));
    }

    #[test]
    fn this_host_is_read_without_trouble() {
        let facts = Facts::read(Path::new("/nonexistent"), &HostRoot::default());
        assert!(!facts.release.is_empty());
        assert!(!facts.mounts.is_empty());
    }
}
