//! Takes one table of the TOML document, gives its values by type with their places, and notes whatever is not
//! understood: keys nobody knows, values of another type.

use super::problem::{Problem, quoted};
use super::syntax::NOT_TOML;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A key of a table.
#[derive(Debug, Clone)]
pub(super) enum Field<T> {
    /// Not written.
    Absent,
    /// Written, but not readable: that has been noted already.
    Wrong,
    /// Written.
    Given(T),
}

impl<T> Field<T> {
    /// The value, if there is a readable one.
    pub(super) fn given(self) -> Option<T> {
        match self {
            Self::Given(value) => Some(value),
            Self::Absent | Self::Wrong => None,
        }
    }

    /// Whether the key is not written at all.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

/// A list of strings, the readable ones.
#[derive(Debug, Clone)]
pub(super) struct Strings {
    /// The whole list.
    pub(super) span: Range<usize>,
    /// Its elements, without those of another type.
    pub(super) items: Vec<Spanned<String>>,
    /// Whether it is written as empty.
    pub(super) is_empty: bool,
}

/// Reads one table.
pub(super) struct TableReader<'t, 'i> {
    table: &'t DeTable<'i>,
    span: Range<usize>,
    title: String,
    text: &'t str,
    problems: &'t mut Vec<Problem>,
}

impl<'t, 'i> TableReader<'t, 'i> {
    /// Reads `table`, called `title` in messages, that has these keys and no others.
    pub(super) fn new(
        table: &'t DeTable<'i>,
        span: Range<usize>,
        title: impl Into<String>,
        known: &[&str],
        text: &'t str,
        problems: &'t mut Vec<Problem>,
    ) -> Self {
        let reader = Self { table, span, title: title.into(), text, problems };
        for key in table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            reader.problems.push(unknown_key(key.span(), key.get_ref(), &reader.title, known));
        }
        reader
    }

    /// Where the table is.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Where a key's value is.
    pub(super) fn value_span(&self, key: &str) -> Range<usize> {
        self.table.get(key).map_or(0..0, Spanned::span)
    }

    /// Whether the value is a list without elements.
    pub(super) fn is_empty_list(&self, key: &str) -> bool {
        self.table.get(key).and_then(|value| value.get_ref().as_array()).is_some_and(|array| array.is_empty())
    }

    /// A string.
    pub(super) fn string(&mut self, key: &str) -> Field<Spanned<String>> {
        let Some(value) = self.table.get(key) else { return Field::Absent };
        match value.get_ref() {
            DeValue::String(string) if string.is_empty() && self.has_problem_at(&value.span()) => {
                Field::Wrong
            }
            DeValue::String(string) => Field::Given(Spanned::new(value.span(), string.to_string())),
            _ => self.wrong(key, value, "a string", |text| format!("write {key} = \"{text}\"")),
        }
    }

    /// A string, or an integer as its digits.
    pub(super) fn string_or_integer(&mut self, key: &str) -> Field<Spanned<String>> {
        match self.table.get(key).map(|value| (value.span(), value.get_ref())) {
            Some((span, DeValue::Integer(number))) if number.radix() == 10 => {
                Field::Given(Spanned::new(span, number.as_str().to_owned()))
            }
            _ => self.string(key),
        }
    }

    /// An integer.
    pub(super) fn integer(&mut self, key: &str) -> Field<Spanned<i64>> {
        let Some(value) = self.table.get(key) else { return Field::Absent };
        self.number(key, value)
    }

    fn number(&mut self, key: &str, value: &'t Spanned<DeValue<'i>>) -> Field<Spanned<i64>> {
        if let DeValue::Integer(number) = value.get_ref()
            && let Ok(number) = i64::from_str_radix(number.as_str(), number.radix())
        {
            return Field::Given(Spanned::new(value.span(), number));
        }
        self.wrong(key, value, "a number", |text| format!("write {key} = {}", text.trim_matches(['"', '\''])))
    }

