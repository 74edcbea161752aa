//! What `[[blocklist]]`, `[known-good]` and `deny-types` mean.

use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::base::iana::Rtype;
use jiff::{Span, SpanRelativeTo};

use super::super::file::{BlocklistTable, KnownGoodTable};
use super::*;
use crate::blocklist::bounds::{CHANGE_MAX, Change, REFRESH_DEFAULT, REFRESH_RANGE};
use crate::blocklist::build::NAMES_MAX;
use crate::blocklist::format::Format;
use crate::blocklist::{List, ListAction, ListSource};
use crate::policy::{Blocklist, KnownGood};
use crate::remote::ServerUrl;

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
            let source = self.list_source(&table);
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
            let usual = Change::default();
            let shrink = self.percent("max-shrink", &table.max_shrink, CHANGE_MAX.shrink_percent);
            let growth = self.percent("max-growth", &table.max_growth, CHANGE_MAX.growth_percent);
            let change = Change {
                shrink_percent: shrink.unwrap_or(usual.shrink_percent),
                growth_percent: growth.unwrap_or(usual.growth_percent),
            };
            let name = name.unwrap_or_else(|| index.to_string());
            let Some((of, source)) = source else { continue };
            self.fetched_once(&of, &source, &lists);
            let list = List { name, source: of, format, action, entries: least..=most, change };
            lists.push(Blocklist { place, source, list });
        }
        lists
    }

    /// What was fetched belongs to one list.
    fn fetched_once(&mut self, of: &ListSource, span: &Range<usize>, others: &[Blocklist]) {
        let Some((url, _)) = of.url() else { return };
        let same = |other: &&Blocklist| other.list.source.url().is_some_and(|(other, _)| other == url);
        if let Some(other) = others.iter().find(same) {
            self.problems.push(
                Problem::error(span.clone(), "two [[blocklist]] sections have this `source`")
                    .why(format!("{} in line {} is the same list", other.list.name, other.place.line))
                    .hint("take one of them out"),
            );
        }
    }

    fn list_source(&mut self, table: &BlocklistTable) -> Option<(ListSource, Range<usize>)> {
        let refresh = self.refresh(&table.refresh);
        let written = match &table.source {
            Field::Given(written) => written,
            Field::Absent => {
                self.problems.push(
                    Problem::error(table.span.clone(), "`source` is missing in [[blocklist]]")
                        .why("it says which file the names are in, or where they are fetched")
                        .hint("write like source = \"/etc/dnswall/lists/malware.txt\""),
                );
                return None;
            }
            Field::Wrong => return None,
        };
        let text = written.get_ref().as_str();
        if !ServerUrl::is_meant(text) {
            if let Field::Given(refresh) = &table.refresh {
                self.problems.push(
                    Problem::error(refresh.span(), "`refresh` is for a list that is fetched")
                        .why("a file is read again when it changes")
                        .hint("take it out, or write an https:// URL as `source`"),
                );
            }
            return Some((ListSource::File(self.absolute(written, "a list")?), written.span()));
        }
        match ServerUrl::new(text) {
            Ok(url) => Some((ListSource::Url { url, refresh: refresh? }, written.span())),
            Err(reason) => {
                self.problems.push(
                    Problem::error(written.span(), "nothing can be fetched from this `source`")
                        .why(reason.why())
                        .hint(reason.hint()),
                );
                None
            }
        }
    }

    /// How often a list is fetched; `None` when that was not said right.
    fn refresh(&mut self, field: &Field<Spanned<String>>) -> Option<Duration> {
        let written = match field {
            Field::Given(written) => written,
            Field::Absent => return Some(REFRESH_DEFAULT),
            Field::Wrong => return None,
        };
        let time = written.get_ref().parse::<Span>().ok();
        let time = time.and_then(|time| time.to_duration(SpanRelativeTo::days_are_24_hours()).ok());
        let time = time.and_then(|time| Duration::try_from(time).ok());
        let fits = time.filter(|time| REFRESH_RANGE.contains(time));
        if fits.is_none() {
            self.problems.push(
                Problem::error(written.span(), format!("`refresh` cannot be {}", quoted(written.get_ref())))
                    .why("it is a time from a minute to thirty days")
                    .hint("write like \"1h\", \"30m\" or \"1d\""),
            );
        }
        fits
    }

    /// A share in percent, like `"30%"`.
    fn percent(&mut self, key: &str, field: &Field<Spanned<String>>, most: u32) -> Option<u32> {
        let Field::Given(written) = field else { return None };
        let text = written.get_ref().trim();
        let number = |digits: &str| {
            let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse::<u32>().ok().filter(|_| is_plain)
        };
        let share = text.strip_suffix('%').and_then(|digits| number(digits.trim_end()));
        let fits = share.filter(|share| *share <= most);
        if fits.is_none() {
            self.problems.push(
                Problem::error(written.span(), format!("`{key}` cannot be {}", quoted(written.get_ref())))
                    .why(format!("it is a share of the entries that the list had, from 0% to {most}%"))
                    .hint(match number(text) {
                        Some(bare) if bare <= most => format!("write {key} = \"{bare}%\""),
                        _ if key == "max-shrink" => format!("write like {key} = \"30%\""),
                        _ => format!("write like {key} = \"100%\""),
                    }),
            );
        }
        fits
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
