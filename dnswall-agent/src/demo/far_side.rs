//! Everything the small server could reach: its resolver and database, a visitor, and the intruder's friends.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::dns;
use super::network::Network;

/// Servers that count what reaches them; they go with the process.
#[derive(Debug)]
pub(super) struct FarSide {
    hostile: Arc<AtomicU64>,
}

/// What the server's own resolver answers: where the database is.
pub(super) const DATABASE: Ipv4Addr = Ipv4Addr::new(10, 0, 3, 7);

impl FarSide {
    /// Listens everywhere; what reaches `hostile` places is counted.
    pub(super) fn listen(network: &Network, friendly: &[Place], hostile: &[Place]) -> io::Result<Self> {
        let (friends, enemies) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let places = friendly.iter().map(|place| (place, &friends));
        for (place, count) in places.chain(hostile.iter().map(|place| (place, &enemies))) {
            place.listen(network, Arc::clone(count))?;
        }
        Ok(Self { hostile: enemies })
    }

    /// How often anything reached a place it should not have.
    pub(super) fn leaks(&self) -> u64 {
        self.hostile.load(Ordering::Relaxed)
    }
}

/// Where something listens.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// A DNS server, over UDP and TCP.
    Dns(SocketAddr),
    /// A TCP server that greets.
    Tcp(SocketAddr),
}

impl Place {
    fn listen(self, network: &Network, count: Arc<AtomicU64>) -> io::Result<()> {
        match self {
            Self::Dns(at) => {
                let socket = network.far.run(|| UdpSocket::bind(at))?;
                let counted = Arc::clone(&count);
                thread::spawn(move || answer_datagrams(&socket, &counted));
                let listener = network.far.run(|| TcpListener::bind(at))?;
                thread::spawn(move || accept(&listener, &count, answer_stream));
            }
            Self::Tcp(at) => {
                let listener = network.far.run(|| TcpListener::bind(at))?;
                thread::spawn(move || accept(&listener, &count, greet));
            }
        }
        Ok(())
    }
}

/// A visitor's request to the small server, and what came back.
pub(super) fn visit(network: &Network, at: SocketAddr) -> io::Result<String> {
    network.far.run(|| {
        let mut stream = TcpStream::connect_timeout(&at, VISIT)?;
        stream.set_read_timeout(Some(VISIT))?;
        stream.write_all(b"hello\n")?;
        let mut answer = [0; 64];
        let length = stream.read(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..length]).trim_end().to_owned())
    })
}

fn answer_datagrams(socket: &UdpSocket, count: &AtomicU64) {
    let mut buffer = [0; dns::MESSAGE_BYTES_MAX];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        count.fetch_add(1, Ordering::Relaxed);
        // Whether it arrives is for the one who asked to see.
        let _ = socket.send_to(&dns::answer(&buffer[..length], DATABASE), from);
    }
}

fn accept(listener: &TcpListener, count: &AtomicU64, serve: fn(TcpStream) -> io::Result<()>) {
    for stream in listener.incoming().flatten() {
        count.fetch_add(1, Ordering::Relaxed);
        // Whether it was served is for the one who came to see.
        let _ = serve(stream);
    }
}

fn answer_stream(mut stream: TcpStream) -> io::Result<()> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut question)?;
    let answer = dns::answer(&question, DATABASE);
    stream.write_all(&[&(answer.len() as u16).to_be_bytes()[..], &answer].concat())
}

fn greet(mut stream: TcpStream) -> io::Result<()> {
    let mut hello = [0; 64];
    let _ = stream.read(&mut hello)?;
    stream.write_all(b"ready\n")
}

const VISIT: Duration = Duration::from_secs(2);
