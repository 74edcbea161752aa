//! Takes the facts of a host, gives the report: what each means for enforcement and what to do. Pure.

use dnswall_common::ABI_VERSION;

use super::facts::Facts;
use super::mountinfo;
use super::report::{Check, Level, Report};
use crate::host::Doubt;

/// Judges the facts.
pub fn judge(facts: &Facts) -> Report {
    let checks: Vec<Check> = [
        kernel(facts),
        cgroup2(facts),
        cgroup_namespace(facts),
        process_ids(facts),
        names(facts),
        network_controllers(facts),
        btf(facts),
        capabilities(facts),
        lockdown(facts),
        bpffs(facts),
        locked_memory(facts),
        jit(facts),
        unprivileged_bpf(facts),
        security_modules(facts),
        pins(facts),
    ]
    .into_iter()
    .flatten()
    .collect();
    let level = checks.iter().map(|check| check.level).max().unwrap_or(Level::Ok);
    let (enforced, not_enforced) = coverage(facts, level);
    Report { level, kernel: facts.release.clone(), checks, enforced, not_enforced }
}

/// Major and minor number of a kernel release.
pub fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

// The oldest kernel every program was tried on.
const OLDEST: (u32, u32) = (5, 10);

// From here on a device program may ask which process it is.
const DEVICE_HOOK: (u32, u32) = (6, 1);

const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_RESOURCE: u32 = 24;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

fn kernel(facts: &Facts) -> Option<Check> {
    let release = &facts.release;
    Some(match version(release) {
        Some(version) if version >= OLDEST => {
            Check::ok("kernel", release, "links, ring buffer and socket storage are there")
        }
        Some(_) => Check::fail(
            "kernel",
            release,
            "older than 5.10: the programs do not load",
            "run a kernel of 5.10 or later",
        ),
        None => Check::warn(
            "kernel",
            release,
            "not a release number this program can read",
            "compare it with 5.10, the oldest kernel that works",
        ),
    })
}

fn cgroup2(facts: &Facts) -> Option<Check> {
    let name = "cgroup2";
    let Some((mount, whole)) = &facts.cgroup2 else {
        return Some(Check::fail(
            name,
            "not mounted",
            "there is nothing to attach to",
            "mount -t cgroup2 none /sys/fs/cgroup (or any directory)",
        ));
    };
    let found = format!("{} (root {})", mount.point.display(), mount.root);
    Some(if !whole {
        Check::fail(
            name,
            found,
            "only a part of the hierarchy: whatever runs outside of it would not be held",
            "mount the host's /sys/fs/cgroup (Kubernetes: a hostPath), or start in the host's cgroup namespace (podman/docker --cgroupns=host)",
        )
    } else {
        Check::ok(name, found, "the whole hierarchy: a wall at its root holds every process")
    })
}

fn cgroup_namespace(facts: &Facts) -> Option<Check> {
    let name = "cgroup namespace";
    Some(match facts.initial_cgroup_namespace {
        Some(true) => Check::ok(name, "the host's", "cgroup paths are what the kernel sees"),
        // Kubernetes knows no other. Without the whole hierarchy it is a failure of the check above.
        Some(false) => Check::ok(
            name,
            "private",
            "workloads are named by the mounted hierarchy alone: one that is gone at once may stay unnamed in alerts",
        ),
        None => return None,
    })
}

fn process_ids(facts: &Facts) -> Option<Check> {
    let name = "pid namespace";
    Some(if facts.initial_pid_namespace {
        Check::ok(
            name,
            "the host's",
            "the kernel's process ids are those of /proc here: alerts name processes",
        )
    } else {
        Check::warn(
            name,
            "private",
            "the kernel reports the host's process ids: alerts would name few processes",
            "start in the host's pid namespace (Kubernetes: hostPID, podman/docker --pid=host)",
        )
    })
}

fn names(facts: &Facts) -> Option<Check> {
    let (name, host) = ("users and programs", &facts.host);
    let found = match host.is_ours() {
        true => "looked up here, in /".to_owned(),
        false => format!("looked up in {}", host.path().display()),
    };
    Some(match host.doubt() {
        Some(doubt) => Check::warn(
            name,
            format!("{found}: {doubt}"),
            "`user` and `exe` of a policy, and user names in alerts, would be a container's own",
            match doubt {
                Doubt::PrivatePids => {
                    "start in the host's pid namespace, or mount the host's / and name it: host-root in agent.toml"
                }
                Doubt::Closed(_) => {
                    "add CAP_SYS_PTRACE and run without an AppArmor profile, or mount the host's / and name it: \
                     host-root in agent.toml"
                }
            },
        ),
        None if !facts.users => Check::warn(
            name,
            format!("{found}, where etc/passwd cannot be read"),
            "policies and alerts have user numbers only",
            "see that host-root in agent.toml is the host's root directory",
        ),
        None if host.is_ours() => Check::ok(
            name,
            found,
            "`user` in a policy is what the name service says, `exe` a path on this host",
        ),
        None => Check::ok(
            name,
            found,
            "the host's: `user` in a policy is in its etc/passwd (directory users: by number), `exe` a path there",
        ),
    })
}

