//! The spool when there is no room: who makes some, what is lost to whom, and what is said of it.

use super::*;
use crate::alert::{AlertLost, AlertLostBySink, Kind, Severity};

/// An alert of this workload.
fn of(unit: &str, count: u64) -> Alert {
    let mut alert = numbered(count);
    alert.workload.unit = Some(unit.to_owned());
    alert
}

#[test]
fn the_oldest_make_room_and_who_waited_for_them_counts_what_it_lost() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alerts");
    let mut running = Running::start(&path, &["up", "down"]);
    let total = 6_000;
    for hundred in 0..total / 100 {
        running.push(hundred * 100..(hundred + 1) * 100);
        assert_eq!(running.take(0).len(), 100);
    }
    let (spool, _) = running.spool.status();
    assert!(spool.bytes <= BYTES_MAX && spool.alerts < total, "{spool:?}");
    assert_eq!(spool.evicted, total - spool.alerts);
    let down = running.sink(1);
    assert_eq!((down.lost, down.waiting), (spool.evicted, spool.alerts), "counted before the sink knows");
    let late = running.take(1);
    assert!(late.iter().copied().eq(total - late.len() as u64..total), "the newest, without a gap");
    let down = running.sink(1);
    assert_eq!(down.lost + down.written, total, "{down:?}");
    assert_eq!(running.sink(0).lost, 0);
    running.end();
}

/// Counts of the alerts of each workload that a sink got.
fn by_unit(batches: &[Entry]) -> std::collections::BTreeMap<String, u64> {
    let mut got = std::collections::BTreeMap::new();
    for entry in batches {
        *got.entry(entry.alert.workload.unit.clone().unwrap_or_default()).or_default() += 1;
    }
    got
}

impl Running {
    /// As [`Self::take`], whole.
    fn entries(&self, lane: usize) -> Vec<Entry> {
        let mut entries = Vec::new();
        while let Taken::Batch(batch) = self.lanes[lane].wait(ALL, Duration::from_millis(200)) {
            self.lanes[lane].settle(&batch, Settled { alerts: batch.len(), rejected: Vec::new(), bytes: 1 });
            entries.extend(batch);
        }
        entries
    }
}

#[test]
fn a_flood_makes_room_for_itself_and_a_rare_alert_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alerts");
    let mut running = Running::start(&path, &["up", "down"]);
    let own = Alert { kind: Kind::Selftest, severity: Severity::Info, ..numbered(1) };
    running.push_all([of("quiet", 1), Alert { severity: Severity::Critical, ..of("noisy", 2) }, own]);
    let (mut pushed, mut got) = (3, running.take(0).len());
    for _ in 0..60 {
        running.push_all((0..100).map(|count| of("noisy", count)));
        (pushed, got) = (pushed + 100, got + running.take(0).len());
    }
    running.push_all([of("late", 1)]);
    pushed += 1;
    got += running.take(0).len();
    assert_eq!((got as u64, running.sink(0).lost), (pushed, 0), "who is there gets all");
    let down = running.sink(1);
    assert!(down.lost > 1_000, "{down:?}");
    assert_eq!(down.lost + down.waiting, pushed);

    // What made room in the middle is known to the next agent too, and what was told of it.
    assert_eq!(running.spool.losses().untold, [("down".to_owned(), down.lost)]);
    let told = |alerts| {
        let sinks = vec![AlertLostBySink { name: "down".to_owned(), alerts }];
        let lost = Some(AlertLost { sinks, ..AlertLost::default() });
        Alert { kind: Kind::AlertsLost, severity: Severity::High, lost, ..numbered(alerts) }
    };
    running.push_all([told(down.lost - 10)]);
    assert_eq!(running.spool.losses().untold, [("down".to_owned(), 10)]);
    running.end();
    let running = Running::start(&path, &["up", "down"]);
    assert_eq!(running.spool.losses().untold, [("down".to_owned(), 10)]);
    assert_eq!(running.sink(1).lost, down.lost);
    running.push_all([told(10)]);
    let late = running.entries(1);
    let units = by_unit(&late.iter().filter(|entry| !entry.alert.kind.is_own()).cloned().collect::<Vec<_>>());
    assert_eq!((units["quiet"], units["late"]), (1, 1));
    assert_eq!(units["noisy"], pushed - down.lost - 3);
    assert!(
        late.iter().any(|entry| entry.alert.severity == Severity::Critical),
        "the worst of the flood stays"
    );
    assert!(late.iter().any(|entry| entry.alert.kind == Kind::Selftest));
    assert!(late.is_sorted_by_key(|entry| entry.sequence));
    let down_now = running.sink(1);
    assert_eq!((down_now.lost, down_now.written), (down.lost, late.len() as u64));
    assert_eq!(running.spool.losses().untold, []);
    running.end();
    let running = Running::start(&path, &["up", "down"]);
    assert_eq!((running.spool.losses().untold, running.sink(1).lost), (vec![], 0), "it is all in the past");
    running.end();
}

