//! Takes what is looked for, gives what was found, each on its own way: a thread reads, and nobody has to wait for it.
//!
//! The file systems it reads from are others' too, and one that is dead keeps whoever touches it: see [`worker`](crate::worker).

use std::sync::Arc;
use std::time::Duration;

use super::Container;
use super::find::Asked;
use crate::worker::{Limits, Worker};

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
    worker: Worker<Asked, Answer>,
}

impl Clerk {
    /// A thread that finds like this; none until it is needed.
    pub fn new(find: Find) -> Self {
        let limits = Limits { owed_max: ERRANDS_MAX, left_behind_max: LEFT_BEHIND_MAX };
        let work = move |asked: Asked| {
            let found = find(&asked);
            (asked, found)
        };
        Self { worker: Worker::new("dnswall-names", limits, Arc::new(work)) }
    }

    /// Has something looked for. `false` when nobody can. What is there of answers is to be taken before, or a thread that
    /// has given them seems to be stuck.
    pub fn ask(&mut self, asked: Asked) -> bool {
        if self.worker.silence() >= STUCK {
            self.worker.leave();
        }
        self.worker.ask(asked)
    }

    /// The next answer, if it is there within `patience`.
    pub fn answer(&mut self, patience: Duration) -> Option<Answer> {
        self.worker.answer(patience)
    }

    /// Answers that are still to come.
    pub fn owed(&self) -> usize {
        self.worker.owed()
    }

    /// Threads that do not come back.
    pub fn left_behind(&self) -> usize {
        self.worker.left_behind().count()
    }
}
