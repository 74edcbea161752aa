//! Splunk's collector: what counts is what is indexed.

use anyhow::{Context as _, Result, ensure};
use dnswall_tests::receiver::guard::Guard;
use dnswall_tests::receiver::http::{Http, Request};
use dnswall_tests::receiver::plan::{Plan, Splunk, TOKEN};
use serde_json::{Value, json};

use crate::scene::{Scene, id, is_once, until};

const EVENT: &str = "/services/collector/event";
const ACK: &str = "/services/collector/ack";

fn planned(splunk: Splunk) -> Plan {
    Plan { splunk, ..Plan::default() }
}

/// A token with acknowledgement.
fn indexing_after(indexed_after_ms: Option<u64>) -> Splunk {
    Splunk { acknowledges: true, indexed_after_ms, ..Splunk::default() }
}

fn sink(scene: &Scene, name: &str, http: &Http, more: &str) -> Result<()> {
    let token = scene.file(&format!("{name}.token"), TOKEN)?;
    let url = http.url("");
    let keys = format!("type = \"splunk\"\nurl = \"{url}\"\ntoken-file = {token:?}\n{more}");
    scene.sink(name, &keys)
}

/// The ids of what it has indexed.
fn indexed(http: &Http) -> Result<Vec<String>> {
    Ok(http.taken()?.iter().flat_map(|taken| taken.ids()).collect())
}

fn asked_at(http: &Http, path: &str) -> Result<Vec<Request>> {
    Ok(http.requests()?.into_iter().filter(|request| request.path == path).collect())
}

#[test]
fn what_is_indexed_counts() -> Result<()> {
    let mut scene = Scene::set()?;
    let late = scene.http("late", Guard::Plain, &planned(indexing_after(Some(3_000))))?;
    let mut never = scene.http("never", Guard::Plain, &planned(indexing_after(None)))?;
    let mut lost = scene.http("lost", Guard::Plain, &planned(indexing_after(Some(60_000))))?;
    sink(&scene, "late", &late, "index = \"security\"\nsource = \"walls\"\nsourcetype = \"wall:alert\"")?;
    sink(&scene, "never", &never, "acknowledged-within = \"1s\"\nformat = \"cef\"")?;
    sink(&scene, "lost", &lost, "acknowledged-within = \"2s\"\nformat = \"ecs\"")?;
    scene.start()?;
    let alerts = scene.refuse(4)?;

    // An answer of 200 is not enough.
    // Once before there is something to ask for.
    until("it is asked whether they are written", || Ok(asked_at(&late, ACK)?.len() >= 3))?;
    let status = scene.status("late")?;
    ensure!(indexed(&late)?.is_empty() && status.written == 0 && !status.failing, "{status:?}");
    until("it has some", || Ok(!asked_at(&lost, EVENT)?.is_empty()))?;
    lost.stop();
    lost.plan(&planned(indexing_after(Some(0))))?;
    lost.resume()?;
    let status = scene.until_failing("never", "not written them within 1 s")?;
    ensure!((status.written, status.waiting) == (0, 4), "{status:?}");
    until("they are sent again", || Ok(asked_at(&never, EVENT)?.len() >= 2))?;
    never.plan(&planned(indexing_after(Some(300))))?;

    for (name, http) in [("late", &late), ("never", &never), ("lost", &lost)] {
        let times = scene.until_all_came(name, || indexed(http))?;
        ensure!(is_once(&times), "{name}: {times:?}");
        scene.until_taken(name)?;
        assert_eq!(http.said(), "");
    }
    ensure!(indexed(&lost)?.len() == 4 && asked_at(&lost, EVENT)?.len() > 1, "what was lost is sent again");
    // The same ones, in the same words.
    let again = asked_at(&never, EVENT)?;
    ensure!(again[1].body.starts_with(&again[0].body) && !again[0].body.is_empty(), "{again:?}");

    for request in late.requests()? {
        assert_eq!(request.authorization(), Some(format!("Splunk {TOKEN}").as_str()));
    }
    for (alert, taken) in alerts.iter().zip(late.taken()?) {
        let event: Value = serde_json::from_str(taken.document.as_deref().context("an event")?)?;
        assert_eq!(event["event"], *alert);
        assert_eq!((&event["host"], &event["index"]), (&alert["host"], &json!("security")));
        assert_eq!((&event["source"], &event["sourcetype"]), (&json!("walls"), &json!("wall:alert")));
        let secs = event["time"].as_f64().context("a time")?;
        ensure!((secs - taken.at_secs).abs() < 60.0, "{event}");
        ensure!(taken.channel.is_some(), "{taken:?}");
    }
    for taken in never.taken()? {
        let event: Value = serde_json::from_str(taken.document.as_deref().context("an event")?)?;
        ensure!(event["event"].as_str().is_some_and(|line| line.starts_with("CEF:0|")), "{event}");
    }
    Ok(())
}

