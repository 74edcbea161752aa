//! Takes pictures, prints them: tables for a person, a line of JSON for a program.

use std::time::Duration;

use super::history::{History, Seen};
use super::sheet::{View, duration, per_second};
use crate::cli::args::Form;
use crate::cli::columns::{Cell, Columns};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::{self, BAD, GOOD, STRONG, WARN, paint};
use crate::control::client::Client;

/// Prints a picture each interval, so many times or until it is interrupted.
pub async fn print(
    form: Form,
    client: &Client,
    interval: Duration,
    times: Option<u64>,
) -> Result<Exit, Failure> {
    let (mut history, mut printed) = (History::default(), 0);
    loop {
        let picture = client.picture().await?;
        match form {
            Form::Json => output::print_line(&serde_json::to_string(&picture).map_err(anyhow::Error::from)?),
            Form::Text => output::print_line(&text(&history.see(picture), output::terminal().map(|it| it.0))),
        }
        printed += 1;
        if times.is_some_and(|times| printed >= times) {
            return Ok(Exit::Done);
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            // The usual way to stop it.
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Done),
        }
    }
}

/// A picture for a person.
pub fn text(seen: &Seen, available: Option<usize>) -> String {
    let picture = &seen.picture;
    let shown = |text: &str| Cell::new(text).text().to_owned();
    let mode = match picture.mode.as_str() {
        "enforce" => paint(GOOD, "enforcing"),
        "audit" => paint(WARN, "audit: blocks nothing"),
        _ => paint(BAD, "no policy in the kernel: nothing is enforced"),
    };
    let mut lines = vec![format!(
        "{}  {mode}  policy {} (generation {})  {:.0}",
        paint(STRONG, shown(&picture.host)),
        shown(&picture.policy.name),
        picture.policy.generation,
        picture.time
    )];
    let rate = |rate: Option<f64>| rate.map_or_else(|| "-".to_owned(), per_second);
    lines.push(format!(
        "refused {} ({}/s)  would refuse {} ({}/s)  new flows allowed {} ({}/s)",
        picture.totals.denied,
        rate(seen.denied),
        picture.totals.would_deny,
        rate(seen.would_deny),
        picture.totals.allowed,
        rate(seen.allowed)
    ));
    let delivery = &picture.delivery;
    let waits = delivery.oldest_waiting_secs.map_or_else(|| "-".to_owned(), |secs| duration(secs as u64));
    lines.push(format!(
        "alerts {}  sinks {}, {} fail  oldest waits {waits}  alerts lost {}  events lost {}",
        picture.totals.alerts,
        delivery.sinks,
        delivery.failing.len(),
        delivery.lost,
        picture.totals.events_lost
    ));
    let problems = picture.left_out.errors.iter().chain(&picture.warnings);
    lines.extend(problems.map(|problem| format!("{} {}", paint(WARN, "warning:"), shown(problem))));
    for view in View::ALL {
        lines.push(format!("\n{}", paint(STRONG, view.title())));
        let rows = view.rows(seen, 0, false, "");
        if rows.is_empty() {
            lines.push(view.empty().to_owned());
            continue;
        }
        let mut columns = Columns::new(view.columns(), available);
        columns.grow(rows.iter().map(|row| row.cells.as_slice()));
        lines.push(output::heading(&columns));
        lines.extend(rows.iter().map(|row| output::line(&columns, &row.cells)));
        if let left_out @ 1.. = view.left_out(seen) {
            lines.push(format!("and {left_out} more that there is no room for"));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}
