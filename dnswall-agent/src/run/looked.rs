//! Takes the desk and the reader, gives what the metrics are made of.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::desk::Desk;
use super::reader::Inbox;
use crate::control::server::{Agent, Refusal};
use crate::metrics::process::Process;
use crate::metrics::sample::Endpoint;
use crate::metrics::{Reader, Sample, Source};

/// The agent, as its metrics look at it.
pub struct Looked {
    desk: Arc<Desk>,
    inbox: Arc<Inbox>,
    proof_interval: Duration,
}

impl Looked {
    /// This agent.
    pub fn new(desk: Arc<Desk>, inbox: Arc<Inbox>, proof_interval: Duration) -> Self {
        Self { desk, inbox, proof_interval }
    }
}

impl Source for Looked {
    fn sample(&self) -> Result<Sample, String> {
        let said = |refusal: Refusal| refusal.body.error;
        Ok(Sample {
            status: self.desk.status().map_err(said)?,
            lists: self.desk.blocklists().map_err(said)?,
            // After the lock was waited for.
            taken: Timestamp::now(),
            reader: self.reader(),
            proof_interval: self.proof_interval,
            process: Process::read().ok(),
            endpoint: Endpoint::default(),
        })
    }

    fn reader(&self) -> Reader {
        Reader { quiet: self.inbox.quiet(), is_alive: self.inbox.is_alive() }
    }
}
