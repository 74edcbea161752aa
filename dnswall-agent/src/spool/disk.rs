//! Takes the store's pages, keeps them in one private file whose room on the disk is taken beforehand: a disk that
//! others fill later does not stop the spool.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use redb::StorageBackend;
use rustix::fs::{FallocateFlags, FlockOperation, Mode, OFlags};

/// One file with a bound.
#[derive(Debug)]
pub struct Disk {
    file: File,
    bytes_max: u64,
}

impl Disk {
    /// Opens or creates the file, for this process alone.
    ///
    /// # Errors
    /// When that is not possible, it is no file, or another process has it.
    pub fn open(path: &Path, bytes_max: u64) -> io::Result<Self> {
        // Not through a link that somebody put there.
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
            let error = io::Error::from(error);
            match error.kind() {
                io::ErrorKind::WouldBlock => io::Error::new(error.kind(), "another agent uses it"),
                _ => error,
            }
        })?;
        Ok(Self { file, bytes_max })
    }

    /// Takes the room for all that the file may ever hold. It does not get longer by that.
    ///
    /// # Errors
    /// When the disk has not so much, or its file system cannot promise it (NFS, ZFS).
    pub fn reserve(&self) -> io::Result<()> {
        Ok(rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, self.bytes_max)?)
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        // A file from a time with a larger bound may shrink.
        if len > self.bytes_max && len > self.len()? {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the spool has its full size"));
        }
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }
}
