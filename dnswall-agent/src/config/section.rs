//! Takes one table of agent.toml, gives its values by type, and notes what is not understood.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::{Component, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;
use toml::de::{DeTable, DeValue};

use crate::policy::{Problem, quoted};

/// A table and where it is.
pub(super) type Table<'t, 'i> = (Range<usize>, &'t DeTable<'i>);

/// Reads one table.
pub(super) struct Section<'t, 'i> {
    table: &'t DeTable<'i>,
    span: Range<usize>,
    title: &'static str,
    problems: &'t mut Vec<Problem>,
}

impl<'t, 'i> Section<'t, 'i> {
    /// A table that has these keys and no others.
    pub(super) fn new(
        table: &'t DeTable<'i>,
        span: Range<usize>,
        title: &'static str,
        known: &[&str],
        problems: &'t mut Vec<Problem>,
    ) -> Self {
        let place =
            if title.is_empty() { "at the top of agent.toml".to_owned() } else { format!("of {title}") };
        for key in table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            let list: Vec<String> = known.iter().map(|key| format!("`{key}`")).collect();
            let problem = Problem::error(key.span(), format!("unknown key {}", quoted(key.get_ref())));
            problems.push(problem.hint(format!("keys {place}: {}", list.join(", "))));
        }
        Self { table, span, title, problems }
    }

    /// Notes a problem.
    pub(super) fn note(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// What notes the problems, for a table within this one.
    pub(super) fn problems(&mut self) -> &mut Vec<Problem> {
        self.problems
    }

    /// Where a key's value is.
    pub(super) fn value_span(&self, key: &str) -> Range<usize> {
        self.table.get(key).map_or_else(|| self.span.clone(), |value| value.span())
    }

    /// Notes when a key is missing.
    pub(super) fn require(&mut self, key: &str, hint: &str) {
        if self.table.get(key).is_none() {
            let problem = Problem::error(self.span.clone(), format!("{} has no `{key}`", self.title));
            self.note(problem.hint(hint));
        }
    }

    /// Notes when a key is there.
    pub(super) fn refuse(&mut self, key: &str, why: &str) {
        if let Some((key, _)) = self.table.get_key_value(key) {
            let problem = Problem::error(key.span(), format!("`{}` has no place here", key.get_ref()));
            self.note(problem.why(why).hint("take it out"));
        }
    }

    /// An absolute path without `.` and `..`.
    pub(super) fn path(&mut self, key: &str) -> Option<PathBuf> {
        let (span, text) = self.string(key)?;
        let path = PathBuf::from(text);
        let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        if path.is_absolute() && plain && !text.contains('\0') {
            return Some(path);
        }
        let problem = Problem::error(span, format!("`{key}` must be a path from the root, without `..`"));
        self.note(problem.hint(format!("write {key} = \"/…\"")));
        None
    }

    /// Whether a key is not there.
    pub(super) fn lacks(&self, key: &str) -> bool {
        self.table.get(key).is_none()
    }

    /// Any text.
    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        self.string(key).map(|(_, text)| text.to_owned())
    }

    /// Texts, not too many, none empty.
    pub(super) fn texts(&mut self, key: &str, count_max: usize) -> Option<Vec<String>> {
        let value = self.table.get(key)?;
        let texts: Option<Vec<String>> = value
            .get_ref()
            .as_array()
            .and_then(|array| array.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect());
        if let Some(texts) = texts.filter(|texts| (1..=count_max).contains(&texts.len())) {
            return Some(texts);
        }
        let problem =
            Problem::error(value.span(), format!("`{key}` must be a list of 1 to {count_max} strings"));
        self.note(problem.hint(format!("write {key} = [\"…\"]")));
        None
    }

    /// A name: one line of printable text, not too long.
    pub(super) fn name(&mut self, key: &str, bytes_max: usize) -> Option<String> {
        let (span, text) = self.string(key)?;
        let printable = text.chars().all(|character| !character.is_control()) && text.trim() == text;
        if printable && (1..=bytes_max).contains(&text.len()) {
            return Some(text.to_owned());
        }
        let problem = Problem::error(span, format!("`{key}` must be 1 to {bytes_max} printable bytes"));
        self.note(problem);
        None
    }

    /// A length of time, within limits.
    pub(super) fn duration(&mut self, key: &str, (least, most): (Duration, Duration)) -> Option<Duration> {
        let (span, text) = self.string(key)?;
        let parsed = text.parse::<SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok());
        if let Some(time) = parsed.filter(|time| (least..=most).contains(time)) {
            return Some(time);
        }
        let limits = format!("from {} to {} seconds", least.as_secs(), most.as_secs());
        let problem = Problem::error(span, format!("{} is not a time {limits}", quoted(text)));
        self.note(problem.hint(format!("write {key} = \"10s\" or \"5m\"")));
        None
    }

    /// An address to listen at, with a port or without.
    pub(super) fn listener(&mut self, key: &str, port: u16, port_min: u16) -> Option<SocketAddr> {
        let (span, text) = self.string(key)?;
        let alone = |address: IpAddr| SocketAddr::new(address, port);
        let parsed = text.parse().ok().or_else(|| text.parse().ok().map(alone));
        if let Some(address) = parsed.filter(|address| address.port() >= port_min) {
            return Some(address);
        }
        let what = format!("{} is not an address, or its port is below {port_min}", quoted(text));
        self.note(
            Problem::error(span, what)
                .hint(format!("write {key} = \"127.0.0.1:{port}\" or \"[::1]:{port}\"")),
        );
        None
    }

    /// True or false.
    pub(super) fn boolean(&mut self, key: &str) -> Option<bool> {
        let value = self.table.get(key)?;
        if let DeValue::Boolean(written) = value.get_ref() {
            return Some(*written);
        }
        self.note(Problem::error(value.span(), format!("`{key}` must be true or false")));
        None
    }

    /// A whole number, within limits.
    pub(super) fn integer(&mut self, key: &str, (least, most): (i64, i64)) -> Option<i64> {
        let value = self.table.get(key)?;
        let parsed = match value.get_ref() {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        if let Some(number) = parsed.filter(|number| (least..=most).contains(number)) {
            return Some(number);
        }
        let problem =
            Problem::error(value.span(), format!("`{key}` must be a number from {least} to {most}"));
        self.note(problem);
        None
    }

    /// One of some words, with where it is.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<(Range<usize>, T)> {
        let (span, text) = self.string(key)?;
        if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == text) {
            return Some((span, *choice));
        }
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let problem = Problem::error(span, format!("`{key}` cannot be {}", quoted(text)));
        self.note(problem.hint(format!("write one of {}", words.join(", "))));
        None
    }

    /// The table under a key, which has these keys and no others.
    pub(super) fn section(
        &mut self,
        key: &str,
        title: &'static str,
        known: &[&str],
    ) -> Option<Section<'_, 'i>> {
        let value = self.table.get(key)?;
        if let DeValue::Table(table) = value.get_ref() {
            return Some(Section::new(table, value.span(), title, known, self.problems));
        }
        let problem = Problem::error(value.span(), format!("`{key}` must be a table"));
        self.note(problem.hint(format!("write [{key}] on a line of its own, its keys below")));
        None
    }

    /// The tables under a key, not too many.
    pub(super) fn tables(&mut self, key: &str, count_max: usize) -> Vec<Table<'t, 'i>> {
        let Some(value) = self.table.get(key) else { return Vec::new() };
        let tables: Option<Vec<_>> = value.get_ref().as_array().and_then(|array| {
            array.iter().map(|item| Some((item.span(), item.get_ref().as_table()?))).collect()
        });
        let Some(mut tables) = tables else {
            let problem = Problem::error(value.span(), format!("`{key}` must be a list of tables"));
            self.note(problem.hint(format!("write [[{key}]] on a line of its own, its keys below")));
            return Vec::new();
        };
        if let Some((span, _)) = tables.get(count_max) {
            let problem = Problem::error(span.clone(), format!("at most {count_max} of [[{key}]]"));
            self.note(problem);
            tables.truncate(count_max);
        }
        tables
    }

    fn string(&mut self, key: &str) -> Option<(Range<usize>, &'t str)> {
        let value = self.table.get(key)?;
        if let DeValue::String(text) = value.get_ref() {
            return Some((value.span(), text));
        }
        let problem = Problem::error(value.span(), format!("`{key}` must be a string"));
        self.note(problem.hint(format!("write {key} = \"…\"")));
        None
    }
}
