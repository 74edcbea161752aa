//! The program everything is measured against: `return 1`.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use dnswall_agent::kernel::raise_memlock_limit;

const PROG_LOAD: libc::c_int = 5;
const OBJ_PIN: libc::c_int = 6;
const PROG_TEST_RUN: libc::c_int = 10;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;
/// `BPF_PROG_TYPE_CGROUP_SKB`
const CGROUP_SKB: u32 = 8;
/// `BPF_CGROUP_INET_EGRESS`
const INET_EGRESS: u32 = 1;

/// Its name in the kernel.
const RETURN_ONE: &str = "dw_return_one";

/// A loaded `return 1`.
pub struct ReturnOne(OwnedFd);

#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log: [u32; 2],
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkCreate {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
struct ObjPin {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[repr(C)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    rest: [u64; 4],
}

impl ReturnOne {
    /// Loads it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn load() -> Result<Self> {
        raise_memlock_limit();
        // r0 = 1; exit
        let code: [u64; 2] = [0x0000_0001_0000_00b7, 0x95];
        let mut attributes = Load {
            prog_type: CGROUP_SKB,
            insn_cnt: 2,
            insns: code.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            expected_attach_type: INET_EGRESS,
            ..Load::default()
        };
        attributes.prog_name[..RETURN_ONE.len()].copy_from_slice(RETURN_ONE.as_bytes());
        let fd = bpf(PROG_LOAD, &mut attributes).context("load a program that returns 1")?;
        // SAFETY: a descriptor the kernel just made.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Lets it see every packet that leaves a cgroup, until the link is dropped.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach(&self, cgroup: &Path) -> Result<OwnedFd> {
        let cgroup = File::open(cgroup).with_context(|| format!("open {}", cgroup.display()))?;
        let mut attributes = LinkCreate {
            prog_fd: self.0.as_raw_fd() as u32,
            target_fd: cgroup.as_raw_fd() as u32,
            attach_type: INET_EGRESS,
            flags: 0,
        };
        let fd = bpf(LINK_CREATE, &mut attributes).context("attach it")?;
        // SAFETY: a descriptor the kernel just made.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Attaches it to egress of a cgroup through a link that is pinned there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach_and_pin(&self, cgroup: &Path, pin: &Path) -> Result<()> {
        let link = self.attach(cgroup)?;
        let path = CString::new(pin.as_os_str().as_bytes())?;
        let mut attributes =
            ObjPin { pathname: path.as_ptr() as u64, bpf_fd: link.as_raw_fd() as u32, file_flags: 0 };
        bpf(OBJ_PIN, &mut attributes).with_context(|| format!("pin it at {}", pin.display())).map(drop)
    }

    /// Puts it into the place of the program that a link runs.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn put_into(&self, link: &OwnedFd) -> Result<()> {
        let mut attributes = LinkUpdate {
            link_fd: link.as_raw_fd() as u32,
            new_prog_fd: self.0.as_raw_fd() as u32,
            flags: 0,
            old_prog_fd: 0,
        };
        bpf(LINK_UPDATE, &mut attributes).context("replace the program").map(drop)
    }

    /// Its number in the kernel.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn id(&self) -> Result<u32> {
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.0.as_raw_fd()))?;
        let id = text.lines().find_map(|line| line.strip_prefix("prog_id:")).context("find its number")?;
        id.trim().parse().context("read its number")
    }

    /// Nanoseconds a run.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn measure(&self, packet: &[u8], times: u32) -> Result<u64> {
        let framed = super::framed(packet);
        let mut attributes = TestRun {
            prog_fd: self.0.as_raw_fd() as u32,
            data_size_in: framed.len() as u32,
            data_in: framed.as_ptr() as u64,
            repeat: times,
            ..TestRun::default()
        };
        bpf(PROG_TEST_RUN, &mut attributes).context("run it")?;
        Ok(u64::from(attributes.duration))
    }
}

pub(crate) fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the kernel reads and writes `size` bytes of an initialised struct; what it points to is alive.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
