//! Which inode an executable is, in the kernel's own words.
//!
//! `stat` is not enough: on btrfs and overlayfs its device is not the superblock's. The kernel prints
//! `inode->i_sb->s_dev` and `i_ino` of a mapped file in `/proc/self/maps`, the same two numbers the programs read from
//! a task.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;

use dnswall_common::identity::exe_number;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// [`exe_number`] and device (`major << 20 | minor`) of a file opened for reading.
///
/// # Errors
/// When it is no file, or empty (nothing that can run is).
pub fn executable_identity(file: &File) -> io::Result<(u64, u32)> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    // SAFETY: a fresh private mapping that nothing else knows of; it is never read, only looked up by address.
    let address = unsafe { mmap(core::ptr::null_mut(), 1, ProtFlags::READ, MapFlags::PRIVATE, file, 0)? };
    let found = fs::read_to_string("/proc/self/maps").and_then(|maps| {
        identity_at(&maps, address as usize).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "its mapping is not listed in /proc/self/maps")
        })
    });
    // SAFETY: the mapping just made; the length is rounded up to the same page.
    unsafe { munmap(address, 1)? };
    found.map(|(inode, device)| (exe_number(inode, metadata.uid()), device))
}

/// What the kernel may know a file by: [`executable_identity`], and for a file on an overlay what `stat` says. Of such a one an
/// older kernel (6.1 does) shows the mapped layer's, while a task has the overlay's, which `stat` tells when all layers are of
/// one file system. What the kernel never gives a task is nobody's.
///
/// # Errors
/// As there.
pub fn executable_identities(file: &File) -> io::Result<[(u64, u32); 2]> {
    let shown = executable_identity(file)?;
    if u64::try_from(rustix::fs::fstatfs(file)?.f_type) != Ok(OVERLAY) {
        return Ok([shown; 2]);
    }
    let metadata = file.metadata()?;
    let device = rustix::fs::major(metadata.dev()) << 20 | rustix::fs::minor(metadata.dev());
    Ok([shown, (exe_number(metadata.ino(), metadata.uid()), device)])
}

/// `OVERLAYFS_SUPER_MAGIC`
const OVERLAY: u64 = 0x794c_7630;

/// Inode and device of the mapping that begins at `address`.
fn identity_at(maps: &str, address: usize) -> Option<(u64, u32)> {
    // start-end perms offset major:minor inode path
    let line = maps.lines().find(|line| {
        line.split_once('-').and_then(|(start, _)| usize::from_str_radix(start, 16).ok()) == Some(address)
    })?;
    let mut fields = line.split_ascii_whitespace().skip(3);
    let (major, minor) = fields.next()?.split_once(':')?;
    let device = u32::from_str_radix(major, 16).ok()? << 20 | u32::from_str_radix(minor, 16).ok()?;
    Some((fields.next()?.parse().ok()?, device))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_inode_is_the_files_and_a_copy_is_another() {
        let directory = tempfile::tempdir().unwrap();
        let (one, two) = (directory.path().join("one"), directory.path().join("two"));
        fs::write(&one, "#!/bin/sh\n").unwrap();
        fs::copy(&one, &two).unwrap();
        let link = directory.path().join("link");
        fs::hard_link(&one, &link).unwrap();
        let identify = |path: &Path| executable_identity(&File::open(path)?);
        let identity = identify(&one).unwrap();
        let metadata = fs::metadata(&one).unwrap();
        assert_eq!(identity.0, exe_number(metadata.ino(), metadata.uid()));
        assert_eq!(identify(&link).unwrap(), identity);
        assert_ne!(identify(&two).unwrap(), identity);
        assert!(identify(directory.path()).is_err());
    }

    #[test]
    fn devices_are_put_together_as_the_kernel_does() {
        let maps = "7f00-8000 r--p 00000000 fe:01 1234 /usr/bin/x\n9000-a000 r--p 0 00:1b 7 /y";
        assert_eq!(identity_at(maps, 0x7f00), Some((1234, 0xfe << 20 | 1)));
        assert_eq!(identity_at(maps, 0x9000), Some((7, 0x1b)));
        assert_eq!(identity_at(maps, 0xa000), None);
    }
}
