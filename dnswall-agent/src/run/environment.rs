//! What compiling must know of the host: users, executables, the wall's cgroup.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::executables::{Sighting, identities, sightings};
use super::outdated::{Outdated, outdated};
use crate::blocklist::fetch::Depot;
use crate::blocklist::{Library, Lists, Shelf, Trouble, Wanted};
use crate::compile::{EXECUTABLES_PER_PATTERN_MAX, Environment, FileId, RootCgroup};
use crate::host::HostRoot;

/// The host, and what it said; one for each compilation.
#[derive(Debug)]
pub struct HostEnvironment {
    host: HostRoot,
    root: RootCgroup,
    seed: u64,
    has_decided: bool,
    /// What the compilation before was told of each pattern.
    before: BTreeMap<String, Vec<FileId>>,
    named: Mutex<BTreeMap<String, Named>>,
    library: Library,
    /// The lists of the compilation before.
    shelf_before: Option<Arc<Shelf>>,
    /// Names of lists that may have changed as they like.
    accepted: Vec<String>,
    shelf: Mutex<Option<Arc<Shelf>>>,
}

/// What a pattern names.
#[derive(Debug)]
struct Named {
    found: Vec<Sighting>,
    files: Vec<FileId>,
    /// What it named before, and processes still run.
    outdated: Vec<Outdated>,
}

impl Named {
    fn all(&self) -> Vec<FileId> {
        self.files.iter().copied().chain(self.outdated.iter().map(|outdated| outdated.file)).collect()
    }
}

impl HostEnvironment {
    /// For a wall at this cgroup, whose image's hashes are keyed with `seed`.
    pub fn new(host: HostRoot, root: RootCgroup, seed: u64) -> Self {
        let library = Library { host: host.clone(), scratch: std::env::temp_dir(), depot: None };
        Self {
            host,
            root,
            seed,
            has_decided: false,
            before: BTreeMap::new(),
            named: Mutex::default(),
            library,
            shelf_before: None,
            accepted: Vec::new(),
            shelf: Mutex::default(),
        }
    }

    /// With a directory of the agent's own for what is too large for memory.
    #[must_use]
    pub fn with_scratch(mut self, scratch: &Path) -> Self {
        scratch.clone_into(&mut self.library.scratch);
        self
    }

    /// With lists that are fetched.
    #[must_use]
    pub fn with_depot(mut self, depot: Arc<Depot>) -> Self {
        self.library.depot = Some(depot);
        self
    }

    /// Reads these lists again, and takes them however they have changed.
    #[must_use]
    pub fn accepting(self, accepted: Vec<String>) -> Self {
        Self { accepted, ..self }
    }

    /// Where lists are read from.
    pub const fn library(&self) -> &Library {
        &self.library
    }

    /// The same, for the next compilation: a file that a pattern named so far stays one of its files while a process
    /// runs it.
    pub fn again(&self) -> Self {
        let before = self.named().iter().map(|(pattern, named)| (pattern.clone(), named.all())).collect();
        let new = Self::new(self.host.clone(), self.root.clone(), self.seed);
        Self { before, library: self.library.clone(), shelf_before: self.shelf(), ..new }
    }

