//! Raw sockets, and sockets of other families.

use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Type};

use super::attempt::{Attempt, Step, socket};
use crate::act::{FORGED_SOURCE, Header, OWN_SOURCE, Report};
use crate::lab::packet::ipv4;

/// Sends `payload` as the given IP protocol, twice: what was allowed once takes a shorter way.
pub fn send(to: IpAddr, protocol: u8, header: &Header, payload: &[u8]) -> Report {
    Attempt::run(|_| {
        let address = SocketAddr::new(to, 0);
        let number = match header {
            Header::Kernel => i32::from(protocol),
            Header::Own { .. } | Header::Forged => libc::IPPROTO_RAW,
            Header::Hidden => libc::IPPROTO_ICMP,
        };
        let kind = Some(Protocol::from(number));
        let made = socket(Domain::for_address(address), Type::RAW, kind, 1).step("socket")?;
        let packet = match (to, header) {
            (IpAddr::V4(to), Header::Own { fragment, options }) => {
                ipv4(OWN_SOURCE.into(), to, protocol, options, *fragment, payload)
            }
            (IpAddr::V4(to), Header::Forged) => ipv4(FORGED_SOURCE.into(), to, protocol, &[], 0, payload),
            (IpAddr::V4(to), Header::Hidden) => {
                made.set_header_included_v4(true).step("header")?;
                ipv4(OWN_SOURCE.into(), to, protocol, &[], 0, payload)
            }
            _ => payload.to_vec(),
        };
        let [first, again] = [(); 2].map(|()| made.send_to(&packet, &address.into()));
        first.and(again).step("send").map(|_| None)
    })
}

/// Makes a socket.
pub fn make(family: i32, kind: i32, protocol: i32) -> Report {
    Attempt::run(|_| {
        let protocol = Some(Protocol::from(protocol));
        socket(Domain::from(family), Type::from(kind), protocol, 1).step("socket").map(|_| None)
    })
}
