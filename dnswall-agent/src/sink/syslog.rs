//! Alerts as syslog messages over UDP (RFC 5426), TCP (RFC 6587) and TLS (RFC 5425).
//!
//! Syslog has no acknowledgement. Over TCP and TLS alerts count as taken when the receiver's kernel has acknowledged every
//! byte of them and the connection still stands; over UDP when they were sent.

use std::time::Duration;

use super::{Failure, LIMITS, Sent, Sink};
use crate::format::syslog::Syslog;
use crate::remote::{Peer, Stream, Transport};
use crate::spool::{Entry, Limits};

/// How messages follow each other in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Each has its length before it.
    Octets,
    /// Each has an end of line behind it.
    Lines,
}

/// Sends messages.
#[derive(Debug)]
pub struct SyslogSink {
    name: String,
    peer: Peer,
    framing: Framing,
    syslog: Syslog,
    stream: Option<Stream>,
}

impl SyslogSink {
    /// To this receiver.
    pub fn new(name: &str, peer: Peer, framing: Framing, syslog: Syslog) -> Self {
        Self { name: name.to_owned(), peer, framing, syslog, stream: None }
    }

    /// The message as it is sent.
    fn framed(&self, entry: &Entry) -> Vec<u8> {
        let message = self.syslog.message(&entry.alert, Some(entry.sequence + 1));
        match (self.peer.place.transport, self.framing) {
            (Transport::Udp, _) => message.into_bytes(),
            (_, Framing::Octets) => format!("{} {message}", message.len()).into_bytes(),
            (_, Framing::Lines) => (message + "\n").into_bytes(),
        }
    }

    fn datagrams(&self, stream: &mut Stream, batch: &[Entry]) -> Result<Sent, Failure> {
        let mut sent = Sent::default();
        for (place, entry) in batch.iter().enumerate() {
            let message = self.framed(entry);
            // What was sent before may have been refused meanwhile (ICMP): the next call says so.
            let refused = |error: &std::io::Error| error.raw_os_error() == Some(libc::EMSGSIZE);
            match stream.write(&message, self.peer.timeout) {
                Ok(()) => sent.bytes += message.len(),
                Err(error) if refused(&error) => {
                    sent.rejected
                        .push((place, format!("a datagram has no room for its {} bytes", message.len())));
                }
                Err(error) => return Err(Failure { settled: place, sent, ..Failure::of(error) }),
            }
        }
        Ok(sent)
    }

    fn written(&self, stream: &mut Stream, batch: &[Entry]) -> Result<Sent, Failure> {
        let bytes: Vec<u8> = batch.iter().flat_map(|entry| self.framed(entry)).collect();
        let patience: Duration = self.peer.timeout;
        // A receiver that is gone would be noticed only by the write after the next.
        let done =
            stream.look().and_then(|()| stream.write(&bytes, patience)).and_then(|()| stream.drain(patience));
        done.map_err(Failure::of)?;
        Ok(Sent { bytes: bytes.len(), rejected: Vec::new() })
    }
}

impl Sink for SyslogSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn limits(&self) -> Limits {
        LIMITS
    }

    fn send(&mut self, batch: &[Entry]) -> Result<Sent, Failure> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.peer.connect().map_err(Failure::of)?,
        };
        let sent = match self.peer.place.transport {
            Transport::Udp => self.datagrams(&mut stream, batch),
            Transport::Tcp | Transport::Tls => self.written(&mut stream, batch),
        }?;
        self.stream = Some(stream);
        Ok(sent)
    }

    fn idle(&mut self) {
        if self.stream.as_mut().is_some_and(|stream| stream.look().is_err()) {
            self.stream = None;
        }
    }
}
