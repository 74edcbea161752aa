//! Takes an object, gives what is wrong with it as ECS 9.4.0 says (`tests/schemas/ecs-9.4.0.json`).

use std::net::IpAddr;
use std::sync::LazyLock;

use serde_json::Value;

/// Fields of our own, which ECS leaves to everybody below a name of theirs.
const OWN: &str = "dnswall.";

static SCHEMA: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../tests/schemas/ecs-9.4.0.json")).unwrap());

/// Every problem, with the name of its field.
pub fn problems(object: &Value) -> Vec<String> {
    let schema = &*SCHEMA;
    let fields = schema["fields"].as_object().unwrap();
    let mut leaves = Vec::new();
    flatten("", object, &mut leaves);
    let mut problems: Vec<String> = leaves
        .iter()
        .filter(|(name, _)| !name.starts_with(OWN))
        .filter_map(|(name, value)| {
            let wrong = match fields.get(name) {
                Some(field) => wrong_value(field, value)?,
                None => "no such field".to_owned(),
            };
            Some(format!("{name}: {wrong}"))
        })
        .collect();
    for (name, field) in fields {
        if field["required"] == true && !leaves.iter().any(|(leaf, _)| leaf == name) {
            problems.push(format!("{name}: required"));
        }
    }
    problems.extend(unexpected_types(fields, object));
    problems
}

fn flatten(name: &str, value: &Value, leaves: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                flatten(&name, value, leaves);
            }
        }
        value => leaves.push((name.to_owned(), value.clone())),
    }
}

fn wrong_value(field: &Value, value: &Value) -> Option<String> {
    let is_list = field["normalize"].as_array().unwrap().contains(&Value::from("array"));
    match (is_list, value) {
        (true, Value::Array(list)) => list.iter().find_map(|value| wrong_single(field, value)),
        (true, _) => Some("is no list".to_owned()),
        (false, value) => wrong_single(field, value),
    }
}

fn wrong_single(field: &Value, value: &Value) -> Option<String> {
    let text = value.as_str();
    let kind = field["type"].as_str().unwrap();
    let fits = match kind {
        "keyword" | "wildcard" | "match_only_text" => text.is_some(),
        "long" => value.is_i64() || value.is_u64(),
        "float" => value.is_number(),
        "ip" => text.is_some_and(|text| text.parse::<IpAddr>().is_ok()),
        "date" => text.is_some_and(|text| text.parse::<jiff::Timestamp>().is_ok()),
        other => panic!("a type that is not known here: {other}"),
    };
    if !fits {
        return Some(format!("{value} is no {kind}"));
    }
    let text = text?;
    let allowed = field["allowed_values"].as_object().map(|allowed| allowed.contains_key(text));
    let expected = field["expected_values"].as_array().map(|expected| expected.contains(value));
    if allowed == Some(false) || expected == Some(false) {
        return Some(format!("{text} is none of its values"));
    }
    let limit = field["ignore_above"].as_u64()?;
    (text.chars().count() as u64 > limit).then(|| format!("longer than {limit}"))
}

/// Each `event.type` has to be expected for one category at least.
fn unexpected_types(fields: &serde_json::Map<String, Value>, object: &Value) -> Vec<String> {
    let categories = &fields["event.category"]["allowed_values"];
    let of = |key: &str| object["event"][key].as_array().cloned().unwrap_or_default();
    let expected: Vec<&Value> = of("category")
        .iter()
        .filter_map(|category| categories[category.as_str()?].as_array())
        .flatten()
        .collect();
    let wrong = |kind: &Value| !expected.contains(&kind);
    of("type")
        .iter()
        .filter(|kind| wrong(kind))
        .map(|kind| format!("event.type: {kind} fits no category"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::sample;
    use crate::format::ecs;

    /// What becomes wrong when this is set at that place.
    fn check(pointer: &str, value: Value, expected: &str) {
        let mut object = ecs::object(&sample::alert());
        assert_eq!(problems(&object), [""; 0]);
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(key.to_owned(), value);
        assert_eq!(problems(&object), [expected], "{pointer}");
    }

    #[test]
    fn each_mistake_is_found() {
        check("/process/pit", 1.into(), "process.pit: no such field");
        check("/process/pid", "1".into(), "process.pid: \"1\" is no long");
        check("/source/ip", "10.0.0.256".into(), "source.ip: \"10.0.0.256\" is no ip");
        check("/@timestamp", "today".into(), "@timestamp: \"today\" is no date");
        check("/event/kind", "alarm".into(), "event.kind: alarm is none of its values");
        check("/event/type", "denied".into(), "event.type: is no list");
        check("/event/type", vec!["deletion"].into(), "event.type: \"deletion\" fits no category");
        check("/host/name", vec!["a"].into(), "host.name: [\"a\"] is no keyword");
        check("/network/direction", "out".into(), "network.direction: out is none of its values");
        check("/rule/name", "x".repeat(1_025).into(), "rule.name: longer than 1024");
        check("/ecs", Value::Object(Default::default()), "ecs.version: required");
    }
}
