//! Steps of an attempt, timed, until one fails.

use std::io::{self, BufRead as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::act::{GREETING, READY, Report};

/// An attempt under way.
pub struct Attempt {
    start: Instant,
}

/// The step that failed, and why.
pub type Failed = (&'static str, io::Error);

impl Attempt {
    /// Runs `steps` (they give what came back) and reports.
    pub fn run(steps: impl FnOnce(&Self) -> Result<Option<String>, Failed>) -> Report {
        let attempt = Self { start: Instant::now() };
        let outcome = steps(&attempt);
        let elapsed_us = attempt.start.elapsed().as_micros() as u64;
        match outcome {
            Ok(received) => Report { ok: true, elapsed_us, received, ..Report::default() },
            Err((step, error)) => Report {
                step: Some(step.into()),
                errno: Some(error_number(&error)),
                elapsed_us,
                ..Report::default()
            },
        }
    }
}

/// Names the step of a result.
pub trait Step<T> {
    /// Names it.
    ///
    /// # Errors
    /// The result's, with the name.
    fn step(self, name: &'static str) -> Result<T, Failed>;
}

impl<T> Step<T> for io::Result<T> {
    fn step(self, name: &'static str) -> Result<T, Failed> {
        self.map_err(|error| (name, error))
    }
}

/// A socket that waits at most `wait_ms`.
///
/// # Errors
/// The kernel's.
pub fn socket(domain: Domain, kind: Type, protocol: Option<Protocol>, wait_ms: u64) -> io::Result<Socket> {
    let socket = Socket::new(domain, kind, protocol)?;
    let wait = Some(Duration::from_millis(wait_ms.max(1)));
    socket.set_read_timeout(wait)?;
    socket.set_write_timeout(wait)?;
    Ok(socket)
}

/// The IPv6 form of an address, v4-mapped for IPv4.
pub fn as_six(to: SocketAddr) -> SocketAddr {
    match to {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        SocketAddr::V6(_) => to,
    }
}

/// Says [`READY`]; then does `act` once for each line of the standard input, and reports.
///
/// # Errors
/// The pipes'.
pub fn for_each_line(mut act: impl FnMut() -> Report) -> io::Result<()> {
    println!("{READY}");
    for line in io::stdin().lock().lines() {
        line?;
        println!("{}", serde_json::to_string(&act())?);
    }
    Ok(())
}

/// What this process sends.
pub fn greeting() -> String {
    format!("{GREETING} {}\n", std::process::id())
}

/// A receive time-out has no number of its own in std's errors made without one.
fn error_number(error: &io::Error) -> i32 {
    match (error.raw_os_error(), error.kind()) {
        (Some(number), _) => number,
        (None, io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => libc::ETIMEDOUT,
        (None, io::ErrorKind::UnexpectedEof) => libc::ECONNRESET,
        (None, _) => libc::EIO,
    }
}
