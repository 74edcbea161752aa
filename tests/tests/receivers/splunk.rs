//! The collector of Splunk's: tokens, events one after another, acknowledgements.

use anyhow::{Context as _, Result};
use dnswall_tests::receiver::plan::{Plan, Splunk, TOKEN};
use serde_json::{Value, json};

use crate::client::{Answer, Scene, until};

const EVENT: &str = "/services/collector/event";
const ACK: &str = "/services/collector/ack";
const CHANNEL: &str = "X-Splunk-Request-Channel: 0a0a0a0a-0000-4000-8000-00000000000f";
const OTHER_CHANNEL: &str = "X-Splunk-Request-Channel: 0a0a0a0a-0000-4000-8000-0000000000ff";

/// Events that are acknowledged after so long.
fn acknowledging(indexed_after_ms: Option<u64>) -> Result<Scene> {
    let splunk = Splunk { acknowledges: true, indexed_after_ms, ..Splunk::default() };
    Scene::planned(&Plan { splunk, ..Plan::default() })
}

fn post(scene: &Scene, path: &str, headers: &[&str], body: &str) -> Result<Answer> {
    let token = format!("Authorization: Splunk {TOKEN}");
    let headers: Vec<_> = [&[token.as_str()], headers].concat();
    let more: Vec<_> = headers.into_iter().flat_map(|header| ["--header", header]).collect();
    scene.post(path, &more, body)
}

fn said(answer: &Answer) -> Result<(u16, Value)> {
    Ok((answer.status, answer.json()?))
}

#[test]
fn a_token_is_needed() -> Result<()> {
    let scene = Scene::planned(&Plan::default())?;
    let event = "{\"event\":1}";
    let with = |value: &str| said(&scene.post(EVENT, &["--header", value], event)?);
    assert_eq!(with("X: 1")?, (401, json!({"text": "Token is required", "code": 2})));
    assert_eq!(with("Authorization: Bearer x")?, (401, json!({"text": "Invalid authorization", "code": 3})));
    assert_eq!(with("Authorization: Splunk x")?, (403, json!({"text": "Invalid token", "code": 4})));
    assert_eq!(
        with(&format!("Authorization: Splunk {TOKEN}"))?,
        (200, json!({"text": "Success", "code": 0}))
    );
    let basic = scene.post(EVENT, &["--user", &format!("x:{TOKEN}")], event)?;
    assert_eq!(basic.status, 200);
    assert_eq!(scene.documents()?, [event, event]);
    Ok(())
}

#[test]
fn events_stand_one_after_another() -> Result<()> {
    let scene = Scene::planned(&Plan::default())?;
    let events = ["{\"time\":1.5,\"event\":{\"a\":\"}{\"}}", "{\"event\":\"b\",\"fields\":{\"c\":\"d\"}}"];
    assert_eq!(post(&scene, EVENT, &[], &events.concat())?.status, 200);
    assert_eq!(post(&scene, EVENT, &[], &events.join("\n"))?.status, 200);
    assert_eq!(scene.documents()?, [events, events].concat());
    let no_data = said(&post(&scene, EVENT, &[], " \n")?)?;
    assert_eq!(no_data, (400, json!({"text": "No data", "code": 5})));
    Ok(())
}

/// Those before it are indexed all the same, and those after it are not.
#[test]
fn an_event_that_is_wrong_is_named_by_its_number() -> Result<()> {
    let wrong = [
        ("nothing", "Invalid data format", 6),
        (",{\"event\":3}", "Invalid data format", 6),
        ("[{\"event\":3}]", "Invalid data format", 6),
        ("{\"event\":NaN}", "Invalid data format", 6),
        ("{\"event\":3,\"time\":\"noon\"}", "Invalid data format", 6),
        ("{\"event\":3,\"time\":1.5e9}", "Error in handling indexed fields", 15),
        ("{\"time\":3}", "Event field is required", 12),
        ("{\"event\":\"\"}", "Event field cannot be blank", 13),
        ("{\"event\":3,\"fields\":{\"a\":{}}}", "Error in handling indexed fields", 15),
        ("{\"event\":3,\"index\":\"other\"}", "Incorrect index", 7),
    ];
    let splunk = Splunk { indexes: Some(vec!["main".to_owned()]), ..Splunk::default() };
    let scene = Scene::planned(&Plan { splunk, ..Plan::default() })?;
    for (event, text, code) in wrong {
        let body = format!("{{\"event\":1}}{{\"event\":2,\"index\":\"main\"}}{event}{{\"event\":4}}");
        let expected = json!({"text": text, "code": code, "invalid-event-number": 2});
        assert_eq!(said(&post(&scene, EVENT, &[], &body)?)?, (400, expected), "{event}");
    }
    let pair = ["{\"event\":1}", "{\"event\":2,\"index\":\"main\"}"];
    assert_eq!(scene.documents()?, pair.repeat(wrong.len()));
    Ok(())
}

