//! Which program a task runs: its file, which a process cannot choose, by number, owner and device.

use crate::identity::{field, offsets, pointer};
use aya_ebpf::helpers::generated::bpf_get_current_task;
use dnswall_common::identity::exe_number;
use dnswall_common::socket::SocketState;

/// Whether the process at hand runs another program by now than the one that was recorded (`execve()`).
#[inline(always)]
pub fn is_another(state: &SocketState) -> bool {
    // SAFETY: no arguments.
    let inode = of(unsafe { bpf_get_current_task() });
    state.exe_number != number(inode) || state.exe_device != device(inode)
}

/// The inode of the program a task runs; 0 for a thread of the kernel's.
#[inline(always)]
pub fn of(task: u64) -> u64 {
    let offsets = offsets();
    let file = pointer(pointer(task, field!(offsets.task_mm)), field!(offsets.mm_exe_file));
    pointer(file, field!(offsets.file_inode))
}

/// What stands for the program of an inode; 0 for none.
#[inline(always)]
pub fn number(inode: u64) -> u64 {
    let offsets = offsets();
    exe_number(pointer(inode, field!(offsets.inode_ino)), pointer(inode, field!(offsets.inode_owner)) as u32)
}

/// The device of the file system an inode is on.
#[inline(always)]
pub fn device(inode: u64) -> u32 {
    let offsets = offsets();
    pointer(pointer(inode, field!(offsets.inode_sb)), field!(offsets.super_block_dev)) as u32
}