fn network_controllers(facts: &Facts) -> Option<Check> {
    let name = "cgroup version 1";
    let controllers = mountinfo::network_controllers(&facts.mounts);
    let found = controllers.join(", ");
    Some(match version(&facts.release) {
        _ if controllers.is_empty() => {
            Check::ok(name, "net_cls and net_prio not mounted", "sockets keep their version 2 cgroup")
        }
        Some(version) if version >= (5, 15) => {
            Check::ok(name, found, "mounted, and harmless since 5.15: sockets keep their version 2 cgroup")
        }
        _ => Check::warn(
            name,
            found,
            "before 5.15 a process in one of its groups makes every later socket lose its cgroup: \
             such sockets get the default verdict",
            "boot with cgroup_no_v1=net_cls,net_prio, or run 5.15 or later",
        ),
    })
}

fn btf(facts: &Facts) -> Option<Check> {
    Some(if facts.btf {
        Check::ok(
            "btf",
            "/sys/kernel/btf/vmlinux",
            "the kernel's own layout is known: executables can be named",
        )
    } else {
        Check::fail(
            "btf",
            "/sys/kernel/btf/vmlinux cannot be read",
            "who a process is cannot be read from the kernel",
            "run a kernel with CONFIG_DEBUG_INFO_BTF=y and see that /sys is mounted",
        )
    })
}

fn capabilities(facts: &Facts) -> Option<Check> {
    let name = "capabilities";
    let has = |capability: u32| facts.capabilities >> capability & 1 == 1;
    let admin = has(CAP_SYS_ADMIN);
    let missing: Vec<&str> = [
        ("CAP_BPF", has(CAP_BPF) || admin),
        ("CAP_NET_ADMIN", has(CAP_NET_ADMIN)),
        ("CAP_PERFMON", has(CAP_PERFMON) || admin),
    ]
    .into_iter()
    .filter_map(|(name, there)| (!there).then_some(name))
    .collect();
    Some(if !missing.is_empty() {
        Check::fail(
            name,
            format!("without {}", missing.join(", ")),
            "programs cannot be loaded or attached",
            "run as root, or as a service with CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and CAP_SYS_PTRACE",
        )
    } else if !has(CAP_SYS_PTRACE) {
        Check::warn(
            name,
            "without CAP_SYS_PTRACE",
            "alerts cannot name the executables of other users' processes (the verdict does not need it)",
            "add CAP_SYS_PTRACE",
        )
    } else {
        Check::ok(name, "all that is needed", "programs can be loaded and attached, processes named")
    })
}

fn lockdown(facts: &Facts) -> Option<Check> {
    let mode = facts.lockdown.as_deref()?;
    Some(match mode {
        "confidentiality" => Check::fail(
            "lockdown",
            mode,
            "programs may not read kernel memory, so who a process is cannot be told",
            "boot with lockdown=integrity",
        ),
        _ => Check::ok("lockdown", mode, "programs may read kernel memory"),
    })
}

fn bpffs(facts: &Facts) -> Option<Check> {
    let name = "bpffs";
    let pins = facts.pins.display().to_string();
    Some(match mountinfo::holding(&facts.mounts, &facts.pins) {
        Some(mount) if mount.filesystem == "bpf" => Check::ok(
            name,
            mount.point.display().to_string(),
            "the wall is pinned: it stands when the agent dies",
        ),
        _ => Check::warn(
            name,
            format!("none at {pins}"),
            "nothing to pin in yet; `dnswall agent run` mounts one when it may",
            "mount -t bpf bpf /sys/fs/bpf",
        ),
    })
}

fn locked_memory(facts: &Facts) -> Option<Check> {
    // Since 5.11 maps are charged to the memory cgroup instead.
    if version(&facts.release).is_none_or(|version| version >= (5, 11)) {
        return None;
    }
    let found = match facts.locked_memory_bytes {
        None => "unlimited".to_owned(),
        Some(bytes) => format!("{} KiB", bytes / 1024),
    };
    let may_raise = facts.capabilities >> CAP_SYS_RESOURCE & 1 == 1;
    Some(if facts.locked_memory_bytes.is_none() || may_raise {
        Check::ok(
            "locked memory",
            found,
            "before 5.11 maps count as locked memory; the agent raises the limit",
        )
    } else {
        Check::fail(
            "locked memory",
            found,
            "before 5.11 maps count as locked memory, and they will not fit",
            "LimitMEMLOCK=infinity in the unit, or CAP_SYS_RESOURCE",
        )
    })
}

