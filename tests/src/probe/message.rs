//! DNS messages as they are, in one piece and in others; and questions for many names.

use std::fs;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::attempt::{Attempt, Failed, Step, socket};
use super::dns::question;
use super::option::set_number;
use crate::act::{MessageBy, Report};

/// Sends a message; what came back is the response code.
pub fn send(server: SocketAddr, message: &[u8], by: MessageBy, wait_ms: u64) -> Report {
    Attempt::run(|_| match by {
        MessageBy::Datagram | MessageBy::Segments | MessageBy::FromPort53 | MessageBy::Lite => {
            datagram(server, message, by, wait_ms)
        }
        MessageBy::ZeroCopy | MessageBy::Spliced => datagram(server, message, by, wait_ms),
        _ => stream(server, message, by, wait_ms),
    })
}

fn datagram(
    server: SocketAddr,
    message: &[u8],
    by: MessageBy,
    wait_ms: u64,
) -> Result<Option<String>, Failed> {
    let protocol = if by == MessageBy::Lite { Protocol::from(libc::IPPROTO_UDPLITE) } else { Protocol::UDP };
    let socket = socket(Domain::for_address(server), Type::DGRAM, Some(protocol), wait_ms).step("socket")?;
    if by == MessageBy::FromPort53 {
        bind_to_port_53(&socket, server)?;
        socket.send_to(message, &server.into()).step("send")?;
    }
    if by == MessageBy::Segments {
        set_number(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, message.len() as i32).step("segment")?;
        socket.send_to(&[message, message].concat(), &server.into()).step("send")?;
    } else if by == MessageBy::ZeroCopy {
        set_number(&socket, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1).step("ask for zerocopy")?;
        socket.send_to_with_flags(message, &server.into(), libc::MSG_ZEROCOPY).step("send")?;
    } else if by == MessageBy::Spliced {
        socket.connect(&server.into()).step("connect")?;
        splice(&socket, message).step("send")?;
    } else {
        socket.send_to(message, &server.into()).step("send")?;
    }
    // Nobody answers UDP-Lite: that it arrives is seen elsewhere.
    if by == MessageBy::Lite {
        return Ok(None);
    }
    let mut answer = [0; 4096];
    let length = (&socket).read(&mut answer).step("receive")?;
    code(answer.get(..length).unwrap_or_default()).map(Some)
}

/// Of any address of the family that the server has.
fn bind_to_port_53(socket: &Socket, server: SocketAddr) -> Result<(), Failed> {
    let any: SocketAddr = if server.is_ipv4() { ([0; 4], 53).into() } else { ([0u16; 8], 53).into() };
    socket.bind(&any.into()).step("bind")
}

fn stream(server: SocketAddr, message: &[u8], by: MessageBy, wait_ms: u64) -> Result<Option<String>, Failed> {
    let mut socket =
        socket(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP), wait_ms).step("socket")?;
    let length = if by == MessageBy::TwoMessages { message.len() / 2 - 1 } else { message.len() };
    let whole = [&(length as u16).to_be_bytes()[..], message].concat();
    if by == MessageBy::StreamFromPort53 {
        bind_to_port_53(&socket, server)?;
    }
    if by == MessageBy::Patient {
        socket.set_read_timeout(Some(PATIENCE)).step("socket")?;
    }
    if by == MessageBy::FastOpen {
        socket.send_to_with_flags(&whole, &server.into(), libc::MSG_FASTOPEN).step("send")?;
        return receive(&mut socket);
    }
    socket.connect_timeout(&server.into(), CONNECTED_WITHIN).step("connect")?;
    socket.set_tcp_nodelay(true).step("connect")?;
    let pieces: Vec<&[u8]> = match by {
        MessageBy::LengthApart => vec![&whole[..2], &whole[2..]],
        MessageBy::Halves => vec![&whole[..whole.len() / 2], &whole[whole.len() / 2..]],
        _ => vec![&whole],
    };
    if by == MessageBy::Twice {
        socket.write_all(&[&whole[..], &whole].concat()).step("send")?;
    } else if by == MessageBy::Urgent {
        // Refused, it stays at the queue's head, and what comes next is put behind it, into the same segment.
        socket.send_out_of_band(&whole[..1]).step("send")?;
        thread::sleep(PAUSE);
        socket.write_all(&whole[1..]).step("send")?;
    } else if by == MessageBy::ZeroCopyStream {
        set_number(&socket, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1).step("ask for zerocopy")?;
        socket.send_with_flags(&whole, libc::MSG_ZEROCOPY).step("send")?;
    } else if by == MessageBy::SplicedStream {
        splice(&socket, &whole).step("send")?;
    } else {
        for (at, piece) in pieces.iter().enumerate() {
            if at > 0 {
                thread::sleep(PAUSE);
            }
            socket.write_all(piece).step("send")?;
        }
    }
    receive(&mut socket)
}

