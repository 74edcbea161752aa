//! The connections that run now: takes what the kernel lists of every network namespace, gives those that began on this
//! side, whose they are, and what a policy says to them.
//!
//! `SockDiag → Found → Connection → Seen`, then [`judge`]: `Seen + MapImage → Refused`. Direction and owner of a socket
//! are what the wall recorded of it. Of one that is older than the wall nothing is recorded, and of UDP sockets the kernel
//! does not tell: the owner is who holds it now, and the direction a guess from its port ([`Direction`]), good enough to
//! report and, where a policy asks for it, to cut; no packet is ever judged by it.

pub mod judge;
mod message;
pub mod namespace;
pub mod owner;
pub mod recorded;
pub mod sock_diag;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use dnswall_common::flow::protocol;

pub use judge::{Owned, Refused, Scene};
pub use namespace::Namespace;
pub use owner::Owner;
pub use recorded::Recorded;
pub use sock_diag::{Found, SockDiag, SocketId, Wanted, state};

/// Network namespaces that are looked into.
pub const NAMESPACES_MAX: usize = 1_024;
/// Sockets that are looked at in one of them.
pub const SOCKETS_MAX: usize = 131_072;
/// Connections that are kept.
pub const CONNECTIONS_MAX: usize = 65_536;
/// How long a look may take.
pub const LOOK_MAX: Duration = Duration::from_secs(5);
/// How much longer is waited for a look whose last question to the kernel is under way.
const GRACE: Duration = Duration::from_secs(3);

/// Who began a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// This side, as the wall recorded, or as it looks: nobody listens on its port, which the kernel chose.
    Outbound,
    /// Nobody listens on its port, but a process chose it: it may belong to a listener that is gone.
    Unclear,
}

/// One connection that began here, or may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// IANA protocol: TCP or UDP.
    pub protocol: u8,
    /// This end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Who began it.
    pub direction: Direction,
    /// The other end has not answered yet: nothing has been said over it.
    pub opening: bool,
    /// The process has closed it; what it wrote before may still be on its way.
    pub closing: bool,
    /// Index into [`Seen::namespaces`].
    pub namespace: usize,
    /// The socket's cgroup.
    pub cgroup: Option<u64>,
    /// Who made the socket.
    pub uid: u32,
    /// What the wall recorded; `None` for a TCP socket that is older than the wall, and for every UDP socket.
    pub recorded: Option<Recorded>,
    /// Who holds a socket of which nothing is recorded.
    pub owner: Option<Owner>,
    /// What the kernel knows it by.
    pub id: SocketId,
    inode: u32,
}

/// What a look found, and what it left out.
#[derive(Debug, Default)]
pub struct Seen {
    /// Connections that began here, or may have, without those that stay in their namespace.
    pub connections: Vec<Connection>,
    /// Where they are.
    pub namespaces: Vec<Namespace>,
    /// Namespaces that were not looked into: this agent may not enter them, they are too many, or there was no time.
    pub namespaces_left_out: usize,
    /// Sockets that were not looked at, because there are too many.
    pub sockets_left_out: usize,
    proc: PathBuf,
}

/// Looks at the connections that are wanted. `map` is the wall's map of sockets.
///
/// # Errors
/// When nothing can be seen at all, or the look does not come to its end.
pub fn look(proc: &Path, map: Option<OwnedFd>, wanted: Wanted) -> io::Result<Seen> {
    let (proc, deadline) = (proc.to_owned(), Instant::now() + LOOK_MAX);
    // A thread of its own: it ends in another namespace. Not waited for without end: it reads what other processes own.
    in_thread(deadline + GRACE, move || look_until(&proc, map, wanted, deadline))
}

/// Ends connections. Gives those that it ended, and why one was not.
pub fn cut(seen: &Seen, connections: &[(usize, SocketId)]) -> (HashSet<SocketId>, Option<io::Error>) {
    if connections.is_empty() {
        return (HashSet::new(), None);
    }
    let (proc, namespaces) = (seen.proc.clone(), seen.namespaces.clone());
    let mut by_namespace: HashMap<usize, Vec<SocketId>> = HashMap::new();
    for (namespace, socket) in connections {
        by_namespace.entry(*namespace).or_default().push(*socket);
    }
    let done = in_thread(Instant::now() + LOOK_MAX + GRACE, move || {
        let (mut ended, mut trouble) = (HashSet::new(), None);
        for (namespace, sockets) in by_namespace {
            let cut = namespaces[namespace].enter(&proc).and_then(|()| SockDiag::open()).map(|mut diag| {
                for socket in sockets {
                    match diag.destroy(&socket) {
                        Ok(()) => {
                            ended.insert(socket);
                        }
                        // It has ended by itself.
                        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                        Err(error) => trouble = Some(error),
                    }
                }
            });
            trouble = cut.err().or(trouble.take());
        }
        Ok((ended, trouble))
    });
    done.unwrap_or_else(|error| (HashSet::new(), Some(error)))
}

fn in_thread<T: Send + 'static>(
    until: Instant,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (done, result) = mpsc::channel();
    thread::Builder::new().name("connections".to_owned()).spawn(move || {
        // Nobody listens any more when it took too long.
        let _ = done.send(work());
    })?;
    match result.recv_timeout(until.saturating_duration_since(Instant::now())) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => Err(io::ErrorKind::TimedOut.into()),
        Err(mpsc::RecvTimeoutError::Disconnected) => Err(io::Error::other("the look at connections failed")),
    }
}

