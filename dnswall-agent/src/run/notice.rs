//! Tells the service manager how the agent is. Without one, nobody listens, which is no mistake.

use std::time::Duration;

use sd_notify::NotifyState;

/// The wall stands and commands are answered.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// What to show beside the unit.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// The agent is on its way out.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("ending; the wall keeps standing")]);
}

/// All is well.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often [`alive`] has to be said: half of what the service manager waits.
pub fn alive_every() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|patience| patience / 2)
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "notify the service manager");
    }
}
