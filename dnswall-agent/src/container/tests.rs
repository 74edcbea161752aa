//! State directories as runtimes write them (those of CRI-O, nerdctl and crun are stand-ins, after their sources; Docker, Podman,
//! containerd and runc are tried for real in `tests/tests/e2e_containers.rs`), and as nobody should.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;

use super::place::{FILE_BYTES_MAX, LIST_BYTES_MAX};
use super::{Asked, Container, PodName, Runtime, Seeker, TEXT_BYTES_MAX, find};
use crate::host::HostRoot;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A host of the test's own.
struct Host {
    root: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self { root: tempfile::tempdir().unwrap() };
        host.write("cgroup/x", "");
        host
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.root.path().join(path.replace("ID", ID))
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn find_at(&self, cgroup: &str, is_claimed: bool) -> Option<Container> {
        let host = HostRoot::find(Some(self.root.path())).unwrap();
        let seeker = Seeker::new(host, self.path("cgroup"));
        let cgroup = cgroup.replace("ID", ID);
        find(&seeker, &Asked { id: ID.to_owned(), cgroup, is_claimed })
    }

    fn find(&self) -> Option<Container> {
        self.find_at("/docker/ID", false)
    }

    fn name(&self) -> Option<String> {
        self.find()?.name
    }
}

fn container(runtime: Runtime, name: &str, image: Option<&str>, pod: Option<PodName>) -> Option<Container> {
    Some(Container { name: Some(name.to_owned()), image: image.map(str::to_owned), runtime, pod })
}

fn pod(uid: &str) -> Option<PodName> {
    Some(PodName { namespace: "shop".to_owned(), name: "api-1".to_owned(), uid: Some(uid.to_owned()) })
}

fn docker(name: &str) -> String {
    json!({ "StreamConfig": {}, "State": { "Running": true }, "ID": ID, "Name": name, "Image": format!("sha256:{ID}"),
            "Config": { "Image": "shop/api:1", "Labels": { "a": "b" }, "Env": ["SECRET=hush"] } })
    .to_string()
}

