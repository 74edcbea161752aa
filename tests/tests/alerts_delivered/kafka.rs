//! Kafka: a record for each alert, with the host as its key and the id among its headers.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use dnswall_tests::authority::{Authority, Holder};
use dnswall_tests::receiver::guard::Guard;
use dnswall_tests::receiver::kafka::{Kafka, Record};
use serde_json::Value;

use crate::scene::{Scene, id, is_once};

const TOPIC: &str = "alerts";
const PARTITIONS: u32 = 3;

fn broker(scene: &Scene, name: &str, guard: Guard) -> Result<Kafka> {
    Kafka::start(scene.wall.scratch(name), &scene.authority, guard, TOPIC, PARTITIONS)
}

fn sink(scene: &Scene, name: &str, kafka: &Kafka, more: &str) -> Result<()> {
    let keys = format!(
        "type = \"kafka\"\nbrokers = [\"{}\"]\ntopic = \"{TOPIC}\"\ntimeout = \"2s\"\n{more}",
        kafka.at()
    );
    scene.sink(name, &keys)
}

fn ids(kafka: &Kafka) -> Result<Vec<String>> {
    let id = |record: Record| record.headers.get("id").cloned().flatten().context("an id");
    kafka.records()?.into_iter().map(id).collect()
}

#[test]
fn records_have_every_alert() -> Result<()> {
    let mut scene = Scene::set()?;
    let mut plain = broker(&scene, "plain", Guard::Plain)?;
    let tls = broker(&scene, "tls", Guard::Tls)?;
    let mutual = broker(&scene, "mutual", Guard::Mutual)?;
    let holder = Holder::Host("agent.example");
    let own = scene.authority.certify(&scene.wall.scratch(""), "agent", holder)?;
    let (ca, pem, key) = (scene.authority.pem(), own.pem, own.key);
    sink(&scene, "plain", &plain, "tls = false")?;
    sink(&scene, "tls", &tls, &format!("format = \"ecs\"\nca = {ca:?}"))?;
    let mutual_keys = format!("format = \"cef\"\nca = {ca:?}\ncertificate = {pem:?}\nkey = {key:?}");
    sink(&scene, "mutual", &mutual, &mutual_keys)?;
    scene.start()?;
    scene.refuse(5)?;
    let all = scene.wall.agent.alerts()?;
    for (name, kafka) in [("plain", &plain), ("tls", &tls), ("mutual", &mutual)] {
        let times = scene.until_all_came(name, || ids(kafka))?;
        ensure!(is_once(&times), "{name}: {times:?}");
        scene.until_taken(name)?;
        for (alert, record) in all.iter().zip(kafka.records()?) {
            check(name, alert, &record).with_context(|| format!("{alert}\n{record:?}"))?;
        }
    }

    plain.stop();
    scene.refuse(3)?;
    let status = scene.until_status("plain", |status| status.failing)?;
    ensure!(status.waiting == 3 && status.last_error.is_some(), "{status:?}");
    plain.resume()?;
    let times = scene.until_all_came("plain", || ids(&plain))?;
    ensure!(is_once(&times), "{times:?}");
    scene.until_taken("plain")?;

    // Nobody says that it is there, so it comes again.
    plain.lose_answers(true)?;
    let unanswered = id(&scene.refuse(1)?[0])?;
    let status = scene.until_status("plain", |status| status.failing)?;
    ensure!((status.written, status.waiting) == (all.len() as u64 + 3, 1), "{status:?}");
    plain.lose_answers(false)?;
    scene.until_taken("plain")?;
    let times = scene.until_all_came("plain", || ids(&plain))?;
    let (twice, once): (Vec<_>, Vec<_>) = times.into_iter().partition(|(id, _)| *id == unanswered);
    ensure!(twice.iter().all(|(_, times)| *times > 1), "it did not come again: {twice:?}");
    ensure!(once.iter().all(|(_, times)| *times == 1), "the others did: {once:?}");
    let partitions = plain.records()?.into_iter().map(|record| record.partition);
    ensure!(partitions.collect::<std::collections::BTreeSet<_>>().len() == 1, "a host has one of them");
    Ok(())
}

