//! Fetched lists on disk: takes a list and how it is read, fetches a version, and keeps it when it may count.

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::super::lists::{List, ListAccount};

use super::body::Miss;
use super::judge::{Standard, judge};
use super::record::Record;
use super::request::{Answer, Asked, Validators, ask};
use crate::durable;
use crate::remote::ServerUrl;

/// The directory.
#[derive(Debug)]
pub struct Depot {
    directory: PathBuf,
    asked: Asked,
    places: Mutex<HashMap<String, Arc<Place>>>,
    /// Held while a version is read: it takes memory.
    reading: Mutex<()>,
}

/// One list's.
#[derive(Debug, Default)]
struct Place {
    /// Held while it is fetched.
    busy: Mutex<()>,
    record: Mutex<Record>,
}

/// What is wanted of a fetch.
pub struct Job<'j> {
    /// The list.
    pub list: &'j List,
    /// Where it is.
    pub url: &'j ServerUrl,
    /// How often it is fetched.
    pub refresh: Duration,
    /// Reads a version of it: a file of the depot's.
    pub survey: &'j dyn Fn(&Path) -> ListAccount,
    /// Entries of all other lists.
    pub others: usize,
    /// A version counts that shrank or grew too much.
    pub accept: bool,
    /// When there is no time left.
    pub until: Instant,
}

/// What came of a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The version that is here is still the one.
    Unchanged,
    /// Another version counts now.
    Changed,
    /// What came does not count.
    Refused(String),
    /// Nothing came.
    Failed(String),
}

/// The same, and whether it is news: the same failure is not said again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// What came of it.
    pub outcome: Outcome,
    /// It is another outcome than the one before.
    pub is_news: bool,
}

