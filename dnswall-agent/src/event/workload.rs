//! Takes a cgroup's id, gives its path and what the path says: unit, slice, container.
//!
//! A cgroup's id is the inode number of its directory and is never given to another one, so what was found once stays
//! true after the cgroup is gone.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dnswall_common::identity::{CONTAINER_ID_BYTES, container_id_start, container_in};

use super::cgroups::{self, Cgroups, children, directory, path_of};
use super::proc_dir::{ProcDir, inode};
use super::text::printable;
use crate::lru::Lru;

/// Cgroups remembered.
pub const WORKLOADS_MAX: usize = 32_768;
/// Cgroups one walk visits; those beyond are not found by it.
pub const WALK_CGROUPS_MAX: usize = WORKLOADS_MAX;
/// After a walk there is none for so many times as long as it took,
const WALK_REST: u32 = 20;
/// and no longer than this.
const WALK_REST_MAX: Duration = Duration::from_secs(60);
/// Bytes of a path that are shown.
const PATH_BYTES_MAX: usize = 4_096;

/// Where a socket's owner lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Path in the unified hierarchy, as /proc/PID/cgroup shows it.
    pub cgroup: Option<String>,
    /// The first directory below the wall's root that is not a slice.
    pub unit: Option<String>,
    /// The innermost slice around it.
    pub slice: Option<String>,
    /// The container's id.
    pub container: Option<String>,
    /// Where there is none: what looks like one below a user, a service or a scope, which name directories as they like.
    pub claimed: Option<String>,
}

impl Workload {
    /// What an absolute cgroup path says, when units are counted from `wall` (`/` for the whole host).
    pub fn from_path(path: &[u8], wall: &[u8]) -> Self {
        let components = || path.split(|byte| *byte == b'/').filter(|component| !component.is_empty());
        let wall_depth = wall.split(|byte| *byte == b'/').filter(|component| !component.is_empty()).count();
        let is_slice = |component: &&[u8]| component.ends_with(b".slice");
        let unit_at = components().skip(wall_depth).position(|component| !is_slice(&component));
        let around = unit_at.map_or(usize::MAX, |at| wall_depth + at);
        let container = container_in(components())
            .and_then(|(place, start)| components().nth(place)?.get(start..start + CONTAINER_ID_BYTES));
        let id = |component: &[u8]| {
            let start = container_id_start(component)?;
            component.get(start..start + CONTAINER_ID_BYTES).map(<[u8]>::to_vec)
        };
        let claimed = if container.is_none() { components().find_map(id) } else { None };
        let text = |bytes: &[u8]| printable(bytes, PATH_BYTES_MAX);
        Self {
            cgroup: Some(text(path)),
            unit: unit_at.and_then(|at| components().nth(wall_depth + at)).map(text),
            slice: components().take(around).filter(is_slice).last().map(text),
            container: container.map(text),
            claimed: claimed.as_deref().map(text),
        }
    }
}

/// Finds workloads and remembers them.
#[derive(Debug)]
pub struct Workloads {
    mount: PathBuf,
    wall: Arc<[u8]>,
    proc: PathBuf,
    cgroups: Option<Arc<Cgroups>>,
    known: Lru<u64, Arc<Workload>>,
    unknown: Arc<Workload>,
    walk_after_ns: u64,
    unnamed: u64,
}

impl Workloads {
    /// With the cgroup2 mount (whose root is `/`), the wall's cgroup (the mount or a directory below it) and /proc.
    pub fn new(mount: PathBuf, wall: &Path, proc: PathBuf) -> Self {
        Self {
            wall: path_of(&mount, wall),
            mount,
            proc,
            cgroups: None,
            known: Lru::new(WORKLOADS_MAX),
            unknown: Arc::default(),
            walk_after_ns: 0,
            unnamed: 0,
        }
    }

    /// Knows those that are gone, too.
    #[must_use]
    pub fn with_cgroups(self, cgroups: Arc<Cgroups>) -> Self {
        Self { cgroups: Some(cgroups), ..self }
    }

    /// The workload of a cgroup; `pid` is a process that was in it. `now_ns` is the monotonic clock.
    pub fn find(&mut self, cgroup: u64, pid: u32, now_ns: u64) -> Arc<Workload> {
        if cgroup == 0 {
            return self.unknown.clone();
        }
        if let Some(workload) = self.known.get(&cgroup) {
            return workload.clone();
        }
        if let Some(path) = self.cgroups.as_ref().and_then(|cgroups| cgroups.path(cgroup)) {
            return self.remember(cgroup, &path);
        }
        if let Some(workload) = self.of_process(cgroup, pid) {
            return workload;
        }
        if now_ns >= self.walk_after_ns {
            let begun = Instant::now();
            self.walk();
            self.walk_after_ns = now_ns.saturating_add(rest_ns(begun.elapsed()));
        }
        if let Some(workload) = self.known.get(&cgroup) {
            return workload.clone();
        }
        self.unnamed += 1;
        self.unknown.clone()
    }

