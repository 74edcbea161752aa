//! Each change of a sound host, and the findings it makes.

use super::*;
use crate::host::HostRoot;
use std::path::PathBuf;

fn sound() -> Facts {
    let mounts = mountinfo::parse(
        "27 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n28 25 0:28 / /sys/fs/bpf rw - bpf bpf rw\n",
    );
    Facts {
        release: "6.12.9-amd64".to_owned(),
        cgroup2: mountinfo::cgroup2(&mounts, |_| true),
        mounts,
        initial_cgroup_namespace: Some(true),
        initial_pid_namespace: true,
        host: HostRoot::default(),
        users: true,
        btf: true,
        security_modules: Some(vec!["lockdown".to_owned(), "bpf".to_owned()]),
        lsm_obstacle: None,
        lockdown: Some("none".to_owned()),
        capabilities: u64::MAX,
        unprivileged_bpf_disabled: Some(2),
        jit: Some(1),
        locked_memory_bytes: Some(8 << 20),
        pins: PathBuf::from("/sys/fs/bpf/dnswall"),
        pinned: Vec::new(),
    }
}

// What each change of a sound host does: the checks that are no longer ok.
fn check(change: impl FnOnce(&mut Facts), expected: &[(&str, Level)]) {
    let mut facts = sound();
    change(&mut facts);
    let report = judge(&facts);
    let found: Vec<(&str, Level)> = report
        .checks
        .iter()
        .filter(|check| check.level != Level::Ok)
        .map(|check| (check.name.as_str(), check.level))
        .collect();
    assert_eq!(found, expected);
    assert!(report.checks.iter().all(|check| check.fix.is_some() == (check.level != Level::Ok)));
    let fails = expected.iter().any(|(_, level)| *level == Level::Fail);
    assert_eq!(report.enforced.is_empty(), fails);
    assert_eq!(report.failures().count() > 0, fails);
}

#[test]
fn each_fact_is_judged() {
    check(|_| (), &[]);
    check(|facts| facts.release = "5.4.0".to_owned(), &[("kernel", Level::Fail)]);
    check(|facts| facts.release = "5.10.0-28".to_owned(), &[]);
    check(|facts| facts.release = "weird".to_owned(), &[("kernel", Level::Warn)]);
    check(|facts| facts.cgroup2 = None, &[("cgroup2", Level::Fail)]);
    check(|facts| facts.mounts.clear(), &[("bpffs", Level::Warn)]);
    check(|facts| facts.cgroup2 = mountinfo::cgroup2(&facts.mounts, |_| false), &[("cgroup2", Level::Fail)]);
    check(|facts| facts.initial_cgroup_namespace = Some(false), &[]);
    check(|facts| facts.initial_pid_namespace = false, &[("pid namespace", Level::Warn)]);
    check(|facts| facts.users = false, &[("users and programs", Level::Warn)]);
    for doubt in [Doubt::PrivatePids, Doubt::Closed(rustix::io::Errno::ACCESS)] {
        let host = HostRoot::own(Some(doubt));
        check(|facts| facts.host = host, &[("users and programs", Level::Warn)]);
    }
    check(|facts| facts.btf = false, &[("btf", Level::Fail)]);
    check(|facts| facts.lockdown = Some("confidentiality".to_owned()), &[("lockdown", Level::Fail)]);
    check(|facts| facts.capabilities = 0, &[("capabilities", Level::Fail)]);
    check(
        |facts| facts.capabilities = 1 << CAP_BPF | 1 << CAP_NET_ADMIN | 1 << CAP_PERFMON,
        &[("capabilities", Level::Warn)],
    );
    check(|facts| facts.jit = Some(0), &[("jit", Level::Warn)]);
    check(|facts| facts.unprivileged_bpf_disabled = Some(0), &[("unprivileged bpf", Level::Warn)]);
    check(|facts| facts.pinned = vec![ABI_VERSION], &[]);
    check(|facts| facts.pinned = vec![ABI_VERSION, 99], &[("pinned wall", Level::Warn)]);
}

#[test]
fn a_hybrid_host_matters_before_5_15() {
    let mount = "33 31 0:30 / /sys/fs/cgroup/net_cls rw - cgroup cgroup rw,net_cls\n";
    check(|facts| facts.mounts.extend(mountinfo::parse(mount)), &[]);
    check(
        |facts| {
            facts.mounts.extend(mountinfo::parse(mount));
            facts.release = "5.10.1".to_owned();
        },
        &[("cgroup version 1", Level::Warn)],
    );
}

#[test]
fn locked_memory_matters_before_5_11() {
    check(
        |facts| {
            facts.release = "5.10.1".to_owned();
            facts.capabilities &= !(1 << CAP_SYS_RESOURCE);
        },
        &[("locked memory", Level::Fail)],
    );
}

#[test]
fn releases_are_read() {
    assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
    assert_eq!(version("5.10.0-28-amd64"), Some((5, 10)));
    assert_eq!(version("7.2-rc3"), Some((7, 2)));
    assert_eq!(version("six"), None);
}
