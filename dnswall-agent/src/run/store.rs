//! The agent's own directory: the last good policy and those before it.
//!
//! ```text
//! policy.toml  policy.json      what decides: its text, and where it came from
//! trial.toml   trial.json       what decides until it is confirmed or taken back; a start takes it back
//! history/00000007.toml .json   what decided before, the highest number last
//! lists/                        lists that were fetched (see [`crate::blocklist::fetch`])
//! told.json                     which refusals were told, left by an agent that ended in order
//! ```
//! Each is replaced as [`crate::durable`] does it, so that a crash leaves the old or the new one.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::lock::{Lock, LockError};
use crate::digest::sha256;
use crate::durable::{DurableError, failed, flush_directory, move_into_place, replace, write_new};

/// Policies that can be brought back.
pub const HISTORY_MAX: usize = 10;

/// The directory, which nobody else owns while this lives.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    _lock: Lock,
}

/// A policy as it was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its text.
    pub text: String,
    /// Where it came from.
    pub origin: Origin,
}

/// Where a policy came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The file, or `built-in`.
    pub origin: String,
    /// When it was published, RFC 3339.
    pub applied_at: String,
    /// SHA-256 of the text this belongs to, hexadecimal.
    pub digest: String,
}

/// A policy that is on disk but does not count yet.
#[derive(Debug)]
pub struct Staged<'a> {
    store: &'a Store,
    stored: Stored,
    step_back: bool,
}

/// What the directory would not do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is another agent's, or cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The system refused.
    #[error(transparent)]
    Io(#[from] DurableError),
}

impl Stored {
    /// A policy's text with where and when it came.
    pub fn new(text: String, origin: &str, applied_at: String) -> Self {
        let digest = sha256(&text);
        Self { text, origin: Origin { origin: origin.to_owned(), applied_at, digest } }
    }
}

impl Store {
    /// Takes the directory, which is made when it is missing.
    ///
    /// # Errors
    /// When another agent has it, or the system refuses.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let lock = Lock::take(directory)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
            .map_err(failed("make private", directory))?;
        let history = directory.join(HISTORY);
        DirBuilder::new().recursive(true).mode(0o700).create(&history).map_err(failed("make", &history))?;
        Ok(Self { directory: directory.to_owned(), _lock: lock })
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The last good policy.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn current(&self) -> Result<Option<Stored>, StoreError> {
        read_policy(&self.directory.join(CURRENT))
    }

    /// The policies before it, the latest first; what cannot be read is left out.
    pub fn history(&self) -> Vec<Stored> {
        self.past().into_iter().rev().filter_map(|(_, path)| read_policy(&path).ok().flatten()).collect()
    }

    /// The policy that a rollback brings back.
    ///
    /// # Errors
    /// When the current one cannot be read.
    pub fn previous(&self) -> Result<Option<Stored>, StoreError> {
        let digest = self.current()?.map(|current| current.origin.digest);
        Ok(self.history().into_iter().find(|past| Some(&past.origin.digest) != digest.as_ref()))
    }

