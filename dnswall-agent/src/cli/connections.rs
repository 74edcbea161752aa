//! How running connections that a policy refuses are shown.

use std::io::Write;

use super::output::{STRONG, WARN, paint, table};
use crate::control::api::{ConnectionShown, LeftOut, Rehearsed};

/// Connections in the warning of an apply; a dry run lists them all.
const WARNED_MAX: usize = 5;

/// The list of a dry run.
pub fn text(rehearsed: &Rehearsed) -> String {
    let mut lines = Vec::new();
    lines.push(match (rehearsed.denied, rehearsed.would_deny) {
        (0, 0) => "no running connection is against it".to_owned(),
        _ => format!("\n{}", paint(STRONG, "Running connections against it")),
    });
    if !rehearsed.connections.is_empty() {
        lines.push(listed(&rehearsed.connections));
    }
    let more = (rehearsed.denied + rehearsed.would_deny).saturating_sub(rehearsed.connections.len());
    if more > 0 {
        lines.push(format!("  and {more} more"));
    }
    lines.extend(unseen(&rehearsed.left_out).map(|unseen| format!("{} {unseen}", paint(WARN, "warning:"))));
    lines.join("\n")
}

/// Warns on standard error of what an apply is about to meet.
pub fn warn(rehearsed: &Rehearsed) {
    let mut shown = String::new();
    if rehearsed.denied > 0 {
        let denied = rehearsed.connections.iter().filter(|connection| connection.verdict == "denied");
        let first: Vec<ConnectionShown> = denied.take(WARNED_MAX).cloned().collect();
        shown.push_str(&format!(
            "{} the policy refuses {} of the connections that run now:\n{}\n",
            paint(WARN, "warning:"),
            rehearsed.denied,
            listed(&first)
        ));
        if rehearsed.denied > first.len() {
            let more = rehearsed.denied - first.len();
            shown.push_str(&format!("  and {more} more: --dry-run lists them\n"));
        }
    }
    if let Some(unseen) = unseen(&rehearsed.left_out) {
        shown.push_str(&format!("{} {unseen}\n", paint(WARN, "warning:")));
    }
    // Nobody is left to tell when standard error is gone.
    let _ = write!(anstream::stderr(), "{shown}");
}

fn listed(connections: &[ConnectionShown]) -> String {
    let unknown = || "-".to_owned();
    table(
        &["process", "workload", "protocol", "from", "to", "verdict", "becomes", "why"],
        connections.iter().map(|connection| {
            let exe = connection.exe.as_deref().and_then(|exe| exe.rsplit('/').next());
            let process = match (connection.pid, exe) {
                (Some(pid), Some(exe)) => format!("{exe} ({pid})"),
                (Some(pid), None) => pid.to_string(),
                (None, exe) => exe.map_or_else(unknown, str::to_owned),
            };
            vec![
                process,
                connection.unit.clone().or_else(|| connection.cgroup.clone()).unwrap_or_else(unknown),
                connection.protocol.clone(),
                connection.source.clone(),
                connection.destination.clone(),
                connection.verdict.clone(),
                connection.fate.clone(),
                connection.why.clone(),
            ]
        }),
    )
}

fn unseen(left_out: &LeftOut) -> Option<String> {
    match left_out {
        LeftOut { error: Some(error), .. } => Some(format!("running connections could not be seen: {error}")),
        LeftOut { namespaces: 0, sockets: 0, .. } => None,
        LeftOut { namespaces, sockets, .. } => Some(format!(
            "connections in {namespaces} network namespaces, and {sockets} more, could not be looked at"
        )),
    }
}
