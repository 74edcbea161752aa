//! What a process does to look like another.

use std::ffi::c_void;
use std::fs::{self, File};
use std::io::{self, Error, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use dnswall_agent::demo::netlink::Netlink;
use object::{Object, ObjectSection};
use rustix::fs::MemfdFlags;
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::process::{DumpableBehavior, getuid, set_dumpable_behavior};
use rustix::thread::UnshareFlags;

use crate::act::{Act, Order};
use crate::trick::Disguise;

/// Puts it on; what is another program from here on does `act` there and does not come back.
///
/// # Errors
/// The kernel's.
pub fn put_on(disguise: &Disguise, act: &Act, wait_ms: u64) -> io::Result<()> {
    match disguise {
        Disguise::Named(name) => {
            let name = std::ffi::CString::new(name.as_str())?;
            rustix::thread::set_name(&name)?;
        }
        Disguise::UserNamespace => become_root_of(UnshareFlags::NEWUSER)?,
        Disguise::NetNamespace => {
            become_root_of(UnshareFlags::NEWUSER | UnshareFlags::NEWNET)?;
            Netlink::open()?.set_up("lo")?;
        }
        Disguise::CgroupNamespace => become_root_of(UnshareFlags::NEWUSER | UnshareFlags::NEWCGROUP)?,
        Disguise::Memfd(path) => {
            let mut file = File::from(rustix::fs::memfd_create("sshd", MemfdFlags::empty())?);
            file.write_all(&fs::read(path)?)?;
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            return Err(become_program(Command::new(path), act, wait_ms));
        }
        Disguise::Loader(path) => {
            let mut command = Command::new(loader(path)?);
            command.arg(path);
            return Err(become_program(command, act, wait_ms));
        }
        Disguise::MountedOver(path) => {
            unshare(UnshareFlags::NEWNS)?;
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
            mount_bind(std::env::current_exe()?, path)?;
            return Err(become_program(Command::new(path), act, wait_ms));
        }
        Disguise::Exec(path) => return Err(become_program(Command::new(path), act, wait_ms)),
        Disguise::ExeFile(path) => claim_exe(path)?,
        Disguise::NoSocketMemory => fs::write("/proc/sys/net/core/optmem_max", "1")?,
    }
    Ok(())
}

/// Runs it with an order for `act`; comes back only with an error.
pub fn become_program(mut command: Command, act: &Act, wait_ms: u64) -> Error {
    // Where and as whom it is already.
    let order = Order { cgroup: None, netns: None, uid: 0, maker: None, wait_ms, act: act.clone() };
    match serde_json::to_string(&order) {
        Ok(order) => command.arg(order).exec(),
        Err(error) => error.into(),
    }
}

/// Makes namespaces, and itself root of the user's.
fn become_root_of(namespaces: UnshareFlags) -> io::Result<()> {
    let uid = getuid().as_raw();
    // Whoever has changed its user does not own its files in /proc, until it says that it has nothing to hide.
    set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    unshare(namespaces)?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))
}

fn unshare(namespaces: UnshareFlags) -> io::Result<()> {
    // SAFETY: unsafe for CLONE_FILES alone, which is not used.
    unsafe { rustix::thread::unshare_unsafe(namespaces) }.map_err(Error::from)
}

/// The dynamic loader that a program names.
fn loader(program: &Path) -> io::Result<PathBuf> {
    let bytes = fs::read(program)?;
    let file = object::File::parse(&*bytes).map_err(Error::other)?;
    let section = file.section_by_name(".interp").ok_or_else(|| Error::other("it is linked statically"))?;
    let path = section.data().map_err(Error::other)?;
    let path = String::from_utf8_lossy(path.strip_suffix(&[0]).unwrap_or(path)).into_owned();
    Ok(PathBuf::from(path))
}

/// Tells the kernel that this process runs another file.
fn claim_exe(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    let number = file.as_raw_fd() as libc::c_ulong;
    let nothing = std::ptr::null::<c_void>();
    // SAFETY: numbers alone; the kernel takes its own reference to the file.
    let set = unsafe { libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_EXE_FILE, number, nothing, nothing) };
    if set < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}
