//! The spool with real files: what is kept, for whom, and what is counted.

mod crash;
mod full;
mod marks;
mod older;
pub(crate) mod small;

use std::time::Instant;

use super::*;
use crate::alert::sample;
use dnswall_common::event::RefusedKey;
use open::room_for_alerts;
use small::Small;

const BYTES_MAX: u64 = 4 << 20;
const ALL: Limits = Limits { alerts: 10_000, bytes: 64 << 20 };
const SOON: Duration = Duration::from_secs(60);

fn numbered(count: u64) -> Alert {
    Alert { count, id: uuid::Uuid::from_u128(u128::from(count)), ..sample::alert() }
}

/// An agent's spool.
struct Running {
    spool: Arc<Spool>,
    lanes: Vec<Lane>,
    writer: std::thread::JoinHandle<()>,
    /// The number of its first alert.
    began: u64,
}

impl Running {
    fn start(path: &Path, sinks: &[&str]) -> Self {
        let names: Vec<String> = sinks.iter().map(|name| (*name).to_owned()).collect();
        let (spool, writer, lanes) = Spool::open(path, BYTES_MAX, &names).unwrap();
        let began = spool.inner().end;
        let writer = std::thread::spawn(move || writer.run(|_| {}));
        Self { spool, lanes, writer, began }
    }

    fn push(&self, counts: impl IntoIterator<Item = u64>) {
        self.push_all(counts.into_iter().map(numbered));
    }

    fn push_all(&self, alerts: impl IntoIterator<Item = Alert>) {
        for alert in alerts {
            assert!(self.spool.push(&alert));
        }
        let until = Instant::now() + SOON;
        let is_seen = || {
            let inner = self.spool.inner();
            inner.queue.is_empty() && inner.end - self.began == inner.counters.taken
        };
        while !is_seen() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Everything that is there for a lane, settled.
    fn take(&mut self, lane: usize) -> Vec<u64> {
        let mut counts = Vec::new();
        while let Taken::Batch(batch) = self.lanes[lane].wait(ALL, Duration::from_millis(200)) {
            counts.extend(batch.iter().map(|entry| entry.alert.count));
            let settled = Settled { alerts: batch.len(), rejected: Vec::new(), bytes: 1 };
            self.lanes[lane].settle(&batch, settled);
        }
        counts
    }

    fn sink(&self, lane: usize) -> SinkStatus {
        self.spool.status().1.remove(lane)
    }

    /// In order; the writer ends only when the sinks have everything.
    fn end(self) {
        self.spool.close();
        let until = Instant::now() + SOON;
        let saved = || {
            let inner = self.spool.inner();
            inner.phase == Phase::Ended && !inner.cursors_changed
        };
        while !saved() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.spool.is_settled() {
            self.writer.join().unwrap();
        }
        *self.spool.store.write().unwrap() = None;
    }
}

#[test]
fn each_sink_gets_all_in_order_and_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let mut running = Running::start(&directory.path().join("alerts"), &["fast", "slow"]);
    running.push(0..1_000);
    assert!(running.take(0).into_iter().eq(0..1_000));
    running.push(1_000..1_500);
    assert!(running.take(0).into_iter().eq(1_000..1_500));
    let slow = running.sink(1);
    assert_eq!((slow.waiting, slow.written, slow.lost), (1_500, 0, 0));
    assert!(slow.oldest_waiting_secs.is_none_or(|secs| secs < 60.0), "{slow:?}");
    assert!(running.take(1).into_iter().eq(0..1_500));
    let (spool, sinks) = running.spool.status();
    assert!(
        sinks.iter().all(|sink| (sink.written, sink.waiting, sink.oldest_waiting_secs) == (1_500, 0, None))
    );
    assert_eq!((spool.taken, spool.alerts, spool.unsaved, spool.failures), (1_500, 1_500, 0, 0));
    running.end();
}

#[test]
fn what_was_not_settled_comes_again_to_the_next_agent_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alerts");
    let mut running = Running::start(&path, &["a", "b"]);
    running.push(0..10);
    assert!(running.take(0).into_iter().eq(0..10));
    let Taken::Batch(batch) = running.lanes[1].wait(ALL, SOON) else { panic!("nothing") };
    running.lanes[1].settle(&batch, Settled { alerts: 4, rejected: vec![2], bytes: 0 });
    assert_eq!((running.sink(1).written, running.sink(1).rejected, running.sink(1).waiting), (3, 1, 6));
    running.end();

    // One that is new gets what comes from now on, one that is no more is forgotten.
    let mut running = Running::start(&path, &["b", "c"]);
    assert_eq!(running.spool.last(3).len(), 3);
    running.push(10..12);
    assert!(running.take(0).into_iter().eq(4..12));
    assert!(running.take(1).into_iter().eq(10..12));
    running.end();
    let mut running = Running::start(&path, &["a", "b"]);
    running.push(12..13);
    assert_eq!((running.take(0), running.take(1)), (vec![12], vec![12]));
    running.end();
}

