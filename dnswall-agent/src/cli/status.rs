//! `dnswall status`

use super::args::Form;
use super::exit::{Exit, Failure};
use super::output::{self, BAD, FAINT, GOOD, STRONG, WARN, paint, table};
use crate::asked::ResolverStatus;
use crate::control::api::{OlderStatus, ProofStatus, SandboxStatus, SelftestStatus, Status, TamperStatus};
use crate::control::client::Client;
use crate::kubernetes::KubernetesStatus;
use crate::spool::SpoolStatus;

pub async fn status(form: Form, client: &Client) -> Result<Exit, Failure> {
    let status = client.status().await?;
    output::answer(form, &status, text);
    // What it is asked for: does the kernel do what the policy says?
    Ok(if status.stands() { Exit::Done } else { Exit::No })
}

/// Capabilities named to a person; who has more has nearly all.
const CAPABILITIES_SHOWN_MAX: usize = 12;
/// Rules shown to a person; JSON has them all.
const RULES_SHOWN_MAX: usize = 20;

pub fn text(status: &Status) -> String {
    let policy = &status.policy;
    let mode = match status.mode.as_str() {
        "enforce" => paint(GOOD, "enforcing"),
        "none" => paint(BAD, "no policy in the kernel: nothing is enforced"),
        _ => paint(WARN, "audit: reports, blocks nothing"),
    };
    let mut lines = vec![
        format!("{}  {mode}", paint(STRONG, "dnswall")),
        line("policy", format!("{} (generation {})", policy.name, policy.generation)),
        line("from", format!("{}, applied {}", policy.origin, policy.applied_at)),
        line("digest", &policy.digest),
        line(
            "wall",
            format!("{} (cgroup {}), pinned at {}", status.cgroup.path, status.cgroup.id, status.pins),
        ),
        line(
            "agent",
            format!("{}, process {}, up {}", status.version, status.pid, duration(status.uptime_secs)),
        ),
        line("proof", proof(status)),
    ];
    lines.push(line("alerts", selftest(status)));
    lines.extend(status.kubernetes.as_ref().map(|kubernetes| line("pods", pods(kubernetes))));
    lines.extend(tamper(status));
    if let Some(pending) = &status.pending {
        let (left, back_to) = (pending.seconds_left, &pending.back_to.origin);
        let shown = format!("not confirmed: in {left} s the policy from {back_to} decides again");
        lines.insert(2, line("", paint(WARN, shown)));
    }
    if let Some(OlderStatus { refused, cut, not_cut, left_out: _ }) =
        status.older.as_ref().filter(|older| older.refused > 0)
    {
        let shown =
            format!("{refused} connections from before the wall are against the policy, {cut} of them cut");
        lines.push(line("older", paint(WARN, shown)));
        lines.extend(not_cut.iter().map(|why| line("", paint(WARN, why))));
    }
    lines.push(line("sandbox", sandbox(&status.sandbox)));
    lines.extend(status.warnings.iter().map(|warning| format!("{} {warning}", paint(WARN, "warning:"))));
    section(&mut lines, "Hooks", || hooks(status));
    section(&mut lines, "Rules that counted", || rules(status));
    section(&mut lines, "Reasons", || reasons(status));
    section(&mut lines, "Counters", || {
        table(
            &["counter", "count"],
            status.counters.iter().map(|(name, value)| vec![name.clone(), value.to_string()]),
        )
    });
    if !status.resolvers.is_empty() {
        section(&mut lines, "Resolvers", || resolvers(status));
    }
    section(&mut lines, "Sinks", || sinks(status));
    section(&mut lines, "Spool", || spool(status));
    if !status.mutes.is_empty() {
        section(&mut lines, "Muted", || {
            table(
                &["why", "until", "alerts", "refusals"],
                status.mutes.iter().map(|mute| {
                    let until =
                        if mute.is_over { format!("{} (over)", mute.until) } else { mute.until.clone() };
                    vec![mute.reason.clone(), until, mute.alerts.to_string(), mute.refusals.to_string()]
                }),
            )
        });
    }
    lines.join("\n")
}

fn line(name: &str, value: impl std::fmt::Display) -> String {
    format!("  {} {value}", paint(FAINT, format_args!("{name:7}")))
}

fn section(lines: &mut Vec<String>, title: &str, body: impl FnOnce() -> String) {
    lines.push(format!("\n{}", paint(STRONG, title)));
    lines.push(body());
}

