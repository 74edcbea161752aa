//! A file that never answers, and a process whose memory waits for it.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Error, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::mount::{MountFlags, mount};

use crate::act::READY;

/// Bytes of the file.
const PAGE: usize = 4_096;
/// Opcodes of FUSE (`include/uapi/linux/fuse.h`).
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;

/// Mounts a file over `at`, of which everything is known but its bytes: who reads those waits until this process ends.
///
/// # Errors
/// The kernel's.
pub fn keep_silent(at: &Path) -> io::Result<()> {
    let mut device = File::options().read(true).write(true).open("/dev/fuse")?;
    let options = format!("fd={},rootmode=100444,user_id=0,group_id=0,allow_other", device.as_raw_fd());
    mount("silence", at, "fuse", MountFlags::NOSUID | MountFlags::NODEV, CString::new(options)?.as_c_str())?;
    println!("{READY}");
    let mut request = vec![0; 32 * PAGE];
    loop {
        let length = device.read(&mut request)?;
        let Some(header) = request[..length].first_chunk::<40>() else { continue };
        let opcode = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
        let (error, body) = match opcode {
            INIT => (0, init()),
            GETATTR => (0, attributes()),
            OPEN => (0, vec![0; 16]),
            READ | INTERRUPT => continue,
            _ => (-libc::ENOSYS, Vec::new()),
        };
        let mut answer = (16 + body.len() as u32).to_ne_bytes().to_vec();
        answer.extend(error.to_ne_bytes());
        answer.extend(&header[8..16]);
        answer.extend(body);
        device.write_all(&answer)?;
    }
}

/// `fuse_init_out`: version 7.31, writes of a page, times of nanoseconds.
fn init() -> Vec<u8> {
    let words = [7u32, 31, 0, 0, 12 | 9 << 16, PAGE as u32, 1];
    let mut body: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    body.resize(64, 0);
    body
}

/// `fuse_attr_out`: for an hour a file of one page that everybody may read.
fn attributes() -> Vec<u8> {
    let mut body = 3_600u64.to_ne_bytes().to_vec();
    body.resize(16, 0);
    for number in [1u64, PAGE as u64, 8] {
        body.extend(number.to_ne_bytes());
    }
    body.resize(76, 0);
    for number in [0o100_444u32, 1, 0, 0, 0, PAGE as u32, 0] {
        body.extend(number.to_ne_bytes());
    }
    body
}

/// Says [`READY`]; then makes whoever asks for its memory wait for `file`, and sends a datagram.
///
/// One thread reads a page of the file through `/proc/self/mem`, which waits with the memory's lock held; another wants to
/// map something, and everybody after it waits for the lock as well.
///
/// # Errors
/// The kernel's.
pub fn stall(file: &Path, to: SocketAddr) -> io::Result<()> {
    // The size, without which there is no page to read.
    fs::metadata(file)?;
    let page = map(Some(&File::open(file)?))?;
    let memory = File::open("/proc/self/mem")?;
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // Whatever of the program is needed below is in memory from here on: faulting it in would take the lock.
    socket.send_to(b"here", (Ipv4Addr::LOCALHOST, 9))?;
    thread::sleep(Duration::from_millis(1));
    println!("{READY}");
    thread::spawn(move || memory.read_at(&mut [0], page as u64));
    thread::spawn(|| {
        thread::sleep(Duration::from_millis(500));
        map(None)
    });
    thread::sleep(Duration::from_secs(1));
    // What it says of the outcome would take memory.
    let _ = socket.send_to(b"stalled", to);
    loop {
        thread::park();
    }
}

/// Maps a page of the file, or of nothing.
fn map(file: Option<&File>) -> io::Result<usize> {
    let (flags, number) = match file {
        Some(file) => (libc::MAP_PRIVATE, file.as_raw_fd()),
        None => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
    };
    // SAFETY: a mapping of its own, where the kernel finds room.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, libc::PROT_READ, flags, number, 0) };
    if at == libc::MAP_FAILED { Err(Error::last_os_error()) } else { Ok(at as usize) }
}
