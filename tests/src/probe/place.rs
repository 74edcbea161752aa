//! Where a probe is and who it is.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;

use rustix::process::{Gid, Signal, Uid, set_parent_process_death_signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::act::Order;

/// Cgroup first (it needs root and the host's view), then the namespace, then the user.
///
/// # Errors
/// The kernel's.
pub fn take_place(order: &Order) -> io::Result<()> {
    if let Some(cgroup) = &order.cgroup {
        fs::write(cgroup.join("cgroup.procs"), "0")?;
    }
    if let Some(netns) = &order.netns {
        move_into_link_name_space(File::open(netns)?.as_fd(), Some(LinkNameSpaceType::Network))?;
    }
    if order.uid != 0 {
        let (uid, gid) = (Uid::from_raw(order.uid), Gid::from_raw(order.uid));
        set_thread_groups(&[])?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
    }
    // After the user: a change of user clears it.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}
