//! Takes what is looked for, gives what was found, each on its own way: a thread reads, and nobody has to wait for it.
//!
//! The file systems it reads from are others' too, and one that is dead keeps whoever touches it. A thread that does not come
//! back is left behind and another one takes its place, as often as [`LEFT_BEHIND_MAX`] times.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::Container;
use super::find::Asked;

/// Containers that may wait for the thread.
const ERRANDS_MAX: usize = 64;
/// How long the thread may take for one before it is left behind.
const STUCK: Duration = Duration::from_secs(5);
/// Threads that may be left behind at a time. When so many are, nothing is looked for until one is back.
pub const LEFT_BEHIND_MAX: usize = 4;

/// What finds a container.
pub type Find = Arc<dyn Fn(&Asked) -> Option<Container> + Send + Sync>;
/// What was looked for, and what was found.
pub type Answer = (Asked, Option<Container>);

/// The thread, as whoever asks it sees it.
pub struct Clerk {
    find: Find,
    desk: Option<Desk>,
    left_behind: Arc<AtomicUsize>,
}

struct Desk {
    errands: SyncSender<Asked>,
    answers: Receiver<Answer>,
    /// Answers that are still to come.
    owed: usize,
    /// When an answer was last taken, or the thread got something to do after it had nothing.
    since: Instant,
    /// Whether the thread is among those that are left behind.
    is_left: Arc<AtomicBool>,
}

impl Clerk {
    /// A thread that finds like this; none until it is needed.
    pub fn new(find: Find) -> Self {
        Self { find, desk: None, left_behind: Arc::default() }
    }

    /// Has something looked for. `false` when nobody can. What is there of answers is to be taken before, or a thread that
    /// has given them seems to be stuck.
    pub fn ask(&mut self, asked: Asked) -> bool {
        self.replace_stuck();
        if self.desk.is_none() && self.left_behind() < LEFT_BEHIND_MAX {
            self.desk = employ(Arc::clone(&self.find), Arc::clone(&self.left_behind));
        }
        let Some(desk) = &mut self.desk else { return false };
        let is_taken = desk.errands.try_send(asked).is_ok();
        if is_taken {
            if desk.owed == 0 {
                desk.since = Instant::now();
            }
            desk.owed += 1;
        }
        is_taken
    }

    /// The next answer, if it is there within `patience`.
    pub fn answer(&mut self, patience: Duration) -> Option<Answer> {
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

    /// Threads that do not come back.
    pub fn left_behind(&self) -> usize {
        self.left_behind.load(Ordering::Relaxed)
    }

    fn replace_stuck(&mut self) {
        let is_stuck = |desk: &mut Desk| desk.owed > 0 && desk.since.elapsed() >= STUCK;
        if let Some(desk) = self.desk.take_if(is_stuck) {
            // Before it can notice: it counts itself out when it is back and finds that nobody is there.
            desk.is_left.store(true, Ordering::Release);
            self.left_behind.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn employ(find: Find, left_behind: Arc<AtomicUsize>) -> Option<Desk> {
    let (errands, asked) = sync_channel(ERRANDS_MAX);
    let (answer, answers) = channel();
    let is_left = Arc::new(AtomicBool::new(false));
    let was_left = Arc::clone(&is_left);
    let run = move || {
        run(&find, &asked, &answer);
        if was_left.load(Ordering::Acquire) {
            left_behind.fetch_sub(1, Ordering::Relaxed);
        }
    };
    thread::Builder::new().name("dnswall-names".to_owned()).spawn(run).ok()?;
    Some(Desk { errands, answers, owed: 0, since: Instant::now(), is_left })
}

/// Until nobody asks, or wants to know, any more.
fn run(find: &Find, asked: &Receiver<Asked>, answer: &Sender<Answer>) {
    for asked in asked {
        let found = find(&asked);
        if answer.send((asked, found)).is_err() {
            return;
        }
    }
}