#[test]
fn numbers_go_on_where_the_newest_made_room() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alerts");
    let mut running = Running::start(&path, &["down"]);
    let severe = |count| Alert { severity: Severity::High, ..of("noisy", count) };
    for hundred in 0..30 {
        running.push_all((0..100).map(|count| severe(hundred * 100 + count)));
    }
    // The least severe are the last that came, and go first.
    running.push_all((0..100).map(|count| of("noisy", 3_000 + count)));
    running.push_all((0..100).map(|count| severe(4_000 + count)));
    let end = running.spool.inner().end;
    assert!(running.sink(0).lost > 1_000);
    running.end();
    let mut again = Running::start(&path, &["down"]);
    assert_eq!(again.began, end);
    // What was still in memory is lost by now, too.
    let lost = again.sink(0).lost;
    let late = again.take(0);
    assert_eq!(late.len() as u64 + lost, end);
    again.push([9]);
    assert_eq!(again.take(0), [9]);
    again.end();
    running = Running::start(&path, &["other"]);
    assert_eq!(running.began, end + 1);
    running.end();
}

#[test]
fn too_many_at_once_are_refused_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, writer, lanes) =
        Spool::open(&directory.path().join("alerts"), 64 << 20, &["a".to_owned()]).unwrap();
    // Of one workload no more than its part, and then others'.
    let of_one = QUEUE_ALERTS_MAX / 2;
    let mut number = 0;
    let mut push = |unit: u64| {
        let alert = of(&unit.to_string(), number);
        number += u64::from(spool.push(&alert));
    };
    (0..of_one + 5).for_each(|_| push(0));
    assert_eq!(spool.status().0.refused, 5);
    (1..).map_while(|unit| (spool.inner().queue.len() < QUEUE_ALERTS_MAX).then_some(unit)).for_each(|unit| {
        (0..QUEUE_OF_ONE_MAX).for_each(|_| push(unit));
    });
    push(99);
    let (status, sinks) = spool.status();
    assert_eq!((status.refused, sinks[0].waiting), (6, QUEUE_ALERTS_MAX as u64));
    let own = |count| Alert { kind: Kind::AlertsLost, ..numbered(count) };
    let reserved = (0..500).filter(|_| spool.push(&own(0))).count();
    assert_eq!(reserved, QUEUE_OWN_MAX, "there is a place to say so");
    spool.close();
    assert!(!spool.push(&numbered(9)), "closed");
    let writer = std::thread::spawn(move || writer.run(|_| {}));
    let lane = lanes.into_iter().next().unwrap();
    let mut counts = Vec::new();
    loop {
        match lane.wait(Limits { alerts: 100, bytes: 1 << 20 }, SOON) {
            Taken::Batch(batch) => {
                counts.extend(batch.iter().map(|entry| entry.alert.count));
                lane.settle(&batch, Settled { alerts: batch.len(), rejected: Vec::new(), bytes: 0 });
            }
            Taken::Ended => break,
            Taken::Nothing => panic!("it is closed"),
        }
    }
    assert!(counts.split_off(QUEUE_ALERTS_MAX).iter().all(|own| *own == 0));
    assert!(counts.into_iter().eq(0..QUEUE_ALERTS_MAX as u64));
    writer.join().unwrap();
    assert!(spool.is_settled());
}
