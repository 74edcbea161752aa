//! Families of what became of alerts: of the spool, and of each sink.

use std::fmt;

use super::sample::seconds;
use super::sheet::{Labels, Sheet};
use crate::alert::mute::MuteStatus;
use crate::control::api::{AlertTested, SelftestStatus};
use crate::spool::{SinkStatus, SpoolStatus};

pub(super) fn write(sheet: &mut Sheet<'_>, spool: &SpoolStatus, sinks: &[SinkStatus]) -> fmt::Result {
    write_spool(sheet, spool)?;
    let one = |value: fn(&SinkStatus) -> u64| sinks.iter().map(move |sink| (label(sink), value(sink)));
    let taken = |sink: &'_ SinkStatus| sink.last_taken.as_deref().and_then(seconds);
    // Whole, so that a new field does not build until it is shown here.
    let _ = |sink: &SinkStatus| {
        let SinkStatus {
            name: _,
            written: _,
            rejected: _,
            lost: _,
            failures: _,
            waiting: _,
            oldest_waiting_secs: _,
            bytes: _,
            last_taken: _,
            failing: _,
            last_error: _,
        } = sink;
    };
    sheet.counters(
        "dnswall_sink_alerts_written",
        "Alerts that a sink has taken.",
        one(|sink| sink.written),
    )?;
    sheet.counters(
        "dnswall_sink_alerts_rejected",
        "Alerts that a sink will never take, as it said.",
        one(|sink| sink.rejected),
    )?;
    sheet.counters(
        "dnswall_sink_alerts_lost",
        "Alerts that made room in the spool before a sink had them.",
        one(|sink| sink.lost),
    )?;
    sheet.counters(
        "dnswall_sink_attempts_failed",
        "Attempts to give alerts to a sink that failed; each is made again.",
        one(|sink| sink.failures),
    )?;
    sheet.gauges(
        "dnswall_sink_failing",
        "1 where the last attempt failed.",
        one(|sink| u64::from(sink.failing)),
    )?;
    sheet.gauges(
        "dnswall_sink_alerts_waiting",
        "Alerts that a sink has not taken yet.",
        one(|sink| sink.waiting),
    )?;
    sheet.gauges(
        "dnswall_sink_oldest_waiting_seconds",
        "Age of the oldest alert that a sink has not taken; 0 when there is none.",
        sinks.iter().map(|sink| (label(sink), sink.oldest_waiting_secs.unwrap_or(0.0))),
    )?;
    sheet.counters("dnswall_sink_written_bytes", "Bytes that a sink has taken.", one(|sink| sink.bytes))?;
    sheet.gauges(
        "dnswall_sink_last_success_timestamp_seconds",
        "When a sink last took an alert.",
        sinks.iter().filter_map(|sink| Some((label(sink), taken(sink)?))),
    )
}

fn label(sink: &SinkStatus) -> Labels<'_> {
    vec![("sink", sink.name.as_str())]
}

fn write_spool(sheet: &mut Sheet<'_>, spool: &SpoolStatus) -> fmt::Result {
    let SpoolStatus {
        path: _,
        alerts,
        bytes,
        bytes_max,
        room_used,
        taken,
        refused,
        refused_refusals,
        evicted,
        unsaved,
        unsaved_lost,
        failures,
        oldest_waiting_secs,
        trouble,
    } = spool;
    sheet.gauge("dnswall_spool_alerts", "Alerts on disk, delivered ones included.", *alerts)?;
    sheet.gauge("dnswall_spool_bytes", "Length of the spool's file.", *bytes)?;
    sheet.gauge("dnswall_spool_limit_bytes", "The most that the spool's file gets.", *bytes_max)?;
    sheet.gauge(
        "dnswall_spool_room_used_ratio",
        "How much of the room for alerts is taken; full, some make room.",
        *room_used,
    )?;
    sheet.counter("dnswall_spool_alerts_taken", "Alerts that the spool has taken.", *taken)?;
    sheet.counter(
        "dnswall_spool_alerts_refused",
        "Alerts that came when too many were waiting for the disk: no sink has them.",
        *refused,
    )?;
    sheet.counter(
        "dnswall_spool_refusals_refused",
        "Refusals that those alerts stood for.",
        *refused_refusals,
    )?;
    sheet.counter(
        "dnswall_spool_alerts_evicted",
        "Alerts that made room for younger ones, delivered or not.",
        *evicted,
    )?;
    sheet.gauge(
        "dnswall_spool_alerts_unsaved",
        "Alerts that are only in memory, because the disk cannot be written.",
        *unsaved,
    )?;
    sheet.counter(
        "dnswall_spool_alerts_unsaved_lost",
        "Alerts that were only in memory, and that memory had no room for.",
        *unsaved_lost,
    )?;
    sheet.counter("dnswall_spool_write_failures", "Writes to the spool that failed.", *failures)?;
    sheet.gauge(
        "dnswall_spool_oldest_waiting_seconds",
        "Age of the oldest alert that some sink has not taken; 0 when there is none.",
        oldest_waiting_secs.unwrap_or(0.0),
    )?;
    sheet.gauge(
        "dnswall_spool_in_trouble",
        "1 where the spool cannot be written, or was found damaged.",
        u64::from(trouble.is_some()),
    )
}

/// Of the tests of whether alerts arrive.
pub(super) fn write_selftest(sheet: &mut Sheet<'_>, selftest: &SelftestStatus) -> fmt::Result {
    let SelftestStatus { last, arrived, interval_secs } = selftest;
    sheet.maybe(
        "dnswall_selftest_interval_seconds",
        "Between two tests of whether alerts arrive; missing where none is made by itself.",
        interval_secs.map(|secs| secs as f64),
    )?;
    sheet.maybe(
        "dnswall_selftest_arrived_timestamp_seconds",
        "When the last test began whose alert came to every sink.",
        arrived.as_deref().and_then(seconds),
    )?;
    let Some(AlertTested { number, id: _, time, passed, steps }) = last else { return Ok(()) };
    sheet.gauge(
        "dnswall_selftest_number",
        "The number of the last test of whether alerts arrive.",
        *number,
    )?;
    sheet.maybe("dnswall_selftest_timestamp_seconds", "When the last test began.", seconds(time))?;
    sheet.gauge(
        "dnswall_selftest_passed",
        "1 where the last test's alert has come to every sink by now.",
        u64::from(*passed),
    )?;
    let took = steps.iter().filter_map(|step| Some((step, step.micros?)));
    sheet.gauges(
        "dnswall_selftest_step_seconds",
        "How long the last test's alert took: to the agent (ring), and from there to the disk (spool) and to each sink.",
        took.map(|(step, micros)| (vec![("step", step.name.as_str())], micros as f64 / 1e6)),
    )
}

/// Of what nobody wants.
pub(super) fn write_mutes(sheet: &mut Sheet<'_>, mutes: &[MuteStatus]) -> fmt::Result {
    let sum = |count: fn(&MuteStatus) -> u64| mutes.iter().map(count).sum::<u64>();
    sheet.gauge("dnswall_mutes", "Mutes that agent.toml has, over or not.", mutes.len() as u64)?;
    sheet.counter(
        "dnswall_alerts_muted",
        "Alerts that nobody got because they are muted.",
        sum(|mute| mute.alerts),
    )?;
    sheet.counter(
        "dnswall_refusals_muted",
        "Refusals that those alerts stood for.",
        sum(|mute| mute.refusals),
    )
}
