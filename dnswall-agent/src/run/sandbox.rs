//! Takes from the agent what it does not need, so that whoever takes over the agent gets no more than it had to keep.
//!
//! Capabilities belong to a thread and are inherited, so they go first of all, before there is a second thread. System
//! calls are refused once the wall stands, in all threads at once.
//!
//! The filter is a list of what is refused, not of what is allowed. What is allowed would have to hold every call of
//! each libc and kernel the agent will ever meet, and one that is missing (a new `futex`, say) ends the agent on a
//! host nobody tried, which is worse than what such a call could do. Refused is the usual next step from a foothold in
//! the agent: programs started, processes changed, modules, mounts, other users. The answer is `EPERM`, as it is without
//! the privilege. It is a hurdle, and no wall: with what the agent keeps (`CAP_SYS_PTRACE` and `CAP_SYS_ADMIN`, where it
//! was given them) one may still write into another process's memory.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Context;
use libc::c_long;
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{SeccompAction, SeccompFilter, TargetArch};

use crate::control::api::SandboxStatus;

/// What is kept of what the agent has.
const KEPT: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::SYS_PTRACE)
    // Alerts into files that are others' (after `logrotate`, say), cgroups that were given to a user.
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    // BPF before Linux 5.8 and program numbers; other namespaces; a bpf file system mounted where there is none.
    .union(CapabilitySet::SYS_ADMIN)
    // Locked memory before Linux 5.11.
    .union(CapabilitySet::SYS_RESOURCE);

/// `CAP_LAST_CAP` of Linux 5.9 to this day is 40; what a kernel does not know it refuses to drop.
const CAPABILITIES: u32 = 41;

/// What system calls are refused, and why.
const REFUSED: &[(&str, &[c_long])] = &[
    ("the agent starts no program", &[libc::SYS_execve, libc::SYS_execveat]),
    (
        "it looks at processes, and changes none",
        &[
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_process_madvise,
        ],
    ),
    (
        "the kernel is the host's",
        &[
            libc::SYS_init_module,
            libc::SYS_finit_module,
            libc::SYS_delete_module,
            libc::SYS_kexec_load,
            libc::SYS_kexec_file_load,
            libc::SYS_reboot,
            libc::SYS_syslog,
            libc::SYS_userfaultfd,
            libc::SYS_io_uring_setup,
            libc::SYS_io_uring_enter,
            libc::SYS_io_uring_register,
        ],
    ),
    (
        "so are its clocks, names, accounts and swap",
        &[
            libc::SYS_settimeofday,
            libc::SYS_clock_settime,
            libc::SYS_clock_adjtime,
            libc::SYS_adjtimex,
            libc::SYS_sethostname,
            libc::SYS_setdomainname,
            libc::SYS_acct,
            libc::SYS_quotactl,
            libc::SYS_swapon,
            libc::SYS_swapoff,
            libc::SYS_vhangup,
            libc::SYS_fanotify_init,
        ],
    ),
    (
        "its one mount, of a bpf file system, is done by now",
        &[
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_chroot,
            libc::SYS_move_mount,
            libc::SYS_open_tree,
            libc::SYS_fsopen,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fspick,
            libc::SYS_mount_setattr,
        ],
    ),
    (
        "it opens files by their names, and makes no devices",
        &[libc::SYS_open_by_handle_at, libc::SYS_mknodat],
    ),
    (
        "it stays who it is, and makes no namespaces",
        &[
            libc::SYS_unshare,
            libc::SYS_setuid,
            libc::SYS_setgid,
            libc::SYS_setreuid,
            libc::SYS_setregid,
            libc::SYS_setresuid,
            libc::SYS_setresgid,
            libc::SYS_setfsuid,
            libc::SYS_setfsgid,
            libc::SYS_setgroups,
            libc::SYS_personality,
        ],
    ),
    ("it has no use for keys", &[libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl]),
    ("what only old machines have", OLD),
];

#[cfg(target_arch = "x86_64")]
const OLD: &[c_long] = &[
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS_mknod,
    libc::SYS_quotactl_fd,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[c_long] = &[libc::SYS_quotactl_fd];

/// Gives up every capability but those in [`KEPT`], for good, for this thread and those it starts.
///
/// # Errors
/// When the kernel refuses.
pub fn shed_capabilities() -> anyhow::Result<()> {
    for number in 0..CAPABILITIES {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if KEPT.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // Whoever has no CAP_SETPCAP has what systemd or the container's runtime left. A kernel may know fewer.
            Ok(()) | Err(Errno::PERM | Errno::INVAL) => {}
            Err(error) => return Err(error).context("shrink the bounding set"),
        }
    }
    rustix::thread::clear_ambient_capability_set().context("clear the ambient set")?;
    let CapabilitySets { permitted, .. } =
        rustix::thread::capabilities(None).context("read the capabilities")?;
    let kept = permitted.intersection(KEPT);
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).context("set the capabilities")?;
    rustix::thread::set_no_new_privs(true).context("set no_new_privs")
}

