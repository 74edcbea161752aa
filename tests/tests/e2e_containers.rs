//! Alerts of real containers name them: of Docker, Podman, containerd and runc, as those write their state, behind the agent's
//! real sandbox. CRI-O, for which there is a stand-in, is in `dnswall-agent/src/container/tests.rs`; the server of Kubernetes here
//! is one: it says what the API does, and is no cluster.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dnswall_tests::authority::Authority;
use dnswall_tests::list_server::{ListServer, Shown};
use dnswall_tests::pace::within;
use dnswall_tests::runtime::{
    Containerd, Docker, Home, Podman, connect, connect_and_stay, connect_later, run_runc,
};
use dnswall_tests::wall::Wall;
use serde_json::{Value, json};

const POLICY: &str = "version = 1\nmode = \"enforce\"\n[dns]\nresolvers = [\"169.254.169.253\"]\n";
const IMAGE: &str = "localhost/shop/api:1.2";
const TOKEN: &str = "sesame-and-more";

/// A wall, and a host of its own around it.
struct Scene {
    home: Home,
    wall: Wall,
}

impl Scene {
    fn set(more: &str) -> Result<Self> {
        let wall = Wall::prepare()?;
        let home = Home::build(wall.scratch("host"), wall.tree.path())?;
        let config = fs::read_to_string(wall.agent.config_path())?;
        fs::write(wall.agent.config_path(), format!("host-root = {:?}\n{config}{more}", home.root()))?;
        Ok(Self { home, wall })
    }

    /// What the alert of a connection to this port says of the workload.
    fn workload(&self, port: u16) -> Result<Value> {
        let alert = self.wall.agent.wait_for_alert(0, |alert| alert["flow"]["destination_port"] == port)?;
        ensure!(alert["verdict"] == "denied", "{alert}");
        Ok(alert["workload"].clone())
    }

    fn counter(&self, name: &str) -> Result<u64> {
        self.wall.agent.status()?["counters"][name].as_u64().with_context(|| format!("counter {name}"))
    }
}

fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn expect(workload: &Value, expected: &[(&str, Value)]) -> Result<()> {
    for (key, value) in expected {
        ensure!(workload[key] == *value, "{key}: {value} expected: {workload}");
    }
    Ok(())
}

#[test]
fn podmans_containers_are_named() -> Result<()> {
    let mut scene = Scene::set("")?;
    scene.wall.agent.start(Some(POLICY))?;
    let podman = Podman::with_image(&scene.home, IMAGE)?;
    let named =
        |name: &str| [("container_name", json!(name)), ("image", json!(IMAGE)), ("runtime", json!("podman"))];
    // It connects at once, and is removed a moment later, files and all.
    let said = podman.run("box", "at-once", IMAGE, &connect("203.0.113.9", 901))?;
    ensure!(said.contains("Operation not permitted"), "{said}");
    let workload = scene.workload(901)?;
    expect(&workload, &named("at-once"))?;
    ensure!(
        workload["container"].as_str().is_some_and(|id| id.len() == 64) && workload["pod"].is_null(),
        "{workload}"
    );
    let started = podman.start("box", "api-1", IMAGE, &connect_later("203.0.113.9", 902))?;
    let workload = scene.workload(902)?;
    expect(&workload, &named("api-1"))?;
    expect(&workload, &[("container", json!(started))])?;
    // As of a Quadlet: who owns the service's cgroup is root, so are the files.
    podman.run("shop.service", "in-a-unit", IMAGE, &connect("203.0.113.9", 903))?;
    let workload = scene.workload(903)?;
    expect(&workload, &named("in-a-unit"))?;
    expect(&workload, &[("container", Value::Null), ("unit", json!("shop.service"))])?;
    // They are found by their names; what a service calls its own is no name for a filter.
    for (name, expected) in [("at-once", 1), ("api-*", 1), ("in-a-unit", 0)] {
        let said = scene.wall.agent.say(&["events", "--workload", name, "--output", "json"])?;
        let lines = said.text.lines().filter(|line| line.contains("egress.denied")).count();
        ensure!(lines == expected, "{name}: {said:?}");
    }
    let said = scene.wall.agent.say(&["events"])?;
    ensure!(said.text.contains(" at-once") && said.text.contains(" in-a-unit"), "{said:?}");
    // Told once a second.
    until(|| Ok(scene.counter("containers-named")? == 3))?;
    ensure!(scene.counter("container-reads-stuck")? == 0);
    Ok(())
}