    /// A list of strings.
    pub(super) fn strings(&mut self, key: &str) -> Field<Strings> {
        let Some(value) = self.table.get(key) else { return Field::Absent };
        let DeValue::Array(array) = value.get_ref() else {
            return self.wrong(key, value, "a list of strings", |text| {
                format!("write {key} = [{}]", as_element(key, text))
            });
        };
        let mut strings = Strings { span: value.span(), items: Vec::new(), is_empty: array.is_empty() };
        for item in array.iter() {
            match item.get_ref() {
                DeValue::String(string) => strings.items.push(Spanned::new(item.span(), string.to_string())),
                _ if self.has_problem_at(&item.span()) => {}
                other => {
                    let written = &self.text[item.span()];
                    self.problems.push(
                        Problem::error(
                            item.span(),
                            format!("`{key}` has a {} among its strings", type_name(other)),
                        )
                        .hint(format!("write {}", as_element(key, written))),
                    );
                }
            }
        }
        Field::Given(strings)
    }

    /// Tables under `key`: `[[key]]` or `key = [{…}]`, each with where it is.
    pub(super) fn tables(&mut self, key: &str, write: &str) -> Field<Vec<(Range<usize>, &'t DeTable<'i>)>> {
        let Some(value) = self.table.get(key) else { return Field::Absent };
        let DeValue::Array(array) = value.get_ref() else {
            let write = write.to_owned();
            return self.wrong(key, value, "a list of tables", |_| write);
        };
        let mut tables = Vec::new();
        for item in array.iter() {
            match item.get_ref() {
                DeValue::Table(table) => tables.push((item.span(), table)),
                other => self.problems.push(
                    Problem::error(
                        item.span(),
                        format!("`{key}` has a {} among its tables", type_name(other)),
                    )
                    .hint(write),
                ),
            }
        }
        Field::Given(tables)
    }

    /// The table under `key`, with where it is.
    pub(super) fn table(&mut self, key: &str) -> Field<(Range<usize>, &'t DeTable<'i>)> {
        let Some(value) = self.table.get(key) else { return Field::Absent };
        match value.get_ref() {
            DeValue::Table(table) => Field::Given((value.span(), table)),
            _ => self.wrong(key, value, "a table", |_| {
                format!("write [{key}] on a line of its own, its keys below")
            }),
        }
    }

    /// A table of numbers under names of the writer's own.
    pub(super) fn numbers(&mut self, key: &str) -> Field<Vec<(Spanned<String>, Spanned<i64>)>> {
        let table = match self.table(key) {
            Field::Given((_, table)) => table,
            Field::Absent => return Field::Absent,
            Field::Wrong => return Field::Wrong,
        };
        let mut numbers = Vec::new();
        for (name, value) in table {
            let said = name.get_ref().to_string();
            if let Field::Given(number) = self.number(&said, value) {
                numbers.push((Spanned::new(name.span(), said), number));
            }
        }
        // As they are written; the parser has them by name.
        numbers.sort_by_key(|(name, _)| name.span().start);
        Field::Given(numbers)
    }

    /// What notes the problems, for a table within this one.
    pub(super) fn problems(&mut self) -> (&'t str, &mut Vec<Problem>) {
        (self.text, self.problems)
    }

    /// Whether the syntax was wrong there: what the parser took the value for means nothing then.
    fn has_problem_at(&self, span: &Range<usize>) -> bool {
        // Those of the syntax come first.
        let mut of_syntax = self.problems.iter().take_while(|problem| problem.message.starts_with(NOT_TOML));
        of_syntax.any(|problem| problem.span == *span)
    }

    fn wrong<T>(
        &mut self,
        key: &str,
        value: &Spanned<DeValue<'i>>,
        wanted: &str,
        hint: impl FnOnce(&str) -> String,
    ) -> Field<T> {
        if self.has_problem_at(&value.span()) {
            return Field::Wrong;
        }
        let is = type_name(value.get_ref());
        let mut problem = Problem::error(value.span(), format!("`{key}` must be {wanted}"))
            .why(format!("this is {} {is}", article(is)));
        let written = &self.text[value.span()];
        let is_plain = !matches!(value.get_ref(), DeValue::Boolean(_) | DeValue::Table(_))
            || wanted == "a list of tables";
        if is_plain && !written.contains('\n') && written.len() <= 60 {
            problem = problem.hint(hint(written));
        }
        self.problems.push(problem);
        Field::Wrong
    }
}

