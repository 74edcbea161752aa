//! Which cgroup this process is in, and from where the canary tries what the wall forbids.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::kernel::Cgroup2Mount;

/// The cgroup this process is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// Its directory.
    pub directory: PathBuf,
    /// Its path from the root of the hierarchy.
    pub name: String,
    /// What /proc calls it, which says no more than whether it is still the same.
    pub called: String,
}

/// From where the canary tries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// This process is behind the wall: from here.
    Here,
    /// A copy of this process, moved into this cgroup, which is the wall's.
    Inside(PathBuf),
    /// A copy of this process, moved into a cgroup of its own below the wall's, which itself holds no processes because it hands
    /// controllers on.
    Below(PathBuf),
}

/// Name of the canary's own cgroup, where it needs one.
const OWN: &str = "dnswall-canary.scope";

impl Home {
    /// Looks where this process is.
    ///
    /// # Errors
    /// When the mounted hierarchy does not show it.
    pub fn find(mount: &Cgroup2Mount) -> Result<Self> {
        let called = called().context("read /proc/self/cgroup")?;
        // As the host calls it; from a private namespace the path says nothing, and then it is looked for.
        let usual = mount.path.join(called.trim_start_matches('/'));
        let directory = if holds_this_process(&usual) { usual } else { search(&mount.path)? };
        let name = mount.relative(&directory)?;
        Ok(Self { directory, name, called })
    }
}

/// What /proc calls this process's cgroup.
///
/// # Errors
/// The kernel's.
pub fn called() -> io::Result<String> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::"));
    own.map(str::to_owned).ok_or_else(|| io::ErrorKind::NotFound.into())
}

impl Place {
    /// For a wall at this cgroup. One below another wall's is behind it as well.
    pub fn choose(home: Option<&Home>, wall: &Path) -> Self {
        if home.is_some_and(|home| home.directory.starts_with(wall)) {
            return Self::Here;
        }
        let is_root = fs::metadata(wall).is_ok_and(|metadata| metadata.ino() == ROOT_INODE);
        let hands_on =
            fs::read_to_string(wall.join("cgroup.subtree_control")).is_ok_and(|list| !list.trim().is_empty());
        if hands_on && !is_root { Self::Below(wall.join(OWN)) } else { Self::Inside(wall.to_owned()) }
    }

    /// The directory whose cgroup the canary has.
    pub fn directory<'p>(&'p self, home: Option<&'p Home>) -> Option<&'p Path> {
        match self {
            Self::Here => home.map(|home| home.directory.as_path()),
            Self::Inside(directory) | Self::Below(directory) => Some(directory),
        }
    }
}

/// kernfs gives it to its root alone.
const ROOT_INODE: u64 = 1;

fn holds_this_process(directory: &Path) -> bool {
    let own = std::process::id().to_string();
    fs::read_to_string(directory.join("cgroup.procs")).is_ok_and(|list| list.lines().any(|line| line == own))
}

fn search(mount: &Path) -> Result<PathBuf> {
    let mut pending = vec![mount.to_owned()];
    while let Some(directory) = pending.pop() {
        if holds_this_process(&directory) {
            return Ok(directory);
        }
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        pending.extend(entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()));
    }
    anyhow::bail!("find this process below {}", mount.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::find_cgroup2;

    #[test]
    fn this_process_is_found_by_name_and_by_looking() {
        let mount = find_cgroup2().unwrap();
        let home = Home::find(&mount).unwrap();
        assert!(holds_this_process(&home.directory));
        assert_eq!(search(&mount.path).unwrap(), home.directory);
        assert_eq!(Place::choose(Some(&home), &mount.path), Place::Here);
    }

    #[test]
    fn a_wall_elsewhere_is_tried_from_within() {
        let wall = tempfile::tempdir().unwrap();
        let home = Home { directory: "/elsewhere".into(), name: "/elsewhere".into(), called: "/".into() };
        assert_eq!(Place::choose(Some(&home), wall.path()), Place::Inside(wall.path().to_owned()));
        fs::write(wall.path().join("cgroup.subtree_control"), "\n").unwrap();
        assert_eq!(Place::choose(None, wall.path()), Place::Inside(wall.path().to_owned()));
        fs::write(wall.path().join("cgroup.subtree_control"), "memory pids\n").unwrap();
        assert_eq!(Place::choose(None, wall.path()), Place::Below(wall.path().join(OWN)));
    }
}
