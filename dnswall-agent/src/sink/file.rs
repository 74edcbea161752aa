//! Alerts as lines in a file that only its owner may read, rotated by size.
//!
//! Every line is one write at the end of the file. A line that did not fit the disk is taken back, one that a crash
//! tore apart is ended before the next, so a reader never sees two alerts in one line.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::{Failure, Sent, Sink};
use crate::format::Format;
use crate::spool::Entry;

/// Where and how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOptions {
    /// The file.
    pub path: PathBuf,
    /// It is rotated before it would grow beyond this; a single longer line still goes in whole.
    pub max_bytes: u64,
    /// What a line is.
    pub format: Format,
    /// How many older files are kept, as `PATH.1` (the newest) to `PATH.N`. At least 1.
    pub keep: u32,
}

/// Writes lines to a file.
#[derive(Debug)]
pub struct FileSink {
    options: FileOptions,
    name: String,
    open: Option<Open>,
    trouble: Option<String>,
}

#[derive(Debug)]
struct Open {
    file: File,
    identity: (u64, u64),
    /// The last line has no end.
    torn: bool,
}

impl FileSink {
    /// Opens or creates the file.
    ///
    /// # Errors
    /// When that is not possible, or when it is something else than a file.
    pub fn open(name: &str, options: FileOptions) -> io::Result<Self> {
        let open = Open::new(&options.path)?;
        Ok(Self { options, name: name.to_owned(), open: Some(open), trouble: None })
    }

    /// The file that is at the path now, with its size: another one than before when somebody moved that away.
    fn current(&mut self) -> io::Result<(&mut Open, u64)> {
        let there = std::fs::symlink_metadata(&self.options.path).ok();
        let same = there.as_ref().zip(self.open.as_ref()).is_some_and(|(there, open)| open.is(there));
        if !same {
            self.open = None;
        }
        if self.open.is_none() {
            self.open = Some(Open::new(&self.options.path)?);
        }
        let open = self.open.as_mut().ok_or(io::ErrorKind::NotFound)?;
        let bytes = open.file.metadata()?.len();
        Ok((open, bytes))
    }

    /// Moves every file one number up; the oldest is overwritten.
    fn rotate(&self) -> io::Result<()> {
        let path = &self.options.path;
        for number in (1..self.options.keep.max(1)).rev() {
            match std::fs::rename(numbered(path, number), numbered(path, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(path, numbered(path, 1))
    }

    /// One alert.
    fn append(&mut self, line: &str) -> io::Result<usize> {
        let at_path = |path: &Path, error| io::Error::other(format!("write {}: {error}", path.display()));
        let path = self.options.path.clone();
        let mut line = format!("{line}\n");
        let max_bytes = self.options.max_bytes;
        let (_, bytes) = self.current().map_err(|error| at_path(&path, error))?;
        if bytes > 0 && bytes.saturating_add(line.len() as u64) > max_bytes {
            // A file that cannot be moved grows: better than alerts that are not written.
            let rotated = self.sync().and_then(|()| self.rotate());
            self.trouble = rotated.err().map(|error| format!("rotate {}: {error}", path.display()));
        }
        let (open, bytes) = self.current().map_err(|error| at_path(&path, error))?;
        if open.torn {
            line.insert(0, '\n');
        }
        open.append(line.as_bytes(), bytes).map_err(|error| at_path(&path, error))?;
        Ok(line.len())
    }

    /// What was written is on disk.
    fn sync(&self) -> io::Result<()> {
        self.open.as_ref().map_or(Ok(()), |open| open.file.sync_data())
    }
}

impl Sink for FileSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn send(&mut self, batch: &[Entry]) -> Result<Sent, Failure> {
        let mut sent = Sent::default();
        for (settled, entry) in batch.iter().enumerate() {
            match self.append(&super::line(entry, self.options.format)) {
                Ok(bytes) => sent.bytes += bytes,
                Err(error) => {
                    // What is not known to be on disk is written again.
                    if self.sync().is_err() {
                        return Err(Failure::of(error));
                    }
                    return Err(Failure { settled, sent, ..Failure::of(error) });
                }
            }
        }
        match self.sync() {
            Ok(()) => Ok(sent),
            Err(error) => Err(Failure::of(format!("flush {}: {error}", self.options.path.display()))),
        }
    }

    fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }
}

impl Open {
    fn new(path: &Path) -> io::Result<Self> {
        // Neither follow a link that somebody put there nor wait for the reader of a pipe.
        let flags = OFlags::RDWR
            | OFlags::APPEND
            | OFlags::CREATE
            | OFlags::CLOEXEC
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK;
        let file = File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let mut last = [b'\n'];
        if let Some(at) = metadata.len().checked_sub(1) {
            file.read_exact_at(&mut last, at)?;
        }
        Ok(Self { identity: (metadata.dev(), metadata.ino()), file, torn: last != [b'\n'] })
    }

