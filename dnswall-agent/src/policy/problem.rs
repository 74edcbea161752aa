//! A mistake in a policy and where it is, for a person (underlined, with what to write) and for a program (JSON).

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

use crate::remote::without_secrets;

/// Problems shown one by one; of the others only the number is said.
pub const PROBLEMS_SHOWN_MAX: usize = 100;

/// How much of a wrong value a message repeats, in characters.
const QUOTED_CHARS_MAX: usize = 60;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// The policy cannot be used.
    Error,
    /// The policy can be used, but part of it does nothing.
    Warning,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// Why, shown beside the underline.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
    /// What to write instead.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
    /// Line, from 1; 0 while the text is not known.
    pub line: usize,
    /// Column in characters, from 1; 0 while the text is not known.
    pub column: usize,
    /// Bytes of the text that are wrong.
    pub span: Range<usize>,
}

/// A problem that does not keep a policy from working.
pub type Warning = Problem;

impl Problem {
    /// An error at these bytes of the text.
    pub fn error(span: Range<usize>, message: impl Into<String>) -> Self {
        let severity = Severity::Error;
        Self { severity, message: printable(message.into()), why: None, hint: None, line: 0, column: 0, span }
    }

    /// A warning at these bytes of the text.
    pub fn warning(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(span, message) }
    }

    /// Says why.
    #[must_use]
    pub fn why(self, why: impl Into<String>) -> Self {
        Self { why: Some(printable(why.into())), ..self }
    }

    /// Says what to write.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(printable(hint.into())), ..self }
    }
}

impl fmt::Display for Problem {
    /// One line, without the text it is about.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)?;
        if let Some(why) = &self.why {
            write!(f, " ({why})")?;
        }
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// Every mistake of one policy, in the order of the text.
///
/// As JSON it is `{"origin", "problems": [...]}`: the text stays where it came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problems {
    origin: String,
    #[serde(skip)]
    text: String,
    problems: Vec<Problem>,
}

impl Problems {
    /// Sorts the problems by place and works out lines and columns.
    pub fn new(origin: impl Into<String>, text: impl Into<String>, mut problems: Vec<Problem>) -> Self {
        let text = text.into();
        problems.sort_by_key(|problem| (problem.span.start, problem.span.end));
        problems.dedup();
        let (mut line, mut line_start, mut scanned) = (1, 0, 0);
        for problem in &mut problems {
            problem.span = clamp(&text, problem.span.clone());
            let start = problem.span.start;
            for (at, _) in text[scanned..start].match_indices('\n') {
                line += 1;
                line_start = scanned + at + 1;
            }
            scanned = start;
            problem.line = line;
            problem.column = text[line_start..start].chars().count() + 1;
        }
        Self { origin: printable(origin.into()), text, problems }
    }

    /// The problems.
    pub fn list(&self) -> &[Problem] {
        &self.problems
    }

    /// Where the text came from, as the caller of `parse` said.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.problems.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// Whether one of them is an error.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// Gives back the text that JSON leaves out, so that [`Self::render`] can show the lines.
    #[must_use]
    pub fn with_text(self, text: impl Into<String>) -> Self {
        Self { text: text.into(), ..self }
    }

