//! `dnswall top`: who talks to whom and what is refused, live.
//!
//! `Picture → History → Seen → Sheet → screen`. [`history`] makes rates of two pictures, [`sheet`] rows of them, [`state`] keeps what
//! somebody chose by keys, [`draw`] and [`screen`] show it on a terminal, [`plain`] prints it where there is none.

mod draw;
mod history;
mod plain;
mod screen;
mod sheet;
mod state;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::args::{Form, TopArguments};
use super::exit::{Exit, Failure};
use super::output;
use crate::control::client::Client;

/// How long the agent may take for a picture: more than it gives itself.
const PATIENCE: Duration = Duration::from_secs(15);

pub async fn top(form: Form, client: &Client, arguments: &TopArguments) -> Result<Exit, Failure> {
    let TopArguments { interval, once, iterations } = *arguments;
    let client = client.clone().with_patience(PATIENCE);
    let times = if once { Some(1) } else { iterations };
    match form {
        Form::Json => plain::print(form, &client, interval, times).await,
        Form::Text if times.is_none() && output::terminal().is_some() => {
            screen::show(&client, interval).await
        }
        // Whoever reads it through a pipe waits for its end.
        Form::Text => plain::print(form, &client, interval, times.or(Some(1))).await,
    }
}
