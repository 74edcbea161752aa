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
    /// Which alerts are wanted. Its keys stand beside the others; they are read apart, since a query cannot have numbers beside what
    /// is flattened into it.
    #[serde(skip)]
    pub filter: FilterText,
}

impl EventsQuery {
    /// As it is sent.
    ///
    /// # Errors
    /// Never: every field has a form.
    pub fn encode(&self) -> Result<String, serde_urlencoded::ser::Error> {
        let (own, filter) = (serde_urlencoded::to_string(self)?, serde_urlencoded::to_string(&self.filter)?);
        Ok(if filter.is_empty() { own } else { format!("{own}&{filter}") })
    }
}
