//! Takes alerts from the spool, puts them where they are wanted: a terminal, a file, a server.
//!
//! `Lane → Delivery::run → Sink::send`. A sink that is slow or broken is behind by itself, and tried again until it has
//! taken what there is; `status` shows how far each is.

pub mod delivery;
pub mod elastic;
pub mod file;
mod halves;
pub mod journal;
pub mod kafka;
mod open;
pub mod otlp;
mod request;
pub mod splunk;
pub mod stream;
pub mod syslog;
pub mod webhook;

use std::time::Duration;

pub use delivery::Delivery;
pub use file::{FileOptions, FileSink};
pub use open::open_all;
pub use stream::StreamSink;

use crate::format::Format;
use crate::spool::{Entry, Limits};

/// What a sink takes at once, unless it says otherwise.
const LIMITS: Limits = Limits { alerts: 256, bytes: 1 << 20 };

/// Somewhere alerts go.
pub trait Sink: Send {
    /// Its name in `status`, logs and metrics.
    fn name(&self) -> &str;

    /// How much it takes at once.
    fn limits(&self) -> Limits {
        LIMITS
    }

    /// Sends alerts, oldest first, and returns when the far end has said that it has them. Some of them may have been
    /// sent before.
    ///
    /// # Errors
    /// When the far end has not all of them. The sink stays usable: the next call is a new attempt.
    fn send(&mut self, batch: &[Entry]) -> Result<Sent, Failure>;

    /// There is nothing to send: a time to look whether the far end is still there.
    fn idle(&mut self) {}

    /// What is wrong although alerts arrive.
    fn trouble(&self) -> Option<&str> {
        None
    }
}

/// The far end has dealt with all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Bytes that were sent.
    pub bytes: usize,
    /// Which of them it will never take, by their place in the batch, and why.
    pub rejected: Vec<(usize, String)>,
}

/// The far end does not have all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// What happened, for people. No secrets.
    pub why: String,
    /// How many, from the first on, it has dealt with all the same.
    pub settled: usize,
    /// What became of those.
    pub sent: Sent,
    /// How long it asks to be left alone.
    pub after: Option<Duration>,
    /// It does not want the first of the others for what that is.
    pub refused: bool,
}

impl Sent {
    /// Adds what became of alerts that come `behind` others.
    fn add(&mut self, more: Self, behind: usize) {
        self.bytes += more.bytes;
        self.rejected.extend(more.rejected.into_iter().map(|(place, why)| (place + behind, why)));
    }
}

impl Failure {
    /// It has none of them.
    pub fn of(why: impl ToString) -> Self {
        Self { why: why.to_string(), ..Self::default() }
    }
}

/// An alert in a format.
fn line(entry: &Entry, format: Format) -> String {
    match format {
        Format::Json => entry.json.to_string(),
        other => other.encode(&entry.alert),
    }
}

/// What standard output is called, unless it has a name.
pub const STDOUT: &str = "stdout";
