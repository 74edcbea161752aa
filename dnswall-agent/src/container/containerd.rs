//! containerd: `STATE/io.containerd.runtime.v2.task/NAMESPACE/ID/config.json` is the container's OCI configuration, since 1.2.
//!
//! Who asked containerd for it has left annotations there: the CRI plugin (`pkg/cri/annotations`: names since 1.2, the pod's uid
//! and the image since 1.5), whose namespace is `k8s.io`, and nerdctl (`pkg/labels`, all of a container's labels, those of its image
//! included: so with nerdctl only nerdctl's own count). What `ctr` was told is in containerd's database only: there is no image.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::find::Seeker;
use super::image;
use super::oci::{Annotations, annotations};
use super::place::{FILE_BYTES_MAX, Place};
use super::pod::PodName;
use super::{Container, Runtime, text};

/// Where state is, unless config.toml says otherwise; K3s, RKE2 and MicroK8s bring their own containerd.
const STATES: [&str; 4] = [
    "/run/containerd",
    "/run/k3s/containerd",
    "/var/snap/microk8s/common/run/containerd",
    "/run/k0s/containerd",
];
const SETTINGS: &str = "/etc/containerd/config.toml";
/// Bytes of it.
const SETTINGS_BYTES_MAX: u64 = 1 << 20;
const TASKS: &str = "io.containerd.runtime.v2.task";
/// The namespace of the CRI plugin.
const KUBERNETES: &str = "k8s.io";
/// Docker's, whose own files say more.
const DOCKER: &str = "moby";

/// The container of this id.
pub fn find(seeker: &Seeker, id: &str) -> Option<Container> {
    states(seeker).iter().find_map(|state| {
        let tasks = Place::open(seeker.host(), state)?.below(TASKS)?;
        tasks.directories().into_iter().filter(|namespace| namespace != DOCKER).find_map(|namespace| {
            let config = tasks.read(format!("{namespace}/{id}/config.json"), FILE_BYTES_MAX)?;
            Some(of(&annotations(&config)?, &namespace))
        })
    })
}

fn states(seeker: &Seeker) -> Vec<PathBuf> {
    #[derive(Deserialize)]
    struct Settings {
        state: PathBuf,
    }
    let set = seeker.host().read(Path::new(SETTINGS), SETTINGS_BYTES_MAX).ok();
    let set = set.and_then(|text| toml::from_slice::<Settings>(&text).ok());
    set.map(|settings| settings.state).into_iter().chain(STATES.map(PathBuf::from)).collect()
}

fn of(annotations: &Annotations, namespace: &str) -> Container {
    let written = |key: &str| annotations.get(key).map(String::as_str);
    let runtime = Runtime::Containerd;
    if written("nerdctl/namespace").is_some() {
        return Container { name: written("nerdctl/name").and_then(text), image: None, runtime, pod: None };
    }
    let pod = PodName::new(
        written("io.kubernetes.cri.sandbox-namespace"),
        written("io.kubernetes.cri.sandbox-name"),
        written("io.kubernetes.cri.sandbox-uid"),
    );
    Container {
        name: written("io.kubernetes.cri.container-name").and_then(text),
        image: image::named([written("io.kubernetes.cri.image-name")]),
        runtime,
        pod: pod.filter(|_| namespace == KUBERNETES),
    }
}
