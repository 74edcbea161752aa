//! The far side's servers: they answer whatever reaches them.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use dnswall_agent::demo::network::Network;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Echo servers.
pub struct EchoServers {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What can be read from.
enum Source {
    Listener(TcpListener),
    Stream(TcpStream),
    Datagrams(UdpSocket),
}

impl EchoServers {
    /// Listens at the far side.
    ///
    /// # Errors
    /// The kernel's.
    pub fn start(network: &Network, tcp: &BTreeSet<SocketAddr>, udp: &BTreeSet<SocketAddr>) -> Result<Self> {
        let mut sources = Vec::new();
        for at in tcp {
            let listener =
                network.far.run(|| TcpListener::bind(at)).with_context(|| format!("listen at tcp {at}"))?;
            listener.set_nonblocking(true)?;
            sources.push(Source::Listener(listener));
        }
        for at in udp {
            let socket =
                network.far.run(|| UdpSocket::bind(at)).with_context(|| format!("listen at udp {at}"))?;
            socket.set_nonblocking(true)?;
            sources.push(Source::Datagrams(socket));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread =
            thread::spawn(move || while !stopped.load(Ordering::Relaxed) && turn(&mut sources).is_ok() {});
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for EchoServers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in there has been printed.
            let _ = thread.join();
        }
    }
}

/// Waits a moment and answers what came.
fn turn(sources: &mut Vec<Source>) -> io::Result<()> {
    let wait = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    let mut descriptors: Vec<PollFd<'_>> =
        sources.iter().map(|source| PollFd::from_borrowed_fd(source.as_fd(), PollFlags::IN)).collect();
    match poll(&mut descriptors, Some(&wait)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let ready: Vec<bool> = descriptors.iter().map(|descriptor| !descriptor.revents().is_empty()).collect();
    let mut accepted = Vec::new();
    let mut at = 0;
    sources.retain_mut(|source| {
        at += 1;
        !ready[at - 1] || answer(source, &mut accepted)
    });
    sources.extend(accepted);
    Ok(())
}

/// Whether the source lives on.
fn answer(source: &mut Source, accepted: &mut Vec<Source>) -> bool {
    let mut buffer = [0; 4096];
    match source {
        Source::Listener(listener) => {
            accepted.extend(listener.accept().ok().map(|(stream, _)| Source::Stream(stream)));
            true
        }
        Source::Stream(stream) => match stream.read(&mut buffer) {
            Ok(0) | Err(_) => false,
            Ok(length) => stream.write_all(&buffer[..length]).is_ok(),
        },
        Source::Datagrams(socket) => {
            if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                // Whether it arrives is for the one who asked to see.
                let _ = socket.send_to(&buffer[..length], from);
            }
            true
        }
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Listener(listener) => listener.as_fd(),
            Self::Stream(stream) => stream.as_fd(),
            Self::Datagrams(socket) => socket.as_fd(),
        }
    }
}
