//! `dnswall policy check`, `diff`, `apply`, `confirm`, `show` and `rollback`

use std::io::Read;
use std::path::Path;

use serde::Serialize;
use serde_json::json;

use super::args::{ApplyArguments, CheckArguments, DiffArguments, Form};
use super::connections;
use super::exit::{Exit, Failure};
use super::output::{self, BAD, FAINT, GOOD, STRONG, WARN, paint};
use crate::compile::{self, Change, PolicyDiff, RuleInfo, compile};
use crate::control::api::{Applied, ApplyRequest, PendingStatus, PolicyShown, RehearseRequest, Rehearsed};
use crate::control::client::{Client, ClientError};
use crate::policy::{Policy, Problem, parse};
use crate::run::engine;
use crate::run::environment::HostEnvironment;
use crate::run::options::host_root;

/// What `policy check` found in a policy without mistakes.
#[derive(Debug, Serialize)]
struct Checked {
    valid: bool,
    name: String,
    digest: String,
    mode: String,
    rules: usize,
    warnings: Vec<Problem>,
}

pub fn check(form: Form, arguments: &CheckArguments) -> Result<Exit, Failure> {
    let policy = read_policy(&arguments.file)?;
    let (image, warnings) = compile(&policy, &HostEnvironment::without_wall(host_root()?))?;
    let checked = Checked {
        valid: true,
        name: policy.name.clone(),
        digest: image.digest_text(),
        mode: policy.mode.name().to_owned(),
        rules: written(&image.rules),
        warnings,
    };
    output::answer(form, &checked, |checked| {
        let Checked { name, digest, mode, rules, warnings, valid: _ } = checked;
        let mut shown = String::new();
        if !warnings.is_empty() {
            shown.push_str(&policy.problems(warnings.clone()).render(true));
            shown.push('\n');
        }
        let plural = if *rules == 1 { "" } else { "s" };
        let digest = paint(FAINT, &digest[..DIGEST_DIGITS]);
        shown
            + &format!("{} {name}: mode {mode}, {rules} rule{plural}, digest {digest}", paint(GOOD, "valid:"))
    });
    Ok(Exit::Done)
}

/// How many rules the policy writes; some are several to the kernel.
fn written(rules: &[RuleInfo]) -> usize {
    let written = rules.iter().filter(|rule| rule.line != 0);
    written.map(|rule| &rule.name).collect::<std::collections::HashSet<_>>().len()
}

pub async fn diff(form: Form, client: &Client, arguments: &DiffArguments) -> Result<Exit, Failure> {
    let file = read_policy(&arguments.file)?;
    let (old, new) = match &arguments.newer {
        Some(newer) => (file, read_policy(newer)?),
        None => {
            let running = client.policy().await?;
            (parse(&running.text, &running.policy.origin)?, file)
        }
    };
    let diff = compile::diff(&old, &new);
    let same = diff.is_empty();
    let answer = json!({ "same": same, "changes": diff.changes });
    output::answer(form, &answer, |_| if same { diff.to_string() } else { coloured(&diff) });
    Ok(if same { Exit::Done } else { Exit::No })
}

pub async fn apply(form: Form, client: &Client, arguments: &ApplyArguments) -> Result<Exit, Failure> {
    let (text, origin) = read(&arguments.file)?;
    // What can be said without the agent is said without it.
    let policy = parse(&text, &origin)?;
    let in_text = |error: ClientError| Failure::from(error).in_text(&policy.text);
    let request = RehearseRequest { text: text.clone(), origin: origin.clone() };
    let rehearsed = client.rehearse(&request).await.map_err(in_text)?;
    if arguments.dry_run {
        output::answer(form, &rehearsed, rehearsed_text);
        return Ok(if rehearsed.denied == 0 { Exit::Done } else { Exit::No });
    }
    // Said before it is published: afterwards nobody may be there to read it.
    if form == Form::Text {
        connections::warn(&rehearsed);
    }
    // Rounded up: nobody has less time than he asked for.
    let confirm_secs = arguments.confirm.map(|time| time.as_secs() + u64::from(time.subsec_nanos() > 0));
    let request = ApplyRequest { text, origin, confirm_secs };
    let mut applied = client.apply(&request).await.map_err(in_text)?;
    applied.connections = rehearsed.connections;
    output::answer(form, &applied, applied_text);
    Ok(Exit::Done)
}

pub async fn confirm(form: Form, client: &Client) -> Result<Exit, Failure> {
    let applied = client.confirm().await?;
    output::answer(form, &applied, applied_text);
    Ok(Exit::Done)
}