#[test]
fn docker_has_it_below_its_data_root() {
    let expected = container(Runtime::Docker, "shop", Some("shop/api:1"), None);
    let host = Host::new();
    assert_eq!(host.find(), None);
    host.write("var/lib/docker/containers/ID/config.v2.json", docker("/shop"));
    assert_eq!(host.find(), expected);
    let host = Host::new();
    host.write("etc/docker/daemon.json", r#"{"data-root":"/srv/docker","live-restore":true}"#);
    host.write("srv/docker/containers/ID/config.v2.json", docker("/shop"));
    assert_eq!(host.find(), expected);
    let host = Host::new();
    host.write("var/lib/docker/100000.100000/containers/ID/config.v2.json", docker("/shop"));
    assert_eq!(host.find(), expected, "userns-remap");
}

#[test]
fn cri_o_is_believed_in_its_own_annotations_only() {
    let host = Host::new();
    let labels = json!({ "io.kubernetes.container.name": "api", "io.kubernetes.pod.name": "api-1",
                         "io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.uid": "u-1", "app": "x" });
    let config = |manager: &str, labels: &str| {
        json!({ "ociVersion": "1.1.0", "process": { "args": ["a"] }, "annotations": {
            "io.container.manager": manager, "io.kubernetes.cri-o.ImageName": "quay.io/shop/api:2",
            "io.kubernetes.cri-o.Labels": labels, "io.kubernetes.pod.namespace": "kube-system",
            "io.kubernetes.container.name": "forged" } })
        .to_string()
    };
    let path = "var/lib/containers/storage/overlay-containers/ID/userdata/config.json";
    host.write(path, config("cri-o", &labels.to_string()));
    assert_eq!(host.find(), container(Runtime::Crio, "api", Some("quay.io/shop/api:2"), pod("u-1")));
    host.write(path, config("cri-o", "not JSON"));
    let found = host.find().unwrap();
    assert_eq!((found.name, found.pod), (None, None));
    // The pod's own sandbox.
    host.write(path, config("cri-o", &labels.to_string().replace("\"api\"", "\"POD\"")));
    let found = host.find().unwrap();
    assert_eq!((found.name, found.pod), (None, pod("u-1")));
    // Below the run root as well, wherever that is.
    let host = Host::new();
    host.write("etc/containers/storage.conf", "[storage]\ndriver = \"vfs\"\nrunroot = \"/srv/run\"\n");
    host.write("srv/run/vfs-containers/ID/userdata/config.json", config("cri-o", &labels.to_string()));
    assert_eq!(host.name().as_deref(), Some("api"));
}

#[test]
fn containerd_has_pods_of_the_kubelet_and_names_of_nerdctl() {
    let cri = |uid: bool| {
        let mut annotations = json!({
            "io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.container-name": "api",
            "io.kubernetes.cri.image-name": "shop/api:3", "io.kubernetes.cri.sandbox-name": "api-1",
            "io.kubernetes.cri.sandbox-namespace": "shop" });
        if uid {
            annotations["io.kubernetes.cri.sandbox-uid"] = "u-1".into();
        }
        annotations
    };
    let config = |annotations: serde_json::Value| json!({ "annotations": annotations }).to_string();
    let path = |state: &str, namespace: &str| {
        format!("{state}/io.containerd.runtime.v2.task/{namespace}/ID/config.json")
    };
    for state in ["run/containerd", "run/k3s/containerd"] {
        let host = Host::new();
        host.write(&path(state, "k8s.io"), config(cri(true)));
        assert_eq!(
            host.find(),
            container(Runtime::Containerd, "api", Some("shop/api:3"), pod("u-1")),
            "{state}"
        );
    }
    // A version that has no uid there: it is in the cgroup's path.
    let host = Host::new();
    host.write(&path("run/containerd", "k8s.io"), config(cri(false)));
    let cgroup = "/kubepods.slice/kubepods-pod0123abcd_ef.slice/cri-containerd-ID.scope";
    assert_eq!(host.find_at(cgroup, false).unwrap().pod, pod("0123abcd-ef"));
    // Elsewhere those annotations are somebody else's, and with nerdctl they may be an image's.
    let host = Host::new();
    host.write(&path("run/containerd", "default"), config(cri(true)));
    assert_eq!(host.find().unwrap().pod, None);
    let mut labels = cri(true);
    (labels["nerdctl/name"], labels["nerdctl/namespace"]) = ("mine".into(), "k8s.io".into());
    host.write(&path("run/containerd", "k8s.io"), config(labels));
    host.write("etc/containerd/config.toml", "version = 2\nstate = \"/run/other\"\n[grpc]\n");
    fs::remove_dir_all(host.path("run/containerd/io.containerd.runtime.v2.task/default")).unwrap();
    assert_eq!(host.find(), container(Runtime::Containerd, "mine", None, None));
    host.write(&path("run/other", "moby"), config(cri(true)));
    assert_eq!(host.name().as_deref(), Some("mine"), "Docker's is Docker's to name");
}

#[test]
fn runc_and_crun_know_no_names() {
    let host = Host::new();
    host.write("run/crun/ID/config.json", "{}");
    let found = host.find().unwrap();
    assert_eq!((found.runtime, found.name, found.image), (Runtime::Crun, None, None));
    host.write("run/runc/ID/state.json", json!({ "id": "another" }).to_string());
    assert_eq!(host.find().unwrap().runtime, Runtime::Crun);
    host.write("run/runc/ID/state.json", json!({ "id": ID, "config": {} }).to_string());
    assert_eq!(host.find().unwrap().runtime, Runtime::Runc);
}

/// A rootless container of whoever runs this test, and one that is only claimed to be root's.
#[test]
fn who_owns_the_cgroup_says_whose_container_it_is() {
    let host = Host::new();
    let uid = rustix::process::getuid().as_raw();
    let path = ".local/share/containers/storage/overlay-containers";
    host.write("etc/passwd", format!("carrier:x:{}:{}::/home/carrier:/bin/sh\n", uid.max(1_000), uid));
    host.write(&format!("home/carrier/{path}/ID/userdata/config.json"), libpod());
    host.write(&format!("home/carrier/{path}/containers.json"), listed("mine"));
    host.write("var/lib/docker/containers/ID/config.v2.json", docker("/roots"));
    let cgroup = "/user.slice/user-1000.slice/user@1000.service/libpod-ID.scope/container";
    assert_eq!(host.find_at(cgroup, true), None, "no such cgroup");
    fs::create_dir_all(host.path(&format!("cgroup{cgroup}"))).unwrap();
    if uid == 0 {
        // Docker has none below a unit: whoever made this cgroup only says that it is one.
        assert_eq!(host.find_at(cgroup, true), None);
        host.write("var/lib/containers/storage/overlay-containers/ID/userdata/config.json", libpod());
        host.write("var/lib/containers/storage/overlay-containers/containers.json", listed("roots"));
        assert_eq!(host.find_at(cgroup, true).unwrap().name.as_deref(), Some("roots"));
        for path in [
            format!("cgroup{cgroup}"),
            format!("home/carrier/{path}/containers.json"),
            format!("home/carrier/{path}/ID/userdata/config.json"),
        ] {
            std::os::unix::fs::chown(host.path(&path), Some(1_000), Some(1_000)).unwrap();
        }
    }
    let expected = container(Runtime::Podman, "mine", Some("localhost/shop/api:1"), None);
    assert_eq!(host.find_at(cgroup, true), expected);
    if uid == 0 {
        // Not his file: a link to somebody else's, say.
        std::os::unix::fs::chown(
            host.path(&format!("home/carrier/{path}/ID/userdata/config.json")),
            Some(0),
            None,
        )
        .unwrap();
        assert_eq!(host.find_at(cgroup, true), None);
    }
    assert_eq!(host.find_at("/../cgroup/docker/ID", true), None);
}

fn libpod() -> String {
    json!({ "annotations": { "io.container.manager": "libpod", "io.kubernetes.cri-o.TTY": "false" } })
        .to_string()
}

fn listed(name: &str) -> String {
    let metadata =
        json!({ "image-name": "localhost/shop/api:1", "image-id": ID, "name": name, "created-at": 1 });
    json!([
        { "id": "f".repeat(64), "names": ["another"], "image": ID },
        { "id": ID, "names": [name], "image": ID, "layer": ID, "metadata": metadata.to_string(), "flags": { "Volatile": true } },
    ])
    .to_string()
}

/// Puts something that is no configuration at this path.
type Hostile = Box<dyn Fn(&Host, &Path)>;

#[test]
fn hostile_files_name_nothing_and_break_nothing() {
    let storage = "var/lib/containers/storage/overlay-containers";
    let config = format!("{storage}/ID/userdata/config.json");
    let list = format!("{storage}/containers.json");
    let secret = json!({ "annotations": { "io.container.manager": "cri-o", "io.kubernetes.cri-o.ImageName": "secret" } });
    let deep = |text: &str| "[".repeat(100_000) + text;
    let hostile: Vec<(&str, Hostile)> = vec![
        ("empty", Box::new(|_, path| fs::write(path, "").unwrap())),
        ("half", Box::new(|_, path| fs::write(path, &libpod()[..20]).unwrap())),
        (
            "of another kind",
            Box::new(|_, path| fs::write(path, r#"{"annotations":{"io.container.manager":7}}"#).unwrap()),
        ),
        ("deep", Box::new(move |_, path| fs::write(path, deep("1")).unwrap())),
        ("not text", Box::new(|_, path| fs::write(path, [0xff, 0xfe, 0]).unwrap())),
        (
            "too long",
            Box::new(|_, path| fs::write(path, libpod() + &" ".repeat(FILE_BYTES_MAX as usize)).unwrap()),
        ),
        ("a directory", Box::new(|_, path| fs::create_dir(path).unwrap())),
        (
            "a pipe",
            Box::new(|_, path| rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RUSR).unwrap()),
        ),
        ("a link", Box::new(|host, path| symlink(host.path("secret"), path).unwrap())),
        ("a link that comes back", Box::new(|_, path| symlink("config.json", path).unwrap())),
    ];
    for (name, make) in hostile {
        let host = Host::new();
        host.write("secret", secret.to_string());
        host.write(&list, listed("shop"));
        fs::create_dir_all(host.path(&config).parent().unwrap()).unwrap();
        make(&host, &host.path(&config));
        assert_eq!(host.find(), None, "{name}");
    }
    // A directory on the way that leads out.
    let host = Host::new();
    host.write("secret/userdata/config.json", secret.to_string());
    fs::create_dir_all(host.path(storage)).unwrap();
    symlink(host.path("secret"), host.path(&format!("{storage}/ID"))).unwrap();
    assert_eq!(host.find(), None);
    // A list that is too long, or is none: what is left of it is the runtime.
    for text in [" ".repeat(LIST_BYTES_MAX as usize + 1), "[{}]".to_owned(), "{".to_owned()] {
        let host = Host::new();
        host.write(&config, libpod());
        host.write(&list, text);
        let found = host.find().unwrap();
        assert_eq!((found.runtime, found.name, found.image), (Runtime::Podman, None, None));
    }
    // What reaches a terminal.
    let host = Host::new();
    host.write(&config, libpod());
    host.write(&list, listed(&("\u{1b}[31m".to_owned() + &"x".repeat(10_000))));
    let name = host.name().unwrap();
    assert!(
        name.starts_with("\\x1b[31mx") && name.ends_with('…') && name.len() < TEXT_BYTES_MAX + 10,
        "{name}"
    );
}

#[test]
fn an_id_that_is_none_is_looked_for_nowhere() {
    let host = Host::new();
    host.write("var/lib/docker/containers/config.v2.json", docker("/shop"));
    let seeker = Seeker::new(HostRoot::find(Some(host.root.path())).unwrap(), host.path("cgroup"));
    for id in ["", ".", "..", "../../x", "0123/4567"] {
        let asked = Asked { id: id.to_owned(), cgroup: "/".to_owned(), is_claimed: false };
        assert_eq!(find(&seeker, &asked), None, "{id}");
    }
}