#[test]
fn the_file_keeps_within_its_bound_whatever_the_alerts_are_like() {
    for bytes in [3_000, 30_000] {
        let directory = tempfile::tempdir().unwrap();
        let mut running = Running::start(&directory.path().join("alerts"), &["up"]);
        let mut alert = sample::alert();
        for round in 0..25 {
            for index in 0..20 {
                alert.process.command_line = Some(noise(bytes + index));
                assert!(running.spool.push(&alert));
            }
            running.push([round]);
            running.take(0);
        }
        let (spool, sinks) = running.spool.status();
        assert_eq!((spool.failures, spool.unsaved, spool.trouble), (0, 0, None), "{bytes}");
        assert!(spool.bytes <= BYTES_MAX, "{bytes}: {}", spool.bytes);
        assert_eq!((sinks[0].written, sinks[0].lost), (25 * 21, 0), "{bytes}");
        running.end();
    }
}

/// Text that does not get smaller.
fn noise(bytes: usize) -> String {
    let mut state = bytes as u64;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b' ' + (state >> 57) as u8 % 95)
    };
    (0..bytes).map(|_| letter()).collect()
}

#[test]
fn a_lone_alert_does_not_wait_for_another() {
    let directory = tempfile::tempdir().unwrap();
    let running = Running::start(&directory.path().join("alerts"), &["a"]);
    for count in 0..20 {
        let began = Instant::now();
        running.push([count]);
        let Taken::Batch(_) = running.lanes[0].wait(ALL, SOON) else { panic!("nothing") };
        assert!(began.elapsed() < SOON / 2);
    }
    running.end();
}

#[test]
fn only_one_agent_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alerts");
    let running = Running::start(&path, &["a"]);
    let error = Spool::open(&path, BYTES_MAX, &[]).unwrap_err().to_string();
    assert!(error.ends_with("another agent uses it"), "{error}");
    assert!(!directory.path().join("alerts.damaged").exists());
    running.end();
}

#[test]
fn a_damaged_one_is_moved_aside_and_said_to_be() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alerts");
    std::fs::write(&path, "no spool at all".repeat(1_000)).unwrap();
    let mut running = Running::start(&path, &["a"]);
    let trouble = running.spool.status().0.trouble.unwrap();
    assert!(trouble.contains("alerts.damaged"), "{trouble}");
    running.push(0..3);
    assert_eq!(running.take(0), [0, 1, 2]);
    running.end();
    assert!(std::fs::read(directory.path().join("alerts.damaged")).unwrap().starts_with(b"no spool"));
    // Another one does not take its place.
    std::fs::write(&path, "nor is this".repeat(1_000)).unwrap();
    Running::start(&path, &["a"]).end();
    assert!(std::fs::read(directory.path().join("alerts.damaged")).unwrap().starts_with(b"no spool"));
    assert!(std::fs::read(directory.path().join("alerts.damaged-2")).unwrap().starts_with(b"nor is"));
}

#[test]
fn a_disk_that_others_filled_does_not_stop_it() {
    let small = Small::mount(c"size=8m");
    let path = small.path().join("alerts");
    let mut running = Running::start(&path, &["a"]);
    small.fill();
    for hundred in 0..20 {
        running.push(hundred * 100..(hundred + 1) * 100);
        assert_eq!(running.take(0).len(), 100);
    }
    let (spool, _) = running.spool.status();
    assert_eq!((spool.failures, spool.unsaved), (0, 0), "{spool:?}");
    running.end();
}

#[test]
fn without_room_alerts_go_from_memory_and_are_on_disk_when_there_is_some() {
    // Less than the spool would like to have, so nothing is taken beforehand.
    let small = Small::mount(c"size=3m");
    let path = small.path().join("alerts");
    let mut running = Running::start(&path, &["a", "late"]);
    let ballast = small.fill();
    let total = 1_500;
    for count in 0..total {
        running.push([count]);
    }
    assert!(running.take(0).into_iter().eq(0..total));
    let (spool, _) = running.spool.status();
    assert!(spool.failures > 0 && spool.unsaved > 0 && spool.trouble.is_some(), "{spool:?}");
    std::fs::remove_file(ballast).unwrap();
    let until = Instant::now() + SOON;
    running.push([total]);
    while running.spool.status().0.unsaved > 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    let (spool, _) = running.spool.status();
    assert_eq!((spool.unsaved, spool.trouble), (0, None));
    assert_eq!(running.take(0), [total]);
    // What is on disk is there for the next agent.
    running.end();
    let mut running = Running::start(&path, &["late"]);
    let late = running.take(0);
    let lost = running.sink(0).lost;
    assert!(late.iter().copied().eq(lost..=total), "{lost} lost, {} there", late.len());
    running.end();
}

