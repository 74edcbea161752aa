//! What the wall recorded of a socket, from the bytes of its storage.

use std::mem::offset_of;

use dnswall_common::socket::{SOCKET_INBOUND, SocketState};

use super::message::field;
use crate::event::ExeId;

/// Whose socket the wall takes it for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Cgroup of the process that made or connected it.
    pub cgroup: u64,
    /// Its user.
    pub uid: u32,
    /// Its number.
    pub pid: u32,
    /// When its leader started, nanoseconds since boot.
    pub start_ns: u64,
    /// Its executable.
    pub exe: Option<ExeId>,
    /// Name of the thread.
    pub comm: [u8; 16],
    /// Cookie of the socket that was recorded: another one's when this is its copy, made by accepting.
    pub cookie: u64,
    /// It was accepted, and has sent something since.
    pub inbound: bool,
}

impl Recorded {
    /// Reads a [`SocketState`]; anything of another length is something else.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != size_of::<SocketState>() {
            return None;
        }
        macro_rules! number {
            ($field:ident: $type:ty) => {
                <$type>::from_ne_bytes(field(bytes, offset_of!(SocketState, $field))?)
            };
        }
        let exe = ExeId { number: number!(exe_number: u64), device: number!(exe_device: u32) };
        Some(Self {
            cgroup: number!(cgroup: u64),
            uid: number!(uid: u32),
            pid: number!(pid: u32),
            start_ns: number!(start_ns: u64),
            exe: (exe.number != 0).then_some(exe),
            comm: field(bytes, offset_of!(SocketState, comm))?,
            cookie: number!(cookie: u64),
            inbound: number!(flags: u8) & SOCKET_INBOUND != 0,
        })
    }
}
