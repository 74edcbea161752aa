//! Takes a list's file, plain or compressed, gives its lines, bounded.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest as _, Sha256};

use crate::digest::hexadecimal;

/// Bytes of a line; a longer one is rubbish, whatever it says.
pub const LINE_BYTES_MAX: usize = 4096;
/// Bytes of a list once it is unpacked: some eighty million names.
pub const LIST_BYTES_MAX: u64 = 2 << 30;

/// What a gzip file begins with (RFC 1952, 2.3.1).
pub(super) const GZIP: [u8; 2] = [0x1f, 0x8b];

/// The lines of a list.
pub struct Source {
    reader: Box<dyn BufRead>,
    line: Vec<u8>,
    number: u32,
    digest: Option<Rc<RefCell<Sha256>>>,
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceLine<'s> {
    /// From 1.
    pub number: u32,
    /// Without its end; nothing when it is longer than [`LINE_BYTES_MAX`].
    pub text: Option<&'s [u8]>,
}

impl Source {
    /// Reads a list's file.
    ///
    /// # Errors
    /// When it cannot be read, or is no regular file.
    pub fn open(file: File) -> io::Result<Self> {
        Self::new(BufReader::with_capacity(BUFFER_BYTES, regular(file)?))
    }

    /// The same, and counts on its way what [`Self::digest`] gives.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_digested(file: File) -> io::Result<Self> {
        let digest = Rc::new(RefCell::new(Sha256::new()));
        let digested = Digested { file: regular(file)?, digest: Rc::clone(&digest) };
        let source = Self::new(BufReader::with_capacity(BUFFER_BYTES, digested))?;
        Ok(Self { digest: Some(digest), ..source })
    }

    /// SHA-256 of the file, as it lies there, behind its last line.
    pub fn digest(&self) -> Option<String> {
        let digest = self.digest.as_ref()?.borrow().clone();
        Some(hexadecimal(&digest.finalize()))
    }

    /// Reads a list from anywhere.
    ///
    /// # Errors
    /// When its beginning cannot be read.
    pub fn new(mut reader: impl BufRead + 'static) -> io::Result<Self> {
        let is_compressed = reader.fill_buf()?.starts_with(&GZIP);
        let reader: Box<dyn BufRead> = match is_compressed {
            true => Box::new(BufReader::with_capacity(1 << 16, bounded(MultiGzDecoder::new(reader)))),
            false => Box::new(BufReader::new(bounded(reader))),
        };
        Ok(Self { reader, line: Vec::new(), number: 0, digest: None })
    }

    /// The next line; `None` behind the last.
    ///
    /// # Errors
    /// When it cannot be read, or there is more than [`LIST_BYTES_MAX`].
    pub fn next_line(&mut self) -> io::Result<Option<SourceLine<'_>>> {
        self.line.clear();
        let limit = LINE_BYTES_MAX as u64 + 2;
        if (&mut self.reader).take(limit).read_until(b'\n', &mut self.line)? == 0 {
            return Ok(None);
        }
        self.number = self.number.saturating_add(1);
        let is_whole = self.line.ends_with(b"\n") || self.reader.fill_buf()?.is_empty();
        if !is_whole {
            self.skip_line()?;
        }
        let text = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let text = (is_whole && text.len() <= LINE_BYTES_MAX).then_some(text);
        Ok(Some(SourceLine { number: self.number, text }))
    }

    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let buffer = self.reader.fill_buf()?;
            if buffer.is_empty() {
                return Ok(());
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let used = end.map_or(buffer.len(), |at| at + 1);
            self.reader.consume(used);
            if end.is_some() {
                return Ok(());
            }
        }
    }
}

const BUFFER_BYTES: usize = 1 << 16;

fn regular(file: File) -> io::Result<File> {
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    Ok(file)
}

/// A file all of whose bytes are digested as they are read.
struct Digested {
    file: File,
    digest: Rc<RefCell<Sha256>>,
}

impl Read for Digested {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.digest.borrow_mut().update(&buffer[..count]);
        Ok(count)
    }
}

/// Fails behind the last byte that a list may have: a part of a list is not the list.
fn bounded(reader: impl Read) -> impl Read {
    Bounded { reader, left: LIST_BYTES_MAX }
}

struct Bounded<R> {
    reader: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {LIST_BYTES_MAX} bytes"))
        })?;
        Ok(count)
    }
}
