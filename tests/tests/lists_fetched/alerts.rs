//! What becomes of a list is an alert.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::scene::{Scene, TEN};

#[test]
fn a_list_that_does_not_come_is_an_alert_and_that_it_came_is_one() -> Result<()> {
    let mut scene = Scene::begun()?;
    let told = |scene: &Scene, kind: &str, is_over: bool| -> Result<Value> {
        let is_it = |alert: &Value| alert["kind"] == kind && alert["blocklist"]["over"] == is_over;
        let alert = scene.wall.agent.wait_for_alert(0, is_it)?;
        let about = &alert["blocklist"];
        ensure!(about["name"] == "bad" && about["entries"] == 10, "{alert}");
        ensure!(about["source"].as_str().is_some_and(|source| source.ends_with("/list.txt?…")), "{alert}");
        ensure!(alert["severity"] == if is_over { "info" } else { "medium" }, "{alert}");
        ensure!(alert["verdict"].is_null() && alert["flow"].is_null(), "{alert}");
        Ok(alert)
    };
    scene.server.serve(&TEN[..60], &json!({}))?;
    scene.goes_on("refused", "max-shrink")?;
    let alert = told(&scene, "blocklist.rejected", false)?;
    ensure!(alert["blocklist"]["found"].to_string().contains("max-shrink"), "{alert}");
    scene.server.serve(TEN, &json!({}))?;
    let (code, said) = scene.update(&[])?;
    ensure!(code == 0, "{said}");
    let alert = told(&scene, "blocklist.rejected", true)?;
    ensure!(alert["blocklist"]["found"].to_string().contains("over: "), "{alert}");

    // Nobody could ask its server for long.
    scene.server.stop();
    scene.wall.agent.stop()?;
    let lists = scene.wall.agent.state().join("lists");
    let mut files = fs::read_dir(&lists)?.map(|file| Ok(file?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|end| end == "json"));
    let record = files.first().context("what is known of the list")?;
    let mut known: Value = serde_json::from_slice(&fs::read(record)?)?;
    known["confirmed"] = json!("2026-01-01T00:00:00Z");
    fs::write(record, known.to_string())?;
    scene.wall.agent.start(None)?;
    let alert = told(&scene, "blocklist.stale", false)?;
    ensure!(alert["blocklist"]["found"].to_string().contains("not refreshed since"), "{alert}");
    scene.server.resume()?;
    let (code, said) = scene.update(&[])?;
    ensure!(code == 0, "{said}");
    told(&scene, "blocklist.stale", true)?;
    let alerts = scene.wall.agent.alerts()?;
    let of_list = alerts.iter().filter(|alert| !alert["blocklist"].is_null()).count();
    ensure!(of_list == 4, "each once: {alerts:#?}");
    ensure!(!alerts.iter().any(|alert| alert.to_string().contains("sesame")), "a secret is told");
    Ok(())
}