/// Sends what stays this process's memory, by way of a pipe.
fn splice(socket: &Socket, bytes: &[u8]) -> io::Result<()> {
    let (reader, writer) = rustix::pipe::pipe()?;
    let slice = rustix::pipe::IoSliceRaw::from_slice(bytes);
    // SAFETY: the memory lives until the process ends, and is not written to.
    unsafe { rustix::pipe::vmsplice(&writer, &[slice], rustix::pipe::SpliceFlags::empty())? };
    rustix::pipe::splice(&reader, None, socket, None, bytes.len(), rustix::pipe::SpliceFlags::empty())?;
    Ok(())
}

/// A server that is asked by many is slow to accept.
const CONNECTED_WITHIN: Duration = Duration::from_secs(20);
/// Longer than the kernel's own.
const PATIENCE: Duration = Duration::from_secs(60);
/// Shorter than the first retransmission (200 ms).
const PAUSE: Duration = Duration::from_millis(20);

fn receive(socket: &mut Socket) -> Result<Option<String>, Failed> {
    let mut head = [0; 2];
    socket.read_exact(&mut head).step("receive")?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(head))];
    socket.read_exact(&mut answer).step("receive")?;
    code(&answer).map(Some)
}

fn code(answer: &[u8]) -> Result<String, Failed> {
    let flags = answer.get(3).ok_or_else(|| ("receive", io::Error::other("a short answer")))?;
    Ok(format!("rcode {}", flags & 15))
}

/// Asks for each name in a file, from many threads. Refused is `EPERM` over UDP; over TCP silence, or an end.
///
/// # Errors
/// When something else than an answer or a refusal comes.
pub fn ask_all(servers: &[(SocketAddr, bool)], names: &Path, silence_ms: u64) -> io::Result<Report> {
    let text = fs::read_to_string(names)?;
    let names: Vec<&str> = text.lines().collect();
    let mut counts = vec![(0, 0); servers.len()];
    let parts = thread::scope(|scope| {
        let asker = |first: usize| {
            let names = &names;
            scope.spawn(move || {
                let mut counts = vec![(0, 0); servers.len()];
                for at in (first..names.len()).step_by(ASKERS) {
                    let place = at % servers.len();
                    let (server, tcp) = servers[place];
                    let refused = ask(server, tcp, names[at], silence_ms)
                        .map_err(|error| io::Error::other(format!("{} of {server}: {error}", names[at])))?;
                    if refused { counts[place].1 += 1 } else { counts[place].0 += 1 }
                }
                Ok(counts)
            })
        };
        let askers: Vec<_> = (0..ASKERS).map(asker).collect();
        askers
            .into_iter()
            .map(|asker| asker.join().expect("it does not panic"))
            .collect::<io::Result<Vec<_>>>()
    })?;
    for part in parts {
        for ((answered, refused), (more_answered, more_refused)) in counts.iter_mut().zip(part) {
            *answered += more_answered;
            *refused += more_refused;
        }
    }
    Ok(Report { ok: true, counts, ..Report::default() })
}

const ASKERS: usize = 64;

/// Whether it was refused.
fn ask(server: SocketAddr, tcp: bool, name: &str, silence_ms: u64) -> io::Result<bool> {
    let message = question(name);
    let by = if tcp { MessageBy::Stream } else { MessageBy::Datagram };
    let report = send(server, &message, by, silence_ms);
    match (report.ok, tcp) {
        (true, _) => Ok(false),
        (false, false) if report.is_refused() => Ok(true),
        (false, true) if report.is_unanswered() => Ok(true),
        _ => Err(io::Error::other(format!("{report:?}"))),
    }
}

/// Asks for each name in a file, one after another.
///
/// # Errors
/// When one is not answered.
pub fn time(server: SocketAddr, names: &Path, wait_ms: u64) -> io::Result<Report> {
    let text = fs::read_to_string(names)?;
    let mut socket = socket(Domain::for_address(server), Type::DGRAM, Some(Protocol::UDP), wait_ms)?;
    socket.connect(&server.into())?;
    let (mut times, mut answer) = (Vec::new(), [0; 4096]);
    for name in text.lines() {
        let message = question(name);
        let begin = Instant::now();
        socket.send(&message)?;
        let length = socket.read(&mut answer)?;
        times.push(begin.elapsed().as_nanos() as u64);
        if answer.get(..2) != message.get(..2) || length < message.len() {
            return Err(io::Error::other(format!("{server} answers something else for {name}")));
        }
    }
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
    Ok(Report { ok: true, counts: vec![(at(50), at(99))], ..Report::default() })
}
