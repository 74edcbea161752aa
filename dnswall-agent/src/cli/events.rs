//! `dnswall events`

use std::time::Duration;

use super::args::{EventsArguments, Form};
use super::exit::{Exit, Failure};
use super::output;
use crate::alert::filter::FilterText;
use crate::alert::{Alert, text};
use crate::asked::{self, DnsRecord};
use crate::control::api::EventsQuery;
use crate::control::client::Client;
use crate::policy::{Events, parse};

pub async fn events(form: Form, client: &Client, arguments: &EventsArguments) -> Result<Exit, Failure> {
    if arguments.dns {
        tells_of_questions(client).await?;
    }
    let what = if arguments.dns { "question" } else { "alert" };
    let EventsArguments { dns, follow, last, kind, severity, workload, rule, name, since, until } =
        arguments.clone();
    let query = EventsQuery { last, follow, dns, kind, severity, workload, rule, name, since, until };
    let is_filtered = query.filter() != FilterText::default();
    let mut events = client.events(&query).await?;
    let mut shown = 0;
    let mut quiet = form == Form::Json || arguments.last == 0;
    loop {
        let line = tokio::select! {
            line = events.next() => line?,
            () = tokio::time::sleep(SILENCE), if arguments.follow && !quiet => {
                quiet = true;
                output::note(&format!("no {what} yet; each one follows here, Ctrl-C ends"));
                continue;
            }
            // The usual way to stop following.
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Done),
        };
        let Some(line) = line else { break };
        shown += 1;
        quiet = true;
        match form {
            Form::Json => output::print_line(&line),
            Form::Text => output::print_line(&person(&line, what)),
        }
    }
    if arguments.follow {
        return Err(Failure::new(
            Exit::Unreachable,
            "the agent ended the stream of events: it is on its way out",
        ));
    }
    if shown == 0 && !quiet {
        output::note(&if is_filtered {
            "no such alert".to_owned()
        } else {
            format!("no {what} yet; `dnswall status` shows what the wall counted")
        });
    }
    Ok(Exit::Done)
}

/// After so long without an alert, whoever follows is told that nothing is wrong.
const SILENCE: Duration = Duration::from_secs(1);

/// An error when the policy that decides tells of no questions: then none will ever come.
async fn tells_of_questions(client: &Client) -> Result<(), Failure> {
    let shown = client.policy().await?;
    if parse(&shown.text, &shown.policy.origin)?.dns.events != Events::Off {
        return Ok(());
    }
    let why = "the policy that decides tells of no questions: write events = \"all\", \"sampled\" or \"denied\" into its [dns]";
    Err(Failure::new(Exit::No, why))
}

fn person(line: &str, what: &str) -> String {
    if let Ok(alert) = serde_json::from_str::<Alert>(line) {
        return text::line(&alert, true);
    }
    if let Ok(record) = serde_json::from_str::<DnsRecord>(line) {
        return asked::text::line(&record, true);
    }
    let missed =
        serde_json::from_str::<serde_json::Value>(line).ok().and_then(|value| value["missed"].as_u64());
    // What a newer agent says is still worth its JSON.
    missed.map_or_else(
        || line.to_owned(),
        |missed| format!("… {missed} {what}s came faster than they were read"),
    )
}
