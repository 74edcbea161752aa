//! A collector of OpenTelemetry's: each alert is a record.

use anyhow::{Context as _, Result, ensure};
use dnswall_tests::authority::Holder;
use dnswall_tests::receiver::guard::Guard;
use dnswall_tests::receiver::http::{Http, Request};
use dnswall_tests::receiver::otlp::{Log, logs};
use dnswall_tests::receiver::plan::{Fault, How, Otlp, Partial, Plan};
use serde_json::Value;

use crate::scene::{Scene, id, is_once};

const LOGS: &str = "/v1/logs";
const DAY_US: u64 = 86_400_000_000;

fn refusing(times: u32) -> Plan {
    let partial = vec![Partial { times: Some(times), rejected: 1, message: "too old".to_owned() }];
    Plan { otlp: Otlp { partial }, ..Plan::default() }
}

/// The records in requests that were taken.
fn records(http: &Http) -> Result<Vec<Log>> {
    let taken: Vec<Request> = http.requests()?.into_iter().filter(Request::is_taken).collect();
    Ok(taken.iter().map(logs).collect::<Result<Vec<_>>>()?.concat())
}

fn ids(http: &Http) -> Result<Vec<String>> {
    let uid = |log: Log| log.attributes.get("log.record.uid").cloned().context("an id");
    records(http)?.into_iter().map(uid).collect()
}

#[test]
fn records_have_what_the_alerts_have() -> Result<()> {
    let mut scene = Scene::set()?;
    let authorization = Some("Bearer sesame".to_owned());
    let plan = Plan { authorization, ..Plan::default().fault(LOGS, Fault::status(503).times(1)) };
    let http = scene.http("http", Guard::Mutual, &plan)?;
    let cut =
        scene.http("cut", Guard::Plain, &Plan::default().fault(LOGS, Fault::how(How::CutAnswer).times(1)))?;
    let token = scene.file("token", "sesame")?;
    let holder = Holder::Host("agent.example");
    let own = scene.authority.certify(&scene.wall.scratch(""), "agent", holder)?;
    let (ca, pem, key) = (scene.authority.pem(), own.pem, own.key);
    let more = format!("token-file = {token:?}\nca = {ca:?}\ncertificate = {pem:?}\nkey = {key:?}");
    scene.sink("otlp", &format!("type = \"otlp\"\nurl = \"{}\"\n{more}", http.url(LOGS)))?;
    scene.sink("cut", &format!("type = \"otlp\"\nurl = \"{}\"", cut.url(LOGS)))?;
    scene.start()?;
    let alerts = scene.refuse(5)?;
    let times = scene.until_all_came("otlp", || ids(&http))?;
    ensure!(is_once(&times), "{times:?}");
    scene.until_taken("otlp")?;
    let times = scene.until_all_came("cut", || ids(&cut))?;
    ensure!(!is_once(&times) && times.values().all(|times| *times <= 2), "{times:?}");
    scene.until_taken("cut")?;
    for (alert, record) in alerts.iter().zip(&records(&http)?) {
        check(alert, record).with_context(|| format!("{alert}\n{record:?}"))?;
    }
    ensure!(http.requests()?.iter().all(|request| request.client.as_deref() == Some("agent.example")));
    Ok(())
}

fn check(alert: &Value, record: &Log) -> Result<()> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    assert_eq!((record.time_ns / 1_000 % DAY_US, record.observed_ns), (time_us(alert)?, record.time_ns));
    assert_eq!(record.event_name, format!("dnswall.{}", text(&alert["kind"])));
    assert_eq!(record.severity_text, text(&alert["severity"]));
    assert_eq!(record.scope, "dnswall");
    assert_eq!(record.resource["service.name"], "dnswall");
    assert_eq!(record.resource["host.name"], text(&alert["host"]));
    let (flow, process) = (&alert["flow"], &alert["process"]);
    ensure!(record.body.contains(&text(&flow["destination"])), "{}", record.body);
    for (name, value) in [
        ("log.record.uid", &alert["id"]),
        ("dnswall.id", &alert["id"]),
        ("dnswall.reason", &alert["reason"]),
        ("dnswall.count", &alert["count"]),
        ("dnswall.flow.destination", &flow["destination"]),
        ("destination.address", &flow["destination"]),
        ("destination.port", &flow["destination_port"]),
        ("source.port", &flow["source_port"]),
        ("network.transport", &flow["protocol"]),
        ("process.pid", &process["pid"]),
        ("process.command_line", &process["command_line"]),
    ] {
        assert_eq!(record.attributes.get(name), Some(&text(value)), "{name}");
    }
    Ok(())
}

/// Microseconds of its day.
fn time_us(alert: &Value) -> Result<u64> {
    let time = alert["time"].as_str().and_then(|time| time.split_once('T')?.1.strip_suffix('Z'));
    let parts: Vec<&str> = time.context("a time")?.split([':', '.']).collect();
    let [hours, minutes, seconds, microseconds] = parts.as_slice() else { anyhow::bail!("{parts:?}") };
    let number = |text: &str| text.parse::<u64>();
    let seconds = (number(hours)? * 60 + number(minutes)?) * 60 + number(seconds)?;
    Ok(seconds * 1_000_000 + number(microseconds)?)
}

#[test]
fn what_a_collector_takes_in_part_is_sent_until_it_is_known_which_part() -> Result<()> {
    let mut scene = Scene::set()?;
    let mut http = scene.http("http", Guard::Plain, &Plan::default().fault(LOGS, Fault::status(503)))?;
    scene.sink("otlp", &format!("type = \"otlp\"\nurl = \"{}\"", http.url(LOGS)))?;
    scene.start()?;
    let first = id(&scene.refuse(1)?[0])?;
    scene.refuse(7)?;
    // Of all, of the first half, of the first quarter, and the first alone: that is the one.
    http.plan(&refusing(4))?;
    scene.until_all_came("otlp", || ids(&http))?;
    let status = scene.until_status("otlp", |status| status.waiting == 0)?;
    ensure!((status.written, status.rejected, status.lost) == (7, 1, 0), "{status:?}");
    let said = status.last_error.context("it says so")?;
    ensure!(said.contains(&first) && said.contains("too old"), "{said}");
    // A word of warning is none of refusal (a count of 0).
    let partial = vec![Partial { times: None, rejected: 0, message: "careful".to_owned() }];
    http.plan(&Plan { otlp: Otlp { partial }, ..Plan::default() })?;
    scene.refuse(2)?;
    let status = scene.until_status("otlp", |status| status.written == 9)?;
    ensure!(status.rejected == 1, "{status:?}");
    Ok(())
}
