//! One process's directory in /proc, held open: all that is read through it is about the same process, even when its
//! number is given to another one meanwhile.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use dnswall_common::identity::exe_number;
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, openat, readlinkat, statx};

use super::exe::ExeId;
use super::patience;

/// Bytes of a command line that are kept.
pub const COMMAND_LINE_BYTES_MAX: usize = 4_096;
/// Bytes of `stat` that are read: the fields before the start time fit many times over.
const STAT_BYTES_MAX: usize = 4_096;
/// Bytes of `maps` searched for the executable, which the loader maps first.
const MAPS_BYTES_MAX: usize = 64 * 1_024;
/// Bytes of `cgroup` that are read: a hybrid host has a line for each controller.
const CGROUP_BYTES_MAX: usize = 16 * 1_024;

/// An open `/proc/PID`.
#[derive(Debug)]
pub struct ProcDir {
    dir: OwnedFd,
}

/// What `stat` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The parent; 0 for none.
    pub parent_pid: u32,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
}

impl ProcDir {
    /// Opens the directory below `root` (`/proc`); `None` when there is no such process.
    pub fn open(root: &Path, pid: u32) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let dir = rustix::fs::open(root.join(pid.to_string()), flags, Mode::empty()).ok()?;
        Some(Self { dir })
    }

    /// Parent and start time.
    pub fn stat(&self) -> Option<Stat> {
        parse_stat(&read(&self.dir, "stat", STAT_BYTES_MAX)?)
    }

    /// The name of its first thread, cut to `bytes_max` bytes.
    pub fn name(&self, bytes_max: usize) -> Option<String> {
        let bytes = read(&self.dir, "comm", bytes_max + 1)?;
        let name = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        (!name.is_empty()).then(|| super::text::printable(name, bytes_max))
    }

    /// Arguments joined by spaces, cut to `bytes_max` bytes (and marked); `None` when there are none.
    pub fn command_line(&self, bytes_max: usize) -> Option<String> {
        let bytes = patience::ask(&self.dir, "cmdline", bytes_max + 1, read)?;
        let mut line = bytes.as_slice();
        if line.len() <= bytes_max {
            while let Some(rest) = line.strip_suffix(b"\0") {
                line = rest;
            }
        }
        let line: Vec<u8> = line.iter().map(|byte| if *byte == 0 { b' ' } else { *byte }).collect();
        (!line.is_empty()).then(|| super::text::printable(&line, bytes_max))
    }

    /// Where the executable is, as its mount namespace names it.
    pub fn exe_path(&self) -> Option<Vec<u8>> {
        Some(readlinkat(&self.dir, "exe", Vec::new()).ok()?.into_bytes())
    }

    /// The executable, as the kernel knows it, without opening it. Where stat reports another device than the kernel's
    /// own, by the mapping that has its path.
    pub fn exe(&self) -> Option<ExeId> {
        let path = self.exe_path()?;
        let maps = self.maps().unwrap_or_default();
        let found = look(&self.dir, "exe");
        let is_mapped = |file: &Seen| mappings(&maps, &path).any(|it| it == (file.inode, file.device));
        match found {
            Some(known) if is_mapped(&known) => Some(known.id()),
            known => {
                let (inode, device) =
                    mappings(&maps, &path).next().or(known.map(|it| (it.inode, it.device)))?;
                Some(Seen { inode, device, owner: known.map_or(0, |it| it.owner) }.id())
            }
        }
    }

    /// The same if it is this one that the process runs.
    pub fn open_program(&self, exe: ExeId) -> Option<OwnedFd> {
        let path = self.exe_path()?;
        let file = self.open_exe()?;
        let found = look(&file, "").map(Seen::id)?;
        // Where stat reports another device than the kernel's own, the mappings know.
        let is_it = found == exe || found.number == exe.number && self.runs(exe, &path);
        is_it.then_some(file)
    }

    /// The executable, opened for nothing but to be there: nobody else's gets its inode number meanwhile.
    pub fn open_exe(&self) -> Option<OwnedFd> {
        openat(&self.dir, "exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()
    }

    /// Whether the process runs `exe` now, from `path` (its [`Self::exe_path`]).
    ///
    /// Where stat reports another device than the kernel's own (btrfs subvolumes, some overlays), the mappings have
    /// the kernel's numbers.
    pub fn runs(&self, exe: ExeId, path: &[u8]) -> bool {
        let Some(known) = look(&self.dir, "exe") else { return false };
        known.id() == exe
            || self.maps().is_some_and(|maps| {
                mappings(&maps, path).any(|(inode, device)| Seen { inode, device, ..known }.id() == exe)
            })
    }

    /// The path of its cgroup in the unified hierarchy.
    pub fn cgroup_path(&self) -> Option<Vec<u8>> {
        let lines = read(&self.dir, "cgroup", CGROUP_BYTES_MAX)?;
        lines.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::")).map(<[u8]>::to_vec)
    }

    /// Its mappings, one a line.
    fn maps(&self) -> Option<Vec<u8>> {
        patience::ask(&self.dir, "maps", MAPS_BYTES_MAX, read)
    }
}

