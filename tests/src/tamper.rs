//! What somebody with every right does to a wall: by system calls, through its pins, from another process than the
//! agent's.

use std::ffi::CString;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{HashMap, Map, MapData};
use dnswall_common::ABI_VERSION;
use dnswall_common::limits::RING_BYTES;
use dnswall_common::socket::ReplyKey;
use rustix::mm::{MapFlags, ProtFlags, mmap};

use crate::lab::raw::bpf;

const MAP_LOOKUP_ELEM: libc::c_int = 1;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const OBJ_GET: libc::c_int = 7;
const LINK_DETACH: libc::c_int = 34;

#[repr(C)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[repr(C)]
struct Element {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct Detach {
    link_fd: u32,
}

/// Where a hook's link is pinned.
pub fn link(pins: &Path, program: &str) -> PathBuf {
    pins.join(format!("v{ABI_VERSION}/links/{program}"))
}

/// Where a map is pinned.
pub fn map(pins: &Path, name: &str) -> PathBuf {
    pins.join(format!("v{ABI_VERSION}/maps/{name}"))
}

/// Opens what is pinned.
///
/// # Errors
/// The kernel's.
pub fn open(path: &Path) -> Result<OwnedFd> {
    let text = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = ObjGet { pathname: text.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    let fd = bpf(OBJ_GET, &mut attributes).with_context(|| format!("open {}", path.display()))?;
    // SAFETY: a descriptor the kernel just made.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets the kernel forget who asked, as three minutes without a word do.
///
/// # Errors
/// The kernel's.
pub fn forget_replies(pins: &Path) -> Result<()> {
    let replies = MapData::from_pin(map(pins, "REPLIES")).context("open the map of replies")?;
    let mut replies = HashMap::<_, [u8; size_of::<ReplyKey>()], u64>::try_from(Map::LruHashMap(replies))?;
    let keys: Vec<_> = replies.keys().collect::<Result<_, _>>()?;
    ensure!(!keys.is_empty(), "nobody was remembered");
    for key in keys {
        replies.remove(&key)?;
    }
    Ok(())
}

/// Detaches a link for everybody who holds it.
///
/// # Errors
/// The kernel's.
pub fn detach(link: &OwnedFd) -> Result<()> {
    bpf(LINK_DETACH, &mut Detach { link_fd: link.as_raw_fd() as u32 }).context("detach the link").map(drop)
}

/// Changes one value of a map, `bytes` long.
///
/// # Errors
/// The kernel's.
pub fn edit<K>(path: &Path, key: K, bytes: usize, change: impl FnOnce(&mut [u8])) -> Result<()> {
    let map = open(path)?;
    let mut value = vec![0u8; bytes];
    let mut attributes = Element {
        map_fd: map.as_raw_fd() as u32,
        padding: 0,
        key: std::ptr::from_ref(&key) as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    bpf(MAP_LOOKUP_ELEM, &mut attributes).context("read the map")?;
    change(&mut value);
    bpf(MAP_UPDATE_ELEM, &mut attributes).context("write the map").map(drop)
}

/// Has the kernel believe that nobody has read the ring of events for long: no event finds room in it, and the agent's reader,
/// which knows better, finds none.
///
/// # Errors
/// The kernel's.
pub fn fill_ring(pins: &Path) -> Result<()> {
    let ring = open(&map(pins, "EVENTS"))?;
    let page_bytes = rustix::param::page_size();
    let page = |protection, offset: usize| {
        // SAFETY: a new mapping of a whole page, at an address that the kernel chooses; nothing else refers to it.
        let mapped = unsafe {
            mmap(std::ptr::null_mut(), page_bytes, protection, MapFlags::SHARED, &ring, offset as u64)
        };
        mapped.map(|page| page.cast::<AtomicU64>()).context("map the ring")
    };
    // Where reading stopped, and where writing did (Documentation/bpf/ringbuf.rst, from 5.8).
    let consumer = page(ProtFlags::READ | ProtFlags::WRITE, 0)?;
    let producer = page(ProtFlags::READ, page_bytes)?;
    // SAFETY: both pages are mapped, begin with a position of eight bytes, and stay mapped as long as this process lives.
    unsafe {
        let written = (*producer).load(Ordering::Acquire);
        (*consumer).store(written.wrapping_sub(RING_BYTES as u64), Ordering::Release);
    }
    Ok(())
}