#[test]
fn dockers_containers_are_named() -> Result<()> {
    let mut scene = Scene::set("")?;
    scene.wall.agent.start(Some(POLICY))?;
    let docker = Docker::with_image(&scene.home, "shop/api:1.2")?;
    let said = docker.run("box", "at-once", "shop/api:1.2", &connect("203.0.113.9", 931))?;
    ensure!(said.contains("Operation not permitted"), "{said}");
    let workload = scene.workload(931)?;
    let named = [
        ("container_name", json!("at-once")),
        ("image", json!("shop/api:1.2")),
        ("runtime", json!("docker")),
        ("pod", Value::Null),
    ];
    expect(&workload, &named)?;
    // As cri-dockerd names it.
    let name = "k8s_api_api-7d9f4-x2x_shop_0123abcd-0123-4123-8123-0123456789ab_0";
    docker.run("box", name, "shop/api:1.2", &connect("203.0.113.9", 932))?;
    let workload = scene.workload(932)?;
    let pod = &workload["pod"];
    ensure!(
        pod["namespace"] == "shop" && pod["name"] == "api-7d9f4-x2x" && pod["container"] == "api",
        "{workload}"
    );
    ensure!(pod["node"].is_null() && pod["labels"].is_null(), "nobody is asked: {workload}");
    Ok(())
}

#[test]
fn containerds_containers_are_named_and_their_pods_have_labels() -> Result<()> {
    let scene_directory = tempfile::tempdir()?;
    let directory = scene_directory.path();
    let authority = Authority::make(&directory.join("authority"))?;
    fs::write(directory.join("token"), TOKEN)?;
    let probe = dnswall_tests::place::probe()?;
    let here = Ipv4Addr::LOCALHOST.into();
    let mut api = ListServer::start(&probe, directory.join("api"), &authority, None, here, Shown::Good)?;
    let first = "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-7&limit=500&resourceVersion=0";
    let second = "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-7&limit=500&continue=page%2F2";
    let list = |uid: &str, app: &str, next: &str| {
        json!({ "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": { "continue": next },
                "items": [{ "metadata": { "name": "x", "namespace": "shop", "uid": uid, "labels": { "app": app } } }] })
        .to_string()
    };
    fs::write(directory.join("api/page1"), list("another", "other", "page/2"))?;
    fs::write(directory.join("api/page2"), list("uid-1", "shop", ""))?;
    api.plan(&json!({ first: { "body": "page1" }, second: { "body": "page2" }, "status": 403 }))?;
    let keys = format!(
        "[kubernetes]\nurl = {:?}\nca = {:?}\ntoken-file = {:?}\nnode = \"node-7\"\n",
        api.url(""),
        authority.pem(),
        directory.join("token")
    );
    let mut scene = Scene::set(&keys)?;
    scene.wall.agent.start(Some(POLICY))?;
    until(|| Ok(scene.wall.agent.status()?["kubernetes"]["pods"] == 2))?;

    let containerd = Containerd::start(&scene.home)?;
    let annotations = [
        ("io.kubernetes.cri.container-type", "container"),
        ("io.kubernetes.cri.container-name", "api"),
        ("io.kubernetes.cri.image-name", "registry.example.net/shop/api:1.2"),
        ("io.kubernetes.cri.sandbox-name", "api-7d9f4-x2x"),
        ("io.kubernetes.cri.sandbox-namespace", "shop"),
        ("io.kubernetes.cri.sandbox-uid", "uid-1"),
    ];
    let said = containerd.run("k8s.io", "kubepods", &id('a'), &annotations, &connect("203.0.113.9", 911))?;
    ensure!(said.contains("Operation not permitted"), "{said}");
    let image = json!("registry.example.net/shop/api:1.2");
    let workload = scene.workload(911)?;
    let pod = json!({ "namespace": "shop", "name": "api-7d9f4-x2x", "uid": "uid-1", "container": "api",
                      "node": "node-7", "labels": { "app": "shop" } });
    let named = [("container_name", json!("api")), ("image", image), ("runtime", json!("containerd"))];
    expect(&workload, &named)?;
    expect(&workload, &[("container", json!(id('a'))), ("pod", pod)])?;
    // `ctr` by itself: nobody has written down more.
    containerd.run("default", "kubepods", &id('b'), &[], &connect("203.0.113.9", 912))?;
    let bare = [
        ("runtime", json!("containerd")),
        ("container_name", Value::Null),
        ("image", Value::Null),
        ("pod", Value::Null),
    ];
    expect(&scene.workload(912)?, &bare)?;

    // The server is gone, then refuses: alerts go on, and it is said.
    let asked = api.requests()?;
    ensure!(asked.iter().all(|request| request["Authorization"] == format!("Bearer {TOKEN}")), "{asked:?}");
    ensure!(
        asked[0]["Accept"].as_str().is_some_and(|text| text.contains("PartialObjectMetadataList")),
        "{asked:?}"
    );
    api.plan(&json!({ "status": 403 }))?;
    let other = annotations.map(|(key, value)| (key, if value == "uid-1" { "uid-2" } else { value }));
    containerd.run("k8s.io", "kubepods", &id('c'), &other, &connect("203.0.113.9", 913))?;
    let workload = scene.workload(913)?;
    ensure!(workload["pod"]["uid"] == "uid-2" && workload["pod"]["labels"].is_null(), "{workload}");
    until(|| Ok(!scene.wall.agent.status()?["kubernetes"]["error"].is_null()))?;
    let status = scene.wall.agent.say(&["status"])?;
    ensure!(status.text.contains("403: the service account may not list pods"), "{status:?}");
    api.stop();
    for text in [status.text, scene.wall.agent.status()?.to_string(), scene.wall.agent.log()] {
        ensure!(!text.contains(TOKEN), "a secret is shown: {text}");
    }
    ensure!(scene.wall.agent.alerts()?.iter().all(|alert| !alert.to_string().contains(TOKEN)));
    Ok(())
}

