//! Takes the shape of a policy file, gives what it means: a [`Policy`]. Notes every value that means nothing.

mod limits;
mod lists;
mod questions;

use super::destination::{Target, parse_address};
use super::file::{
    DnsTable, FromList, OpenersTable, PolicyFile, RecursorTable, RuleTable, ScopeTable, ServeTable, StubTable,
};
use super::problem::{Problem, quoted};
use super::table::{Field, Strings, nearest};
use super::{
    Destination, Dns, Encrypted, Events, Existing, Limits, Mode, NAME_BYTES_MAX, Place, Policy, Ports,
    Recursor, Rule, Scope, Selector, Serve, Stub, digest, selector,
};
use crate::blocklist::Pattern;
use dnswall_common::flow::PORT_DNS;
use std::collections::HashMap;
use std::ops::Range;
use toml::Spanned;

/// Reads the whole file. `is_whole`: nothing had to be left out, so a key that is missing is a mistake.
pub(super) fn policy(
    file: PolicyFile,
    text: &str,
    origin: &str,
    is_whole: bool,
    problems: &mut Vec<Problem>,
) -> Option<Policy> {
    let mut check =
        Check { problems, line_starts: line_starts(text), first_line: first_line(text), is_whole };
    check.version(&file.version);
    let mode = check.word("mode", &file.mode, MODES);
    if file.mode.is_absent() {
        check.missing("mode", "mode = \"audit\" to begin with: it only reports what \"enforce\" would block");
    }
    let existing = check.word("existing", &file.existing, EXISTING).unwrap_or(Existing::Keep);
    let dns = check.dns(file.dns);
    let deny = check.rules(file.deny, "deny");
    let allow = check.rules(file.allow, "allow");
    let scopes = check.scopes(file.scopes, mode, existing, &dns.limits);
    let raw = check.openers(file.raw, "[raw]", "who may open raw sockets");
    let unjudged = check.openers(file.unjudged, "[unjudged]", "who may open what the wall cannot see into");
    let blocklists = check.blocklists(file.blocklists);
    let known_good = check.known_good(file.known_good);
    let stem = origin.rsplit('/').next().unwrap_or(origin);
    Some(Policy {
        name: stem.strip_suffix(".toml").unwrap_or(stem).to_owned(),
        origin: origin.to_owned(),
        text: text.to_owned(),
        digest: digest(text),
        mode: mode?,
        existing,
        dns,
        deny,
        allow,
        scopes,
        raw,
        unjudged,
        blocklists,
        known_good,
    })
}

const MODES: &[(&str, Mode)] = &[("enforce", Mode::Enforce), ("audit", Mode::Audit)];
const EXISTING: &[(&str, Existing)] = &[("keep", Existing::Keep), ("cut", Existing::Cut)];
const ENCRYPTED: &[(&str, Encrypted)] = &[("deny", Encrypted::Deny), ("allow", Encrypted::Allow)];

struct Check<'p> {
    problems: &'p mut Vec<Problem>,
    line_starts: Vec<usize>,
    first_line: Range<usize>,
    is_whole: bool,
}

