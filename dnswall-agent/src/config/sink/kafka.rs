//! Takes the keys of a topic of Kafka, gives its brokers and how they let this host in.

use super::{ALL_FORMATS, NAME_BYTES_MAX, SinkTarget, read_format};
use crate::config::remote::{RemoteConfig, read_remote, read_secret};
use crate::config::section::Section;
use crate::format::Format;
use crate::policy::{Problem, quoted};
use crate::remote::Secret;
use crate::sink::kafka::Sasl;

/// Brokers at most; any one of them knows the others.
const BROKERS_MAX: usize = 32;
const TOPIC_DEFAULT: &str = "dnswall-alerts";

/// A topic of Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaConfig {
    /// Some of the brokers, `host:port`.
    pub brokers: Vec<String>,
    /// Whether they are spoken to over TLS.
    pub tls: bool,
    /// How they and this host know each other.
    pub remote: RemoteConfig,
    /// How they let this host in.
    pub sasl: Option<(Sasl, Secret)>,
    /// The topic.
    pub topic: String,
    /// What a record says.
    pub format: Format,
}

pub(super) fn read_kafka(section: &mut Section<'_, '_>) -> Option<SinkTarget> {
    section.require("brokers", "write brokers = [\"kafka.example.net:9093\"]");
    let brokers = section.texts("brokers", BROKERS_MAX);
    for broker in brokers.iter().flatten().filter(|broker| !is_place(broker)) {
        let problem =
            Problem::error(section.value_span("brokers"), format!("{} is no host:port", quoted(broker)));
        section.note(problem.hint("write like \"kafka.example.net:9093\""));
    }
    let remote = read_remote(section);
    let tls = section.boolean("tls").unwrap_or(true);
    if !tls {
        for key in ["ca", "certificate", "key"] {
            section.refuse(key, "without TLS there are no certificates");
        }
        if let Some((span, Sasl::Plain)) = section.choice("sasl", &SASL) {
            let problem = Problem::error(span, "without TLS everybody on the way could read the password");
            section.note(problem.hint("take tls = false out, or write sasl = \"scram-sha-512\""));
        }
    }
    let sasl = section.choice("sasl", &SASL).map(|(_, sasl)| sasl);
    let secret = read_secret(section);
    if !section.lacks("sasl") && section.lacks("token-file") && section.lacks("token-env") {
        let problem = Problem::error(section.value_span("sasl"), "there is no secret to go with it");
        section.note(problem.hint("write token-file = \"/…\", a file with user:password"));
    }
    if section.lacks("sasl") {
        for key in ["token-file", "token-env"] {
            section.refuse(key, "without `sasl` nobody asks for it");
        }
    }
    let topic = section.name("topic", NAME_BYTES_MAX).unwrap_or_else(|| TOPIC_DEFAULT.to_owned());
    let format = read_format(section, ALL_FORMATS).unwrap_or(Format::Json);
    let config = KafkaConfig { brokers: brokers?, tls, remote, sasl: sasl.zip(secret), topic, format };
    Some(SinkTarget::Kafka(config))
}

const SASL: [(&str, Sasl); 3] =
    [("plain", Sasl::Plain), ("scram-sha-256", Sasl::ScramSha256), ("scram-sha-512", Sasl::ScramSha512)];

fn is_place(broker: &str) -> bool {
    let authority = broker.parse::<http::uri::Authority>();
    authority
        .is_ok_and(|authority| !broker.contains('@') && authority.port_u16().is_some_and(|port| port > 0))
}
