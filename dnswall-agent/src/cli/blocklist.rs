//! `dnswall blocklist`

use super::args::{CheckNameArguments, Form, UpdateArguments};
use super::exit::{Exit, Failure};
use super::output::{self, BAD, FAINT, GOOD, STRONG, WARN, paint};
use super::policy::read_policy;
use crate::compile::compile;
use crate::control::api::{
    Blocklists, FetchStatus, ListStatus, NameChecked, NameRequest, UpdateRequest, UpdateStatus, Updated,
};
use crate::control::client::Client;
use crate::run::environment::HostEnvironment;
use crate::run::names;
use crate::run::options::host_root;

/// Kinds of unusable lines that are shown of a list.
const RUBBISH_SHOWN_MAX: usize = 4;

pub async fn status(form: Form, client: &Client) -> Result<Exit, Failure> {
    let lists = client.blocklists().await?;
    output::answer(form, &lists, shown);
    Ok(Exit::Done)
}

pub async fn check(form: Form, client: &Client, arguments: &CheckNameArguments) -> Result<Exit, Failure> {
    let CheckNameArguments { name, policy } = arguments;
    let read = names::read(name).map_err(|why| Failure::new(Exit::Usage, why).hint(names::HINT))?;
    let checked = match policy {
        Some(file) => {
            let host = HostEnvironment::without_wall(host_root()?);
            let (image, _) = compile(&read_policy(file)?, &host)?;
            names::check(&image, &read)
                .map_err(|error| Failure::new(Exit::HostCannot, format!("read the lists' index: {error}")))?
        }
        None => client.check_name(&NameRequest { name: name.clone() }).await?,
    };
    output::answer(form, &checked, text);
    Ok(if checked.answer.outcome == "denied" { Exit::No } else { Exit::Done })
}

pub async fn update(form: Form, client: &Client, arguments: &UpdateArguments) -> Result<Exit, Failure> {
    let UpdateArguments { lists, accept } = arguments;
    let request = UpdateRequest { lists: lists.clone(), accept: *accept };
    let updated = client.update_blocklists(&request).await?;
    output::answer(form, &updated, updated_text);
    Ok(if updated.is_good() { Exit::Done } else { Exit::No })
}

fn updated_text(updated: &Updated) -> String {
    if updated.lists.is_empty() {
        return NO_LIST.to_owned();
    }
    updated.lists.iter().map(update_text).collect::<Vec<_>>().join("\n")
}

fn update_text(list: &UpdateStatus) -> String {
    let UpdateStatus { name, source, outcome, entries, added, removed, why } = list;
    let name = paint(STRONG, name);
    let said = match (outcome.as_str(), why) {
        ("unchanged", _) => format!("unchanged, {entries} entries"),
        ("changed", _) => format!(
            "{entries} entries, {}, {}",
            paint(GOOD, format_args!("+{added}")),
            paint(WARN, format_args!("-{removed}"))
        ),
        (outcome, why) => {
            let why = why.as_deref().unwrap_or_default();
            let rest = match entries {
                0 => "no version of it counts".to_owned(),
                entries => format!("{entries} entries of before go on"),
            };
            format!("{}: {why}; {rest}", paint(BAD, outcome))
        }
    };
    format!("{name}  {said} ({source})")
}

const NO_LIST: &str = "the policy that decides has no [[blocklist]]";

fn shown(lists: &Blocklists) -> String {
    if lists.lists.is_empty() {
        return NO_LIST.to_owned();
    }
    let mut lines: Vec<String> = lists.lists.iter().map(account).collect();
    lines.push(format!(
        "{} entries, {} exceptions; {} KiB in the kernel",
        lists.entries,
        lists.exceptions,
        lists.kernel_bytes.div_ceil(1024)
    ));
    lines.join("\n")
}

fn account(status: &ListStatus) -> String {
    let ListStatus { account: list, fetch } = status;
    let mut lines = vec![format!(
        "{}  {} entries ({}, {})",
        paint(STRONG, &list.name),
        list.entries,
        list.action,
        list.format
    )];
    let line = |name: &str, value: String| format!("  {} {value}", paint(FAINT, format_args!("{name:10}")));
    let of = if fetch.is_some() { "source" } else { "file" };
    lines.push(line(of, format!("{}, {} lines", list.path, list.lines)));
    lines.extend(fetch.iter().flat_map(fetched).map(|(name, value)| line(name, value)));
    let counts =
        [("exceptions", list.exceptions), ("repeated", list.repeated), ("protected", list.protected)];
    lines.extend(
        counts.iter().filter(|(_, count)| *count > 0).map(|(name, count)| line(name, count.to_string())),
    );
    for rubbish in list.rubbish.iter().take(RUBBISH_SHOWN_MAX) {
        let shown = format!("{} lines: {} (the first is {})", rubbish.lines, rubbish.why, rubbish.first_line);
        lines.push(line("not used", shown));
    }
    lines.extend(list.trouble.iter().map(|trouble| format!("  {} {trouble}", paint(WARN, "warning:"))));
    lines.join("\n")
}

fn fetched(fetch: &FetchStatus) -> Vec<(&'static str, String)> {
    let FetchStatus {
        fetched, confirmed, tried, error, failures, next, has_etag, last_modified, bytes, ..
    } = fetch;
    let never = || "never".to_owned();
    let mut lines = Vec::new();
    match fetched {
        None => lines.push(("fetched", paint(BAD, "never"))),
        Some(time) => {
            let etag = if *has_etag { "with an ETag" } else { "without an ETag" };
            let written = last_modified.as_ref().map_or(String::new(), |date| format!(", written {date}"));
            lines.push(("fetched", format!("{time}, {bytes} bytes, {etag}{written}")));
            lines.push(("confirmed", confirmed.clone().unwrap_or_else(never)));
        }
    }
    if let Some(error) = error {
        let tried = tried.clone().unwrap_or_else(never);
        let times = if *failures > 1 { format!(" ({failures} times in a row)") } else { String::new() };
        lines.push(("last try", format!("{tried}: {}{times}", paint(WARN, error))));
    }
    lines.push(("next", next.clone().unwrap_or_else(|| "now".to_owned())));
    lines
}

fn text(checked: &NameChecked) -> String {
    let NameChecked { answer, rule, mode } = checked;
    let verdict = match answer.outcome.as_str() {
        "denied" if mode == "audit" => paint(WARN, "would be denied (audit: it passes and is reported)"),
        "denied" => paint(BAD, "denied"),
        "told" => paint(WARN, "passes and is reported"),
        _ => paint(GOOD, "passes"),
    };
    let line = |name: &str, value: String| format!("  {} {value}", paint(FAINT, format_args!("{name:8}")));
    let mut lines =
        vec![format!("{verdict}: {}", paint(STRONG, &answer.because)), line("name", answer.name.clone())];
    lines.extend(rule.iter().map(|rule| line("rule", rule.clone())));
    for entry in &answer.entries {
        let shown = format!(
            "{} line {}: {} ({}, {})",
            entry.list, entry.line, entry.entry, entry.meaning, entry.action
        );
        lines.push(line("listed", shown));
    }
    lines.join("\n")
}
