//! Takes an event, gives what is wrong with it as OCSF 1.8.0 says (`tests/schemas/ocsf-1.8.0.json`).

use std::net::IpAddr;
use std::sync::LazyLock;

use serde_json::{Map, Value};

/// An object that may hold anything.
const ANYTHING: &str = "object";

static SCHEMA: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../tests/schemas/ocsf-1.8.0.json")).unwrap());

/// Every problem, with the path of its attribute.
pub fn problems(event: &Value) -> Vec<String> {
    let schema = &*SCHEMA;
    let class =
        schema["classes"].as_object().unwrap().values().find(|class| class["uid"] == event["class_uid"]);
    let Some(class) = class else { return vec![format!("class_uid: {} is no class", event["class_uid"])] };
    let list = event["metadata"]["profiles"].as_array().cloned().unwrap_or_default();
    let mut reader = Reader { schema, profiles: list, problems: Vec::new() };
    reader.object("", class, event);
    let type_uid = event["class_uid"].as_i64().unwrap() * 100 + event["activity_id"].as_i64().unwrap_or(0);
    if event["type_uid"] != type_uid {
        reader.problems.push(format!("type_uid: {} is not {type_uid}", event["type_uid"]));
    }
    if event["metadata"]["version"] != schema["version"] {
        reader.problems.push(format!("metadata.version: {}", event["metadata"]["version"]));
    }
    reader.problems
}

struct Reader<'s> {
    schema: &'s Value,
    profiles: Vec<Value>,
    problems: Vec<String>,
}

impl Reader<'_> {
    fn say(&mut self, path: &str, what: &str) {
        self.problems.push(format!("{path}: {what}"));
    }

    fn object(&mut self, path: &str, definition: &Value, value: &Value) {
        let Some(object) = value.as_object() else { return self.say(path, "is no object") };
        let attributes = definition["attributes"].as_object().unwrap();
        for (key, value) in object {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match attributes.get(key) {
                Some(attribute) if !self.is_in_force(attribute) => {
                    self.say(&path, "of a profile that is not declared")
                }
                Some(attribute) if attribute["deprecated"] == true => self.say(&path, "deprecated"),
                Some(attribute) => self.attribute(&path, attribute, value),
                None => self.say(&path, "no such attribute"),
            }
        }
        for (key, attribute) in attributes {
            let is_required = attribute["requirement"] == "required" && self.is_in_force(attribute);
            if is_required && !object.contains_key(key) {
                self.say(path, &format!("{key} is required"));
            }
        }
        self.constraints(path, definition["constraints"].as_object().unwrap(), object);
    }

    fn constraints(&mut self, path: &str, constraints: &Map<String, Value>, object: &Map<String, Value>) {
        for (constraint, keys) in constraints {
            let there =
                keys.as_array().unwrap().iter().filter(|key| object.contains_key(key.as_str().unwrap()));
            let holds = match (constraint.as_str(), there.count()) {
                ("at_least_one", count) => count >= 1,
                ("just_one", count) => count == 1,
                (other, _) => panic!("a constraint that is not known here: {other}"),
            };
            if !holds {
                self.say(path, &format!("{constraint} of {keys}"));
            }
        }
    }

    fn is_in_force(&self, attribute: &Value) -> bool {
        let profiles = attribute["profiles"].as_array();
        profiles.is_none_or(|profiles| profiles.iter().any(|profile| self.profiles.contains(profile)))
    }

    fn attribute(&mut self, path: &str, attribute: &Value, value: &Value) {
        match (attribute["is_array"] == true, value) {
            (true, Value::Array(list)) => list.iter().for_each(|value| self.single(path, attribute, value)),
            (true, _) => self.say(path, "is no list"),
            (false, value) => self.single(path, attribute, value),
        }
    }

    fn single(&mut self, path: &str, attribute: &Value, value: &Value) {
        let kind = attribute["type"].as_str().unwrap();
        let schema = self.schema;
        match attribute["object_type"].as_str() {
            Some(ANYTHING) if value.is_object() => return,
            Some(name) => match schema["objects"].get(name) {
                Some(definition) => return self.object(path, definition, value),
                None => {
                    return self
                        .say(path, &format!("object {name} is not in the file: run derive.py with it"));
                }
            },
            None => {}
        }
        if !is_of(kind, &schema["types"], value) {
            return self.say(path, &format!("{value} is no {kind}"));
        }
        if let Some(values) = attribute["enum"].as_array() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            if !values.contains(&Value::from(text)) {
                self.say(path, &format!("{value} is none of its values"));
            }
        }
    }
}

