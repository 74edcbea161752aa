//! Families of where the labels of pods come from.

use std::fmt;

use super::sample::seconds;
use super::sheet::Sheet;
use crate::kubernetes::KubernetesStatus;

/// Nothing, where nobody is asked.
pub(super) fn write(sheet: &mut Sheet<'_>, kubernetes: Option<&KubernetesStatus>) -> fmt::Result {
    let Some(kubernetes) = kubernetes else { return Ok(()) };
    let KubernetesStatus { server: _, node: _, pods, last, lists, failures, error } = kubernetes;
    sheet.gauge("dnswall_kubernetes_pods", "Pods of this node whose labels are known.", *pods)?;
    sheet.counter("dnswall_kubernetes_lists", "Lists of this node's pods that came.", *lists)?;
    sheet.counter("dnswall_kubernetes_requests_failed", "Requests for pods that failed.", *failures)?;
    sheet.gauge(
        "dnswall_kubernetes_failing",
        "1 where the last request for pods failed: alerts have no new labels.",
        u64::from(error.is_some()),
    )?;
    sheet.maybe(
        "dnswall_kubernetes_last_list_timestamp_seconds",
        "When a list of pods came last.",
        last.as_deref().and_then(seconds),
    )
}
