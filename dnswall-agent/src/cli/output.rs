//! Takes answers, prints them: as text with colour where a terminal shows it, or as JSON.

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use rustix::termios::tcgetwinsize;
use serde::Serialize;

use super::args::Form;
use super::columns::{Cell, Column, Columns, Tone};
use super::exit::{Exit, Failure};

/// Good.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Worth a look.
pub const WARN: Style = AnsiColor::Yellow.on_default();
/// Bad.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// Headings and names.
pub const STRONG: Style = Style::new().bold();
/// What is only there for completeness.
pub const FAINT: Style = Style::new().dimmed();

/// A text in a style.
pub fn paint(style: Style, text: impl std::fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Prints an answer: `text` for a person, the value itself for a program.
pub fn answer<T: Serialize>(form: Form, value: &T, text: impl FnOnce(&T) -> String) {
    match form {
        Form::Text => print(&text(value)),
        Form::Json => print_json(value),
    }
}

/// Prints text to standard output, with a newline at its end.
pub fn print(text: &str) {
    let newline = if text.ends_with('\n') { "" } else { "\n" };
    ended(write!(anstream::stdout(), "{text}{newline}"));
}

/// Prints a line at once, so that whoever reads through a pipe has it.
pub fn print_line(line: &str) {
    let mut output = anstream::stdout();
    ended(writeln!(output, "{line}").and_then(|()| output.flush()));
}

/// Tells a person something that is no answer: to standard error, so that no pipe takes it for one.
pub fn note(text: &str) {
    // Nobody is left to tell when standard error is gone.
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Prints what went wrong, and gives the exit code.
pub fn failure(form: Form, failure: &Failure) -> Exit {
    match form {
        Form::Json => print_json(&failure.body()),
        Form::Text => {
            let mut shown = String::new();
            if let Some(problems) = &failure.problems {
                shown.push_str(&problems.render(true));
                shown.push('\n');
            }
            shown.push_str(&format!("{}: {}\n", paint(BAD, "error"), failure.error));
            if let Some(hint) = &failure.hint {
                shown.push_str(&format!("{}: {hint}\n", paint(GOOD, "help")));
            }
            // Nobody is left to tell when standard error is gone.
            let _ = write!(anstream::stderr(), "{shown}");
        }
    }
    failure.exit
}

/// Columns without lines between them, as wide as what is in them; numbers to the right.
pub fn table(heading: &[&'static str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let rows: Vec<Vec<Cell>> = rows.into_iter().map(|row| row.into_iter().map(Cell::new).collect()).collect();
    let is_numeric = |at: usize| {
        let mut cells = rows.iter().filter_map(|row| row.get(at));
        cells.all(|cell| cell.text().bytes().all(|byte| byte.is_ascii_digit()))
    };
    let columns: Vec<Column> = heading
        .iter()
        .enumerate()
        .map(|(at, title)| if is_numeric(at) { Column::number(title) } else { Column::text(title) })
        .collect();
    let mut columns = Columns::new(&columns, None);
    columns.grow(rows.iter().map(Vec::as_slice));
    let all = std::iter::once(columns.heading()).chain(rows);
    let lines: Vec<String> = all.map(|row| format!("  {}", line(&columns, &row).trim_end())).collect();
    lines.join("\n")
}

/// One line of a table, coloured.
pub fn line(columns: &Columns, row: &[Cell]) -> String {
    let paint = |(text, tone): (String, Tone)| match style(tone) {
        Some(style) => paint(style, text),
        None => text,
    };
    columns.pieces(row).into_iter().map(paint).collect()
}

/// The heading of a table that is printed line by line.
pub fn heading(columns: &Columns) -> String {
    let row: Vec<Cell> = columns.heading().into_iter().map(|cell| cell.tone(Tone::Strong)).collect();
    line(columns, &row)
}

const fn style(tone: Tone) -> Option<Style> {
    match tone {
        Tone::Plain => None,
        Tone::Good => Some(GOOD),
        Tone::Warn => Some(WARN),
        Tone::Bad => Some(BAD),
        Tone::Strong => Some(STRONG),
        Tone::Faint => Some(FAINT),
    }
}

/// Columns and rows of the terminal that standard output is, if it is one.
pub fn terminal() -> Option<(usize, usize)> {
    let output = io::stdout();
    let size = output.is_terminal().then(|| tcgetwinsize(&output).ok()).flatten()?;
    // A terminal that does not know is as wide as it likes.
    (size.ws_col > 0).then_some((size.ws_col.into(), size.ws_row.into()))
}

/// Prints a value for a program.
pub fn print_json(value: &impl Serialize) {
    let mut output = io::stdout().lock();
    let written = serde_json::to_writer_pretty(&mut output, value).map_err(io::Error::from);
    ended(written.and_then(|()| output.write_all(b"\n")));
}

// `dnswall events | head` is no mistake.
fn ended(written: io::Result<()>) {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(Exit::Done as i32),
        Err(error) => {
            let _ = writeln!(anstream::stderr(), "{}: write the answer: {error}", paint(BAD, "error"));
            std::process::exit(Exit::No as i32);
        }
        Ok(()) => {}
    }
}
