//! Does one thing on the network and says in JSON what came of it. Takes an [`Order`] as its only argument.

use std::error::Error;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use dnswall_tests::act::{Act, Order};
use dnswall_tests::probe::{dns, hold, icmp, raw, serve, tcp, udp};
use rustix::process::{Gid, Signal, Uid, set_parent_process_death_signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

fn main() -> Result<(), Box<dyn Error>> {
    let order = std::env::args().nth(1).ok_or("usage: probe ORDER (JSON)")?;
    let order: Order = serde_json::from_str(&order)?;
    take_place(&order)?;
    let report = match &order.act {
        Act::Udp { to, by } => udp::send(*to, *by, order.wait_ms),
        Act::Tcp { to, by } => tcp::connect(*to, *by, order.wait_ms),
        Act::Dns { server, tcp, name } => dns::ask(*server, *tcp, name, order.wait_ms),
        Act::Ping { to, raw } => icmp::ping(*to, *raw, order.wait_ms),
        Act::Raw { to, protocol, header, payload } => raw::send(*to, *protocol, header, payload),
        Act::Socket { family, kind, protocol } => raw::make(*family, *kind, *protocol),
        Act::Serve { at, tcp } => return serve::serve(*at, *tcp).map_err(Into::into),
        Act::Hold { to, tcp } => return hold::hold(*to, *tcp, order.wait_ms).map_err(Into::into),
        Act::Flood { to, one_socket } => hold::flood(to, *one_socket)?,
        Act::Launch { program, arguments } => {
            return Err(Command::new(program).args(arguments).exec().into());
        }
    };
    println!("{}", serde_json::to_string(&report)?);
    // Stays until whoever started it has seen enough.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Cgroup first (it needs root and the host's view), then the namespace, then the user.
fn take_place(order: &Order) -> Result<(), Box<dyn Error>> {
    if let Some(cgroup) = &order.cgroup {
        std::fs::write(cgroup.join("cgroup.procs"), "0")?;
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