#[test]
fn runcs_containers_have_a_runtime_and_hostile_files_keep_nobody() -> Result<()> {
    let mut scene = Scene::set("")?;
    scene.wall.agent.start(Some(POLICY))?;
    // What looks like Docker's: a link to a file that only root may read, and a pipe.
    scene.home.write("secret", "{\"ID\":\"x\",\"Name\":\"/secret\",\"Config\":{\"Image\":\"secret\"}}")?;
    let docker = |id: &str| scene.home.root().join(format!("var/lib/docker/containers/{id}"));
    fs::create_dir_all(docker(&id('d')))?;
    symlink("../../../../../secret", docker(&id('d')).join("config.v2.json"))?;
    fs::create_dir_all(docker(&id('e')))?;
    let pipe = docker(&id('e')).join("config.v2.json");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)?;
    let expected = [("runtime", json!("runc")), ("container_name", Value::Null), ("image", Value::Null)];
    for (digit, port) in [('d', 921), ('e', 922), ('f', 923)] {
        let said = run_runc(&scene.home, "box", &id(digit), &connect_and_stay("203.0.113.9", port))?;
        ensure!(said.contains("Operation not permitted"), "{said}");
        let workload = scene.workload(port)?;
        expect(&workload, &expected)?;
        expect(&workload, &[("container", json!(id(digit)))])?;
    }
    until(|| Ok(scene.counter("containers-named")? == 3))?;
    // It removes cgroup and files as soon as the container has ended; the cgroup was seen when it was made.
    run_runc(&scene.home, "box", &id('9'), &connect("203.0.113.9", 924))?;
    expect(&scene.workload(924)?, &[("container", json!(id('9')))])?;
    ensure!(scene.counter("container-reads-stuck")? == 0);
    Ok(())
}

fn until(mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let until = Instant::now() + within(Duration::from_secs(20));
    while !is_so()? {
        ensure!(Instant::now() < until, "it did not come to that in time");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
