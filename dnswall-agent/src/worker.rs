//! Takes work that may hang for ever, gives what comes of it to whoever asks, as long as he has patience.
//!
//! Who reads from others' file systems, or from another process, may never come back, and no thread can be ended from outside. So
//! one thread works, and when it takes too long it is left behind: another takes its place, as long as not too many are. One that
//! comes back after all finds that nobody is there, and ends. When that is too long is for whoever asks to say.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

/// What is to be done.
pub type Work<Q, A> = Arc<dyn Fn(Q) -> A + Send + Sync>;

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Errands whose answers may be still to come.
    pub owed_max: usize,
    /// Threads that may be left behind at a time. When so many are, nothing is done until one is back.
    pub left_behind_max: usize,
}

/// The thread, as whoever asks it sees it.
pub struct Worker<Q, A> {
    /// What its threads are called, in 15 bytes.
    name: &'static str,
    limits: Limits,
    work: Work<Q, A>,
    desk: Option<Desk<Q, A>>,
    left_behind: LeftBehind,
}

/// How many threads are left behind. Clones are the same count.
#[derive(Clone, Debug, Default)]
pub struct LeftBehind(Arc<AtomicUsize>);

/// One thread that is: counted as long as this lives.
struct Counted(LeftBehind);

struct Desk<Q, A> {
    errands: SyncSender<Q>,
    answers: Receiver<A>,
    /// Answers that are still to come. There is room for each.
    owed: usize,
    /// When an answer was last taken, or the thread got something to do after it had nothing.
    since: Instant,
    /// Filled when the thread is left behind. The thread has it too, and who is the last to drop it takes the thread out of the
    /// count: there is no moment for the thread to come back in that would leave it in there, or take it out twice.
    left: Arc<OnceLock<Counted>>,
}

impl<Q: Send + 'static, A: Send + 'static> Worker<Q, A> {
    /// A thread that works like this; none until it is needed.
    pub fn new(name: &'static str, limits: Limits, work: Work<Q, A>) -> Self {
        Self { name, limits, work, desk: None, left_behind: LeftBehind::default() }
    }

    /// Gives the thread something to do. `false` when it has too much, or nobody can.
    pub fn ask(&mut self, errand: Q) -> bool {
        if self.desk.is_none() && self.left_behind.count() < self.limits.left_behind_max {
            self.desk = self.employ();
        }
        let owed_max = self.limits.owed_max;
        let Some(desk) = self.desk.as_mut().filter(|desk| desk.owed < owed_max) else { return false };
        let is_taken = desk.errands.try_send(errand).is_ok();
        if is_taken {
            if desk.owed == 0 {
                desk.since = Instant::now();
            }
            desk.owed += 1;
        }
        is_taken
    }

    /// The next answer, if it is there within `patience`.
    pub fn answer(&mut self, patience: Duration) -> Option<A> {
        let desk = self.desk.as_mut().filter(|desk| desk.owed > 0)?;
        let answer = desk.answers.recv_timeout(patience).ok()?;
        desk.owed -= 1;
        desk.since = Instant::now();
        Some(answer)
    }

    /// Answers that are still to come.
    pub fn owed(&self) -> usize {
        self.desk.as_ref().map_or(0, |desk| desk.owed)
    }

    /// For how long none has come, nor been taken; zero when none is to come.
    pub fn silence(&self) -> Duration {
        let owing = self.desk.as_ref().filter(|desk| desk.owed > 0);
        owing.map_or(Duration::ZERO, |desk| desk.since.elapsed())
    }

    /// Leaves the thread behind, with every answer that is still to come.
    pub fn leave(&mut self) {
        if let Some(desk) = self.desk.take() {
            desk.left.get_or_init(|| Counted::new(&self.left_behind));
        }
    }

    /// How many threads do not come back.
    pub fn left_behind(&self) -> LeftBehind {
        self.left_behind.clone()
    }

    fn employ(&self) -> Option<Desk<Q, A>> {
        let (errands, asked) = sync_channel(self.limits.owed_max);
        let (answer, answers) = sync_channel(self.limits.owed_max);
        let left = Arc::new(OnceLock::new());
        let (work, left_too) = (Arc::clone(&self.work), Arc::clone(&left));
        let run = move || {
            run(&*work, &asked, &answer);
            drop(left_too);
        };
        thread::Builder::new().name(self.name.to_owned()).spawn(run).ok()?;
        Some(Desk { errands, answers, owed: 0, since: Instant::now(), left })
    }
}

