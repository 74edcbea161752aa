//! Alerts for Splunk's HTTP event collector. Its 200 only says that a request looks right; with acknowledgement it is asked
//! until the events are written, which is what counts.

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::halves::{self, Answer};
use super::request::{Requests, judged, later, reply_words};
use super::{Failure, Sent, Sink, line};
use crate::alert::Alert;
use crate::format::Format;
use crate::remote::{Reply, Server};
use crate::spool::Entry;

/// Between two questions whether events are written.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// Codes that are about the events themselves ("Troubleshoot HTTP Event Collector", Splunk 9): no data, invalid data,
/// `event` missing or blank, invalid fields. All others are about the token, the index or the moment.
const CODES_OF_EVENTS: [u64; 5] = [5, 6, 12, 13, 15];

/// Acknowledgement is off for the token.
const CODE_NO_ACKNOWLEDGEMENT: u64 = 14;
const NO_ACKNOWLEDGEMENT: &str =
    "the collector acknowledges nothing: enable acknowledgement for the token, or write acknowledge = false";

/// What events are called there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplunkOptions {
    /// How an event is written.
    pub format: Format,
    /// The index; without one, the token's.
    pub index: Option<String>,
    /// Where they come from.
    pub source: String,
    /// What they are.
    pub sourcetype: String,
    /// How long they may take to be written; `None` does not ask.
    pub acknowledged_within: Option<Duration>,
}

/// Posts events.
#[derive(Debug)]
pub struct SplunkSink {
    name: String,
    requests: Requests,
    options: SplunkOptions,
    /// Acknowledgements are of a channel, which the client chooses.
    channel: String,
    /// Whether the token acknowledges.
    is_asked: bool,
}

/// What the collector says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Said {
    code: Option<u64>,
    #[serde(rename = "ackId")]
    ack_id: Option<u64>,
}

impl SplunkSink {
    /// To this collector.
    pub fn new(name: &str, server: Server, options: SplunkOptions) -> Self {
        let channel = Uuid::new_v4().to_string();
        Self { name: name.to_owned(), requests: Requests::to(server), options, channel, is_asked: false }
    }

    /// Before anything is sent: events that nobody can acknowledge would be sent again and again.
    fn ask_for_acknowledgement(&mut self) -> Result<(), Failure> {
        let path = format!("/services/collector/ack?channel={}", self.channel);
        let headers = [("content-type", "application/json")];
        let reply = self.requests.post(&path, &headers, b"{\"acks\":[0]}")?;
        let said: Said = serde_json::from_slice(&reply.body).unwrap_or_default();
        if said.code == Some(CODE_NO_ACKNOWLEDGEMENT) {
            return Err(Failure::of(NO_ACKNOWLEDGEMENT));
        }
        self.is_asked = true;
        Ok(())
    }

    fn post(&mut self, batch: &[Entry]) -> Result<Answer, Failure> {
        if self.options.acknowledged_within.is_some() && !self.is_asked {
            self.ask_for_acknowledgement()?;
        }
        let body: String = batch.iter().map(|entry| self.event(entry)).collect();
        let channel = self.channel.clone();
        let headers = [("content-type", "application/json"), ("x-splunk-request-channel", channel.as_str())];
        let reply = self.requests.post("/services/collector/event", &headers, body.as_bytes())?;
        let said: Said = serde_json::from_slice(&reply.body).unwrap_or_default();
        if reply.status == 400 && said.code.is_some_and(|code| !CODES_OF_EVENTS.contains(&code)) {
            return Err(later(&reply));
        }
        let answer = judged(&reply, body.len())?;
        if let (Answer::Sent(_), Some(within)) = (&answer, self.options.acknowledged_within) {
            let id = said.ack_id.ok_or_else(|| Failure::of(NO_ACKNOWLEDGEMENT))?;
            self.wait(id, within)?;
        }
        Ok(answer)
    }

    /// Until the events of a request are written.
    fn wait(&mut self, id: u64, within: Duration) -> Result<(), Failure> {
        let until = Instant::now() + within;
        let path = format!("/services/collector/ack?channel={}", self.channel);
        let question = json!({ "acks": [id] }).to_string();
        loop {
            let reply =
                self.requests.post(&path, &[("content-type", "application/json")], question.as_bytes())?;
            if reply.status != 200 {
                return Err(later(&reply));
            }
            if is_acknowledged(&reply, id)? {
                return Ok(());
            }
            if Instant::now() >= until {
                let secs = within.as_secs();
                return Err(Failure::of(format!(
                    "the collector has taken events and not written them within {secs} s"
                )));
            }
            std::thread::sleep(ASK_EVERY);
        }
    }

    fn event(&self, entry: &Entry) -> String {
        let SplunkOptions { format, index, source, sourcetype, acknowledged_within: _ } = &self.options;
        let alert: &Alert = &entry.alert;
        let mut event = Map::new();
        event.insert("time".to_owned(), json!(alert.time.as_millisecond() as f64 / 1e3));
        event.insert("host".to_owned(), json!(alert.host));
        event.insert("source".to_owned(), json!(source));
        event.insert("sourcetype".to_owned(), json!(sourcetype));
        if let Some(index) = index {
            event.insert("index".to_owned(), json!(index));
        }
        let line = line(entry, *format);
        let object = if format.is_json() { serde_json::from_str(&line).ok() } else { None };
        event.insert("event".to_owned(), object.unwrap_or(Value::String(line)));
        Value::Object(event).to_string()
    }
}

/// `{"acks":{"7":true}}`
fn is_acknowledged(reply: &Reply, id: u64) -> Result<bool, Failure> {
    let said: Value = serde_json::from_slice(&reply.body).map_err(|_| Failure::of(reply_words(reply)))?;
    said["acks"][id.to_string()].as_bool().ok_or_else(|| Failure::of(reply_words(reply)))
}

impl Sink for SplunkSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn send(&mut self, batch: &[Entry]) -> Result<Sent, Failure> {
        halves::send(batch, &mut |part| self.post(part))
    }
}
