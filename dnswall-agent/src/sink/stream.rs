//! Alerts as lines on a stream: standard output, for a person or for a program.

use std::io::{self, Write};

use super::Sink;
use crate::alert::{Alert, text};

/// How an alert becomes a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For a person.
    Text {
        /// With colours, which only a terminal understands.
        colour: bool,
    },
    /// The JSON object.
    Json,
}

impl Format {
    /// The alert as one line, with its end.
    pub fn line(self, alert: &Alert) -> String {
        match self {
            Self::Text { colour } => text::line(alert, colour) + "\n",
            Self::Json => alert.to_json_line(),
        }
    }
}

/// Writes lines to a stream.
#[derive(Debug)]
pub struct StreamSink<W> {
    name: String,
    stream: W,
    format: Format,
}

impl StreamSink<io::Stdout> {
    /// Standard output.
    pub fn stdout(format: Format) -> Self {
        Self::new("stdout", io::stdout(), format)
    }
}

impl<W: Write + Send> StreamSink<W> {
    /// Some stream.
    pub fn new(name: &str, stream: W, format: Format) -> Self {
        Self { name: name.to_owned(), stream, format }
    }
}

impl<W: Write + Send> Sink for StreamSink<W> {
    fn name(&self) -> &str {
        &self.name
    }

    fn write(&mut self, alert: &Alert) -> io::Result<usize> {
        let line = self.format.line(alert);
        // A whole line at once: standard output passes it on in one call.
        self.stream.write_all(line.as_bytes())?;
        self.stream.flush()?;
        Ok(line.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::sample;

    #[test]
    fn lines_are_text_or_json() {
        let alert = sample::alert();
        let written = |format| {
            let mut sink = StreamSink::new("test", Vec::new(), format);
            let bytes = sink.write(&alert).unwrap();
            assert_eq!(bytes, sink.stream.len());
            String::from_utf8(sink.stream).unwrap()
        };
        assert_eq!(written(Format::Json), alert.to_json_line());
        assert_eq!(written(Format::Text { colour: false }), text::line(&alert, false) + "\n");
    }

    #[test]
    fn a_closed_stream_is_an_error() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut sink = StreamSink::new("test", Closed, Format::Json);
        assert_eq!(sink.write(&sample::alert()).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