    /// How many times a cgroup was not found.
    pub const fn unnamed(&self) -> u64 {
        self.unnamed
    }

    /// How many times a cgroup was not watched, because there are too many.
    pub fn unwatched(&self) -> u64 {
        self.cgroups.as_ref().map_or(0, |cgroups| cgroups.unwatched())
    }

    /// By asking the process, if it still is in that cgroup.
    fn of_process(&mut self, cgroup: u64, pid: u32) -> Option<Arc<Workload>> {
        if pid == 0 {
            return None;
        }
        let path = ProcDir::open(&self.proc, pid)?.cgroup_path()?;
        let below = std::str::from_utf8(path.strip_prefix(b"/")?).ok()?;
        if below.split('/').any(|component| component == "..") {
            return None;
        }
        let found = inode(self.mount.join(below))?;
        (found == cgroup).then(|| self.remember(cgroup, &path))
    }

    fn remember(&mut self, cgroup: u64, path: &[u8]) -> Arc<Workload> {
        let workload = Arc::new(Workload::from_path(path, &self.wall));
        self.known.insert(cgroup, workload.clone());
        workload
    }

    /// Reads every directory of the hierarchy, nearest first.
    fn walk(&mut self) {
        if let Some(root) = inode(&self.mount) {
            self.remember(root, b"/");
        }
        let mut paths: VecDeque<Arc<[u8]>> = VecDeque::from([(*b"/").into()]);
        let mut visited = 0;
        while let Some(path) = paths.pop_front() {
            for (id, child) in children(&directory(&self.mount, &path), &path) {
                if visited == WALK_CGROUPS_MAX {
                    return;
                }
                if child.len() > cgroups::PATH_BYTES_MAX {
                    continue;
                }
                visited += 1;
                if self.known.get(&id).is_none() {
                    self.remember(id, &child);
                }
                paths.push_back(child);
            }
        }
    }
}