    /// For a person: each problem with its line, what is wrong underlined, why and what to write.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let mut shown = String::new();
        for problem in self.problems.iter().take(PROBLEMS_SHOWN_MAX) {
            shown.push_str(&renderer.render(&[self.group(problem)]));
            shown.push_str("\n\n");
        }
        if let Some(more) = self.problems.len().checked_sub(PROBLEMS_SHOWN_MAX).filter(|more| *more > 0) {
            shown.push_str(&format!("and {more} more\n\n"));
        }
        let count = |severity| self.problems.iter().filter(|problem| problem.severity == severity).count();
        let counts = [(count(Severity::Error), "mistake"), (count(Severity::Warning), "warning")];
        let counts: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, noun)| format!("{count} {noun}{}", if *count == 1 { "" } else { "s" }))
            .collect();
        shown.push_str(&format!("{}: {}", self.origin, counts.join(", ")));
        shown
    }

    fn group<'a>(&'a self, problem: &'a Problem) -> Group<'a> {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        // Only the lines in question: a policy may have a megabyte, and each problem would be laid out over all of it.
        let span = clamp(&self.text, problem.span.clone());
        let from = self.text[..span.start].rfind('\n').map_or(0, |at| at + 1);
        let to = self.text[span.end..].find('\n').map_or(self.text.len(), |at| span.end + at);
        let lines = self.text[from..to].trim_end_matches('\r');
        let annotation = AnnotationKind::Primary
            .span((span.start - from).min(lines.len())..(span.end - from).min(lines.len()));
        let annotation = match &problem.why {
            Some(why) => annotation.label(why),
            None => annotation,
        };
        let snippet = Snippet::source(printable(without_secrets(lines)))
            .line_start(problem.line.max(1))
            .path(&self.origin)
            .annotation(annotation);
        let group = level.primary_title(&problem.message).element(snippet);
        match &problem.hint {
            Some(hint) => group.element(Level::HELP.message(hint)),
            None => group,
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Problems {}

/// A value from the policy as a message shows it: in backquotes, without control characters, not too long.
pub(crate) fn quoted(value: &str) -> String {
    let mut shown: String = value.chars().take(QUOTED_CHARS_MAX).flat_map(char::escape_debug).collect();
    if value.chars().nth(QUOTED_CHARS_MAX).is_some() {
        shown.push('…');
    }
    // `escape_debug` also escapes quotes, which in backquotes need it not.
    format!("`{}`", shown.replace("\\\"", "\"").replace("\\'", "'"))
}

/// Text that cannot steer a terminal: characters that control it, or the direction of writing, are replaced by others
/// of the same length, so that places in it stay what they are.
fn printable(text: String) -> String {
    let steers = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(steers) {
        return text;
    }
    let mut printable = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let ends_line = c == '\r' && characters.peek() == Some(&'\n');
        printable.push(match c.len_utf8() {
            _ if !steers(c) || ends_line => c,
            1 => '?',
            2 => '¿',
            _ => char::REPLACEMENT_CHARACTER,
        });
    }
    printable
}

/// The span within the text, on character boundaries.
fn clamp(text: &str, span: Range<usize>) -> Range<usize> {
    let start = text.floor_char_boundary(span.start.min(text.len()));
    let end = text.ceil_char_boundary(span.end.clamp(start, text.len()));
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_count_characters_and_lines_from_one() {
        let text = "äb\ncd = 'ü' # x\n";
        let at = |needle: &str| {
            let start = text.find(needle).unwrap();
            Problem::error(start..start + needle.len(), needle)
        };
        let problems = Problems::new("p", text, vec![at("x"), at("b"), at("ü"), at("cd")]);
        let places: Vec<_> = problems.list().iter().map(|p| (p.message.as_str(), p.line, p.column)).collect();
        assert_eq!(places, [("b", 1, 2), ("cd", 2, 1), ("ü", 2, 7), ("x", 2, 12)]);
    }

    #[test]
    fn spans_outside_the_text_do_no_harm() {
        let problems = Problems::new("p", "ü", vec![Problem::error(1..9, "a"), Problem::error(5..7, "b")]);
        assert!(problems.render(false).contains("p:1:"));
        let windows = Problems::new("p", "a = 1\r\nb = 2\r\n", vec![Problem::error(9..14, "c")]);
        assert!(windows.render(false).contains("2 | b = 2\n"), "{windows}");
        let json = serde_json::to_string(&problems).unwrap();
        let back: Problems = serde_json::from_str(&json).unwrap();
        assert_eq!(back.with_text("ü"), problems);
    }

    #[test]
    fn values_are_shown_short_and_without_control_characters() {
        assert_eq!(quoted("a\"b'\u{1b}[2J"), "`a\"b'\\u{1b}[2J`");
        assert!(quoted(&"x".repeat(500)).chars().count() < 70);
        let steering = "a\u{1b}b\u{9b}c\u{202e}d\te\n";
        assert_eq!(printable(steering.to_owned()), "a?b¿c\u{fffd}d\te\n");
        assert_eq!(printable(steering.to_owned()).len(), steering.len());
    }
}
