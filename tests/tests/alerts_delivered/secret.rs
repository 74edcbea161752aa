//! Secrets of sinks: they come to the server, and stand nowhere else.

use std::fs;

use anyhow::{Result, ensure};
use dnswall_tests::prometheus::{free_address, get};
use dnswall_tests::receiver::guard::Guard;
use dnswall_tests::receiver::plan::{Fault, Plan, Splunk};

use crate::scene::{Scene, taken_at, until};

/// Each is somebody's, and none is a part of another.
const SECRETS: [&str; 6] =
    ["oPen-bearer-1", "oPen-user-2", "oPen-pass-3", "oPen-splunk-4", "oPen-query-5", "oPen-env-6"];

#[test]
fn secrets_stand_nowhere() -> Result<()> {
    let mut scene = Scene::set()?;
    let [bearer, user, pass, splunk, query, variable] = SECRETS;
    let plan = Plan {
        splunk: Splunk { token: splunk.to_owned(), ..Splunk::default() },
        echo: true,
        ..Plan::default()
    };
    // Each fails at first, and the server says what it got.
    let paths = ["/hook/a", "/hook/b", "/hook/c", "/_bulk", "/services/collector/event"];
    let plan = paths.iter().fold(plan, |plan, path| plan.fault(path, Fault::status(401).times(2)));
    let http = scene.http("http", Guard::Plain, &plan)?;
    let file = |name: &str, text: &str| scene.file(name, text);
    let token = file("token", bearer)?;
    let basic = file("basic", &format!("{user}:{pass}\n"))?;
    let of_splunk = file("splunk", splunk)?;
    scene.wall.agent.set_environment("HOOK_SECRET", variable);
    let metrics = free_address()?;
    scene.configure(&format!("[metrics]\naddress = \"{metrics}\"\n"))?;
    // Without names, so that one is made of the URL.
    for keys in [
        format!("type = \"webhook\"\nurl = \"{}?key={query}\"\ntoken-file = {token:?}", http.url("/hook/a")),
        format!(
            "type = \"webhook\"\nurl = \"{}\"\ntoken-file = {basic:?}\nauthorization = \"basic\"",
            http.url("/hook/b")
        ),
        format!("type = \"webhook\"\nurl = \"{}\"\ntoken-env = \"HOOK_SECRET\"", http.url("/hook/c")),
        format!("type = \"elastic\"\nurl = \"{}\"\ntoken-file = {token:?}", http.url("")),
        format!(
            "type = \"splunk\"\nurl = \"{}\"\ntoken-file = {of_splunk:?}\nacknowledge = false",
            http.url("")
        ),
    ] {
        scene.configure(&format!("[[sink]]\n{keys}\n"))?;
    }
    scene.start()?;
    scene.refuse(2)?;
    let looks = |scene: &Scene| -> Result<Vec<(&str, String)>> {
        let said = |arguments: &[&str]| -> Result<String> {
            let said = scene.wall.agent.say(arguments)?;
            Ok(said.text + &said.errors)
        };
        Ok(vec![
            ("the log", fs::read_to_string(scene.wall.scratch("agent.log"))?),
            ("status", said(&["status"])?),
            ("status as JSON", said(&["status", "--output", "json"])?),
            ("events", said(&["events", "--last", "50", "--output", "json"])?),
            ("metrics", get(metrics, "/metrics")?.1),
            ("alerts", fs::read_to_string(scene.wall.agent.alerts_path())?),
        ])
    };
    // What a URL's and a header's encodings make of them is as good.
    let basic = "b1Blbi11c2VyLTI6b1Blbi1wYXNzLTM=";
    let none = |scene: &Scene| -> Result<()> {
        for (place, text) in looks(scene)? {
            ensure!(!text.is_empty(), "{place} is empty");
            for secret in SECRETS.iter().chain([&basic]) {
                ensure!(!text.contains(secret), "{place} has {secret}: {text}");
            }
        }
        Ok(())
    };
    let failing = || -> Result<usize> {
        let status = scene.wall.agent.status()?;
        let sinks = status["sinks"].as_array().cloned().unwrap_or_default();
        Ok(sinks.iter().filter(|sink| sink["last_error"].to_string().contains("401")).count())
    };
    until("all fail", || Ok(failing()? == paths.len()))?;
    none(&scene)?;
    until("all came", || {
        let hooks = ["/hook/a", "/hook/b", "/hook/c"];
        let counts: Vec<usize> =
            hooks.iter().map(|path| Ok(taken_at(&http, path)?.len())).collect::<Result<_>>()?;
        Ok(counts == [2, 2, 2] && http.taken()?.len() == 5 + 2)
    })?;
    none(&scene)?;
    // They came where they belong.
    let sent: String = http
        .requests()?
        .iter()
        .map(|request| format!("{} {}\n", request.query, request.authorization().unwrap_or_default()))
        .collect();
    for secret in [bearer, splunk, query, variable, basic] {
        ensure!(sent.contains(secret), "{secret}: {sent}");
    }
    Ok(())
}
