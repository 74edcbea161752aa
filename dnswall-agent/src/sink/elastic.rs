//! Alerts for Elasticsearch and OpenSearch, in bulk. Each is created under its own id, so one that comes twice is there once.

use serde::Deserialize;
use serde_json::{Value, json};

use super::halves::{self, Answer};
use super::request::{Requests, judged, reply_words};
use super::{Failure, Sent, Sink, line};
use crate::format::Format;
use crate::remote::{Hidden, Server};
use crate::spool::Entry;

/// Puts documents into an index or a data stream.
#[derive(Debug)]
pub struct ElasticSink {
    name: String,
    requests: Requests,
    format: Format,
    index: String,
}

/// What became of a bulk.
#[derive(Debug, Deserialize)]
struct Bulk {
    errors: bool,
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Debug, Deserialize)]
struct Item {
    create: Created,
}

#[derive(Debug, Deserialize)]
struct Created {
    status: u16,
    #[serde(default)]
    error: Option<Value>,
}

impl ElasticSink {
    /// Into this index of this cluster; the format is one of JSON.
    pub fn new(name: &str, server: Server, format: Format, index: &str) -> Self {
        Self { name: name.to_owned(), requests: Requests::to(server), format, index: index.to_owned() }
    }

    fn post(&mut self, batch: &[Entry]) -> Result<Answer, Failure> {
        let mut body = String::new();
        for entry in batch {
            let action = json!({ "create": { "_index": self.index, "_id": entry.alert.id } });
            body.push_str(&format!("{action}\n{}\n", line(entry, self.format)));
        }
        // Of each document only what became of it.
        let path = "/_bulk?filter_path=errors,items.*.status,items.*.error";
        let reply = self.requests.post(path, &[("content-type", "application/x-ndjson")], body.as_bytes())?;
        let answer = judged(&reply, body.len())?;
        if let Answer::Refused(_) = answer {
            return Ok(answer);
        }
        let bulk: Bulk = serde_json::from_slice(&reply.body).map_err(|_| Failure::of(reply_words(&reply)))?;
        if !bulk.errors {
            return Ok(answer);
        }
        if bulk.items.len() != batch.len() {
            return Err(Failure::of("the cluster does not say what became of each document"));
        }
        if let Some(why) = refused(&bulk.items, &reply.hidden) {
            return Ok(Answer::Refused(why));
        }
        each(bulk.items, body.len(), &reply.hidden)
    }
}

/// Why not one of them was wanted: then it is more likely the index, or what it makes of documents, than each of the alerts.
fn refused(items: &[Item], hidden: &Hidden) -> Option<String> {
    let is_unwanted = |item: &Item| matches!(item.create.status, 400 | 402 | 405..=408 | 410..=428);
    let first = items.first().filter(|_| items.iter().all(is_unwanted))?;
    Some(format!(
        "the cluster answers {} to every document: {}",
        first.create.status,
        reason(&first.create.error, hidden)
    ))
}

/// 409 is a document that is there already.
fn each(items: Vec<Item>, bytes: usize, hidden: &Hidden) -> Result<Answer, Failure> {
    let mut sent = Sent { bytes, rejected: Vec::new() };
    for (place, Item { create: Created { status, error } }) in items.into_iter().enumerate() {
        match status {
            200..=299 | 409 => {}
            429 | 500.. | 401 | 403 | 404 => {
                let why = format!("the cluster answers {status} to a document: {}", reason(&error, hidden));
                return Err(Failure { settled: place, sent, ..Failure::of(why) });
            }
            _ => sent.rejected.push((place, format!("{status}: {}", reason(&error, hidden)))),
        }
    }
    Ok(Answer::Sent(sent))
}

fn reason(error: &Option<Value>, hidden: &Hidden) -> String {
    let part = |name: &str| error.as_ref().and_then(|error| error[name].as_str()).unwrap_or_default();
    hidden.out_of(&format!("{} {}", part("type"), part("reason"))).chars().take(200).collect()
}

impl Sink for ElasticSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn send(&mut self, batch: &[Entry]) -> Result<Sent, Failure> {
        halves::send(batch, &mut |part| self.post(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(statuses: &[u16]) -> Vec<Item> {
        let error = Some(json!({ "type": "mapper_parsing_exception", "reason": "no" }));
        statuses
            .iter()
            .map(|status| Item { create: Created { status: *status, error: error.clone() } })
            .collect()
    }

    #[test]
    fn each_document_has_its_own_fate() {
        let hidden = Hidden::default();
        let Ok(Answer::Sent(sent)) = each(items(&[201, 409, 400, 201]), 9, &hidden) else {
            panic!("not sent")
        };
        assert_eq!(sent.rejected, [(2, "400: mapper_parsing_exception no".to_owned())]);
        let failure = each(items(&[201, 400, 429, 201]), 9, &hidden).unwrap_err();
        assert_eq!((failure.settled, failure.sent.rejected.len(), failure.refused), (2, 1, false));
        assert!(each(items(&[404]), 9, &hidden).is_err(), "an index that is not there may come");
    }
}
