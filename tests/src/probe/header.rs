//! Headers by hand.

use std::net::Ipv4Addr;

/// An IPv4 header in front of so many bytes. A raw socket's checksum is filled in by the kernel.
pub fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload_bytes: usize) -> Vec<u8> {
    ipv4_with(from, to, protocol, 0, &[], payload_bytes)
}

/// The same with a fragment offset in units of eight bytes and flags, and options, a multiple of four bytes.
pub fn ipv4_with(
    from: Ipv4Addr,
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
    header.extend(from.octets());
    header.extend(to.octets());
    header.extend(options);
    header
}

/// The Internet checksum of bytes in which its own place is zero; an odd one counts as if a zero followed.
pub fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(word(pair))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}
