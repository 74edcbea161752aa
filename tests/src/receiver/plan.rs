//! What an HTTP receiver does next: a plan, as data, that the server reads before each request.
//!
//! The first fault of a path that has not been used up is what happens; without one, the receiver behaves as the product
//! does. Counts begin anew with each plan, and when the receiver is resumed.

use std::collections::BTreeMap;

use serde::Serialize;

/// All of it. The default is a receiver that takes whatever is right.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Plan {
    /// The `Authorization` header that `/hook`, `/_bulk` and `/v1/logs` insist on.
    pub authorization: Option<String>,
    /// A body of more bytes is answered with 413.
    pub body_bytes_max: Option<usize>,
    /// A body that has this text in it is answered with 400.
    pub poison: Option<String>,
    /// A planned status comes with the `Authorization` header and the query, as some servers say what they did not like.
    pub echo: bool,
    /// What goes wrong, by path.
    pub faults: BTreeMap<String, Vec<Fault>>,
    /// `/services/collector`.
    pub splunk: Splunk,
    /// `/_bulk`.
    pub elastic: Elastic,
    /// `/v1/logs`.
    pub otlp: Otlp,
}

/// Something that goes wrong.
#[derive(Clone, Debug, Serialize)]
pub struct Fault {
    /// For how many requests; for all, when it says nothing.
    pub times: Option<u32>,
    /// How the answer goes.
    pub how: How,
    /// This status, and the request is not taken; else it is taken as usual.
    pub status: Option<u16>,
    /// With this `Retry-After`.
    pub retry_after: Option<String>,
    /// So long before the answer.
    pub delay_ms: u64,
}

/// How an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// As it should.
    Whole,
    /// Half of the request is read, and the connection closed. Nothing is taken.
    CutRequest,
    /// The request is taken, and the connection closed before the answer tells its status.
    CutAnswer,
    /// The request is taken, and never answered.
    Silent,
}

/// A collector of Splunk's.
#[derive(Clone, Debug, Serialize)]
pub struct Splunk {
    /// The token that is good.
    pub token: String,
    /// Whether the token has acknowledgement.
    pub acknowledges: bool,
    /// How long after an answer the events are indexed, and so acknowledged; never, when it says nothing.
    pub indexed_after_ms: Option<u64>,
    /// The indexes that the token may write to; all, when it says nothing.
    pub indexes: Option<Vec<String>>,
}

/// A store of Elastic's.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Elastic {
    /// Documents that are refused, one by one, in requests that are answered with 200.
    pub refuse: Vec<Refusal>,
}

/// Which documents are refused, and how.
#[derive(Clone, Debug, Serialize)]
pub struct Refusal {
    /// For how many documents; for all, when it says nothing.
    pub times: Option<u32>,
    /// The `_id`; any, when it says nothing.
    pub id: Option<String>,
    /// 429 (the store has no room for it now), 400 (a field does not fit), or another.
    pub status: u16,
}

/// A collector of OpenTelemetry's.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Otlp {
    /// What is said of requests that are taken.
    pub partial: Vec<Partial>,
}

/// A partial success.
#[derive(Clone, Debug, Serialize)]
pub struct Partial {
    /// For how many requests; for all, when it says nothing.
    pub times: Option<u32>,
    /// How many records are said to be refused.
    pub rejected: i64,
    /// Why.
    pub message: String,
}

impl Default for Splunk {
    fn default() -> Self {
        Self { token: TOKEN.to_owned(), acknowledges: false, indexed_after_ms: Some(0), indexes: None }
    }
}

impl Fault {
    /// This status for every request.
    pub fn status(status: u16) -> Self {
        Self { status: Some(status), ..Self::how(How::Whole) }
    }

    /// An answer that goes this way, for every request.
    pub fn how(how: How) -> Self {
        Self { times: None, how, status: None, retry_after: None, delay_ms: 0 }
    }

    /// An answer that comes so late, for every request.
    pub fn late(delay_ms: u64) -> Self {
        Self { delay_ms, ..Self::how(How::Whole) }
    }

    /// The same for so many requests.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times: Some(times), ..self }
    }

    /// The same with a `Retry-After`.
    #[must_use]
    pub fn retry_after(self, value: &str) -> Self {
        Self { retry_after: Some(value.to_owned()), ..self }
    }
}

impl Plan {
    /// A plan with this fault at this path; of several, the first goes first.
    #[must_use]
    pub fn fault(mut self, path: &str, fault: Fault) -> Self {
        self.faults.entry(path.to_owned()).or_default().push(fault);
        self
    }
}

/// The token of a collector, unless its plan has another.
pub const TOKEN: &str = "5e5a3e00-0000-4000-8000-000000000001";