    /// For a policy that has decided before.
    #[must_use]
    pub fn decided(self) -> Self {
        Self { has_decided: true, ..self }
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

    /// Whether an executable that was asked for is another file by now, nobody runs the one from before any more, or a list
    /// was written anew.
    pub fn has_changed(&self) -> bool {
        let lists_have = self.shelf().is_some_and(|shelf| shelf.has_changed(&self.library));
        lists_have || self.executables_have_changed()
    }

    /// Whether a list's file is another one than was read, still being written or not.
    pub fn lists_differ(&self) -> bool {
        self.shelf().is_some_and(|shelf| shelf.differs(&self.library))
    }

    fn executables_have_changed(&self) -> bool {
        self.named().iter().any(|(pattern, named)| {
            sightings(&self.host, pattern) != named.found || !named.outdated.iter().all(Outdated::runs)
        })
    }

    fn shelf(&self) -> Option<Arc<Shelf>> {
        self.shelf.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn named(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Named>> {
        // Nothing is left half done in it: a panic elsewhere does not spoil it.
        self.named.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Environment for HostEnvironment {
    fn uid(&self, name: &str) -> Option<u32> {
        self.host.uid(name)
    }

    fn executables(&self, pattern: &str) -> Vec<FileId> {
        // Looked at first: a file replaced in between is noticed the next time.
        let found = sightings(&self.host, pattern);
        let files = identities(&self.host, &found);
        let before = self.before.get(pattern).map_or(&[][..], Vec::as_slice);
        let gone: Vec<FileId> = before.iter().filter(|file| !files.contains(file)).copied().collect();
        let mut outdated = outdated(Path::new("/proc"), &gone);
        // What is there now goes first.
        outdated.truncate(EXECUTABLES_PER_PATTERN_MAX.saturating_sub(files.len()));
        let named = Named { found, files, outdated };
        let all = named.all();
        self.named().insert(pattern.to_owned(), named);
        all
    }

    fn root_cgroup(&self) -> RootCgroup {
        self.root.clone()
    }

    fn seed(&self) -> u64 {
        self.seed
    }

    fn network_namespace(&self) -> u32 {
        // Numbers of namespaces have 32 bits (`ns_common.inum`).
        std::fs::metadata("/proc/self/ns/net").map_or(0, |metadata| metadata.ino() as u32)
    }

    fn has_decided(&self) -> bool {
        self.has_decided
    }

    fn lists(&self, wanted: Wanted) -> Result<(Arc<Lists>, Vec<Trouble>), Vec<Trouble>> {
        let shelf = Arc::new(self.library.read(
            wanted,
            self.shelf_before.as_ref(),
            self.has_decided,
            &self.accepted,
        )?);
        *self.shelf.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(shelf.clone());
        Ok((shelf.lists().clone(), shelf.troubles().to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

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
        assert!(!first.is_empty());
        assert!(!environment.has_changed());
        std::fs::write(directory.path().join("new"), "two").unwrap();
        std::fs::rename(directory.path().join("new"), &path).unwrap();
        assert!(environment.has_changed());
        let other = HostEnvironment::new(HostRoot::default(), RootCgroup::default(), 1);
        assert!(!other.has_changed(), "nobody asked for it");
    }

    #[test]
    fn a_replaced_executable_is_named_while_it_runs() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tool");
        let pattern = path.to_str().unwrap();
        std::fs::copy("/bin/cat", &path).unwrap();
        let first = HostEnvironment::new(HostRoot::default(), RootCgroup::default(), 1);
        let old = first.executables(pattern);
        let mut running = Command::new(&path).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        std::fs::copy("/bin/cat", directory.path().join("new")).unwrap();
        std::fs::rename(directory.path().join("new"), &path).unwrap();
        let second = first.again();
        let both = second.executables(pattern);
        let new: Vec<FileId> = both.iter().filter(|file| !old.contains(file)).copied().collect();
        assert!(!new.is_empty() && old.iter().any(|file| both.contains(file)), "{old:?} {both:?}");
        // Not only the first time it is looked at.
        let third = second.again();
        assert_eq!(third.executables(pattern), both);
        assert!(!third.has_changed());
        let stranger = HostEnvironment::new(HostRoot::default(), RootCgroup::default(), 1);
        assert_eq!(stranger.executables(pattern), new, "nobody told it of the one before");
        drop(running.stdin.take());
        running.wait().unwrap();
        assert!(third.has_changed());
        assert_eq!(third.again().executables(pattern), new);
    }

    #[test]
    fn users_are_the_hosts() {
        let environment = HostEnvironment::without_wall(HostRoot::default());
        assert_eq!(environment.uid("root"), Some(0));
        assert_eq!(environment.uid("no such user here"), None);
    }
}
