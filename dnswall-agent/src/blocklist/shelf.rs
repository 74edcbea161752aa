//! Takes what a policy says of lists, gives them read; and says when their files are others than those that were read.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create};

use super::build::{Place, build};
use super::known_good::{KnownGood, KnownGoodNames, read_names};
use super::lists::{List, ListAction, Lists};
use crate::host::HostRoot;

/// What a policy says of lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `[[blocklist]]`
    pub lists: Vec<List>,
    /// `[known-good]`
    pub known_good: KnownGoodNames,
    /// The key of the hashes.
    pub key: u64,
}

/// What is wrong with a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Which.
    pub of: Which,
    /// What it is.
    pub what: String,
}

/// A list of a policy, by its place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Of `[[blocklist]]`.
    Block(usize),
    /// Of `lists` in `[known-good]`.
    KnownGood(usize),
    /// All of them together.
    All,
}

/// Lists as they were read.
#[derive(Debug)]
pub struct Shelf {
    wanted: Wanted,
    seen: Vec<Option<Sighting>>,
    /// What the last look found, so that a file which is just being written is left alone.
    looked: Mutex<Vec<Option<Sighting>>>,
    lists: Arc<Lists>,
    troubles: Vec<Trouble>,
}

/// By what a file is known to be another one, or written since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sighting {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Where lists are, and where the index of their names may be written.
#[derive(Clone, Debug)]
pub struct Library {
    /// Whose files they are.
    pub host: HostRoot,
    /// A directory for the index, which has no name there; memory, where that cannot be.
    pub scratch: PathBuf,
}

impl Library {
    /// Reads lists, or takes those of `before` when nothing has changed. With `has_decided` what cannot be used is only a
    /// trouble: what `before` has of the same list goes on, or it is left out.
    ///
    /// # Errors
    /// Everything that is wrong with the lists.
    pub fn read(
        &self,
        wanted: Wanted,
        before: Option<&Arc<Shelf>>,
        has_decided: bool,
    ) -> Result<Shelf, Vec<Trouble>> {
        // Looked at first: a file replaced in between is noticed the next time.
        let seen = self.sightings(&wanted);
        let before = before.filter(|before| before.wanted == wanted);
        let shelf = |lists: Arc<Lists>, troubles: Vec<Trouble>| Shelf {
            wanted: wanted.clone(),
            looked: Mutex::new(seen.clone()),
            seen: seen.clone(),
            lists,
            troubles,
        };
        let is_same =
            |before: &&Arc<Shelf>| before.seen == seen && (has_decided || before.troubles.is_empty());
        if let Some(before) = before.filter(is_same) {
            return Ok(shelf(before.lists.clone(), before.troubles.clone()));
        }
        if wanted.lists.is_empty() {
            return Ok(shelf(Arc::default(), Vec::new()));
        }
        let (lists, troubles) = self.build(&wanted, before.map(|before| &**before.lists()), has_decided);
        match troubles.is_empty() || has_decided {
            true => Ok(shelf(Arc::new(lists), troubles)),
            false => Err(troubles),
        }
    }

    fn build(&self, wanted: &Wanted, before: Option<&Lists>, has_decided: bool) -> (Lists, Vec<Trouble>) {
        let Wanted { lists, known_good, key } = wanted;
        let (good, mut troubles) = self.known_good(known_good, *key);
        let mut lists = lists.clone();
        if !troubles.is_empty() && has_decided {
            // Names that nobody may refuse would be refused.
            lists.iter_mut().for_each(|list| list.action = ListAction::Alert);
            let what = "as long as not all names are known that no list may refuse, the lists only report"
                .to_owned();
            troubles.push(Trouble { of: Which::All, what });
        }
        let open = |path: &Path| self.open(path);
        match build(&lists, good, *key, &open, before, &|place| self.index(place)) {
            Ok(built) => {
                let of_lists = built.accounts.iter().enumerate().filter_map(|(at, account)| {
                    Some(Trouble { of: Which::Block(at), what: account.trouble.clone()? })
                });
                troubles.extend(of_lists);
                (built, troubles)
            }
            Err(error) => {
                troubles.push(Trouble { of: Which::All, what: error.to_string() });
                (Lists::default(), troubles)
            }
        }
    }

