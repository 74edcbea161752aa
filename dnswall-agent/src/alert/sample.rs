//! An enriched event and its alert, for the tests of this crate.

use std::sync::Arc;

use dnswall_common::event::RefusedKey;
use dnswall_common::flow::protocol;
use dnswall_common::reason::Reason;
use uuid::Uuid;

use super::{Alert, PolicyRules, RuleBook, Tally};
use crate::event::dns::Question;
use crate::event::{
    Clocks, EnrichedEvent, EventFlow, EventHook, ExeId, HashCell, Outcome, Parent, Process, Workload,
};
use crate::spool::{Entry, Stamp};

/// Noon, 100 s after boot.
pub fn clocks() -> Clocks {
    after_ns(0)
}

/// That much later.
pub fn after_ns(ns: u64) -> Clocks {
    let noon: jiff::Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
    let now = noon + jiff::SignedDuration::from_nanos(ns as i64);
    Clocks { now, monotonic_ns: 100_000_000_000 + ns, boot_ns: 100_000_000_000 + ns }
}

/// `dig` in orders.service asks 198.51.100.53.
pub fn enriched() -> EnrichedEvent {
    let mut comm = [0; 16];
    comm[..3].copy_from_slice(b"dig");
    EnrichedEvent {
        time: clocks().now,
        time_ns: clocks().monotonic_ns,
        hook: EventHook::Egress,
        outcome: Outcome::Denied,
        reason: Reason::NoRule,
        generation: 3,
        rule: 0,
        flow: EventFlow {
            protocol: protocol::UDP,
            family: 4,
            source: Some("10.0.0.5".parse().unwrap()),
            source_port: Some(40_000),
            destination: Some("198.51.100.53".parse().unwrap()),
            destination_port: 53,
            bytes: Some(57),
        },
        question: Some(Question { name: "example.com".to_owned(), kind: "A".to_owned(), id: 0x1234 }),
        listed: None,
        destination_name: None,
        process: Arc::new(Process {
            pid: Some(4_321),
            start_ns: Some(99_000_000_000),
            comm: Some("dig".to_owned()),
            exe: Some("/usr/bin/dig".to_owned()),
            command_line: Some("dig @198.51.100.53 example.com".to_owned()),
            parent: Some(parent(4_300, "bash", 98_000_000_000)),
            parents: Vec::new(),
            hash: HashCell::default(),
        }),
        started: Some("2026-03-01T11:59:59Z".parse().unwrap()),
        exe: Some(ExeId { number: 777, device: 8 << 20 | 1 }),
        comm,
        uid: Some(1_000),
        user: Some(Arc::from("orders")),
        workload: Arc::new(Workload {
            cgroup: Some("/system.slice/orders.service".to_owned()),
            unit: Some("orders.service".to_owned()),
            slice: Some("system.slice".to_owned()),
            container: None,
            claimed: None,
        }),
        netns: 1,
        named: None,
        refused: RefusedKey {
            cgroup: 4_242,
            destination: crate::event::sample::words("198.51.100.53"),
            entry: 0,
            pid: 4_321,
            destination_port: 53,
            protocol: protocol::UDP,
            reason: Reason::NoRule as u8,
        },
        refusals: 1,
    }
}

/// A process above it.
pub fn parent(pid: u32, name: &str, start_ns: u64) -> Arc<Parent> {
    Arc::new(Parent {
        pid,
        start_ns: Some(start_ns),
        comm: Some(name.to_owned()),
        exe: Some(format!("/usr/bin/{name}")),
        command_line: Some(format!("{name} -x")),
    })
}

/// Generation 3: the default and one rule.
pub fn book() -> RuleBook {
    let mut book = RuleBook::default();
    let rules = ["default", "deny.instance metadata"].map(str::to_owned);
    book.insert(PolicyRules::new("production", 3, &[0xab; 32], rules, Arc::default()));
    book
}

/// Counted three times within two seconds.
pub fn tally() -> Tally {
    Tally { id: Uuid::from_u128(7), count: 3, first: clocks().now, last: after_ns(2_000_000_000).now }
}

/// The alert of all that.
pub fn alert() -> Alert {
    Alert::new(&enriched(), book().policy(3).map(|policy| &**policy), "web-1", tally())
}

/// It in the spool.
pub fn entry(alert: &Alert) -> Entry {
    let stamp = Stamp { boot: 1, boot_ns: 0, wall_ms: 0 };
    Entry { sequence: alert.count, stamp, json: alert.to_json().into(), alert: Arc::new(alert.clone()) }
}