    fn is(&self, metadata: &std::fs::Metadata) -> bool {
        self.identity == (metadata.dev(), metadata.ino())
    }

    /// One write. What arrives only in part is taken back.
    fn append(&mut self, line: &[u8], bytes_before: u64) -> io::Result<()> {
        let written = loop {
            match self.file.write(line) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        if written == line.len() {
            self.torn = false;
            return Ok(());
        }
        if written > 0 {
            self.torn |= self.file.set_len(bytes_before).is_err();
        }
        Err(io::ErrorKind::StorageFull.into())
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(format!(".{number}"));
    PathBuf::from(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{Alert, sample};
    use crate::spool::tests::small::Small;
    use std::os::unix::fs::PermissionsExt;

    fn options(directory: &Path) -> FileOptions {
        FileOptions {
            path: directory.join("alerts.jsonl"),
            format: Format::Json,
            max_bytes: 1 << 20,
            keep: 2,
        }
    }

    fn json(count: u64) -> String {
        serde_json::to_string(&Alert { count, ..sample::alert() }).unwrap()
    }

    /// The counts of the alerts in a file, one a line.
    fn counts(path: &Path) -> Vec<u64> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str::<Alert>(line).unwrap().count).collect()
    }

    #[test]
    fn lines_are_added_to_a_file_of_the_owners() {
        let directory = tempfile::tempdir().unwrap();
        let options = options(directory.path());
        for count in [1, 2] {
            let mut sink = FileSink::open("file", options.clone()).unwrap();
            assert_eq!(sink.append(&json(count)).unwrap(), json(count).len() + 1);
        }
        assert_eq!(counts(&options.path), [1, 2]);
        assert_eq!(std::fs::metadata(&options.path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn it_is_rotated_by_size_and_keeps_so_many() {
        let directory = tempfile::tempdir().unwrap();
        let line_bytes = json(1).len() as u64 + 1;
        let options = FileOptions { max_bytes: 2 * line_bytes, ..options(directory.path()) };
        let mut sink = FileSink::open("file", options.clone()).unwrap();
        for count in 1..=9 {
            sink.append(&json(count)).unwrap();
        }
        assert_eq!(counts(&options.path), [9]);
        assert_eq!(counts(&numbered(&options.path, 1)), [7, 8]);
        assert_eq!(counts(&numbered(&options.path, 2)), [5, 6]);
        assert!(!numbered(&options.path, 3).exists());
        assert_eq!(sink.trouble(), None);
        let mode = std::fs::metadata(&options.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_line_longer_than_the_limit_goes_in_whole() {
        let directory = tempfile::tempdir().unwrap();
        let options = FileOptions { max_bytes: 10, keep: 1, ..options(directory.path()) };
        let mut sink = FileSink::open("file", options.clone()).unwrap();
        sink.append(&json(1)).unwrap();
        sink.append(&json(2)).unwrap();
        assert_eq!((counts(&options.path), counts(&numbered(&options.path, 1))), (vec![2], vec![1]));
    }

    #[test]
    fn a_file_that_was_moved_or_deleted_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let options = options(directory.path());
        let mut sink = FileSink::open("file", options.clone()).unwrap();
        sink.append(&json(1)).unwrap();
        let moved = directory.path().join("moved");
        std::fs::rename(&options.path, &moved).unwrap();
        sink.append(&json(2)).unwrap();
        assert_eq!((counts(&moved), counts(&options.path)), (vec![1], vec![2]));
        std::fs::remove_file(&options.path).unwrap();
        sink.append(&json(3)).unwrap();
        assert_eq!(counts(&options.path), [3]);
        // As logrotate's copytruncate does it.
        File::options().write(true).open(&options.path).unwrap().set_len(0).unwrap();
        sink.append(&json(4)).unwrap();
        assert_eq!(counts(&options.path), [4]);
    }

    #[test]
    fn a_directory_that_goes_and_comes_back_loses_only_what_came_between() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("log");
        std::fs::create_dir(&inner).unwrap();
        let options = options(&inner);
        let mut sink = FileSink::open("file", options.clone()).unwrap();
        std::fs::remove_dir_all(&inner).unwrap();
        let error = sink.append(&json(1)).unwrap_err().to_string();
        assert!(error.contains("alerts.jsonl: No such file"), "{error}");
        std::fs::create_dir(&inner).unwrap();
        sink.append(&json(2)).unwrap();
        assert_eq!(counts(&options.path), [2]);
    }

    #[test]
    fn a_torn_line_is_ended_first() {
        let directory = tempfile::tempdir().unwrap();
        let options = options(directory.path());
        std::fs::write(&options.path, "{\"schema\":1,\"ti").unwrap();
        let mut sink = FileSink::open("file", options.clone()).unwrap();
        sink.append(&json(1)).unwrap();
        sink.append(&json(2)).unwrap();
        let text = std::fs::read_to_string(&options.path).unwrap();
        assert_eq!(text.lines().count(), 3);
        assert!(text.lines().skip(1).all(|line| serde_json::from_str::<Alert>(line).is_ok()));
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let options = options(directory.path());
        std::fs::create_dir(&options.path).unwrap();
        assert!(FileSink::open("file", options.clone()).is_err());
        std::fs::remove_dir(&options.path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &options.path).unwrap();
        assert!(FileSink::open("file", options.clone()).is_err());
        std::fs::remove_file(&options.path).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &options.path, Mode::RUSR | Mode::WUSR).unwrap();
        assert_eq!(FileSink::open("file", options).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_file_that_cannot_be_rotated_grows_and_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let options = FileOptions { max_bytes: 10, ..options(directory.path()) };
        let mut sink = FileSink::open("file", options.clone()).unwrap();
        // A directory that is not empty cannot be overwritten, not even by root.
        std::fs::create_dir_all(numbered(&options.path, 1).join("x")).unwrap();
        std::fs::create_dir_all(numbered(&options.path, 2).join("x")).unwrap();
        sink.append(&json(1)).unwrap();
        sink.append(&json(2)).unwrap();
        assert_eq!(counts(&options.path), [1, 2]);
        assert!(sink.trouble().unwrap().starts_with("rotate "));
        std::fs::remove_dir_all(numbered(&options.path, 1)).unwrap();
        std::fs::remove_dir_all(numbered(&options.path, 2)).unwrap();
        sink.append(&json(3)).unwrap();
        assert_eq!((counts(&options.path), sink.trouble()), (vec![3], None));
    }

    #[test]
    fn a_batch_says_how_much_of_it_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let options = options(directory.path());
        let mut sink = FileSink::open("file", options.clone()).unwrap();
        let batch: Vec<Entry> =
            (1..=3).map(|count| sample::entry(&Alert { count, ..sample::alert() })).collect();
        let bytes = batch.iter().map(|entry| entry.json.len() + 1).sum();
        assert_eq!(sink.send(&batch), Ok(Sent { bytes, rejected: Vec::new() }));
        assert_eq!(counts(&options.path), [1, 2, 3]);
    }

    #[test]
    fn a_full_disk_tears_no_line_and_is_used_again_when_there_is_room() {
        let small = Small::mount(c"size=16k");
        let options = options(small.path());
        let ballast = small.path().join("ballast");
        std::fs::write(&ballast, [0; 4096]).unwrap();
        let mut sink = FileSink::open("file", options.clone()).unwrap();
        let results: Vec<_> = (0..100).map(|count| (count, sink.append(&json(count)))).collect();
        let written: Vec<u64> =
            results.iter().filter(|(_, result)| result.is_ok()).map(|(count, _)| *count).collect();
        assert!(written.len() > 3 && written.len() < 50, "{written:?}");
        assert!(results[99].1.as_ref().unwrap_err().to_string().contains("alerts.jsonl"));
        // One that fits only in part is taken back whole.
        assert_eq!(counts(&options.path), written);
        std::fs::remove_file(ballast).unwrap();
        sink.append(&json(1_000)).unwrap();
        assert_eq!(counts(&options.path), [written, vec![1_000]].concat());
    }
}
