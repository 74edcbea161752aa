//! The HTTP receiver itself, and the webhook: curl posts, over TLS and not, and sees every fault there is.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dnswall_tests::receiver::guard::Guard;
use dnswall_tests::receiver::plan::{Fault, How, Plan};

use crate::client::{Scene, client_certificate, curl, run, shown};

const ID: &str = "0195519e-9200-7000-8000-000000000001";

/// curl's exit codes.
const NOT_REACHED: i32 = 7;
const TIMED_OUT: i32 = 28;
const NOTHING_CAME: i32 = 52;
const NOT_TRUSTED: i32 = 60;

#[test]
fn a_hook_takes_what_is_posted() -> Result<()> {
    let scene = Scene::set(Guard::Plain)?;
    let body = format!("{{\"id\":\"{ID}\"}}");
    let answer = scene.post("/hook?a=b", &["--header", "Authorization: Bearer x"], &body)?;
    ensure!(answer.status == 204 && answer.body.is_empty(), "{answer:?}");
    let requests = scene.http.requests()?;
    let [request] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!(
        (request.method.as_str(), request.path.as_str(), request.query.as_str()),
        ("POST", "/hook", "a=b")
    );
    assert_eq!((request.authorization(), request.status), (Some("Bearer x"), Some(204)));
    assert_eq!((request.body.as_slice(), request.ids()), (body.as_bytes(), vec![ID.to_owned()]));
    ensure!(request.is_taken() && request.at_secs > 1.7e9, "{request:?}");
    assert_eq!(scene.documents()?, [body]);
    assert_eq!(scene.post("/elsewhere", &[], "x")?.status, 404);
    assert_eq!(scene.documents()?.len(), 1);
    Ok(())
}

#[test]
fn a_body_may_be_packed_and_in_pieces() -> Result<()> {
    let scene = Scene::set(Guard::Plain)?;
    let packed = run("gzip", &["--stdout"], b"one")?.text;
    let gzip = ["--header", "Content-Encoding: gzip"];
    assert_eq!(curl(&scene.http.url("/hook"), &gzip, &packed)?.status, 204);
    let chunked = ["--header", "Transfer-Encoding: chunked"];
    assert_eq!(scene.post("/hook", &chunked, "two")?.status, 204);
    assert_eq!(scene.post("/hook", &gzip, "three")?.status, 400);
    assert_eq!(scene.documents()?, ["one", "two"]);
    Ok(())
}

#[test]
fn a_hook_asks_who_is_there() -> Result<()> {
    let scene = Scene::planned(&Plan { authorization: Some("Bearer right".to_owned()), ..Plan::default() })?;
    assert_eq!(scene.post("/hook", &[], "x")?.status, 401);
    assert_eq!(scene.post("/hook", &["--header", "Authorization: Bearer wrong"], "x")?.status, 401);
    assert_eq!(scene.post("/hook", &["--header", "Authorization: Bearer right"], "x")?.status, 204);
    assert_eq!(scene.documents()?, ["x"]);
    Ok(())
}

#[test]
fn one_that_is_stopped_refuses_and_comes_back_where_it_was() -> Result<()> {
    let mut scene = Scene::set(Guard::Plain)?;
    let url = scene.http.url("/hook");
    assert_eq!(scene.post("/hook", &[], "before")?.status, 204);
    scene.http.stop();
    assert_eq!(scene.post("/hook", &[], "meanwhile")?.code, NOT_REACHED);
    scene.http.resume()?;
    assert_eq!(scene.http.url("/hook"), url);
    assert_eq!(scene.post("/hook", &[], "after")?.status, 204);
    assert_eq!(scene.documents()?, ["before", "after"]);
    Ok(())
}

