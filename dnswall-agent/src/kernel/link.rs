//! Pinned links and the programs they run, by descriptor: what aya 0.14 keeps to itself, or cannot do to a cgroup link.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::programs::ProgramInfo;
use aya::programs::links::{FdLink, PinnedLink};

/// A pinned link, and what it runs.
pub struct Link {
    descriptor: OwnedFd,
    /// The number of the program it runs.
    pub program_id: u32,
}

impl Link {
    /// Opens a pinned link.
    ///
    /// # Errors
    /// When it is not there, or no link.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = || format!("open link {}", path.display());
        let descriptor = open_pin(path).with_context(shown)?;
        let link = PinnedLink::from_pin(path).with_context(shown)?;
        let info = FdLink::from(link).info().with_context(shown)?;
        Ok(Self { descriptor, program_id: info.program_id() })
    }

    /// Puts a program in the place of the one the link runs, in one step: there is no instant without a program
    /// (`BPF_LINK_UPDATE`, 5.7).
    ///
    /// # Errors
    /// The kernel's; the link runs what it ran.
    pub fn run(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        update(self.descriptor.as_fd(), program)
    }

    /// Pins it (again).
    ///
    /// # Errors
    /// The kernel's.
    pub fn pin(&self, path: &Path) -> io::Result<()> {
        pin(self.descriptor.as_fd(), path)
    }

    /// Takes it down now. When its last descriptor is closed the kernel does that too, but later, and several in any order
    /// (`BPF_LINK_DETACH`, 5.9). A link that is still pinned would look as if it stood.
    ///
    /// # Errors
    /// The kernel's.
    pub fn detach(&self) -> io::Result<()> {
        let attributes = LinkDetach { link_fd: self.descriptor.as_raw_fd() as u32 };
        call(LINK_DETACH, &attributes).map(drop)
    }
}

/// Attaches a program to a cgroup and pins the link. Links share the cgroup with whatever else is attached there
/// (`BPF_F_ALLOW_MULTI` with them is EINVAL), and aya 0.14 does not give those of every type away to be pinned.
///
/// # Errors
/// The kernel's.
pub fn create(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, attach_type: u32, path: &Path) -> Result<()> {
    let attributes = LinkCreate {
        prog_fd: program.as_raw_fd() as u32,
        target_fd: cgroup.as_raw_fd() as u32,
        attach_type,
        flags: 0,
    };
    let descriptor = call(LINK_CREATE, &attributes).context("make the link")?;
    // SAFETY: a descriptor the kernel just made for us.
    let link = unsafe { OwnedFd::from_raw_fd(descriptor) };
    pin(link.as_fd(), path).with_context(|| format!("pin the link at {}", path.display()))
}

/// Puts a program in the place of the one a link runs (see [`Link::run`]).
///
/// # Errors
/// The kernel's.
pub fn update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = LinkUpdate {
        link_fd: link.as_raw_fd() as u32,
        new_prog_fd: program.as_raw_fd() as u32,
        ..LinkUpdate::default()
    };
    call(LINK_UPDATE, &attributes).map(drop)
}

/// Takes a pinned link down: when this returns, its program runs no more.
///
/// # Errors
/// When the pin cannot be removed.
pub fn remove(path: &Path) -> io::Result<()> {
    let link = Link::open(path);
    fs::remove_file(path)?;
    if let Ok(link) = link {
        // Where that fails, the kernel does it a moment later.
        let _ = link.detach();
    }
    Ok(())
}

/// The program a link runs, so that it can be put back: from its pin, else by its number (which takes
/// `CAP_SYS_ADMIN`). `None` when there is no way to it.
pub fn open_program(pin: &Path, id: u32) -> Option<OwnedFd> {
    let pinned = ProgramInfo::from_pin(pin).ok().filter(|info| info.id() == id);
    match pinned {
        Some(_) => open_pin(pin).ok(),
        None => {
            let descriptor = call(PROG_GET_FD_BY_ID, &GetFdById { id, ..GetFdById::default() }).ok()?;
            // SAFETY: a descriptor the kernel just made for us.
            Some(unsafe { OwnedFd::from_raw_fd(descriptor) })
        }
    }
}

/// The number of a pinned program.
pub fn pinned_program_id(pin: &Path) -> Option<u32> {
    ProgramInfo::from_pin(pin).ok().map(|info| info.id())
}

/// Pins a program, a map or a link.
///
/// # Errors
/// The kernel's.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes =
        Obj { pathname: path.as_ptr() as u64, bpf_fd: object.as_raw_fd() as u32, ..Obj::default() };
    call(OBJ_PIN, &attributes).map(drop)
}

/// Opens what is pinned.
///
/// # Errors
/// The kernel's.
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let descriptor = call(OBJ_GET, &Obj { pathname: path.as_ptr() as u64, ..Obj::default() })?;
    // SAFETY: a descriptor the kernel just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// A struct that is the beginning of `union bpf_attr`, as one command reads it: integers only, no padding.
trait Attributes {}

/// `BPF_OBJ_PIN`
const OBJ_PIN: libc::c_int = 6;
/// `BPF_OBJ_GET`
const OBJ_GET: libc::c_int = 7;
/// `BPF_PROG_GET_FD_BY_ID`
const PROG_GET_FD_BY_ID: libc::c_int = 13;
/// `BPF_LINK_CREATE`
const LINK_CREATE: libc::c_int = 28;
/// `BPF_LINK_UPDATE`
const LINK_UPDATE: libc::c_int = 29;
/// `BPF_LINK_DETACH`
const LINK_DETACH: libc::c_int = 34;

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

#[repr(C)]
struct LinkDetach {
    link_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct Obj {
    /// The address of a path that outlives the call.
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct GetFdById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

impl Attributes for LinkCreate {}
impl Attributes for LinkUpdate {}
impl Attributes for LinkDetach {}
impl Attributes for Obj {}
impl Attributes for GetFdById {}

fn call<A: Attributes>(command: libc::c_int, attributes: &A) -> io::Result<i32> {
    // SAFETY: the kernel reads `size` bytes of an initialised struct, and a path where one is named, which the callers
    // keep alive.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
