//! Takes an alert, gives the bytes of its row on disk, and back.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;

use super::Entry;
use super::shares::Place;
use super::stamp::Stamp;

/// A page of the store, in bytes.
const PAGE_BYTES: u64 = 4096;
/// What an alert needs beside its bytes, in bytes.
const ALERT_BYTES: u64 = 128;
/// The longest JSON of an alert, in bytes; no alert is nearly as long.
const JSON_BYTES_MAX: u64 = 16 << 20;

/// The room that an alert takes, or a little more: leaves are half empty after they were split, and what does not fit into
/// one has pages of its own, a power of two of them.
pub(super) fn cost(packed: &[u8]) -> u64 {
    let bytes = packed.len() as u64 + ALERT_BYTES;
    if bytes <= PAGE_BYTES / 2 { 2 * bytes } else { bytes.next_multiple_of(PAGE_BYTES).next_power_of_two() }
}

/// Before the JSON: no stream of deflated bytes begins so, and one without it is from a time without places.
const ROW_MARK: u8 = 0b111;
/// The mark, the rank and the owner.
const ROW_HEAD_BYTES: usize = 10;

/// A row's bytes: mark, rank, owner, and the JSON deflated.
pub(super) fn packed(entry: &Entry) -> (Place, Vec<u8>) {
    let place = Place::of(&entry.alert);
    let mut row = Vec::with_capacity(ROW_HEAD_BYTES + entry.json.len() / 2);
    row.extend([ROW_MARK, place.rank]);
    row.extend(place.owner.to_le_bytes());
    let mut encoder = DeflateEncoder::new(row, Compression::fast());
    // Memory is always written.
    let _ = encoder.write_all(entry.json.as_bytes());
    (place, encoder.finish().unwrap_or_default())
}

/// The head of a row, and the rest.
fn unpacked(row: &[u8]) -> (Place, &[u8]) {
    match row.split_first_chunk::<ROW_HEAD_BYTES>() {
        Some(([ROW_MARK, rank, owner @ ..], rest)) => {
            (Place { owner: u64::from_le_bytes(*owner), rank: *rank }, rest)
        }
        _ => (Place::OLD, row),
    }
}

/// Whose alert a row has.
pub(super) fn place(row: &[u8]) -> Place {
    unpacked(row).0
}

/// The JSON in a row.
pub(super) fn inflated(sequence: u64, row: &[u8]) -> Option<String> {
    let mut json = String::new();
    let read = DeflateDecoder::new(unpacked(row).1).take(JSON_BYTES_MAX).read_to_string(&mut json);
    read.inspect_err(|error| tracing::error!(sequence, %error, "an alert in the spool cannot be unpacked"))
        .ok()?;
    Some(json)
}

/// The alert of that JSON.
pub(super) fn entry(sequence: u64, stamp: Stamp, json: &str) -> Option<Entry> {
    match serde_json::from_str(json) {
        Ok(alert) => Some(Entry { sequence, stamp, json: Arc::from(json), alert: Arc::new(alert) }),
        Err(error) => {
            tracing::error!(sequence, %error, "an alert in the spool cannot be understood");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::sample;

    #[test]
    fn a_row_is_read_back_and_so_is_one_from_before() {
        let entry = sample::entry(&sample::alert());
        let (place, row) = packed(&entry);
        assert_eq!(super::place(&row), place);
        assert_eq!(inflated(1, &row).as_deref(), Some(&*entry.json));
        let old = &row[ROW_HEAD_BYTES..];
        assert_eq!(super::place(old), Place::OLD);
        assert_eq!(inflated(1, old).as_deref(), Some(&*entry.json));
        assert_eq!(inflated(1, &row[..5]), None, "torn");
    }
}
