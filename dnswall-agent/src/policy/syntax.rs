//! Takes the text of a policy, gives its TOML document as far as it can be read, and the mistakes in its syntax.
//!
//! One unclosed bracket makes the rest of a TOML file unreadable, and would hide every mistake after it. So a text
//! that does not parse is parsed once more section by section; a section whose structure is broken is reported with
//! its first mistake and blanked, and what is left is read as usual.

use super::problem::Problem;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, Error};

/// How every problem of the syntax begins.
pub(super) const NOT_TOML: &str = "not TOML";

/// What could be read.
pub(super) struct Document {
    /// The text without the sections that cannot be read; same length, same places.
    text: String,
    problems: Vec<Problem>,
    is_whole: bool,
}

impl Document {
    /// Finds the parts of the text that can be read.
    pub(super) fn new(text: &str) -> Self {
        let whole = Self { text: text.to_owned(), problems: Vec::new(), is_whole: true };
        if DeTable::parse_recoverable(text).1.is_empty() {
            return whole;
        }
        sections(text).into_iter().fold(whole, Self::without_mistakes_of)
    }

    /// The document, and every mistake in its syntax.
    pub(super) fn parse(&self) -> (Spanned<DeTable<'_>>, Vec<Problem>) {
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        let mut problems = self.problems.clone();
        for error in errors {
            let problem = explained(&error, &self.text, 0);
            if !problems.iter().any(|known| known.span == problem.span) {
                problems.push(problem);
            }
        }
        (table, problems)
    }

    /// The readable text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether nothing was left out, so that what is missing is really missing.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    fn without_mistakes_of(mut self, section: Range<usize>) -> Self {
        let text = self.text[section.clone()].to_owned();
        let mut errors = DeTable::parse_recoverable(&text).1;
        errors.sort_by_key(|error| (error.span().map_or(0, |span| span.start), !breaks_structure(error)));
        for error in &errors {
            self.problems.push(explained(error, &text, section.start));
            if breaks_structure(error) {
                // Whatever follows in this section is read wrongly.
                self.text.replace_range(section, &blank(&text));
                self.is_whole = false;
                break;
            }
        }
        self
    }
}

/// The parts that begin with a `[section]` line, and what comes before the first.
fn sections(text: &str) -> Vec<Range<usize>> {
    let mut starts = vec![0];
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let name = line.trim_start().trim_start_matches('[');
        if line.trim_start().starts_with('[') && name.starts_with(|first: char| first.is_ascii_alphabetic()) {
            starts.push(at);
        }
        at += line.len();
    }
    starts.push(text.len());
    starts.windows(2).map(|pair| pair[0]..pair[1]).collect()
}

/// Whether the parser may be lost after this mistake; otherwise it is about one value only.
fn breaks_structure(error: &Error) -> bool {
    !lacks_quotes(error) && !error.message().starts_with("duplicate key")
}

/// Whether this is text that the parser took for a number, a date or a word of its own.
fn lacks_quotes(error: &Error) -> bool {
    const TAKEN_FOR: [&str; 8] = [
        "string values must be quoted",
        "invalid boolean",
        "invalid float",
        "invalid integer",
        "invalid date",
        "invalid time",
        "unexpected leading zero",
        "`_` may only go between digits",
    ];
    TAKEN_FOR.iter().any(|message| error.message().starts_with(message))
}

fn blank(text: &str) -> String {
    text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect()
}

fn explained(error: &Error, text: &str, offset: usize) -> Problem {
    let mut span = error.span().unwrap_or(0..0);
    let message = error.message();
    let problem = |span: Range<usize>, what: &str| {
        Problem::error(span.start + offset..span.end + offset, format!("{NOT_TOML}: {what}"))
    };
    if lacks_quotes(error) {
        span = whole_value(text, span);
        let value = text[span.clone()].trim_matches(['\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}']);
        if value.is_empty() {
            return problem(span, "a value is missing").hint("write key = \"value\"");
        }
        return problem(span, "this text has no quotes").hint(format!("write \"{value}\""));
    }
    if message.starts_with("missing comma between array elements") {
        return problem(span, "this list is not closed, or a comma is missing before this")
            .hint("end the list with `]`, put `,` between its elements");
    }
    if message.starts_with("unclosed array table") || message.starts_with("unclosed table") {
        return problem(span, "this header is not closed")
            .hint("write [section], or [[section]] for one of several");
    }
    if message.starts_with("unclosed array") {
        return problem(span, "this list is not closed").hint("end the list with `]`");
    }
    if message.starts_with("invalid basic string") || message.starts_with("invalid literal string") {
        return problem(span, "this string is not closed, or has a character that must be escaped")
            .hint("end it with a quote on the same line");
    }
    if message.starts_with("key with no value") {
        return problem(span, "this line has no value").hint("write key = \"value\", or # before a comment");
    }
    if message.starts_with("duplicate key") {
        let key = text[span.clone()].to_owned();
        let line = text[..span.start].rsplit('\n').next().unwrap_or_default();
        let is_header = line.trim_start().starts_with('[');
        let several =
            if is_header { format!(", or write [[{key}]] for each of several") } else { String::new() };
        return problem(span, "this is written twice").hint(format!("keep one `{key}`{several}"));
    }
    problem(span, message)
}

/// The value around a place the parser stumbled over.
fn whole_value(text: &str, span: Range<usize>) -> Range<usize> {
    let ends =
        |c: char| c.is_whitespace() || matches!(c, ',' | '[' | ']' | '{' | '}' | '=' | '#' | '"' | '\'');
    let start = text[..span.start]
        .rfind(ends)
        .map_or(0, |at| at + text[at..].chars().next().map_or(1, char::len_utf8));
    let end = text[span.end..].find(ends).map_or(text.len(), |at| span.end + at);
    if text[span.clone()].contains(ends) { span } else { start..end }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(text: &str) -> Vec<String> {
        let document = Document::new(text);
        let (_, problems) = document.parse();
        problems.iter().map(|problem| format!("{}: {}", problem.span.start, problem.message)).collect()
    }

    #[test]
    fn an_unclosed_list_hides_only_its_own_section() {
        let text = "mode = enforce\n[dns]\nresolvers = [\"1.1.1.1\"\n[[allow]]\nto = yes\nto = \"a\"\n";
        assert_eq!(
            messages(text),
            [
                "7: not TOML: this text has no quotes",
                "43: not TOML: this list is not closed",
                "59: not TOML: this text has no quotes",
                "63: not TOML: this is written twice",
            ]
        );
        let document = Document::new(text);
        assert!(!document.is_whole());
        assert!(document.parse().0.get_ref().contains_key("allow"));
        assert!(!document.parse().0.get_ref().contains_key("dns"));
        assert_eq!(document.text().len(), text.len());
    }

    #[test]
    fn a_list_over_several_lines_is_one_section() {
        let text = "[[allow]]\nto = [\n  \"a\",\n  [\"b\"],\n]\n[dns]\nx = \n";
        assert_eq!(sections(text).len(), 3);
    }
}
