//! What is told of each flow: how much of it goes into one transaction, and how long it stays in memory.

use super::super::marks::marks_max;
use super::*;

fn key(pid: u32) -> RefusedKey {
    RefusedKey { pid, ..sample::enriched().refused }
}

fn marked(count: u64, marks: Vec<Mark>) -> Alert {
    Alert { marks, ..numbered(count) }
}

/// How many marks the alerts in memory have.
fn in_memory(spool: &Spool) -> usize {
    spool.inner().recent.iter().map(|entry| entry.alert.marks.len()).sum()
}

#[test]
fn what_a_transaction_has_of_them_is_bounded_like_its_alerts() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(Disk::open(&directory.path().join("alerts"), 2 << 20).unwrap(), 1 << 20).unwrap();
    // Of this room a transaction takes an eighth, 512 flows, and half of the flows that are kept: 128.
    assert_eq!(marks_max(1 << 20), 256);
    let entry = |sequence: u64| {
        let pids = sequence as u32 * 1_000..sequence as u32 * 1_000 + 300;
        let alert = marked(sequence, pids.map(|pid| (key(pid), 1)).collect());
        Entry { sequence, ..sample::entry(&alert) }
    };
    store.save(&[entry(0), entry(1)], &Cursors::new(), &[], 1).unwrap();
    let mut pids: Vec<u32> = store.marks(1).unwrap().into_iter().map(|(key, _)| key.pid).collect();
    pids.sort_unstable();
    assert!(
        pids.into_iter().eq((172..300).chain(1_172..1_300)),
        "two transactions, each with the last of its own"
    );
}

#[test]
fn once_they_are_on_disk_memory_has_none() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alerts");
    let running = Running::start(&path, &["down"]);
    // Some of the agent's own between them, which have none.
    running.push_all((0..60).map(|count| match count % 3 {
        0 => numbered(count),
        _ => marked(count, vec![(key(count as u32), count)]),
    }));
    assert_eq!(in_memory(&running.spool), 0);
    assert_eq!(running.spool.told().len(), 40);
    // A sink's own copies do not keep the spool's.
    let Taken::Batch(batch) = running.lanes[0].wait(ALL, SOON) else { panic!("nothing") };
    running.push_all([marked(60, vec![(key(60), 60)])]);
    assert_eq!((batch.len(), in_memory(&running.spool)), (60, 0));
    running.end();
}

#[test]
fn while_the_disk_refuses_they_wait_for_it() {
    // Less than the spool would like to have, so nothing is taken beforehand.
    let small = Small::mount(c"size=3m");
    let path = small.path().join("alerts");
    let running = Running::start(&path, &["a"]);
    let ballast = small.fill();
    for count in 0..1_500 {
        running.push_all([marked(count, vec![(key(count as u32 % 100), count)])]);
    }
    assert!(running.spool.status().0.unsaved > 0 && in_memory(&running.spool) > 0);
    // A sink has them in its hand, from memory.
    let Taken::Batch(batch) = running.lanes[0].wait(ALL, SOON) else { panic!("nothing") };
    assert!(batch.iter().any(|entry| !entry.alert.marks.is_empty()));
    std::fs::remove_file(ballast).unwrap();
    let until = Instant::now() + SOON;
    while running.spool.status().0.unsaved > 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
        running.push([9_999]);
    }
    assert_eq!(in_memory(&running.spool), 0);
    let told = running.spool.told();
    assert!(told.len() == 100 && told.iter().all(|(_, total)| *total >= 1_400), "{told:?}");
    running.end();
}

#[test]
fn where_there_is_no_disk_nobody_keeps_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("no directory/alerts");
    let mut running = Running::start(&path, &["a"]);
    assert!(running.spool.status().0.trouble.unwrap().starts_with("open the spool "));
    running.push_all((0..50).map(|count| marked(count, vec![(key(count as u32), count)])));
    running.spool.note(vec![(key(99), 1)]);
    running.push([50]);
    assert_eq!((in_memory(&running.spool), running.spool.inner().notes.len()), (0, 0));
    assert!(running.take(0).into_iter().eq(0..=50));
    assert_eq!(running.spool.told(), []);
    running.spool.forget_told();
    running.end();
    assert!(!path.exists());
}
