//! A server of the made-up zone, and who asks it and goes where it leads.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::act::{READY, Report, Tally};
use crate::ask::{message, wire};
use crate::zone::{self, ELSEWHERE, Follow, PORT, ZONE};

/// Answers at these addresses, and takes connections on [`PORT`] of every address, until the standard input ends.
///
/// # Errors
/// The kernel's.
pub fn serve(at: &[IpAddr]) -> io::Result<()> {
    let aside = |at| UdpSocket::bind(at).ok();
    let others: Vec<UdpSocket> =
        [SocketAddr::new(ZONE, 5353), SocketAddr::new(ELSEWHERE, 53)].into_iter().filter_map(aside).collect();
    for ip in at {
        let socket = UdpSocket::bind((*ip, 53))?;
        let others = others.iter().map(UdpSocket::try_clone).collect::<io::Result<Vec<_>>>()?;
        thread::spawn(move || answer_datagrams(&socket, &others));
        let listener = TcpListener::bind((*ip, 53))?;
        thread::spawn(move || listener.incoming().flatten().for_each(|stream| drop(answer_stream(stream))));
    }
    // Not a stub inside the wall: there somebody else may have the port.
    if let Ok(sink) = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)) {
        thread::spawn(move || sink.incoming().for_each(drop));
    }
    println!("{READY}");
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}

fn answer_datagrams(socket: &UdpSocket, others: &[UdpSocket]) {
    let mut buffer = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let Some(answer) = zone::answer(&buffer[..length]) else { continue };
        let is_there = |other: &&UdpSocket| other.local_addr().ok() == answer.from;
        let sender = others.iter().find(is_there).unwrap_or(socket);
        // Who asked may be gone.
        let _ = sender.send_to(&answer.message, from);
    }
}

fn answer_stream(mut stream: TcpStream) -> io::Result<()> {
    let mut length = [0; 2];
    loop {
        stream.read_exact(&mut length)?;
        let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut question)?;
        let Some(answer) = zone::answer(&question) else { return Ok(()) };
        let length = (answer.message.len() as u16).to_be_bytes();
        let whole = [&length[..], &answer.message].concat();
        let (first, rest) = whole.split_at(answer.cut);
        if !first.is_empty() {
            stream.set_nodelay(true)?;
            stream.write_all(first)?;
            thread::sleep(BETWEEN_PARTS);
        }
        stream.write_all(rest)?;
    }
}

const BETWEEN_PARTS: Duration = Duration::from_millis(100);

/// Asks for each name and goes where it leads, whatever was answered; reports also median and 99th percentile of how long both took
/// together, in nanoseconds.
///
/// # Errors
/// What is neither an answer nor a refusal.
pub fn follow(follow: &Follow, wait_ms: u64) -> io::Result<Report> {
    let (mut asked, mut went) = (Tally::default(), Tally::default());
    let wait = Duration::from_millis(wait_ms);
    if follow.at_once {
        return ask_at_once(follow, wait);
    }
    let (mut socket, mut times) = (None, Vec::new());
    for (round, number) in (follow.first..follow.first + follow.count).enumerate() {
        let v6 = follow.v6.unwrap_or(number % 2 == 1);
        let question = question(follow, number, v6);
        let begin = Instant::now();
        let answered = match follow.tcp {
            true => ask_over_stream(follow, &question, wait),
            false => {
                // One socket asks many questions, as resolvers' libraries do, then another.
                if round % 16 == 0 {
                    let any: IpAddr = match follow.server {
                        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
                    };
                    let made = UdpSocket::bind((any, 0))?;
                    made.set_read_timeout(Some(wait))?;
                    socket = Some(made);
                }
                socket.as_ref().map_or(Ok(()), |socket| ask(socket, follow.server, &question))
            }
        };
        note(&mut asked, answered);
        for port in &follow.ports {
            let to = SocketAddr::new(follow.kind.address(number, v6), *port);
            note(&mut went, TcpStream::connect_timeout(&to, wait).map(drop));
        }
        times.push(begin.elapsed().as_nanos() as u64);
    }
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
    Ok(Report { ok: true, counts: vec![(at(50), at(99))], tallies: vec![asked, went], ..Report::default() })
}

fn question(follow: &Follow, number: u32, v6: bool) -> Vec<u8> {
    let name = follow.kind.name(follow.ttl, number, &follow.zone);
    let mut question = message(&wire(&name), if v6 { 28 } else { 1 }, &[]);
    question[..2].copy_from_slice(&(number as u16).wrapping_mul(40_503).to_be_bytes());
    question
}

/// The same with all questions from one socket first.
fn ask_at_once(follow: &Follow, wait: Duration) -> io::Result<Report> {
    let (mut asked, mut went) = (Tally::default(), Tally::default());
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(wait))?;
    let numbers = follow.first..follow.first + follow.count;
    for number in numbers.clone() {
        socket.send_to(&question(follow, number, true), follow.server)?;
    }
    for _ in numbers.clone() {
        note(&mut asked, socket.recv_from(&mut [0; 4096]).map(drop));
    }
    for number in numbers {
        let to = SocketAddr::new(follow.kind.address(number, true), PORT);
        note(&mut went, TcpStream::connect_timeout(&to, wait).map(drop));
    }
    Ok(Report { ok: true, tallies: vec![asked, went], ..Report::default() })
}

fn ask(socket: &UdpSocket, server: SocketAddr, question: &[u8]) -> io::Result<()> {
    socket.send_to(question, server)?;
    socket.recv_from(&mut [0; 4096]).map(drop)
}

fn ask_over_stream(follow: &Follow, question: &[u8], wait: Duration) -> io::Result<()> {
    let made = Socket::new(Domain::for_address(follow.server), Type::STREAM, None)?;
    if let Some(bytes) = follow.window {
        made.set_recv_buffer_size(bytes)?;
    }
    made.connect_timeout(&follow.server.into(), wait)?;
    let mut stream = TcpStream::from(made);
    stream.set_read_timeout(Some(wait))?;
    let length = (question.len() as u16).to_be_bytes();
    stream.write_all(&[&length[..], question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    stream.read_exact(&mut vec![0; usize::from(u16::from_be_bytes(length))])
}

fn note(tally: &mut Tally, result: io::Result<()>) {
    match result {
        Ok(()) => tally.ok += 1,
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => tally.refused += 1,
        Err(error) => {
            tally.failed += 1;
            tally.failure = Some(error.to_string());
        }
    }
}
