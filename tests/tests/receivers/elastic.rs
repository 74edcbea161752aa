//! The store of Elastic's: pairs of lines, and an answer for each of them.

use anyhow::Result;
use dnswall_tests::receiver::plan::{Elastic, Plan, Refusal};
use serde_json::{Value, json};

use crate::client::{Answer, Scene};

const NDJSON: [&str; 2] = ["--header", "Content-Type: application/x-ndjson"];

fn create(id: &str, document: &str) -> String {
    format!("{}\n{document}\n", json!({"create": {"_index": "alerts", "_id": id}}))
}

fn bulk(scene: &Scene, body: &str) -> Result<Answer> {
    scene.post("/_bulk", &NDJSON, body)
}

/// Status and type of error of each item.
fn items(answer: &Answer) -> Result<Vec<(u64, Value)>> {
    let body = answer.json()?;
    let items = body["items"].as_array().cloned().unwrap_or_default();
    let results = items.iter().filter_map(|item| item.as_object()?.values().next());
    let items: Vec<_> = results
        .map(|result| (result["status"].as_u64().unwrap_or(0), result["error"]["type"].clone()))
        .collect();
    assert_eq!(body["errors"], items.iter().any(|(status, _)| *status >= 400));
    Ok(items)
}

/// Also after it was started again.
#[test]
fn a_document_is_created_once() -> Result<()> {
    let mut scene = Scene::planned(&Plan::default())?;
    let pair = create("a", "{\"x\":1}") + &create("b", "{\"x\":2}");
    let created = bulk(&scene, &pair)?;
    assert_eq!((created.status, items(&created)?), (200, vec![(201, Value::Null), (201, Value::Null)]));
    scene.http.stop();
    scene.http.resume()?;
    let again = bulk(&scene, &(create("b", "{\"x\":2}") + &create("c", "{\"x\":3}")))?;
    let conflict = json!("version_conflict_engine_exception");
    assert_eq!((again.status, items(&again)?), (200, vec![(409, conflict), (201, Value::Null)]));
    let ids: Vec<_> = scene.http.taken()?.into_iter().map(|taken| (taken.id, taken.index)).collect();
    let of = |id: &str| (Some(id.to_owned()), Some("alerts".to_owned()));
    assert_eq!(ids, [of("a"), of("b"), of("c")]);
    assert_eq!(scene.documents()?, ["{\"x\":1}", "{\"x\":2}", "{\"x\":3}"]);
    Ok(())
}

#[test]
fn documents_are_refused_one_by_one() -> Result<()> {
    let refuse = vec![
        Refusal { times: Some(1), id: Some("b".to_owned()), status: 429 },
        Refusal { times: None, id: Some("c".to_owned()), status: 400 },
    ];
    let scene = Scene::planned(&Plan { elastic: Elastic { refuse }, ..Plan::default() })?;
    let body: String = ["a", "b", "c"].map(|id| create(id, "{}")).concat() + &create("d", "no document");
    let mapping = || json!("mapper_parsing_exception");
    let expected = [
        (201, Value::Null),
        (429, json!("es_rejected_execution_exception")),
        (400, mapping()),
        (400, mapping()),
    ];
    assert_eq!(items(&bulk(&scene, &body)?)?, expected);
    let rest = create("b", "{}") + &create("c", "{}");
    assert_eq!(items(&bulk(&scene, &rest)?)?, [(201, Value::Null), (400, mapping())]);
    assert_eq!(scene.documents()?.len(), 2);
    Ok(())
}

#[test]
fn a_request_that_is_wrong_is_refused_whole() -> Result<()> {
    let scene = Scene::planned(&Plan::default())?;
    let good = create("a", "{}");
    let wrong = [
        String::new(),
        good.trim_end().to_owned(),
        "{\"create\":{\"_index\":\"alerts\",\"_id\":\"b\"}}\n".to_owned(),
        good.clone() + "{\"create\":{\"_id\":\"b\"}}\n{}\n",
        good.clone() + "{\"update\":{\"_index\":\"alerts\",\"_id\":\"b\"}}\n{}\n",
        good.clone() + "\n\n",
    ];
    for body in wrong {
        let answer = bulk(&scene, &body)?;
        assert_eq!(answer.status, 400, "{body}");
        assert_eq!(answer.json()?["error"]["type"], "illegal_argument_exception", "{body}");
    }
    let text = scene.post("/_bulk", &["--header", "Content-Type: text/plain"], &good)?;
    assert_eq!(text.status, 406);
    assert_eq!(scene.documents()?.len(), 0);
    Ok(())
}

#[test]
fn an_index_may_stand_in_the_path() -> Result<()> {
    let scene = Scene::planned(&Plan::default())?;
    let answer = scene.post("/alerts/_bulk", &NDJSON, "{\"create\":{\"_id\":\"a\"}}\n{}\n")?;
    assert_eq!(answer.json()?["items"][0]["create"]["_index"], "alerts");
    assert_eq!(scene.http.taken()?[0].index.as_deref(), Some("alerts"));
    Ok(())
}
