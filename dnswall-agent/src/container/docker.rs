//! Docker Engine: `DATA-ROOT/containers/ID/config.v2.json`, since 1.10 (moby `container/container.go`: `Name` with a slash before
//! it, `Config.Image` as it was asked for, `Image` the digest). A daemon with `userns-remap` has a data root below the usual one,
//! named by the ids it maps to.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::find::Seeker;
use super::image;
use super::place::{FILE_BYTES_MAX, Place};
use super::pod::PodName;
use super::{Container, Runtime, text};

/// Where data is, unless daemon.json or the command line says otherwise.
const DATA_ROOT: &str = "/var/lib/docker";
/// Ubuntu's snap has its own.
const SNAP_DATA_ROOT: &str = "/var/snap/docker/common/var-lib-docker";
/// Its settings.
const DAEMON_JSON: [&str; 2] = ["/etc/docker/daemon.json", "/var/snap/docker/current/config/daemon.json"];
/// Bytes of them.
const SETTINGS_BYTES_MAX: u64 = 1 << 20;

/// What is read of `config.v2.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Written {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    image: String,
    #[serde(default)]
    config: Option<WrittenConfig>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WrittenConfig {
    #[serde(default)]
    image: String,
}

/// The container of this id.
pub fn find(seeker: &Seeker, id: &str) -> Option<Container> {
    roots(seeker).iter().find_map(|root| {
        let root = Place::open(seeker.host(), root)?;
        let remapped = root.directories().into_iter().filter(|name| is_remapped(name));
        let containers =
            std::iter::once("containers".to_owned()).chain(remapped.map(|name| format!("{name}/containers")));
        let path = |containers: String| format!("{containers}/{id}/config.v2.json");
        containers.map(path).find_map(|path| parse(&root.read(path, FILE_BYTES_MAX)?, id))
    })
}

fn roots(seeker: &Seeker) -> Vec<PathBuf> {
    /// What is read of daemon.json; `graph` is what Docker before 17.05 called it.
    #[derive(Deserialize)]
    struct Settings {
        #[serde(rename = "data-root", alias = "graph")]
        data_root: PathBuf,
    }
    let set = DAEMON_JSON.iter().filter_map(|path| {
        let text = seeker.host().read(Path::new(path), SETTINGS_BYTES_MAX).ok()?;
        serde_json::from_slice::<Settings>(&text).ok().map(|settings| settings.data_root)
    });
    set.chain([DATA_ROOT, SNAP_DATA_ROOT].map(PathBuf::from)).collect()
}

/// `100000.100000`: user and group.
fn is_remapped(name: &str) -> bool {
    name.split_once('.').is_some_and(|(uid, gid)| uid.parse::<u32>().is_ok() && gid.parse::<u32>().is_ok())
}

fn parse(config: &[u8], asked: &str) -> Option<Container> {
    let Written { id, name, image, config } = serde_json::from_slice(config).ok()?;
    if id != asked {
        return None;
    }
    let name = name.strip_prefix('/').unwrap_or(&name);
    let asked = config.as_ref().map(|config| config.image.as_str());
    let (container, pod) = kubelets(name).map_or((None, None), |(container, pod)| (container, Some(pod)));
    Some(Container {
        // The pod's own sandbox has no name there.
        name: if pod.is_some() { container.filter(|name| name != "POD") } else { text(name) },
        image: image::named([asked, Some(&image)]),
        runtime: Runtime::Docker,
        pod,
    })
}

/// `k8s_CONTAINER_POD_NAMESPACE_UID_ATTEMPT` is what the kubelet (until 1.23) and cri-dockerd call it (`MakeContainerName`). Not
/// its labels, which an image may bring along.
fn kubelets(name: &str) -> Option<(Option<String>, PodName)> {
    let parts: Vec<&str> = name.strip_prefix("k8s_")?.split('_').collect();
    let [container, pod, namespace, uid, _attempt, ..] = parts[..] else { return None };
    Some((text(container), PodName::new(Some(namespace), Some(pod), Some(uid))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_make_no_pod_and_the_kubelets_name_does() {
        let plain = br#"{"ID":"7f","Name":"/shop","Image":"sha256:00","Config":{"Image":"shop/api:1",
            "Labels":{"io.kubernetes.pod.namespace":"kube-system","io.kubernetes.pod.name":"a"}}}"#;
        let container = parse(plain, "7f").unwrap();
        assert_eq!((container.name.as_deref(), container.pod), (Some("shop"), None));
        assert_eq!(container.image.as_deref(), Some("shop/api:1"));
        let pods =
            br#"{"ID":"7f","Name":"/k8s_api_shop-7d_shop_0123-abcd_2","Config":{"Image":"shop/api:1"}}"#;
        let container = parse(pods, "7f").unwrap();
        let pod = PodName { namespace: "shop".into(), name: "shop-7d".into(), uid: Some("0123-abcd".into()) };
        assert_eq!((container.name.as_deref(), container.pod), (Some("api"), Some(pod)));
        for strange in ["[]", "{", "", r#"{"ID":"7f","Name":7}"#, r#"{"ID":"7e","Name":"/a"}"#] {
            assert_eq!(parse(strange.as_bytes(), "7f"), None, "{strange}");
        }
    }
}
