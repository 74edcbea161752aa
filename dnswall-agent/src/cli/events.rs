//! `dnswall events`: alerts, or questions, as a table or as they are.

use std::time::Duration;

use super::args::{EventsArguments, Form};
use super::columns::{Cell, Column, Columns};
use super::exit::{Exit, Failure};
use super::{output, shown};
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
    let EventsArguments { dns, follow, last, filter } = arguments.clone();
    let query = EventsQuery { last, follow, dns, filter: filter.into() };
    let is_filtered = query.filter != FilterText::default();
    let mut events = client.events(&query).await?;
    let mut sheet = Sheet::new(dns, follow, output::terminal());
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
            Form::Text => sheet.put(&line).iter().for_each(|line| output::print_line(line)),
        }
    }
    sheet.rest().iter().for_each(|line| output::print_line(line));
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

const ALERTS: [Column; 11] = [
    Column::text("time (UTC)").keeps_end().shrinks_to(9, 1),
    Column::text("verdict"),
    Column::text("severity").may_go(5),
    Column::text("kind").may_go(3),
    Column::number("count"),
    Column::text("workload").keeps_end().shrinks_to(8, 2),
    Column::number("pid").may_go(4),
    Column::text("process").keeps_end().shrinks_to(8, 3),
    Column::text("to").shrinks_to(12, 1),
    Column::text("name").keeps_end().shrinks_to(6, 2),
    Column::text("why").shrinks_to(7, 3),
];
const QUESTIONS: [Column; 10] = [
    Column::text("time (UTC)").keeps_end().shrinks_to(9, 1),
    Column::text("verdict"),
    Column::number("tries"),
    Column::text("type"),
    Column::text("name").keeps_end().shrinks_to(12, 1),
    Column::text("answer / reason").shrinks_to(10, 3),
    Column::text("workload").keeps_end().shrinks_to(8, 2),
    Column::number("pid").may_go(4),
    Column::text("process").keeps_end().shrinks_to(8, 4),
    Column::text("asked").may_go(5),
];
/// What most rows need, for those that are printed as they come.
const ALERTS_USUAL: [usize; 11] = [19, 10, 8, 15, 6, 24, 7, 20, 28, 24, 16];
const QUESTIONS_USUAL: [usize; 10] = [19, 10, 1, 5, 36, 36, 24, 7, 20, 16];

/// A table that is printed whole, or line by line when it goes on.
struct Sheet {
    columns: Columns,
    is_of_questions: bool,
    follows: bool,
    /// Rows between two headings, on a terminal that scrolls.
    page: Option<usize>,
    printed: usize,
    kept: Vec<Row>,
}

enum Row {
    Cells(Vec<Cell>),
    /// What is in no column.
    Note(String),
}

impl Sheet {
    fn new(is_of_questions: bool, follows: bool, terminal: Option<(usize, usize)>) -> Self {
        let all: &[Column] = if is_of_questions { &QUESTIONS } else { &ALERTS };
        let mut columns = Columns::new(all, terminal.map(|(columns, _)| columns));
        if follows {
            let usual: &[usize] = if is_of_questions { &QUESTIONS_USUAL } else { &ALERTS_USUAL };
            columns.grow_to(usual);
        }
        let page = terminal.map(|(_, rows)| rows.saturating_sub(1).max(PAGE_MIN));
        Self { columns, is_of_questions, follows, page, printed: 0, kept: Vec::new() }
    }

    /// Takes a line of JSON; gives what is to be printed now.
    fn put(&mut self, line: &str) -> Vec<String> {
        let row = self.row(line);
        if !self.follows {
            self.kept.push(row);
            return Vec::new();
        }
        let mut lines = Vec::new();
        let begins_page = match self.page {
            Some(page) => self.printed.is_multiple_of(page),
            None => self.printed == 0,
        };
        if begins_page {
            lines.push(output::heading(&self.columns));
        }
        self.printed += 1;
        if let Row::Cells(cells) = &row {
            self.columns.grow([cells.as_slice()]);
        }
        lines.push(self.text(&row));
        lines
    }