impl Depot {
    /// Opens the directory, which is made when it is missing; what an agent that died was fetching is removed.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn open(directory: PathBuf, asked: Asked) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        let depot = Self { directory, asked, places: Mutex::default(), reading: Mutex::default() };
        depot.remove(|name| name.ends_with(".new"));
        Ok(depot)
    }

    /// Removes what belongs to none of these lists.
    pub fn keep_only(&self, keys: &HashSet<String>) {
        self.remove(|name| name.split('.').next().is_some_and(|key| !keys.contains(key)));
    }

    fn remove(&self, unwanted: impl Fn(&str) -> bool) {
        let files = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        for file in files.filter(|file| file.file_name().to_str().is_some_and(&unwanted)) {
            // What stays takes room, and is read by nobody.
            let _ = fs::remove_file(file.path());
        }
    }

    /// Where the version that counts is, if there is one.
    pub fn path(&self, url: &ServerUrl) -> PathBuf {
        self.file(&url.key(), "list")
    }

    /// Opens the version that counts.
    ///
    /// # Errors
    /// When there is none, with what became of the last try; or it cannot be read.
    pub fn read(&self, url: &ServerUrl) -> io::Result<File> {
        match File::open(self.path(url)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let tried = self.record(url).error.unwrap_or_else(|| "nobody tried yet".to_owned());
                let why = tried.strip_prefix(FAILED).unwrap_or(&tried);
                Err(io::Error::new(io::ErrorKind::NotFound, format!("it was never fetched: {why}")))
            }
            other => other,
        }
    }

    /// What is known of it.
    pub fn record(&self, url: &ServerUrl) -> Record {
        locked(&self.place(&url.key()).record).clone()
    }

    /// Whether it is time to fetch it.
    pub fn is_due(&self, url: &ServerUrl, refresh: Duration) -> bool {
        self.record(url).is_due(Timestamp::now(), refresh)
    }

    /// Whether a version of it is here.
    pub fn has(&self, url: &ServerUrl) -> bool {
        self.path(url).exists()
    }

    /// Fetches a list. One at a time for each: who comes later waits for the one before, and asks again.
    pub fn fetch(&self, job: &Job<'_>) -> Fetched {
        let key = job.url.key();
        let place = self.place(&key);
        let Some(_busy) = patiently(&place.busy, job.until) else {
            let why = "it is being fetched already, and that takes long".to_owned();
            return Fetched { outcome: Outcome::Failed(why), is_news: false };
        };
        let mut record = locked(&place.record).clone();
        let before = record.error.clone();
        let new = self.file(&key, "new");
        let outcome = self.obtain(job, &key, &new, &mut record);
        // Moved away by now when it counts.
        let _ = fs::remove_file(&new);
        let (now, chance) = (Timestamp::now(), chance());
        match &outcome {
            Outcome::Unchanged | Outcome::Changed => record.succeeded(now, job.refresh, chance),
            Outcome::Refused(why) => {
                record.refused = Some(why.clone());
                record.failed(now, job.refresh, chance, format!("what came does not count: {why}"));
            }
            Outcome::Failed(why) => record.failed(now, job.refresh, chance, format!("{FAILED}{why}")),
        }
        if let Err(error) = record.write(&self.file(&key, "json")) {
            tracing::warn!("what is known of list {} is not kept: {error}", job.list.name);
        }
        let is_news = outcome == Outcome::Changed || record.error != before;
        *locked(&place.record) = record;
        Fetched { outcome, is_news }
    }

    fn obtain(&self, job: &Job<'_>, key: &str, new: &Path, record: &mut Record) -> Outcome {
        let path = self.file(key, "list");
        let length = fs::metadata(&path).map(|found| found.len()).ok();
        let has_version = length.is_some();
        // A version that is not the one in the record is fetched again whole.
        let known = match length == Some(record.bytes) {
            true => Validators { etag: record.etag.clone(), last_modified: record.last_modified.clone() },
            false => Validators::default(),
        };
        let answer = durable::create(new)
            .map_err(|error| Miss::Failed(error.to_string()))
            .and_then(|mut file| ask(job.url, &self.asked, &known, &mut file, job.until));
        let (validators, sha256, bytes) = match answer {
            Err(Miss::Failed(why)) => return Outcome::Failed(why),
            Err(Miss::Refused(why)) => return Outcome::Refused(why),
            Ok(Answer::Same) => return Outcome::Unchanged,
            Ok(Answer::Body { validators, sha256, bytes }) => (validators, Some(sha256), bytes),
        };
        let is_same = has_version && record.sha256 == sha256;
        if !is_same {
            let account = self.survey(job, new);
            let before = has_version.then(|| self.survey(job, &path).entries);
            let standard = Standard { before, others: job.others, accept: job.accept };
            if let Err(why) = judge(job.list, &account, standard) {
                return Outcome::Refused(why);
            }
            if let Err(error) = durable::move_into_place(new, &path) {
                return Outcome::Failed(error.to_string());
            }
            record.fetched = Some(Timestamp::now());
            (record.sha256, record.bytes, record.entries) = (sha256, bytes, account.entries);
        }
        // After the version itself: what a server calls it may be older than it, never newer.
        (record.etag, record.last_modified) = (validators.etag, validators.last_modified);
        if is_same { Outcome::Unchanged } else { Outcome::Changed }
    }

    fn survey(&self, job: &Job<'_>, path: &Path) -> ListAccount {
        let _reading = locked(&self.reading);
        (job.survey)(path)
    }

    fn place(&self, key: &str) -> Arc<Place> {
        let mut places = locked(&self.places);
        let new = || {
            let record = Mutex::new(Record::read(&self.file(key, "json")));
            Arc::new(Place { record, ..Place::default() })
        };
        Arc::clone(places.entry(key.to_owned()).or_insert_with(new))
    }

    fn file(&self, key: &str, kind: &str) -> PathBuf {
        self.directory.join(format!("{key}.{kind}"))
    }
}

/// What is said of a try that brought nothing, before why.
const FAILED: &str = "it cannot be fetched: ";

/// Waits for a turn, but not longer than until then.
fn patiently(mutex: &Mutex<()>, until: Instant) -> Option<MutexGuard<'_, ()>> {
    loop {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(guard)) => return Some(guard.into_inner()),
            Err(TryLockError::WouldBlock) if Instant::now() >= until => return None,
            Err(TryLockError::WouldBlock) => thread::sleep(TURN),
        }
    }
}

/// Between two looks whether it is free.
const TURN: Duration = Duration::from_millis(50);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Only replaced whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Any number; always the same where the kernel has none.
fn chance() -> u64 {
    let mut bytes = [0; 8];
    let flags = rustix::rand::GetRandomFlags::NONBLOCK;
    rustix::rand::getrandom(&mut bytes, flags).map_or(0, |_| u64::from_le_bytes(bytes))
}
