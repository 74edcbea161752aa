//! Takes a JSON value with holes, gives it without: formats of others know no `null`, a key is there or it is not.

use serde_json::Value;

/// Without `null`, empty lists and empty objects, at any depth.
pub fn without_holes(value: Value) -> Value {
    match value {
        Value::Object(object) => object
            .into_iter()
            .map(|(key, value)| (key, without_holes(value)))
            .filter(|(_, value)| !is_hole(value))
            .collect(),
        Value::Array(list) => list.into_iter().map(without_holes).filter(|value| !is_hole(value)).collect(),
        value => value,
    }
}

fn is_hole(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_empty_goes_and_what_is_zero_stays() {
        let value =
            json!({"a": null, "b": {"c": {"d": []}}, "e": [null, {"f": null}], "g": 0, "h": "", "i": false});
        assert_eq!(without_holes(value), json!({"g": 0, "h": "", "i": false}));
    }
}
