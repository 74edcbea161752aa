//! Connections that carry bytes one way: takes where a server is, gives a stream over TCP or TLS that is bounded in time,
//! and knows what the other end's kernel has acknowledged.

use std::fmt;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::shown::Shown;
use super::trust::{Identity, Trust};
use super::words::io_words;
use crate::kernel::unacknowledged;

/// Between two looks at what was acknowledged.
const LOOK: Duration = Duration::from_millis(2);
/// How long a server that asked for a certificate has to refuse what it was shown. In TLS 1.3 it sees that only when this end is
/// done (RFC 8446, appendix E.1.2), and rsyslog looks at it later still; its kernel acknowledges what comes meanwhile.
const REFUSES_WITHIN: Duration = Duration::from_secs(1);

/// What is encrypted at once: less than TLS keeps back by itself.
const PIECE_BYTES: usize = 16 << 10;

/// How bytes get there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams, of which nobody says whether they came.
    Udp,
    /// A connection that everybody on the way can read.
    Tcp,
    /// A connection that nobody else can read or change.
    Tls,
}

/// Where a server is: `tls://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// How bytes get there.
    pub transport: Transport,
    /// Its name or address, an IPv6 address without its brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// A place, and how it and this host know each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it is.
    pub place: Place,
    /// Whom it is known by.
    pub trust: Trust,
    /// Who this host is to it.
    pub identity: Option<Identity>,
    /// How long connecting may take, and each write.
    pub timeout: Duration,
}

/// A way to a place.
#[derive(Debug)]
pub enum Stream {
    /// Datagrams.
    Udp(UdpSocket),
    /// A connection.
    Tcp(TcpStream),
    /// An encrypted one.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Place {
    /// Reads `udp://`, `tcp://` or `tls://`, a host, and perhaps a port, else that of syslog.
    pub fn new(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let (transport, usual) = match scheme {
            "udp" => (Transport::Udp, 514),
            "tcp" => (Transport::Tcp, 601),
            "tls" => (Transport::Tls, 6_514),
            _ => return None,
        };
        let authority: http::uri::Authority = rest.parse().ok()?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let has_user = authority.as_str().contains('@');
        let behind = authority.as_str().strip_prefix(authority.host())?;
        let port = if behind.is_empty() { usual } else { authority.port_u16().filter(|port| *port > 0)? };
        (!host.is_empty() && !has_user).then(|| Self { transport, host: host.to_owned(), port })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { transport, host, port } = self;
        let scheme = match transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
        };
        if host.contains(':') {
            write!(formatter, "{scheme}://[{host}]:{port}")
        } else {
            write!(formatter, "{scheme}://{host}:{port}")
        }
    }
}

impl Peer {
    /// Connects, at one of its addresses.
    ///
    /// # Errors
    /// Why that is not possible, for people.
    pub fn connect(&self) -> Result<Stream, String> {
        let Self { place, trust, identity, timeout } = self;
        let Place { transport, host, port } = place;
        let addresses: Vec<SocketAddr> =
            (host.as_str(), *port).to_socket_addrs().map_err(|error| io_words(&error))?.collect();
        match transport {
            Transport::Udp => each(&addresses, |address| {
                let any: SocketAddr =
                    if address.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
                let socket = UdpSocket::bind(any)?;
                socket.connect(address)?;
                socket.set_write_timeout(Some(*timeout))?;
                Ok(Stream::Udp(socket))
            }),
            Transport::Tcp => each(&addresses, |address| tcp(address, *timeout).map(Stream::Tcp)),
            Transport::Tls => {
                let mut config = trust.for_tls(identity.as_ref())?;
                let shown = Shown::before(&mut config);
                let config = Arc::new(config);
                let name = ServerName::try_from(host.clone()).map_err(|error| format!("TLS: {error}"))?;
                let mut socket = match each(&addresses, |address| tcp(address, *timeout).map(Stream::Tcp))? {
                    Stream::Tcp(socket) => socket,
                    other => return Ok(other),
                };
                let mut connection =
                    ClientConnection::new(config, name).map_err(|error| format!("TLS: {error}"))?;
                // Now, so that what is wrong with it is known before anything is written.
                let until = Instant::now() + *timeout;
                while connection.is_handshaking() {
                    step(&mut connection, &mut socket, until).map_err(|error| io_words(&error))?;
                }
                let mut stream = Stream::Tls(Box::new(StreamOwned::new(connection, socket)));
                if shown.was_asked_for() {
                    stream.outlast(REFUSES_WITHIN).map_err(|error| io_words(&error))?;
                }
                Ok(stream)
            }
        }
    }
}

