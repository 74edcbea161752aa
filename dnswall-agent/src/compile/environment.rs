//! What compiling must know of the host. The trait keeps the compiler free of I/O: the agent asks the host, tests say.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::blocklist::{Lists, Trouble, Wanted};

/// A file as the kernel knows it: [`dnswall_common::identity::exe_number`], and device as `major << 20 | minor`.
pub type FileId = (u64, u32);

/// The host, as far as a policy depends on it.
pub trait Environment {
    /// The number of this user, if the host has it.
    fn uid(&self, name: &str) -> Option<u32>;
    /// The files this path names. A `*` stands for any characters within one directory.
    fn executables(&self, pattern: &str) -> Vec<FileId>;
    /// Where the wall is attached.
    fn root_cgroup(&self) -> RootCgroup;
    /// The key of the hashes in the image. It has to differ between hosts, and may differ between images.
    fn seed(&self) -> u64;
    /// The inode number of the agent's network namespace; 0 where it is not known.
    fn network_namespace(&self) -> u32;
    /// Whether the policy has decided before. Then what a pattern names too many of is left out and warned of: whoever makes
    /// files must not be able to leave the host with an old policy, or none.
    fn has_decided(&self) -> bool;
    /// The lists, read, and what is wrong with those that are not as they were meant.
    ///
    /// # Errors
    /// Everything that is wrong with them, when it is more than a trouble.
    fn lists(&self, wanted: Wanted) -> Result<(Arc<Lists>, Vec<Trouble>), Vec<Trouble>>;
}

/// The cgroup a wall is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootCgroup {
    /// Its id: the inode number of its directory.
    pub id: u64,
    /// Its path from the root of the hierarchy: `/`, or like `/system.slice`.
    pub path: String,
}

impl Default for RootCgroup {
    fn default() -> Self {
        Self { id: 1, path: "/".to_owned() }
    }
}

/// A host that is what it is told to be.
#[derive(Clone, Debug, Default)]
pub struct FixedEnvironment {
    /// Users and their numbers.
    pub users: BTreeMap<String, u32>,
    /// What each path or pattern names, exactly as the policy writes it.
    pub executables: BTreeMap<String, Vec<FileId>>,
    /// Where the wall is attached.
    pub root: RootCgroup,
    /// The key of the hashes.
    pub seed: u64,
    /// The inode number of the agent's network namespace.
    pub network_namespace: u32,
    /// Whether the policy has decided before.
    pub has_decided: bool,
    /// What every policy's lists come to.
    pub lists: Arc<Lists>,
}

impl Environment for FixedEnvironment {
    fn uid(&self, name: &str) -> Option<u32> {
        self.users.get(name).copied()
    }

    fn executables(&self, pattern: &str) -> Vec<FileId> {
        self.executables.get(pattern).cloned().unwrap_or_default()
    }

    fn root_cgroup(&self) -> RootCgroup {
        self.root.clone()
    }

    fn seed(&self) -> u64 {
        self.seed
    }

    fn network_namespace(&self) -> u32 {
        self.network_namespace
    }

    fn has_decided(&self) -> bool {
        self.has_decided
    }

    fn lists(&self, _: Wanted) -> Result<(Arc<Lists>, Vec<Trouble>), Vec<Trouble>> {
        Ok((self.lists.clone(), Vec::new()))
    }
}
