//! Takes a workload, gives the container that it is: name, image, runtime and pod, as the container's runtime has written them
//! down.
//!
//! No runtime is asked. Its files say the same when it hangs, when it is dead and when the container is gone a moment later, and
//! reading them takes no right that the agent does not have. Whatever is in them others have written, so everything is bounded and
//! nothing that a container may write to is believed ([`place`]). A thread of its own reads ([`clerk`]).
//!
//! Whose files count is settled by who may name the container's cgroup: below directories that only root makes it is root's
//! runtimes; further down, where a user or a service names its own, it is those of whoever owns the cgroup's directory.

mod cache;
mod clerk;
mod containerd;
mod crio;
mod docker;
mod find;
mod image;
mod nspawn;
mod oci;
mod place;
mod pod;
mod podman;
mod runc;
mod storage;

#[cfg(test)]
mod tests;

pub use cache::{ContainerCounters, Containers};
pub use find::{Asked, Seeker, find};
pub use pod::PodName;

use std::sync::Arc;

use crate::event::text::printable;
use crate::kubernetes::Labels;

/// Bytes of a name, an image or another text that a runtime has written down.
pub const TEXT_BYTES_MAX: usize = 512;

/// A container, as its runtime has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// What its runtime calls it; in a pod, what the pod calls it.
    pub name: Option<String>,
    /// The image, as whoever started it named it.
    pub image: Option<String>,
    /// Who runs it.
    pub runtime: Runtime,
    /// The Kubernetes pod that it is in.
    pub pod: Option<PodName>,
}

/// A container, and what Kubernetes adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The container.
    pub container: Arc<Container>,
    /// Its pod's labels, where somebody knows them.
    pub labels: Option<Arc<Labels>>,
    /// Its pod's node, where somebody knows its name.
    pub node: Option<Arc<str>>,
}

/// Who runs a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// Docker Engine.
    Docker,
    /// Podman, and others that use libpod.
    Podman,
    /// CRI-O.
    Crio,
    /// containerd: for Kubernetes, nerdctl or `ctr`.
    Containerd,
    /// runc, by itself.
    Runc,
    /// crun, by itself.
    Crun,
    /// systemd-nspawn.
    Nspawn,
}

impl Runtime {
    /// What alerts call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Crio => "cri-o",
            Self::Containerd => "containerd",
            Self::Runc => "runc",
            Self::Crun => "crun",
            Self::Nspawn => "systemd-nspawn",
        }
    }
}

/// Text that a runtime wrote, safe to show; `None` when there is none.
fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| printable(text.as_bytes(), TEXT_BYTES_MAX))
}
