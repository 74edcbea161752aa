//! Files that an agent of an older build has left, and disks that are memory.

use redb::{Builder, TableDefinition};

use super::super::row::packed;
use super::*;

/// As the build before cursors had losses wrote it: rows without a place, cursors that are numbers.
fn of_an_older_build(path: &Path, alerts: u64, cursors: &[(&str, u64)]) {
    let database = Builder::new().create(path).unwrap();
    let write = database.begin_write().unwrap();
    {
        const ALERTS: TableDefinition<u64, (u128, u64, i64, &[u8])> = TableDefinition::new("alerts-1");
        const CURSORS: TableDefinition<&str, u64> = TableDefinition::new("cursors-1");
        let mut table = write.open_table(ALERTS).unwrap();
        for sequence in 0..alerts {
            let (_, row) = packed(&sample::entry(&numbered(sequence)));
            // The head is of this build.
            table.insert(sequence, (1, sequence, 0, &row[10..])).unwrap();
        }
        let mut table = write.open_table(CURSORS).unwrap();
        for (name, next) in cursors {
            table.insert(name, next).unwrap();
        }
    }
    write.commit().unwrap();
}

#[test]
fn what_an_older_build_left_goes_on_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alerts");
    of_an_older_build(&path, 10, &[("siem", 4), ("done", 10), ("gone", 2)]);
    let mut running = Running::start(&path, &["siem", "done", "new"]);
    assert_eq!((running.began, running.spool.status().0.trouble), (10, None));
    running.push(10..12);
    assert!(running.take(0).into_iter().eq(4..12));
    assert_eq!([running.take(1), running.take(2)], [[10, 11], [10, 11]]);
    let sinks = running.spool.status().1;
    assert!(sinks.iter().all(|sink| sink.lost == 0), "{sinks:?}");
    running.end();
    // Once: what came since counts, not the table from before.
    let mut running = Running::start(&path, &["siem", "gone"]);
    running.push([12]);
    assert_eq!(running.take(0), [12]);
    assert_eq!(running.take(1), [12], "one that no agent asked for is forgotten");
    running.end();
}

#[test]
fn cursors_of_an_older_build_are_ahead_of_alerts_that_are_gone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alerts");
    of_an_older_build(&path, 0, &[("siem", 70)]);
    let mut running = Running::start(&path, &["siem"]);
    assert_eq!(running.began, 70, "no number is given twice");
    running.push([1]);
    assert_eq!((running.take(0), running.sink(0).lost), (vec![1], 0));
    running.end();
}

#[test]
fn in_memory_it_is_as_on_a_disk_until_that_is_gone() {
    let small = Small::mount(c"size=16m");
    let path = small.path().join("state/alerts");
    std::fs::create_dir(small.path().join("state")).unwrap();
    let mut running = Running::start(&path, &["a", "b"]);
    running.push(0..100);
    assert!(running.take(0).into_iter().eq(0..100));
    let (status, _) = running.spool.status();
    assert_eq!((status.failures, status.unsaved, status.trouble), (0, 0, None));
    running.end();
    let mut running = Running::start(&path, &["a", "b"]);
    running.push(100..101);
    assert!(running.take(0).into_iter().eq(100..101));
    assert!(running.take(1).into_iter().eq(0..101));
    running.end();
    // A boot: whoever had everything has nothing lost, and the numbers begin anew.
    std::fs::remove_dir_all(small.path().join("state")).unwrap();
    std::fs::create_dir(small.path().join("state")).unwrap();
    let mut running = Running::start(&path, &["a"]);
    running.push(0..3);
    assert_eq!((running.began, running.take(0), running.sink(0).lost), (0, vec![0, 1, 2], 0));
    running.end();
}
