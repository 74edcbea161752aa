//! Takes what a policy says of lists, gives them read; and says when their files are others than those that were read.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create};

use super::build::{Before, Place, build, survey};
use super::fetch::Depot;
use super::known_good::{KnownGood, KnownGoodNames, read_names};
use super::lists::{List, ListAccount, ListAction, ListSource, Lists};
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
    /// What is fetched. Without it, lists with a URL are not read.
    pub depot: Option<Arc<Depot>>,
}

impl Library {
    /// Reads lists, or takes those of `before` when nothing has changed. With `has_decided` what cannot be used is only a
    /// trouble: what `before` has of the same list goes on, or it is left out. Lists of a name in `accepted` are read again, and
    /// may have changed as they like.
    ///
    /// # Errors
    /// Everything that is wrong with the lists.
    pub fn read(
        &self,
        wanted: Wanted,
        before: Option<&Arc<Shelf>>,
        has_decided: bool,
        accepted: &[String],
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
        let is_same = |before: &&Arc<Shelf>| {
            before.seen == seen && accepted.is_empty() && (has_decided || before.troubles.is_empty())
        };
        if let Some(before) = before.filter(is_same) {
            return Ok(shelf(before.lists.clone(), before.troubles.clone()));
        }
        if wanted.lists.is_empty() {
            return Ok(shelf(Arc::default(), Vec::new()));
        }
        let lists = before.map(|before| &**before.lists());
        let (lists, troubles) = self.build(&wanted, Before { lists, accepted }, has_decided);
        match troubles.is_empty() || has_decided {
            true => Ok(shelf(Arc::new(lists), troubles)),
            false => Err(troubles),
        }
    }

    /// Reads one list of a policy from this file instead of where it is, and only counts.
    pub fn survey(&self, wanted: &Wanted, list: &List, path: &Path) -> ListAccount {
        let (good, _) = self.known_good(&wanted.known_good, wanted.key);
        survey(list, good, wanted.key, &|_| File::open(path).map(Some))
    }

    fn build(&self, wanted: &Wanted, before: Before<'_>, has_decided: bool) -> (Lists, Vec<Trouble>) {
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
        let open = |list: &List| self.open_list(list);
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

    fn open_list(&self, list: &List) -> io::Result<Option<File>> {
        match (&list.source, &self.depot) {
            (ListSource::File(path), _) => self.open(path).map(Some),
            (ListSource::Url { url, .. }, Some(depot)) => depot.read(url).map(Some),
            (ListSource::Url { .. }, None) => Ok(None),
        }
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
        let of_host = |path: &Path| File::from(self.host.open(path, OFlags::PATH).ok()?).metadata().ok();
        let lists = wanted.lists.iter().map(|list| match &list.source {
            ListSource::File(path) => of_host(path),
            ListSource::Url { url, .. } => std::fs::metadata(self.depot.as_ref()?.path(url)).ok(),
        });
        let known_good = wanted.known_good.lists.iter().map(|path| of_host(path));
        lists.chain(known_good).map(|found| found.as_ref().map(Sighting::of)).collect()
    }
}

impl Sighting {
    fn of(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
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

    /// Whether a file is another one than was read.
    pub fn differs(&self, library: &Library) -> bool {
        library.sightings(&self.wanted) != self.seen
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
    use crate::blocklist::bounds::Change;
    use crate::blocklist::name::DomainName;

    fn library(directory: &Path) -> Library {
        Library { host: HostRoot::default(), scratch: directory.to_owned(), depot: None }
    }

    fn wanted(path: &Path) -> Wanted {
        let list = List {
            name: "bad".to_owned(),
            source: ListSource::File(path.to_owned()),
            format: None,
            action: ListAction::Deny,
            entries: 1..=10,
            change: Change::default(),
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
        let first = Arc::new(library.read(wanted(&path), None, false, &[]).unwrap());
        assert!(!first.has_changed(&library) && !first.has_changed(&library));
        let same = library.read(wanted(&path), Some(&first), false, &[]).unwrap();
        assert!(Arc::ptr_eq(first.lists(), same.lists()));
        std::fs::write(&path, "one.example\ntwo.example\n").unwrap();
        assert!(!first.has_changed(&library), "it may still be being written");
        assert!(first.has_changed(&library));
        let second = library.read(wanted(&path), Some(&first), true, &[]).unwrap();
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
        let first = Arc::new(library.read(wanted(&path), None, false, &[]).unwrap());
        std::fs::write(&path, "").unwrap();
        let kept = library.read(wanted(&path), Some(&first), true, &[]).unwrap();
        assert_eq!((outcome(&kept, "one.example").as_str(), kept.troubles().len()), ("denied", 1));
        std::fs::remove_file(&path).unwrap();
        let troubles = library.read(wanted(&path), Some(&first), false, &[]).unwrap_err();
        assert_eq!(troubles[0].of, Which::Block(0));
        let without = library.read(wanted(&path), None, true, &[]).unwrap();
        assert_eq!((outcome(&without, "one.example").as_str(), without.troubles().len()), ("passes", 1));
    }

    #[test]
    fn a_file_that_changes_too_much_goes_on_as_it_was_unless_it_is_accepted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("list");
        std::fs::write(&path, "one.example\ntwo.example\nthree.example\nfour.example\n").unwrap();
        let library = library(directory.path());
        let first = Arc::new(library.read(wanted(&path), None, false, &[]).unwrap());
        std::fs::write(&path, "one.example\ntwo.example\n").unwrap();
        let kept = Arc::new(library.read(wanted(&path), Some(&first), true, &[]).unwrap());
        assert_eq!((outcome(&kept, "four.example").as_str(), kept.troubles().len()), ("denied", 1));
        assert!(library.read(wanted(&path), Some(&first), false, &[]).is_err());
        let again = library.read(wanted(&path), Some(&kept), true, &[]).unwrap();
        assert_eq!((outcome(&again, "four.example").as_str(), again.troubles().len()), ("denied", 1));
        let accepted = ["bad".to_owned()];
        let accepted = Arc::new(library.read(wanted(&path), Some(&kept), true, &accepted).unwrap());
        assert_eq!((outcome(&accepted, "four.example").as_str(), accepted.troubles().len()), ("passes", 0));
        std::fs::write(&path, "one.example\ntwo.example\nthree.example\n").unwrap();
        let next = library.read(wanted(&path), Some(&accepted), true, &[]).unwrap();
        assert_eq!((outcome(&next, "three.example").as_str(), next.troubles().len()), ("denied", 0));
    }

    #[test]
    fn what_is_fetched_is_not_read_without_an_agent() {
        let directory = tempfile::tempdir().unwrap();
        let mut wanted = wanted(Path::new("/x"));
        let url = crate::remote::ServerUrl::new("https://lists.example.net/a").unwrap();
        wanted.lists[0].source = ListSource::Url { url, refresh: std::time::Duration::from_secs(60) };
        let shelf = library(directory.path()).read(wanted, None, false, &[]).unwrap();
        assert!(shelf.troubles().is_empty() && shelf.lists().accounts[0].unread);
        let said = shelf.lists().check(&DomainName::new("one.example").unwrap()).unwrap();
        assert!(said.outcome == "passes" && said.because.contains("the agent fetches bad"), "{said:?}");
    }
}
