//! Takes a TOML document, gives its shape: which keys are written, of the right type, and where. What the values mean
//! is not looked at here.

use super::problem::Problem;
use super::table::{FROM_SHAPE, Field, Strings, TableReader};
use std::ops::Range;
use toml::Spanned;
use toml::de::DeTable;

/// The keys at the top of a policy.
pub(super) const TOP_KEYS: &[&str] = &[
    "version",
    "mode",
    "existing",
    "dns",
    "allow",
    "deny",
    "scope",
    "raw",
    "unjudged",
    "blocklist",
    "known-good",
];

/// A policy as it is written.
#[derive(Debug)]
pub(super) struct PolicyFile {
    pub(super) version: Field<Spanned<i64>>,
    pub(super) mode: Field<Spanned<String>>,
    pub(super) existing: Field<Spanned<String>>,
    pub(super) dns: Option<DnsTable>,
    pub(super) deny: Vec<RuleTable>,
    pub(super) allow: Vec<RuleTable>,
    pub(super) scopes: Vec<ScopeTable>,
    pub(super) raw: Option<OpenersTable>,
    pub(super) unjudged: Option<OpenersTable>,
    pub(super) blocklists: Vec<BlocklistTable>,
    pub(super) known_good: Option<KnownGoodTable>,
}

/// `[dns]`
#[derive(Debug)]
pub(super) struct DnsTable {
    pub(super) resolvers: Field<Strings>,
    pub(super) clients: Field<FromList>,
    pub(super) encrypted: Field<Spanned<String>>,
    pub(super) deny_types: Field<Strings>,
    pub(super) events: Field<Spanned<String>>,
    pub(super) sample: Field<Spanned<i64>>,
    pub(super) limits: Option<LimitsTable>,
    pub(super) recursors: Vec<RecursorTable>,
    pub(super) stubs: Vec<StubTable>,
    pub(super) serve: Option<ServeTable>,
}

/// `[dns.limits]`, or `limits` of a scope.
#[derive(Debug)]
pub(super) struct LimitsTable {
    pub(super) span: Range<usize>,
    pub(super) name_length: Field<Spanned<String>>,
    pub(super) label_length: Field<Spanned<String>>,
    pub(super) labels: Field<Spanned<String>>,
    pub(super) questions_per_second: Field<Spanned<String>>,
    pub(super) names_per_domain: Field<Spanned<String>>,
    pub(super) nxdomain_per_minute: Field<Spanned<String>>,
    /// Types, and bytes.
    pub(super) answer_bytes: Field<Vec<(Spanned<String>, Spanned<i64>)>>,
}

/// `[[dns.recursor]]`
#[derive(Debug)]
pub(super) struct RecursorTable {
    pub(super) span: Range<usize>,
    pub(super) from: Field<FromList>,
    pub(super) to: Field<Strings>,
}

/// `[[dns.stub]]`
#[derive(Debug)]
pub(super) struct StubTable {
    pub(super) span: Range<usize>,
    pub(super) address: Field<Spanned<String>>,
    pub(super) from: Field<FromList>,
}

/// `[dns.serve]`
#[derive(Debug)]
pub(super) struct ServeTable {
    pub(super) span: Range<usize>,
    pub(super) from: Field<Strings>,
}

/// `[[allow]]` or `[[deny]]`
#[derive(Debug)]
pub(super) struct RuleTable {
    pub(super) span: Range<usize>,
    pub(super) name: Field<Spanned<String>>,
    pub(super) to: Field<Strings>,
    pub(super) answers: Field<Strings>,
    pub(super) ports: Field<Strings>,
    pub(super) from: Field<FromList>,
}

/// `[[scope]]`
#[derive(Debug)]
pub(super) struct ScopeTable {
    pub(super) span: Range<usize>,
    pub(super) name: Field<Spanned<String>>,
    pub(super) from: Field<FromList>,
    pub(super) mode: Field<Spanned<String>>,
    pub(super) existing: Field<Spanned<String>>,
    pub(super) limits: Option<LimitsTable>,
}

/// `[raw]` and `[unjudged]`
#[derive(Debug)]
pub(super) struct OpenersTable {
    pub(super) span: Range<usize>,
    pub(super) from: Field<FromList>,
}

