//! Does one thing on the network and says in JSON what came of it. Takes an [`Order`] as its only argument.

use std::error::Error;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::Command;

use dnswall_tests::act::{Act, Order, Report};
use dnswall_tests::probe::attempt::{Attempt, Step};
use dnswall_tests::probe::{
    disguise, dns, forge, hand, hold, icmp, link, load, message, raw, serve, silence, storm, take_place, tcp,
    udp, zone,
};

fn main() -> Result<(), Box<dyn Error>> {
    let order = std::env::args().nth(1).ok_or("usage: probe ORDER (JSON)")?;
    let order: Order = serde_json::from_str(&order)?;
    let gift = match order.act {
        Act::Handed { to, what, how, .. } => Some(hand::receive_gift(&order, to, what, how)?),
        _ => None,
    };
    take_place(&order)?;
    let report = match (&order.act, gift) {
        (Act::Handed { to, what, .. }, Some(gift)) => Some(hand::use_gift(&gift, *to, *what, order.wait_ms)),
        (act, _) => perform(act, order.wait_ms)?,
    };
    if let Some(report) = report {
        println!("{}", serde_json::to_string(&report)?);
        // Stays until whoever started it has seen enough.
        io::stdin().read_to_end(&mut Vec::new())?;
    }
    Ok(())
}

/// Does it; `None` for what goes on until it is told to end and has said all by then.
fn perform(act: &Act, wait_ms: u64) -> io::Result<Option<Report>> {
    let report = match act {
        Act::Udp { to, by } => udp::send(*to, *by, wait_ms),
        Act::Tcp { to, by } => tcp::connect(*to, *by, wait_ms),
        Act::Dns { server, tcp, name } => dns::ask(*server, *tcp, name, wait_ms),
        Act::Message { server, message, by } => message::send(*server, message, *by, wait_ms),
        Act::Names { servers, names, silence_ms } => message::ask_all(servers, names, *silence_ms)?,
        Act::Time { server, names } => message::time(*server, names, wait_ms)?,
        Act::Zone { at } => return zone::serve(at).map(|()| None),
        Act::Follow(names) => zone::follow(names, wait_ms)?,
        Act::Ping { to, raw } => icmp::ping(*to, *raw, wait_ms),
        Act::Raw { to, protocol, header, payload } => raw::send(*to, *protocol, header, payload),
        Act::Socket { family, kind, protocol } => raw::make(*family, *kind, *protocol),
        Act::Serve { at, tcp } => return serve::serve(*at, *tcp).map(|()| None),
        Act::Unwrap { at } => return serve::unwrap(*at).map(|()| None),
        Act::Answer { at, others } => serve::answer(*at, others)?,
        Act::Hold { to, tcp } => return hold::hold(*to, *tcp, wait_ms).map(|()| None),
        Act::HoldForged(forged) => return forge::hold(forged).map(|()| None),
        Act::HoldRaw { to } => return hold::hold_raw(*to).map(|()| None),
        Act::Push { at } => return serve::push(*at).map(|()| None),
        Act::Flood { to, one_socket } => hold::flood(to, *one_socket)?,
        Act::Load { errands, pause_us } => load::load(errands, *pause_us)?,
        Act::Steps { errands } => return load::steps(errands).map(|()| None),
        Act::Sweep { from, count } => hold::sweep(*from, *count)?,
        Act::Storm { to, addresses } => storm::storm(to, *addresses)?,
        Act::Forge(forged) => forge::send(forged, wait_ms),
        Act::Join { group } => link::join(*group),
        Act::Link { to, by } => link::send(*to, *by),
        Act::As { disguise, act } => match disguise::put_on(disguise, act, wait_ms) {
            Ok(()) => return perform(act, wait_ms),
            Err(error) => Attempt::run(|_| Err(error).step("disguise")),
        },
        Act::Make { to, what } => return hand::give(*to, *what, wait_ms).map(|()| None),
        Act::Handed { .. } => return Err(io::Error::other("nobody handed anything over")),
        Act::Outlive { to, what, program } => return Err(hand::outlive(*to, *what, program, wait_ms)),
        Act::Inherit { to, what, number } => hand::inherit(*to, *what, *number, wait_ms),
        Act::KeepSilent { at } => return silence::keep_silent(at).map(|()| None),
        Act::Stall { file, to } => return silence::stall(file, *to).map(|()| None),
        Act::Launch { program, arguments } => return Err(Command::new(program).args(arguments).exec()),
    };
    Ok(Some(report))
}
