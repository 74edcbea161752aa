//! OpenTelemetry's logs: takes a request to `/v1/logs`, gives its records, read with the project's own definitions.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use prost::Message as _;

use super::http::Request;

/// A record with what it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    /// When it happened, in nanoseconds since 1970.
    pub time_ns: u64,
    /// When it was noticed.
    pub observed_ns: u64,
    /// From 1 to 24.
    pub severity: i32,
    /// The same in a word.
    pub severity_text: String,
    /// What kind of event it is.
    pub event_name: String,
    /// What it says.
    pub body: String,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
    /// Those of whom it is about.
    pub resource: BTreeMap<String, String>,
    /// Who wrote it.
    pub scope: String,
}

/// The records of a request, protobuf or JSON as its header says.
///
/// # Errors
/// When it is not what its header says, or an attribute is there twice.
pub fn logs(request: &Request) -> Result<Vec<Log>> {
    let export: ExportLogsServiceRequest = match request.header("content-type") {
        Some("application/x-protobuf") => {
            ExportLogsServiceRequest::decode(request.body.as_slice()).context("decode protobuf")?
        }
        Some("application/json") => serde_json::from_slice(&request.body).context("decode JSON")?,
        other => bail!("logs as {other:?}"),
    };
    let mut logs = Vec::new();
    for of_resource in export.resource_logs {
        let resource = texts(of_resource.resource.map(|resource| resource.attributes).unwrap_or_default())?;
        for of_scope in of_resource.scope_logs {
            let scope = of_scope.scope.map(|scope| scope.name).unwrap_or_default();
            for record in of_scope.log_records {
                logs.push(Log {
                    time_ns: record.time_unix_nano,
                    observed_ns: record.observed_time_unix_nano,
                    severity: record.severity_number,
                    severity_text: record.severity_text,
                    event_name: record.event_name,
                    body: record.body.map(text).unwrap_or_default(),
                    attributes: texts(record.attributes)?,
                    resource: resource.clone(),
                    scope: scope.clone(),
                });
            }
        }
    }
    Ok(logs)
}

/// What an answer says of records that it refused: how many, and why.
///
/// # Errors
/// When it is no answer.
pub fn refused(answer: &[u8]) -> Result<Option<(i64, String)>> {
    let answer = ExportLogsServiceResponse::decode(answer).context("decode an answer")?;
    Ok(answer.partial_success.map(|partial| (partial.rejected_log_records, partial.error_message)))
}

fn texts(attributes: Vec<KeyValue>) -> Result<BTreeMap<String, String>> {
    let mut texts = BTreeMap::new();
    for KeyValue { key, value, .. } in attributes {
        if let Some(first) = texts.insert(key.clone(), value.map(text).unwrap_or_default()) {
            bail!("attribute {key} is there twice, first as {first:?}");
        }
    }
    Ok(texts)
}

/// A value as a person writes it; what has parts, as the definitions show it.
fn text(value: AnyValue) -> String {
    match value.value {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::BoolValue(value)) => value.to_string(),
        Some(any_value::Value::IntValue(value)) => value.to_string(),
        Some(any_value::Value::DoubleValue(value)) => value.to_string(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}