/// `[[blocklist]]`
#[derive(Debug)]
pub(super) struct BlocklistTable {
    pub(super) span: Range<usize>,
    pub(super) name: Field<Spanned<String>>,
    pub(super) source: Field<Spanned<String>>,
    pub(super) format: Field<Spanned<String>>,
    pub(super) action: Field<Spanned<String>>,
    pub(super) min_entries: Field<Spanned<i64>>,
    pub(super) max_entries: Field<Spanned<i64>>,
    pub(super) refresh: Field<Spanned<String>>,
    pub(super) max_shrink: Field<Spanned<String>>,
    pub(super) max_growth: Field<Spanned<String>>,
}

/// `[known-good]`
#[derive(Debug)]
pub(super) struct KnownGoodTable {
    pub(super) names: Field<Strings>,
    pub(super) lists: Field<Strings>,
}

/// The value of a `from` key that names workloads.
#[derive(Debug)]
pub(super) struct FromList {
    pub(super) span: Range<usize>,
    pub(super) entries: Vec<FromTable>,
    /// Whether it is written as empty.
    pub(super) is_empty: bool,
}

/// One entry of a `from` list.
#[derive(Debug)]
pub(super) struct FromTable {
    pub(super) span: Range<usize>,
    pub(super) unit: Field<Spanned<String>>,
    pub(super) cgroup: Field<Spanned<String>>,
    pub(super) container: Field<Spanned<String>>,
    pub(super) pod: Field<Spanned<String>>,
    pub(super) user: Field<Spanned<String>>,
    pub(super) exe: Field<Spanned<String>>,
    /// Whether it has no key at all.
    pub(super) is_empty: bool,
}

impl PolicyFile {
    /// Reads the document; every key or type that is wrong becomes a problem.
    pub(super) fn read(document: &DeTable<'_>, text: &str, problems: &mut Vec<Problem>) -> Self {
        let mut top = TableReader::new(document, 0..0, "", TOP_KEYS, text, problems);
        let (version, mode, existing) = (top.integer("version"), top.string("mode"), top.string("existing"));
        Self {
            version,
            mode,
            existing,
            dns: top.table("dns").given().map(|(span, table)| dns(table, span, &mut top)),
            deny: rules(&mut top, "deny"),
            allow: rules(&mut top, "allow"),
            scopes: each(
                &mut top,
                "scope",
                "[[scope]]",
                &["name", "from", "mode", "existing", "limits"],
                |reader| ScopeTable {
                    span: reader.span(),
                    name: reader.string("name"),
                    from: from(reader),
                    mode: reader.string("mode"),
                    existing: reader.string("existing"),
                    limits: limits(reader, "[scope.limits]"),
                },
            ),
            raw: openers(&mut top, "raw", "[raw]"),
            unjudged: openers(&mut top, "unjudged", "[unjudged]"),
            blocklists: each(&mut top, "blocklist", "[[blocklist]]", BLOCKLIST_KEYS, |reader| {
                BlocklistTable {
                    span: reader.span(),
                    name: reader.string("name"),
                    source: reader.string("source"),
                    format: reader.string("format"),
                    action: reader.string("action"),
                    min_entries: reader.integer("min-entries"),
                    max_entries: reader.integer("max-entries"),
                    refresh: reader.string("refresh"),
                    max_shrink: reader.string_or_integer("max-shrink"),
                    max_growth: reader.string_or_integer("max-growth"),
                }
            }),
            known_good: top.table("known-good").given().map(|(span, table)| {
                let (text, problems) = top.problems();
                let keys = &["names", "lists"];
                let mut reader = TableReader::new(table, span, "[known-good]", keys, text, problems);
                KnownGoodTable { names: reader.strings("names"), lists: reader.strings("lists") }
            }),
        }
    }
}

const BLOCKLIST_KEYS: &[&str] = &[
    "name",
    "source",
    "format",
    "action",
    "min-entries",
    "max-entries",
    "refresh",
    "max-shrink",
    "max-growth",
];

fn openers(top: &mut TableReader<'_, '_>, key: &str, title: &'static str) -> Option<OpenersTable> {
    top.table(key).given().map(|(span, table)| {
        let (text, problems) = top.problems();
        let mut reader = TableReader::new(table, span, title, &["from"], text, problems);
        OpenersTable { span: reader.span(), from: from(&mut reader) }
    })
}

