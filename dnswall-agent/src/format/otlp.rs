//! Alerts as log records of OpenTelemetry (OTLP 1, protobuf): the sentence is the body, the alert's own keys are attributes
//! below `dnswall.`, and what the semantic conventions have a name for has that name too.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use serde_json::Value;

use super::{PRODUCT, VERSION};
use crate::alert::{Alert, Severity, text};

/// The body of one request. All alerts are of one host: the first one's.
pub fn request(alerts: &[&Alert]) -> Vec<u8> {
    let host = alerts.first().map(|alert| alert.host.clone()).unwrap_or_default();
    let resource = Resource {
        attributes: vec![
            attribute("service.name", Any::StringValue(PRODUCT.to_owned())),
            attribute("service.version", Any::StringValue(VERSION.to_owned())),
            attribute("host.name", Any::StringValue(host)),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: PRODUCT.to_owned(),
        version: VERSION.to_owned(),
        ..InstrumentationScope::default()
    };
    let log_records = alerts.iter().map(|alert| record(alert)).collect();
    let scope_logs = vec![ScopeLogs { scope: Some(scope), log_records, ..ScopeLogs::default() }];
    let resource_logs =
        vec![ResourceLogs { resource: Some(resource), scope_logs, ..ResourceLogs::default() }];
    ExportLogsServiceRequest { resource_logs }.encode_to_vec()
}

fn record(alert: &Alert) -> LogRecord {
    let mut attributes = Vec::new();
    let mut text = |key: &str, value: Option<&str>| {
        attributes.extend(value.map(|value| attribute(key, Any::StringValue(value.to_owned()))));
    };
    let flow = alert.flow.as_ref();
    let address = |address: Option<std::net::IpAddr>| address.map(|address| address.to_string());
    // Whoever stores records by it stores one that comes twice once.
    text("log.record.uid", Some(&alert.id.to_string()));
    text("source.address", address(flow.and_then(|flow| flow.source)).as_deref());
    text("destination.address", address(flow.and_then(|flow| flow.destination)).as_deref());
    text("network.transport", flow.map(|flow| flow.protocol.as_str()));
    text("network.type", flow.map(|flow| flow.family.as_str()).filter(|family| *family != "none"));
    text("dns.question.name", alert.dns.as_ref().map(|dns| dns.name.as_str()));
    text("process.executable.path", alert.process.exe.as_deref());
    text("process.command_line", alert.process.command_line.as_deref());
    text("process.owner", alert.process.user.as_deref());
    text("container.id", alert.workload.container.as_deref());
    for (key, number) in [
        ("source.port", flow.and_then(|flow| flow.source_port).map(i64::from)),
        ("destination.port", flow.and_then(|flow| flow.destination_port).map(i64::from)),
        ("process.pid", alert.process.pid.map(i64::from)),
    ] {
        attributes.extend(number.map(|number| attribute(key, Any::IntValue(number))));
    }
    let own = serde_json::to_value(alert).unwrap_or(Value::Null);
    flatten(PRODUCT, own, &mut attributes);
    let nanoseconds = u64::try_from(alert.time.as_nanosecond()).unwrap_or(0);
    LogRecord {
        time_unix_nano: nanoseconds,
        observed_time_unix_nano: nanoseconds,
        severity_number: severity(alert.severity).into(),
        severity_text: alert.severity.to_string(),
        body: Some(any(Any::StringValue(text::line(alert, false)))),
        attributes,
        event_name: format!("{PRODUCT}.{}", alert.kind),
        ..LogRecord::default()
    }
}

const fn severity(severity: Severity) -> SeverityNumber {
    match severity {
        Severity::Info => SeverityNumber::Info,
        Severity::Low => SeverityNumber::Info3,
        Severity::Medium => SeverityNumber::Warn,
        Severity::High => SeverityNumber::Error,
        Severity::Critical => SeverityNumber::Fatal,
    }
}

/// A key for each value, with the names of the objects it is in before it. What is not known is left out.
fn flatten(key: &str, value: Value, attributes: &mut Vec<KeyValue>) {
    match value {
        Value::Object(map) => {
            map.into_iter().for_each(|(name, value)| flatten(&format!("{key}.{name}"), value, attributes));
        }
        value => attributes.extend(plain(value).map(|value| attribute(key, value))),
    }
}

fn plain(value: Value) -> Option<Any> {
    match value {
        Value::Null => None,
        // Of a list.
        Value::Object(_) => Some(Any::StringValue(value.to_string())),
        Value::Bool(value) => Some(Any::BoolValue(value)),
        Value::String(value) => Some(Any::StringValue(value)),
        Value::Number(number) => Some(match number.as_i64() {
            Some(number) => Any::IntValue(number),
            None => Any::StringValue(number.to_string()),
        }),
        Value::Array(values) => {
            let values = values.into_iter().filter_map(plain).map(any).collect();
            Some(Any::ArrayValue(ArrayValue { values }))
        }
    }
}

fn any(value: Any) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn attribute(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(any(value)), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::sample;
    use std::collections::BTreeMap;

    fn read(bytes: &[u8]) -> Vec<LogRecord> {
        let request = ExportLogsServiceRequest::decode(bytes).unwrap();
        request
            .resource_logs
            .into_iter()
            .flat_map(|logs| logs.scope_logs)
            .flat_map(|logs| logs.log_records)
            .collect()
    }

    #[test]
    fn a_record_has_the_alerts_keys_and_those_of_the_conventions_each_once() {
        let alert = sample::alert();
        let records = read(&request(&[&alert, &alert]));
        assert_eq!(records.len(), 2);
        let record = &records[0];
        let mut attributes = BTreeMap::new();
        for KeyValue { key, value, .. } in &record.attributes {
            let value = value.as_ref().and_then(|value| value.value.as_ref());
            assert!(attributes.insert(key.as_str(), value).is_none(), "{key} twice");
        }
        insta::assert_debug_snapshot!((
            &record.event_name,
            record.severity_number,
            &record.severity_text,
            &attributes
        ));
        assert_eq!(record.time_unix_nano, alert.time.as_nanosecond() as u64);
    }
}
