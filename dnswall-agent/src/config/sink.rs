//! Takes the `[[sink]]` tables of agent.toml, gives where alerts go.

mod http;
mod kafka;
mod syslog;

use std::path::{Path, PathBuf};

use super::remote::{RemoteConfig, ServerConfig};
use super::section::Section;
use crate::format::Format;
use crate::format::syslog::Syslog;
use crate::policy::Problem;
use crate::remote::Place;
use crate::sink::journal::JOURNAL_SOCKET;
use crate::sink::splunk::SplunkOptions;
use crate::sink::syslog::Framing;
use crate::sink::webhook::Body;
use crate::sink::{FileOptions, STDOUT};
use http::{read_elastic, read_otlp, read_splunk, read_webhook};
use kafka::read_kafka;
use syslog::read_syslog;

pub use http::ACKNOWLEDGED_RANGE;
pub use kafka::KafkaConfig;

/// Sinks at most.
pub const SINKS_MAX: usize = 16;
/// The longest name of a sink, of an index and the like, in bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// Least and most bytes of an alert file.
pub const FILE_BYTES_RANGE: (i64, i64) = (64 * 1024, 1024 * 1024 * 1024 * 1024);
/// Least and most older alert files.
pub const FILE_KEEP_RANGE: (i64, i64) = (1, 100);

pub(super) const FILE_BYTES_DEFAULT: i64 = 64 * 1024 * 1024;
pub(super) const FILE_KEEP_DEFAULT: i64 = 4;
/// Digits by which a webhook's URL is told from others of the same server.
const URL_DIGITS: usize = 8;

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
    /// Lines in a file.
    File(FileOptions),
    /// Lines on standard output.
    Stdout(Format),
    /// Bodies of HTTP requests.
    Webhook {
        /// To whom.
        server: ServerConfig,
        /// What an alert is.
        format: Format,
        /// How many there are in a request.
        body: Body,
    },
    /// Splunk's HTTP event collector.
    Splunk {
        /// To whom.
        server: ServerConfig,
        /// What events are called there.
        options: SplunkOptions,
    },
    /// Elasticsearch or OpenSearch.
    Elastic {
        /// To whom.
        server: ServerConfig,
        /// What a document is, one of JSON.
        format: Format,
        /// Where documents go.
        index: String,
    },
    /// A collector of OpenTelemetry.
    Otlp {
        /// To whom.
        server: ServerConfig,
    },
    /// A receiver of syslog.
    Syslog {
        /// Where it is.
        place: Place,
        /// How it and this host know each other.
        remote: RemoteConfig,
        /// How messages follow each other.
        framing: Framing,
        /// What a message is; it does not know the agent's process id yet.
        syslog: Syslog,
    },
    /// A topic of Kafka.
    Kafka(KafkaConfig),
    /// The systemd journal that listens at this socket.
    Journal(PathBuf),
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
    Webhook,
    Splunk,
    Elastic,
    Otlp,
    Syslog,
    Journal,
    Kafka,
}

use SinkType::{Elastic, File, Journal, Kafka, Otlp, Splunk, Stdout, Syslog as SyslogType, Webhook};

const TYPES: [(&str, SinkType); 9] = [
    ("file", File),
    ("stdout", Stdout),
    ("syslog", SyslogType),
    ("webhook", Webhook),
    ("splunk", Splunk),
    ("elastic", Elastic),
    ("otlp", Otlp),
    ("journald", Journal),
    ("kafka", Kafka),
];

const ASKED: &[SinkType] = &[Webhook, Splunk, Elastic, Otlp];
const REMOTE: &[SinkType] = &[Webhook, Splunk, Elastic, Otlp, SyslogType, Kafka];
const SECRET: &[SinkType] = &[Webhook, Splunk, Elastic, Otlp, Kafka];

/// Every key but `type` and `name`, and which sinks have it.
const OWNERS: &[(&str, &[SinkType])] = &[
    ("path", &[File]),
    ("max-bytes", &[File]),
    ("keep", &[File]),
    ("format", &[File, Stdout, SyslogType, Webhook, Splunk, Elastic, Kafka]),
    ("url", ASKED),
    ("token-file", SECRET),
    ("token-env", SECRET),
    ("authorization", &[Webhook, Elastic, Otlp]),
    ("address", &[SyslogType]),
    ("framing", &[SyslogType]),
    ("facility", &[SyslogType]),
    ("enterprise", &[SyslogType]),
    ("ca", REMOTE),
    ("certificate", REMOTE),
    ("key", REMOTE),
    ("timeout", REMOTE),
    ("body", &[Webhook]),
    ("index", &[Splunk, Elastic]),
    ("source", &[Splunk]),
    ("sourcetype", &[Splunk]),
    ("acknowledge", &[Splunk]),
    ("acknowledged-within", &[Splunk]),
    ("socket", &[Journal]),
    ("brokers", &[Kafka]),
    ("topic", &[Kafka]),
    ("tls", &[Kafka]),
    ("sasl", &[Kafka]),
];