/// Until nobody asks, or wants to know, any more.
fn run<Q, A>(work: &dyn Fn(Q) -> A, asked: &Receiver<Q>, answer: &SyncSender<A>) {
    for errand in asked {
        if answer.send(work(errand)).is_err() {
            return;
        }
    }
}

impl LeftBehind {
    /// How many there are right now.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counted {
    fn new(left_behind: &LeftBehind) -> Self {
        left_behind.0.fetch_add(1, Ordering::Relaxed);
        Self(left_behind.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};

    const LIMITS: Limits = Limits { owed_max: 2, left_behind_max: 3 };
    /// For what comes, however late.
    const SURELY: Duration = Duration::from_secs(60);

    /// Gives back what it gets, as soon as the gate that comes with it opens.
    fn worker() -> Worker<(u32, Receiver<()>), u32> {
        let work = |(number, gate): (u32, Receiver<()>)| {
            let _ = gate.recv();
            number
        };
        Worker::new("dnswall-test", LIMITS, Arc::new(work))
    }

    /// A gate that is shut until this is dropped.
    fn gate() -> (Sender<()>, Receiver<()>) {
        channel()
    }

    fn wait_until_none_is_left(left_behind: &LeftBehind) {
        let until = Instant::now() + SURELY;
        while left_behind.count() > 0 {
            assert!(Instant::now() < until, "{} are left", left_behind.count());
            thread::yield_now();
        }
    }

    #[test]
    fn answers_come_in_turn_and_no_more_is_owed_than_may_be() {
        let mut worker = worker();
        let (open, shut) = gate();
        assert!(worker.ask((1, shut)));
        assert!(worker.ask((2, gate().1)));
        assert!(!worker.ask((3, gate().1)), "two are owed");
        assert_eq!((worker.answer(Duration::ZERO), worker.owed()), (None, 2));
        assert!(worker.silence() > Duration::ZERO);
        drop(open);
        assert_eq!([worker.answer(SURELY), worker.answer(SURELY)], [Some(1), Some(2)]);
        assert_eq!((worker.owed(), worker.silence()), (0, Duration::ZERO));
        assert_eq!((worker.answer(SURELY), worker.left_behind().count()), (None, 0));
    }

    #[test]
    fn who_hangs_is_left_behind_as_long_as_not_too_many_are() {
        let mut worker = worker();
        let mut open = Vec::new();
        for left_behind in 1..=LIMITS.left_behind_max {
            let (opens, shut) = gate();
            open.push(opens);
            assert!(worker.ask((0, shut)));
            worker.leave();
            assert_eq!((worker.left_behind().count(), worker.owed()), (left_behind, 0));
        }
        assert!(!worker.ask((1, gate().1)), "too many are");
        open.pop();
        let until = Instant::now() + SURELY;
        while !worker.ask((2, gate().1)) {
            assert!(Instant::now() < until, "one is back");
        }
        // Of those that are left behind nothing is heard.
        assert_eq!((worker.answer(SURELY), worker.left_behind().count()), (Some(2), 2));
        drop(open);
        wait_until_none_is_left(&worker.left_behind());
    }

    #[test]
    fn who_comes_back_while_it_is_left_behind_is_counted_in_and_out_once() {
        let mut worker = worker();
        let left_behind = worker.left_behind();
        for round in 0..2_000 {
            let (open, shut) = gate();
            assert!(worker.ask((round, shut)));
            drop(open);
            // The thread is anywhere between this errand and looking for the next one.
            for _ in 0..round % 50 {
                std::hint::spin_loop();
            }
            worker.leave();
            assert!(left_behind.count() <= 1, "{}", left_behind.count());
            wait_until_none_is_left(&left_behind);
        }
    }

    #[test]
    fn who_is_gone_before_it_is_left_behind_is_in_no_count() {
        let mut worker: Worker<(), ()> =
            Worker::new("dnswall-test", LIMITS, Arc::new(|()| panic!("as asked")));
        assert!(worker.ask(()));
        assert_eq!(worker.answer(SURELY), None);
        worker.leave();
        wait_until_none_is_left(&worker.left_behind());
    }
}
