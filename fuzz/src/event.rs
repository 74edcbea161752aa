//! Ring records: the kernel half of another build may have written them. What is decoded becomes an alert whose two
//! lines are lines, and whose JSON reads back.

use std::sync::Arc;

use std::cell::RefCell;
use std::path::PathBuf;

use dnswall_agent::alert::{Alert, Grouper, PolicyRules, RuleBook, text};
use dnswall_agent::event::{Clocks, Enricher, Roots, Users, decode};
use dnswall_agent::host::HostRoot;

thread_local! {
    static ENRICHER: RefCell<Enricher> = RefCell::new(enricher());
}

/// Decodes, names, reports.
pub fn check(data: &[u8]) {
    let Ok(event) = decode(data) else { return };
    let clocks = clocks();
    let enriched = ENRICHER.with_borrow_mut(|enricher| enricher.enrich(&event, &clocks));
    let mut book = RuleBook::default();
    book.insert(PolicyRules::new(
        "fuzz",
        3,
        &[0xab; 32],
        ["default", "deny.1"].map(str::to_owned),
        Arc::default(),
    ));
    let mut grouper = Grouper::new(std::time::Duration::from_secs(10), "fuzz");
    let mut alerts: Vec<Alert> = grouper.observe(enriched.clone(), &book, &clocks).into_iter().collect();
    alerts.extend(grouper.observe(enriched, &book, &clocks));
    alerts.extend(grouper.flush(&clocks));
    // The kernel counts this one too, so a count of none is no refusal.
    assert!(event.refusals == 0 || !alerts.is_empty(), "a refusal that nobody is told of: {event:?}");
    alerts.iter().for_each(check_lines);
}

fn check_lines(alert: &Alert) {
    let line = alert.to_json_line();
    assert_eq!(line.matches('\n').count(), 1, "{line:?}");
    let again: Alert = serde_json::from_str(&line).expect("what was written as JSON is read as JSON");
    // Times are written with six digits, so it is the line that stays the same, not every nanosecond.
    assert_eq!(again.to_json_line(), line);
    let shown = text::line(alert, false);
    assert!(!shown.trim_end_matches('\n').contains(char::is_control), "{shown:?}");
}

/// A host of which nothing is known: what the files of /proc say is not what is looked at here.
fn enricher() -> Enricher {
    let nowhere = PathBuf::from("/nonexistent");
    let host = HostRoot::find(None).expect("this host has a root");
    let roots = Roots { cgroup_mount: nowhere.clone(), wall: nowhere.clone(), proc: nowhere, host };
    Enricher::new(roots, Users::with(|_| None), None)
}

/// Noon, 100 s after boot.
fn clocks() -> Clocks {
    let now = "2026-03-01T12:00:00Z".parse().expect("a time");
    Clocks { now, monotonic_ns: 100_000_000_000, boot_ns: 100_000_000_000 }
}