    fn known_good(&self, wanted: &KnownGoodNames, key: u64) -> (KnownGood, Vec<Trouble>) {
        let (mut known_good, mut troubles) = (KnownGood::default(), Vec::new());
        wanted.names.iter().for_each(|pattern| known_good.add(key, pattern));
        for (at, path) in wanted.lists.iter().enumerate() {
            let what = match self.open(path).and_then(|file| read_names(file, key, &mut known_good)) {
                Ok((0, rubbish)) => format!("there is no name in it, and {rubbish} lines of something else"),
                Ok(_) => continue,
                Err(error) => format!("it cannot be read: {error}"),
            };
            troubles.push(Trouble { of: Which::KnownGood(at), what });
        }
        (known_good, troubles)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        // A pipe does not keep whoever opens it.
        Ok(File::from(self.host.open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?))
    }

    fn index(&self, place: Place) -> io::Result<File> {
        let file: OwnedFd = match place {
            Place::Disk => {
                let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
                rustix::fs::open(&self.scratch, flags, Mode::RUSR | Mode::WUSR)?
            }
            Place::Memory => memfd_create("dnswall-names", MemfdFlags::CLOEXEC)?,
        };
        Ok(File::from(file))
    }

    fn sightings(&self, wanted: &Wanted) -> Vec<Option<Sighting>> {
        let paths = wanted.lists.iter().map(|list| &list.path).chain(&wanted.known_good.lists);
        paths.map(|path| self.sighting(path)).collect()
    }

    fn sighting(&self, path: &Path) -> Option<Sighting> {
        let found = File::from(self.host.open(path, OFlags::PATH).ok()?).metadata().ok()?;
        Some(Sighting {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

impl Shelf {
    /// The lists.
    pub fn lists(&self) -> &Arc<Lists> {
        &self.lists
    }

    /// What is wrong with those that were to be read; then the lists are older, or without them.
    pub fn troubles(&self) -> &[Trouble] {
        &self.troubles
    }

    /// Whether a file is another one than was read, and was so at the look before already: one that is being written is left
    /// alone.
    pub fn has_changed(&self, library: &Library) -> bool {
        let now = library.sightings(&self.wanted);
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let has_settled = *looked == now;
        let has_changed = now != self.seen;
        *looked = now;
        has_changed && has_settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocklist::{ListAction, name::DomainName};

    fn library(directory: &Path) -> Library {
        Library { host: HostRoot::default(), scratch: directory.to_owned() }
    }

    fn wanted(path: &Path) -> Wanted {
        let list = List {
            name: "bad".to_owned(),
            path: path.to_owned(),
            format: None,
            action: ListAction::Deny,
            entries: 1..=10,
        };
        Wanted { lists: vec![list], known_good: KnownGoodNames::default(), key: 7 }
    }

    fn outcome(shelf: &Shelf, name: &str) -> String {
        shelf.lists().check(&DomainName::new(name).unwrap()).unwrap().outcome
    }

    #[test]
    fn files_are_read_again_when_they_have_changed_and_settled() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("list");
        std::fs::write(&path, "one.example\n").unwrap();
        let library = library(directory.path());
        let first = Arc::new(library.read(wanted(&path), None, false).unwrap());
        assert!(!first.has_changed(&library) && !first.has_changed(&library));
        let same = library.read(wanted(&path), Some(&first), false).unwrap();
        assert!(Arc::ptr_eq(first.lists(), same.lists()));
        std::fs::write(&path, "one.example\ntwo.example\n").unwrap();
        assert!(!first.has_changed(&library), "it may still be being written");
        assert!(first.has_changed(&library));
        let second = library.read(wanted(&path), Some(&first), true).unwrap();
        assert_eq!(
            (outcome(&first, "two.example").as_str(), outcome(&second, "two.example").as_str()),
            ("passes", "denied")
        );
    }

    #[test]
    fn what_has_decided_goes_on_without_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("list");
        std::fs::write(&path, "one.example\n").unwrap();
        let library = library(directory.path());
        let first = Arc::new(library.read(wanted(&path), None, false).unwrap());
        std::fs::write(&path, "").unwrap();
        let kept = library.read(wanted(&path), Some(&first), true).unwrap();
        assert_eq!((outcome(&kept, "one.example").as_str(), kept.troubles().len()), ("denied", 1));
        std::fs::remove_file(&path).unwrap();
        let troubles = library.read(wanted(&path), Some(&first), false).unwrap_err();
        assert_eq!(troubles[0].of, Which::Block(0));
        let without = library.read(wanted(&path), None, true).unwrap();
        assert_eq!((outcome(&without, "one.example").as_str(), without.troubles().len()), ("passes", 1));
    }
}
