//! A policy on trial: it decides, and is taken back unless somebody confirms it in time, so that whoever locks himself
//! out has only to wait.
//!
//! Until then the disk's last good policy is the confirmed one: an agent that dies brings it back when it starts. The
//! confirmed policy is kept compiled, so that going back does not depend on what the host has become meanwhile.

use std::time::{Duration, Instant};

use super::super::store::Stored;
use super::{Change, Engine, EngineError, Publish, Running, diff, not_kept, now, prepare, publish};

/// Least and most time a policy may wait for its confirmation.
pub const CONFIRM_RANGE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3_600));

/// What decides again unless the running policy is confirmed.
pub struct Pending {
    before: Running,
    deadline: Instant,
}

impl Pending {
    /// What decides again.
    pub fn before(&self) -> &Running {
        &self.before
    }

    /// When.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whole seconds until then, the one that has begun included.
    pub fn seconds_left(&self, now: Instant) -> u64 {
        let left = self.deadline.saturating_duration_since(now);
        left.as_secs() + u64::from(left.subsec_nanos() > 0)
    }
}

impl<W: Publish> Engine<W> {
    /// Replaces the policy that decides until `deadline`, and for good when it is confirmed before that. A policy that
    /// is on trial already is replaced; the confirmed one stays what is gone back to.
    ///
    /// # Errors
    /// Why not; nothing has changed then.
    pub fn try_out(&mut self, text: String, origin: &str, deadline: Instant) -> Result<Change, EngineError> {
        let mut running = prepare(Stored::new(text, origin, now()), self.running.environment.again())?;
        let change = Change {
            previous: self.running.origin.digest.clone(),
            diff: diff(&self.running.policy, &running.policy),
        };
        // Before it decides: whatever happens from here on, the next agent knows whose events wait in the ring.
        self.store.begin_trial(&running.stored())?;
        let Self { wall, book, .. } = self;
        if let Err(error) = publish(wall, book, &mut running) {
            self.restore_trial();
            return Err(error);
        }
        let replaced = self.decide_by(running);
        let before = self.pending.take().map_or(replaced, |pending| pending.before);
        self.pending = Some(Pending { before, deadline });
        self.lapsed = None;
        Ok(change)
    }

    /// Makes the policy on trial the last good one.
    ///
    /// # Errors
    /// When there is none, or it is too late, or it cannot be kept: then it stays on trial.
    pub fn confirm(&mut self, now: Instant) -> Result<Change, EngineError> {
        let pending = self.pending.as_ref().ok_or(EngineError::NothingToConfirm)?;
        if now >= pending.deadline {
            self.lapse(now)?;
            return Err(EngineError::TooLate);
        }
        let change = Change {
            previous: pending.before.origin.digest.clone(),
            diff: diff(&pending.before.policy, &self.running.policy),
        };
        self.store.stage(self.running.stored())?.commit()?;
        self.pending = None;
        self.end_trial();
        self.trouble = None;
        Ok(change)
    }

    /// Goes back when the time is over. Says whether it did.
    ///
    /// # Errors
    /// Why it could not; to be tried again.
    pub fn lapse(&mut self, now: Instant) -> Result<bool, EngineError> {
        if self.pending.as_ref().is_none_or(|pending| now < pending.deadline) {
            return Ok(false);
        }
        let late = described(&self.running);
        self.go_back()?;
        self.lapsed = Some(format!(
            "policy {late} was not confirmed in time: {} decides again",
            described(&self.running)
        ));
        Ok(true)
    }

    /// Takes back the policy on trial, if there is one. Gives what changed.
    ///
    /// # Errors
    /// Why not; nothing has changed then.
    pub fn go_back(&mut self) -> Result<Option<Change>, EngineError> {
        let Some(Pending { mut before, deadline }) = self.pending.take() else { return Ok(None) };
        let Self { wall, book, .. } = self;
        if let Err(error) = publish(wall, book, &mut before) {
            self.pending = Some(Pending { before, deadline });
            return Err(error);
        }
        let change = Change {
            previous: self.running.origin.digest.clone(),
            diff: diff(&self.running.policy, &before.policy),
        };
        self.decide_by(before);
        self.end_trial();
        Ok(Some(change))
    }

    /// The policy that decides again, and when, while the running one is on trial.
    pub fn pending(&self) -> Option<&Pending> {
        self.pending.as_ref()
    }

    /// That a policy was taken back by itself, until another one is applied.
    pub fn lapsed(&self) -> Option<&str> {
        self.lapsed.as_deref()
    }

    pub(super) fn refuse_on_trial(&self) -> Result<(), EngineError> {
        match &self.pending {
            None => Ok(()),
            Some(pending) => Err(EngineError::OnTrial {
                name: self.running.policy.name.clone(),
                seconds_left: pending.seconds_left(Instant::now()),
            }),
        }
    }

    // What was written for a policy that was not published is another one's again, or nobody's.
    fn restore_trial(&mut self) {
        if self.pending.is_none() {
            self.end_trial();
        } else if let Err(error) = self.store.begin_trial(&self.running.stored()) {
            self.trouble = Some(not_kept(error));
        }
    }

    // A trial that the disk still knows of is one more line in the log of the next start, and nothing else.
    fn end_trial(&mut self) {
        if let Err(error) = self.store.end_trial() {
            tracing::warn!("{error}");
        }
    }
}

/// A policy as the log and `status` name it.
pub(super) fn described(running: &Running) -> String {
    format!("{} ({})", running.policy.name, running.origin.origin)
}
