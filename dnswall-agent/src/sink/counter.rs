//! What became of the alerts of one sink.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// Counted by the dispatcher and the sink's worker, read by `status`.
#[derive(Debug, Default)]
pub struct SinkCounters {
    delivered: AtomicU64,
    refused: AtomicU64,
    written: AtomicU64,
    failed: AtomicU64,
    bytes: AtomicU64,
    last_error: Mutex<Option<String>>,
}

/// A sink's counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkStatus {
    /// The sink's name.
    pub name: String,
    /// Alerts written.
    pub written: u64,
    /// Alerts that could not be written.
    pub failed: u64,
    /// Alerts that found the queue full.
    pub refused: u64,
    /// Alerts waiting or being written.
    pub queued: u64,
    /// Bytes written.
    pub bytes: u64,
    /// What went wrong last, even if all is well now.
    pub last_error: Option<String>,
}

impl SinkCounters {
    /// An alert is about to go into the queue.
    pub fn delivered(&self) {
        self.delivered.fetch_add(1, Relaxed);
    }

    /// An alert found the queue full.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// An alert was written.
    pub fn written(&self, bytes: usize) {
        self.written.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// An alert could not be written.
    pub fn failed(&self, error: &str) {
        self.failed.fetch_add(1, Relaxed);
        self.trouble(error);
    }

    /// Something is wrong.
    pub fn trouble(&self, error: &str) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_owned());
    }

    /// What was counted so far.
    pub fn status(&self, name: &str) -> SinkStatus {
        let [written, failed, refused] =
            [&self.written, &self.failed, &self.refused].map(|c| c.load(Relaxed));
        SinkStatus {
            name: name.to_owned(),
            written,
            failed,
            refused,
            queued: self.delivered.load(Relaxed).saturating_sub(written + failed + refused),
            bytes: self.bytes.load(Relaxed),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
