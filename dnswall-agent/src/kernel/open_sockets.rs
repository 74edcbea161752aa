//! Every socket that a process holds, found through `/proc` and borrowed from whoever holds it: what is stored in a
//! socket can be read and written from outside only by descriptor.
//!
//! Not found: sockets in flight between processes, those only io_uring or the kernel holds, and those of a thread that
//! unshared its descriptors.

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// One socket.
pub struct OpenSocket {
    /// Its number in the kernel's list of sockets.
    pub inode: u64,
    /// Processes that hold it.
    pub holders: Vec<u32>,
    descriptor: OwnedFd,
}

/// What a look at all processes found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Sockets that were looked at.
    pub sockets: usize,
    /// Sockets that nobody lent: their processes ended, or may not be looked into (which takes `CAP_SYS_PTRACE`).
    pub refused: usize,
}

/// Hands every open socket for which `wanted` says so to `each`.
pub fn each(wanted: impl Fn(u64) -> bool, mut each: impl FnMut(&OpenSocket)) -> Looked {
    let mut looked = Looked::default();
    for (inode, holders) in held() {
        if !wanted(inode) {
            continue;
        }
        match holders.iter().find_map(|(pid, number)| borrow(*pid, *number, inode)) {
            Some(descriptor) => {
                looked.sockets += 1;
                let mut holders: Vec<u32> = holders.into_iter().map(|(pid, _)| pid).collect();
                holders.dedup();
                each(&OpenSocket { inode, holders, descriptor });
            }
            None => looked.refused += 1,
        }
    }
    looked
}

impl AsFd for OpenSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for OpenSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

/// By socket: who holds it, and under which number.
fn held() -> HashMap<u64, Vec<(u32, RawFd)>> {
    let mut found: HashMap<u64, Vec<(u32, RawFd)>> = HashMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        for entry in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let (Some(number), Some(inode)) = (number, socket_inode(&entry.path())) {
                found.entry(inode).or_default().push((pid, number));
            }
        }
    }
    found
}

/// `socket:[12345]`
fn socket_inode(descriptor: &Path) -> Option<u64> {
    let target = fs::read_link(descriptor).ok()?;
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// A descriptor of one's own for somebody's socket (`pidfd_getfd`, 5.6); `None` when it is another by now.
fn borrow(pid: u32, number: RawFd, inode: u64) -> Option<OwnedFd> {
    let process = pidfd_open(Pid::from_raw(i32::try_from(pid).ok()?)?, PidfdFlags::empty()).ok()?;
    let descriptor = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok()?;
    (rustix::fs::fstat(&descriptor).ok()?.st_ino == inode).then_some(descriptor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn a_socket_is_found_by_its_number_and_lent() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let inode = rustix::fs::fstat(&socket).unwrap().st_ino;
        let mut found = Vec::new();
        let looked = each(
            |wanted| wanted == inode,
            |open| {
                let address = rustix::net::getsockname(open).unwrap();
                found.push((open.holders.clone(), std::net::SocketAddr::try_from(address).unwrap()));
            },
        );
        assert_eq!(found, [(vec![std::process::id()], socket.local_addr().unwrap())]);
        assert_eq!(looked, Looked { sockets: 1, refused: 0 });
    }
}