    /// Writes a policy beside the last good one. Done before it is published, so that a full disk refuses it while
    /// the old one still decides.
    ///
    /// # Errors
    /// When it cannot be written; nothing has changed then.
    pub fn stage(&self, stored: Stored) -> Result<Staged<'_>, StoreError> {
        write_new(&self.directory.join(STAGED), stored.text.as_bytes())?;
        Ok(Staged { store: self, stored, step_back: false })
    }

    /// Notes a policy that decides for a while only. The last good one stays what it is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin_trial(&self, stored: &Stored) -> Result<(), StoreError> {
        write_policy(&self.directory.join(TRIAL), stored)
    }

    /// The policy that was on trial when the agent before this one ended; nothing when it cannot be read.
    pub fn trial(&self) -> Option<Stored> {
        read_policy(&self.directory.join(TRIAL)).ok().flatten()
    }

    /// Forgets it.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn end_trial(&self) -> Result<(), StoreError> {
        let path = self.directory.join(TRIAL);
        // What it came from says nothing without its text.
        let _ = fs::remove_file(path.with_extension("json"));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &path)(error).into())
            }
            _ => Ok(flush_directory(&path)?),
        }
    }

    /// Keeps what this agent had told when it ended (see [`super::told`]).
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn leave_told(&self, bytes: &[u8]) -> Result<(), StoreError> {
        Ok(replace(&self.directory.join(TOLD), bytes)?)
    }

    /// What the agent before this one had told, once: if this one dies, it does not hold any more.
    pub fn take_told(&self) -> Option<Vec<u8>> {
        let path = self.directory.join(TOLD);
        let bytes = fs::read(&path).ok()?;
        fs::remove_file(&path).ok()?;
        Some(bytes)
    }

    // Numbers and paths of the history, oldest first.
    fn past(&self) -> Vec<(u64, PathBuf)> {
        let mut past: Vec<(u64, PathBuf)> = fs::read_dir(self.directory.join(HISTORY))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let path = entry.path();
                let number = path.file_name()?.to_str()?.strip_suffix(".toml")?.parse().ok()?;
                Some((number, path))
            })
            .collect();
        past.sort_unstable();
        past
    }

    fn remember(&self, stored: &Stored) -> Result<(), StoreError> {
        let mut past = self.past();
        let number = past.last().map_or(1, |(number, _)| number + 1);
        let path = self.directory.join(HISTORY).join(format!("{number:08}.toml"));
        write_policy(&path, stored)?;
        past.push((number, path));
        for (_, path) in past.iter().rev().skip(HISTORY_MAX) {
            forget(path);
        }
        Ok(())
    }
}

impl Staged<'_> {
    /// Takes everything that is newer than this policy out of the history: for a rollback, so that the next one
    /// goes one further back.
    #[must_use]
    pub fn stepping_back(self) -> Self {
        Self { step_back: true, ..self }
    }

    /// Makes it the last good policy; the one before goes to the history.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn commit(self) -> Result<(), StoreError> {
        let Self { store, stored, step_back } = self;
        let current = store.current().ok().flatten();
        let replaced = current.filter(|current| current.origin.digest != stored.origin.digest);
        if step_back {
            for (_, path) in store.past().into_iter().rev() {
                let found = read_policy(&path).ok().flatten();
                forget(&path);
                if found.is_some_and(|found| found.origin.digest == stored.origin.digest) {
                    break;
                }
            }
        } else if let Some(replaced) = &replaced {
            store.remember(replaced)?;
        }
        write_origin(&store.directory.join(CURRENT), &stored.origin)?;
        Ok(move_into_place(&store.directory.join(STAGED), &store.directory.join(CURRENT))?)
    }
}

const CURRENT: &str = "policy.toml";
const STAGED: &str = "policy.toml.staged";
const TRIAL: &str = "trial.toml";
const HISTORY: &str = "history";
const TOLD: &str = "told.json";

fn read_policy(path: &Path) -> Result<Option<Stored>, StoreError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", path)(error).into()),
    };
    // The two files are not written at once. The text is what counts; what belongs to another text is not believed.
    let digest = sha256(&text);
    let origin = fs::read(path.with_extension("json"))
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Origin>(&bytes).ok())
        .filter(|origin| origin.digest == digest)
        .unwrap_or_else(|| Origin { origin: path.display().to_string(), applied_at: String::new(), digest });
    Ok(Some(Stored { text, origin }))
}

fn write_policy(path: &Path, stored: &Stored) -> Result<(), StoreError> {
    write_origin(path, &stored.origin)?;
    Ok(replace(path, stored.text.as_bytes())?)
}

fn write_origin(path: &Path, origin: &Origin) -> Result<(), StoreError> {
    let path = path.with_extension("json");
    let bytes = serde_json::to_vec(origin).map_err(|error| failed("encode", &path)(error.into()))?;
    Ok(replace(&path, &bytes)?)
}

fn forget(path: &Path) {
    // What stays is read again as a policy of the past, and does no harm there.
    let _ = fs::remove_file(path);
    let _ = fs::remove_file(path.with_extension("json"));
}

#[cfg(test)]
mod tests;
