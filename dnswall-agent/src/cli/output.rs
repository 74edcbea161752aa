//! Takes answers, prints them: as text with colour where a terminal shows it, or as JSON.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::args::Form;
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

/// Columns without lines between them; numbers to the right.
pub fn table(heading: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_header(heading.iter().map(|title| (*title).to_owned()).collect::<Vec<_>>());
    let mut numeric = vec![true; heading.len()];
    for row in rows {
        for (column, text) in row.iter().enumerate() {
            numeric[column] &= text.bytes().all(|byte| byte.is_ascii_digit());
        }
        table.add_row(row);
    }
    for (column, numeric) in numeric.into_iter().enumerate() {
        let Some(column) = table.column_mut(column) else { continue };
        column.set_padding((0, 2));
        if numeric {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: Vec<String> = table.lines().map(|line| format!("  {}", line.trim_end())).collect();
    lines.join("\n")
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