/// What was written as an element of the list it should have been.
fn as_element(key: &str, written: &str) -> String {
    let text = written.trim_matches(['"', '\'']);
    if key == "ports" && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return format!("\"tcp/{text}\"");
    }
    format!("\"{text}\"")
}

/// What stands in for a list of `from` entries in messages.
pub(super) const FROM_SHAPE: &str = "write [{ unit = \"orders.service\" }], one table for each workload";

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::Array(_) => "list",
        DeValue::Float(_) => "fraction",
        DeValue::Datetime(_) => "date",
        DeValue::Boolean(_) => "true or false",
        DeValue::Integer(_) => "number",
        DeValue::String(_) | DeValue::Table(_) => value.type_str(),
    }
}

fn article(noun: &str) -> &'static str {
    if noun == "true or false" { "either" } else { "a" }
}

fn unknown_key(span: Range<usize>, key: &str, title: &str, known: &[&str]) -> Problem {
    let place = if title.is_empty() { "at the top of the file".to_owned() } else { format!("in {title}") };
    let problem = Problem::error(span, format!("unknown key {}", quoted(key)));
    if let Some(near) = nearest(key, known) {
        return problem.why(format!("not a key {place}")).hint(format!("did you mean `{near}`?"));
    }
    if !title.is_empty() && super::file::TOP_KEYS.contains(&key) {
        return problem
            .why(format!("not a key {place}"))
            .hint(format!("move `{key}` to the top of the file, above the first [section]"));
    }
    let mut list: Vec<String> = known.iter().map(|key| format!("`{key}`")).collect();
    list.sort();
    problem.why(format!("not a key {place}")).hint(format!("keys {place}: {}", list.join(", ")))
}

/// The known word that was probably meant.
pub(super) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let folded = word.to_lowercase().replace('_', "-");
    let meant = SYNONYMS.iter().find(|(other, _)| *other == folded).map(|(_, meant)| *meant);
    if let Some(found) = known.iter().find(|known| Some(**known) == meant) {
        return Some(found);
    }
    let near = known.iter().map(|known| (distance(&folded, known), *known)).min()?;
    (near.0 <= 1 + near.1.len().min(folded.chars().count()) / 4).then_some(near.1)
}

/// Words people write for a key.
const SYNONYMS: &[(&str, &str)] = &[
    ("address", "to"),
    ("addresses", "to"),
    ("binary", "exe"),
    ("block", "deny"),
    ("cgroup-path", "cgroup"),
    ("cidr", "to"),
    ("comment", "name"),
    ("container-id", "container"),
    ("description", "name"),
    ("destination", "to"),
    ("destinations", "to"),
    ("executable", "exe"),
    ("nameservers", "resolvers"),
    ("process", "exe"),
    ("protocol", "ports"),
    ("recursors", "recursor"),
    ("server", "resolvers"),
    ("servers", "resolvers"),
    ("service", "unit"),
    ("source", "from"),
    ("systemd", "unit"),
    ("uid", "user"),
    ("username", "user"),
    ("who", "from"),
];

/// Insertions, deletions, replacements and swaps of neighbours between two short words.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().take(64).collect(), right.chars().collect());
    let mut rows = vec![(0..=right.len()).collect::<Vec<_>>()];
    for (i, a) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let mut cost = (rows[i][j] + usize::from(a != b)).min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b {
                cost = cost.min(rows[i - 1][j - 1] + 1);
            }
            row.push(cost);
        }
        rows.push(row);
    }
    rows[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let known = ["resolvers", "recursor", "serve", "to", "from", "unit"];
        assert_eq!(nearest("resolver", &known), Some("resolvers"));
        assert_eq!(nearest("Resovlers", &known), Some("resolvers"));
        assert_eq!(nearest("service", &known), Some("unit"));
        assert_eq!(nearest("destination", &known), Some("to"));
        assert_eq!(nearest("form", &known), Some("from"));
        assert_eq!(nearest("colour", &known), None);
        assert_eq!(distance("", "abc"), 3);
    }
}
