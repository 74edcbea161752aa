//! What is attached: one program a hook, each through a link that is pinned, so that it outlives the agent.

use std::fmt;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use aya::Ebpf;

use super::link;
use super::object::Loaded;

/// One hook of the wall.
#[derive(Clone, Copy, Debug)]
pub struct Hook {
    /// Program and pin.
    pub program: &'static str,
    /// The hook in the kernel's words.
    pub attach: &'static str,
    /// Its number, `enum bpf_attach_type`.
    pub attach_type: u32,
    /// Whether there is no wall without it. The others guard ways that need privileges, and not every kernel has them.
    pub required: bool,
}

/// Every hook, in the order in which they are attached: what records first, what refuses last.
pub const HOOKS: [Hook; 13] = [
    Hook { program: "dw_sock_create", attach: "cgroup/sock_create", attach_type: 2, required: true },
    Hook { program: "dw_bind4", attach: "cgroup/bind4", attach_type: 8, required: true },
    Hook { program: "dw_bind6", attach: "cgroup/bind6", attach_type: 9, required: true },
    Hook { program: "dw_sendmsg4", attach: "cgroup/sendmsg4", attach_type: 14, required: true },
    Hook { program: "dw_sendmsg6", attach: "cgroup/sendmsg6", attach_type: 15, required: true },
    Hook { program: "dw_ingress", attach: "cgroup_skb/ingress", attach_type: 0, required: true },
    Hook { program: "dw_answer", attach: "cgroup_skb/ingress", attach_type: 0, required: true },
    Hook { program: "dw_stub", attach: "cgroup_skb/egress", attach_type: 1, required: true },
    Hook { program: "dw_connect4", attach: "cgroup/connect4", attach_type: 10, required: true },
    Hook { program: "dw_connect6", attach: "cgroup/connect6", attach_type: 11, required: true },
    Hook { program: "dw_egress", attach: "cgroup_skb/egress", attach_type: 1, required: true },
    Hook { program: SOCKET, attach: "lsm_cgroup/socket_create", attach_type: 43, required: false },
    Hook { program: DEVICE, attach: "cgroup/dev", attach_type: 6, required: false },
];

/// Refuses sockets of families that no other hook sees; needs an active BPF LSM, and 6.0.
pub const SOCKET: &str = "dw_socket";
/// Refuses devices that carry packets; before 6.1 the kernel does not say there which process it is.
pub const DEVICE: &str = "dw_device";

/// A hook that is not part of the wall here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingHook {
    /// Program name.
    pub program: &'static str,
    /// The hook in the kernel's words.
    pub attach: &'static str,
    /// Why this kernel does not have it.
    pub why: String,
}

impl MissingHook {
    /// Because of this error.
    pub fn new(hook: &Hook, error: &anyhow::Error) -> Self {
        // The verifier's log, if any, is of many lines, and the cause in the first.
        let why = format!("{:#}", error).lines().next().unwrap_or_default().to_owned();
        Self { program: hook.program, attach: hook.attach, why }
    }
}

impl fmt::Display for MissingHook {
    /// What is open because of it, and why.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = match self.program {
            SOCKET => "sockets that no packet hook sees (AF_PACKET, AF_XDP and the like)",
            DEVICE => "devices that carry packets (/dev/net/tun and the like)",
            other => other,
        };
        write!(f, "{open} are not refused on this host: {}", self.why)
    }
}

/// Hooks whose links are not pinned; why, if that is among the `known`.
pub fn missing(links: &Path, known: &[MissingHook]) -> Vec<MissingHook> {
    let why = |hook: &Hook| {
        let known = known.iter().find(|known| known.program == hook.program);
        known.map_or("it was not attached when the wall was raised".to_owned(), |known| known.why.clone())
    };
    let missing = HOOKS.iter().filter(|hook| !links.join(hook.program).exists());
    missing.map(|hook| MissingHook { program: hook.program, attach: hook.attach, why: why(hook) }).collect()
}

/// Attaches every loaded program to the cgroup and pins the links; adds to what is missing what this kernel loads but
/// does not attach.
///
/// # Errors
/// When the kernel refuses a required one; those attached so far are taken down again.
pub fn attach(loaded: &mut Loaded, cgroup: &File, links: &Path) -> Result<()> {
    let mut pinned: Vec<PathBuf> = Vec::new();
    for hook in HOOKS {
        if loaded.missing.iter().any(|missing| missing.program == hook.program) {
            continue;
        }
        let path = links.join(hook.program);
        match attach_one(&loaded.ebpf, cgroup, &hook, &path) {
            Ok(()) => pinned.push(path),
            Err(error) if !hook.required => loaded.missing.push(MissingHook::new(&hook, &error)),
            Err(error) => {
                for path in pinned {
                    let _ = link::remove(&path);
                }
                return Err(error).with_context(|| format!("attach {} to {}", hook.program, hook.attach));
            }
        }
    }
    Ok(())
}

/// Attaches one program and pins its link.
pub(super) fn attach_one(ebpf: &Ebpf, cgroup: &File, hook: &Hook, path: &Path) -> Result<()> {
    let program = ebpf.program(hook.program).context("find the program")?;
    link::create(program.fd()?.as_fd(), cgroup.as_fd(), hook.attach_type, path)
}

/// Whether every link without which there is no wall is pinned.
pub fn all_pinned(links: &Path) -> bool {
    HOOKS.iter().filter(|hook| hook.required).all(|hook| links.join(hook.program).exists())
}