impl Check<'_> {
    fn version(&mut self, version: &Field<Spanned<i64>>) {
        match version {
            Field::Given(number) if *number.get_ref() != 1 => self.problems.push(
                Problem::error(number.span(), format!("there is no policy version {}", number.get_ref()))
                    .why("this program reads version 1")
                    .hint("write version = 1"),
            ),
            Field::Absent => self.missing("version", "version = 1"),
            Field::Given(_) | Field::Wrong => {}
        }
    }

    fn missing(&mut self, key: &str, write: &str) {
        if self.is_whole {
            self.problems.push(
                Problem::error(self.first_line.clone(), format!("`{key}` is missing"))
                    .why("every policy says it, above its first [section]")
                    .hint(format!("write {write}")),
            );
        }
    }

    /// One of a few words.
    fn word<T: Copy>(&mut self, key: &str, field: &Field<Spanned<String>>, words: &[(&str, T)]) -> Option<T> {
        let Field::Given(written) = field else { return None };
        let text = written.get_ref().as_str();
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let list: Vec<String> = known.iter().map(|word| format!("\"{word}\"")).collect();
        let problem = Problem::error(written.span(), format!("`{key}` cannot be {}", quoted(text)));
        self.problems.push(match nearest(text, &known) {
            Some(word) => {
                problem.why(format!("it is {}", list.join(" or "))).hint(format!("write \"{word}\""))
            }
            None => problem.hint(format!("write {}", list.join(" or "))),
        });
        None
    }

    fn dns(&mut self, table: Option<DnsTable>) -> Dns {
        let Some(table) = table else {
            return Dns {
                place: Place::default(),
                resolvers: Vec::new(),
                clients: Vec::new(),
                encrypted: Encrypted::Deny,
                encrypted_at: Place::default(),
                deny_types: Vec::new(),
                events: Events::Off,
                limits: Limits::default(),
                limits_at: Place::default(),
                recursors: Vec::new(),
                stubs: Vec::new(),
                serve: None,
            };
        };
        let mut stubs: Vec<Stub> = table.stubs.into_iter().filter_map(|stub| self.stub(stub)).collect();
        let (mut resolvers, mut place) = (Vec::new(), Place::default());
        if let Field::Given(list) = table.resolvers {
            place = self.place(list.span);
            for written in &list.items {
                match parse_address(written, "a resolver") {
                    Ok(address) if address.is_loopback() => {
                        if !stubs.iter().any(|stub| stub.address == address) {
                            stubs.push(Stub { place: self.place(written.span()), address, from: Vec::new() });
                        }
                    }
                    Ok(address) => {
                        if !resolvers.contains(&address) {
                            resolvers.push(address);
                        }
                    }
                    Err(problem) => self.problems.push(problem),
                }
            }
        }
        Dns {
            place,
            resolvers,
            clients: self.from(table.clients, "who may ask the resolvers"),
            encrypted: self.word("encrypted", &table.encrypted, ENCRYPTED).unwrap_or(Encrypted::Deny),
            encrypted_at: match &table.encrypted {
                Field::Given(written) => self.place(written.span()),
                Field::Absent | Field::Wrong => Place::default(),
            },
            deny_types: self.types(&table.deny_types),
            events: self.events(&table.events, &table.sample),
            limits_at: table
                .limits
                .as_ref()
                .map(|limits| self.place(limits.span.clone()))
                .unwrap_or_default(),
            limits: self.limits(table.limits, &Limits::default()),
            recursors: table.recursors.into_iter().map(|recursor| self.recursor(recursor)).collect(),
            stubs,
            serve: table.serve.map(|serve| self.serve(serve)),
        }
    }

    fn recursor(&mut self, table: RecursorTable) -> Recursor {
        let title = "[[dns.recursor]]";
        Recursor {
            from: self.needed_from(table.from, table.span.clone(), title, "which process is a resolver"),
            to: self.needed_to(table.to, table.span.clone(), title),
            place: self.place(table.span),
        }
    }

    fn stub(&mut self, table: StubTable) -> Option<Stub> {
        let from = self.from(table.from, "whose answers count");
        let address = match &table.address {
            Field::Given(written) => match parse_address(written, "a stub's address") {
                Ok(address) if !address.is_loopback() && from.is_empty() => {
                    self.problems.push(
                        Problem::error(written.span(), format!("{address} is not on this host's loopback"))
                            .why("a stub elsewhere than on 127.0.0.0/8 or ::1 has a `from`: whose answers count")
                            .hint("list it in `resolvers` of [dns]"),
                    );
                    None
                }
                read => read.map_err(|problem| self.problems.push(problem)).ok(),
            },
            Field::Absent => {
                self.problems.push(
                    Problem::error(table.span.clone(), "`address` is missing in [[dns.stub]]")
                        .hint("write where it listens, like address = \"127.0.0.53\""),
                );
                None
            }
            Field::Wrong => None,
        };
        Some(Stub { place: self.place(table.span), address: address?, from })
    }

    fn serve(&mut self, table: ServeTable) -> Serve {
        let from = match table.from {
            Field::Given(list) => self.destinations(&list, "`from`"),
            Field::Absent => {
                self.problems.push(
                    Problem::error(table.span.clone(), "`from` is missing in [dns.serve]")
                        .why("nobody may ask a DNS server on this host, unless said")
                        .hint("write who may ask, like from = [\"10.0.0.0/8\"]"),
                );
                Vec::new()
            }
            Field::Wrong => Vec::new(),
        };
        Serve { place: self.place(table.span), from }
    }

    fn rules(&mut self, tables: Vec<RuleTable>, section: &str) -> Vec<Rule> {
        let title = format!("[[{section}]]");
        let mut names = Names::default();
        let rules = tables.into_iter().enumerate().map(|(index, table)| {
            let place = self.place(table.span.clone());
            let name = self.name(&table.name, index, &place, &title, &mut names);
            let (to, names) = self.targets(table.to, table.span, &title);
            let answers = self.answers(&table.answers, names.is_empty());
            let ports = self.ports(&table.ports, section == "allow");
            let from = self.from(table.from, "whom this rule binds");
            Rule { place, name, to, names, answers, ports, from }
        });
        rules.collect()
    }

    fn scopes(
        &mut self,
        tables: Vec<ScopeTable>,
        mode: Option<Mode>,
        existing: Existing,
        limits: &Limits,
    ) -> Vec<Scope> {
        let mut names = Names::default();
        let mut scopes = Vec::new();
        for (index, table) in tables.into_iter().enumerate() {
            let place = self.place(table.span.clone());
            let name = self.name(&table.name, index, &place, "[[scope]]", &mut names);
            if table.mode.is_absent() && table.existing.is_absent() && table.limits.is_none() {
                self.problems.push(
                    Problem::error(table.span.clone(), "this scope changes nothing")
                        .why("a scope says a `mode`, an `existing` or `limits` of its own")
                        .hint("write mode = \"audit\""),
                );
            }
            let mode = self.word("mode", &table.mode, MODES).or(mode).unwrap_or(Mode::Audit);
            let existing = self.word("existing", &table.existing, EXISTING).unwrap_or(existing);
            let from = self.needed_from(table.from, table.span, "[[scope]]", "whom it treats apart");
            let limits = self.limits(table.limits, limits);
            scopes.push(Scope { place, name, from, mode, existing, limits });
        }
        scopes
    }

    /// A name no other rule of the section has, its number counting as the name of a rule without one.
    fn name(
        &mut self,
        field: &Field<Spanned<String>>,
        index: usize,
        place: &Place,
        title: &str,
        names: &mut Names,
    ) -> Option<String> {
        let Field::Given(written) = field else {
            names.insert(index.to_string(), place.line);
            return None;
        };
        let name = written.get_ref();
        let problem = |message: String| Problem::error(written.span(), message);
        if name.trim().is_empty() || name.trim() != name || name.contains(char::is_control) {
            self.problems.push(
                problem(format!("{} is not a name", quoted(name)))
                    .why("a name is visible text without blanks around it, as it appears in alerts")
                    .hint("write like name = \"orders database\", or leave `name` out"),
            );
        } else if name.len() > NAME_BYTES_MAX {
            self.problems.push(
                problem(format!("this name has {} bytes", name.len()))
                    .why(format!("a name may have {NAME_BYTES_MAX}"))
                    .hint("put the rest into a # comment"),
            );
        } else if let Some(line) = names.insert(name.clone(), place.line) {
            self.problems.push(
                problem(format!("two {title} sections are called {}", quoted(name)))
                    .why(format!(
                        "the one in line {line} has this name; alerts and counters could not tell them apart"
                    ))
                    .hint("give this one another name"),
            );
        }
        Some(name.clone())
    }

    fn needed_to(&mut self, field: Field<Strings>, span: Range<usize>, title: &str) -> Vec<Destination> {
        self.to(field, span, title).map(|list| self.destinations(&list, "`to`")).unwrap_or_default()
    }

    /// The addresses and names of a rule's `to`.
    fn targets(
        &mut self,
        field: Field<Strings>,
        span: Range<usize>,
        title: &str,
    ) -> (Vec<Destination>, Vec<Pattern>) {
        let Some(list) = self.to(field, span, title) else { return Default::default() };
        self.not_empty(&list, "`to`");
        let (mut to, mut names) = (Vec::new(), Vec::new());
        for written in &list.items {
            match Target::parse(written) {
                Ok(Target::Address(destination)) => to.push(destination),
                Ok(Target::Name(pattern)) => names.push(pattern),
                Err(problem) => self.problems.push(problem),
            }
        }
        (to, names)
    }

    /// Where a rule's names may lead.
    fn answers(&mut self, field: &Field<Strings>, leads_to_no_name: bool) -> Vec<Destination> {
        let Field::Given(list) = field else { return Vec::new() };
        if leads_to_no_name {
            self.problems.push(
                Problem::error(list.span.clone(), "`answers` without a name in `to`")
                    .why("it says which addresses the names of `to` may lead to")
                    .hint("leave it out, or write a name into `to`"),
            );
        }
        self.destinations(list, "`answers`")
    }

    fn to(&mut self, field: Field<Strings>, span: Range<usize>, title: &str) -> Option<Strings> {
        if field.is_absent() {
            self.problems.push(
                Problem::error(span, format!("`to` is missing in {title}"))
                    .why("a rule says where it leads")
                    .hint("write to = [\"10.0.3.0/24\"], or to = [\"any\"]"),
            );
        }
        field.given()
    }

    fn not_empty(&mut self, list: &Strings, key: &str) {
        if list.is_empty {
            self.problems.push(
                Problem::error(list.span.clone(), format!("{key} is empty"))
                    .why("an empty list leads nowhere")
                    .hint("write a destination, like \"10.0.3.0/24\" or \"any\""),
            );
        }
    }

    fn destinations(&mut self, list: &Strings, key: &str) -> Vec<Destination> {
        self.not_empty(list, key);
        let read = list.items.iter().map(Destination::parse);
        read.filter_map(|to| to.map_err(|problem| self.problems.push(problem)).ok()).collect()
    }

    fn ports(&mut self, field: &Field<Strings>, is_allow: bool) -> Vec<Ports> {
        let Field::Given(list) = field else { return Vec::new() };
        if list.is_empty {
            self.problems.push(
                Problem::error(list.span.clone(), "`ports` is empty")
                    .why("an empty list names no port")
                    .hint("write like ports = [\"tcp/443\"], or leave `ports` out for any"),
            );
        }
        let mut all = Vec::new();
        for written in &list.items {
            match Ports::parse(written) {
                Ok(ports) if is_allow && is_dns(ports) => self.problems.push(
                    Problem::error(written.span(), format!("port {PORT_DNS} cannot be allowed by a rule"))
                        .why("who may ask whom for names is what [dns] says")
                        .hint(
                            "list the server in `resolvers` of [dns], or the process as a [[dns.recursor]]",
                        ),
                ),
                Ok(ports) => all.push(ports),
                Err(problem) => self.problems.push(problem),
            }
        }
        all
    }

    /// Without the table it is the DHCP clients; an empty list is nobody, not even them.
    fn openers(&mut self, table: Option<OpenersTable>, title: &str, what: &str) -> Vec<Selector> {
        match table {
            None => selector::dhcp_clients(),
            Some(OpenersTable { from: Field::Given(list), .. }) if list.is_empty => Vec::new(),
            Some(OpenersTable { from, span }) => self.needed_from(from, span, title, what),
        }
    }

    fn needed_from(
        &mut self,
        field: Field<FromList>,
        span: Range<usize>,
        title: &str,
        what: &str,
    ) -> Vec<Selector> {
        if field.is_absent() {
            self.problems.push(
                Problem::error(span, format!("`from` is missing in {title}"))
                    .why(format!("it says {what}"))
                    .hint("write like from = [{ unit = \"orders.service\" }]"),
            );
        }
        self.from(field, what)
    }

    fn from(&mut self, field: Field<FromList>, what: &str) -> Vec<Selector> {
        let Field::Given(list) = field else { return Vec::new() };
        if list.is_empty {
            self.problems.push(
                Problem::error(list.span, "this list names nobody")
                    .why(format!("it says {what}"))
                    .hint("name a workload, like { unit = \"orders.service\" }, or leave the whole list out"),
            );
        }
        list.entries.iter().filter_map(|entry| selector::read(entry, self.problems)).collect()
    }

    fn place(&self, span: Range<usize>) -> Place {
        let line = self.line_starts.partition_point(|start| *start <= span.start);
        Place { span, line }
    }
}

/// Names of one section, and the lines they are in.
type Names = HashMap<String, usize>;

fn is_dns(ports: Ports) -> bool {
    ports.is_only(PORT_DNS) && !matches!(ports, Ports::Range { protocol: super::Protocol::Sctp, .. })
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect()
}

/// The first line that says something: where to point when a key is missing from the whole file.
fn first_line(text: &str) -> Range<usize> {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let said = line.trim();
        if !said.is_empty() && !said.starts_with('#') {
            return at..at + line.trim_end().len();
        }
        at += line.len();
    }
    0..0
}
