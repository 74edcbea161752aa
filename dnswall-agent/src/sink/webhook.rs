//! Alerts as the bodies of HTTP requests.

use super::halves::{self, Answer};
use super::request::{Requests, judged};
use super::{Failure, Sent, Sink, line};
use crate::digest::sha256;
use crate::format::Format;
use crate::remote::Server;
use crate::spool::{Entry, Limits};

/// What one request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// A line for each alert.
    Lines,
    /// A JSON array.
    Array,
    /// One alert.
    Each,
}

/// Posts alerts.
#[derive(Debug)]
pub struct WebhookSink {
    name: String,
    requests: Requests,
    format: Format,
    body: Body,
}

impl WebhookSink {
    /// To this server.
    pub fn new(name: &str, server: Server, format: Format, body: Body) -> Self {
        Self { name: name.to_owned(), requests: Requests::to(server), format, body }
    }

    fn post(&mut self, batch: &[Entry]) -> Result<Answer, Failure> {
        let lines: Vec<String> = batch.iter().map(|entry| line(entry, self.format)).collect();
        let body = match self.body {
            Body::Lines => lines.join("\n") + "\n",
            Body::Array => format!("[{}]", lines.join(",")),
            Body::Each => lines.concat(),
        };
        let kind = match (self.body, self.format.is_json()) {
            (Body::Lines, true) => "application/x-ndjson",
            (_, true) => "application/json",
            (_, false) => "text/plain; charset=utf-8",
        };
        // Of all that is in it: whoever gets the same body twice can tell, and no other body is taken for it.
        let ids: Vec<String> = batch.iter().map(|entry| entry.alert.id.to_string()).collect();
        let key = sha256(&ids.concat());
        let headers = [("content-type", kind), ("idempotency-key", key.as_str())];
        let reply = self.requests.post("", &headers, body.as_bytes())?;
        judged(&reply, body.len())
    }
}

impl Sink for WebhookSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn limits(&self) -> Limits {
        let alerts = if self.body == Body::Each { 1 } else { super::LIMITS.alerts };
        Limits { alerts, ..super::LIMITS }
    }

    fn send(&mut self, batch: &[Entry]) -> Result<Sent, Failure> {
        halves::send(batch, &mut |part| self.post(part))
    }
}
