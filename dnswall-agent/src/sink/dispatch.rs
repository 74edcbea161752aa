//! Takes alerts, hands each to every sink's queue. Starts no threads: whoever makes a [`Dispatcher`] also gets the
//! [`Worker`]s and runs each on a thread of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Sink;
use super::counter::{SinkCounters, SinkStatus};
use super::queue::{QUEUE_ALERTS_MAX, Queue};
use crate::alert::Alert;

/// How often the queues are looked at by who waits for room in them.
const ROOM_POLL: Duration = Duration::from_millis(2);

/// The producer's end of all queues. When it is dropped, the workers write what is left and end.
#[derive(Debug, Default)]
pub struct Dispatcher {
    lanes: Vec<Lane>,
}

#[derive(Debug)]
struct Lane {
    name: String,
    queue: Arc<Queue>,
    counters: Arc<SinkCounters>,
}

/// The consumer's end of one queue, and its sink.
pub struct Worker {
    sink: Box<dyn Sink>,
    queue: Arc<Queue>,
    counters: Arc<SinkCounters>,
}

impl Dispatcher {
    /// One queue and one worker for each sink.
    pub fn new(sinks: Vec<Box<dyn Sink>>) -> (Self, Vec<Worker>) {
        let mut dispatcher = Self::default();
        let mut workers = Vec::new();
        for sink in sinks {
            let queue = Arc::new(Queue::new(QUEUE_ALERTS_MAX));
            let counters = Arc::new(SinkCounters::default());
            let name = sink.name().to_owned();
            dispatcher.lanes.push(Lane { name, queue: queue.clone(), counters: counters.clone() });
            workers.push(Worker { sink, queue, counters });
        }
        (dispatcher, workers)
    }

    /// Hands an alert to every sink and never waits; a sink whose queue is full does not get it, which is counted.
    pub fn deliver(&mut self, alert: &Alert) {
        if self.lanes.is_empty() {
            return;
        }
        let alert = Arc::new(alert.clone());
        for lane in &self.lanes {
            // Counted before the worker can see it, so that `queued` is never below the truth.
            lane.counters.delivered();
            if !lane.queue.push(alert.clone()) {
                lane.counters.refused();
            }
        }
    }

    /// Hands over the last alerts before the end: waits for room in the queues, altogether not longer than
    /// `patience`.
    pub fn deliver_last(&mut self, alerts: &[Alert], patience: Duration) {
        let end = Instant::now() + patience;
        for alert in alerts {
            while self.lanes.iter().any(|lane| lane.queue.is_full()) && Instant::now() < end {
                std::thread::sleep(ROOM_POLL);
            }
            self.deliver(alert);
        }
        while !self.is_settled() && Instant::now() < end {
            std::thread::sleep(ROOM_POLL);
        }
    }

    /// What became of the alerts, by sink.
    pub fn status(&self) -> Vec<SinkStatus> {
        self.lanes.iter().map(|lane| lane.counters.status(&lane.name)).collect()
    }

    /// Whether every alert that was delivered is written or has failed.
    pub fn is_settled(&self) -> bool {
        self.status().iter().all(|status| status.queued == 0)
    }

    /// Takes no more alerts; the workers write what is left and end.
    pub fn close(&mut self) {
        for lane in &self.lanes {
            lane.queue.close();
        }
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        self.close();
    }
}

impl Worker {
    /// The sink's name.
    pub fn name(&self) -> &str {
        self.sink.name()
    }

