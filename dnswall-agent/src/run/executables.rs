//! Takes the path of an executable, perhaps with stars, gives the files it names on this host.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::compile::{EXECUTABLES_PER_PATTERN_MAX, FileId};
use crate::kernel::executable_identity;

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
}

/// The files a pattern names now.
pub fn sightings(pattern: &str) -> Vec<Sighting> {
    let found = paths(Path::new(pattern)).into_iter().filter_map(|path| {
        let metadata = fs::metadata(&path).ok()?;
        Some(Sighting { device: metadata.dev(), inode: metadata.ino(), path })
    });
    found.take(MATCHES_MAX).collect()
}

/// The same files as the kernel knows them; those that cannot be opened are left out.
pub fn identities(sightings: &[Sighting]) -> Vec<FileId> {
    let mut found: Vec<FileId> =
        sightings.iter().filter_map(|sighting| executable_identity(&sighting.path).ok()).collect();
    found.sort_unstable();
    found.dedup();
    found
}

// As a shell does it: a star stands for any characters of one name, and for none of a name that begins with a dot
// unless the pattern does.
fn paths(pattern: &Path) -> Vec<PathBuf> {
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
            next.extend(entries(directory, name, &mut entries_left));
        }
        next.sort_unstable();
        found = next;
    }
    found
}

fn entries(directory: &Path, pattern: &OsStr, left: &mut usize) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        if *left == 0 {
            break;
        }
        *left -= 1;
        let name = entry.file_name();
        let hidden = name.as_bytes().starts_with(b".") && !pattern.as_bytes().starts_with(b".");
        if !hidden && matches(pattern.as_bytes(), name.as_bytes()) {
            found.push(entry.path());
        }
    }
    found
}

// Greedy with one way back, so linear for each star.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, n));
                p += 1;
            }
            Some(byte) if *byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match retry {
                Some((after, at)) => {
                    retry = Some((after, at + 1));
                    p = after;
                    n = at + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_match_as_in_a_shell() {
        let cases: [(&str, &str, bool); 9] = [
            ("python3*", "python3.11", true),
            ("python3*", "python", false),
            ("*", "", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("*.so", "x.so.so", true),
            ("*ab", "aab", true),
            ("**x", "x", true),
            ("exact", "exacts", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }

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
            let found = sightings(root.join(pattern).to_str().unwrap());
            let name = |found: &Sighting| found.path.strip_prefix(root).unwrap().display().to_string();
            found.iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(found("v*/bin/tool"), ["v1/bin/tool", "v2/bin/tool"]);
        assert_eq!(found(".v*/bin/*"), [".v4/bin/tool"]);
        assert_eq!(found("v2/bin/tool*"), ["v2/bin/tool", "v2/bin/tool-link", "v2/bin/tool-old"]);
        assert_eq!(found("v3/bin/tool"), [""; 0]);
        assert_eq!(found("v?/x"), [""; 0]);
        let all = identities(&sightings(root.join("v*/bin/tool*").to_str().unwrap()));
        assert_eq!(all.len(), 3, "the link leads to a file that is there already");
    }

    #[test]
    fn matches_are_bounded() {
        let directory = tempfile::tempdir().unwrap();
        for number in 0..MATCHES_MAX + 20 {
            fs::write(directory.path().join(format!("tool{number:04}")), "x").unwrap();
        }
        let found = sightings(directory.path().join("tool*").to_str().unwrap());
        assert_eq!(found.len(), MATCHES_MAX);
        assert!(found[0].path.ends_with("tool0000"));
    }
}
