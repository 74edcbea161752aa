//! IP packets made by hand, right or wrong as a test wants them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Protocol numbers.
pub mod protocol {
    /// ICMP
    pub const ICMP: u8 = 1;
    /// TCP
    pub const TCP: u8 = 6;
    /// UDP
    pub const UDP: u8 = 17;
    /// ICMPv6
    pub const ICMPV6: u8 = 58;
    /// SCTP
    pub const SCTP: u8 = 132;
    /// UDP-Lite
    pub const UDP_LITE: u8 = 136;
}

/// TCP flag SYN.
pub const SYN: u8 = 2;
/// TCP flag ACK.
pub const ACK: u8 = 16;
/// TCP flag RST.
pub const RST: u8 = 4;
/// TCP flag URG.
pub const URG: u8 = 32;

/// Where packets come from unless a test says otherwise: the lab has these addresses.
pub const SOURCE4: Ipv4Addr = Ipv4Addr::new(10, 9, 9, 9);
/// The same for IPv6.
pub const SOURCE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9);

/// An IP packet to `to` around a transport segment.
pub fn ip(to: &str, protocol: u8, segment: &[u8]) -> Vec<u8> {
    ip_from(None, to, protocol, segment)
}

/// The same with a source address.
pub fn ip_from(from: Option<&str>, to: &str, protocol: u8, segment: &[u8]) -> Vec<u8> {
    let from: Option<IpAddr> = from.map(|from| from.parse().expect("a test's address"));
    match to.parse().expect("a test's address") {
        IpAddr::V4(to) => {
            let from = match from {
                Some(IpAddr::V4(from)) => from,
                _ => SOURCE4,
            };
            ipv4(from, to, protocol, &[], 0x4000, segment)
        }
        IpAddr::V6(to) => {
            let from = match from {
                Some(IpAddr::V6(from)) => from,
                _ => SOURCE6,
            };
            ipv6(from, to, protocol, segment)
        }
    }
}

/// An IPv4 packet with options (padded to words) and a fragment field.
pub fn ipv4(
    from: Ipv4Addr,
    to: Ipv4Addr,
    protocol: u8,
    options: &[u8],
    fragment: u16,
    segment: &[u8],
) -> Vec<u8> {
    let mut options = options.to_vec();
    options.resize(options.len().next_multiple_of(4), 0);
    let header = 20 + options.len();
    let total = (header + segment.len()) as u16;
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(options);
    packet.extend(segment);
    packet
}

/// The Internet checksum of bytes in which its own place is zero; an odd one counts as if a zero followed.
pub fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(word(pair))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}

/// An IPv4 packet with options, from the usual source.
pub fn with_options(to: &str, options: &[u8], protocol: u8, segment: &[u8]) -> Vec<u8> {
    ipv4(SOURCE4, to.parse().expect("a test's address"), protocol, options, 0, segment)
}

/// A piece of a fragmented IPv4 packet.
pub fn fragment4(to: &str, field: u16, protocol: u8, segment: &[u8]) -> Vec<u8> {
    ipv4(SOURCE4, to.parse().expect("a test's address"), protocol, &[], field, segment)
}

fn ipv6(from: Ipv6Addr, to: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(payload);
    packet
}

/// An IPv6 packet with extension headers `(type, units of 8 bytes beyond the first)` before the segment.
pub fn with_extensions(to: &str, extensions: &[(u8, u8)], protocol: u8, segment: &[u8]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (at, (_, units)) in extensions.iter().enumerate() {
        let next = extensions.get(at + 1).map_or(protocol, |(kind, _)| *kind);
        payload.extend([next, *units]);
        payload.extend(vec![0; 6 + *units as usize * 8]);
    }
    payload.extend(segment);
    let first = extensions.first().map_or(protocol, |(kind, _)| *kind);
    ipv6(SOURCE6, to.parse().expect("a test's address"), first, &payload)
}

/// A UDP datagram.
pub fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(from.to_be_bytes());
    segment.extend(to.to_be_bytes());
    segment.extend((8 + payload.len() as u16).to_be_bytes());
    segment.extend([0, 0]);
    segment.extend(payload);
    segment
}

/// A TCP segment.
pub fn tcp(to: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(40_000u16.to_be_bytes());
    segment.extend(to.to_be_bytes());
    segment.extend([0; 8]);
    segment.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(payload);
    segment
}

/// An ICMP or ICMPv6 message.
pub fn icmp(kind: u8, code: u8) -> Vec<u8> {
    vec![kind, code, 0, 0, 0, 1, 0, 1]
}

/// A DNS question for `name`, type A.
pub fn question(name: &str) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}
