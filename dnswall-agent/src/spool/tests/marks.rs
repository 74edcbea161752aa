//! What is told of each flow: how much of it goes into one transaction, and how long it stays in memory.

use super::super::marks::marks_max;
use super::*;

fn key(pid: u32) -> RefusedKey {
    RefusedKey { pid, ..sample::enriched().refused }
}

fn marked(count: u64, marks: Vec<Mark>) -> Alert {
    Alert { marks, ..numbered(count) }
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