    /// Writes alerts until the dispatcher is closed and the queue empty. To be run on a thread that may block.
    pub fn run(mut self) {
        let mut failing = false;
        while let Some(alert) = self.queue.pop() {
            let result = self.sink.write(&alert);
            let name = self.sink.name();
            match result {
                Ok(bytes) => {
                    self.counters.written(bytes);
                    if failing {
                        tracing::info!(sink = name, "alerts are written again");
                    }
                    failing = false;
                }
                Err(error) => {
                    self.counters.failed(&error.to_string());
                    if !failing {
                        tracing::warn!(sink = name, %error, "an alert could not be written");
                    }
                    failing = true;
                }
            }
            if let Some(trouble) = self.sink.trouble() {
                self.counters.trouble(trouble);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::sample;
    use std::io;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Writes when it is told to, and fails when it is told so.
    struct Told {
        orders: Receiver<io::Result<usize>>,
        seen: Sender<u64>,
    }

    impl Sink for Told {
        fn name(&self) -> &str {
            "told"
        }

        fn write(&mut self, alert: &Alert) -> io::Result<usize> {
            let result = self.orders.recv().unwrap_or(Ok(0));
            self.seen.send(alert.count).unwrap();
            result
        }
    }

    fn told() -> (Box<Told>, Sender<io::Result<usize>>, Receiver<u64>) {
        let ((order, orders), (seen, sight)) = (channel(), channel());
        (Box::new(Told { orders, seen }), order, sight)
    }

    fn numbered(count: u64) -> Alert {
        Alert { count, ..sample::alert() }
    }

    #[test]
    fn a_slow_sink_stops_no_other() {
        let (slow, _slow_order, slow_sight) = told();
        let (fast, fast_order, fast_sight) = told();
        let (mut dispatcher, workers) = Dispatcher::new(vec![slow, fast]);
        let threads: Vec<_> = workers.into_iter().map(|worker| std::thread::spawn(|| worker.run())).collect();
        let total = QUEUE_ALERTS_MAX as u64 + 50;
        for count in 0..total {
            fast_order.send(Ok(100)).unwrap();
            dispatcher.deliver(&numbered(count));
            assert_eq!(fast_sight.recv().unwrap(), count);
        }
        let [slow, _] = dispatcher.status().try_into().unwrap();
        assert!(slow.written == 0 && (49..=50).contains(&slow.refused), "{slow:?}");
        assert_eq!(slow.queued + slow.refused, total);
        assert!(!dispatcher.is_settled());
        drop(_slow_order);
        drop(fast_order);
        dispatcher.close();
        for thread in threads {
            thread.join().unwrap();
        }
        let [slow, fast] = dispatcher.status().try_into().unwrap();
        assert_eq!((fast.written, fast.bytes, fast.refused), (total, total * 100, 0));
        assert_eq!(slow.written + slow.refused, total);
        assert!(dispatcher.is_settled());
        assert!(slow_sight.try_iter().is_sorted());
    }

    #[test]
    fn failures_are_counted_and_the_next_alert_is_tried() {
        let (sink, order, _sight) = told();
        let (mut dispatcher, workers) = Dispatcher::new(vec![sink]);
        order.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        order.send(Ok(7)).unwrap();
        dispatcher.deliver(&numbered(1));
        dispatcher.deliver(&numbered(2));
        dispatcher.close();
        dispatcher.deliver(&numbered(3));
        workers.into_iter().for_each(Worker::run);
        let status = dispatcher.status().remove(0);
        assert_eq!((status.written, status.failed, status.refused, status.queued), (1, 1, 1, 0));
        assert_eq!((status.bytes, status.last_error.as_deref()), (7, Some("no storage space")));
    }

    #[test]
    fn the_last_alerts_wait_for_room() {
        let (sink, order, sight) = told();
        let (mut dispatcher, workers) = Dispatcher::new(vec![sink]);
        // Without orders it writes at once.
        drop(order);
        let threads: Vec<_> = workers.into_iter().map(|worker| std::thread::spawn(|| worker.run())).collect();
        let alerts: Vec<Alert> = (0..3 * QUEUE_ALERTS_MAX as u64).map(numbered).collect();
        dispatcher.deliver_last(&alerts, Duration::from_secs(60));
        assert!(dispatcher.is_settled());
        assert_eq!(dispatcher.status()[0].written, alerts.len() as u64);
        assert!(sight.try_iter().eq(0..alerts.len() as u64));
        drop(dispatcher);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn a_blocked_sink_does_not_hold_up_the_end_for_ever() {
        let (sink, _order, _sight) = told();
        let (mut dispatcher, _workers) = Dispatcher::new(vec![sink]);
        let alerts: Vec<Alert> = (0..QUEUE_ALERTS_MAX as u64 + 5).map(numbered).collect();
        dispatcher.deliver_last(&alerts, Duration::from_millis(20));
        let status = dispatcher.status().remove(0);
        assert_eq!((status.queued, status.refused), (QUEUE_ALERTS_MAX as u64, 5));
    }

    #[test]
    fn without_sinks_nothing_happens() {
        let (mut dispatcher, workers) = Dispatcher::new(Vec::new());
        dispatcher.deliver(&numbered(1));
        assert!(workers.is_empty() && dispatcher.is_settled());
    }
}
