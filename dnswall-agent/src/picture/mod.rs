//! Takes what the agent knows of one moment, gives the picture that `dnswall top` shows. Plain data: nothing here reads a file or a
//! clock, and every list has a bound.

pub mod connections;
pub mod names;

use crate::alert::{Standing, text};
use crate::control::api::{Delivery, NameSeen, Picture, PictureLeftOut, Status, Totals, WorkloadSeen};
use crate::event::Clocks;
use crate::spool::{SinkStatus, SpoolStatus};
use connections::Talk;
use names::Asked;

/// Workloads in a picture.
pub const WORKLOADS_MAX: usize = 256;
/// Rows of connections in a picture.
pub const CONNECTIONS_MAX: usize = 512;
/// Flows in a picture.
pub const FLOWS_MAX: usize = 256;
/// Names in a picture.
pub const NAMES_MAX: usize = 256;

/// What a picture is made of.
#[derive(Debug)]
pub struct Parts<'a> {
    /// When.
    pub clocks: Clocks,
    /// The host's name.
    pub host: String,
    /// What stands.
    pub status: Status,
    /// What is refused; `None` when the reader does not answer.
    pub standing: Option<Standing>,
    /// Who talks to whom, or why that could not be seen.
    pub talk: Result<Talk, String>,
    /// What was asked.
    pub asked: &'a Asked,
}

/// The picture.
pub fn picture(parts: Parts<'_>) -> Picture {
    let Parts { clocks, host, status, standing, talk, asked } = parts;
    let mut left_out = PictureLeftOut { questions: asked.missed(), ..PictureLeftOut::default() };
    if standing.is_none() {
        left_out.errors.push("the reader of events does not answer: refusals are not shown".to_owned());
    }
    let standing = standing.unwrap_or_default();
    let talk = talk.unwrap_or_else(|error| {
        left_out.errors.push(format!("running connections could not be seen: {error}"));
        Talk::default()
    });
    let workloads = workloads(&standing, &talk, &mut left_out);
    let names = names(&standing, asked, &mut left_out);
    let Talk { rows, rows_left_out, by_workload: _, namespaces_left_out, sockets_left_out } = talk;
    let Standing { flows, flows_left_out, unplaced, .. } = standing;
    left_out.connections = rows_left_out;
    (left_out.namespaces, left_out.sockets) = (namespaces_left_out, sockets_left_out);
    (left_out.refused, left_out.refusals) = (flows_left_out, unplaced);
    Picture {
        time: clocks.now,
        monotonic_ms: clocks.monotonic_ns / 1_000_000,
        host,
        stands: status.stands(),
        totals: totals(&status),
        delivery: delivery(&status.spool, &status.sinks),
        version: status.version,
        pid: status.pid,
        uptime_secs: status.uptime_secs,
        mode: status.mode,
        policy: status.policy,
        warnings: status.warnings,
        workloads,
        connections: rows,
        refused: flows,
        names,
        left_out,
    }
}

fn totals(status: &Status) -> Totals {
    let count = |name: &str| status.counters.get(name).copied().unwrap_or_default();
    let reasons = &status.reasons;
    Totals {
        allowed: status.rules.iter().map(|rule| rule.allowed).sum(),
        denied: reasons.iter().map(|reason| reason.denied).sum(),
        would_deny: reasons.iter().map(|reason| reason.would_deny).sum(),
        events_lost: count("events-lost"),
        questions_lost: count("questions-lost"),
        alerts: count("alerts"),
    }
}

fn delivery(spool: &SpoolStatus, sinks: &[SinkStatus]) -> Delivery {
    Delivery {
        sinks: sinks.len(),
        failing: sinks.iter().filter(|sink| sink.failing).map(|sink| sink.name.clone()).collect(),
        oldest_waiting_secs: spool.oldest_waiting_secs,
        lost: spool.refused + spool.unsaved_lost + sinks.iter().map(|sink| sink.lost).sum::<u64>(),
        trouble: spool.trouble.clone(),
    }
}

/// Those that were refused something, most first, then those that only talk.
fn workloads(standing: &Standing, talk: &Talk, left_out: &mut PictureLeftOut) -> Vec<WorkloadSeen> {
    let mut seen: Vec<WorkloadSeen> = standing
        .workloads
        .iter()
        .map(|one| WorkloadSeen {
            workload: one.last.workload.clone(),
            connections: 0,
            refused: one.refused,
            flows: one.flows,
            last: Some(one.last.last),
            last_refused: Some(subject(&one.last)),
        })
        .collect();
    for (workload, connections) in &talk.by_workload {
        match seen.iter_mut().find(|seen| seen.workload.cgroup == workload.cgroup) {
            Some(seen) => seen.connections += connections,
            None => seen.push(WorkloadSeen {
                workload: workload.clone(),
                connections: *connections,
                refused: 0,
                flows: 0,
                last: None,
                last_refused: None,
            }),
        }
    }
    left_out.workloads = standing.workloads_left_out + seen.len().saturating_sub(WORKLOADS_MAX);
    seen.truncate(WORKLOADS_MAX);
    seen
}

/// What was refused, in one piece.
fn subject(alert: &crate::alert::Alert) -> String {
    match &alert.dns {
        Some(dns) => format!("{} {} {}", text::target(alert), dns.name, dns.kind),
        None => text::target(alert),
    }
}

/// Refused ones first, then those that were asked for most.
fn names(standing: &Standing, asked: &Asked, left_out: &mut PictureLeftOut) -> Vec<NameSeen> {
    let mut names = asked.names();
    for alert in &standing.flows {
        let Some(dns) = &alert.dns else { continue };
        let found =
            names.iter_mut().find(|it| it.name == dns.name && it.workload.cgroup == alert.workload.cgroup);
        let rule = Some(text::why(alert));
        match found {
            Some(name) => {
                name.refused = name.refused.saturating_add(alert.count);
                (name.last, name.rule) = (name.last.max(alert.last), rule);
            }
            None => names.push(NameSeen {
                workload: alert.workload.clone(),
                name: dns.name.clone(),
                asked: 0,
                refused: alert.count,
                last: alert.last,
                rule,
                answer: None,
            }),
        }
    }
    names.sort_by(|a, b| (b.refused, b.asked, &a.name).cmp(&(a.refused, a.asked, &b.name)));
    left_out.names = names.len().saturating_sub(NAMES_MAX);
    names.truncate(NAMES_MAX);
    names
}

#[cfg(test)]
mod tests;
