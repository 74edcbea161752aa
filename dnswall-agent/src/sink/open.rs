//! Takes what agent.toml says of sinks, gives them ready for their first alert. Nothing is connected yet: a server that is
//! down is no reason not to start.

use std::io;

use super::elastic::ElasticSink;
use super::journal::JournalSink;
use super::kafka::{KafkaOptions, KafkaSink};
use super::otlp::OtlpSink;
use super::splunk::SplunkSink;
use super::syslog::SyslogSink;
use super::webhook::WebhookSink;
use super::{FileSink, STDOUT, Sink, StreamSink};
use crate::config::{KafkaConfig, RemoteConfig, ServerConfig, SinkConfig, SinkTarget, Terminal};
use crate::format::Format;
use crate::format::syslog::Syslog;
use crate::host::HostRoot;
use crate::remote::{Peer, Server, Trust};

/// Opens every sink that agent.toml names, and the terminal; `colour` says whether standard output is a terminal
/// that understands it.
///
/// # Errors
/// The first file that cannot be opened, by its name.
pub fn open_all(
    terminal: Terminal,
    configs: &[SinkConfig],
    host: &HostRoot,
    colour: bool,
) -> io::Result<Vec<Box<dyn Sink>>> {
    let terminal = match terminal {
        Terminal::Text => Some(Format::Text { colour }),
        Terminal::Json => Some(Format::Json),
        Terminal::Off => None,
    };
    let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
    if let Some(format) = terminal {
        sinks.push(Box::new(StreamSink::stdout(STDOUT, format)));
    }
    for SinkConfig { name, target } in configs {
        sinks.push(open(name, target, host, colour)?);
    }
    Ok(sinks)
}

fn open(name: &str, target: &SinkTarget, host: &HostRoot, colour: bool) -> io::Result<Box<dyn Sink>> {
    let server = |config: &ServerConfig| server(config, host);
    Ok(match target {
        SinkTarget::Stdout(Format::Text { .. }) => {
            Box::new(StreamSink::stdout(name, Format::Text { colour }))
        }
        SinkTarget::Stdout(format) => Box::new(StreamSink::stdout(name, *format)),
        SinkTarget::File(options) => Box::new(FileSink::open(name, options.clone()).map_err(|error| {
            let path = options.path.display();
            io::Error::new(error.kind(), format!("open alert file {path}: {error}"))
        })?),
        SinkTarget::Webhook { server: to, format, body } => {
            Box::new(WebhookSink::new(name, server(to), *format, *body))
        }
        SinkTarget::Splunk { server: to, options } => {
            Box::new(SplunkSink::new(name, server(to), options.clone()))
        }
        SinkTarget::Elastic { server: to, format, index } => {
            Box::new(ElasticSink::new(name, server(to), *format, index))
        }
        SinkTarget::Otlp { server: to } => Box::new(OtlpSink::new(name, server(to))),
        SinkTarget::Syslog { place, remote, framing, syslog } => {
            let RemoteConfig { ca, identity, timeout } = remote.clone();
            let trust = Trust { ca, host: host.clone() };
            let peer = Peer { place: place.clone(), trust, identity, timeout };
            let syslog = Syslog { process: Some(std::process::id()), ..*syslog };
            Box::new(SyslogSink::new(name, peer, *framing, syslog))
        }
        SinkTarget::Kafka(KafkaConfig { brokers, tls, remote, sasl, topic, format }) => {
            let RemoteConfig { ca, identity, timeout } = remote.clone();
            let trust = Trust { ca, host: host.clone() };
            let options = KafkaOptions {
                brokers: brokers.clone(),
                tls: tls.then_some((trust, identity)),
                sasl: sasl.clone(),
                topic: topic.clone(),
                format: *format,
                timeout,
            };
            Box::new(KafkaSink::new(name, options))
        }
        SinkTarget::Journal(socket) => Box::new(JournalSink::new(name, socket)),
    })
}

fn server(config: &ServerConfig, host: &HostRoot) -> Server {
    let ServerConfig { url, authorization, remote: RemoteConfig { ca, identity, timeout } } = config.clone();
    Server { url, trust: Trust { ca, host: host.clone() }, identity, authorization, timeout }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn what_the_config_names_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let opened = |text: &str| {
            let text = text.replace("DIR", directory.path().to_str().unwrap());
            let config = Config::parse(&text, "agent.toml").unwrap();
            open_all(config.alerts.terminal, &config.sinks, &HostRoot::own(None), false)
                .map(|sinks| sinks.iter().map(|sink| sink.name().to_owned()).collect::<Vec<_>>())
                .map_err(|error| error.to_string())
        };
        let file = format!("file {}/a", directory.path().display());
        assert_eq!(opened(""), Ok(vec!["stdout".to_owned()]));
        assert_eq!(opened("[alerts]\nterminal = \"off\"\n"), Ok(vec![]));
        let both = "[[sink]]\ntype = \"file\"\npath = \"DIR/a\"\n[[sink]]\ntype = \"stdout\"\n";
        assert_eq!(opened(both), Ok(vec![file, "stdout".to_owned()]));
        let error = opened("[[sink]]\ntype = \"file\"\npath = \"DIR/none/a\"\n").unwrap_err();
        assert!(error.starts_with("open alert file ") && error.contains("No such file"), "{error}");
    }
}