#[test]
fn what_is_indexed_is_acknowledged_once() -> Result<()> {
    let scene = acknowledging(Some(400))?;
    let no_channel = said(&post(&scene, EVENT, &[], "{\"event\":1}")?)?;
    assert_eq!(no_channel, (400, json!({"text": "Data channel is missing", "code": 10})));
    let bad = said(&post(&scene, EVENT, &["X-Splunk-Request-Channel: 7"], "{\"event\":1}")?)?;
    assert_eq!(bad, (400, json!({"text": "Invalid data channel", "code": 11})));
    for number in 0..2 {
        let answer = said(&post(&scene, EVENT, &[CHANNEL], "{\"event\":1}")?)?;
        assert_eq!(answer, (200, json!({"text": "Success", "code": 0, "ackId": number})));
    }
    let first_of_other = said(&post(&scene, EVENT, &[OTHER_CHANNEL], "{\"event\":2}")?)?.1;
    assert_eq!(first_of_other["ackId"], 0);
    let poll = |channel: &str| post(&scene, ACK, &[channel], "{\"acks\":[0,1,7]}")?.json();
    assert_eq!(poll(CHANNEL)?, json!({"acks": {"0": false, "1": false, "7": false}}));
    assert_eq!(scene.documents()?.len(), 0, "nothing is indexed yet");
    until("all is indexed", || Ok(scene.documents()?.len() == 3))?;
    until("both are told", || {
        let mut told = poll(CHANNEL)?;
        let also = poll(CHANNEL)?;
        for number in ["0", "1"] {
            assert!(!(told["acks"][number] == true && also["acks"][number] == true), "told twice");
        }
        Ok(told["acks"]["1"].take() == true || also["acks"]["1"] == true)
    })?;
    assert_eq!(poll(CHANNEL)?, json!({"acks": {"0": false, "1": false, "7": false}}));
    assert_eq!(poll(OTHER_CHANNEL)?["acks"]["0"], true);
    Ok(())
}

#[test]
fn what_is_not_indexed_is_lost_with_it() -> Result<()> {
    let mut scene = acknowledging(Some(60_000))?;
    assert_eq!(post(&scene, EVENT, &[CHANNEL], "{\"event\":1}")?.json()?["ackId"], 0);
    scene.http.stop();
    scene.http.resume()?;
    assert_eq!(post(&scene, ACK, &[CHANNEL], "{\"acks\":[0]}")?.json()?, json!({"acks": {"0": false}}));
    assert_eq!(post(&scene, EVENT, &[CHANNEL], "{\"event\":2}")?.json()?["ackId"], 0, "it counts anew");
    assert_eq!(scene.documents()?.len(), 0);
    let request = scene.http.requests()?.into_iter().next().context("the first request")?;
    assert_eq!(request.body, b"{\"event\":1}", "although it came");
    Ok(())
}

#[test]
fn a_token_without_acknowledgement_has_none() -> Result<()> {
    let scene = Scene::planned(&Plan::default())?;
    let answer = said(&post(&scene, ACK, &[CHANNEL], "{\"acks\":[0]}")?)?;
    assert_eq!(answer, (400, json!({"text": "ACK is disabled", "code": 14})));
    let health = scene.http.url("/services/collector/health");
    let health = crate::client::run("curl", &["--silent", &health], b"")?;
    assert_eq!(health.text, b"{\"text\": \"HEC is healthy\", \"code\": 17}");
    Ok(())
}