/// Refuses the system calls of [`REFUSED`] to all threads, for good.
///
/// # Errors
/// When the kernel has no seccomp, or refuses.
pub fn refuse_system_calls() -> anyhow::Result<()> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH).context("find the architecture")?;
    // A call of another architecture (32 bits on a 64-bit kernel) is none of ours: it ends the process.
    let filter = SeccompFilter::new(
        numbers().map(|number| (number, Vec::new())).collect::<BTreeMap<_, _>>(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM as u32),
        architecture,
    )
    .context("make the filter")?;
    let program: seccompiler::BpfProgram = filter.try_into().context("make the filter")?;
    seccompiler::apply_filter_all_threads(&program).context("install the filter")
}

fn numbers() -> impl Iterator<Item = c_long> {
    REFUSED.iter().flat_map(|(_, numbers)| numbers.iter().copied()).flat_map(with_x32)
}

/// On x86-64 the same calls have other numbers too, of the x32 interface, where the kernel has that: the same with a bit
/// set, and a few of their own, from 512 (`arch/x86/entry/syscalls/syscall_64.tbl`). Nothing of ours uses it.
#[cfg(target_arch = "x86_64")]
fn with_x32(number: c_long) -> impl Iterator<Item = c_long> {
    const X32: c_long = 0x4000_0000;
    let own = match number {
        libc::SYS_execve => Some(520),
        libc::SYS_ptrace => Some(521),
        libc::SYS_kexec_load => Some(528),
        libc::SYS_process_vm_readv => Some(539),
        libc::SYS_process_vm_writev => Some(540),
        libc::SYS_execveat => Some(545),
        _ => None,
    };
    [Some(number), Some(number | X32), own.map(|own| own | X32)].into_iter().flatten()
}

#[cfg(not(target_arch = "x86_64"))]
fn with_x32(number: c_long) -> impl Iterator<Item = c_long> {
    std::iter::once(number)
}

/// What the kernel says of this thread, which is like all others.
pub fn status() -> SandboxStatus {
    status_of(&fs::read_to_string("/proc/thread-self/status").unwrap_or_default())
}

fn status_of(text: &str) -> SandboxStatus {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).unwrap_or_default()
    };
    let effective = u64::from_str_radix(field("CapEff"), 16).unwrap_or(0);
    let known = CapabilitySet::from_bits_retain(effective);
    let mut capabilities: Vec<String> = known.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
    capabilities.sort();
    SandboxStatus {
        capabilities,
        no_new_privileges: field("NoNewPrivs") == "1",
        system_calls_filtered: field("Seccomp") == "2",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::thread;

    #[test]
    fn the_kernels_words_are_read() {
        let status = status_of(
            "Name:\tdnswall\nCapEff:\t000000c000001000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n",
        );
        assert_eq!(status.capabilities, ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON"]);
        assert!(status.no_new_privileges && status.system_calls_filtered);
        assert_eq!(status_of(""), SandboxStatus::default());
    }

    #[test]
    fn no_call_is_named_twice() {
        let all: Vec<c_long> = numbers().collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }

    // In a thread of its own, which takes both along when it ends: only this thread's calls are refused.
    #[test]
    fn what_is_given_up_is_gone() {
        let seen = thread::spawn(|| {
            shed_capabilities().unwrap();
            let before = status();
            let filter = SeccompFilter::new(
                numbers().map(|number| (number, Vec::new())).collect(),
                SeccompAction::Allow,
                SeccompAction::Errno(libc::EPERM as u32),
                TargetArch::try_from(std::env::consts::ARCH).unwrap(),
            );
            let program: seccompiler::BpfProgram = filter.unwrap().try_into().unwrap();
            seccompiler::apply_filter(&program).unwrap();
            let host = rustix::system::sethostname(b"x").unwrap_err();
            let started = std::process::Command::new("/bin/true").status().unwrap_err();
            (before, status(), host, started.raw_os_error())
        });
        let (before, after, host, started) = seen.join().unwrap();
        let kept: Vec<String> = KEPT.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
        assert!(before.capabilities.iter().all(|capability| kept.contains(capability)), "{before:?}");
        assert!(before.no_new_privileges && !before.system_calls_filtered);
        assert!(after.system_calls_filtered);
        assert_eq!((host, started), (Errno::PERM, Some(libc::EPERM)));
    }
}