#[test]
fn a_broker_that_is_not_trusted_gets_nothing_until_the_file_is_mended() -> Result<()> {
    let mut scene = Scene::set()?;
    let kafka = broker(&scene, "tls", Guard::Tls)?;
    let other = Authority::make(&scene.wall.scratch("other"))?;
    let (wrong, missing) = (scene.wall.scratch("wrong.pem"), scene.wall.scratch("missing.pem"));
    fs::copy(other.pem(), &wrong)?;
    sink(&scene, "wrong", &kafka, &format!("ca = {wrong:?}"))?;
    sink(&scene, "missing", &kafka, &format!("ca = {missing:?}"))?;
    scene.start()?;
    scene.refuse(3)?;
    for (name, why) in [("wrong", "certificate"), ("missing", "read `ca`")] {
        let status = scene.until_failing(name, why)?;
        ensure!((status.written, status.waiting) == (0, 3), "{name}: {status:?}");
    }
    ensure!(kafka.records()?.is_empty(), "nothing was sent");
    for file in [&wrong, &missing] {
        fs::copy(scene.authority.pem(), file)?;
    }
    for name in ["wrong", "missing"] {
        scene.until_taken(name)?;
    }
    let times = scene.until_all_came("both", || ids(&kafka))?;
    ensure!(times.values().all(|times| *times == 2), "from each sink once: {times:?}");
    Ok(())
}

#[test]
fn brokers_are_told_who_it_is_and_let_in_nobody_else() -> Result<()> {
    let mut scene = Scene::set()?;
    let place = scene.wall.scratch("");
    let (right, wrong) = ("shop:open:sesame", "shop:guess");
    fs::write(place.join("right"), format!("{right}\n"))?;
    fs::write(place.join("mended"), format!("{wrong}\n"))?;
    let ca = scene.authority.pem();
    let ways = [
        ("plain", "PLAIN", Guard::Tls),
        ("scram-sha-256", "SCRAM-SHA-256", Guard::Plain),
        ("scram-sha-512", "SCRAM-SHA-512", Guard::Tls),
    ];
    let mut brokers = Vec::new();
    for (name, mechanism, guard) in ways {
        let (names, home) = ([mechanism, "shop", "open:sesame"], scene.wall.scratch(name));
        let kafka = Kafka::start_with_names(home, &scene.authority, guard, names, TOPIC, PARTITIONS)?;
        let tls = if guard == Guard::Plain { "tls = false".to_owned() } else { format!("ca = {ca:?}") };
        let keys =
            |file: &str| format!("{tls}\nsasl = \"{name}\"\ntoken-file = {:?}", place.join(file).display());
        sink(&scene, name, &kafka, &keys("right"))?;
        sink(&scene, &format!("wrong {name}"), &kafka, &keys("mended"))?;
        brokers.push((name, kafka));
    }
    scene.start()?;
    scene.refuse(3)?;
    for (name, kafka) in &brokers {
        let wrong = format!("wrong {name}");
        let status = scene.until_status(&wrong, |status| status.failing)?;
        ensure!((status.written, status.waiting) == (0, 3), "{wrong}: {status:?}");
        ensure!(status.last_error.is_some_and(|why| !why.contains("guess")), "a secret is told");
        scene.until_taken(name)?;
        let times = scene.until_all_came(name, || ids(kafka))?;
        ensure!(is_once(&times), "{name}: {times:?}");
    }
    fs::write(place.join("mended"), right)?;
    for (name, kafka) in &brokers {
        scene.until_taken(&format!("wrong {name}"))?;
        let times = scene.until_all_came(name, || ids(kafka))?;
        ensure!(times.values().all(|times| *times == 2), "{name}: {times:?}");
    }
    Ok(())
}

fn check(name: &str, alert: &Value, record: &Record) -> Result<()> {
    let header = |name: &str| record.headers.get(name).and_then(Option::as_deref);
    assert_eq!(record.key.as_deref(), alert["host"].as_str());
    assert_eq!(header("id"), alert["id"].as_str());
    assert_eq!((header("kind"), header("severity")), (alert["kind"].as_str(), alert["severity"].as_str()));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as i64;
    ensure!((now - record.timestamp_ms).abs() < 120_000, "{now}");
    let value = record.value.as_deref().context("a value")?;
    match name {
        "plain" => assert_eq!(serde_json::from_str::<Value>(value)?, *alert),
        "tls" => assert_eq!(serde_json::from_str::<Value>(value)?["event"]["id"], alert["id"]),
        _ => ensure!(value.starts_with("CEF:0|dnswall|") && record.ids() == [id(alert)?], "{value}"),
    }
    Ok(())
}
