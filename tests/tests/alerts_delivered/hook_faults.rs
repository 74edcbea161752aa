//! The webhook when something goes wrong: what the server asks for is done, and no alert is lost.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use dnswall_tests::receiver::guard::Guard;
use dnswall_tests::receiver::http::{Http, Request};
use dnswall_tests::receiver::plan::{Fault, How, Plan};
use serde_json::Value;

use crate::scene::{Scene, id, is_once, taken_at};

/// What goes wrong at a path, and how.
struct Case {
    path: &'static str,
    fault: Fault,
    /// What the requests come to before the one that is answered with success: a status, or none.
    failed: &'static [Option<u16>],
    /// What `status` says of the last of them.
    why: &'static str,
    /// Seconds between the last that failed and the one after it, at least.
    rest_secs: f64,
    /// How often each alert comes.
    times: usize,
}

fn cases() -> Vec<Case> {
    let case = |path, fault, failed, why| Case { path, fault, failed, why, rest_secs: 0.5, times: 1 };
    vec![
        Case {
            rest_secs: 4.0,
            ..case(
                "/hook/busy",
                Fault::status(429).times(1).retry_after("4"),
                &[Some(429)],
                "the server answers 429",
            )
        },
        Case {
            rest_secs: 3.0,
            ..case(
                "/hook/down",
                Fault::status(503).times(2).retry_after("3"),
                &[Some(503), Some(503)],
                "the server answers 503",
            )
        },
        case("/hook/broken", Fault::status(500).times(1), &[Some(500)], "the server answers 500"),
        case("/hook/gone", Fault::status(404).times(1), &[Some(404)], "the server answers 404"),
        case("/hook/moved", Fault::status(307).times(1), &[Some(307)], "redirects (307)"),
        case("/hook/cut", Fault::how(How::CutRequest).times(1), &[None], ""),
        Case { times: 2, ..case("/hook/cut-answer", Fault::how(How::CutAnswer).times(1), &[Some(204)], "") },
        Case {
            times: 2,
            ..case("/hook/silent", Fault::how(How::Silent).times(1), &[None], "not here within 1 s")
        },
        // Slow is not wrong.
        case("/hook/late", Fault::late(500).times(1), &[], ""),
    ]
}

#[test]
fn what_fails_is_sent_again() -> Result<()> {
    let mut scene = Scene::set()?;
    let cases = cases();
    let plan = cases.iter().fold(Plan::default(), |plan, case| plan.fault(case.path, case.fault.clone()));
    let http = scene.http("http", Guard::Plain, &plan)?;
    for case in &cases {
        let url = http.url(case.path);
        scene.sink(case.path, &format!("type = \"webhook\"\nurl = \"{url}\"\ntimeout = \"1s\""))?;
    }
    scene.start()?;
    // Alone, so that it is the same one in every request.
    scene.refuse(1)?;
    for case in &cases {
        check(&scene, &http, case).with_context(|| case.path)?;
    }
    scene.refuse(3)?;
    for case in &cases {
        scene.until_taken(case.path)?;
    }
    Ok(())
}

fn check(scene: &Scene, http: &Http, case: &Case) -> Result<()> {
    let status = scene.until_taken(case.path)?;
    let times = scene.until_all_came(case.path, || taken_at(http, case.path))?;
    ensure!(times.values().all(|times| *times == case.times), "{times:?}");
    let requests: Vec<Request> =
        http.requests()?.into_iter().filter(|request| request.path == case.path).collect();
    let (last, failed) = requests.split_last().context("a request")?;
    let statuses: Vec<_> = failed.iter().map(|request| request.status).collect();
    ensure!(statuses == case.failed && last.status == Some(204), "{statuses:?}, {:?}", last.status);
    assert_eq!(status.failures, failed.len() as u64, "{status:?}");
    let said = status.last_error.unwrap_or_default();
    ensure!(said.contains(case.why) && said.is_empty() == failed.is_empty(), "it says {said:?}");
    for pair in requests.windows(2) {
        let key = |request: &Request| request.header("idempotency-key").map(str::to_owned);
        ensure!(key(&pair[0]).is_some() && key(&pair[0]) == key(&pair[1]), "a key for the same alert");
        let rest = pair[1].at_secs - pair[0].at_secs;
        // The clock of the log may be some milliseconds later than the answer.
        ensure!(rest > case.rest_secs - 0.05, "{rest} s after {:?}", pair[0].status);
    }
    Ok(())
}

