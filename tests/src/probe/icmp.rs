//! An echo request and its reply.

use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Type};

use super::attempt::{Attempt, Step, socket};
use super::udp::receive;
use crate::act::Report;
use crate::lab::packet::checksum;

/// Pings, from a ping socket or a raw one.
pub fn ping(to: IpAddr, raw: bool, wait_ms: u64) -> Report {
    Attempt::run(|_| {
        let (domain, protocol, kind) = match to {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128),
        };
        let socket_kind = if raw { Type::RAW } else { Type::DGRAM };
        let made = socket(domain, socket_kind, Some(protocol), wait_ms).step("socket")?;
        made.send_to(&echo_request(kind), &SocketAddr::new(to, 0).into()).step("send")?;
        receive(&made).step("receive").map(|_| Some("reply".into()))
    })
}

/// An ICMP echo request of identifier and sequence 1; the checksum is IPv4's (for IPv6 the kernel fills it in).
pub fn echo_request(kind: u8) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 1, 0, 1];
    message.extend(b"dnswall!");
    let checksum = checksum(&message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}