#[test]
fn tls_shows_a_certificate_of_the_authority() -> Result<()> {
    let scene = Scene::set(Guard::Tls)?;
    assert_eq!(scene.post("/hook", &[], "x")?.code, NOT_TRUSTED);
    let trusting = ["--cacert", shown(scene.authority.pem())?];
    assert_eq!(scene.post("/hook", &trusting, "x")?.status, 204);
    assert_eq!(scene.http.requests()?.len(), 1);
    Ok(())
}

#[test]
fn who_has_no_certificate_may_have_to_stay_outside() -> Result<()> {
    let scene = Scene::set(Guard::Mutual)?;
    let trusting = ["--cacert", shown(scene.authority.pem())?];
    let refused = scene.post("/hook", &trusting, "x")?;
    ensure!(refused.code != 0 && refused.status == 0, "{refused:?}");
    let (pem, key) = client_certificate(&scene.authority, scene.directory())?;
    let with = [&trusting[..], &["--cert", shown(&pem)?, "--key", shown(&key)?]].concat();
    assert_eq!(scene.post("/hook", &with, "x")?.status, 204);
    let requests = scene.http.requests()?;
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].client.as_deref(), Some("agent.example"));
    Ok(())
}

#[test]
fn a_plan_is_carried_out_in_its_order() -> Result<()> {
    let plan = Plan::default()
        .fault("/hook", Fault::status(503).times(2).retry_after("7"))
        .fault("/hook", Fault::late(300).times(1));
    let scene = Scene::planned(&plan)?;
    for _ in 0..2 {
        let answer = scene.post("/hook", &["--include"], "refused")?;
        ensure!(answer.status == 503, "{answer:?}");
        ensure!(String::from_utf8_lossy(&answer.body).contains("\r\nRetry-After: 7\r\n"), "{answer:?}");
    }
    let began = Instant::now();
    assert_eq!(scene.post("/hook", &[], "late")?.status, 204);
    ensure!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    assert_eq!(scene.post("/hook", &[], "as usual")?.status, 204);
    assert_eq!(scene.documents()?, ["late", "as usual"]);
    let statuses: Vec<_> = scene.http.requests()?.iter().map(|request| request.status).collect();
    assert_eq!(statuses, [Some(503), Some(503), Some(204), Some(204)]);
    Ok(())
}

#[test]
fn a_request_may_be_cut_or_never_answered() -> Result<()> {
    let plan = Plan::default()
        .fault("/hook", Fault::how(How::CutRequest).times(1))
        .fault("/hook", Fault::how(How::CutAnswer).times(1))
        .fault("/hook", Fault::how(How::Silent).times(1));
    let scene = Scene::planned(&plan)?;
    let cut = scene.post("/hook", &[], "lost on its way")?;
    ensure!(cut.code == NOTHING_CAME || cut.code == 56, "{cut:?}");
    let half = scene.post("/hook", &[], "taken, and not told")?;
    ensure!(half.code != 0 && half.status == 0, "{half:?}");
    assert_eq!(scene.post("/hook", &["--max-time", "1"], "taken in silence")?.code, TIMED_OUT);
    assert_eq!(scene.post("/hook", &[], "as usual")?.status, 204);
    assert_eq!(scene.documents()?, ["taken, and not told", "taken in silence", "as usual"]);
    let statuses: Vec<_> = scene.http.requests()?.iter().map(|request| request.status).collect();
    assert_eq!(statuses, [None, Some(204), None, Some(204)]);
    Ok(())
}

#[test]
fn a_body_that_is_too_large_is_refused() -> Result<()> {
    let scene = Scene::planned(&Plan { body_bytes_max: Some(10), ..Plan::default() })?;
    assert_eq!(scene.post("/hook", &[], "0123456789")?.status, 204);
    assert_eq!(scene.post("/hook", &[], "0123456789a")?.status, 413);
    assert_eq!(scene.post("/hook", &["--header", "Transfer-Encoding: chunked"], "0123456789a")?.status, 413);
    assert_eq!(scene.documents()?, ["0123456789"]);
    Ok(())
}