#[test]
fn an_alert_is_followed_to_every_sink() {
    let directory = tempfile::tempdir().unwrap();
    let mut running = Running::start(&directory.path().join("alerts"), &["fast", "down", "picky"]);
    let id = uuid::Uuid::from_u128(5);
    assert_eq!(running.spool.trace(id, Duration::ZERO), None);
    running.spool.follow(id);
    running.push(3..8);
    assert_eq!(running.take(0).len(), 5);
    let Taken::Batch(batch) = running.lanes[2].wait(ALL, SOON) else { panic!("nothing") };
    running.lanes[2].settle(&batch, Settled { alerts: 5, rejected: vec![2], bytes: 0 });
    running.lanes[1].attempted(Err("no route"));
    let trace = running.spool.trace(id, Duration::from_millis(10)).unwrap();
    assert!(!trace.is_done() && trace.taken <= trace.saved && trace.saved.is_some());
    let [fast, down, picky] = &trace.sinks[..] else { panic!("{trace:?}") };
    assert!(fast.settled >= trace.saved && !fast.lost && fast.error.is_none());
    assert_eq!((down.settled, down.error.as_deref()), (None, Some("no route")));
    assert!(picky.settled.is_some() && picky.lost);
    assert_eq!(running.take(1).len(), 5);
    assert!(running.spool.trace(id, SOON).unwrap().is_done());
    running.end();
}

#[test]
fn without_a_usable_file_alerts_go_from_memory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alerts");
    std::fs::create_dir(&path).unwrap();
    let mut running = Running::start(&path, &["a"]);
    assert!(running.spool.status().0.trouble.unwrap().starts_with("open the spool "));
    running.push(0..500);
    assert!(running.take(0).into_iter().eq(0..500));
    assert!(running.spool.is_settled());
    running.end();
}

#[test]
fn what_is_more_than_the_file_holds_is_taken_in_pieces() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alerts");
    let names = ["a".to_owned()];
    let (spool, writer, lanes) = Spool::open(&path, BYTES_MAX, &names).unwrap();
    let mut alert = sample::alert();
    // All at once, and more than three mebibytes of them.
    for count in 0..QUEUE_ALERTS_MAX as u64 {
        (alert.count, alert.process.command_line) = (count, Some(noise(2_500)));
        alert.workload.unit = Some(format!("{}.service", count / 200));
        assert!(spool.push(&alert));
    }
    let writer = std::thread::spawn(move || writer.run(|_| {}));
    let until = Instant::now() + SOON;
    while spool.inner().end == 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    let (status, sinks) = spool.status();
    assert_eq!((status.failures, status.unsaved, status.trouble), (0, 0, None));
    assert_eq!(status.evicted + status.alerts, QUEUE_ALERTS_MAX as u64);
    assert!(status.alerts > 300, "{}", status.alerts);
    assert_eq!(sinks[0].waiting + sinks[0].lost, QUEUE_ALERTS_MAX as u64);
    let mut last = None;
    while let Taken::Batch(batch) = lanes[0].wait(ALL, Duration::from_millis(200)) {
        last = batch.last().map(|entry| entry.alert.count);
        let settled = Settled { alerts: batch.len(), rejected: Vec::new(), bytes: 0 };
        lanes[0].settle(&batch, settled);
    }
    assert_eq!(last, Some(QUEUE_ALERTS_MAX as u64 - 1));
    spool.close();
    writer.join().unwrap();
}

#[test]
fn what_alerts_tell_of_the_kernels_totals_is_saved_with_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("alerts");
    let key = |pid| RefusedKey { pid, ..sample::enriched().refused };
    let marked = |count: u64| Alert { marks: vec![(key(count as u32), count)], ..numbered(count) };
    let running = Running::start(&path, &[]);
    running.push_all((1..4).map(marked));
    running.push_all([Alert { marks: vec![(key(2), 20)], ..numbered(4) }]);
    running.spool.note(vec![(key(9), 90)]);
    running.end();
    let running = Running::start(&path, &[]);
    let mut told = running.spool.told();
    told.sort_by_key(|(key, _)| key.pid);
    assert_eq!(told, [(key(1), 1), (key(2), 20), (key(3), 3), (key(9), 90)]);
    // No more than there is room for: the younger ones.
    let max = super::marks::marks_max(room_for_alerts(BYTES_MAX));
    let many = |from: u32| (from..from + max as u32 / 2).map(|pid| (key(pid), 1)).collect();
    for from in 1..5 {
        running.push_all([Alert { marks: many(from * 100_000), ..numbered(5) }]);
    }
    let told = running.spool.told();
    assert!(told.len() as u64 <= max && told.len() as u64 >= max / 3, "{} of {max}", told.len());
    assert!(told.iter().any(|(key, _)| key.pid >= 400_000) && !told.contains(&(key(1), 1)));
    running.spool.forget_told();
    assert_eq!(running.spool.told(), []);
    running.end();
}
