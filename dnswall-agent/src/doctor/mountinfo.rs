//! Takes the text of /proc/self/mountinfo, gives the mounts that decide whether the wall can stand.

use std::path::{Path, PathBuf};

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Which directory of the file system is the mount's root.
    pub root: String,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Type: `cgroup2`, `bpf`, …
    pub filesystem: String,
    /// Options of the superblock: for `cgroup` the controllers.
    pub options: Vec<String>,
}

/// Every mount of the text, in the order in which they were mounted; lines that cannot be read are left out.
pub fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_line).collect()
}

/// The cgroup2 mount that counts, and whether it is the whole hierarchy: the first that `is_whole` says is, else the
/// first at all. What mountinfo calls the root says nothing: in a private cgroup namespace the container's own part is
/// `/`, and the whole may be `/..`.
pub fn cgroup2(mounts: &[Mount], is_whole: impl Fn(&Path) -> bool) -> Option<(Mount, bool)> {
    let all = || mounts.iter().filter(|mount| mount.filesystem == "cgroup2");
    let whole = all().find(|mount| is_whole(&mount.point));
    whole.map(|mount| (mount.clone(), true)).or_else(|| all().next().map(|mount| (mount.clone(), false)))
}

/// The version 1 controllers among `net_cls` and `net_prio` that are mounted.
pub fn network_controllers(mounts: &[Mount]) -> Vec<String> {
    let mut controllers: Vec<String> = mounts
        .iter()
        .filter(|mount| mount.filesystem == "cgroup")
        .flat_map(|mount| mount.options.iter().cloned())
        .filter(|option| option == "net_cls" || option == "net_prio")
        .collect();
    controllers.sort();
    controllers.dedup();
    controllers
}

/// The mount that holds a path: the longest mount point above it, and the last of those mounted there.
pub fn holding<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.components().count())
}

// `36 35 98:0 /root /point rw,noatime shared:1 - ext3 /dev/root rw,errors=continue`: the number of fields before the
// dash varies (proc_pid_mountinfo(5)).
fn parse_line(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let mut after = after.split(' ');
    Some(Mount {
        root: unescape(before.next()?),
        point: PathBuf::from(unescape(before.next()?)),
        filesystem: after.next()?.to_owned(),
        options: after.nth(1).unwrap_or_default().split(',').map(str::to_owned).collect(),
    })
}

// Space, tab, newline and backslash are written as a backslash and three octal digits.
fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let octal = (*first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "\
24 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
25 24 0:23 / /sys rw,nosuid shared:2 - sysfs sysfs rw
26 25 0:6 / /sys/kernel/security rw shared:3 - securityfs securityfs rw
27 25 0:26 / /sys/fs/cgroup rw,nosuid,nodev shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
28 25 0:28 / /sys/fs/bpf rw,nosuid,mode=700 shared:5 - bpf bpf rw,mode=700
";
    const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
33 31 0:30 / /sys/fs/cgroup/net_cls,net_prio rw,relatime - cgroup cgroup rw,net_cls,net_prio
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const CONTAINER: &str = "\
600 500 0:55 / / rw,relatime - overlay overlay rw,lowerdir=/a\\040b,upperdir=/c
601 600 0:26 /../../../.. /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate
602 600 0:26 /system.slice/docker-0.scope /host/cgroup rw - cgroup2 cgroup rw
";

    #[test]
    fn the_unified_hierarchy_is_found() {
        let mounts = parse(UNIFIED);
        assert_eq!(mounts.len(), 5);
        let (mount, _) = cgroup2(&mounts, |_| true).unwrap();
        assert_eq!((mount.root.as_str(), mount.point.as_path()), ("/", Path::new("/sys/fs/cgroup")));
        assert!(network_controllers(&mounts).is_empty());
        assert_eq!(holding(&mounts, Path::new("/sys/fs/bpf/dnswall")).unwrap().filesystem, "bpf");
        assert_eq!(holding(&mounts, Path::new("/var/lib")).unwrap().filesystem, "ext4");
    }

    #[test]
    fn a_hybrid_hosts_network_controllers_are_seen() {
        let mounts = parse(HYBRID);
        assert_eq!(cgroup2(&mounts, |_| true).unwrap().0.point, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(network_controllers(&mounts), ["net_cls", "net_prio"]);
    }

    #[test]
    fn the_whole_is_preferred_whatever_its_root_is_called() {
        // As a DaemonSet sees it: its own part first, the host's tree from a hostPath further on.
        let mounts = parse(CONTAINER);
        let (mount, whole) = cgroup2(&mounts, |point| point == Path::new("/host/cgroup")).unwrap();
        assert!(whole && mount.point == Path::new("/host/cgroup"));
        let (mount, whole) = cgroup2(&mounts, |_| false).unwrap();
        assert!(!whole && mount.point == Path::new("/sys/fs/cgroup"), "a part is not taken for the whole");
    }

    #[test]
    fn escapes_and_broken_lines() {
        let line = r"1 2 3:4 / /with\040space\011tab\134slash rw - ext4 /dev/x rw";
        assert_eq!(parse(line)[0].point, Path::new("/with space\ttab\\slash"));
        assert_eq!(unescape(r"end\04"), r"end\04");
        assert!(parse("no dash here\n\n1 2 3 - x").is_empty());
    }
}
