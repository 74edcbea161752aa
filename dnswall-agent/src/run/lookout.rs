//! Takes the agent as it is, gives the picture that `dnswall top` shows. Only when it is asked for, and never so often that it
//! costs more than a fifth of a core: an agent that nobody watches does nothing for it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::TryRecvError;

use super::connected;
use super::engine::Engine;
use super::outlet::{Outlet, RECENT_MAX, Stream};
use super::reader::Inbox;
use crate::alert::filter::Filter;
use crate::connections::Wanted;
use crate::control::api::{Picture, Status};
use crate::control::server::Refusal;
use crate::event::{Clocks, Enricher};
use crate::picture::connections::{Talk, talk};
use crate::picture::names::Asked;
use crate::picture::{FLOWS_MAX, Parts, WORKLOADS_MAX, picture};

/// A picture that is younger is given again.
const FRESH: Duration = Duration::from_millis(450);
/// A picture that took long is given again for this many times as long.
const REST: u32 = 4;
/// When nobody has asked for so long, nobody watches any more.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// How long the reader may take to say what is refused.
const READER_PATIENCE: Duration = Duration::from_secs(3);

/// What is kept from one picture to the next.
#[derive(Default)]
pub struct Lookout {
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    last: Option<Last>,
    enricher: Option<Enricher>,
    questions: Option<Questions>,
}

struct Last {
    picture: Picture,
    at: Instant,
    took: Duration,
}

/// The questions since somebody watches.
struct Questions {
    live: broadcast::Receiver<std::sync::Arc<str>>,
    asked: Asked,
}

/// What is looked at.
pub struct View<'a> {
    /// The policy and the wall.
    pub engine: &'a Mutex<Engine>,
    /// What the reader knows.
    pub inbox: &'a Inbox,
    /// Where records of questions go.
    pub outlet: &'a Outlet,
}

impl Lookout {
    /// A picture that is fresh. One look at a time: who asks meanwhile gets the same.
    ///
    /// # Errors
    /// When there is no status.
    pub fn look(
        &self,
        view: &View<'_>,
        status: impl FnOnce() -> Result<Status, Refusal>,
    ) -> Result<Picture, Refusal> {
        // What is held is replaced whole.
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = held.last.as_ref().filter(|last| last.is_fresh()) {
            return Ok(last.picture.clone());
        }
        if held.last.as_ref().is_some_and(|last| last.at.elapsed() > FORGOTTEN) {
            *held = Held::default();
        }
        let began = Instant::now();
        let Held { last, enricher, questions } = &mut *held;
        let talk = look_at_connections(view.engine, enricher);
        let questions = questions.get_or_insert_with(|| Questions::begin(view.outlet));
        questions.read();
        let standing = view.inbox.standing(FLOWS_MAX, WORKLOADS_MAX, READER_PATIENCE);
        // What was counted at one moment, as far as can be, or rates would not fit together.
        let status = status()?;
        let picture = picture(Parts {
            clocks: Clocks::read(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            status,
            standing,
            talk: talk.map_err(|error| format!("{error:#}")),
            asked: &questions.asked,
        });
        *last = Some(Last { picture: picture.clone(), at: Instant::now(), took: began.elapsed() });
        Ok(picture)
    }
}

impl Last {
    fn is_fresh(&self) -> bool {
        self.at.elapsed() < FRESH.max(self.took * REST)
    }
}

fn look_at_connections(engine: &Mutex<Engine>, enricher: &mut Option<Enricher>) -> anyhow::Result<Talk> {
    let seen = connected::see(engine, Wanted::All)?;
    let enricher = match enricher {
        Some(enricher) => enricher,
        None => enricher.insert(connected::enricher(engine)?),
    };
    let (clocks, root) = (Clocks::read(), connected::root(engine));
    Ok(talk(&seen, &root, |event| enricher.enrich(event, &clocks)))
}

impl Questions {
    /// With those that are in memory.
    fn begin(outlet: &Outlet) -> Self {
        let (last, live) = outlet.events(Stream::Questions, RECENT_MAX, &Filter::default());
        let mut questions = Self { live, asked: Asked::default() };
        last.iter().for_each(|line| questions.note(line));
        questions
    }

    /// Takes what came since.
    fn read(&mut self) {
        loop {
            match self.live.try_recv() {
                Ok(line) => self.note(&line),
                Err(TryRecvError::Lagged(missed)) => self.asked.miss(missed),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn note(&mut self, line: &str) {
        // It was written a moment ago by this very agent.
        if let Ok(record) = serde_json::from_str(line) {
            self.asked.note(record);
        }
    }
}