fn look_until(proc: &Path, map: Option<OwnedFd>, wanted: Wanted, deadline: Instant) -> io::Result<Seen> {
    let (namespaces, namespaces_left_out) = Namespace::all(proc, NAMESPACES_MAX)?;
    let mut seen = Seen { namespaces_left_out, proc: proc.to_owned(), ..Seen::default() };
    for namespace in namespaces {
        let result =
            namespace.enter(proc).and_then(|()| look_here(&mut seen, map.as_ref(), wanted, deadline));
        match result {
            Ok(()) => seen.namespaces.push(namespace),
            // This one is this agent's own: nothing can be seen.
            Err(error) if seen.namespaces.is_empty() => return Err(error),
            Err(error) => {
                tracing::debug!(namespace = namespace.inode, %error, "look at connections");
                seen.namespaces_left_out += 1;
            }
        }
    }
    let old = seen.connections.iter().filter(|connection| connection.recorded.is_none());
    let inodes: HashSet<u32> = old.map(|connection| connection.inode).filter(|inode| *inode != 0).collect();
    let owners = owner::owners(proc, &inodes, deadline);
    for connection in seen.connections.iter_mut().filter(|connection| connection.recorded.is_none()) {
        connection.owner = owners.get(&connection.inode).copied();
    }
    Ok(seen)
}

/// Adds what the calling thread's namespace holds.
fn look_here(seen: &mut Seen, map: Option<&OwnedFd>, wanted: Wanted, deadline: Instant) -> io::Result<()> {
    let own = namespace::own_addresses()?;
    let chosen = namespace::chosen_ports();
    let (mut listeners, mut pairs) = (Vec::new(), HashSet::new());
    let mut connected = Vec::new();
    let (mut count, mut left_out) = (0, 0);
    SockDiag::open()?.list(wanted, map.map(AsFd::as_fd), deadline, &mut |found| {
        count += 1;
        if count > SOCKETS_MAX {
            left_out += 1;
            return true;
        }
        if matches!(found.state, state::LISTEN | state::CLOSE) {
            listeners.push(Listener::of(&found));
        } else {
            pairs.insert((found.protocol, found.local, found.remote));
            connected.push(found);
        }
        true
    })?;
    let listeners: HashSet<Listener> = listeners.into_iter().collect();
    for found in connected {
        let there = found.remote.ip();
        // What never leaves: its other end is here, by its address or, for one that is own by a route, by itself.
        let stays = there.is_loopback()
            || there.is_unspecified()
            || own.contains(&there)
            || pairs.contains(&(found.protocol, found.remote, found.local));
        let direction = direction(&found, &listeners, &chosen);
        let Some(direction) = direction.filter(|_| !stays) else { continue };
        if seen.connections.len() >= CONNECTIONS_MAX {
            left_out += 1;
            continue;
        }
        let opening = found.state == state::SYN_SENT;
        let closing = [state::FIN_WAIT1, state::LAST_ACK, state::CLOSING].contains(&found.state);
        let Found { protocol, local, remote, uid, inode, cgroup, recorded, id, state: _, v6_only: _ } = found;
        let namespace = seen.namespaces.len();
        seen.connections.push(Connection {
            protocol,
            local,
            remote,
            direction,
            opening,
            closing,
            namespace,
            cgroup,
            uid,
            recorded,
            owner: None,
            id,
            inode,
        });
    }
    seen.sockets_left_out += left_out;
    Ok(())
}

/// Where somebody listens, or waits for datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Listener {
    protocol: u8,
    port: u16,
    at: At,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    Address(IpAddr),
    AnyV4,
    AnyV6,
    Any,
}

impl Connection {
    /// Whether it is older than the wall. Of a datagram socket nobody knows, and it does not matter: each is judged.
    pub fn is_older(&self) -> bool {
        self.protocol == protocol::TCP && self.recorded.is_none()
    }
}

#[cfg(test)]
impl Connection {
    /// One that is older than the wall, and of nobody's.
    pub(crate) fn sample(local: SocketAddr, remote: SocketAddr, uid: u32, closing: bool) -> Self {
        Self {
            protocol: protocol::TCP,
            local,
            remote,
            direction: Direction::Outbound,
            opening: false,
            closing,
            namespace: 0,
            cgroup: Some(7),
            uid,
            recorded: None,
            owner: None,
            id: SocketId::NONE,
            inode: 1,
        }
    }
}

impl Listener {
    fn of(found: &Found) -> Self {
        let at = match found.local.ip() {
            IpAddr::V4(address) if address.is_unspecified() => At::AnyV4,
            IpAddr::V6(address) if address.is_unspecified() && found.v6_only => At::AnyV6,
            IpAddr::V6(address) if address.is_unspecified() => At::Any,
            address => At::Address(address),
        };
        Self { protocol: found.protocol, port: found.local.port(), at }
    }
}

/// `None`: it began at the other end.
fn direction(
    found: &Found,
    listeners: &HashSet<Listener>,
    chosen: &std::ops::RangeInclusive<u16>,
) -> Option<Direction> {
    if let Some(recorded) = &found.recorded {
        // The copy of its listener's record has the listener's cookie until it sends something.
        let accepted = recorded.inbound || recorded.cookie != found.id.cookie();
        return (!accepted).then_some(Direction::Outbound);
    }
    if found.state == state::SYN_SENT {
        return Some(Direction::Outbound);
    }
    let (protocol, port, here) = (found.protocol, found.local.port(), found.local.ip());
    let any = if here.is_ipv4() { At::AnyV4 } else { At::AnyV6 };
    let listens = [At::Address(here), any, At::Any]
        .into_iter()
        .any(|at| listeners.contains(&Listener { protocol, port, at }));
    if listens {
        return None;
    }
    Some(if chosen.contains(&port) { Direction::Outbound } else { Direction::Unclear })
}

#[cfg(test)]
mod tests;
