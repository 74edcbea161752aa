//! Takes the path of an executable, perhaps with stars, gives the files it names on the host.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Dir, OFlags};

use crate::compile::{EXECUTABLES_PER_PATTERN_MAX, FileId};
use crate::glob;
use crate::host::HostRoot;
use crate::kernel::executable_identities;

/// Files looked at for one pattern: one more than it may name, so that the compiler can say that there are too many.
pub const MATCHES_MAX: usize = EXECUTABLES_PER_PATTERN_MAX + 1;
/// Directory entries looked at for one pattern.
pub const ENTRIES_MAX: usize = 65_536;

/// A file a pattern names now, by what `stat` says of it: cheap to ask again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    path: PathBuf,
    device: u64,
    inode: u64,
    owner: u32,
}

/// The files a pattern names now, those of root first: where there are too many, others must not take their places.
pub fn sightings(host: &HostRoot, pattern: &str) -> Vec<Sighting> {
    let found = paths(host, Path::new(pattern)).into_iter().filter_map(|path| {
        let metadata = File::from(host.open(&path, OFlags::PATH).ok()?).metadata().ok()?;
        Some(Sighting { device: metadata.dev(), inode: metadata.ino(), owner: metadata.uid(), path })
    });
    let mut found: Vec<Sighting> = found.collect();
    found.sort_by_key(|sighting| sighting.owner != 0);
    found.truncate(MATCHES_MAX);
    found
}

/// The same files as the kernel knows them, in the same order; those that cannot be opened are left out.
pub fn identities(host: &HostRoot, sightings: &[Sighting]) -> Vec<FileId> {
    let mut found: Vec<FileId> = Vec::new();
    for id in sightings.iter().filter_map(|sighting| known_by(host, &sighting.path).ok()).flatten() {
        if !found.contains(&id) {
            found.push(id);
        }
    }
    found
}

/// The file a path names now, as the kernel knows it.
///
/// # Errors
/// When it cannot be opened, or nothing like it can run.
pub fn identity(host: &HostRoot, path: &Path) -> io::Result<FileId> {
    known_by(host, path).map(|[first, _]| first)
}

/// All that the kernel may know it by.
fn known_by(host: &HostRoot, path: &Path) -> io::Result<[FileId; 2]> {
    // A star may name somebody's pipe or terminal: neither may keep the agent waiting.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    executable_identities(&File::from(host.open(path, flags)?))
}

// As a shell does it: a star stands for any characters of one name, and for none of a name that begins with a dot
// unless the pattern does.
fn paths(host: &HostRoot, pattern: &Path) -> Vec<PathBuf> {
    let mut entries_left = ENTRIES_MAX;
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        let name = match component {
            Component::Normal(name) if name.as_bytes().contains(&b'*') => name,
            other => {
                found.iter_mut().for_each(|path| path.push(other));
                continue;
            }
        };
        let mut next = Vec::new();
        for directory in &found {
            next.extend(entries(host, directory, name, &mut entries_left));
        }
        next.sort_unstable();
        found = next;
    }
    found
}

fn entries(host: &HostRoot, directory: &Path, pattern: &OsStr, left: &mut usize) -> Vec<PathBuf> {
    let opened = host.open(directory, OFlags::RDONLY | OFlags::DIRECTORY);
    let Some(entries) = opened.ok().and_then(|opened| Dir::new(opened).ok()) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        if *left == 0 {
            break;
        }
        *left -= 1;
        let hidden = name.starts_with(b".") && !pattern.as_bytes().starts_with(b".");
        if !hidden && glob::matches(pattern.as_bytes(), name) {
            found.push(directory.join(OsStr::from_bytes(name)));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn patterns_expand_below_directories_and_through_links() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for path in ["v1/bin/tool", "v2/bin/tool", "v2/bin/tool-old", "v3/other", ".v4/bin/tool"] {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), path).unwrap();
        }
        std::os::unix::fs::symlink(root.join("v1/bin/tool"), root.join("v2/bin/tool-link")).unwrap();
        let found = |pattern: &str| {
            let found = sightings(&HostRoot::default(), root.join(pattern).to_str().unwrap());
            let name = |found: &Sighting| found.path.strip_prefix(root).unwrap().display().to_string();
            found.iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(found("v*/bin/tool"), ["v1/bin/tool", "v2/bin/tool"]);
        assert_eq!(found(".v*/bin/*"), [".v4/bin/tool"]);
        assert_eq!(found("v2/bin/tool*"), ["v2/bin/tool", "v2/bin/tool-link", "v2/bin/tool-old"]);
        assert_eq!(found("v3/bin/tool"), [""; 0]);
        assert_eq!(found("v?/x"), [""; 0]);
        let host = HostRoot::default();
        let all = identities(&host, &sightings(&host, root.join("v*/bin/tool*").to_str().unwrap()));
        assert_eq!(all.len(), 3, "the link leads to a file that is there already");
    }

    #[test]
    fn matches_are_bounded() {
        let directory = tempfile::tempdir().unwrap();
        for number in 0..MATCHES_MAX + 20 {
            fs::write(directory.path().join(format!("tool{number:04}")), "x").unwrap();
        }
        let found = sightings(&HostRoot::default(), directory.path().join("tool*").to_str().unwrap());
        assert_eq!(found.len(), MATCHES_MAX);
        assert!(found[0].path.ends_with("tool0000"));
        for number in 0..MATCHES_MAX + 19 {
            let path = directory.path().join(format!("tool{number:04}"));
            std::os::unix::fs::chown(path, Some(65534), None).unwrap();
        }
        let found = sightings(&HostRoot::default(), directory.path().join("tool*").to_str().unwrap());
        assert_eq!(found.len(), MATCHES_MAX);
        assert!(found[0].path.ends_with(format!("tool{:04}", MATCHES_MAX + 19)), "the one of root's is kept");
    }

    #[test]
    fn another_roots_links_and_stars_lead_to_its_own_files() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        for path in ["opt/v1/tool", "opt/v2/tool", "opt/.v3/tool"] {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), path).unwrap();
        }
        // Followed from this process's own root, both would lead elsewhere.
        std::os::unix::fs::symlink("/opt", root.join("srv")).unwrap();
        std::os::unix::fs::symlink("/opt/v2/tool", root.join("tool")).unwrap();
        let host = HostRoot::find(Some(root)).unwrap();
        let own = |path: &str| identity(&HostRoot::default(), &root.join(path)).unwrap();
        let found = |pattern: &str| identities(&host, &sightings(&host, pattern));
        assert_eq!(found("/srv/v*/tool"), [own("opt/v1/tool"), own("opt/v2/tool")]);
        assert_eq!(found("/tool"), [own("opt/v2/tool")]);
        assert_eq!(found("/usr/bin/*"), []);
        assert_eq!(found("/bin/sh"), []);
    }

    #[test]
    fn a_pipe_keeps_nobody_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("tool");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let host = HostRoot::default();
        let found = sightings(&host, directory.path().join("*").to_str().unwrap());
        assert_eq!((found.len(), identities(&host, &found)), (1, Vec::new()));
    }
}
