//! The row of the dashboard that shows how alerts get to whoever is to have them.

use super::rows::THIRD;
use super::{Kind, Panel};

pub const DELIVERY: &[Panel] = &[
    Panel {
        title: "Alerts taken, by sink",
        description: "What each sink said that it has.",
        kind: Kind::Lines,
        unit: "cps",
        queries: &[(
            "sum by (sink) (rate(dnswall_sink_alerts_written_total{@}[$__rate_interval]))",
            "{{sink}}",
        )],
        size: THIRD,
    },
    Panel {
        title: "Alerts that wait",
        description: "The spool keeps them until the sink has them, or until it is full.",
        kind: Kind::Lines,
        unit: "none",
        queries: &[("max by (instance, sink) (dnswall_sink_alerts_waiting{@})", "{{instance}} {{sink}}")],
        size: THIRD,
    },
    Panel {
        title: "How long the oldest has waited",
        description: "More than five minutes is a page: DnswallSinkFailing.",
        kind: Kind::Lines,
        unit: "s",
        queries: &[(
            "max by (instance, sink) (dnswall_sink_oldest_waiting_seconds{@})",
            "{{instance}} {{sink}}",
        )],
        size: THIRD,
    },
    Panel {
        title: "Failed attempts, by sink",
        description: "Each is made again. `dnswall status` on the host says why the last one failed.",
        kind: Kind::Lines,
        unit: "cps",
        queries: &[(
            "sum by (sink) (rate(dnswall_sink_attempts_failed_total{@}[$__rate_interval]))",
            "{{sink}}",
        )],
        size: THIRD,
    },
    Panel {
        title: "Since a sink took an alert",
        description: "Of the host where it is longest. Where nothing is refused there is nothing to take.",
        kind: Kind::Lines,
        unit: "s",
        queries: &[("time() - min by (sink) (dnswall_sink_last_success_timestamp_seconds{@})", "{{sink}}")],
        size: THIRD,
    },
    Panel {
        title: "Alerts that somebody does not have",
        description: "In the time that one point stands for. Lost: made room before the sink had them. Rejected: it will never \
                      take them. Refused: came too fast for the spool. Forgotten: were only in memory, and had to make room.",
        kind: Kind::Lines,
        unit: "none",
        queries: &[
            (
                "sum by (sink) (increase(dnswall_sink_alerts_lost_total{@}[$__rate_interval]))",
                "lost: {{sink}}",
            ),
            (
                "sum by (sink) (increase(dnswall_sink_alerts_rejected_total{@}[$__rate_interval]))",
                "rejected: {{sink}}",
            ),
            ("sum(increase(dnswall_spool_alerts_refused_total{@}[$__rate_interval]))", "refused"),
            ("sum(increase(dnswall_spool_alerts_unsaved_lost_total{@}[$__rate_interval]))", "forgotten"),
        ],
        size: THIRD,
    },
    Panel {
        title: "Since a test's alert arrived everywhere",
        description: "Of the host where it is longest. Each host tests the whole way at its start and every few minutes.",
        kind: Kind::Lines,
        unit: "s",
        queries: &[(
            "time() - min by (instance) (dnswall_selftest_arrived_timestamp_seconds{@})",
            "{{instance}}",
        )],
        size: THIRD,
    },
    Panel {
        title: "The last test, step by step",
        description: "From the kernel to the agent (ring), and from there to the disk and to each sink. Of the slowest host.",
        kind: Kind::Lines,
        unit: "s",
        queries: &[("max by (step) (dnswall_selftest_step_seconds{@})", "{{step}}")],
        size: THIRD,
    },
    Panel {
        title: "Hosts whose last test has not arrived",
        description: "Now and then one, for the moment that a sink takes.",
        kind: Kind::Lines,
        unit: "none",
        queries: &[("count(dnswall_selftest_passed{@} == 0) or vector(0)", "hosts")],
        size: THIRD,
    },
    Panel {
        title: "Size of the spool",
        description: "The file grows in steps, and may be full at half its limit: small alerts need room between them.",
        kind: Kind::Lines,
        unit: "bytes",
        queries: &[
            ("max by (instance) (dnswall_spool_bytes{@})", "{{instance}}"),
            ("max by (instance) (dnswall_spool_limit_bytes{@})", "limit: {{instance}}"),
        ],
        size: THIRD,
    },
    Panel {
        title: "Alerts in the spool",
        description: "On disk, delivered ones included; and those that are only in memory because the disk cannot be written.",
        kind: Kind::Lines,
        unit: "none",
        queries: &[
            ("max by (instance) (dnswall_spool_alerts{@})", "{{instance}}"),
            ("max by (instance) (dnswall_spool_alerts_unsaved{@})", "only in memory: {{instance}}"),
        ],
        size: THIRD,
    },
    Panel {
        title: "Events from the kernel",
        description: "Each refusal is sent, or counted as suppressed or lost.",
        kind: Kind::Lines,
        unit: "cps",
        queries: &[
            ("sum(rate(dnswall_events_sent_total{@}[$__rate_interval]))", "sent"),
            ("sum(rate(dnswall_events_suppressed_total{@}[$__rate_interval]))", "suppressed"),
            ("sum(rate(dnswall_events_lost_total{@}[$__rate_interval]))", "lost"),
        ],
        size: THIRD,
    },
];
