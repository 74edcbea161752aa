//! Events for the tests of this crate, and the bytes the kernel would write for them.

use std::net::IpAddr;

use dnswall_common::event::{Event, IDENTITY_SOCKET, hook};
use dnswall_common::flow::{Address, protocol};
use dnswall_common::image::MODE_ENFORCE;
use dnswall_common::limits::EVENT_PAYLOAD_BYTES;
use dnswall_common::reason::Reason;

/// The question `example.com A`, id 0x1234, as `dig` sends it.
pub const QUESTION: &[u8] =
    b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01";

/// A refused DNS question to 198.51.100.53.
pub fn event() -> Event {
    let mut payload = [0; EVENT_PAYLOAD_BYTES];
    payload[..QUESTION.len()].copy_from_slice(QUESTION);
    let mut comm = [0; 16];
    comm[..3].copy_from_slice(b"dig");
    Event {
        time_ns: 100_000_000_000,
        cookie: 7,
        cgroup: 4_242,
        netns: 1,
        start_ns: 99_000_000_000,
        exe_number: 777,
        refusals: 1,
        entry: 0,
        source: words("10.0.0.5"),
        destination: words("198.51.100.53"),
        exe_device: 8 << 20 | 1,
        uid: 1_000,
        pid: 4_321,
        generation: 3,
        rule: 0,
        packet_bytes: 57,
        source_port: 40_000,
        destination_port: 53,
        payload_bytes: QUESTION.len() as u16,
        protocol: protocol::UDP,
        family: 4,
        hook: hook::EGRESS,
        reason: Reason::NoRule as u8,
        mode: MODE_ENFORCE,
        identity: IDENTITY_SOCKET,
        parent: 4_300,
        comm,
        payload,
    }
}

/// An address in the form events carry it.
pub fn words(text: &str) -> [u64; 2] {
    match text.parse().unwrap() {
        IpAddr::V4(address) => Address::V4(u32::from(address)).to_words(),
        IpAddr::V6(address) => Address::from_v6_bytes(&address.octets()).to_words(),
    }
}

/// The record as it lies in the ring.
pub fn bytes(event: &Event) -> Vec<u8> {
    let Event {
        time_ns,
        cookie,
        cgroup,
        netns,
        start_ns,
        exe_number,
        refusals,
        entry,
        source,
        destination,
        exe_device,
        uid,
        pid,
        generation,
        rule,
        packet_bytes,
        source_port,
        destination_port,
        payload_bytes,
        protocol,
        family,
        hook,
        reason,
        mode,
        identity,
        parent,
        comm,
        payload,
    } = event;
    let mut bytes = Vec::new();
    for word in [time_ns, cookie, cgroup, netns, start_ns, exe_number, refusals, entry] {
        bytes.extend(word.to_ne_bytes());
    }
    for word in source.iter().chain(destination) {
        bytes.extend(word.to_ne_bytes());
    }
    for word in [exe_device, uid, pid, generation, rule, packet_bytes] {
        bytes.extend(word.to_ne_bytes());
    }
    for word in [source_port, destination_port, payload_bytes] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend([protocol, family, hook, reason, mode, identity]);
    bytes.extend(parent.to_ne_bytes());
    bytes.extend(comm);
    bytes.extend(payload);
    bytes
}
