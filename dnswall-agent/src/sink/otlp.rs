//! Alerts as log records for a collector of OpenTelemetry, over HTTP.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message as _;

use super::halves::{self, Answer};
use super::request::{Requests, judged};
use super::{Failure, Sent, Sink};
use crate::alert::Alert;
use crate::format::otlp;
use crate::remote::{Reply, Server};
use crate::spool::Entry;

/// Posts log records.
#[derive(Debug)]
pub struct OtlpSink {
    name: String,
    requests: Requests,
}

impl OtlpSink {
    /// To this collector.
    pub fn new(name: &str, server: Server) -> Self {
        Self { name: name.to_owned(), requests: Requests::to(server) }
    }

    fn post(&mut self, batch: &[Entry]) -> Result<Answer, Failure> {
        let alerts: Vec<&Alert> = batch.iter().map(|entry| &*entry.alert).collect();
        let body = otlp::request(&alerts);
        let reply = self.requests.post("", &[("content-type", "application/x-protobuf")], &body)?;
        partial(&reply, judged(&reply, body.len())?, batch.len())
    }
}

/// A collector may take some and not say which; what it does not take it does not want again (OTLP 1.7, "Partial Success").
fn partial(reply: &Reply, answer: Answer, alerts: usize) -> Result<Answer, Failure> {
    let Answer::Sent(mut sent) = answer else { return Ok(answer) };
    let said = ExportLogsServiceResponse::decode(reply.body.as_slice()).unwrap_or_default();
    let Some(partial) = said.partial_success else { return Ok(Answer::Sent(sent)) };
    let why = reply.hidden.out_of(&partial.error_message);
    let rejected = usize::try_from(partial.rejected_log_records).unwrap_or(0).min(alerts);
    match rejected {
        0 => {}
        // Of one alone it is known which.
        _ if alerts == 1 => sent.rejected.push((0, why)),
        _ => return Ok(Answer::Refused(why)),
    }
    Ok(Answer::Sent(sent))
}

impl Sink for OtlpSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn send(&mut self, batch: &[Entry]) -> Result<Sent, Failure> {
        halves::send(batch, &mut |part| self.post(part))
    }
}
