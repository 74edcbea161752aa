//! Which process holds a socket: takes inodes, gives processes. Only for sockets of which the wall has recorded nothing.

use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Instant;

use crate::event::ExeId;
use crate::event::proc_dir::{ProcDir, pids};

/// A process that holds a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its number.
    pub pid: u32,
    /// When it started, nanoseconds since boot, as far as `/proc` tells: to the clock tick.
    pub start_ns: u64,
    /// Its executable.
    pub exe: Option<ExeId>,
}

/// The holder of each of these sockets; of several, the one with the lowest number. Sockets that nobody holds, or that
/// were not looked at before `deadline`, are left out.
pub fn owners(proc: &Path, wanted: &HashSet<u32>, deadline: Instant) -> HashMap<u32, Owner> {
    let mut owners = HashMap::new();
    if wanted.is_empty() {
        return owners;
    }
    let Ok(pids) = pids(proc) else { return owners };
    let mut pids: Vec<u32> = pids.collect();
    pids.sort_unstable();
    for pid in pids {
        if owners.len() == wanted.len() || Instant::now() >= deadline {
            break;
        }
        let held: Vec<u32> = sockets(proc, pid).filter(|inode| wanted.contains(inode)).collect();
        let new: Vec<u32> = held.into_iter().filter(|inode| !owners.contains_key(inode)).collect();
        if new.is_empty() {
            continue;
        }
        // One that has ended since holds nothing.
        let Some(owner) = owner(proc, pid) else { continue };
        owners.extend(new.into_iter().map(|inode| (inode, owner)));
    }
    owners
}

fn owner(proc: &Path, pid: u32) -> Option<Owner> {
    let dir = ProcDir::open(proc, pid)?;
    let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
    let start_ns = dir.stat()?.start_ticks.saturating_mul(tick_ns);
    Some(Owner { pid, start_ns, exe: dir.exe() })
}

fn sockets(proc: &Path, pid: u32) -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir(proc.join(pid.to_string()).join("fd"));
    entries.into_iter().flatten().flatten().filter_map(|entry| {
        let target = std::fs::read_link(entry.path()).ok()?;
        let inode = target.as_os_str().as_bytes().strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
        std::str::from_utf8(inode).ok()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use dnswall_common::identity::exe_number;
    use std::os::unix::fs::MetadataExt;
    use std::time::Duration;

    #[test]
    fn this_process_holds_its_sockets() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let file = std::fs::File::from(std::os::fd::OwnedFd::from(socket));
        let inode = file.metadata().unwrap().ino() as u32;
        let later = Instant::now() + Duration::from_secs(60);
        let found = owners(Path::new("/proc"), &HashSet::from([inode]), later);
        let owner = found[&inode];
        assert_eq!(owner.pid, std::process::id());
        let exe = std::fs::metadata("/proc/self/exe").unwrap();
        assert_eq!(owner.exe.unwrap().number, exe_number(exe.ino(), exe.uid()));
        assert!(owner.start_ns > 0);
        assert!(owners(Path::new("/proc"), &HashSet::from([0]), later).is_empty());
        assert!(owners(Path::new("/proc"), &HashSet::from([inode]), Instant::now()).is_empty());
    }
}