/// What was proven last, in one line.
fn proof(status: &Status) -> String {
    let ProofStatus { state, note, time, attempts, runs, failures, proven: _ } = &status.proof;
    let said = match state.as_str() {
        "" => return "none yet".to_owned(),
        "proven" => paint(GOOD, "proven"),
        "failed" => paint(BAD, "FAILED"),
        other => paint(WARN, other),
    };
    let slowest = attempts.iter().filter_map(|attempt| attempt.latency_us).max();
    let latency = slowest.map_or_else(String::new, |us| format!(", told within {:.1} ms", us as f64 / 1e3));
    format!("{said} at {time}{latency}: {note} ({runs} tries, {failures} failed)")
}

/// Whether alerts arrive, in one line.
fn selftest(status: &Status) -> String {
    let SelftestStatus { last, arrived, interval_secs } = &status.selftest;
    let Some(last) = last else {
        return if interval_secs.is_some() {
            "not tested yet"
        } else {
            "never tested by itself: heartbeats are off"
        }
        .to_owned();
    };
    let before = arrived.as_deref().unwrap_or("none");
    match last.steps.iter().find(|step| !step.passed) {
        None => {
            let slowest = last.steps.iter().filter_map(|step| step.micros).max().unwrap_or(0);
            format!(
                "{} at {}: test {} within {:.1} ms",
                paint(GOOD, "arrive"),
                last.time,
                last.number,
                slowest as f64 / 1e3
            )
        }
        Some(step) => {
            let note = step.note.as_deref().unwrap_or_default();
            let said = format!("{}, {}: {note}", paint(BAD, "do NOT arrive"), step.name);
            format!("{said} (test {} at {}; the last that did: {before})", last.number, last.time)
        }
    }
}

/// Whether pods have labels, in one line.
fn pods(kubernetes: &KubernetesStatus) -> String {
    let KubernetesStatus { server, node, pods, last, lists: _, failures, error } = kubernetes;
    let node = node.as_deref().unwrap_or("unknown");
    match (last, error) {
        (_, Some(_)) => {
            format!("{} from {server} ({failures} requests failed)", paint(WARN, "no new labels"))
        }
        (Some(last), None) => format!("{pods} on node {node}, from {server} at {last}"),
        (None, None) => format!("{server} was not asked yet"),
    }
}

fn tamper(status: &Status) -> Vec<String> {
    let TamperStatus { count, last, standing, looked: _ } = &status.tamper;
    let mut lines = Vec::new();
    if let (1.., Some(last)) = (*count, last) {
        lines.push(line("tamper", paint(BAD, format_args!("{count} times, last {last}"))));
    }
    lines.extend(standing.iter().map(|words| format!("{} {words}", paint(BAD, "not as it should be:"))));
    lines
}

fn sandbox(sandbox: &SandboxStatus) -> String {
    let SandboxStatus { capabilities, no_new_privileges, system_calls_filtered } = sandbox;
    let calls = if *system_calls_filtered { "system calls filtered" } else { "all system calls" };
    let more = if *no_new_privileges { "no more to be had" } else { "more to be had" };
    match capabilities.len() {
        count if count > CAPABILITIES_SHOWN_MAX => format!("{calls}, {count} capabilities, {more}"),
        0 => format!("{calls}, no capabilities, {more}"),
        _ => format!("{calls}, capabilities {}, {more}", capabilities.join(" ")),
    }
}

fn hooks(status: &Status) -> String {
    if status.hooks.is_empty() {
        return format!("  {}", paint(BAD, "none attached: nothing is enforced"));
    }
    let mut shown = table(
        &["hook", "program", "state", "link", "id", "verified instructions"],
        status.hooks.iter().map(|hook| {
            let state = match hook.state.as_str() {
                "gone" | "replaced" | "not-effective" => hook.state.to_uppercase(),
                state => state.to_owned(),
            };
            vec![
                hook.attach.clone(),
                hook.name.clone(),
                state,
                hook.link_id.to_string(),
                hook.program_id.to_string(),
                hook.instructions.map_or_else(|| "-".to_owned(), |count| count.to_string()),
            ]
        }),
    );
    for hook in &status.hooks {
        for (place, programs) in [("before", &hook.before), ("after", &hook.after)] {
            if !programs.is_empty() {
                let programs = programs.join(", ");
                shown.push_str(&format!("\n  others run {place} {}: {programs}", hook.name));
            }
        }
    }
    shown
}

