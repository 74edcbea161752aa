//! Takes a socket of a wall whose records cannot be read, gives what can be said of its owner from outside.
//!
//! Whoever holds a socket counts as its owner, if all who hold it are the same to a policy: one cgroup and one
//! program. Otherwise nothing is said, and the socket counts as older than the wall: its cgroup and its user are its own,
//! and no rule with `exe` binds it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;

use dnswall_common::socket::{SOCKET_FOREIGN, SOCKET_RAW, SocketState, TAGS};
use dnswall_common::who::Who;
use rustix::net::sockopt::{socket_cookie, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType, getpeername};

use super::cgroup::{Cgroup2Mount, walk};
use super::executable_identity;
use super::open_sockets::OpenSocket;

/// The processes below a wall's cgroup, as they were when this was made.
pub struct Processes {
    cgroups: HashMap<u32, u64>,
    known: HashMap<u32, Option<Process>>,
}

/// What a policy asks of a process, and what events say of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    cgroup: u64,
    uid: u32,
    exe: (u64, u32),
    comm: [u8; 16],
}

impl Processes {
    /// Those below `top`. They are asked for by cgroup: that is the same whatever namespace the agent is in.
    pub fn below(mount: &Cgroup2Mount, top: &Path) -> Self {
        let mut cgroups = HashMap::new();
        walk(mount, top, &mut |id, path| {
            let members = mount.path.join(path.trim_start_matches('/')).join("cgroup.procs");
            let members = fs::read_to_string(members).unwrap_or_default();
            cgroups.extend(members.lines().filter_map(|pid| Some((pid.parse().ok()?, id))));
        });
        Self { cgroups, known: HashMap::new() }
    }

    /// A record for this socket, if there is one to be made. An established connection gets none: without one it lives
    /// on, whoever made it and whichever way it was made, and nothing here tells an accepted one from another.
    pub fn adopt(&mut self, socket: &OpenSocket) -> Option<SocketState> {
        let family = socket_domain(socket).ok()?;
        if family != AddressFamily::INET && family != AddressFamily::INET6 {
            return None;
        }
        let kind = socket_type(socket).ok()?;
        if kind == SocketType::STREAM && getpeername(socket).is_ok_and(|peer| peer.is_some()) {
            return None;
        }
        let owner = self.owner(socket)?;
        Some(SocketState {
            cookie: socket_cookie(socket).ok()?,
            cgroup: owner.cgroup,
            netns: 0,
            start_ns: 0,
            exe_number: owner.exe.0,
            exe_device: owner.exe.1,
            uid: owner.uid,
            pid: *socket.holders.first()?,
            // What source it has named before nobody knows.
            flags: SOCKET_FOREIGN | if kind == SocketType::RAW { SOCKET_RAW } else { 0 },
            parent_high: 0,
            parent_low: 0,
            comm: owner.comm,
            who: [Who::NONE; 2],
            who_generation: [0; 2],
            allowed: [0; TAGS],
            allowed_generation: 0,
            next_way: 0,
            never_heard: 0,
            source: 0,
        })
    }

    fn owner(&mut self, socket: &OpenSocket) -> Option<Process> {
        let mut holders = socket.holders.iter();
        let mut owner = self.process(*holders.next()?)?;
        for pid in holders {
            let other = self.process(*pid)?;
            if (other.cgroup, other.exe) != (owner.cgroup, owner.exe) {
                return None;
            }
            if other.uid != owner.uid {
                // The socket's own: whoever made it.
                owner.uid = rustix::fs::fstat(socket).ok()?.st_uid;
            }
        }
        Some(owner)
    }

    fn process(&mut self, pid: u32) -> Option<Process> {
        let cgroup = *self.cgroups.get(&pid)?;
        self.known.entry(pid).or_insert_with(|| read(pid, cgroup)).clone()
    }
}

fn read(pid: u32, cgroup: u64) -> Option<Process> {
    let directory = Path::new("/proc").join(pid.to_string());
    let status = fs::read_to_string(directory.join("status")).ok()?;
    let exe = File::open(directory.join("exe")).and_then(|file| executable_identity(&file));
    let mut comm = [0; 16];
    let name = fs::read(directory.join("comm")).unwrap_or_default();
    let name = name.trim_ascii_end();
    let length = name.len().min(comm.len() - 1);
    comm[..length].copy_from_slice(&name[..length]);
    Some(Process { cgroup, uid: real_uid(&status)?, exe: exe.unwrap_or((0, 0)), comm })
}

/// The line `Uid:` holds four, the first of which is the real one.
fn real_uid(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_user_is_read() {
        assert_eq!(real_uid("Name:\tx\nUid:\t7\t0\t0\t0\nGid:\t1\t1\t1\t1\n"), Some(7));
        assert_eq!(real_uid("Name:\tUid: 5\n"), None);
    }

    #[test]
    fn this_process_is_known_by_what_a_policy_asks() {
        let this = read(std::process::id(), 5).unwrap();
        let exe = executable_identity(&File::open("/proc/self/exe").unwrap()).unwrap();
        assert_eq!((this.cgroup, this.exe), (5, exe));
        assert_eq!(this.uid, rustix::process::getuid().as_raw());
    }
}
