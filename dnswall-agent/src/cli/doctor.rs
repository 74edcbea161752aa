//! `dnswall doctor`

use super::args::{DoctorArguments, Form};
use super::exit::{Exit, Failure};
use super::output::{self, BAD, FAINT, GOOD, STRONG, WARN, paint};
use crate::doctor::{Level, Report, examine};
use crate::run::options::host_root;

pub fn doctor(form: Form, arguments: &DoctorArguments) -> Result<Exit, Failure> {
    let report = examine(&arguments.pins, &host_root()?);
    output::answer(form, &report, text);
    Ok(if report.level == Level::Fail { Exit::HostCannot } else { Exit::Done })
}

fn text(report: &Report) -> String {
    let width = report.checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
    let mut lines = Vec::new();
    for check in &report.checks {
        let style = match check.level {
            Level::Ok => GOOD,
            Level::Warn => WARN,
            Level::Fail => BAD,
        };
        lines.push(format!(
            "{} {:width$}  {}",
            paint(style, format_args!("{:4}", check.level.name())),
            check.name,
            check.found
        ));
        lines.push(format!("     {:width$}  {}", "", paint(FAINT, &check.meaning)));
        if let Some(fix) = &check.fix {
            lines.push(format!("     {:width$}  {} {fix}", "", paint(STRONG, "do:")));
        }
    }
    for (title, list) in [("Enforced here", &report.enforced), ("Not enforced here", &report.not_enforced)] {
        if list.is_empty() {
            continue;
        }
        lines.push(format!("\n{}", paint(STRONG, title)));
        lines.extend(list.iter().map(|item| format!("  - {item}")));
    }
    lines.join("\n")
}
