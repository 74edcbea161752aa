//! Takes a container's id and cgroup, gives the container, from whichever runtime has it.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Container, containerd, crio, docker, podman, runc};
use crate::host::HostRoot;

/// What is looked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    /// The container's id: 64 hexadecimal digits.
    pub id: String,
    /// Its cgroup, as /proc/PID/cgroup shows it.
    pub cgroup: String,
    /// The id stands where a user or a service names cgroups as it likes.
    pub is_claimed: bool,
}

/// Where is looked.
#[derive(Clone, Debug)]
pub struct Seeker {
    host: HostRoot,
    cgroups: PathBuf,
}

impl Seeker {
    /// On this host, whose cgroups are mounted there.
    pub fn new(host: HostRoot, cgroups: PathBuf) -> Self {
        Self { host, cgroups }
    }

    /// The host's root.
    pub(super) fn host(&self) -> &HostRoot {
        &self.host
    }

    /// A user's home directory.
    pub(super) fn home(&self, uid: u32) -> Option<PathBuf> {
        self.host.home(uid)
    }

    /// Who may name what is in a cgroup's directory.
    fn owner(&self, cgroup: &str) -> Option<u32> {
        let below = Path::new(cgroup.strip_prefix('/')?);
        let is_plain = below.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        let directory = self.cgroups.join(below);
        is_plain.then(|| std::fs::metadata(directory).ok().map(|metadata| metadata.uid())).flatten()
    }
}

/// The container. Reads files, and waits for their file systems.
pub fn find(seeker: &Seeker, asked: &Asked) -> Option<Container> {
    let Asked { id, cgroup, is_claimed } = asked;
    // It becomes part of paths.
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let found = if *is_claimed {
        // Only Podman has containers below units (Quadlet, or a user's own): nobody's id stands there for one of another runtime's.
        let owner = seeker.owner(cgroup)?;
        podman::find(seeker, id, (owner != ROOT).then_some(owner))
    } else {
        of_root(seeker, id)
    };
    found.map(|container| {
        let pod = container.pod.map(|pod| pod.or_uid_of(cgroup));
        Container { pod, ..container }
    })
}

fn of_root(seeker: &Seeker, id: &str) -> Option<Container> {
    docker::find(seeker, id)
        .or_else(|| containerd::find(seeker, id))
        .or_else(|| podman::find(seeker, id, None))
        .or_else(|| crio::find(seeker, id))
        // What the others use: only what they do not know is theirs.
        .or_else(|| runc::find(seeker, id))
}

const ROOT: u32 = 0;
