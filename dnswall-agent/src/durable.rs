//! Writing files so that a crash leaves the old one or the new one: each is written beside its name, flushed, and moved there.
//!
//! Files are private (0600): what the agent keeps is nobody else's.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// What the system would not do.
#[derive(Debug, thiserror::Error)]
#[error("{action} {path}: {source}")]
pub struct DurableError {
    /// What was tried.
    pub action: &'static str,
    /// On what.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

/// Says what was tried when the system refused it.
pub fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DurableError {
    let path = path.to_owned();
    move |source| DurableError { action, path, source }
}

/// Replaces a file.
///
/// # Errors
/// When it cannot be written; the old one is still there.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    write_new(&beside, bytes)?;
    move_into_place(&beside, path)
}

/// Writes a file anew, and flushes it.
///
/// # Errors
/// When it cannot be written; there may be a part of it.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), DurableError> {
    let mut file = create(path)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed("write", path))
}

/// Makes an empty file, or empties the one that is there.
///
/// # Errors
/// When the system refuses.
pub fn create(path: &Path) -> Result<File, DurableError> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(failed("write", path))
}

/// Moves a file that was flushed to where it counts.
///
/// # Errors
/// When the system refuses.
pub fn move_into_place(from: &Path, to: &Path) -> Result<(), DurableError> {
    fs::rename(from, to).map_err(failed("move into place", to))?;
    flush_directory(to)
}

/// A rename is on disk once its directory is.
///
/// # Errors
/// When it cannot be flushed.
pub fn flush_directory(path: &Path) -> Result<(), DurableError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed("flush", directory))
}
