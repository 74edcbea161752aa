//! A hosts file: an address and the names that are to lead there.

use std::net::IpAddr;

use super::{Entry, Meaning, Rubbish, is_nowhere, name};

/// Names every hosts file has of its own.
const LOCAL: [&str; 12] = [
    "localhost",
    "localhost.localdomain",
    "local",
    "broadcasthost",
    "ip6-localhost",
    "ip6-loopback",
    "ip6-localnet",
    "ip6-mcastprefix",
    "ip6-allnodes",
    "ip6-allrouters",
    "ip6-allhosts",
    "0.0.0.0",
];

/// Reads a line. A line that leads to a real address says where somebody lives, and refuses nothing.
pub fn read(line: &str, emit: &mut dyn FnMut(Entry<'_>)) -> Result<(), Rubbish> {
    let line = line.split('#').next().unwrap_or_default();
    let mut words = line.split_ascii_whitespace();
    let Some(first) = words.next() else { return Ok(()) };
    let Ok(address) = first.split('%').next().unwrap_or_default().parse::<IpAddr>() else {
        return Err(Rubbish::Unsupported);
    };
    let mut rubbish = None;
    for word in words.filter(|word| !LOCAL.contains(word)) {
        if !is_nowhere(address) {
            rubbish = Some(Rubbish::Unsupported);
            continue;
        }
        match name(word) {
            Ok(name) => emit(Entry { name, meaning: Meaning::Exact, is_exception: false }),
            Err(reason) => rubbish = Some(reason),
        }
    }
    rubbish.map_or(Ok(()), Err)
}
