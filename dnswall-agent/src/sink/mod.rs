//! Takes alerts from the spool, puts them where they are wanted: a terminal, a file, a server.
//!
//! `Lane → Delivery::run → Sink::send`. A sink that is slow or broken is behind by itself, and tried again until it has
//! taken what there is; `status` shows how far each is.

pub mod delivery;
pub mod file;
pub mod stream;

use std::io;
use std::time::Duration;

pub use delivery::Delivery;
pub use file::{FileOptions, FileSink};
pub use stream::StreamSink;

use crate::config::{SinkConfig, SinkTarget, StdoutFormat, Terminal};
use crate::format::Format;
use crate::spool::{Entry, Limits};

/// What a sink takes at once, unless it says otherwise.
const LIMITS: Limits = Limits { alerts: 256, bytes: 1 << 20 };

/// Somewhere alerts go.
pub trait Sink: Send {
    /// Its name in `status`, logs and metrics.
    fn name(&self) -> &str;

    /// How much it takes at once.
    fn limits(&self) -> Limits {
        LIMITS
    }

    /// Sends alerts, oldest first, and returns when the far end has said that it has them. Some of them may have been
    /// sent before.
    ///
    /// # Errors
    /// When the far end has not all of them. The sink stays usable: the next call is a new attempt.
    fn send(&mut self, batch: &[Entry]) -> Result<Sent, Failure>;

    /// There is nothing to send: a time to look whether the far end is still there.
    fn idle(&mut self) {}

    /// What is wrong although alerts arrive.
    fn trouble(&self) -> Option<&str> {
        None
    }
}

/// The far end has dealt with all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Bytes that were sent.
    pub bytes: usize,
    /// Which of them it will never take, by their place in the batch, and why.
    pub rejected: Vec<(usize, String)>,
}

/// The far end does not have all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// What happened, for people. No secrets.
    pub why: String,
    /// How many, from the first on, it has all the same.
    pub settled: usize,
    /// Bytes of those.
    pub bytes: usize,
    /// How long it asks to be left alone.
    pub after: Option<Duration>,
}

impl Failure {
    /// It has none of them.
    pub fn of(why: impl ToString) -> Self {
        Self { why: why.to_string(), ..Self::default() }
    }
}

/// What standard output is called, unless it has a name.
pub const STDOUT: &str = "stdout";

/// Opens every sink that agent.toml names, and the terminal; `colour` says whether standard output is a terminal
/// that understands it.
///
/// # Errors
/// The first file that cannot be opened, by its name.
pub fn open_all(terminal: Terminal, configs: &[SinkConfig], colour: bool) -> io::Result<Vec<Box<dyn Sink>>> {
    let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
    let print = |name: &str, format| -> Box<dyn Sink> { Box::new(StreamSink::stdout(name, format)) };
    match terminal {
        Terminal::Text => sinks.push(print(STDOUT, Format::Text { colour })),
        Terminal::Json => sinks.push(print(STDOUT, Format::Json)),
        Terminal::Off => {}
    }
    for SinkConfig { name, target } in configs {
        sinks.push(match target {
            SinkTarget::Stdout(StdoutFormat::Text) => print(name, Format::Text { colour }),
            SinkTarget::Stdout(StdoutFormat::Json) => print(name, Format::Json),
            SinkTarget::File(options) => {
                Box::new(FileSink::open(name, options.clone()).map_err(|error| {
                    let path = options.path.display();
                    io::Error::new(error.kind(), format!("open alert file {path}: {error}"))
                })?)
            }
        });
    }
    Ok(sinks)
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
            open_all(config.alerts.terminal, &config.sinks, false)
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
