//! What `[[blocklist]]`, `[known-good]` and `deny-types` mean.

use std::path::{Path, PathBuf};

use domain::base::iana::Rtype;

use super::super::file::{BlocklistTable, KnownGoodTable};
use super::*;
use crate::blocklist::build::NAMES_MAX;
use crate::blocklist::format::Format;
use crate::blocklist::{List, ListAction};
use crate::policy::{Blocklist, KnownGood};

/// Lists of one policy.
const LISTS_MAX: usize = 256;

const FORMATS: &[(&str, Option<Format>)] = &[
    ("auto", None),
    ("domains", Some(Format::Domains)),
    ("hosts", Some(Format::Hosts)),
    ("abp", Some(Format::Adblock)),
    ("rpz", Some(Format::Rpz)),
    ("dnsmasq", Some(Format::Dnsmasq)),
];
const ACTIONS: &[(&str, ListAction)] = &[("deny", ListAction::Deny), ("alert", ListAction::Alert)];

impl Check<'_> {
    pub(super) fn blocklists(&mut self, tables: Vec<BlocklistTable>) -> Vec<Blocklist> {
        if let Some(table) = tables.get(LISTS_MAX) {
            self.problems.push(
                Problem::error(table.span.clone(), format!("this policy has {} block lists", tables.len()))
                    .why(format!("an agent reads at most {LISTS_MAX}"))
                    .hint("merge lists that meet the same action"),
            );
        }
        let mut names = Names::default();
        let mut lists = Vec::new();
        for (index, table) in tables.into_iter().enumerate() {
            let place = self.place(table.span.clone());
            let name = self.name(&table.name, index, &place, "[[blocklist]]", &mut names);
            let path = self.list_source(&table);
            let format = self.word("format", &table.format, FORMATS).flatten();
            let action = self.word("action", &table.action, ACTIONS).unwrap_or(ListAction::Deny);
            let least = self.entries("min-entries", &table.min_entries).unwrap_or(1);
            let most = self.entries("max-entries", &table.max_entries).unwrap_or(NAMES_MAX);
            if least > most {
                self.problems.push(
                    Problem::error(table.span, "`min-entries` is more than `max-entries`")
                        .why("no list could have so many")
                        .hint("write the smaller number as `min-entries`"),
                );
            }
            let name = name.unwrap_or_else(|| index.to_string());
            lists.extend(path.map(|(path, source)| {
                let list = List { name, path, format, action, entries: least..=most };
                Blocklist { place, source, list }
            }));
        }
        lists
    }

    fn list_source(&mut self, table: &BlocklistTable) -> Option<(PathBuf, Range<usize>)> {
        let written = match &table.source {
            Field::Given(written) => written,
            Field::Absent => {
                self.problems.push(
                    Problem::error(table.span.clone(), "`source` is missing in [[blocklist]]")
                        .why("it says which file the names are in")
                        .hint("write like source = \"/etc/dnswall/lists/malware.txt\""),
                );
                return None;
            }
            Field::Wrong => return None,
        };
        let text = written.get_ref().as_str();
        if text.starts_with("https://") || text.starts_with("http://") {
            self.problems.push(
                Problem::error(written.span(), "not yet: lists that are fetched")
                    .why("this version reads lists from files")
                    .hint("write the path of a file that is kept up to date by other means"),
            );
            return None;
        }
        Some((self.absolute(written, "a list")?, written.span()))
    }

    fn absolute(&mut self, written: &Spanned<String>, what: &str) -> Option<PathBuf> {
        let path = Path::new(written.get_ref());
        if path.is_absolute() {
            return Some(path.to_owned());
        }
        self.problems.push(
            Problem::error(written.span(), format!("{} is not an absolute path", quoted(written.get_ref())))
                .why(format!("the agent does not run where you are, so it would look for {what} elsewhere"))
                .hint("write the whole path, from /"),
        );
        None
    }

    fn entries(&mut self, key: &str, field: &Field<Spanned<i64>>) -> Option<usize> {
        let Field::Given(written) = field else { return None };
        match usize::try_from(*written.get_ref()) {
            Ok(count) if count <= NAMES_MAX => Some(count),
            _ => {
                self.problems.push(
                    Problem::error(written.span(), format!("`{key}` cannot be {}", written.get_ref()))
                        .why(format!("all lists together may have {NAMES_MAX} names"))
                        .hint(format!("write a number from 0 to {NAMES_MAX}")),
                );
                None
            }
        }
    }

    pub(super) fn known_good(&mut self, table: Option<KnownGoodTable>) -> KnownGood {
        let Some(table) = table else { return KnownGood::default() };
        let mut known_good = KnownGood::default();
        if let Field::Given(list) = table.names {
            for written in &list.items {
                known_good.names.names.extend(self.pattern(written));
            }
        }
        if let Field::Given(list) = table.lists {
            for written in &list.items {
                if let Some(path) = self.absolute(written, "a list") {
                    known_good.names.lists.push(path);
                    known_good.sources.push(written.span());
                }
            }
        }
        known_good
    }

    /// `name` or `*.name`.
    fn pattern(&mut self, written: &Spanned<String>) -> Option<Pattern> {
        let text = written.get_ref().as_str();
        Pattern::new(text)
            .map_err(|reason| {
                self.problems.push(
                    Problem::error(written.span(), format!("{} is not a domain name", quoted(text)))
                        .why(reason.why())
                        .hint("write like \"api.example.com\", or \"*.example.com\" for what is below"),
                );
            })
            .ok()
    }

    pub(super) fn types(&mut self, field: &Field<Strings>) -> Vec<u16> {
        let Field::Given(list) = field else { return Vec::new() };
        let mut types = Vec::new();
        for written in &list.items {
            let text = written.get_ref().as_str();
            match text.to_ascii_uppercase().parse::<Rtype>() {
                Ok(rtype) if !types.contains(&rtype.to_int()) => types.push(rtype.to_int()),
                Ok(_) => {}
                Err(_) => self.problems.push(
                    Problem::error(written.span(), format!("{} is not a type of question", quoted(text)))
                        .why("types are known by the names of their records, or as TYPE and a number")
                        .hint("write like \"NULL\", \"ANY\" or \"TYPE65399\""),
                ),
            }
        }
        types
    }
}
