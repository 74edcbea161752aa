//! What a picture shows of what the agent knows.

use std::net::SocketAddr;

use super::*;
use crate::alert::sample;
use crate::asked::DnsRecord;
use crate::connections::{Connection, Seen};
use crate::event::dns::Question;
use crate::event::{EnrichedEvent, Enricher, Roots, Users};
use crate::host::HostRoot;

fn parts<'a>(standing: Option<Standing>, talk: Talk, asked: &'a Asked) -> Parts<'a> {
    let status = Status { mode: "enforce".to_owned(), ..Status::default() };
    Parts { clocks: sample::clocks(), host: "web-1".to_owned(), status, standing, talk: Ok(talk), asked }
}

/// A grouper that saw these many flows of these many workloads, each refused as often as its number says.
fn standing(flows: u64, workloads: u64) -> Standing {
    let mut grouper = crate::alert::Grouper::new(std::time::Duration::from_secs(60), "web-1");
    let book = sample::book();
    for number in 0..flows {
        let mut event = sample::enriched();
        event.refused.destination[1] += number;
        event.refused.cgroup += number % workloads;
        event.exe = event.exe.map(|exe| crate::event::ExeId { number: number % workloads, ..exe });
        let mut workload = (*event.workload).clone();
        workload.cgroup = Some(format!("/w{}", number % workloads));
        event.workload = std::sync::Arc::new(workload);
        event.time = sample::after_ns(number * 1_000).now;
        event.refusals = number + 1;
        let _ = grouper.observe(event, &book, &sample::clocks());
    }
    grouper.standing(FLOWS_MAX, WORKLOADS_MAX)
}

#[test]
fn a_picture_has_bounds_and_says_what_it_leaves_out() {
    let asked = Asked::default();
    let picture = picture(parts(Some(standing(2_000, 300)), Talk::default(), &asked));
    assert_eq!((picture.refused.len(), picture.left_out.refused), (FLOWS_MAX, 2_000 - FLOWS_MAX));
    assert_eq!((picture.workloads.len(), picture.left_out.workloads), (WORKLOADS_MAX, 300 - WORKLOADS_MAX));
    // The most, and the last.
    assert!(picture.refused.iter().any(|alert| alert.count == 2_000));
    assert!(picture.refused.iter().all(|alert| alert.process.command_line.is_none()));
    let json = serde_json::to_vec(&picture).unwrap();
    assert!(json.len() < 1 << 20, "{}", json.len());
    assert_eq!(serde_json::from_slice::<Picture>(&json).unwrap(), picture);
}

#[test]
fn a_workload_sums_up_all_its_flows() {
    let picture = picture(parts(Some(standing(600, 2)), Talk::default(), &Asked::default()));
    let refused: u64 = picture.workloads.iter().map(|workload| workload.refused).sum();
    assert_eq!(refused, (1..=600).sum::<u64>());
    assert_eq!(picture.workloads[0].workload.cgroup.as_deref(), Some("/w1"));
    assert_eq!(picture.workloads[0].last_refused.as_deref(), Some("udp 198.51.100.53:53 example.com A"));
}

#[test]
fn a_reader_that_does_not_answer_is_said() {
    let picture = picture(parts(None, Talk::default(), &Asked::default()));
    assert!(picture.left_out.errors[0].contains("does not answer"));
    assert!(!picture.stands);
}

fn record(name: &str, unit: &str, is_refused: bool) -> DnsRecord {
    let mut event: EnrichedEvent = sample::enriched();
    if !is_refused {
        event.reason = dnswall_common::reason::Reason::Asked;
    }
    let mut workload = (*event.workload).clone();
    workload.cgroup = Some(format!("/{unit}"));
    event.workload = std::sync::Arc::new(workload);
    let question = Question { name: name.to_owned(), kind: "A".to_owned(), id: 7 };
    DnsRecord::new(&event, &question, None, None, 2, "web-1")
}

#[test]
fn names_are_counted_by_workload_and_within_a_bound() {
    let mut asked = Asked::default();
    for (name, unit) in [("a.example", "x"), ("a.example", "x"), ("a.example", "y"), ("b.example", "x")] {
        asked.note(record(name, unit, false));
    }
    asked.note(record("refused.example", "x", true));
    let names = asked.names();
    assert_eq!(names.len(), 3);
    let a = names.iter().find(|name| name.name == "a.example" && name.asked == 4).unwrap();
    assert_eq!((a.workload.cgroup.as_deref(), a.refused), (Some("/x"), 0));
    for number in 0..names::COUNTED_MAX {
        asked.note(record(&format!("{number}.example"), "z", false));
    }
    asked.miss(5);
    assert_eq!((asked.names().len(), asked.missed()), (names::COUNTED_MAX, 5 + 2 * 3));
    let picture = picture(parts(Some(standing(3, 1)), Talk::default(), &asked));
    assert_eq!(
        (picture.names.len(), picture.left_out.names),
        (NAMES_MAX, names::COUNTED_MAX + 1 - NAMES_MAX)
    );
    // What was refused comes first, with all that was.
    assert_eq!((picture.names[0].name.as_str(), picture.names[0].refused), ("example.com", 6));
}

fn connection(to: &str, port: u16, uid: u32, closing: bool) -> Connection {
    Connection::sample(SocketAddr::new("10.0.0.5".parse().unwrap(), port), to.parse().unwrap(), uid, closing)
}

#[test]
fn connections_are_summed_up_by_program_and_destination() {
    let mut seen = Seen::default();
    for port in 1..=5 {
        seen.connections.push(connection("10.0.3.7:5432", port, 1000, port == 5));
    }
    seen.connections.push(connection("10.0.3.7:5432", 9, 0, false));
    for port in 0..2_000 {
        seen.connections.push(connection(
            &format!("10.9.{}.{}:443", port / 250, port % 250),
            10,
            1000,
            false,
        ));
    }
    let roots = Roots {
        cgroup_mount: "/nowhere".into(),
        wall: "/nowhere".into(),
        proc: "/nowhere".into(),
        host: HostRoot::default(),
    };
    let mut enricher = Enricher::new(roots, Users::with(|uid| Some(format!("user{uid}"))), None);
    let talk = connections::talk(&seen, "/", |event| enricher.enrich(event, &sample::clocks()));
    assert_eq!((talk.rows.len(), talk.rows_left_out), (CONNECTIONS_MAX, 2_002 - CONNECTIONS_MAX));
    let first = &talk.rows[0];
    assert_eq!((first.connections, first.older, first.destination.as_str()), (4, 4, "10.0.3.7:5432"));
    assert_eq!(first.user.as_deref(), Some("user1000"));
    let elsewhere = connections::talk(&seen, "/x.slice", |event| {
        let mut named = enricher.enrich(event, &sample::clocks());
        named.workload = sample::enriched().workload;
        named
    });
    assert_eq!((elsewhere.rows.len(), elsewhere.by_workload.len()), (0, 0));
    // What is being closed is no connection any more.
    assert_eq!(talk.by_workload[0].1, 2_005);
    let picture = picture(parts(Some(standing(1, 1)), talk, &Asked::default()));
    assert_eq!(picture.workloads.iter().map(|workload| workload.connections).sum::<u64>(), 2_005);
}