/// At most `bytes_max` bytes of a file. Of `cmdline` and `maps` it may wait for the process: see [`patience`].
fn read(dir: &OwnedFd, name: &'static str, bytes_max: usize) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::from(openat(dir, name, flags, Mode::empty()).ok()?);
    let mut bytes = Vec::new();
    file.take(bytes_max as u64).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Every process below `proc`.
///
/// # Errors
/// When it cannot be read.
pub fn pids(proc: &Path) -> io::Result<impl Iterator<Item = u32>> {
    Ok(fs::read_dir(proc)?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// A file as stat shows it.
#[derive(Clone, Copy)]
struct Seen {
    inode: u64,
    device: u32,
    owner: u32,
}

impl Seen {
    fn id(self) -> ExeId {
        ExeId { number: exe_number(self.inode, self.owner), device: self.device }
    }
}

/// An executable, as the kernel knows it.
pub(super) fn executable(dir: impl AsFd, name: impl rustix::path::Arg) -> Option<ExeId> {
    look(dir, name).map(Seen::id)
}

/// The inode number of a file.
pub(super) fn inode(path: impl rustix::path::Arg) -> Option<u64> {
    look(rustix::fs::CWD, path).map(|seen| seen.inode)
}

/// Without waiting for a file system that asks a process or a server: whoever runs a binary from a FUSE mount must not be
/// able to stop the agent.
fn look(dir: impl AsFd, name: impl rustix::path::Arg) -> Option<Seen> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::EMPTY_PATH;
    let stat = statx(dir, name, flags, StatxFlags::INO | StatxFlags::UID).ok()?;
    let device = ExeId::device_of(stat.stx_dev_major, stat.stx_dev_minor);
    Some(Seen { inode: stat.stx_ino, device, owner: stat.stx_uid })
}

/// The fields after the name, which is in parentheses and may hold any byte, parentheses too.
fn parse_stat(stat: &[u8]) -> Option<Stat> {
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
    let mut fields = fields.split_ascii_whitespace();
    // proc_pid_stat(5): the name is field 2, the parent field 4, the start time field 22.
    Some(Stat { parent_pid: fields.nth(1)?.parse().ok()?, start_ticks: fields.nth(17)?.parse().ok()? })
}

/// Inode and device of the files that are mapped under this path.
fn mappings<'m>(maps: &'m [u8], path: &'m [u8]) -> impl Iterator<Item = (u64, u32)> + 'm {
    maps.split(|byte| *byte == b'\n').filter_map(move |line| {
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let device = fields.nth(3).and_then(parse_device)?;
        let inode = fields.next().and_then(|field| std::str::from_utf8(field).ok()?.parse().ok())?;
        let name = fields.next().map(<[u8]>::trim_ascii_start)?;
        (name == path).then_some((inode, device))
    })
}

/// `fd:01`, both in hexadecimal.
fn parse_device(field: &[u8]) -> Option<u32> {
    let (major, minor) = std::str::from_utf8(field).ok()?.split_once(':')?;
    Some(ExeId::device_of(u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn this() -> ProcDir {
        ProcDir::open(Path::new("/proc"), std::process::id()).unwrap()
    }

    #[test]
    fn a_name_full_of_parentheses_hides_no_field() {
        let stat = b"12 (a) R 9 (x) y) S 77 12 12 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 168839 3133440 416";
        assert_eq!(parse_stat(stat), Some(Stat { parent_pid: 77, start_ticks: 168_839 }));
        assert_eq!(parse_stat(b"12 (a) S 77"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn this_process_is_read() {
        let stat = this().stat().unwrap();
        assert_eq!(stat.parent_pid, std::os::unix::process::parent_id());
        assert!(stat.start_ticks > 0);
        assert!(this().command_line(COMMAND_LINE_BYTES_MAX).unwrap().contains("dnswall"));
        assert!(this().name(4).is_some_and(|name| name.chars().count() <= 5), "cut");
        assert!(this().cgroup_path().unwrap().starts_with(b"/"));
        assert!(ProcDir::open(Path::new("/proc"), u32::MAX).is_none());
    }

    #[test]
    fn the_executable_is_recognised_by_stat_and_by_its_mappings() {
        let path = this().exe_path().unwrap();
        let exe = executable(&this().dir, "exe").unwrap();
        assert!(this().runs(exe, &path));
        assert_eq!(this().exe(), Some(exe));
        assert!(!this().runs(ExeId { number: exe.number + 1, device: exe.device }, &path));
        let maps = this().maps().unwrap();
        let seen = look(&this().dir, "exe").unwrap();
        assert!(mappings(&maps, &path).any(|mapped| mapped == (seen.inode, seen.device)));
        assert_eq!(mappings(&maps, b"/other").next(), None);
    }

    #[test]
    fn command_lines_are_bounded_and_safe() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("5")).unwrap();
        let shown = |bytes: &[u8]| {
            fs::write(root.path().join("5/cmdline"), bytes).unwrap();
            ProcDir::open(root.path(), 5).unwrap().command_line(COMMAND_LINE_BYTES_MAX)
        };
        assert_eq!(shown(b"sh\0-c\0echo \x1b[2J\0"), Some("sh -c echo \\x1b[2J".to_owned()));
        assert_eq!(shown(b""), None);
        assert_eq!(shown(b"\0\0"), None);
        assert_eq!(shown(&vec![b'a'; COMMAND_LINE_BYTES_MAX]).unwrap().len(), COMMAND_LINE_BYTES_MAX);
        let cut = shown(&vec![b'a'; 1_000_000]).unwrap();
        assert!(cut.ends_with("a…") && cut.chars().count() == COMMAND_LINE_BYTES_MAX + 1);
    }
}
