//! Raw sockets, and sockets of other families.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Type};

use super::attempt::{Attempt, Step, socket};
use crate::act::{FORGED_SOURCE, Header, OWN_SOURCE, Report};

/// Sends `payload` as the given IP protocol.
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
                let header = own_header(OWN_SOURCE, to, protocol, *fragment, options, payload.len());
                [header, payload.to_vec()].concat()
            }
            (IpAddr::V4(to), Header::Forged) => {
                [own_header(FORGED_SOURCE, to, protocol, 0, &[], payload.len()), payload.to_vec()].concat()
            }
            (IpAddr::V4(to), Header::Hidden) => {
                made.set_header_included_v4(true).step("header")?;
                [own_header(OWN_SOURCE, to, protocol, 0, &[], payload.len()), payload.to_vec()].concat()
            }
            _ => payload.to_vec(),
        };
        made.send_to(&packet, &address.into()).step("send").map(|_| None)
    })
}

/// Makes a socket.
pub fn make(family: i32, kind: i32, protocol: i32) -> Report {
    Attempt::run(|_| {
        let protocol = Some(Protocol::from(protocol));
        socket(Domain::from(family), Type::from(kind), protocol, 1).step("socket").map(|_| None)
    })
}

/// An IPv4 header; the kernel fills in the checksum.
fn own_header(
    from: [u8; 4],
    to: Ipv4Addr,
    protocol: u8,
    fragment: u16,
    options: &[u8],
    payload_bytes: usize,
) -> Vec<u8> {
    let length = 20 + options.len();
    let mut header = vec![0x40 | (length / 4) as u8, 0];
    header.extend(((length + payload_bytes) as u16).to_be_bytes());
    header.extend([0, 7]);
    header.extend(fragment.to_be_bytes());
    header.extend([64, protocol, 0, 0]);
    header.extend(from);
    header.extend(to.octets());
    header.extend(options);
    header
}
