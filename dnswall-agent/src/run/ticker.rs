//! What the agent does by itself: takes back a policy that was not confirmed, notices executables that were replaced,
//! makes room for new cgroups, and tells the service manager that all is well.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::engine::Engine;
use super::notice;
use super::reader::Inbox;
use crate::kernel::memory;

/// Between two looks at the executables the policy names.
const REFRESH: Duration = Duration::from_secs(2);

/// After one that failed.
const REFRESH_AGAIN: Duration = Duration::from_secs(60);

/// Between two tries to take a policy back.
const LAPSE_AGAIN: Duration = Duration::from_millis(200);

/// Between two looks for cgroups that are gone: a host that makes a thousand a second does not fill the map meanwhile.
const SWEEP: Duration = Duration::from_secs(10);

/// Goes on until the other end of `until` is dropped; to be run on a thread of its own.
pub fn run(engine: &Mutex<Engine>, inbox: &Arc<Inbox>, until: &Receiver<()>) {
    let mut trouble = Trouble::of("look at the policy's programs and lists again");
    let mut lapses = Trouble::of("take back the policy that was not confirmed");
    let watchdog = notice::alive_every();
    let tick = watchdog.map_or(REFRESH, |every| every.min(REFRESH));
    let mut refreshed = Instant::now();
    let mut swept = Instant::now();
    loop {
        match until.recv_timeout(next_look(engine, tick)) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
        }
        if refreshed.elapsed() >= REFRESH {
            let result = refresh(engine);
            // What failed a moment ago fails again.
            refreshed = Instant::now() + if result.is_err() { REFRESH_AGAIN } else { Duration::ZERO };
            trouble.note(result);
        }
        let mut engine = engine.lock().unwrap_or_else(PoisonError::into_inner);
        lapse(&mut engine, &mut lapses);
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

/// How long until there is something to do: a policy on trial is taken back when its time is over, not some time after.
fn next_look(engine: &Mutex<Engine>, tick: Duration) -> Duration {
    let engine = engine.lock().unwrap_or_else(PoisonError::into_inner);
    let left = engine.pending().map(|pending| pending.deadline().saturating_duration_since(Instant::now()));
    left.map_or(tick, |left| left.max(LAPSE_AGAIN).min(tick))
}

fn lapse(engine: &mut Engine, trouble: &mut Trouble) {
    match engine.lapse(Instant::now()) {
        Ok(true) => {
            let said = engine.lapsed().unwrap_or_default();
            tracing::warn!("{said}");
            notice::status(said);
        }
        Ok(false) => {}
        Err(error) => trouble.note(Err(error.into())),
    }
}

/// Not with the engine's lock while lists are read: others wait for it, the service manager among them.
fn refresh(engine: &Mutex<Engine>) -> anyhow::Result<()> {
    let lock = || engine.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(outdated) = lock().outdated() else { return Ok(()) };
    let running = outdated.compile()?;
    let warnings: Vec<String> = running.warnings.iter().map(ToString::to_string).collect();
    if let Some(generation) = lock().refresh(running)? {
        tracing::info!(generation, "a program or a list that the policy names is another file now");
        warnings.iter().for_each(|warning| tracing::warn!("policy: {warning}"));
    }
    memory::give_back();
    Ok(())
}

/// Says a trouble once, not every time.
struct Trouble {
    doing: &'static str,
    last: Option<String>,
}

impl Trouble {
    fn of(doing: &'static str) -> Self {
        Self { doing, last: None }
    }

    fn note(&mut self, result: anyhow::Result<()>) {
        let Err(error) = result else { return };
        let said = format!("{}: {error:#}", self.doing);
        if self.last.as_ref() != Some(&said) {
            tracing::error!("{said}");
            self.last = Some(said);
        }
    }
}
