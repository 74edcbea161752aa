//! The last sample, for whoever asks. Takes it from the agent when it is asked for and older than [`FRESH`], and never twice
//! at a time.
//!
//! Looking at the agent takes the engine's lock, which an apply holds for as long as it needs. So a question waits for a new
//! sample no longer than [`ANSWER_WITHIN`], and gets the one before; its age is on the page. One that is older than
//! [`STALE`] is no answer any more: what does not move for so long would look like a quiet host.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use tokio::sync::watch;
use tokio::time::timeout;

use super::exposition::{Form, render};
use super::readiness::Readiness;
use super::sample::{Endpoint, Reader, Sample};

/// A sample that is younger is given again: whoever asks often makes the agent look once in this time.
pub const FRESH: Duration = Duration::from_secs(1);
/// How long a question waits for a new sample. Prometheus waits ten seconds for the page, unless told otherwise.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// How old a sample may be.
pub const STALE: Duration = Duration::from_secs(60);

/// The agent, as it is looked at.
pub trait Source: Send + Sync + 'static {
    /// One look, which may wait for an apply. `endpoint` is to be left as it is.
    ///
    /// # Errors
    /// Why there is nothing to see.
    fn sample(&self) -> Result<Sample, String>;

    /// The thread that reads events. Never waits.
    fn reader(&self) -> Reader;
}

/// The last sample, and how to get another one.
pub struct Board {
    source: Arc<dyn Source>,
    last: watch::Sender<Option<Arc<Seen>>>,
    is_looking: AtomicBool,
    crowded_out: AtomicU64,
    bounds: Bounds,
}

/// [`FRESH`], [`ANSWER_WITHIN`] and [`STALE`], which a test makes shorter.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// See [`FRESH`].
    pub fresh: Duration,
    /// See [`ANSWER_WITHIN`].
    pub answer: Duration,
    /// See [`STALE`].
    pub stale: Duration,
}

/// What one look has seen, written down once for each form.
pub struct Seen {
    at: Instant,
    sample: Arc<Sample>,
    pages: [OnceLock<Option<Bytes>>; 2],
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Silence {
    /// The agent has been busy for so long, or was never seen.
    Busy(Option<Duration>),
    /// The agent could not be looked at.
    Failed(String),
}

impl Default for Bounds {
    fn default() -> Self {
        Self { fresh: FRESH, answer: ANSWER_WITHIN, stale: STALE }
    }
}

impl Board {
    /// Of this agent.
    pub fn new(source: Arc<dyn Source>, bounds: Bounds) -> Arc<Self> {
        Arc::new(Self {
            source,
            last: watch::Sender::new(None),
            is_looking: AtomicBool::new(false),
            crowded_out: AtomicU64::new(0),
            bounds,
        })
    }

    /// What was seen last, which is fresh unless the agent is busy.
    ///
    /// # Errors
    /// When there is nothing, or it is too old.
    pub async fn seen(self: &Arc<Self>) -> Result<Arc<Seen>, Silence> {
        let mut last = self.last.subscribe();
        if let Some(seen) = self.fresh() {
            return Ok(seen);
        }
        let failure = timeout(self.bounds.answer, async {
            loop {
                match self.look().await {
                    Looked::Failed(why) => return Some(why),
                    Looked::Seen => return None,
                    // Somebody else looks already.
                    Looked::Busy => {
                        let _ = last.changed().await;
                        if self.fresh().is_some() {
                            return None;
                        }
                    }
                }
            }
        });
        if let Ok(Some(why)) = failure.await {
            return Err(Silence::Failed(why));
        }
        let seen = self.last.borrow().clone().ok_or(Silence::Busy(None))?;
        let age = seen.at.elapsed();
        if age <= self.bounds.stale { Ok(seen) } else { Err(Silence::Busy(Some(age))) }
    }

    /// The thread that reads events, at this moment.
    pub fn reader(&self) -> Reader {
        self.source.reader()
    }

    /// Counts a connection that made room for a younger one.
    pub fn crowded_out(&self) {
        self.crowded_out.fetch_add(1, Ordering::Relaxed);
    }

    fn fresh(&self) -> Option<Arc<Seen>> {
        self.last.borrow().clone().filter(|seen| seen.at.elapsed() < self.bounds.fresh)
    }

