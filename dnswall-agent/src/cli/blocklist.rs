//! `dnswall blocklist`

use super::args::{CheckNameArguments, Form};
use super::exit::{Exit, Failure};
use super::output::{self, BAD, FAINT, GOOD, STRONG, WARN, paint};
use super::policy::read_policy;
use crate::blocklist::ListAccount;
use crate::compile::compile;
use crate::control::api::{Blocklists, NameChecked, NameRequest};
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

fn shown(lists: &Blocklists) -> String {
    if lists.lists.is_empty() {
        return "the policy that decides has no [[blocklist]]".to_owned();
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

fn account(list: &ListAccount) -> String {
    let mut lines = vec![format!(
        "{}  {} entries ({}, {})",
        paint(STRONG, &list.name),
        list.entries,
        list.action,
        list.format
    )];
    let line = |name: &str, value: String| format!("  {} {value}", paint(FAINT, format_args!("{name:10}")));
    lines.push(line("file", format!("{}, {} lines", list.path, list.lines)));
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
