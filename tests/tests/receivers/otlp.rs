//! The collector of OpenTelemetry's logs: protobuf and JSON, and what it says of records that it refused.

use anyhow::Result;
use dnswall_tests::receiver::otlp::{Log, logs, refused};
use dnswall_tests::receiver::plan::{Otlp, Partial, Plan};
use serde_json::json;

use crate::client::{Answer, Scene, curl};

const JSON: &str = "Content-Type: application/json";
const PROTOBUF: &str = "Content-Type: application/x-protobuf";

/// ExportLogsServiceRequest with one record, written by hand from the published definitions: a resource (1) with attribute
/// `host.name`, a scope (2) with a name (1), and a record with time (1), severity (2), body (5), attribute `id` (6), observed
/// time (11) and event name (12).
fn protobuf() -> Vec<u8> {
    let text = |value: &str| field(1, value.as_bytes());
    let attribute = |name: &str, value: &str| [field(1, name.as_bytes()), field(2, &text(value))].concat();
    let record = [
        vec![1 << 3 | 1],
        1_500_u64.to_le_bytes().to_vec(),
        vec![2 << 3, 13],
        field(5, &text("refused")),
        field(6, &attribute("id", "7")),
        vec![11 << 3 | 1],
        1_600_u64.to_le_bytes().to_vec(),
        field(12, b"dnswall.dns"),
    ]
    .concat();
    let scope = [field(1, &field(1, b"dnswall")), field(2, &record)].concat();
    let resource = [field(1, &field(1, &attribute("host.name", "web-1"))), field(2, &scope)].concat();
    field(1, &resource)
}

/// A field of bytes, of at most 127.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 128 && number < 16);
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

fn record() -> Log {
    let one = |name: &str, value: &str| [(name.to_owned(), value.to_owned())].into();
    Log {
        time_ns: 1_500,
        observed_ns: 1_600,
        severity: 13,
        severity_text: String::new(),
        event_name: "dnswall.dns".to_owned(),
        body: "refused".to_owned(),
        attributes: one("id", "7"),
        resource: one("host.name", "web-1"),
        scope: "dnswall".to_owned(),
    }
}

fn post(scene: &Scene, kind: &str, body: &[u8]) -> Result<Answer> {
    curl(&scene.http.url("/v1/logs"), &["--header", kind], body)
}

#[test]
fn records_come_as_protobuf_or_json() -> Result<()> {
    let scene = Scene::planned(&Plan::default())?;
    let answer = post(&scene, PROTOBUF, &protobuf())?;
    assert_eq!((answer.status, refused(&answer.body)?), (200, None));
    let json = json!({"resourceLogs": [{
        "resource": {"attributes": [{"key": "host.name", "value": {"stringValue": "web-1"}}]},
        "scopeLogs": [{"scope": {"name": "dnswall"}, "logRecords": [{
            "timeUnixNano": "1500", "observedTimeUnixNano": "1600", "severityNumber": 13, "eventName": "dnswall.dns",
            "body": {"stringValue": "refused"}, "attributes": [{"key": "id", "value": {"stringValue": "7"}}],
        }]}],
    }]});
    let answer = post(&scene, JSON, json.to_string().as_bytes())?;
    assert_eq!((answer.status, answer.json()?), (200, json!({})));
    let requests = scene.http.requests()?;
    assert_eq!(logs(&requests[0])?, [record()]);
    assert_eq!(logs(&requests[1])?, [record()]);
    assert_eq!(scene.http.taken()?.len(), 2);
    Ok(())
}

#[test]
fn a_part_may_be_refused() -> Result<()> {
    let partial = vec![Partial { times: Some(2), rejected: 300, message: "too old".to_owned() }];
    let scene = Scene::planned(&Plan { otlp: Otlp { partial }, ..Plan::default() })?;
    let answer = post(&scene, PROTOBUF, &protobuf())?;
    assert_eq!((answer.status, refused(&answer.body)?), (200, Some((300, "too old".to_owned()))));
    let answer = post(&scene, JSON, b"{}")?;
    let said = json!({"partialSuccess": {"rejectedLogRecords": "300", "errorMessage": "too old"}});
    assert_eq!((answer.status, answer.json()?), (200, said));
    assert_eq!(refused(&post(&scene, PROTOBUF, &protobuf())?.body)?, None);
    Ok(())
}

#[test]
fn what_is_neither_is_noticed() -> Result<()> {
    let scene = Scene::planned(&Plan::default())?;
    assert_eq!(post(&scene, "Content-Type: text/plain", b"x")?.status, 415);
    assert_eq!(post(&scene, JSON, b"{")?.status, 400);
    assert_eq!(scene.http.taken()?.len(), 0);
    let half = protobuf();
    post(&scene, PROTOBUF, &half[..half.len() / 2])?;
    let twice =
        field(1, &field(2, &field(2, &[field(6, &field(1, b"a")), field(6, &field(1, b"a"))].concat())));
    post(&scene, PROTOBUF, &twice)?;
    let requests = scene.http.requests()?;
    let [.., cut, doubled] = requests.as_slice() else { panic!("{requests:?}") };
    assert!(logs(cut).is_err() && logs(doubled).is_err());
    Ok(())
}
