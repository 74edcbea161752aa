//! Takes a sample, gives the text that a scraper reads.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::registry::Registry;

use super::sample::{Endpoint, Sample, unix};
use super::sheet::Sheet;
use super::{counted, delivery, lists, pods, policy, process, resolvers, verdicts, wall};

/// How it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// The text that every Prometheus understands, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Form {
    /// The form that an `Accept` header wants most; the plain text when it does not care, or wants neither.
    pub fn wanted(accept: &str) -> Self {
        let mut best = (Self::Text, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let form = match parts.next() {
                Some(kind) if kind.eq_ignore_ascii_case("application/openmetrics-text") => Self::OpenMetrics,
                Some(kind) if kind.eq_ignore_ascii_case("text/plain") => Self::Text,
                _ => continue,
            };
            let weight = parts.find_map(|part| part.strip_prefix("q="));
            let weight = weight.map_or(Some(1.0), |weight| weight.parse::<f32>().ok()).unwrap_or_default();
            if weight > best.1 {
                best = (form, weight);
            }
        }
        best.0
    }

    /// What a `Content-Type` header calls it.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The sample as text.
///
/// # Errors
/// When a value cannot be written, which no sample has been seen to do.
pub fn render(sample: &Arc<Sample>, form: Form) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page(Arc::clone(sample))));
    let mut written = String::with_capacity(PAGE_BYTES);
    match form {
        Form::Text => prometheus_text::encode(&mut written, &registry)?,
        Form::OpenMetrics => text::encode(&mut written, &registry)?,
    }
    Ok(written)
}

/// What a page of a small policy takes; a longer one grows.
const PAGE_BYTES: usize = 64 * 1024;

#[derive(Debug)]
struct Page(Arc<Sample>);

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut sheet = Sheet::new(encoder);
        let Sample { taken, status, lists, reader, proof_interval, process, endpoint } = &*self.0;
        wall::write(&mut sheet, status, *proof_interval)?;
        policy::write(&mut sheet, status)?;
        verdicts::write(&mut sheet, status)?;
        counted::write(&mut sheet, &status.counters, *reader)?;
        resolvers::write(&mut sheet, &status.resolvers)?;
        delivery::write(&mut sheet, &status.spool, &status.sinks)?;
        delivery::write_selftest(&mut sheet, &status.selftest)?;
        delivery::write_mutes(&mut sheet, &status.mutes)?;
        lists::write(&mut sheet, lists)?;
        pods::write(&mut sheet, status.kubernetes.as_ref())?;
        if let Some(process) = process {
            process::write(&mut sheet, process)?;
        }
        let Endpoint { crowded_out } = *endpoint;
        sheet.gauge(
            "dnswall_metrics_sample_timestamp_seconds",
            "When the agent was looked at for this page. It grows old while a policy is being applied.",
            unix(*taken),
        )?;
        sheet.counter(
            "dnswall_metrics_connections_crowded_out",
            "Connections to this endpoint that were closed to make room for younger ones.",
            crowded_out,
        )
    }
}
