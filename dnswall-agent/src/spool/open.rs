//! Takes a path, gives the store there: whole, or another one with what was there moved aside.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::disk::Disk;
use super::store::{Store, StoreError};

/// A store that can be used.
pub(super) struct Opened {
    pub(super) store: Store,
    /// What somebody should know about the one that was there.
    pub(super) damage: Option<String>,
}

/// Opens the store; one that is damaged is moved aside, and another begun.
pub(super) fn open_store(path: &Path, bytes_max: u64) -> Result<Opened, StoreError> {
    match open_whole(path, bytes_max) {
        Err(StoreError::Damaged(what)) => {
            let aside = aside(path);
            std::fs::rename(path, &aside).map_err(|error| StoreError::Failed(error.to_string()))?;
            let said = format!("{} was damaged ({what}) and is now {}", path.display(), aside.display());
            tracing::error!("{said}: alerts that no sink had yet are only in there");
            Ok(Opened { store: open_whole(path, bytes_max)?, damage: Some(said) })
        }
        result => result.map(|store| Opened { store, damage: None }),
    }
}

fn open_whole(path: &Path, bytes_max: u64) -> Result<Store, StoreError> {
    let disk = Disk::open(path, bytes_max).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => StoreError::Taken(error.to_string()),
        _ => StoreError::Failed(error.to_string()),
    })?;
    // Only now that it is ours.
    let attempt = Attempt::begin(path)?;
    if let Err(error) = disk.reserve() {
        tracing::warn!(
            "room for {bytes_max} bytes could not be taken beforehand for {}: {error}; a full disk stops the spool",
            path.display()
        );
    }
    let store = Store::open(disk, room_for_alerts(bytes_max));
    // Whatever came of it, the agent lives.
    attempt.survived();
    store
}

/// A file beside the spool, with a byte for each agent that died while it opened the spool. A database that is damaged in a way
/// its reader does not expect may end the agent, which its service manager starts again: not for ever.
struct Attempt {
    path: PathBuf,
}

impl Attempt {
    fn begin(spool: &Path) -> Result<Self, StoreError> {
        let path = named(spool, ".opening");
        let died = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
        let attempt = Self { path };
        if died >= DEATHS_MAX {
            attempt.survived();
            return Err(StoreError::Damaged(format!("{died} agents in a row died while they opened it")));
        }
        let file = File::options().create(true).append(true).open(&attempt.path);
        if let Err(error) = file.and_then(|mut file| file.write_all(b"x")) {
            tracing::warn!(
                "whether the spool can be opened is not noted in {}: {error}",
                attempt.path.display()
            );
        }
        Ok(attempt)
    }

    fn survived(&self) {
        // One that is not there was not written, which is said already.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// How much of a file alerts may take.
pub(super) const fn room_for_alerts(bytes_max: u64) -> u64 {
    bytes_max - bytes_max / SLACK_DIVISOR
}

/// Beside it, under a name that is free: what an earlier one still has is not overwritten.
fn aside(path: &Path) -> PathBuf {
    let names =
        std::iter::once(".damaged".to_owned()).chain((2..DAMAGED_MAX).map(|n| format!(".damaged-{n}")));
    let free = names.map(|suffix| named(path, &suffix)).find(|path| !path.exists());
    free.unwrap_or_else(|| named(path, &format!(".damaged-{DAMAGED_MAX}")))
}

fn named(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    PathBuf::from(path)
}

/// Damaged files that are kept.
const DAMAGED_MAX: u32 = 9;
/// So many agents in a row may die while they open it; somebody may just have killed one of them.
const DEATHS_MAX: u64 = 3;
/// Part of the file that is not filled with alerts: the store needs room to change things in.
const SLACK_DIVISOR: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MAX: u64 = 4 << 20;

    /// What an agent leaves that dies while it opens what is there.
    fn die_once(path: &Path) {
        let disk = Disk::open(path, BYTES_MAX).unwrap();
        // The file is let go of, the attempt never comes back.
        Attempt::begin(path).unwrap();
        drop(disk);
    }

    #[test]
    fn what_agents_die_of_again_and_again_is_moved_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("alerts");
        drop(open_store(&path, BYTES_MAX).unwrap_or_else(|error| panic!("{error}")));
        assert!(!named(&path, ".opening").exists());
        for _ in 1..DEATHS_MAX {
            die_once(&path);
        }
        let opened = open_store(&path, BYTES_MAX).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(opened.damage, None, "somebody may have killed them");
        drop(opened);
        for _ in 0..DEATHS_MAX {
            die_once(&path);
        }
        let opened = open_store(&path, BYTES_MAX).unwrap_or_else(|error| panic!("{error}"));
        assert!(opened.damage.is_some_and(|damage| damage.contains("3 agents in a row died")));
        assert!(named(&path, ".damaged").exists() && !named(&path, ".opening").exists());
    }

    #[test]
    fn one_that_another_agent_has_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("alerts");
        let opened = open_store(&path, BYTES_MAX).unwrap_or_else(|error| panic!("{error}"));
        for _ in 0..2 * DEATHS_MAX {
            assert!(matches!(open_store(&path, BYTES_MAX), Err(StoreError::Taken(_))));
        }
        assert!(!named(&path, ".opening").exists() && !named(&path, ".damaged").exists());
        drop(opened);
    }
}