/// Whether a value is of a type, and of the type that this one narrows.
fn is_of(kind: &str, types: &Value, value: &Value) -> bool {
    let text = value.as_str();
    let own = match kind {
        "integer_t" => value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
        "long_t" | "timestamp_t" => value.is_i64() || value.is_u64(),
        "string_t" => text.is_some(),
        "boolean_t" => value.is_boolean(),
        "json_t" => true,
        "ip_t" => text.is_some_and(|text| text.parse::<IpAddr>().is_ok()),
        _ => true,
    };
    let definition = &types[kind];
    let in_range = definition["range"].as_array().is_none_or(|range| {
        let [min, max] = [&range[0], &range[1]].map(|end| end.as_i64().unwrap());
        value.as_i64().is_some_and(|number| (min..=max).contains(&number))
    });
    let is_short = definition["max_len"]
        .as_u64()
        .is_none_or(|max| text.is_some_and(|text| text.chars().count() as u64 <= max));
    let wider = definition["type"].as_str().is_none_or(|wider| is_of(wider, types, value));
    own && in_range && is_short && wider
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::sample;
    use crate::format::ocsf;
    use serde_json::json;

    /// What becomes wrong when this is set at that place, or taken away.
    fn check(pointer: &str, value: impl Into<Option<Value>>, expected: &str) {
        let mut event = ocsf::event(&sample::alert());
        assert_eq!(problems(&event), [""; 0]);
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = event.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        match value.into() {
            Some(value) => parent.insert(key.to_owned(), value),
            None => parent.remove(key),
        };
        assert_eq!(problems(&event), [expected], "{pointer}");
    }

    #[test]
    fn each_mistake_is_found() {
        check("/tyme", json!(1), "tyme: no such attribute");
        check("/actor/process/file/pfad", json!("x"), "actor.process.file.pfad: no such attribute");
        check("/time", None, ": time is required");
        check("/query/hostname", None, "query: hostname is required");
        check("/time", json!("now"), "time: \"now\" is no timestamp_t");
        check("/src_endpoint/port", json!(65_536), "src_endpoint.port: 65536 is no port_t");
        check("/src_endpoint/ip", json!("10.0.0"), "src_endpoint.ip: \"10.0.0\" is no ip_t");
        check("/count", json!(1u64 << 40), "count: 1099511627776 is no integer_t");
        check("/severity_id", json!(7), "severity_id: 7 is none of its values");
        check("/type_uid", json!(400_302), "type_uid: 400302 is not 400301");
        check("/observables", json!({}), "observables: is no list");
        check("/cloud", json!({}), "cloud: of a profile that is not declared");
        check("/osint", json!([]), "osint: of a profile that is not declared");
        check("/proxy", json!({}), "proxy: deprecated");
        check("/device", json!({"type_id": 1}), &device());
        check("/tls", json!({}), "tls: object tls is not in the file: run derive.py with it");
        check("/class_uid", json!(4_004), "class_uid: 4004 is no class");
        check("/metadata/version", json!("1.7.0"), "metadata.version: \"1.7.0\"");
    }

    fn device() -> String {
        let keys = ["ip", "uid", "name", "hostname", "instance_uid", "interface_uid", "interface_name"];
        format!("device: at_least_one of {}", json!(keys))
    }
}
