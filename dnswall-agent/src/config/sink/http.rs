//! Takes the keys of sinks that are asked over HTTP, gives to whom alerts go and as what.

use std::time::Duration;

use super::{ALL_FORMATS, NAME_BYTES_MAX, SinkTarget, read_format};
use crate::config::remote::{authorized, read_server, without_query};
use crate::config::section::Section;
use crate::format::Format;
use crate::policy::Problem;
use crate::remote::Scheme;
use crate::sink::splunk::SplunkOptions;
use crate::sink::webhook::Body;

/// Least and most time in which Splunk has to write events.
pub const ACKNOWLEDGED_RANGE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3_600));
pub(super) const ACKNOWLEDGED_DEFAULT: Duration = Duration::from_secs(60);
/// A data stream, whose name says what is in it.
pub(super) const INDEX_DEFAULT: &str = "logs-dnswall.alerts-default";

pub(super) fn read_webhook(section: &mut Section<'_, '_>) -> Option<SinkTarget> {
    let server = read_server(section, "write url = \"https://hooks.example.net/dnswall\"");
    let server = authorized(section, server, Scheme::Bearer);
    let format = read_format(section, ALL_FORMATS).unwrap_or(Format::Json);
    let bodies = [("lines", Body::Lines), ("array", Body::Array), ("each", Body::Each)];
    let body = section.choice("body", &bodies);
    if let Some((span, Body::Array)) = &body
        && !format.is_json()
    {
        let problem = Problem::error(span.clone(), format!("format \"{}\" is not JSON", format.name()));
        section.note(problem.hint("write body = \"lines\" or body = \"each\""));
    }
    let body = body.map_or(Body::Lines, |(_, body)| body);
    Some(SinkTarget::Webhook { server: server?, format, body })
}

pub(super) fn read_splunk(section: &mut Section<'_, '_>) -> Option<SinkTarget> {
    let server = read_server(section, "write url = \"https://splunk.example.net:8088\"");
    let server = without_query(section, server);
    if section.lacks("token-file") && section.lacks("token-env") {
        section
            .require("token-file", "write token-file = \"/etc/dnswall/splunk.token\", or token-env = \"…\"");
    }
    let server = authorized(section, server, Scheme::Splunk);
    let within = section.duration("acknowledged-within", ACKNOWLEDGED_RANGE).unwrap_or(ACKNOWLEDGED_DEFAULT);
    let acknowledge = section.boolean("acknowledge").unwrap_or(true);
    let mut name = |key: &str| section.name(key, NAME_BYTES_MAX);
    let (index, source, sourcetype) = (name("index"), name("source"), name("sourcetype"));
    let options = SplunkOptions {
        format: read_format(section, ALL_FORMATS).unwrap_or(Format::Json),
        index,
        source: source.unwrap_or_else(|| "dnswall".to_owned()),
        sourcetype: sourcetype.unwrap_or_else(|| "dnswall:alert".to_owned()),
        acknowledged_within: acknowledge.then_some(within),
    };
    Some(SinkTarget::Splunk { server: server?, options })
}

pub(super) fn read_elastic(section: &mut Section<'_, '_>) -> Option<SinkTarget> {
    let server = read_server(section, "write url = \"https://elastic.example.net:9200\"");
    let server = without_query(section, server);
    let server = authorized(section, server, Scheme::ApiKey);
    let format = read_format(section, &["ecs", "ocsf", "json"]).unwrap_or(Format::Ecs);
    let index = section.name("index", NAME_BYTES_MAX).unwrap_or_else(|| INDEX_DEFAULT.to_owned());
    Some(SinkTarget::Elastic { server: server?, format, index })
}

pub(super) fn read_otlp(section: &mut Section<'_, '_>) -> Option<SinkTarget> {
    let server = read_server(section, "write url = \"https://collector.example.net:4318/v1/logs\"");
    let server = authorized(section, server, Scheme::Bearer);
    server.map(|server| SinkTarget::Otlp { server })
}
