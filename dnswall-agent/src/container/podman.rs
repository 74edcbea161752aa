//! Podman: names and image are in the storage's list (`metadata` is libpod's `RuntimeContainerMetadata`: `image-name`, `name`),
//! `io.container.manager` is `libpod` (Podman 2.0 and later say so to the OCI runtime).

use serde::Deserialize;

use super::find::Seeker;
use super::image;
use super::storage::Stored;
use super::{Container, Runtime, text};

const MANAGER: &str = "io.container.manager";

/// The container, if it is Podman's.
pub fn find(seeker: &Seeker, id: &str, owner: Option<u32>) -> Option<Container> {
    let stored = Stored::find(seeker, id, owner)?;
    let is_podmans = stored.annotations.get(MANAGER).is_some_and(|manager| manager == "libpod");
    is_podmans.then(|| of(&stored, id))
}

fn of(stored: &Stored, id: &str) -> Container {
    /// What is read of `metadata`.
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Metadata {
        #[serde(default)]
        image_name: String,
        #[serde(default)]
        name: String,
    }
    let listed = stored.listed(id);
    let metadata: Metadata =
        listed.as_ref().and_then(|listed| serde_json::from_str(&listed.metadata).ok()).unwrap_or_default();
    let name = listed.as_ref().and_then(|listed| listed.names.first()).unwrap_or(&metadata.name);
    let image = listed.as_ref().map(|listed| listed.image.as_str());
    Container {
        name: text(name),
        image: image::named([Some(&*metadata.image_name), image]),
        runtime: Runtime::Podman,
        // A pod of Podman's is none of Kubernetes's.
        pod: None,
    }
}