#[test]
fn a_token_may_be_mended() -> Result<()> {
    let mut scene = Scene::set()?;
    let plan = Plan { authorization: Some("Bearer right".to_owned()), ..Plan::default() };
    let http = scene.http("http", Guard::Plain, &plan)?;
    let token = scene.file("token", "wrong\n")?;
    let missing = scene.wall.scratch("missing");
    for (name, file) in [("wrong", &token), ("missing", &missing)] {
        let url = http.url(&format!("/hook/{name}"));
        scene.sink(name, &format!("type = \"webhook\"\nurl = \"{url}\"\ntoken-file = {file:?}"))?;
    }
    scene.start()?;
    scene.refuse(3)?;
    for (name, why) in [("wrong", "the server answers 401"), ("missing", "No such file")] {
        let status = scene.until_failing(name, why)?;
        ensure!((status.written, status.waiting) == (0, 3), "{status:?}");
    }
    ensure!(http.taken()?.is_empty() && taken_at(&http, "/hook/missing")?.is_empty());
    for file in ["token", "missing"] {
        scene.file(file, "right\n")?;
    }
    for name in ["wrong", "missing"] {
        let times = scene.until_all_came(name, || taken_at(&http, &format!("/hook/{name}")))?;
        ensure!(is_once(&times), "{times:?}");
        scene.until_taken(name)?;
    }
    Ok(())
}

#[test]
fn too_much_at_once_comes_in_halves() -> Result<()> {
    let mut scene = Scene::set()?;
    let mut http = scene.http("http", Guard::Plain, &Plan::default().fault("/hook", Fault::status(503)))?;
    scene.sink("hook", &format!("type = \"webhook\"\nurl = \"{}\"", http.url("/hook")))?;
    scene.start()?;
    let alerts = scene.refuse(20)?;
    let longest = alerts.iter().map(|alert| alert.to_string().len()).max().context("alerts")?;
    http.plan(&Plan { body_bytes_max: Some(3 * longest), ..Plan::default() })?;
    let times = scene.until_all_came("hook", || taken_at(&http, "/hook"))?;
    ensure!(is_once(&times), "{times:?}");
    scene.until_taken("hook")?;
    let requests = http.requests()?;
    let too_much = requests.iter().filter(|request| request.status == Some(413)).count();
    let most = requests.iter().filter(|request| request.is_taken()).map(|request| request.ids().len()).max();
    ensure!(too_much > 0 && most.is_some_and(|most| (1..=3).contains(&most)), "{too_much}, {most:?}");
    Ok(())
}

/// Its six tries take a quarter of a minute.
#[test]
fn one_that_is_never_taken_keeps_no_other_waiting_for_ever() -> Result<()> {
    let mut scene = Scene::set()?;
    let poisoned = scene.next_place(3);
    let plan = Plan { poison: Some(format!("\"destination\":\"{poisoned}\"")), ..Plan::default() };
    let http = scene.http("http", Guard::Plain, &plan)?;
    for body in ["lines", "each"] {
        let url = http.url(&format!("/hook/{body}"));
        scene.sink(body, &format!("type = \"webhook\"\nurl = \"{url}\"\nbody = \"{body}\""))?;
    }
    scene.start()?;
    let alerts = scene.refuse(10)?;
    let is_poison = |alert: &&Value| alert["flow"]["destination"] == poisoned.as_str();
    let poison = id(alerts.iter().find(is_poison).context("the one")?)?;
    let others: BTreeSet<String> = scene.ids()?.into_iter().filter(|id| *id != poison).collect();
    ensure!(others.len() == 9, "{others:?}");
    for body in ["lines", "each"] {
        let path = format!("/hook/{body}");
        let times = scene.until_came(body, &others, || taken_at(&http, &path))?;
        ensure!(is_once(&times), "{body}: {times:?}");
        let status = scene.until_status(body, |status| status.waiting == 0 && !status.failing)?;
        ensure!((status.written, status.rejected, status.lost) == (9, 1, 0), "{body}: {status:?}");
        let said = status.last_error.context("it says so")?;
        ensure!(said.contains(&poison) && said.contains("rejected"), "{body}: {said}");
        // Alone; with others it is only looked for.
        let tries = http.requests()?.into_iter().filter(|request| request.path == path);
        let alone: Vec<Request> = tries.filter(|request| request.ids() == [poison.clone()]).collect();
        ensure!(alone.len() == 6, "{body}: it was tried {} times", alone.len());
        let whole = alone[5].at_secs - alone[0].at_secs;
        ensure!((15.0..22.0).contains(&whole), "{body}: in {whole} s");
        // Nobody rests once it is given up.
        let taken = http.taken()?;
        let last = taken.iter().rfind(|taken| taken.path == path).context("the last")?;
        ensure!(last.at_secs - alone[5].at_secs < 3.0, "{body}: the others waited");
    }
    ensure!(scene.wall.agent.log().contains(&poison), "the log names it");
    Ok(())
}
