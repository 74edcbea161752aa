//! `dnswall demo`

use super::args::Form;
use super::exit::{Exit, Failure};
use super::output;
use crate::demo::{NeedsRoot, Options, part, play};

pub fn demo(form: Form) -> Result<Exit, Failure> {
    let outcome =
        play(Options { silent: form == Form::Json }).map_err(|error| match error.is::<NeedsRoot>() {
            true => Failure::new(Exit::HostCannot, error.to_string()).hint("run it as root or with sudo"),
            false => error.into(),
        })?;
    let exit = if outcome.as_expected { Exit::Done } else { Exit::No };
    if form == Form::Json {
        output::answer(form, &outcome, |_| String::new());
    }
    Ok(exit)
}

/// What the demo's own processes are started as.
pub fn play_part(order: &str) -> Result<Exit, Failure> {
    part(order)?;
    Ok(Exit::Done)
}
