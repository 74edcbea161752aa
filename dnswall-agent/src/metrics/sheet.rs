//! Takes families of series one after the other, gives them to the encoder. A family without a series is left out whole.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// The labels of one series: names and values.
pub(super) type Labels<'s> = Vec<(&'static str, &'s str)>;

/// Where the families go.
pub(super) struct Sheet<'e> {
    encoder: DescriptorEncoder<'e>,
}

impl<'e> Sheet<'e> {
    pub(super) fn new(encoder: DescriptorEncoder<'e>) -> Self {
        Self { encoder }
    }

    /// Counters of one name, which is written without `_total`.
    pub(super) fn counters<'s, N: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'s>, N)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, series, |encoder, labels, value| {
            encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)
        })
    }

    /// Gauges of one name.
    pub(super) fn gauges<'s, N: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'s>, N)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, series, |encoder, labels, value| {
            encoder.encode_family(&labels)?.encode_gauge(&value)
        })
    }

    /// Histograms of one name.
    pub(super) fn histograms<'s>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'s>, Histogram)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Histogram, series, |encoder, labels, value| {
            let Histogram { sum, buckets } = value;
            let count = buckets.iter().map(|(_, count)| count).sum();
            encoder.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
        })
    }

    /// One counter without labels.
    pub(super) fn counter<N: EncodeCounterValue>(&mut self, name: &str, help: &str, value: N) -> fmt::Result {
        self.counters(name, help, [(Labels::new(), value)])
    }

    /// One gauge without labels.
    pub(super) fn gauge<N: EncodeGaugeValue>(&mut self, name: &str, help: &str, value: N) -> fmt::Result {
        self.gauges(name, help, [(Labels::new(), value)])
    }

    /// One gauge without labels, or none.
    pub(super) fn maybe(&mut self, name: &str, help: &str, value: Option<f64>) -> fmt::Result {
        self.gauges(name, help, value.map(|value| (Labels::new(), value)))
    }

    /// A gauge that is 1 for the state that is and 0 for the others.
    pub(super) fn state(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        of: State<'_>,
    ) -> fmt::Result {
        let State { is, all } = of;
        self.gauges(name, help, all.iter().map(|state| (vec![(label, *state)], u64::from(*state == is))))
    }

    /// What is only said in labels; the name is written without `_info`.
    pub(super) fn info(&mut self, name: &str, help: &str, labels: Labels<'_>) -> fmt::Result {
        self.encoder.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(&labels)
    }

    fn family<'s, N>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        series: impl IntoIterator<Item = (Labels<'s>, N)>,
        mut encode: impl FnMut(&mut prometheus_client::encoding::MetricEncoder<'_>, Labels<'s>, N) -> fmt::Result,
    ) -> fmt::Result {
        let mut series = series.into_iter().peekable();
        if series.peek().is_none() {
            return Ok(());
        }
        let mut encoder = self.encoder.encode_descriptor(name, help, None, kind)?;
        series.try_for_each(|(labels, value)| encode(&mut encoder, labels, value))
    }
}

/// How values are spread.
pub(super) struct Histogram {
    /// The sum of all.
    pub(super) sum: f64,
    /// Upper bounds, the last of them infinite, and how many values are below each and above the one before.
    pub(super) buckets: Vec<(f64, u64)>,
}

/// One of some states.
#[derive(Clone, Copy)]
pub(super) struct State<'s> {
    /// The one.
    pub(super) is: &'s str,
    /// All of them.
    pub(super) all: &'s [&'s str],
}
