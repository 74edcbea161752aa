//! Network namespaces that have processes, and what is a namespace's own.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::message::{Message, attributes, field, messages};
use crate::event::proc_dir::pids;

/// A network namespace, found through a process in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its inode.
    pub inode: u64,
    /// A process that was in it.
    pub pid: u32,
}

impl Namespace {
    /// Every one that has processes, this thread's first, and how many there were beyond `max`.
    pub fn all(proc: &Path, max: usize) -> io::Result<(Vec<Self>, usize)> {
        let own = fs::metadata("/proc/thread-self/ns/net")?.ino();
        let mut found = HashMap::from([(own, std::process::id())]);
        let mut left_out = HashSet::new();
        for pid in pids(proc)? {
            // A process that ended meanwhile, or whose namespace nobody may see.
            let Ok(metadata) = fs::metadata(path(proc, pid)) else { continue };
            if found.len() < max || found.contains_key(&metadata.ino()) {
                found.entry(metadata.ino()).or_insert(pid);
            } else {
                left_out.insert(metadata.ino());
            }
        }
        let mut all: Vec<Self> = found.into_iter().map(|(inode, pid)| Self { inode, pid }).collect();
        all.sort_by_key(|namespace| (namespace.inode != own, namespace.inode));
        Ok((all, left_out.len()))
    }

    /// Moves the calling thread into it.
    ///
    /// # Errors
    /// The kernel's: not permitted without `CAP_SYS_ADMIN`; or its process has ended.
    pub fn enter(&self, proc: &Path) -> io::Result<()> {
        if fs::metadata("/proc/thread-self/ns/net")?.ino() == self.inode {
            return Ok(());
        }
        let file = File::open(path(proc, self.pid))?;
        if file.metadata()?.ino() != self.inode {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?)
    }
}

/// The addresses of the calling thread's namespace: what is sent to them never leaves it.
///
/// # Errors
/// The kernel's.
pub fn own_addresses() -> io::Result<HashSet<IpAddr>> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None, // NETLINK_ROUTE is 0
    )?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    // `struct ifaddrmsg`, of every family.
    send(&socket, &Message::new(libc::RTM_GETADDR, libc::NLM_F_DUMP, &[0; 8]).finish(1), SendFlags::empty())?;
    let mut addresses = HashSet::new();
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    for _ in 0..ANSWERS_MAX {
        let (length, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
        for (kind, body) in messages(&answer[..length.min(ANSWER_BYTES_MAX)]) {
            match (i32::from(kind), kind) {
                (libc::NLMSG_DONE | libc::NLMSG_ERROR, _) => return Ok(addresses),
                (_, libc::RTM_NEWADDR) => {
                    let attributes = attributes(body.get(8..).unwrap_or_default());
                    let own = attributes
                        .filter(|(kind, _)| [libc::IFA_LOCAL, libc::IFA_ADDRESS].contains(kind))
                        // The address is the other end's where a link has a local one, too.
                        .max_by_key(|(kind, _)| *kind == libc::IFA_LOCAL);
                    addresses.extend(own.and_then(|(_, bytes)| address(bytes)));
                }
                _ => {}
            }
        }
    }
    Ok(addresses)
}

/// Local ports that the kernel chooses by itself, in the calling thread's namespace.
pub fn chosen_ports() -> std::ops::RangeInclusive<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ends = text.split_ascii_whitespace().map(str::parse);
    match (ends.next(), ends.next()) {
        (Some(Ok(first)), Some(Ok(last))) => first..=last,
        // The kernel's default.
        _ => 32_768..=60_999,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(Ipv4Addr::from(field::<4>(bytes, 0)?))),
        16 => Some(IpAddr::from(Ipv6Addr::from(field::<16>(bytes, 0)?))),
        _ => None,
    }
}

fn path(proc: &Path, pid: u32) -> PathBuf {
    proc.join(pid.to_string()).join("ns/net")
}

const PATIENCE: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Parts of an answer; each holds some three hundred addresses.
const ANSWERS_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_namespace_is_the_first() {
        let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
        let (all, left_out) = Namespace::all(Path::new("/proc"), 1_000).unwrap();
        assert_eq!((all[0].inode, left_out), (own, 0));
        assert_eq!(all.iter().filter(|namespace| namespace.inode == own).count(), 1);
        all[0].enter(Path::new("/proc")).unwrap();
        let (all, left_out) = Namespace::all(Path::new("/proc"), 1).unwrap();
        assert_eq!((all.len(), all[0].inode), (1, own));
        assert!(left_out < 1_000);
    }

    #[test]
    fn loopback_has_its_address_where_it_is_up() {
        let addresses = own_addresses().unwrap();
        let up = std::net::UdpSocket::bind("127.0.0.1:0").is_ok();
        assert_eq!(addresses.contains(&"127.0.0.1".parse::<IpAddr>().unwrap()), up);
        assert!(chosen_ports().contains(&40_000));
    }
}
