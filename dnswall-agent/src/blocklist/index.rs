//! The exact lists on disk: takes a name's hash and a meaning, gives the lists that hold it and the lines where.
//!
//! A file of records in the order of their hashes, searched by reading a few of them: the names themselves are in the lists, and
//! whoever asks has the name already.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;

use super::format::Meaning;

/// Bytes of a record.
const RECORD_BYTES: usize = 16;
/// Bytes of the file before the first record.
const HEAD_BYTES: usize = 16;
/// What the file begins with; the last byte is the layout's version.
const MAGIC: [u8; 8] = *b"dnswall\x01";

/// Records that are read in one go, when all are.
const RECORDS_AT_ONCE: usize = 4_096;

/// One entry of one list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// The hash of its name.
    pub hash: u64,
    /// Which list.
    pub list: u16,
    /// Which names it holds for.
    pub meaning: Meaning,
    /// Line of the list, from 1.
    pub line: u32,
}

/// The file, open.
#[derive(Debug)]
pub struct Index {
    file: File,
    records: u64,
}

/// Writes records that are sorted.
///
/// # Errors
/// When the file cannot be written.
pub fn write(file: File, records: &[Record]) -> io::Result<Index> {
    let mut writer = BufWriter::with_capacity(1 << 16, file);
    writer.write_all(&MAGIC)?;
    writer.write_all(&(records.len() as u64).to_le_bytes())?;
    for record in records {
        writer.write_all(&record.to_bytes())?;
    }
    let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(Index { file, records: records.len() as u64 })
}

impl Index {
    /// Opens what [`write`] left.
    ///
    /// # Errors
    /// When it is something else, or shorter than it says.
    pub fn open(file: File) -> io::Result<Self> {
        let mut head = [0; HEAD_BYTES];
        file.read_exact_at(&mut head, 0)?;
        let (magic, count) = head.split_at(8);
        let records = u64::from_le_bytes(count.try_into().expect("eight bytes"));
        let expected =
            records.checked_mul(RECORD_BYTES as u64).and_then(|bytes| bytes.checked_add(HEAD_BYTES as u64));
        if magic != MAGIC || expected != Some(file.metadata()?.len()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "not an index of names, or not a whole one",
            ));
        }
        Ok(Self { file, records })
    }

    /// How many entries there are.
    pub fn len(&self) -> u64 {
        self.records
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Every entry of a name.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn find(&self, hash: u64) -> io::Result<Vec<Record>> {
        let (mut low, mut high) = (0, self.records);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.read(middle)?.hash < hash { low = middle + 1 } else { high = middle }
        }
        let mut found = Vec::new();
        while low < self.records {
            let record = self.read(low)?;
            if record.hash != hash {
                break;
            }
            found.push(record);
            low += 1;
        }
        Ok(found)
    }

    /// Every entry of one list.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn of_list(&self, list: u16) -> io::Result<Vec<Record>> {
        let mut found = Vec::new();
        let mut bytes = vec![0; RECORD_BYTES * RECORDS_AT_ONCE];
        let mut at = 0;
        while at < self.records {
            let count = (self.records - at).min(RECORDS_AT_ONCE as u64) as usize;
            let part = &mut bytes[..count * RECORD_BYTES];
            self.file.read_exact_at(part, HEAD_BYTES as u64 + at * RECORD_BYTES as u64)?;
            let records = part
                .chunks_exact(RECORD_BYTES)
                .filter_map(|bytes| Record::from_bytes(bytes.try_into().ok()?));
            found.extend(records.filter(|record| record.list == list));
            at += count as u64;
        }
        Ok(found)
    }

    fn read(&self, at: u64) -> io::Result<Record> {
        let mut bytes = [0; RECORD_BYTES];
        self.file.read_exact_at(&mut bytes, HEAD_BYTES as u64 + at * RECORD_BYTES as u64)?;
        Record::from_bytes(&bytes)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a record of an unknown meaning"))
    }
}

impl Record {
    fn to_bytes(self) -> [u8; RECORD_BYTES] {
        let Self { hash, list, meaning, line } = self;
        let mut bytes = [0; RECORD_BYTES];
        bytes[..8].copy_from_slice(&hash.to_le_bytes());
        bytes[8..12].copy_from_slice(&line.to_le_bytes());
        bytes[12..14].copy_from_slice(&list.to_le_bytes());
        bytes[14] = meaning.number();
        bytes
    }

    fn from_bytes(bytes: &[u8; RECORD_BYTES]) -> Option<Self> {
        Some(Self {
            hash: u64::from_le_bytes(bytes[..8].try_into().ok()?),
            line: u32::from_le_bytes(bytes[8..12].try_into().ok()?),
            list: u16::from_le_bytes(bytes[12..14].try_into().ok()?),
            meaning: Meaning::from_number(bytes[14])?,
        })
    }
}
