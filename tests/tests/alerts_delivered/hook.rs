//! The webhook: every kind of body, every format, every way to say who one is.

use anyhow::{Context as _, Result, ensure};
use dnswall_tests::receiver::guard::Guard;
use dnswall_tests::receiver::http::Request;
use dnswall_tests::receiver::plan::{Fault, Plan};
use serde_json::Value;

use crate::scene::{Scene, is_once};

/// A sink's path, body, format, and keys that say who it is, with what the server sees of them.
struct Case(&'static str, &'static str, &'static str, &'static str, Option<&'static str>);

const CASES: [Case; 9] = [
    Case("/hook/1", "lines", "json", "token-file = \"{token}\"", Some("Bearer sesame 1")),
    Case("/hook/2", "lines", "cef", "token-env = \"HOOK_TOKEN\"", Some("Bearer sesame-2")),
    Case("/hook/3", "lines", "leef", "token-env = \"HOOK_USER\"\nauthorization = \"basic\"", Some(BASIC)),
    Case("/hook/4", "array", "json", "token-file = \"{user}\"\nauthorization = \"basic\"", Some(BASIC)),
    Case("/hook/5", "array", "ecs", "token-file = \"{token}\"\nauthorization = \"api-key\"", Some(API_KEY)),
    Case("/hook/6", "array", "ocsf", "", None),
    Case("/hook/7", "each", "json", "", None),
    Case("/hook/8", "each", "text", "", None),
    Case("/hook/9", "lines", "ecs", "", None),
];
const API_KEY: &str = "ApiKey sesame 1";
/// `user:open sesame`
const BASIC: &str = "Basic dXNlcjpvcGVuIHNlc2FtZQ==";
const ALERTS: u32 = 12;

#[test]
fn bodies_have_every_alert_in_their_format() -> Result<()> {
    let mut scene = Scene::set()?;
    // The first request of each fails, so that there are several alerts in the next.
    let plan =
        CASES.iter().fold(Plan::default(), |plan, case| plan.fault(case.0, Fault::status(503).times(1)));
    let http = scene.http("http", Guard::Plain, &plan)?;
    let token = scene.file("token", "sesame 1\n")?;
    let user = scene.file("user", "user:open sesame")?;
    scene.wall.agent.set_environment("HOOK_TOKEN", "sesame-2");
    scene.wall.agent.set_environment("HOOK_USER", "user:open sesame");
    for Case(path, body, format, more, _) in &CASES {
        let more = more.replace("{token}", &token.to_string_lossy());
        let more = more.replace("{user}", &user.to_string_lossy());
        let url = http.url(path);
        let keys =
            format!("type = \"webhook\"\nurl = \"{url}\"\nbody = \"{body}\"\nformat = \"{format}\"\n{more}");
        scene.sink(path, &keys)?;
    }
    scene.start()?;
    let alerts = scene.refuse(ALERTS)?;
    for case in &CASES {
        scene.until_taken(case.0)?;
        let all = http.requests()?.into_iter().filter(|request| request.path == case.0);
        let (taken, refused): (Vec<_>, Vec<_>) = all.partition(Request::is_taken);
        ensure!(refused.len() == 1 && refused[0].status == Some(503), "{}: {refused:?}", case.0);
        check(&scene, case, &taken, &alerts).with_context(|| format!("{}: {taken:?}", case.0))?;
    }
    assert_eq!(http.said(), "");
    Ok(())
}

fn check(scene: &Scene, case: &Case, requests: &[Request], alerts: &[Value]) -> Result<()> {
    let Case(path, body, format, _, authorization) = case;
    let is_json = ["json", "ecs", "ocsf"].contains(format);
    let kind = match *body {
        "lines" if is_json => "application/x-ndjson",
        _ if is_json => "application/json",
        _ => "text/plain; charset=utf-8",
    };
    let mut documents = Vec::new();
    for request in requests {
        assert_eq!(request.method, "POST");
        assert_eq!((request.header("content-type"), request.authorization()), (Some(kind), *authorization));
        ensure!(request.header("user-agent").is_some_and(|name| name.starts_with("dnswall/")));
        let text = str::from_utf8(&request.body)?;
        match *body {
            "lines" => {
                documents.extend(text.strip_suffix('\n').context("an end")?.split('\n').map(str::to_owned));
            }
            "array" => {
                let values: Vec<Value> = serde_json::from_str(text)?;
                documents.extend(values.iter().map(Value::to_string));
            }
            _ => documents.push(text.to_owned()),
        }
        ensure!(request.header("idempotency-key").is_some_and(|key| key.len() == 64), "{request:?}");
    }
    // It is of the alerts that are in it.
    let mut keys: Vec<_> = requests.iter().map(|request| request.header("idempotency-key")).collect();
    keys.dedup();
    assert_eq!(keys.len(), requests.len());
    assert_eq!(documents.len(), alerts.len());
    let is_each = *body == "each";
    ensure!((requests.len() == alerts.len()) == is_each, "{} requests", requests.len());
    for (alert, document) in alerts.iter().zip(&documents) {
        match *format {
            "json" => assert_eq!(serde_json::from_str::<Value>(document)?, *alert),
            "ecs" => assert_eq!(serde_json::from_str::<Value>(document)?["event"]["id"], alert["id"]),
            "ocsf" => assert_eq!(serde_json::from_str::<Value>(document)?["metadata"]["uid"], alert["id"]),
            "cef" => ensure!(document.starts_with("CEF:0|dnswall|"), "{document}"),
            "leef" => ensure!(document.starts_with("LEEF:2.0|dnswall|"), "{document}"),
            _ => {
                let place = alert["flow"]["destination"].as_str().context("a destination")?;
                ensure!(document.contains(place) && document.lines().count() == 1, "{document}");
            }
        }
    }
    if *format != "text" {
        let times = scene.until_all_came(path, || Ok(requests.iter().flat_map(Request::ids).collect()))?;
        ensure!(is_once(&times), "{times:?}");
    }
    Ok(())
}
