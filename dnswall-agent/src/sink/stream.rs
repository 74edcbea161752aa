//! Alerts as lines on a stream: standard output, for a person or for a program.

use std::io::{self, Write};

use super::{Failure, Sent, Sink};
use crate::format::Format;
use crate::spool::Entry;

/// Writes lines to a stream.
#[derive(Debug)]
pub struct StreamSink<W> {
    name: String,
    stream: W,
    format: Format,
}

impl StreamSink<io::Stdout> {
    /// Standard output.
    pub fn stdout(name: &str, format: Format) -> Self {
        Self::new(name, io::stdout(), format)
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

    fn send(&mut self, batch: &[Entry]) -> Result<Sent, Failure> {
        let mut bytes = 0;
        for (settled, entry) in batch.iter().enumerate() {
            let line = super::line(entry, self.format) + "\n";
            // A whole line at once: standard output passes it on in one call.
            let written = self.stream.write_all(line.as_bytes()).and_then(|()| self.stream.flush());
            if let Err(error) = written {
                let sent = Sent { bytes, rejected: Vec::new() };
                return Err(Failure { settled, sent, ..Failure::of(error) });
            }
            bytes += line.len();
        }
        Ok(Sent { bytes, rejected: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::{sample, text};

    #[test]
    fn lines_are_text_or_json() {
        let alert = sample::alert();
        let written = |format| {
            let mut sink = StreamSink::new("test", Vec::new(), format);
            let Sent { bytes, .. } = sink.send(&[sample::entry(&alert)]).unwrap();
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
        let failure = sink.send(&[sample::entry(&sample::alert())]).unwrap_err();
        assert_eq!(failure, Failure::of("broken pipe"));
    }
}