fn rules(status: &Status) -> String {
    let mut counted: Vec<_> = status
        .rules
        .iter()
        .map(|rule| (rule.denied + rule.would_deny + rule.allowed, rule))
        .filter(|(total, _)| *total > 0)
        .collect();
    counted.sort_by_key(|(total, rule)| (std::cmp::Reverse(*total), rule.number));
    let more = counted.len().saturating_sub(RULES_SHOWN_MAX);
    if counted.is_empty() {
        return format!("  none of {} yet", status.rules.len());
    }
    let mut shown = table(
        &["rule", "allowed", "denied", "would deny"],
        counted.iter().take(RULES_SHOWN_MAX).map(|(_, rule)| {
            vec![
                rule.name.clone(),
                rule.allowed.to_string(),
                rule.denied.to_string(),
                rule.would_deny.to_string(),
            ]
        }),
    );
    if more > 0 {
        shown.push_str(&format!("\n  and {more} more (--output json)"));
    }
    shown
}

fn reasons(status: &Status) -> String {
    let counted: Vec<_> =
        status.reasons.iter().filter(|reason| reason.denied + reason.would_deny > 0).collect();
    if counted.is_empty() {
        return "  nothing refused yet".to_owned();
    }
    table(
        &["reason", "denied", "would deny"],
        counted.into_iter().map(|reason| {
            vec![reason.name.clone(), reason.denied.to_string(), reason.would_deny.to_string()]
        }),
    )
}

fn resolvers(status: &Status) -> String {
    table(
        &["resolver", "asked", "refused", "unanswered", "mean answer", "answers"],
        status.resolvers.iter().map(|resolver| {
            let ResolverStatus { resolver, asked, denied, unanswered, answers, latency, latency_secs } =
                resolver;
            let answered: u64 = latency.iter().sum();
            let mean = match answered {
                0 => "-".to_owned(),
                _ => format!("{:.1} ms", latency_secs * 1e3 / answered as f64),
            };
            let codes: Vec<String> = answers
                .iter()
                .filter(|(_, count)| **count > 0)
                .map(|(code, count)| format!("{code} {count}"))
                .collect();
            let counts = [asked, denied, unanswered].map(u64::to_string);
            [vec![resolver.clone()], counts.to_vec(), vec![mean, codes.join(", ")]].concat()
        }),
    )
}

fn sinks(status: &Status) -> String {
    if status.sinks.is_empty() {
        return format!("  {}", paint(WARN, "none: alerts are only kept in the spool"));
    }
    table(
        &["sink", "taken", "last taken", "waiting", "oldest", "rejected", "lost", "failures", "last error"],
        status.sinks.iter().map(|sink| {
            let dash = || "-".to_owned();
            let oldest = sink.oldest_waiting_secs.map_or_else(dash, |secs| duration(secs as u64));
            let last = sink.last_taken.clone().unwrap_or_else(dash);
            let counts = [sink.rejected, sink.lost, sink.failures].map(|count| count.to_string());
            let error = sink.last_error.clone().unwrap_or_else(dash);
            let name = if sink.failing { format!("{} (failing)", sink.name) } else { sink.name.clone() };
            let first = [name, sink.written.to_string(), last, sink.waiting.to_string(), oldest];
            [first.to_vec(), counts.to_vec(), vec![error]].concat()
        }),
    )
}

fn spool(status: &Status) -> String {
    let SpoolStatus { path, alerts, bytes, bytes_max, refused, evicted, unsaved, unsaved_lost, .. } =
        &status.spool;
    let mib = |bytes: u64| bytes >> 20;
    let mut lines = vec![format!("  {path}: {alerts} alerts, {} of {} MiB", mib(*bytes), mib(*bytes_max))];
    for (count, what) in [
        (refused, "came too fast to be kept: no sink has them"),
        (evicted, "made room for newer ones"),
        (unsaved, "are only in memory: the disk cannot be written"),
        (unsaved_lost, "were in memory only, and had to make room"),
    ] {
        if *count > 0 {
            lines.push(format!("  {} {what}", paint(WARN, format_args!("{count} alerts"))));
        }
    }
    lines.extend(status.spool.trouble.iter().map(|trouble| format!("  {}", paint(BAD, trouble))));
    lines.join("\n")
}

fn duration(secs: u64) -> String {
    let (days, hours, minutes) = (secs / 86_400, secs / 3_600 % 24, secs / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{secs} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}
