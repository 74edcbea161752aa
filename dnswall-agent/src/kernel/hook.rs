//! What is attached: one program a hook, each through a link that is pinned, so that it outlives the agent.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use aya::Ebpf;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{CgroupAttachMode, CgroupSkbAttachType, Program, loaded_programs};
use serde::{Deserialize, Serialize};

/// One hook of the wall.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// Program and pin.
    pub program: &'static str,
    /// The hook in the kernel's words.
    pub attach: &'static str,
}

/// Every hook, in the order in which they are attached: what records first, what refuses last.
pub const HOOKS: [Hook; 7] = [
    Hook { program: "dw_sock_create", attach: "cgroup/sock_create" },
    Hook { program: "dw_sendmsg4", attach: "cgroup/sendmsg4" },
    Hook { program: "dw_sendmsg6", attach: "cgroup/sendmsg6" },
    Hook { program: "dw_ingress", attach: "cgroup_skb/ingress" },
    Hook { program: "dw_connect4", attach: "cgroup/connect4" },
    Hook { program: "dw_connect6", attach: "cgroup/connect6" },
    Hook { program: "dw_egress", attach: "cgroup_skb/egress" },
];

/// What the kernel says of an attached hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookInfo {
    /// Program name.
    pub program: String,
    /// The hook in the kernel's words.
    pub attach: String,
    /// The link's id; it changes when something is attached anew.
    pub link_id: u32,
    /// The program's id.
    pub program_id: u32,
    /// Instructions the verifier walked to accept the program (kernels from 5.16 tell).
    pub verified_instructions: Option<u32>,
}

/// Attaches every loaded program to the cgroup and pins the links.
///
/// # Errors
/// When the kernel refuses one; those attached so far are taken down again.
pub fn attach(ebpf: &mut Ebpf, cgroup: &File, links: &Path) -> Result<()> {
    let mut pinned: Vec<PathBuf> = Vec::new();
    for hook in HOOKS {
        let path = links.join(hook.program);
        if let Err(error) = attach_one(ebpf, cgroup, &hook, &path) {
            for path in pinned {
                let _ = fs::remove_file(path);
            }
            return Err(error).with_context(|| format!("attach {} to {}", hook.program, hook.attach));
        }
        pinned.push(path);
    }
    Ok(())
}

fn attach_one(ebpf: &mut Ebpf, cgroup: &File, hook: &Hook, path: &Path) -> Result<()> {
    // Links are always "multi": `AllowMultiple` is refused with EINVAL, and `Single` shares the cgroup all the same.
    let mode = CgroupAttachMode::Single;
    let program = ebpf.program_mut(hook.program).context("find the program")?;
    let link: FdLink = match program {
        Program::CgroupSkb(program) => {
            let direction = if hook.attach.ends_with("ingress") {
                CgroupSkbAttachType::Ingress
            } else {
                CgroupSkbAttachType::Egress
            };
            let id = program.attach(cgroup, direction, mode)?;
            program.take_link(id)?.try_into()?
        }
        Program::CgroupSock(program) => {
            let id = program.attach(cgroup, mode)?;
            program.take_link(id)?.try_into()?
        }
        Program::CgroupSockAddr(program) => {
            let id = program.attach(cgroup, mode)?;
            program.take_link(id)?.try_into()?
        }
        _ => bail!("the program is of an unexpected type"),
    };
    link.pin(path).with_context(|| format!("pin the link at {}", path.display()))?;
    Ok(())
}

/// Puts the loaded programs in the place of those the pinned links run. Each link changes in one step, with no instant
/// without a program (`BPF_LINK_UPDATE`, 5.7).
///
/// # Errors
/// When a link is missing or the kernel refuses; links changed so far run the new program.
pub fn replace(ebpf: &Ebpf, links: &Path) -> Result<()> {
    for hook in HOOKS {
        let path = links.join(hook.program);
        let link = open_pin(&path).with_context(|| format!("open link {}", path.display()))?;
        let program = ebpf.program(hook.program).with_context(|| format!("find program {}", hook.program))?;
        update(link.as_fd(), program.fd()?.as_fd())
            .with_context(|| format!("put the new {} in place", hook.program))?;
    }
    Ok(())
}

/// What the kernel says of every pinned link.
///
/// # Errors
/// When a link is gone.
pub fn inspect(links: &Path) -> Result<Vec<HookInfo>> {
    let programs: Vec<_> = loaded_programs().flatten().collect();
    HOOKS
        .iter()
        .map(|hook| {
            let path = links.join(hook.program);
            let link =
                PinnedLink::from_pin(&path).with_context(|| format!("open link {}", path.display()))?;
            let info = FdLink::from(link).info().with_context(|| format!("look at link {}", hook.program))?;
            let program = programs.iter().find(|program| program.id() == info.program_id());
            Ok(HookInfo {
                program: hook.program.to_owned(),
                attach: hook.attach.to_owned(),
                link_id: info.id(),
                program_id: info.program_id(),
                verified_instructions: program.and_then(|program| program.verified_instruction_count()),
            })
        })
        .collect()
}

/// Whether every link is pinned.
pub fn all_pinned(links: &Path) -> bool {
    HOOKS.iter().all(|hook| links.join(hook.program).exists())
}

/// `BPF_OBJ_GET`
const OBJ_GET: libc::c_int = 7;
/// `BPF_LINK_UPDATE`
const LINK_UPDATE: libc::c_int = 29;

/// The part of `union bpf_attr` that `BPF_LINK_UPDATE` reads.
#[repr(C)]
#[derive(Default)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// The part of `union bpf_attr` that `BPF_OBJ_GET` reads.
#[repr(C)]
#[derive(Default)]
struct ObjGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Opens what is pinned. aya's own `PinnedLink` does not give its descriptor away.
fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = ObjGet { pathname: path.as_ptr() as u64, ..ObjGet::default() };
    // SAFETY: the kernel reads `size` bytes of an initialised struct and the path, which outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, OBJ_GET, &attributes, size_of::<ObjGet>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor the kernel just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = LinkUpdate {
        link_fd: link.as_raw_fd() as u32,
        new_prog_fd: program.as_raw_fd() as u32,
        ..LinkUpdate::default()
    };
    // SAFETY: the kernel reads `size` bytes of an initialised struct. aya 0.14 has no update for cgroup links.
    let result = unsafe { libc::syscall(libc::SYS_bpf, LINK_UPDATE, &attributes, size_of::<LinkUpdate>()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
