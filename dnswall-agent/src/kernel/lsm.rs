//! Whether this kernel calls programs of BPF LSM: one attached where the module is not active is never called.

use std::fs;
use std::io::Read as _;

use aya::programs::{LsmAttachType, ProgramType};
use aya::sys::is_program_supported;
use rustix::fs::{Mode, OFlags, openat};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

/// The name of the module that runs eBPF programs.
const BPF: &str = "bpf";

/// Why programs of BPF LSM guard nothing here; `None` when they do (cgroup ones from 6.0). Needs the privileges of the
/// agent.
pub fn obstacle() -> Option<String> {
    match security_modules() {
        Some(modules) if modules.iter().any(|module| module == BPF) => {}
        Some(_) => {
            return Some("BPF LSM is not active: add bpf to lsm= on the kernel's command line".to_owned());
        }
        None => return Some("the kernel does not say which security modules are active".to_owned()),
    }
    match is_program_supported(ProgramType::Lsm(LsmAttachType::Cgroup)) {
        Ok(true) => None,
        Ok(false) => Some("this kernel has no BPF LSM programs for cgroups (6.0 and later do)".to_owned()),
        Err(error) => {
            let error = anyhow::Error::from(error);
            Some(format!("this kernel refuses BPF LSM programs: {error:#}"))
        }
    }
}

/// The active modules, in the order in which they are asked; `None` when the kernel does not say.
///
/// Where securityfs is not mounted, it is mounted for the moment of reading, and nowhere in the file system (from 5.2).
pub fn security_modules() -> Option<Vec<String>> {
    let text = fs::read_to_string("/sys/kernel/security/lsm").ok().or_else(read_detached)?;
    Some(text.trim().split(',').map(str::to_owned).collect())
}

fn read_detached() -> Option<String> {
    let context = fsopen("securityfs", FsOpenFlags::FSOPEN_CLOEXEC).ok()?;
    fsconfig_create(&context).ok()?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_RDONLY;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).ok()?;
    let file = openat(&mount, "lsm", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut text = String::new();
    fs::File::from(file).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capability_module_is_always_among_them() {
        let modules = security_modules().unwrap();
        assert!(modules.iter().any(|module| module == "capability"), "{modules:?}");
    }
}
