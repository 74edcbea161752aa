//! Takes an OCI runtime's `config.json`, gives its annotations (runtime-spec 1.0 and later: a map of strings).

use std::collections::BTreeMap;

use serde::Deserialize;

/// Annotations, or labels.
pub type Annotations = BTreeMap<String, String>;

/// The annotations of a `config.json`; none when it is something else.
pub fn annotations(config: &[u8]) -> Option<Annotations> {
    /// What is read of it.
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        annotations: Option<Annotations>,
    }
    let Config { annotations } = serde_json::from_slice(config).ok()?;
    Some(annotations.unwrap_or_default())
}
