//! What the agent does by itself: notices executables that were replaced, makes room for new cgroups, and tells the
//! service manager that all is well.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::engine::Engine;
use super::notice;
use super::reader::Inbox;

/// Between two looks at the executables the policy names.
const REFRESH: Duration = Duration::from_secs(2);

/// Between two looks for cgroups that are gone: a host that makes a thousand a second does not fill the map meanwhile.
const SWEEP: Duration = Duration::from_secs(10);

/// Goes on until the other end of `until` is dropped; to be run on a thread of its own.
pub fn run(engine: &Mutex<Engine>, inbox: &Arc<Inbox>, until: &Receiver<()>) {
    let mut trouble = Trouble::default();
    let watchdog = notice::alive_every();
    let tick = watchdog.map_or(REFRESH, |every| every.min(REFRESH));
    let mut refreshed = Instant::now();
    let mut swept = Instant::now();
    loop {
        match until.recv_timeout(tick) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
        let mut engine = engine.lock().unwrap_or_else(PoisonError::into_inner);
        if refreshed.elapsed() >= REFRESH {
            refreshed = Instant::now();
            trouble.note(refresh(&mut engine));
        }
        if swept.elapsed() >= SWEEP {
            swept = Instant::now();
            engine.wall_mut().forget_cgroups();
        }
        drop(engine);
        // The lock was free and the reader goes round: that is what the service manager wants to know.
        if watchdog.is_some() && inbox.is_alive() {
            notice::alive();
        }
    }
}

fn refresh(engine: &mut Engine) -> anyhow::Result<()> {
    if let Some(generation) = engine.refresh()? {
        tracing::info!(generation, "an executable that the policy names is another file now");
    }
    Ok(())
}

/// Says a trouble once, not every time.
#[derive(Default)]
struct Trouble {
    last: Option<String>,
}

impl Trouble {
    fn note(&mut self, result: anyhow::Result<()>) {
        let Err(error) = result else { return };
        let said = format!("look at the policy's executables again: {error:#}");
        if self.last.as_ref() != Some(&said) {
            tracing::error!("{said}");
            self.last = Some(said);
        }
    }
}