/// Every key that some sink has.
pub(super) fn keys() -> Vec<&'static str> {
    ["name", "type"].into_iter().chain(OWNERS.iter().map(|(key, _)| *key)).collect()
}

impl Sinks {
    /// Reads one more.
    pub(super) fn read(&mut self, mut section: Section<'_, '_>) {
        let Some((span, kind)) = section.choice("type", &TYPES) else {
            section.require("type", "write type = \"file\", \"syslog\", \"webhook\", …");
            // Only to see whether it is right.
            section.name("name", NAME_BYTES_MAX);
            return;
        };
        for (key, owners) in OWNERS.iter().filter(|(_, owners)| !owners.contains(&kind)) {
            let types: Vec<String> = TYPES
                .iter()
                .filter(|(_, kind)| owners.contains(kind))
                .map(|(name, _)| format!("\"{name}\""))
                .collect();
            section.refuse(key, &format!("sinks of type {} have it", types.join(", ")));
        }
        let target = match kind {
            File => self.read_file(&mut section),
            Stdout => {
                let format = read_format(&mut section, ALL_FORMATS).unwrap_or(Format::Json);
                let is_second = std::mem::replace(&mut self.has_stdout, true);
                if is_second {
                    section.note(
                        Problem::error(span, "there is only one standard output").hint("take this sink out"),
                    );
                }
                (!is_second).then_some(SinkTarget::Stdout(format))
            }
            Webhook => read_webhook(&mut section),
            Splunk => read_splunk(&mut section),
            Elastic => read_elastic(&mut section),
            Otlp => read_otlp(&mut section),
            SyslogType => read_syslog(&mut section),
            Kafka => read_kafka(&mut section),
            Journal => {
                Some(SinkTarget::Journal(section.path("socket").unwrap_or_else(|| JOURNAL_SOCKET.into())))
            }
        };
        let written = section.name("name", NAME_BYTES_MAX);
        let Some(target) = target else { return };
        let has_name = written.is_some();
        let name = written.unwrap_or_else(|| target.usual_name());
        if name == STDOUT && !matches!(target, SinkTarget::Stdout(_)) {
            let problem =
                Problem::error(section.value_span("name"), "that is what standard output is called");
            section.note(problem.hint("write another name = \"…\""));
        }
        if self.list.iter().any(|sink| sink.name == name) {
            let span = section.value_span(if has_name { "name" } else { "type" });
            let problem = Problem::error(span, format!("another sink is called \"{name}\" too"));
            section.note(problem.hint("write another name = \"…\""));
        }
        self.list.push(SinkConfig { name, target });
    }

    fn read_file(&mut self, section: &mut Section<'_, '_>) -> Option<SinkTarget> {
        section.require("path", "write path = \"/var/log/dnswall/alerts.jsonl\"");
        let max_bytes = section.integer("max-bytes", FILE_BYTES_RANGE).unwrap_or(FILE_BYTES_DEFAULT);
        let keep = section.integer("keep", FILE_KEEP_RANGE).unwrap_or(FILE_KEEP_DEFAULT);
        let format = read_format(section, ALL_FORMATS).unwrap_or(Format::Json);
        let path = section.path("path")?;
        if self.has_file(&path) {
            let problem = Problem::error(section.value_span("path"), "another sink writes this file too");
            section.note(problem.hint("take one of the two out"));
            return None;
        }
        let max_bytes = u64::try_from(max_bytes).unwrap_or_default();
        let keep = u32::try_from(keep).unwrap_or_default();
        Some(SinkTarget::File(FileOptions { path, format, max_bytes, keep }))
    }

    fn has_file(&self, path: &Path) -> bool {
        let same = |options: &FileOptions| options.path == path;
        self.list.iter().any(|sink| matches!(&sink.target, SinkTarget::File(options) if same(options)))
    }
}

fn read_format(section: &mut Section<'_, '_>, names: &[&str]) -> Option<Format> {
    let choices: Vec<(&str, Format)> =
        names.iter().filter_map(|name| Some((*name, Format::named(name)?))).collect();
    section.choice("format", &choices).map(|(_, format)| format)
}

const ALL_FORMATS: &[&str] = &["json", "ecs", "ocsf", "cef", "leef", "text"];

impl SinkTarget {
    /// What a sink is called that has no name.
    fn usual_name(&self) -> String {
        match self {
            Self::File(FileOptions { path, .. }) => format!("file {}", path.display()),
            Self::Stdout(_) => STDOUT.to_owned(),
            Self::Webhook { server, .. } => {
                format!("webhook {} {}", server.url.origin(), &server.url.key()[..URL_DIGITS])
            }
            Self::Splunk { server, .. } => format!("splunk {}", server.url.origin()),
            Self::Elastic { server, .. } => format!("elastic {}", server.url.origin()),
            Self::Otlp { server } => format!("otlp {}", server.url.origin()),
            Self::Syslog { place, .. } => format!("syslog {place}"),
            Self::Kafka(KafkaConfig { brokers, topic, .. }) => {
                format!("kafka {topic} at {}", brokers.first().map_or("", String::as_str))
            }
            Self::Journal(_) => "journald".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
