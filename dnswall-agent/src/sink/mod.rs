//! Takes alerts, puts them where they are wanted: a terminal, a file.
//!
//! `Alert → Dispatcher::deliver → a bounded queue for each sink → Worker::run → Sink::write`. A sink that is slow or
//! broken fills its own queue and nobody else's; what it loses is counted and shown by `status`.

pub mod counter;
pub mod dispatch;
pub mod file;
pub mod queue;
pub mod stream;

use std::io;

pub use counter::{SinkCounters, SinkStatus};
pub use dispatch::{Dispatcher, Worker};
pub use file::{FileOptions, FileSink};
pub use stream::{Format, StreamSink};

use crate::alert::Alert;
use crate::config::{Config, SinkConfig, StdoutFormat, Terminal};

/// Somewhere alerts go.
pub trait Sink: Send {
    /// Its name in `status`, logs and metrics.
    fn name(&self) -> &str;

    /// Writes one alert and returns how many bytes that were.
    ///
    /// # Errors
    /// When the alert did not arrive whole. The sink stays usable: the next alert is a new attempt.
    fn write(&mut self, alert: &Alert) -> io::Result<usize>;

    /// What is wrong although alerts arrive.
    fn trouble(&self) -> Option<&str> {
        None
    }
}

/// Opens every sink that agent.toml names, and the terminal; `colour` says whether standard output is a terminal
/// that understands it.
///
/// # Errors
/// The first file that cannot be opened, by its name.
pub fn open_all(config: &Config, colour: bool) -> io::Result<Vec<Box<dyn Sink>>> {
    let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
    let print = |format| -> Box<dyn Sink> { Box::new(StreamSink::stdout(format)) };
    match config.alerts.terminal {
        Terminal::Text => sinks.push(print(Format::Text { colour })),
        Terminal::Json => sinks.push(print(Format::Json)),
        Terminal::Off => {}
    }
    for sink in &config.sinks {
        sinks.push(match sink {
            SinkConfig::Stdout(StdoutFormat::Text) => print(Format::Text { colour }),
            SinkConfig::Stdout(StdoutFormat::Json) => print(Format::Json),
            SinkConfig::File(options) => Box::new(FileSink::open(options.clone()).map_err(|error| {
                let path = options.path.display();
                io::Error::new(error.kind(), format!("open alert file {path}: {error}"))
            })?),
        });
    }
    Ok(sinks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_config_names_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let opened = |text: &str| {
            let text = text.replace("DIR", directory.path().to_str().unwrap());
            let config = Config::parse(&text, "agent.toml").unwrap();
            open_all(&config, false)
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
