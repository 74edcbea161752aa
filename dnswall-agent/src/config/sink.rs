//! Takes the `[[sink]]` tables of agent.toml, gives where alerts go.

use std::path::Path;

use super::section::Section;
use crate::policy::Problem;
use crate::sink::{FileOptions, STDOUT};

/// Sinks at most.
pub const SINKS_MAX: usize = 16;
/// The longest name of a sink, in bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// Least and most bytes of an alert file.
pub const FILE_BYTES_RANGE: (i64, i64) = (64 * 1024, 1024 * 1024 * 1024 * 1024);
/// Least and most older alert files.
pub const FILE_KEEP_RANGE: (i64, i64) = (1, 100);

pub(super) const FILE_BYTES_DEFAULT: i64 = 64 * 1024 * 1024;
pub(super) const FILE_KEEP_DEFAULT: i64 = 4;

/// Every key that some sink has.
pub(super) const KEYS: &[&str] = &["name", "type", "path", "max-bytes", "keep", "format"];

/// One `[[sink]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkConfig {
    /// What it is called; no two have the same.
    pub name: String,
    /// Where its alerts go.
    pub target: SinkTarget,
}

/// Where alerts go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkTarget {
    /// JSON lines in a file.
    File(FileOptions),
    /// Lines on standard output.
    Stdout(StdoutFormat),
}

/// The form of alerts on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StdoutFormat {
    /// For a person.
    Text,
    /// The JSON objects.
    Json,
}

/// The sinks so far.
#[derive(Default)]
pub(super) struct Sinks {
    pub(super) list: Vec<SinkConfig>,
    pub(super) has_stdout: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SinkType {
    File,
    Stdout,
}

impl Sinks {
    /// Reads one more.
    pub(super) fn read(&mut self, mut section: Section<'_, '_>) {
        let types = [("file", SinkType::File), ("stdout", SinkType::Stdout)];
        let target = match section.choice("type", &types) {
            Some((_, SinkType::File)) => self.read_file(&mut section),
            Some((span, SinkType::Stdout)) => {
                for key in ["path", "max-bytes", "keep"] {
                    section.refuse(key, "only a sink of type \"file\" has it");
                }
                let formats = [("text", StdoutFormat::Text), ("json", StdoutFormat::Json)];
                let format =
                    section.choice("format", &formats).map_or(StdoutFormat::Json, |(_, format)| format);
                let is_second = std::mem::replace(&mut self.has_stdout, true);
                if is_second {
                    section.note(
                        Problem::error(span, "there is only one standard output").hint("take this sink out"),
                    );
                }
                (!is_second).then_some(SinkTarget::Stdout(format))
            }
            None => {
                section.require("type", "write type = \"file\" or type = \"stdout\"");
                None
            }
        };
        let written = section.name("name", NAME_BYTES_MAX);
        let Some(target) = target else { return };
        let has_name = written.is_some();
        let name = written.unwrap_or_else(|| target.usual_name());
        if self.list.iter().any(|sink| sink.name == name) {
            let span = section.value_span(if has_name { "name" } else { "type" });
            let problem = Problem::error(span, format!("another sink is called \"{name}\" too"));
            section.note(problem.hint("write another name = \"…\""));
        }
        self.list.push(SinkConfig { name, target });
    }

    fn read_file(&mut self, section: &mut Section<'_, '_>) -> Option<SinkTarget> {
        section.refuse("format", "a file always has JSON lines");
        section.require("path", "write path = \"/var/log/dnswall/alerts.jsonl\"");
        let max_bytes = section.integer("max-bytes", FILE_BYTES_RANGE).unwrap_or(FILE_BYTES_DEFAULT);
        let keep = section.integer("keep", FILE_KEEP_RANGE).unwrap_or(FILE_KEEP_DEFAULT);
        let path = section.path("path")?;
        if self.has_file(&path) {
            let problem = Problem::error(section.value_span("path"), "another sink writes this file too");
            section.note(problem.hint("take one of the two out"));
            return None;
        }
        let max_bytes = u64::try_from(max_bytes).unwrap_or_default();
        let keep = u32::try_from(keep).unwrap_or_default();
        Some(SinkTarget::File(FileOptions { path, max_bytes, keep }))
    }

    fn has_file(&self, path: &Path) -> bool {
        let same = |options: &FileOptions| options.path == path;
        self.list.iter().any(|sink| matches!(&sink.target, SinkTarget::File(options) if same(options)))
    }
}

impl SinkTarget {
    /// What a sink is called that has no name.
    fn usual_name(&self) -> String {
        match self {
            Self::File(FileOptions { path, .. }) => format!("file {}", path.display()),
            Self::Stdout(_) => STDOUT.to_owned(),
        }
    }
}
