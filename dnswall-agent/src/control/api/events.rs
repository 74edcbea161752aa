//! What can be followed.

use serde::{Deserialize, Serialize};

use crate::alert::filter::FilterText;

/// Query of `GET /v1/events`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsQuery {
    /// How many of the alerts so far come first.
    #[serde(default)]
    pub last: usize,
    /// Whether the answer goes on with each new alert.
    #[serde(default)]
    pub follow: bool,
    /// Records of questions instead of alerts.
    #[serde(default)]
    pub dns: bool,
    /// Kinds of alerts, with `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The least severity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
    /// Unit, slice, cgroup, container (id or name) or pod (`namespace/name`), with `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// The rule, with `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// A name that was asked for, or one above it; or a destination's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Not before: a time (RFC 3339), or how long ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Not after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

impl EventsQuery {
    /// Which alerts are wanted. Not a field: a query cannot have numbers beside what is flattened into it.
    pub fn filter(&self) -> FilterText {
        let Self { last: _, follow: _, dns: _, kind, severity, workload, rule, name, since, until } =
            self.clone();
        FilterText { kind, severity, workload, rule, name, since, until }
    }
}
