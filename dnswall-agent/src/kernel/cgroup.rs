//! Where cgroup v2 is mounted, and which cgroups there are.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::host::read_text;

/// A cgroup2 mount, as `/proc/self/mountinfo` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup2Mount {
    /// Where it is mounted.
    pub path: PathBuf,
    /// Which directory of the hierarchy is mounted there, as this process's cgroup namespace sees it: `/` in a private
    /// one is the container's own cgroup, and `/..` may be the whole. For showing only.
    pub root: String,
    /// Whether the whole hierarchy is visible here. A wall attached below it would silently miss the rest.
    pub whole: bool,
}

/// Inode number of the hierarchy's root directory, in whatever namespace it is looked at (kernfs gives the first to
/// its root).
const ROOT_INODE: u64 = 1;

impl Cgroup2Mount {
    /// A directory of this mount as `/proc/PID/cgroup` names it.
    ///
    /// # Errors
    /// When the directory is not below the mount.
    pub fn relative(&self, directory: &Path) -> Result<String> {
        let rest = directory.strip_prefix(&self.path).ok().with_context(|| {
            format!("{} is not below the cgroup2 mount {}", directory.display(), self.path.display())
        })?;
        let rest = rest.to_str().context("a cgroup's path is not UTF-8")?;
        Ok(format!("/{rest}"))
    }
}

/// Finds cgroup v2, wherever it is mounted; a whole one before a part.
///
/// # Errors
/// When it is not mounted.
pub fn find_cgroup2() -> Result<Cgroup2Mount> {
    let text = read_text("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    let is_whole = |path: &Path| fs::metadata(path).is_ok_and(|metadata| metadata.ino() == ROOT_INODE);
    match cgroup2_in(&text, is_whole) {
        Some(mount) => Ok(mount),
        None => bail!(
            "cgroup v2 is not mounted (on a host with only v1: mount -t cgroup2 none /sys/fs/cgroup/unified, or boot \
             with systemd.unified_cgroup_hierarchy=1)"
        ),
    }
}

/// The cgroup2 mount in the text of a mountinfo file; a whole one before a part. `is_whole` looks at a mount point.
pub fn cgroup2_in(mountinfo: &str, is_whole: impl Fn(&Path) -> bool) -> Option<Cgroup2Mount> {
    let mut found: Option<Cgroup2Mount> = None;
    for line in mountinfo.lines() {
        // id parent major:minor root mount-point options [optional…] - type source options
        let Some((before, after)) = line.split_once(" - ") else { continue };
        if after.split(' ').next() != Some("cgroup2") {
            continue;
        }
        let mut fields = before.split(' ').skip(3);
        let (Some(root), Some(path)) = (fields.next(), fields.next()) else { continue };
        let path = PathBuf::from(unescape(path));
        let mount = Cgroup2Mount { whole: is_whole(&path), path, root: unescape(root) };
        if found.as_ref().is_none_or(|known| !known.whole && mount.whole) {
            found = Some(mount);
        }
    }
    found
}

/// Undoes the octal escapes of mountinfo (space, tab, newline, backslash).
fn unescape(field: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(field.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

/// The id of a cgroup: its directory's inode number (so on 64-bit kernels from 5.5).
///
/// # Errors
/// When the directory cannot be read.
pub fn cgroup_id(directory: &Path) -> Result<u64> {
    let metadata =
        fs::metadata(directory).with_context(|| format!("look at cgroup {}", directory.display()))?;
    Ok(metadata.ino())
}

/// Calls `each` with id and path (as `/proc/PID/cgroup` has it) of every cgroup from `top` down. Directories that
/// vanish meanwhile are passed over.
pub fn walk(mount: &Cgroup2Mount, top: &Path, each: &mut dyn FnMut(u64, &str)) {
    let mut pending = vec![top.to_owned()];
    while let Some(directory) = pending.pop() {
        let (Ok(metadata), Ok(path)) = (fs::metadata(&directory), mount.relative(&directory)) else {
            continue;
        };
        each(metadata.ino(), &path);
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        pending.extend(
            entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|e| e.path()),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
33 25 0:29 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
34 33 0:30 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw,nsdelegate
35 33 0:31 / /sys/fs/cgroup/systemd rw shared:11 - cgroup cgroup rw,xattr,name=systemd";

    #[test]
    fn the_mount_is_found_wherever_it_is() {
        let mount = cgroup2_in(HYBRID, |_| true).unwrap();
        assert_eq!(mount.path, Path::new("/sys/fs/cgroup/unified"));
        assert!(mount.whole);
        assert_eq!(mount.relative(Path::new("/sys/fs/cgroup/unified/a/b")).unwrap(), "/a/b");
        assert_eq!(mount.relative(Path::new("/sys/fs/cgroup/unified")).unwrap(), "/");
        assert!(mount.relative(Path::new("/tmp")).is_err());
        assert_eq!(cgroup2_in("35 33 0:31 / /x rw - cgroup cgroup rw", |_| true), None);
    }

    #[test]
    fn the_whole_is_preferred_whatever_its_root_is_called() {
        // In a private cgroup namespace the fresh mount says "/" and is a part, the host's says "/.." and is whole.
        let text = "34 33 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\
                    36 33 0:30 /.. /mnt/c\\040g rw - cgroup2 cgroup2 rw";
        let found = cgroup2_in(text, |path| path == Path::new("/mnt/c g")).unwrap();
        assert_eq!(found, Cgroup2Mount { path: "/mnt/c g".into(), root: "/..".into(), whole: true });
        assert!(!cgroup2_in(text, |_| false).unwrap().whole);
    }

    #[test]
    fn this_host_shows_its_whole_hierarchy() {
        assert!(find_cgroup2().unwrap().whole);
    }
}
