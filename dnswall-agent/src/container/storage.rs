//! containers/storage, which Podman, Buildah and CRI-O share: `GRAPHROOT/DRIVER-containers/` has a directory for each container,
//! whose `userdata/config.json` is what the OCI runtime got, and `containers.json`, the list of them all. Since 1.44 those that
//! need not outlive the host are in `volatile-containers.json` beside it, or below the run root (`containers.go`).

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::find::Seeker;
use super::oci::{Annotations, annotations};
use super::place::{FILE_BYTES_MAX, LIST_BYTES_MAX, Place};

/// Storage drivers that keep containers, the usual one first.
const DRIVERS: [&str; 4] = ["overlay", "vfs", "btrfs", "zfs"];
/// Where settings are; those of the host's administrator come first (containers-storage.conf(5)).
const SETTINGS: [&str; 2] = ["etc/containers/storage.conf", "usr/share/containers/storage.conf"];
/// Bytes of them.
const SETTINGS_BYTES_MAX: u64 = 1 << 20;
const GRAPH_ROOT: &str = "/var/lib/containers/storage";
const RUN_ROOT: &str = "/run/containers/storage";
/// A user's, below his home directory.
const USER_GRAPH_ROOT: &str = ".local/share/containers/storage";
/// Bytes of a user's list, who may write what he likes into it.
const USER_LIST_BYTES_MAX: u64 = 1 << 20;
const LISTS: [&str; 2] = ["volatile-containers.json", "containers.json"];

/// A container in a storage.
pub struct Stored {
    directories: Vec<Place>,
    list_bytes_max: u64,
    /// What its manager told the OCI runtime.
    pub annotations: Annotations,
}

/// What a storage's list has of it.
#[derive(Debug, Deserialize)]
pub struct Listed {
    id: String,
    /// Its names.
    #[serde(default)]
    pub names: Vec<String>,
    /// The image's id.
    #[serde(default)]
    pub image: String,
    /// JSON of the manager's own.
    #[serde(default)]
    pub metadata: String,
}

impl Stored {
    /// The container of this id, of root's storage or of a user's.
    pub fn find(seeker: &Seeker, id: &str, owner: Option<u32>) -> Option<Self> {
        let directories: Vec<Place> = storages(seeker, owner)
            .iter()
            .flat_map(|storage| {
                DRIVERS.iter().filter_map(|driver| storage.below(format!("{driver}-containers")))
            })
            .collect();
        let config = format!("{id}/userdata/config.json");
        let annotations = directories
            .iter()
            .find_map(|directory| annotations(&directory.read(&config, FILE_BYTES_MAX)?))?;
        let list_bytes_max = if owner.is_some() { USER_LIST_BYTES_MAX } else { LIST_BYTES_MAX };
        Some(Self { directories, list_bytes_max, annotations })
    }

    /// What the list has of it.
    pub fn listed(&self, id: &str) -> Option<Listed> {
        self.directories.iter().find_map(|directory| {
            LISTS.iter().find_map(|list| {
                let list: Vec<Listed> =
                    serde_json::from_slice(&directory.read(list, self.list_bytes_max)?).ok()?;
                list.into_iter().find(|listed| listed.id == id)
            })
        })
    }
}

fn storages(seeker: &Seeker, owner: Option<u32>) -> Vec<Place> {
    if let Some(uid) = owner {
        let home = seeker.home(uid);
        let home = home.and_then(|home| Place::of_user(seeker.host(), &home, uid));
        return home.and_then(|home| home.below(USER_GRAPH_ROOT)).into_iter().collect();
    }
    let (graph, run) = roots(seeker);
    [graph, run].iter().filter_map(|root| Place::open(seeker.host(), root)).collect()
}

/// Graph root and run root.
fn roots(seeker: &Seeker) -> (PathBuf, PathBuf) {
    #[derive(Default, Deserialize)]
    struct Settings {
        #[serde(default)]
        storage: StorageSettings,
    }
    #[derive(Default, Deserialize)]
    struct StorageSettings {
        graphroot: Option<PathBuf>,
        runroot: Option<PathBuf>,
    }
    let settings = SETTINGS.iter().find_map(|path| {
        let text = seeker.host().read(&Path::new("/").join(path), SETTINGS_BYTES_MAX).ok()?;
        toml::from_slice::<Settings>(&text).ok()
    });
    let StorageSettings { graphroot, runroot } = settings.unwrap_or_default().storage;
    (graphroot.unwrap_or_else(|| GRAPH_ROOT.into()), runroot.unwrap_or_else(|| RUN_ROOT.into()))
}
