//! The store of Elastic's: a document for each alert, under its id.

use anyhow::{Context as _, Result, ensure};
use dnswall_tests::receiver::guard::Guard;
use dnswall_tests::receiver::http::{Http, Taken};
use dnswall_tests::receiver::plan::{Elastic, Fault, How, Plan, Refusal};
use serde_json::{Value, json};

use crate::scene::{Scene, id, is_once};

const BULK: &str = "/_bulk";
const STREAM: &str = "logs-dnswall.alerts-default";

fn refusing(refusal: Refusal) -> Plan {
    Plan { elastic: Elastic { refuse: vec![refusal] }, ..Plan::default() }
}

/// Under which ids there are documents.
fn created(http: &Http) -> Result<Vec<String>> {
    Ok(http.taken()?.into_iter().filter_map(|taken| taken.id).collect())
}

fn document(taken: &Taken) -> Result<Value> {
    serde_json::from_str(taken.document.as_deref().context("a document")?).context("read it")
}

#[test]
fn an_alert_is_one_document_however_often_it_is_sent() -> Result<()> {
    let mut scene = Scene::set()?;
    let twice = Plan::default()
        .fault(BULK, Fault::how(How::CutAnswer).times(1))
        .fault(BULK, Fault::how(How::Silent).times(1));
    let full = Plan::default()
        .fault(BULK, Fault::status(429).times(1).retry_after("2"))
        .fault(BULK, Fault::status(503).times(1));
    let busy = Refusal { times: Some(2), id: None, status: 429 };
    let (authorization, key) = (Some("ApiKey c2VzYW1l".to_owned()), scene.file("key", "c2VzYW1l\n")?);
    let twice = scene.http("twice", Guard::Tls, &Plan { authorization, ..twice })?;
    let full = scene.http("full", Guard::Plain, &full)?;
    let busy = scene.http("busy", Guard::Plain, &refusing(busy))?;
    let ca = scene.authority.pem();
    for (name, http, more) in [
        ("twice", &twice, format!("token-file = {key:?}\nca = {ca:?}\ntimeout = \"1s\"")),
        ("full", &full, "format = \"json\"\nindex = \"walls\"".to_owned()),
        ("busy", &busy, "format = \"ocsf\"".to_owned()),
    ] {
        scene.sink(name, &format!("type = \"elastic\"\nurl = \"{}\"\n{more}", http.url("")))?;
    }
    scene.start()?;
    let alerts = scene.refuse(5)?;
    for (name, http) in [("twice", &twice), ("full", &full), ("busy", &busy)] {
        let times = scene.until_all_came(name, || created(http))?;
        ensure!(is_once(&times), "{name}: {times:?}");
        scene.until_taken(name)?;
        assert_eq!(http.said(), "");
    }
    let sent: usize = twice.requests()?.iter().map(|request| request.ids().len()).sum();
    ensure!(sent > 2 * alerts.len(), "its id is there twice in each request, and {sent} were sent");
    let [first, second] = [0, 1].map(|place| full.requests().map(|all| all[place].at_secs));
    ensure!(second? - first? > 1.95, "it was left alone");
    ensure!(scene.status("busy")?.failures >= 1 && scene.status("busy")?.rejected == 0);

    for (alert, taken) in alerts.iter().zip(&twice.taken()?) {
        let document = document(taken)?;
        assert_eq!((taken.id.as_deref(), taken.index.as_deref()), (alert["id"].as_str(), Some(STREAM)));
        assert_eq!((&document["event"]["id"], &document["@timestamp"]), (&alert["id"], &alert["time"]));
        assert_eq!(document["ecs"]["version"].as_str().map(|version| version.starts_with("9.")), Some(true));
        assert_eq!(document["destination"]["ip"], alert["flow"]["destination"]);
        assert_eq!(
            (&document["rule"]["name"], &document["event"]["reason"]),
            (&json!("default"), &json!("no-rule"))
        );
    }
    for (alert, taken) in alerts.iter().zip(&full.taken()?) {
        assert_eq!((document(taken)?, taken.index.as_deref()), (alert.clone(), Some("walls")));
    }
    Ok(())
}

/// It is about this document, and about it alone.
#[test]
fn a_document_that_does_not_fit_is_given_up_and_counted() -> Result<()> {
    let mut scene = Scene::set()?;
    let mut http = scene.http("http", Guard::Plain, &Plan::default().fault(BULK, Fault::status(503)))?;
    scene.sink("elastic", &format!("type = \"elastic\"\nurl = \"{}\"", http.url("")))?;
    scene.start()?;
    let alerts = scene.refuse(6)?;
    let poison = id(&alerts[2])?;
    http.plan(&refusing(Refusal { times: None, id: Some(poison.clone()), status: 400 }))?;
    let mut others = scene.ids()?;
    others.remove(&poison);
    let times = scene.until_came("elastic", &others, || created(&http))?;
    ensure!(is_once(&times), "{times:?}");
    let status = scene.until_status("elastic", |status| status.waiting == 0)?;
    ensure!((status.written, status.rejected, status.lost) == (5, 1, 0), "{status:?}");
    let said = status.last_error.context("it says so")?;
    ensure!(said.contains(&poison) && said.contains("mapper_parsing_exception"), "{said}");
    // It does not come back.
    scene.refuse(1)?;
    scene.until_status("elastic", |status| status.written == 6 && status.rejected == 1)?;
    Ok(())
}
