//! CRI-O: everything is among the annotations that it gives the OCI runtime (`internal/factory/container`, 1.18 and later):
//! `io.container.manager` is `cri-o`, `…ImageName` the image as the pod has it, `…Labels` the kubelet's labels as JSON. The
//! annotations without `cri-o` in them may be a pod's own, so none of those is believed.

use super::find::Seeker;
use super::image;
use super::oci::Annotations;
use super::pod::PodName;
use super::storage::Stored;
use super::{Container, Runtime, text};

const MANAGER: &str = "io.container.manager";
const IMAGE_NAME: &str = "io.kubernetes.cri-o.ImageName";
const IMAGE: &str = "io.kubernetes.cri-o.Image";
const LABELS: &str = "io.kubernetes.cri-o.Labels";
/// What the kubelet calls a pod's own sandbox.
const SANDBOX: &str = "POD";

/// The container, if it is CRI-O's.
pub fn find(seeker: &Seeker, id: &str) -> Option<Container> {
    let stored = Stored::find(seeker, id, None)?;
    let is_crios = stored.annotations.get(MANAGER).is_some_and(|manager| manager == "cri-o");
    is_crios.then(|| of(&stored.annotations))
}

fn of(annotations: &Annotations) -> Container {
    let written = |key: &str| annotations.get(key).map(String::as_str);
    let labels: Annotations =
        written(LABELS).and_then(|labels| serde_json::from_str(labels).ok()).unwrap_or_default();
    let label = |key: &str| labels.get(key).map(String::as_str);
    Container {
        name: label("io.kubernetes.container.name").filter(|name| *name != SANDBOX).and_then(text),
        image: image::named([written(IMAGE_NAME), written(IMAGE)]),
        runtime: Runtime::Crio,
        pod: PodName::new(
            label("io.kubernetes.pod.namespace"),
            label("io.kubernetes.pod.name"),
            label("io.kubernetes.pod.uid"),
        ),
    }
}
