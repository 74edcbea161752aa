//! Many small errands, over and over, while something else happens to the wall. What is refused, what fails otherwise
//! and what goes through is counted apart.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::attempt::{for_each_line, greeting, socket};
use crate::act::{Errand, ErrandBy, READY, Report, Tally};

/// Does the errands until the standard input ends.
///
/// # Errors
/// When what is to stay for all rounds cannot be made.
pub fn load(errands: &[Errand], pause_us: u64) -> io::Result<Report> {
    static STOP: AtomicBool = AtomicBool::new(false);
    thread::spawn(|| {
        // An error ends it as well.
        let _ = io::stdin().read_to_end(&mut Vec::new());
        STOP.store(true, Ordering::Relaxed);
    });
    let mut walkers = errands.iter().map(|errand| Walker::new(*errand)).collect::<io::Result<Vec<_>>>()?;
    println!("{READY}");
    while !STOP.load(Ordering::Relaxed) {
        for walker in &mut walkers {
            walker.go();
            thread::sleep(Duration::from_micros(pause_us));
        }
    }
    let tallies = walkers.into_iter().map(|walker| walker.tally).collect();
    Ok(Report { ok: true, tallies, ..Report::default() })
}

/// Does every errand once for each line of the standard input.
///
/// # Errors
/// When what is to stay for all steps cannot be made.
pub fn steps(errands: &[Errand]) -> io::Result<()> {
    let mut walkers = errands.iter().map(|errand| Walker::new(*errand)).collect::<io::Result<Vec<_>>>()?;
    for_each_line(|| {
        walkers.iter_mut().for_each(Walker::go);
        let tallies = walkers.iter_mut().map(|walker| std::mem::take(&mut walker.tally)).collect();
        Report { ok: true, tallies, ..Report::default() }
    })
}

/// One errand, and the socket it keeps.
struct Walker {
    errand: Errand,
    kept: Kept,
    tally: Tally,
}

enum Kept {
    Nothing,
    Udp(UdpSocket),
    Tcp(Socket),
}

impl Walker {
    fn new(errand: Errand) -> io::Result<Self> {
        let kept = match errand.by {
            ErrandBy::UdpFresh | ErrandBy::TcpFresh => Kept::Nothing,
            ErrandBy::UdpSendto => Kept::Udp(UdpSocket::bind(any(errand.to))?),
            ErrandBy::UdpConnected => {
                let socket = UdpSocket::bind(any(errand.to))?;
                socket.connect(errand.to)?;
                Kept::Udp(socket)
            }
            ErrandBy::TcpHeld => Kept::Tcp(connect(errand.to)?),
        };
        Ok(Self { errand, kept, tally: Tally::default() })
    }

    fn go(&mut self) {
        let to = self.errand.to;
        let text = greeting();
        let done = match (&mut self.kept, self.errand.by) {
            (Kept::Udp(socket), ErrandBy::UdpConnected) => socket.send(text.as_bytes()).map(drop),
            (Kept::Udp(socket), _) => socket.send_to(text.as_bytes(), to).map(drop),
            (Kept::Tcp(socket), _) => echo(socket),
            (Kept::Nothing, ErrandBy::TcpFresh) => connect(to).and_then(|mut socket| echo(&mut socket)),
            (Kept::Nothing, _) => {
                UdpSocket::bind(any(to)).and_then(|socket| socket.send_to(text.as_bytes(), to)).map(drop)
            }
        };
        match done {
            Ok(()) => self.tally.ok += 1,
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => self.tally.refused += 1,
            Err(error) => {
                self.tally.failed += 1;
                self.tally.failure = Some(error.to_string());
            }
        }
    }
}

fn any(to: SocketAddr) -> SocketAddr {
    if to.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() }
}

fn connect(to: SocketAddr) -> io::Result<Socket> {
    let made = socket(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP), WAIT_MS)?;
    // No TIME_WAIT: there are only so many ports.
    made.set_linger(Some(Duration::ZERO))?;
    made.connect_timeout(&to.into(), Duration::from_millis(WAIT_MS))?;
    Ok(made)
}

fn echo(socket: &mut Socket) -> io::Result<()> {
    let text = greeting();
    socket.write_all(text.as_bytes())?;
    socket.read_exact(&mut vec![0; text.len()])
}

/// Only a machine that stands still takes this long.
const WAIT_MS: u64 = 20_000;