fn dns(table: &DeTable<'_>, span: Range<usize>, top: &mut TableReader<'_, '_>) -> DnsTable {
    const KEYS: &[&str] = &[
        "resolvers",
        "clients",
        "encrypted",
        "deny-types",
        "events",
        "sample",
        "limits",
        "recursor",
        "stub",
        "serve",
    ];
    let (text, problems) = top.problems();
    let mut reader = TableReader::new(table, span, "[dns]", KEYS, text, problems);
    DnsTable {
        resolvers: reader.strings("resolvers"),
        clients: from_list(&mut reader, "clients"),
        encrypted: reader.string("encrypted"),
        deny_types: reader.strings("deny-types"),
        events: reader.string("events"),
        sample: reader.integer("sample"),
        limits: limits(&mut reader, "[dns.limits]"),
        recursors: each(&mut reader, "recursor", "[[dns.recursor]]", &["from", "to"], |reader| {
            RecursorTable { span: reader.span(), from: from(reader), to: reader.strings("to") }
        }),
        stubs: each(&mut reader, "stub", "[[dns.stub]]", &["address", "from"], |reader| StubTable {
            span: reader.span(),
            address: reader.string("address"),
            from: from(reader),
        }),
        serve: reader.table("serve").given().map(|(span, table)| {
            let (text, problems) = reader.problems();
            let mut reader = TableReader::new(table, span, "[dns.serve]", &["from"], text, problems);
            ServeTable { span: reader.span(), from: reader.strings("from") }
        }),
    }
}

const LIMITS_KEYS: &[&str] = &[
    "name-length",
    "label-length",
    "labels",
    "questions-per-second",
    "names-per-domain",
    "nxdomain-per-minute",
    "answer-bytes",
];

fn limits(outer: &mut TableReader<'_, '_>, title: &'static str) -> Option<LimitsTable> {
    outer.table("limits").given().map(|(span, table)| {
        let (text, problems) = outer.problems();
        let mut reader = TableReader::new(table, span, title, LIMITS_KEYS, text, problems);
        LimitsTable {
            span: reader.span(),
            name_length: reader.string_or_integer("name-length"),
            label_length: reader.string_or_integer("label-length"),
            labels: reader.string_or_integer("labels"),
            questions_per_second: reader.string_or_integer("questions-per-second"),
            names_per_domain: reader.string_or_integer("names-per-domain"),
            nxdomain_per_minute: reader.string_or_integer("nxdomain-per-minute"),
            answer_bytes: reader.numbers("answer-bytes"),
        }
    })
}

fn rules(top: &mut TableReader<'_, '_>, section: &str) -> Vec<RuleTable> {
    // What is refused by name is refused wherever the name leads.
    let keys: &[&str] = match section {
        "allow" => &["name", "to", "answers", "ports", "from"],
        _ => &["name", "to", "ports", "from"],
    };
    each(top, section, &format!("[[{section}]]"), keys, |reader| RuleTable {
        span: reader.span(),
        name: reader.string("name"),
        to: reader.strings("to"),
        answers: reader.strings("answers"),
        ports: reader.strings("ports"),
        from: from(reader),
    })
}

/// Reads every `[[key]]` table.
fn each<T>(
    outer: &mut TableReader<'_, '_>,
    key: &str,
    title: &str,
    known: &[&str],
    read: impl Fn(&mut TableReader<'_, '_>) -> T,
) -> Vec<T> {
    let tables = outer.tables(key, &format!("write {title} on a line of its own, its keys below")).given();
    let (text, problems) = outer.problems();
    tables
        .unwrap_or_default()
        .into_iter()
        .map(|(span, table)| read(&mut TableReader::new(table, span, title, known, text, problems)))
        .collect()
}

fn from(reader: &mut TableReader<'_, '_>) -> Field<FromList> {
    from_list(reader, "from")
}

fn from_list(reader: &mut TableReader<'_, '_>, key: &str) -> Field<FromList> {
    const KEYS: &[&str] = &["unit", "cgroup", "container", "pod", "user", "exe"];
    let tables = match reader.tables(key, FROM_SHAPE) {
        Field::Given(tables) => tables,
        Field::Absent => return Field::Absent,
        Field::Wrong => return Field::Wrong,
    };
    let span = reader.value_span(key);
    let is_empty = reader.is_empty_list(key);
    let (text, problems) = reader.problems();
    let entries = tables
        .into_iter()
        .map(|(span, table)| {
            let title = format!("a `{key}` entry");
            let mut reader = TableReader::new(table, span, title, KEYS, text, problems);
            FromTable {
                span: reader.span(),
                unit: reader.string("unit"),
                cgroup: reader.string("cgroup"),
                container: reader.string("container"),
                pod: reader.string("pod"),
                user: reader.string_or_integer("user"),
                exe: reader.string("exe"),
                is_empty: table.is_empty(),
            }
        })
        .collect();
    Field::Given(FromList { span, entries, is_empty })
}