#[test]
fn what_is_wrong_with_the_token_or_the_index_is_waited_for() -> Result<()> {
    let mut scene = Scene::set()?;
    let without = scene.http("without", Guard::Plain, &planned(Splunk::default()))?;
    let mut with = scene.http("with", Guard::Plain, &planned(Splunk::default()))?;
    let other = Splunk { token: "5e5a3e00-0000-4000-8000-0000000000ff".to_owned(), ..Splunk::default() };
    let token = scene.http("token", Guard::Tls, &planned(other.clone()))?;
    let indexes = Some(vec!["main".to_owned()]);
    let mut index =
        scene.http("index", Guard::Plain, &planned(Splunk { indexes, ..indexing_after(Some(0)) }))?;
    let ca = scene.authority.pem();
    sink(&scene, "without", &without, "acknowledge = false")?;
    sink(&scene, "with", &with, "")?;
    sink(&scene, "token", &token, &format!("acknowledge = false\nca = {ca:?}"))?;
    sink(&scene, "index", &index, "index = \"security\"")?;
    scene.start()?;
    scene.refuse(3)?;

    let times = scene.until_all_came("without", || indexed(&without))?;
    ensure!(is_once(&times) && asked_at(&without, ACK)?.is_empty(), "{times:?}");
    scene.until_taken("without")?;
    for (name, why) in [
        ("with", "enable acknowledgement for the token"),
        ("token", "403: {\"text\": \"Invalid token\""),
        ("index", "400: {\"text\": \"Incorrect index\""),
    ] {
        let status = scene.until_failing(name, why)?;
        ensure!((status.written, status.rejected, status.waiting) == (0, 0, 3), "{name}: {status:?}");
    }
    for http in [&with, &token, &index] {
        ensure!(indexed(http)?.is_empty(), "nothing that nobody can acknowledge is sent");
    }

    // It is not about the events: in halves they would be no better, nor are they given up.
    until("it is tried again", || Ok(asked_at(&index, EVENT)?.len() >= 4))?;
    let sizes: Vec<usize> = asked_at(&index, EVENT)?.iter().map(|request| request.ids().len()).collect();
    ensure!(sizes.is_sorted() && sizes.last() == Some(&3), "{sizes:?}");

    with.plan(&planned(indexing_after(Some(0))))?;
    scene.file("token.token", &other.token)?;
    index.plan(&planned(indexing_after(Some(0))))?;
    for (name, http) in [("with", &with), ("token", &token), ("index", &index)] {
        let times = scene.until_all_came(name, || indexed(http))?;
        ensure!(is_once(&times), "{name}: {times:?}");
        scene.until_taken(name)?;
    }
    Ok(())
}

#[test]
fn the_next_agent_sends_what_nobody_acknowledged() -> Result<()> {
    let mut scene = Scene::set()?;
    let mut http = scene.http("http", Guard::Plain, &planned(indexing_after(None)))?;
    sink(&scene, "splunk", &http, "acknowledged-within = \"1s\"")?;
    scene.start()?;
    let first = id(&scene.refuse(1)?[0])?;
    until("it is sent again and again", || Ok(asked_at(&http, EVENT)?.len() >= 3))?;
    for request in asked_at(&http, EVENT)? {
        assert_eq!(request.ids(), std::slice::from_ref(&first));
    }
    // The wall's agent is killed, and the next one goes on.
    scene.wall.agent.kill()?;
    http.plan(&planned(indexing_after(Some(0))))?;
    scene.wall.agent.start(None)?;
    let times = scene.until_all_came("splunk", || indexed(&http))?;
    ensure!(is_once(&times) && times.contains_key(&first), "{times:?}");
    Ok(())
}
