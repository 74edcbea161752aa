//! Reads what the kernel holds of the wall. The only file of the watch that does I/O; what it finds is plain data.

use std::fs;
use std::path::{Path, PathBuf};

use super::home;
use crate::doctor::mountinfo;
use crate::host::read_text;
use crate::kernel::{Hold, HookNow, MapNow, PlaceNow};

/// The wall as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Every hook.
    pub hooks: Vec<HookNow>,
    /// Every map.
    pub maps: Vec<MapNow>,
    /// Where it stands.
    pub place: PlaceNow,
    /// What /proc calls this process's cgroup; `None` when it does not say.
    pub called: Option<String>,
    /// Version 1 groups with a network tag, on a kernel where such a tag takes sockets out of their cgroup.
    pub tags: Vec<String>,
}

/// Directories of one version 1 hierarchy that are looked at.
const GROUPS_MAX: usize = 10_000;

impl Facts {
    /// Looks at the wall; `has_tags` says whether version 1 tags matter on this kernel.
    pub fn read(hold: &Hold, has_tags: bool) -> Self {
        Self {
            hooks: hold.hooks(),
            maps: hold.maps(),
            place: hold.place(),
            called: home::called().ok(),
            tags: if has_tags { tags() } else { Vec::new() },
        }
    }
}

/// Groups whose sockets are tagged: the first write of a tag makes the kernel forget which version 2 cgroup a socket
/// belongs to, until 5.15 kept both.
fn tags() -> Vec<String> {
    let mounts = mountinfo::parse(&read_text("/proc/self/mountinfo").unwrap_or_default());
    let tops = mounts.iter().filter(|mount| mount.filesystem == "cgroup").map(|mount| mount.point.as_path());
    tops.flat_map(groups).filter(|group| is_tagged(group)).map(|group| group.display().to_string()).collect()
}

fn groups(top: &Path) -> Vec<PathBuf> {
    // Only hierarchies of the two controllers have either file.
    if !top.join("net_cls.classid").exists() && !top.join("net_prio.ifpriomap").exists() {
        return Vec::new();
    }
    let (mut found, mut next) = (vec![top.to_owned()], 0);
    while next < found.len() && found.len() < GROUPS_MAX {
        let entries = fs::read_dir(&found[next]).into_iter().flatten().flatten();
        found.extend(entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()));
        next += 1;
    }
    found
}

fn is_tagged(group: &Path) -> bool {
    let read = |name: &str| fs::read_to_string(group.join(name)).unwrap_or_default();
    is_class(&read("net_cls.classid")) || has_priority(&read("net_prio.ifpriomap"))
}

fn is_class(text: &str) -> bool {
    text.trim().parse::<u64>().is_ok_and(|class| class != 0)
}

// A line for each device: its name and a number.
fn has_priority(text: &str) -> bool {
    text.lines().filter_map(|line| line.split_whitespace().nth(1)).any(|number| number != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_seen() {
        assert!(is_class("1048577\n") && !is_class("0\n") && !is_class(""));
        assert!(has_priority("lo 0\neth0 5\n") && !has_priority("lo 0\neth0 0\n") && !has_priority(""));
    }

    #[test]
    fn only_the_network_controllers_groups_are_looked_at() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir(top.path().join("inner")).unwrap();
        assert!(groups(top.path()).is_empty());
        fs::write(top.path().join("net_cls.classid"), "0\n").unwrap();
        fs::write(top.path().join("inner/net_cls.classid"), "7\n").unwrap();
        let tagged: Vec<PathBuf> = groups(top.path()).into_iter().filter(|group| is_tagged(group)).collect();
        assert_eq!(tagged, [top.path().join("inner")]);
    }
}