    /// What was kept, as a whole.
    fn rest(&mut self) -> Vec<String> {
        let rows = std::mem::take(&mut self.kept);
        if rows.is_empty() {
            return Vec::new();
        }
        self.columns.grow(rows.iter().filter_map(|row| match row {
            Row::Cells(cells) => Some(cells.as_slice()),
            Row::Note(_) => None,
        }));
        std::iter::once(output::heading(&self.columns)).chain(rows.iter().map(|row| self.text(row))).collect()
    }

    fn row(&self, line: &str) -> Row {
        if let Ok(alert) = serde_json::from_str::<Alert>(line) {
            return Row::Cells(alert_row(&alert));
        }
        if let Ok(record) = serde_json::from_str::<DnsRecord>(line) {
            return Row::Cells(question_row(&record));
        }
        let missed =
            serde_json::from_str::<serde_json::Value>(line).ok().and_then(|value| value["missed"].as_u64());
        let what = if self.is_of_questions { "question" } else { "alert" };
        // What a newer agent says is still worth its JSON.
        Row::Note(missed.map_or_else(
            || line.to_owned(),
            |missed| format!("… {missed} {what}s came faster than they were read"),
        ))
    }

    fn text(&self, row: &Row) -> String {
        match row {
            Row::Cells(cells) => output::line(&self.columns, cells),
            Row::Note(note) => note.clone(),
        }
    }
}

/// Lines between two headings at least.
const PAGE_MIN: usize = 10;

fn alert_row(alert: &Alert) -> Vec<Cell> {
    vec![
        shown::time(alert.time),
        shown::verdict(alert),
        shown::severity(alert.severity),
        Cell::new(alert.kind.name()),
        Cell::new(alert.count.to_string()),
        shown::workload(&alert.workload),
        shown::pid(&alert.process),
        shown::process(&alert.process),
        Cell::new(text::target(alert)),
        shown::name(alert),
        shown::why(alert),
    ]
}

fn question_row(record: &DnsRecord) -> Vec<Cell> {
    vec![
        shown::time(record.time),
        shown::answered(record.verdict),
        Cell::new(record.tries.to_string()),
        Cell::new(&record.dns.kind),
        Cell::new(&record.dns.name),
        Cell::new(asked::text::became(record)),
        shown::workload(&record.workload),
        shown::pid(&record.process),
        shown::process(&record.process),
        Cell::of(record.dns.resolver.map(|resolver| resolver.to_string())),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::sample;

    fn alerts() -> Vec<String> {
        let refused = sample::alert();
        let mut hostile = sample::alert();
        hostile.process.exe = Some("/tmp/\x1b[31mx\n".to_owned());
        hostile.workload.unit = Some("a-unit-whose-name-is-much-longer-than-any-column.service".to_owned());
        hostile.count = 1_234_567;
        hostile.dns = None;
        [refused, hostile].map(|alert| alert.to_json()).to_vec()
    }

    fn table(follows: bool, terminal: Option<(usize, usize)>) -> Vec<String> {
        let mut sheet = Sheet::new(false, follows, terminal);
        let mut lines: Vec<String> = alerts().iter().flat_map(|line| sheet.put(line)).collect();
        lines.extend(sheet.put("{\"missed\":7}"));
        lines.extend(sheet.rest());
        lines.iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect()
    }

    #[test]
    fn a_table_for_a_pipe_is_whole() {
        insta::assert_snapshot!(table(false, None).join("\n"));
    }

    #[test]
    fn a_table_for_a_terminal_is_as_wide_as_that() {
        let tables = [140, 80].map(|width| {
            let lines = table(false, Some((width, 30)));
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{lines:#?}");
            lines.join("\n")
        });
        insta::assert_snapshot!(tables.join("\n\n"));
    }

    #[test]
    fn what_follows_has_the_same_columns() {
        insta::assert_snapshot!(table(true, None).join("\n"));
    }

    #[test]
    fn a_heading_comes_again_when_the_first_has_left_the_screen() {
        let mut sheet = Sheet::new(false, true, Some((200, 15)));
        let line = sample::alert().to_json();
        let lines: Vec<String> = (0..30).flat_map(|_| sheet.put(&line)).collect();
        let headings = lines.iter().filter(|line| line.contains("time (UTC)")).count();
        assert_eq!((lines.len(), headings), (33, 3));
    }
}