fn jit(facts: &Facts) -> Option<Check> {
    Some(match facts.jit? {
        0 => Check::warn(
            "jit",
            "off",
            "verdicts are right but several times slower",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        _ => Check::ok("jit", "on", "programs run as machine code"),
    })
}

fn unprivileged_bpf(facts: &Facts) -> Option<Check> {
    Some(match facts.unprivileged_bpf_disabled? {
        0 => Check::warn(
            "unprivileged bpf",
            "allowed",
            "no way around the wall, but every user may load programs",
            "sysctl -w kernel.unprivileged_bpf_disabled=1",
        ),
        _ => Check::ok("unprivileged bpf", "refused", "only root loads programs"),
    })
}

fn security_modules(facts: &Facts) -> Option<Check> {
    let name = "security modules";
    let found = facts.security_modules.as_ref().map_or("unknown".to_owned(), |modules| modules.join(", "));
    Some(match &facts.lsm_obstacle {
        None => Check::ok(name, found, "BPF LSM is active: sockets that no packet hook sees are refused"),
        Some(obstacle) => Check::warn(
            name,
            found,
            &format!("AF_PACKET, AF_XDP and the like are not refused here: {obstacle}"),
            "boot a kernel of 6.0 or later with bpf in lsm=; else keep CAP_NET_RAW from workloads, and the modules l2tp_ppp, \
             pppoe and pptp from loading (`install l2tp_ppp /bin/false` in modprobe.d): their sockets take no privilege",
        ),
    })
}

fn pins(facts: &Facts) -> Option<Check> {
    let name = "pinned wall";
    let at = facts.pins.display();
    let found = match facts.pinned.as_slice() {
        [] => return Some(Check::ok(name, format!("none at {at}"), "no wall stands from here")),
        versions => {
            let names: Vec<String> = versions.iter().map(|version| format!("v{version}")).collect();
            format!("{} at {at}", names.join(", "))
        }
    };
    Some(match facts.pinned.as_slice() {
        [ABI_VERSION] => Check::ok(name, found, "a wall stands; the next agent takes it over"),
        [_] => Check::ok(
            name,
            found,
            "a wall of other layouts stands; the next agent raises its own beside it, then takes it down",
        ),
        _ => Check::warn(
            name,
            found,
            "walls of two versions stand beside each other, as while one takes the other's place: both decide",
            "start the agent, which finishes it; `dnswall agent detach` takes both down",
        ),
    })
}

fn coverage(facts: &Facts, level: Level) -> (Vec<String>, Vec<String>) {
    let mut enforced: Vec<String> = Vec::new();
    let mut not_enforced: Vec<String> = [
        "TCP connections that are older than the wall: they live on until they end",
        "what processes on this host say to each other (loopback)",
        "packets that a virtual machine or a bridge sends past this host's sockets (forwarded traffic)",
        "DNS over HTTPS: to the wall it is a connection to port 443, allowed or not by address",
    ]
    .map(str::to_owned)
    .to_vec();
    if let Some(obstacle) = &facts.lsm_obstacle {
        let open = "sockets that no packet hook sees (AF_PACKET, AF_XDP and the like need CAP_NET_RAW; PPP over L2TP, which nothing but the \
                    module's absence keeps from anybody, does not)";
        not_enforced.insert(0, format!("{open}: {obstacle}"));
    }
    if level == Level::Fail {
        not_enforced.insert(0, "anything, until what failed above is mended".to_owned());
        return (enforced, not_enforced);
    }
    enforced.extend(
        [
            "port 53 over UDP and TCP, IPv4 and IPv6: only to the policy's resolvers, only from who may ask",
            "new outbound connections and datagrams of every process in every network namespace",
            "inbound port 53: only from where the policy serves",
            "raw IP sockets, fragments, source routes, unknown protocols",
        ]
        .map(str::to_owned),
    );
    if facts.lsm_obstacle.is_none() {
        enforced.push("sockets of other families (AF_PACKET, AF_XDP, AF_VSOCK and the like): only whom [unjudged] names".to_owned());
    }
    let devices = "devices that carry packets (/dev/net/tun, /dev/ppp, RDMA)";
    if version(&facts.release).is_some_and(|version| version >= DEVICE_HOOK) {
        enforced.push(format!("{devices}: only whom [unjudged] names"));
    } else {
        not_enforced.push(format!("{devices}: kernels from 6.1 on say which process it is"));
    }
    if version(&facts.release).is_some_and(|version| version < (5, 15))
        && !mountinfo::network_controllers(&facts.mounts).is_empty()
    {
        not_enforced.insert(
            0,
            "rules with `from`, for sockets of processes once put into a net_cls or net_prio group"
                .to_owned(),
        );
    }
    (enforced, not_enforced)
}

#[cfg(test)]
mod tests;
