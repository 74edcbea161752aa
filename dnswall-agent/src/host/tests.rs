//! Roots made for a test: with links that would lead out of them, and users of their own.

use super::*;
use std::os::unix::fs::symlink;
use tempfile::TempDir;

fn root(files: &[(&str, &str)], links: &[(&str, &str)]) -> (TempDir, HostRoot) {
    let directory = tempfile::tempdir().unwrap();
    let place = |path: &str| {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    files.iter().for_each(|(path, text)| fs::write(place(path), text).unwrap());
    links.iter().for_each(|(path, target)| symlink(target, place(path)).unwrap());
    let root = HostRoot::find(Some(directory.path())).unwrap();
    assert!(!root.is_ours());
    (directory, root)
}

#[test]
fn links_stay_within_the_root() {
    let files = [("usr/bin/tool", "host"), ("opt/v2/tool", "two")];
    let links = [
        ("bin", "/usr/bin"),
        ("etc/alternatives/tool", "/opt/v2/tool"),
        ("opt/current", "../../../../../opt/v2"),
        ("out", "/proc/self/exe"),
    ];
    let (_directory, root) = root(&files, &links);
    let read = |path: &str| root.read(Path::new(path), 10).map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(read("/bin/tool").unwrap(), "host");
    assert_eq!(read("/etc/alternatives/tool").unwrap(), "two");
    assert_eq!(read("/opt/current/tool").unwrap(), "two");
    assert_eq!(read("/../../usr/bin/tool").unwrap(), "host");
    assert!(read("/out").is_err(), "there is no /proc below it");
    assert!(read("/etc/hostname").is_err());
    assert!(read("/usr/bin").is_err(), "no file");
    assert!(root.read(Path::new("/usr/bin/tool"), 3).is_err(), "too long");
    let directory = root.open(Path::new("/bin"), OFlags::PATH).unwrap();
    assert_eq!(root.real_path(directory).unwrap(), Path::new("/usr/bin"));
    assert!(root.open_cached(Path::new("/bin/tool")).is_ok(), "it was opened a moment ago");
}

#[test]
fn users_are_those_of_the_roots_passwd() {
    let (_directory, root) = root(&[("etc/passwd", "root:x:0:0:::\npostgres:x:4242:1:::\n")], &[]);
    assert!(root.has_users());
    assert_eq!((root.uid("postgres"), root.user(4242)), (Some(4242), Some(b"postgres".to_vec())));
    assert_eq!((root.uid("nobody"), root.user(1)), (None, None), "they are this process's own host's");
    let (_directory, empty) = self::root(&[], &[]);
    assert!(!empty.has_users() && empty.uid("root").is_none());
}

#[test]
fn the_own_root_asks_the_name_service() {
    let root = HostRoot::find(Some(Path::new("/"))).unwrap();
    assert_eq!(root, HostRoot::default());
    assert!(root.is_ours() && root.has_users());
    assert_eq!((root.uid("root"), root.user(0)), (Some(0), Some(b"root".to_vec())));
    assert!(root.read(Path::new("/etc/passwd"), users::PASSWD_BYTES_MAX).is_ok());
    assert!(HostRoot::find(Some(Path::new("/no/such/root"))).is_err());
}

/// What is found from a /proc in which pid 1 and this process have these roots mounted.
fn found(first: &str, own: &str, initial: bool) -> (TempDir, HostRoot) {
    let directory = tempfile::tempdir().unwrap();
    let proc = directory.path();
    for (pid, root) in [("1", first), ("self", own)] {
        fs::create_dir_all(proc.join(pid).join("ns")).unwrap();
        let text =
            format!("20 1 0:5 / /proc rw - proc proc rw\n21 1 {root} / rw,relatime - ext4 /dev/vda rw\n");
        fs::write(proc.join(pid).join("mountinfo"), text).unwrap();
    }
    if initial {
        symlink("/proc/self/ns/pid", proc.join("self/ns/pid")).unwrap();
    }
    symlink("/usr", proc.join("1/root")).unwrap();
    let found = HostRoot::seen_from(proc);
    (directory, found)
}

#[test]
fn the_root_of_the_hosts_first_process_is_found() {
    let (directory, container) = found("254:0 /", "0:55 /", true);
    assert_eq!(container, HostRoot { path: directory.path().join("1/root"), doubt: None });
    assert!(container.open(Path::new("/bin"), OFlags::PATH).is_ok());
    // Its own mount namespace, but the same root; a bind mount of another directory is another root.
    assert_eq!(found("254:0 /", "254:0 /", true).1, HostRoot::default());
    assert!(!found("254:0 /", "254:0 /srv/jail", true).1.is_ours());
    let private = found("254:0 /", "0:55 /", false).1;
    assert!(private.is_ours() && private.doubt == Some(Doubt::PrivatePids));
}

#[test]
fn a_root_that_cannot_be_entered_leaves_a_doubt() {
    let (directory, _) = found("254:0 /", "0:55 /", true);
    fs::remove_file(directory.path().join("1/root")).unwrap();
    let closed = HostRoot::seen_from(directory.path());
    assert!(closed.is_ours());
    assert_eq!(closed.doubt, Some(Doubt::Closed(Errno::NOENT)));
    fs::remove_file(directory.path().join("1/mountinfo")).unwrap();
    assert_eq!(HostRoot::seen_from(directory.path()), HostRoot::default(), "nothing says that it is another");
}

#[test]
fn a_mount_that_is_not_utf8_hides_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let mountinfo = directory.path().join("mountinfo");
    fs::write(&mountinfo, b"20 1 0:7 /\xff /x\xfe rw - tmpfs \xff rw\n21 1 8:1 /root / rw - ext4 x rw\n")
        .unwrap();
    assert_eq!(root_mount(&mountinfo), Some(("8:1".to_owned(), "/root".to_owned())));
}
