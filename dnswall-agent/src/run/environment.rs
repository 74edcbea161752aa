//! What compiling must know of the host: users, executables, the wall's cgroup.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use super::executables::{Sighting, identities, sightings};
use crate::compile::{Environment, FileId, RootCgroup};
use crate::host::HostRoot;

/// The host, and what it said; one for each compilation.
#[derive(Debug)]
pub struct HostEnvironment {
    host: HostRoot,
    root: RootCgroup,
    seed: u64,
    seen: Mutex<BTreeMap<String, Vec<Sighting>>>,
}

impl HostEnvironment {
    /// For a wall at this cgroup, whose image's hashes are keyed with `seed`.
    pub fn new(host: HostRoot, root: RootCgroup, seed: u64) -> Self {
        Self { host, root, seed, seen: Mutex::default() }
    }

    /// The same, with nothing asked yet.
    pub fn again(&self) -> Self {
        Self::new(self.host.clone(), self.root.clone(), self.seed)
    }

    /// For a command without an agent: the whole hierarchy, wherever it is mounted.
    pub fn without_wall(host: HostRoot) -> Self {
        let root =
            crate::kernel::find_cgroup2().and_then(|mount| Self::root_at(&mount.path)).unwrap_or_default();
        Self::new(host, root, 0)
    }

    /// The cgroup of a directory.
    ///
    /// # Errors
    /// When the directory is no cgroup of the version 2 hierarchy.
    pub fn root_at(directory: &Path) -> anyhow::Result<RootCgroup> {
        let (id, path) = crate::kernel::wall::root_cgroup(directory)?;
        Ok(RootCgroup { id, path })
    }

    /// Where users and executables are looked up.
    pub fn host(&self) -> &HostRoot {
        &self.host
    }

    /// Whether an executable that was asked for is another file by now.
    pub fn has_changed(&self) -> bool {
        let seen = self.seen().clone();
        seen.iter().any(|(pattern, files)| sightings(&self.host, pattern) != *files)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<Sighting>>> {
        // Nothing is left half done in it: a panic elsewhere does not spoil it.
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Environment for HostEnvironment {
    fn uid(&self, name: &str) -> Option<u32> {
        self.host.uid(name)
    }

    fn executables(&self, pattern: &str) -> Vec<FileId> {
        // Looked at first: a file replaced in between is noticed the next time.
        let files = sightings(&self.host, pattern);
        let identities = identities(&self.host, &files);
        self.seen().insert(pattern.to_owned(), files);
        identities
    }

    fn root_cgroup(&self) -> RootCgroup {
        self.root.clone()
    }

    fn seed(&self) -> u64 {
        self.seed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_executable_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tool");
        let pattern = path.to_str().unwrap();
        let environment = HostEnvironment::new(HostRoot::default(), RootCgroup::default(), 1);
        assert!(environment.executables(pattern).is_empty());
        assert!(!environment.has_changed());
        std::fs::write(&path, "one").unwrap();
        assert!(environment.has_changed());
        let first = environment.executables(pattern);
        assert_eq!(first.len(), 1);
        assert!(!environment.has_changed());
        std::fs::write(directory.path().join("new"), "two").unwrap();
        std::fs::rename(directory.path().join("new"), &path).unwrap();
        assert!(environment.has_changed());
        let other = HostEnvironment::new(HostRoot::default(), RootCgroup::default(), 1);
        assert!(!other.has_changed(), "nobody asked for it");
    }

    #[test]
    fn users_are_the_hosts() {
        let environment = HostEnvironment::without_wall(HostRoot::default());
        assert_eq!(environment.uid("root"), Some(0));
        assert_eq!(environment.uid("no such user here"), None);
    }
}
