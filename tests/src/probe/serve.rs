//! A server inside the wall: it only ever answers.

use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::thread;

use socket2::{Domain, Protocol, Socket, Type};

use super::attempt::{Attempt, Step};
use super::option::set_number;
use crate::act::{READY, Report};

/// Answers until the standard input ends.
///
/// # Errors
/// The kernel's.
pub fn serve(at: SocketAddr, tcp: bool) -> io::Result<()> {
    if tcp {
        let listener = TcpListener::bind(at)?;
        // Where the namespace lets it (`net.ipv4.tcp_fastopen`), data may come with the SYN.
        set_number(&listener, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, 16)?;
        thread::spawn(move || listener.incoming().flatten().for_each(|mut stream| drop(echo(&mut stream))));
    } else {
        let socket = UdpSocket::bind(at)?;
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                // A refused answer is seen by the one who waits for it.
                let _ = socket.send_to(&buffer[..length], from);
            }
        });
    }
    println!("{READY}");
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}

/// Stays until the standard input ends.
///
/// # Errors
/// The kernel's.
pub fn unwrap(at: SocketAddr) -> io::Result<()> {
    let made = shared(at)?;
    set_number(&made, libc::IPPROTO_UDP, UDP_ENCAP, UDP_ENCAP_ESPINUDP)?;
    println!("{READY}");
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}

/// Answers one datagram from three sockets, then sends elsewhere from the first.
///
/// # Errors
/// The kernel's, a refusal excepted.
pub fn answer(at: SocketAddr, others: &[SocketAddr]) -> io::Result<Report> {
    let made = shared(at)?;
    println!("{READY}");
    let (_, peer) = made.recv_from(&mut [0; 2048])?;
    let child = shared(at)?;
    child.connect(peer)?;
    let fresh = UdpSocket::bind((at.ip(), 0))?;
    let mut sends =
        vec![made.send_to(b"answer", peer), child.send(b"answer"), fresh.send_to(b"answer", peer)];
    sends.extend(others.iter().map(|to| made.send_to(b"more", to)));
    let mut counts = Vec::new();
    for sent in sends {
        counts.push(match sent {
            Ok(_) => (1, 0),
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => (0, 1),
            Err(error) => return Err(error),
        });
    }
    Ok(Report { ok: true, counts, ..Report::default() })
}

/// A UDP socket on a port that others may share.
fn shared(at: SocketAddr) -> io::Result<UdpSocket> {
    let made = Socket::new(Domain::for_address(at), Type::DGRAM, Some(Protocol::UDP))?;
    made.set_reuse_port(true)?;
    made.bind(&at.into())?;
    Ok(made.into())
}

/// Sends to whoever sent last, whenever it is told to.
///
/// # Errors
/// The kernel's, or that nobody sent.
pub fn push(at: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind(at)?;
    println!("{READY}");
    let mut peer = None;
    for line in io::stdin().lock().lines() {
        line?;
        // The first time it waits for one.
        socket.set_nonblocking(peer.is_some())?;
        while let Ok((_, from)) = socket.recv_from(&mut [0; 2048]) {
            peer = Some(from);
            socket.set_nonblocking(true)?;
        }
        let to = peer.ok_or_else(|| io::Error::other("nobody sent"))?;
        let report = Attempt::run(|_| socket.send_to(b"news", to).step("send").map(|_| None));
        println!("{}", serde_json::to_string(&report)?);
    }
    Ok(())
}

fn echo(stream: &mut (impl Read + Write)) -> io::Result<()> {
    let mut buffer = [0; 2048];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length])?;
    }
}

/// linux/udp.h
const UDP_ENCAP: i32 = 100;
const UDP_ENCAP_ESPINUDP: i32 = 2;