    // On a thread that may wait for the lock; it goes on when nobody waits for it any more.
    async fn look(self: &Arc<Self>) -> Looked {
        if self.is_looking.swap(true, Ordering::AcqRel) {
            return Looked::Busy;
        }
        let board = Arc::clone(self);
        let looked = tokio::task::spawn_blocking(move || {
            let _looking = Looking(&board.is_looking);
            match board.source.sample() {
                Ok(mut sample) => {
                    sample.endpoint = Endpoint { crowded_out: board.crowded_out.load(Ordering::Relaxed) };
                    let seen =
                        Seen { at: Instant::now(), sample: Arc::new(sample), pages: Default::default() };
                    board.last.send_replace(Some(Arc::new(seen)));
                    Looked::Seen
                }
                Err(why) => Looked::Failed(why),
            }
        });
        looked.await.unwrap_or_else(|error| Looked::Failed(error.to_string()))
    }
}

/// Whoever looks; the next one may when this goes, however it does.
struct Looking<'b>(&'b AtomicBool);

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

enum Looked {
    Seen,
    Busy,
    Failed(String),
}

impl Seen {
    /// The page of metrics; `None` when it could not be written.
    pub fn page(&self, form: Form) -> Option<Bytes> {
        let page = || render(&self.sample, form).ok().map(Bytes::from);
        self.pages[form as usize].get_or_init(page).clone()
    }

    /// Whether the agent was ready. What the reader does is known at any moment.
    pub fn readiness(&self, reader: Reader) -> Readiness {
        Readiness::of(&Sample { reader, ..(*self.sample).clone() })
    }
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy(None) => f.write_str("engine: it is busy, and was not seen yet"),
            Self::Busy(Some(age)) => {
                write!(f, "engine: it has been busy for {} s: a policy is being applied", age.as_secs())
            }
            Self::Failed(why) => write!(f, "engine: it cannot be looked at: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Mutex, MutexGuard};

    /// An agent whose lock a test may hold.
    #[derive(Default)]
    struct Slow {
        lock: Mutex<()>,
        looks: AtomicU64,
        is_broken: AtomicBool,
    }

    impl Slow {
        fn hold(&self) -> MutexGuard<'_, ()> {
            self.lock.lock().unwrap()
        }

        fn looks(&self) -> u64 {
            self.looks.load(Ordering::Relaxed)
        }
    }

    impl Source for Slow {
        fn sample(&self) -> Result<Sample, String> {
            let _lock = self.hold();
            self.looks.fetch_add(1, Ordering::Relaxed);
            if self.is_broken.load(Ordering::Relaxed) {
                Err("no map".to_owned())
            } else {
                Ok(Sample::default())
            }
        }

        fn reader(&self) -> Reader {
            Reader::default()
        }
    }

    fn bounds(fresh_ms: u64, answer_ms: u64, stale_ms: u64) -> Bounds {
        let [fresh, answer, stale] = [fresh_ms, answer_ms, stale_ms].map(Duration::from_millis);
        Bounds { fresh, answer, stale }
    }

    #[tokio::test]
    async fn who_asks_often_makes_one_look() {
        let source = Arc::new(Slow::default());
        let board = Board::new(Arc::<Slow>::clone(&source), bounds(60_000, 5_000, 60_000));
        for _ in 0..20 {
            let _seen = board.seen().await.unwrap();
        }
        assert_eq!(source.looks(), 1);
    }

    #[tokio::test]
    #[allow(clippy::await_holding_lock, reason = "that the agent's lock is held meanwhile is what is tried")]
    async fn a_held_lock_gives_the_sample_before_and_then_none() {
        let source = Arc::new(Slow::default());
        let board = Board::new(Arc::<Slow>::clone(&source), bounds(0, 50, 300));
        let held = source.hold();
        assert_eq!(board.seen().await.err(), Some(Silence::Busy(None)));
        drop(held);
        while board.seen().await.is_err() {}
        let held = source.hold();
        let began = Instant::now();
        assert!(board.seen().await.is_ok(), "the one before");
        assert!(began.elapsed() < Duration::from_secs(2));
        tokio::time::sleep(Duration::from_millis(400)).await;
        assert!(matches!(board.seen().await.err(), Some(Silence::Busy(Some(_)))));
        drop(held);
        // The look that waited for the lock is over some time.
        let until = Instant::now() + Duration::from_secs(5);
        while board.seen().await.is_err() && Instant::now() < until {}
        assert!(board.seen().await.is_ok());
    }

    #[tokio::test]
    async fn what_cannot_be_looked_at_says_so() {
        let source = Arc::new(Slow::default());
        let board = Board::new(Arc::<Slow>::clone(&source), bounds(0, 1_000, 60_000));
        assert!(board.seen().await.is_ok());
        source.is_broken.store(true, Ordering::Relaxed);
        assert_eq!(board.seen().await.err(), Some(Silence::Failed("no map".to_owned())));
    }
}