pub async fn rollback(form: Form, client: &Client) -> Result<Exit, Failure> {
    let applied = client.rollback().await?;
    output::answer(form, &applied, applied_text);
    Ok(Exit::Done)
}

pub async fn show(form: Form, client: &Client) -> Result<Exit, Failure> {
    let shown = client.policy().await?;
    output::answer(form, &shown, show_text);
    Ok(Exit::Done)
}

/// Reads a policy, from standard input for `-`.
pub fn read_policy(path: &Path) -> Result<Policy, Failure> {
    let (text, origin) = read(path)?;
    Ok(parse(&text, &origin)?)
}

const DIGEST_DIGITS: usize = 12;

fn read(path: &Path) -> Result<(String, String), Failure> {
    if path != Path::new("-") {
        return Ok(engine::read(path)?);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| {
        Failure::new(Exit::Invalid, format!("read the policy from standard input: {error}"))
    })?;
    Ok((text, "standard-input.toml".to_owned()))
}

fn applied_text(applied: &Applied) -> String {
    let policy = &applied.policy;
    let mut lines: Vec<String> = Vec::new();
    if applied.changed {
        let diff = PolicyDiff { changes: applied.changes.clone() };
        lines.push(if diff.is_empty() {
            "nothing differs in what the policy says".to_owned()
        } else {
            coloured(&diff)
        });
    } else {
        lines.push("the same text decided before".to_owned());
    }
    lines.extend(applied.warnings.iter().map(|warning| format!("{} {warning}", paint(WARN, "warning:"))));
    lines.push(format!(
        "{} {} decides: mode {}, generation {}, digest {}",
        paint(GOOD, "done:"),
        policy.name,
        applied.mode,
        policy.generation,
        paint(FAINT, policy.digest.get(..DIGEST_DIGITS).unwrap_or(&policy.digest))
    ));
    if let Some(PendingStatus { seconds_left, back_to }) = &applied.pending {
        lines.push(format!(
            "{} `dnswall policy confirm` keeps it; without that the policy from {} decides again in {seconds_left} s",
            paint(WARN, "waiting:"),
            back_to.origin
        ));
    }
    lines.join("\n")
}

fn rehearsed_text(rehearsed: &Rehearsed) -> String {
    let diff = PolicyDiff { changes: rehearsed.changes.clone() };
    let mut lines = vec![if diff.is_empty() {
        "nothing differs in what the policy says".to_owned()
    } else {
        coloured(&diff)
    }];
    lines.extend(rehearsed.warnings.iter().map(|warning| format!("{} {warning}", paint(WARN, "warning:"))));
    lines.push(connections::text(rehearsed));
    lines.push(format!("{} nothing was changed", paint(GOOD, "dry run:")));
    lines.join("\n")
}

// Comments around the text, so that the whole is a policy again.
fn show_text(shown: &PolicyShown) -> String {
    let policy = &shown.policy;
    let mut lines = vec![
        format!("policy {}, mode {}, generation {}", policy.name, shown.mode, policy.generation),
        format!("from {}, applied {}", policy.origin, policy.applied_at),
        format!("digest {}", policy.digest),
        "what passes without any rule:".to_owned(),
    ];
    lines.extend(shown.essentials.iter().map(|essential| format!("  {essential}")));
    if !shown.encrypted_dns.is_empty() {
        lines.push(format!("encrypted DNS that is refused: {}", shown.encrypted_dns));
    }
    if !shown.history.is_empty() {
        lines.push("before it (policy rollback brings back the first):".to_owned());
        lines.extend(shown.history.iter().map(|past| {
            let digest = past.digest.get(..DIGEST_DIGITS).unwrap_or(&past.digest);
            format!("  {digest} from {}, applied {}", past.origin, past.applied_at)
        }));
    }
    let comments: Vec<String> = lines.iter().map(|line| paint(FAINT, format_args!("# {line}"))).collect();
    format!("{}\n\n{}", comments.join("\n"), shown.text)
}

fn coloured(diff: &PolicyDiff) -> String {
    let lines = diff.changes.iter().flat_map(|Change { what, before, after }| match (before, after) {
        (Some(before), Some(after)) => vec![
            format!("{} {}", paint(WARN, "~"), paint(STRONG, what)),
            paint(BAD, format_args!("  - {before}")),
            paint(GOOD, format_args!("  + {after}")),
        ],
        (Some(before), None) => vec![paint(BAD, format_args!("- {what}: {before}"))],
        (None, Some(after)) => vec![paint(GOOD, format_args!("+ {what}: {after}"))],
        (None, None) => Vec::new(),
    });
    lines.collect::<Vec<_>>().join("\n")
}