/// How long there is no walk after one that took so long: who makes cgroups without end takes a small part of the thread.
fn rest_ns(walk: Duration) -> u64 {
    (walk * WALK_REST).min(WALK_REST_MAX).as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn parts(path: &str, wall: &str) -> [Option<String>; 3] {
        let Workload { cgroup, unit, slice, container, claimed: _ } =
            Workload::from_path(path.as_bytes(), wall.as_bytes());
        assert_eq!(cgroup.as_deref(), Some(path));
        [unit, slice, container]
    }

    fn check(path: &str, wall: &str, unit: Option<&str>, slice: Option<&str>, container: Option<&str>) {
        let expected = [unit, slice, container].map(|part| part.map(str::to_owned));
        assert_eq!(parts(path, wall), expected, "{path} in {wall}");
    }

    #[test]
    fn paths_say_unit_slice_and_container() {
        check("/", "/", None, None, None);
        check("/system.slice/orders.service", "/", Some("orders.service"), Some("system.slice"), None);
        check("/a.slice/a-b.slice", "/", None, Some("a-b.slice"), None);
        check("/a.slice/a-b.slice/x.service/y.slice", "/", Some("x.service"), Some("a-b.slice"), None);
        check("/init.scope", "/", Some("init.scope"), None, None);
        let docker = format!("/system.slice/docker-{ID}.scope");
        check(&docker, "/", Some(&format!("docker-{ID}.scope")), Some("system.slice"), Some(ID));
        let pod = format!("/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope/init");
        check(&pod, "/", Some(&format!("cri-containerd-{ID}.scope")), Some("kubepods-pod1.slice"), Some(ID));
    }

    #[test]
    fn a_name_a_user_chose_is_no_unit_and_no_container() {
        let path = format!("/user.slice/user-1000.slice/user@1000.service/orders.service/docker-{ID}.scope");
        check(&path, "/", Some("user@1000.service"), Some("user-1000.slice"), None);
        check("/x.service/orders.service", "/", Some("x.service"), None, None);
        let nested = format!("/lxc/{ID}/user.slice/docker-{}.scope", ID.replace('0', "f"));
        check(&nested, "/", Some("lxc"), None, Some(ID));
        check(&format!("/lxc/user.slice/{ID}"), "/", Some("lxc"), None, None);
        let claimed = |path: &str| Workload::from_path(path.as_bytes(), b"/").claimed;
        assert_eq!(claimed(&path).as_deref(), Some(ID));
        assert_eq!(claimed(&format!("/shop.service/libpod-payload-{ID}")).as_deref(), Some(ID));
        assert_eq!((claimed(&nested), claimed("/shop.service/app")), (None, None));
    }

    #[test]
    fn units_are_counted_from_the_wall() {
        check("/outer.service/inner.service", "/outer.service", Some("inner.service"), None, None);
        check("/outer.service", "/outer.service", None, None, None);
        check("/o.slice/in.slice/x", "/o.slice", Some("x"), Some("in.slice"), None);
    }

    /// A tree of directories is as good as a cgroup mount: ids are inode numbers in both.
    fn tree() -> (tempfile::TempDir, Workloads) {
        let root = tempfile::tempdir().unwrap();
        let (mount, proc) = (root.path().join("cgroup"), root.path().join("proc"));
        std::fs::create_dir_all(mount.join("system.slice/orders.service/deep")).unwrap();
        std::fs::create_dir_all(proc.join("9")).unwrap();
        std::fs::write(mount.join("cgroup.procs"), "").unwrap();
        let workloads = Workloads::new(mount.clone(), &mount, proc);
        (root, workloads)
    }

    fn id(workloads: &Workloads, path: &str) -> u64 {
        inode(workloads.mount.join(path)).unwrap()
    }

    #[test]
    fn cgroups_are_found_by_a_walk_and_kept_when_they_are_gone() {
        let (_root, mut workloads) = tree();
        let (deep, top) = (id(&workloads, "system.slice/orders.service/deep"), id(&workloads, ""));
        let found = workloads.find(deep, 0, 5);
        assert_eq!(found.cgroup.as_deref(), Some("/system.slice/orders.service/deep"));
        assert_eq!(found.unit.as_deref(), Some("orders.service"));
        assert_eq!(workloads.find(top, 0, 5).cgroup.as_deref(), Some("/"));
        std::fs::remove_dir(workloads.mount.join("system.slice/orders.service/deep")).unwrap();
        assert_eq!(workloads.find(deep, 0, 10_000_000_000), found);
    }

    #[test]
    fn misses_do_not_walk_again_at_once() {
        let (_root, mut workloads) = tree();
        assert_eq!(*workloads.find(u64::MAX, 0, 5), Workload::default());
        std::fs::create_dir(workloads.mount.join("new.service")).unwrap();
        let (new, after_ns) = (id(&workloads, "new.service"), workloads.walk_after_ns);
        assert!(after_ns > 5, "{after_ns}");
        assert_eq!(workloads.find(new, 0, after_ns - 1).unit, None);
        assert_eq!(workloads.unnamed(), 2);
        assert_eq!(workloads.find(new, 0, after_ns).unit.as_deref(), Some("new.service"));
        assert_eq!(rest_ns(Duration::from_millis(2)), 40_000_000);
        assert_eq!(rest_ns(Duration::from_millis(300)), 6_000_000_000);
        assert_eq!(rest_ns(Duration::from_secs(10)), 60_000_000_000);
        assert_eq!(*workloads.find(0, 0, u64::MAX), Workload::default());
    }

    #[test]
    fn a_living_process_tells_unless_it_moved() {
        let (root, mut workloads) = tree();
        // No walk can help.
        workloads.walk_after_ns = u64::MAX;
        let line = |path: &str| {
            std::fs::write(root.path().join("proc/9/cgroup"), format!("4:memory:/other\n0::{path}\n"))
                .unwrap();
        };
        let orders = id(&workloads, "system.slice/orders.service");
        for elsewhere in
            ["/system.slice", "/system.slice/../system.slice/orders.service", "/gone", "relative"]
        {
            line(elsewhere);
            assert_eq!(*workloads.find(orders, 9, 0), Workload::default(), "{elsewhere}");
        }
        line("/system.slice/orders.service");
        assert_eq!(workloads.find(orders, 9, 0).unit.as_deref(), Some("orders.service"));
    }

    #[test]
    fn one_that_is_gone_is_known_by_whoever_watched() {
        let (root, workloads) = tree();
        let mount = workloads.mount.clone();
        let cgroups = Cgroups::watch(mount.clone(), &mount).unwrap();
        let mut workloads = workloads.with_cgroups(Arc::clone(&cgroups));
        // No walk can help.
        workloads.walk_after_ns = u64::MAX;
        std::fs::create_dir(mount.join("job.service")).unwrap();
        let job = id(&workloads, "job.service");
        let until = Instant::now() + Duration::from_secs(10);
        while cgroups.path(job).is_none() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::fs::remove_dir(mount.join("job.service")).unwrap();
        assert_eq!(workloads.find(job, 0, 5).unit.as_deref(), Some("job.service"));
        drop(root);
    }

    #[test]
    fn this_process_is_found_in_the_real_hierarchy() {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let Some(mount) = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let mount = fields.next()?;
            (fields.next()? == "cgroup2").then(|| PathBuf::from(mount))
        }) else {
            return;
        };
        let path = ProcDir::open(Path::new("/proc"), std::process::id()).unwrap().cgroup_path().unwrap();
        let path = String::from_utf8(path).unwrap();
        let inode = inode(mount.join(path.trim_start_matches('/'))).unwrap();
        let mut workloads = Workloads::new(mount.clone(), &mount, PathBuf::from("/proc"));
        assert_eq!(workloads.find(inode, 0, 0).cgroup.as_deref(), Some(path.as_str()));
        let mut workloads = Workloads::new(mount.clone(), &mount, PathBuf::from("/proc"));
        assert_eq!(workloads.find(inode, std::process::id(), 0).cgroup.as_deref(), Some(path.as_str()));
    }
}