fn tcp(address: &SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
    let socket = TcpStream::connect_timeout(address, timeout)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.set_write_timeout(Some(timeout))?;
    Ok(socket)
}

/// One step of a handshake, not later than `until`: a byte now and then does not keep it up.
fn step(connection: &mut ClientConnection, socket: &mut TcpStream, until: Instant) -> io::Result<()> {
    if connection.wants_write() {
        socket.set_write_timeout(Some(left(until)?))?;
        connection.write_tls(socket)?;
        return Ok(());
    }
    socket.set_read_timeout(Some(left(until)?))?;
    if connection.read_tls(socket)? == 0 {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, "the other end has closed the connection"));
    }
    let result = connection.process_new_packets();
    if result.is_err() && connection.wants_write() {
        // Tells the other end why.
        let _ = connection.write_tls(socket);
    }
    result.map(drop).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

/// How long until then.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::Error::new(ErrorKind::TimedOut, "it was not done in time"));
    }
    Ok(left)
}

/// All of it, not later than `until`, however small the pieces that the other end takes.
fn write_all(socket: &mut TcpStream, mut bytes: &[u8], until: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        socket.set_write_timeout(Some(left(until)?))?;
        match socket.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The first that works, else what went wrong with the last.
fn each(
    addresses: &[SocketAddr],
    mut connect: impl FnMut(&SocketAddr) -> io::Result<Stream>,
) -> Result<Stream, String> {
    let mut why = "its name has no address".to_owned();
    for address in addresses {
        match connect(address) {
            Ok(stream) => return Ok(stream),
            Err(error) => why = io_words(&error),
        }
    }
    Err(why)
}

impl Stream {
    /// Writes all of it within `patience`; over UDP it is one datagram.
    ///
    /// # Errors
    /// When it could not be written. A connection is of no use then.
    pub fn write(&mut self, bytes: &[u8], patience: Duration) -> io::Result<()> {
        let until = Instant::now() + patience;
        match self {
            Self::Udp(socket) => socket.send(bytes).map(drop),
            Self::Tcp(socket) => write_all(socket, bytes, until),
            Self::Tls(stream) => {
                for piece in bytes.chunks(PIECE_BYTES) {
                    stream.conn.writer().write_all(piece)?;
                    while stream.conn.wants_write() {
                        stream.sock.set_write_timeout(Some(left(until)?))?;
                        stream.conn.write_tls(&mut stream.sock)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Waits until the other end's kernel has acknowledged every byte. What the program there does with them nobody knows.
    ///
    /// # Errors
    /// When it has not within `patience`, or the connection is at its end.
    pub fn drain(&mut self, patience: Duration) -> io::Result<()> {
        let until = Instant::now() + patience;
        loop {
            self.look()?;
            let waiting = match self {
                Self::Udp(_) => 0,
                Self::Tcp(socket) => unacknowledged(&*socket)?,
                Self::Tls(stream) => unacknowledged(&stream.sock)?,
            };
            if waiting == 0 {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(io::Error::new(
                    ErrorKind::TimedOut,
                    "the other end does not acknowledge what was sent",
                ));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits so long for the other end to leave.
    fn outlast(&mut self, time: Duration) -> io::Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.look()?;
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Whether the other end is still there, as far as this end has been told. What it says is thrown away.
    ///
    /// # Errors
    /// When it has closed the connection, or refused a datagram.
    pub fn look(&mut self) -> io::Result<()> {
        let mut said = [0; 512];
        let read = match self {
            Self::Udp(socket) => {
                return socket.take_error()?.map_or(Ok(()), Err);
            }
            Self::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                let read = socket.read(&mut said);
                socket.set_nonblocking(false)?;
                read
            }
            Self::Tls(stream) => {
                stream.sock.set_nonblocking(true)?;
                let read = stream.read(&mut said);
                stream.sock.set_nonblocking(false)?;
                read
            }
        };
        match read {
            Ok(0) => Err(io::Error::new(ErrorKind::UnexpectedEof, "the other end has closed the connection")),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_have_a_transport_a_host_and_a_port() {
        let shown = |text: &str| Place::new(text).map(|place| place.to_string());
        for (text, expected) in [
            ("tls://siem.example.net", "tls://siem.example.net:6514"),
            ("tls://siem.example.net:10514", "tls://siem.example.net:10514"),
            ("tcp://192.0.2.1", "tcp://192.0.2.1:601"),
            ("udp://[2001:db8::1]", "udp://[2001:db8::1]:514"),
            ("udp://[2001:db8::1]:5514", "udp://[2001:db8::1]:5514"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(expected), "{text}");
        }
        for wrong in [
            "",
            "siem.example.net:6514",
            "https://siem",
            "tls://",
            "tls://siem:0",
            "tls://siem:x",
            "tls://u@siem",
            "tcp://siem/x",
        ] {
            assert_eq!(shown(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_was_not_read_is_acknowledged_all_the_same_and_an_end_is_noticed() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut place = Place::new("tcp://127.0.0.1").unwrap();
        place.port = listener.local_addr().unwrap().port();
        let trust = Trust { ca: None, host: crate::host::HostRoot::own(None) };
        let peer = Peer { place, trust, identity: None, timeout: Duration::from_secs(5) };
        let mut stream = peer.connect().unwrap();
        let (accepted, _) = listener.accept().unwrap();
        stream.write(b"hello", Duration::from_secs(5)).unwrap();
        stream.drain(Duration::from_secs(5)).unwrap();
        drop(accepted);
        let until = Instant::now() + Duration::from_secs(5);
        while stream.look().is_ok() && Instant::now() < until {
            std::thread::sleep(LOOK);
        }
        assert!(stream.look().is_err());
        drop(listener);
        let refused = peer.connect().unwrap_err();
        assert!(refused.contains("refused"), "{refused}");
    }

    /// A connection, and the end of it that somebody else has.
    fn connected() -> (Stream, TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut place = Place::new("tcp://127.0.0.1").unwrap();
        place.port = listener.local_addr().unwrap().port();
        let trust = Trust { ca: None, host: crate::host::HostRoot::own(None) };
        let peer = Peer { place, trust, identity: None, timeout: Duration::from_secs(60) };
        let stream = peer.connect().unwrap();
        (stream, listener.accept().unwrap().0)
    }

    /// More than two kernels keep for a receiver.
    const MUCH: usize = 64 << 20;
    const PATIENCE: Duration = Duration::from_millis(500);
    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn who_never_reads_keeps_nobody_longer_than_it_may() {
        let (mut stream, _other) = connected();
        let began = Instant::now();
        let error = stream.write(&vec![b'x'; MUCH], PATIENCE).unwrap_err();
        let took = began.elapsed();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
        assert!((PATIENCE..LONG).contains(&took), "{took:?}");
        let began = Instant::now();
        assert_eq!(stream.drain(PATIENCE).unwrap_err().kind(), ErrorKind::TimedOut);
        assert!((PATIENCE..LONG).contains(&began.elapsed()));
    }

    #[test]
    fn who_reads_a_little_now_and_then_keeps_nobody_longer_either() {
        let (mut stream, mut other) = connected();
        let reader = std::thread::spawn(move || {
            let mut piece = vec![0; 64 << 10];
            // Always a while before a write would have waited for so long.
            while other.read(&mut piece).is_ok_and(|bytes| bytes > 0) {
                std::thread::sleep(PATIENCE / 50);
            }
        });
        let began = Instant::now();
        let error = stream.write(&vec![b'x'; MUCH], PATIENCE).unwrap_err();
        let took = began.elapsed();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
        assert!((PATIENCE..PATIENCE * 20).contains(&took), "{took:?}");
        drop(stream);
        reader.join().unwrap();
    }
}
