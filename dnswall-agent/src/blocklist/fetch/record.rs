//! What is known of a list that is fetched, and when it is fetched again. Time and chance are arguments.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::durable::{self, DurableError};

/// After the first try that failed; then twice as long, until it is as long as `refresh`.
const RETRY: Duration = Duration::from_secs(60);

/// What is known of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// When the version that counts came.
    pub fetched: Option<Timestamp>,
    /// When the server last said that this is still its version, or sent it.
    pub confirmed: Option<Timestamp>,
    /// When it was tried last.
    pub tried: Option<Timestamp>,
    /// Why the last try brought nothing that counts.
    pub error: Option<String>,
    /// Why a version that came does not count, until one comes that does.
    pub refused: Option<String>,
    /// Tries since the last that was good.
    pub failures: u32,
    /// When it is tried next.
    pub next: Option<Timestamp>,
    /// What the server calls the version that counts: its `ETag`.
    pub etag: Option<String>,
    /// When it was written, as the server says it: `Last-Modified`.
    pub last_modified: Option<String>,
    /// Of the version that counts, hexadecimal.
    pub sha256: Option<String>,
    /// Bytes of the version that counts, as they were sent.
    pub bytes: u64,
    /// Its entries.
    pub entries: usize,
}

impl Record {
    /// Reads what [`Self::write`] left; nothing is known when it cannot be read.
    pub fn read(path: &Path) -> Self {
        std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Keeps it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), DurableError> {
        let bytes =
            serde_json::to_vec(self).map_err(|error| durable::failed("encode", path)(error.into()))?;
        durable::replace(path, &bytes)
    }

    /// Notes a try that was good. `chance` is any number.
    pub fn succeeded(&mut self, now: Timestamp, refresh: Duration, chance: u64) {
        (self.tried, self.confirmed) = (Some(now), Some(now));
        (self.error, self.refused, self.failures) = (None, None, 0);
        self.next = later(now, spread(refresh, chance));
    }

    /// Notes a try that was not. `chance` is any number.
    pub fn failed(&mut self, now: Timestamp, refresh: Duration, chance: u64, why: String) {
        let doubled = RETRY.saturating_mul(1 << self.failures.min(20));
        (self.tried, self.error) = (Some(now), Some(why));
        self.failures = self.failures.saturating_add(1);
        self.next = later(now, spread(doubled.min(refresh), chance));
    }

    /// Whether it is time for the next try.
    pub fn is_due(&self, now: Timestamp, refresh: Duration) -> bool {
        let Some(next) = self.next else { return true };
        // A clock that was wrong, or a `refresh` that was longer, does not keep a list from being fetched.
        let latest = later(now, refresh.saturating_mul(11) / 10);
        next <= now || latest.is_none_or(|latest| next > latest)
    }
}

/// From nine to eleven tenths of a time: a thousand hosts that started together do not go on together.
fn spread(time: Duration, chance: u64) -> Duration {
    const PARTS: u64 = 1 << 20;
    let part = (chance % PARTS) as f64 / PARTS as f64;
    time.mul_f64(0.9 + 0.2 * part)
}

fn later(now: Timestamp, time: Duration) -> Option<Timestamp> {
    now.checked_add(SignedDuration::try_from(time).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn wait(record: &Record, now: i64) -> i64 {
        record.next.unwrap().as_second() - at(now).as_second()
    }

    #[test]
    fn tries_are_spread_and_failures_wait_longer() {
        let mut record = Record::default();
        assert!(record.is_due(at(0), HOUR));
        record.succeeded(at(0), HOUR, 0);
        assert_eq!(wait(&record, 0), 3_240);
        record.succeeded(at(0), HOUR, u64::MAX);
        assert_eq!(wait(&record, 0), 3_959);
        assert!(!record.is_due(at(3_958), HOUR) && record.is_due(at(3_960), HOUR));
        let waits: Vec<i64> = (0..8)
            .map(|_| {
                record.failed(at(0), HOUR, 1 << 19, "no".to_owned());
                wait(&record, 0)
            })
            .collect();
        assert_eq!(waits, [60, 120, 240, 480, 960, 1_920, 3_600, 3_600]);
        record.failures = u32::MAX;
        record.failed(at(0), HOUR, 1 << 19, "no".to_owned());
        assert_eq!((wait(&record, 0), record.failures), (3_600, u32::MAX));
        assert_eq!(record.confirmed, Some(at(0)));
        record.succeeded(at(9), HOUR, 0);
        assert_eq!((record.failures, record.error.clone()), (0, None));
    }

    #[test]
    fn a_wrong_clock_does_not_stop_it() {
        let mut record = Record::default();
        record.succeeded(at(10_000_000), HOUR, 0);
        assert!(record.is_due(at(0), HOUR), "the clock was set back");
        record.succeeded(at(0), HOUR * 24, 0);
        assert!(record.is_due(at(10), HOUR), "the policy says another refresh");
    }

    #[test]
    fn what_is_written_is_read_and_nothing_else_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json");
        assert_eq!(Record::read(&path), Record::default());
        let mut record = Record { etag: Some("\"a\"".to_owned()), bytes: 7, ..Record::default() };
        record.succeeded(at(0), HOUR, 3);
        record.write(&path).unwrap();
        assert_eq!(Record::read(&path), record);
        std::fs::write(&path, "{\"bytes\": 7").unwrap();
        assert_eq!(Record::read(&path), Record::default());
    }
}
