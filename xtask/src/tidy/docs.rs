//! The rules for documentation: every command is mentioned, and every link inside the tree leads somewhere.

use std::collections::BTreeSet;

use super::{Finding, TextFile};

/// Every command of the agent's binary that exists.
const COMMANDS: &[&str] = &[
    "dnswall agent run",
    "dnswall agent detach",
    "dnswall policy check",
    "dnswall policy diff",
    "dnswall policy apply",
    "dnswall policy confirm",
    "dnswall policy rollback",
    "dnswall policy show",
    "dnswall policy explain",
    "dnswall alert test",
    "dnswall status",
    "dnswall events",
    "dnswall top",
    "dnswall doctor",
    "dnswall demo",
];

/// The page that must mention them all.
const COMMANDS_PAGE: &str = "docs/commands.md";
/// The page that must mention every command of the front door.
const FRONT_DOOR_PAGE: &str = "CONTRIBUTING.md";

/// Every finding in the documentation. `front_door` holds the names of the `cargo xtask` commands.
pub fn check(files: &[TextFile], front_door: &[String]) -> Vec<Finding> {
    let front_door: Vec<_> = front_door.iter().map(|name| format!("cargo xtask {name}")).collect();
    let mut findings = mentions(files, COMMANDS_PAGE, COMMANDS.iter().copied());
    findings.extend(mentions(files, FRONT_DOOR_PAGE, front_door.iter().map(String::as_str)));
    let paths: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        findings.extend(dead_links(file, &paths));
    }
    findings
}

fn mentions<'a>(files: &[TextFile], page: &str, commands: impl Iterator<Item = &'a str>) -> Vec<Finding> {
    let text = files.iter().find(|file| file.path == page).map_or("", |file| file.text.as_str());
    commands
        .filter(|command| !text.contains(command))
        .map(|command| Finding {
            file: page.to_owned(),
            line: 1,
            rule: "docs-command",
            what: format!("`{command}` is not mentioned"),
        })
        .collect()
}

fn dead_links(file: &TextFile, paths: &BTreeSet<&str>) -> Vec<Finding> {
    let directory = file.path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        for rest in line.split("](").skip(1) {
            let target = rest.split([')', '#', ' ']).next().unwrap_or("");
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let path = resolve(directory, target);
            let below = format!("{path}/");
            if !paths.contains(path.as_str()) && !paths.iter().any(|known| known.starts_with(&below)) {
                let what = format!("`{target}` leads nowhere (there is no {path})");
                findings.push(Finding { file: file.path.clone(), line: index + 1, rule: "docs-link", what });
            }
        }
    }
    findings
}

/// `target` as seen from `directory`, without `.` and `..`.
fn resolve(directory: &str, target: &str) -> String {
    let mut parts: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> TextFile {
        TextFile { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn every_command_must_be_mentioned() {
        let page = file(COMMANDS_PAGE, &COMMANDS[1..].join("\n"));
        let door = file(FRONT_DOOR_PAGE, "cargo xtask run");
        let findings = check(&[page, door], &["run".to_owned(), "test".to_owned()]);
        let what: Vec<_> = findings.iter().map(|finding| finding.what.as_str()).collect();
        assert_eq!(what, ["`dnswall agent run` is not mentioned", "`cargo xtask test` is not mentioned"]);
    }

    #[test]
    fn links_lead_somewhere() {
        let text =
            "[a](b.md) [c](../README.md#x) [d](https://x.example/) [e](#here)\n[f](gone.md) [g](../deploy)";
        let files =
            [file("docs/a.md", text), file("docs/b.md", ""), file("README.md", ""), file("deploy/x", "")];
        let paths = files.iter().map(|file| file.path.as_str()).collect();
        let findings = dead_links(&files[0], &paths);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!((findings[0].line, findings[0].rule), (2, "docs-link"));
    }
}
