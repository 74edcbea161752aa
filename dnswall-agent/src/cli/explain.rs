//! `dnswall policy explain`

use super::args::{ExplainArguments, Form};
use super::exit::{Exit, Failure};
use super::output::{self, BAD, FAINT, GOOD, STRONG, WARN, paint};
use super::policy::read_policy;
use crate::compile::compile;
use crate::control::api::{ExplainRequest, Explained};
use crate::control::client::{Client, ClientError};
use crate::run::environment::HostEnvironment;
use crate::run::explained::explained;
use crate::run::options::host_root;
use crate::run::question::Question;

pub async fn explain(form: Form, client: &Client, arguments: &ExplainArguments) -> Result<Exit, Failure> {
    let ExplainArguments { from, to, port, policy } = arguments;
    let request = ExplainRequest { from: from.clone(), to: to.clone(), port: port.clone() };
    let explained = match policy {
        Some(file) => {
            let policy = read_policy(file)?;
            let host = HostEnvironment::without_wall(host_root()?);
            let (image, _) = compile(&policy, &host)?;
            let question = Question::parse(&request, &host)
                .map_err(|error| Failure::new(Exit::Usage, error.error).hint(error.hint))?;
            explained(&image, question)
        }
        None => client.explain(&request).await.map_err(failure)?,
    };
    output::answer(form, &explained, |explained| text(&request, explained));
    Ok(if explained.verdict == "allow" { Exit::Done } else { Exit::No })
}

// A question that cannot be read is the command line's mistake.
fn failure(error: ClientError) -> Failure {
    let is_usage =
        matches!(&error, ClientError::Refused { status, .. } if *status == hyper::StatusCode::BAD_REQUEST);
    let failure = Failure::from(error);
    if is_usage { Failure { exit: Exit::Usage, ..failure } } else { failure }
}

fn text(request: &ExplainRequest, explained: &Explained) -> String {
    let verdict = match explained.verdict.as_str() {
        "allow" => paint(GOOD, "allow"),
        "deny" => paint(BAD, "deny"),
        _ => paint(WARN, "would deny (audit: it passes and is reported)"),
    };
    let line = |name: &str, value: String| format!("  {} {value}", paint(FAINT, format_args!("{name:8}")));
    let rule = match explained.line {
        Some(line) => format!("{} (line {line} of {})", explained.rule, explained.policy),
        None => explained.rule.clone(),
    };
    let mode = match &explained.scope {
        Some(scope) => format!("{} (from {scope})", explained.mode),
        None => explained.mode.clone(),
    };
    // The first selector is everyone's.
    let matches: Vec<&str> = explained.matches.iter().skip(1).map(String::as_str).collect();
    let matches = if matches.is_empty() { "no `from` entry".to_owned() } else { matches.join(", ") };
    let mut lines = vec![
        format!("{verdict}: {}", paint(STRONG, &explained.why)),
        line("asked", format!("{} {} from {}", request.to, request.port, identity(explained))),
        line("matches", matches),
        line("rule", rule),
        line("reason", explained.reason.clone()),
        line("mode", mode),
    ];
    if !explained.passed_over.is_empty() {
        lines.push(line("not for", format!("this workload: {}", explained.passed_over.join(", "))));
    }
    lines.join("\n")
}

fn identity(explained: &Explained) -> String {
    let identity = &explained.identity;
    let mut parts = Vec::new();
    parts.extend(identity.unit.as_ref().map(|unit| format!("unit {unit}")));
    parts.push(format!("cgroup {}", identity.cgroup));
    parts.extend(identity.container.as_ref().map(|id| format!("container {id}")));
    parts.extend(identity.uid.map(|uid| format!("user {uid}")));
    parts.extend(identity.exe.as_ref().map(|exe| format!("executable {exe}")));
    parts.join(", ")
}
