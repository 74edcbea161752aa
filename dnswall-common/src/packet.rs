//! Takes header bytes, gives a [`Parsed`] packet or the reason why it cannot be read. Pure: the caller reads the bytes
//! (in the kernel with one bounded copy), this decides what they mean.

use crate::flow::{Address, protocol};
use crate::limits::EXTENSION_HEADERS_MAX;
use crate::reason::Reason;

/// Bytes of an IPv4 header without options.
pub const IPV4_BYTES: usize = 20;
/// Bytes of an IPv6 header.
pub const IPV6_BYTES: usize = 40;
/// Bytes of a transport header that are read: ports, or type and code, and the TCP flags.
pub const TRANSPORT_BYTES: usize = 16;

/// TCP flag FIN.
pub const TCP_FIN: u8 = 1;
/// TCP flag SYN.
pub const TCP_SYN: u8 = 2;
/// TCP flag RST.
pub const TCP_RST: u8 = 4;
/// TCP flag ACK.
pub const TCP_ACK: u8 = 16;
/// TCP flag URG.
pub const TCP_URG: u8 = 32;

/// The network header, and where the transport header begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Where it comes from.
    pub source: Address,
    /// Where it goes.
    pub destination: Address,
    /// Protocol of what follows (for IPv6 perhaps an extension header).
    pub protocol: u8,
    /// Bytes up to what follows.
    pub header_bytes: u32,
    /// Bytes of the whole packet by its own account.
    pub total_bytes: u32,
    /// IPv4 options are present and must be looked at.
    pub has_options: bool,
}

impl Network {
    /// Nothing read yet.
    pub const EMPTY: Self = Self {
        source: Address::V4(0),
        destination: Address::V4(0),
        protocol: 0,
        header_bytes: 0,
        total_bytes: 0,
        has_options: false,
    };
}

impl Transport {
    /// Nothing read yet.
    pub const EMPTY: Self = Self { source_port: 0, destination_port: 0, tcp_flags: 0, header_bytes: 0 };
}

/// Transport header of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transport {
    /// Source port; 0 where there is none.
    pub source_port: u16,
    /// Destination port; for ICMP `type << 8 | code`; 0 where there is none.
    pub destination_port: u16,
    /// TCP flags; 0 for others.
    pub tcp_flags: u8,
    /// Bytes of the transport header.
    pub header_bytes: u32,
}

/// Reads an IPv4 header. What is read is there even when the packet is refused, for the event.
///
/// # Errors
/// [`Reason::Malformed`] when a length contradicts itself, [`Reason::Fragment`] for any fragment.
#[inline(always)]
pub fn ipv4(header: &[u8; IPV4_BYTES], network: &mut Network) -> Result<(), Reason> {
    let header_bytes = (header[0] as u32 & 15) * 4;
    let total_bytes = u16::from_be_bytes([header[2], header[3]]) as u32;
    if header[0] >> 4 != 4 || header_bytes < IPV4_BYTES as u32 {
        return Err(Reason::Malformed);
    }
    network.source = Address::V4(u32::from_be_bytes([header[12], header[13], header[14], header[15]]));
    network.destination = Address::V4(u32::from_be_bytes([header[16], header[17], header[18], header[19]]));
    network.protocol = header[9];
    network.header_bytes = header_bytes;
    network.total_bytes = total_bytes;
    network.has_options = header_bytes > IPV4_BYTES as u32;
    // More-fragments flag or an offset.
    if (header[6] & 0x3f) | header[7] != 0 {
        return Err(Reason::Fragment);
    }
    Ok(())
}

/// Looks through the IPv4 options (up to 40 bytes, zero-padded).
///
/// # Errors
/// [`Reason::SourceRoute`] for LSRR and SSRR, [`Reason::Malformed`] for lengths that lead nowhere.
#[inline(always)]
pub fn ipv4_options(options: &[u8; 40]) -> Result<(), Reason> {
    let mut next = 0usize;
    let mut at = 0usize;
    // VERIFIER: one round a byte with a constant index; `next` only says which bytes start an option.
    while at < 40 {
        if at == next {
            match byte_at(options, at) {
                0 => return Ok(()),
                1 => next = at + 1,
                131 | 137 => return Err(Reason::SourceRoute),
                _ => {
                    let length = byte_at(options, at + 1) as usize;
                    if length < 2 {
                        return Err(Reason::Malformed);
                    }
                    next = at + length;
                }
            }
        }
        at = crate::verifier::next(at);
    }
    Ok(())
}

/// A byte of the options; 0 past their end. Never a panic, which the verifier would have to walk into.
#[inline(always)]
fn byte_at(options: &[u8; 40], at: usize) -> u8 {
    options.get(at).copied().unwrap_or(0)
}

/// Reads an IPv6 header; extension headers are the caller's to walk with [`Extension`].
///
/// # Errors
/// [`Reason::Malformed`] when it is not IPv6.
#[inline(always)]
pub fn ipv6(header: &[u8; IPV6_BYTES], network: &mut Network) -> Result<(), Reason> {
    if header[0] >> 4 != 6 {
        return Err(Reason::Malformed);
    }
    let half = |at: usize| {
        u64::from_be_bytes([
            header[at],
            header[at + 1],
            header[at + 2],
            header[at + 3],
            header[at + 4],
            header[at + 5],
            header[at + 6],
            header[at + 7],
        ])
    };
    // Not `from_v6_bytes`: on the wire `::ffff:0:0/96` is an IPv6 destination, and never a legitimate one.
    network.source = Address::V6(half(8), half(16));
    network.destination = Address::V6(half(24), half(32));
    network.protocol = header[6];
    network.header_bytes = IPV6_BYTES as u32;
    network.total_bytes = IPV6_BYTES as u32 + u16::from_be_bytes([header[4], header[5]]) as u32;
    network.has_options = false;
    Ok(())
}

/// What an IPv6 next-header value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// A transport protocol: the walk ends here.
    None,
    /// A header of `(length + 1) * 8` bytes.
    Units8,
    /// An authentication header of `(length + 2) * 4` bytes.
    Units4,
    /// Refused as it is.
    Refused(Reason),
}

/// Classifies an IPv6 next-header value.
#[inline(always)]
pub const fn extension(next_header: u8) -> Extension {
    match next_header {
        // Hop-by-hop, destination options, mobility, HIP, shim6.
        0 | 60 | 135 | 139 | 140 => Extension::Units8,
        51 => Extension::Units4,
        43 => Extension::Refused(Reason::SourceRoute),
        44 => Extension::Refused(Reason::Fragment),
        // "No next header" carries nothing a rule could name.
        59 => Extension::Refused(Reason::Malformed),
        _ => Extension::None,
    }
}

/// Bytes of an extension header whose second byte is `length`.
#[inline(always)]
pub const fn extension_bytes(kind: Extension, length: u8) -> u32 {
    match kind {
        Extension::Units8 => (length as u32 + 1) * 8,
        Extension::Units4 => (length as u32 + 2) * 4,
        Extension::None | Extension::Refused(_) => 0,
    }
}

/// Bytes of a transport header without which a packet of this protocol cannot be judged.
#[inline(always)]
pub const fn transport_bytes_min(next_header: u8) -> u32 {
    match next_header {
        protocol::TCP => 14,
        protocol::UDP | protocol::UDP_LITE | protocol::SCTP => 8,
        protocol::ICMP | protocol::ICMPV6 => 2,
        _ => 0,
    }
}

/// Reads the first bytes of a transport header (zero-padded; the caller has checked [`transport_bytes_min`]).
#[inline(always)]
pub const fn transport(next_header: u8, header: &[u8; TRANSPORT_BYTES]) -> Transport {
    let source_port = u16::from_be_bytes([header[0], header[1]]);
    let destination_port = u16::from_be_bytes([header[2], header[3]]);
    match next_header {
        protocol::TCP => Transport {
            source_port,
            destination_port,
            tcp_flags: header[13],
            header_bytes: (header[12] >> 4) as u32 * 4,
        },
        protocol::UDP | protocol::UDP_LITE => {
            Transport { source_port, destination_port, tcp_flags: 0, header_bytes: 8 }
        }
        protocol::SCTP => Transport { source_port, destination_port, tcp_flags: 0, header_bytes: 12 },
        protocol::ICMP | protocol::ICMPV6 => {
            Transport { source_port: 0, destination_port: source_port, tcp_flags: 0, header_bytes: 8 }
        }
        _ => Transport { source_port: 0, destination_port: 0, tcp_flags: 0, header_bytes: 0 },
    }
}

/// Walks IPv6 extension headers: `read` gives the two bytes at an offset, or `None` past the end.
///
/// # Errors
/// The reason why the packet is refused.
#[inline(always)]
pub fn skip_extensions(network: &mut Network, read: impl Fn(u32) -> Option<[u8; 2]>) -> Result<(), Reason> {
    let mut walked = 0;
    // VERIFIER: at most EXTENSION_HEADERS_MAX rounds; offsets go through a bounds-checked read.
    while walked < EXTENSION_HEADERS_MAX {
        match extension(network.protocol) {
            Extension::None => return Ok(()),
            Extension::Refused(reason) => return Err(reason),
            kind => {
                let Some([next, length]) = read(network.header_bytes) else {
                    return Err(Reason::Malformed);
                };
                network.header_bytes += extension_bytes(kind, length);
                network.protocol = next;
            }
        }
        walked = crate::verifier::next(walked);
    }
    match extension(network.protocol) {
        Extension::None => Ok(()),
        _ => Err(Reason::ExtensionHeaders),
    }
}

/// What every host needs and no rule has to name. `from_process` says whether a process wrote the packet (a raw or
/// ping socket) rather than the kernel.
#[inline(always)]
pub const fn is_essential(
    next_header: u8,
    source_port: u16,
    port: u16,
    destination: Address,
    from_process: bool,
) -> bool {
    match next_header {
        protocol::ICMP => {
            let kind = port >> 8;
            // Unreachable, redirect, time exceeded, parameter problem: errors. Echo, timestamp, mask and extended echo
            // replies: answers.
            !from_process && matches!(kind, 3 | 5 | 11 | 12 | 0 | 14 | 18 | 43)
        }
        protocol::ICMPV6 => {
            let kind = port >> 8;
            // Neighbour discovery and multicast listening stay on the link, whoever writes them: but who says that it is a
            // router, or knows a better way, is believed by this host, too.
            let leads = from_process && matches!(kind, 134 | 137);
            let link = !leads && matches!(kind, 130..=137 | 143) && is_link_scope(destination);
            // The kernel's own listener reports go to the group itself, however wide that is; 161 answers an extended echo.
            link || (!from_process && matches!(kind, 1..=4 | 129 | 131..=137 | 143 | 161))
        }
        // IGMP, to multicast groups only.
        2 => matches!(destination, Address::V4(address) if address >> 28 == 14),
        // DHCP clients: both ports are privileged, and a server is on the link or in private space.
        protocol::UDP => match destination {
            Address::V4(address) => {
                source_port == 68 && port == 67 && (address == u32::MAX || is_private4(address))
            }
            Address::V6(high, low) => {
                source_port == 546
                    && port == 547
                    && (high >> 54 == 0x3fa || (high == 0xff02 << 48 && low == DHCP_SERVERS6))
            }
        },
        _ => false,
    }
}

/// The lower half of ff02::1:2, the group of DHCP servers and relays on the link (RFC 8415).
const DHCP_SERVERS6: u64 = 0x1_0002;

/// fe80::/10, and groups of the link or of the interface, whatever their flags (RFC 4291, 2.7).
#[inline(always)]
const fn is_link_scope(address: Address) -> bool {
    match address {
        Address::V4(_) => false,
        Address::V6(high, _) => {
            high >> 54 == 0x3fa || (high >> 56 == 0xff && matches!(high >> 48 & 15, 1 | 2))
        }
    }
}

/// RFC 1918, RFC 6598 and link-local.
#[inline(always)]
const fn is_private4(address: u32) -> bool {
    address >> 24 == 10
        || address >> 20 == 0xac1
        || address >> 16 == 0xc0a8
        || address >> 16 == 0xa9fe
        || address >> 22 == 0x6440 >> 6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_ranges_end_where_they_should() {
        let inside =
            [[10, 0, 0, 1], [172, 16, 0, 1], [172, 31, 255, 255], [192, 168, 9, 9], [169, 254, 1, 1]];
        let shared = [[100, 64, 0, 1], [100, 127, 255, 255]];
        for address in inside.iter().chain(&shared) {
            assert!(is_private4(u32::from_be_bytes(*address)), "{address:?}");
        }
        for address in
            [[11, 0, 0, 1], [172, 32, 0, 0], [172, 15, 0, 0], [100, 63, 0, 0], [100, 128, 0, 0], [8, 8, 8, 8]]
        {
            assert!(!is_private4(u32::from_be_bytes(address)), "{address:?}");
        }
    }

    #[test]
    fn source_routes_are_found_behind_other_options() {
        let mut options = [0; 40];
        options[..3].copy_from_slice(&[1, 7, 4]);
        options[5] = 131;
        assert_eq!(ipv4_options(&options), Err(Reason::SourceRoute));
        options[5] = 0;
        assert_eq!(ipv4_options(&options), Ok(()));
        options[1] = 7;
        options[2] = 1;
        assert_eq!(ipv4_options(&options), Err(Reason::Malformed));
        let mut last = [1; 40];
        last[39] = 148;
        assert_eq!(ipv4_options(&last), Err(Reason::Malformed));
    }

    fn v6(next: u8) -> Network {
        let mut header = [0; IPV6_BYTES];
        header[0] = 0x60;
        header[6] = next;
        let mut network = Network::EMPTY;
        ipv6(&header, &mut network).unwrap();
        network
    }

    #[test]
    fn extension_headers_are_walked_to_the_transport() {
        let mut network = v6(0);
        let chain = |at: u32| match at {
            40 => Some([60, 1]),
            56 => Some([51, 4]),
            80 => Some([17, 0]),
            _ => None,
        };
        assert_eq!(skip_extensions(&mut network, chain), Err(Reason::Malformed));
        let mut network = v6(0);
        let chain = |at: u32| match at {
            40 => Some([60, 1]),
            56 => Some([17, 0]),
            _ => None,
        };
        assert_eq!(skip_extensions(&mut network, chain), Ok(()));
        assert_eq!((network.protocol, network.header_bytes), (17, 64));
        assert_eq!(skip_extensions(&mut v6(43), |_| Some([17, 0])), Err(Reason::SourceRoute));
        assert_eq!(skip_extensions(&mut v6(44), |_| Some([17, 0])), Err(Reason::Fragment));
        assert_eq!(skip_extensions(&mut v6(60), |_| Some([60, 0])), Err(Reason::ExtensionHeaders));
    }

    #[test]
    fn fragments_and_short_headers_are_refused() {
        let read = |header: &[u8; IPV4_BYTES]| ipv4(header, &mut Network::EMPTY.clone());
        let mut header = [0; IPV4_BYTES];
        header[0] = 0x45;
        assert!(read(&header).is_ok());
        header[6] = 0x40;
        assert!(read(&header).is_ok(), "don't-fragment is no fragment");
        header[6] = 0x20;
        assert_eq!(read(&header), Err(Reason::Fragment));
        header[6] = 0;
        header[7] = 1;
        assert_eq!(read(&header), Err(Reason::Fragment));
        header[0] = 0x44;
        assert_eq!(read(&header), Err(Reason::Malformed));
    }

    #[test]
    fn essentials_stay_narrow() {
        let far = Address::V4(u32::from_be_bytes([8, 8, 8, 8]));
        let near = Address::V4(u32::from_be_bytes([10, 0, 0, 1]));
        let group = Address::V6(0xff02 << 48, 1);
        let far6 = Address::V6(0x2001_0db8 << 32, 1);
        assert!(is_essential(protocol::UDP, 68, 67, near, true));
        assert!(!is_essential(protocol::UDP, 68, 67, far, true));
        assert!(!is_essential(protocol::UDP, 6800, 67, near, true));
        assert!(is_essential(protocol::ICMP, 0, 3 << 8, far, false));
        assert!(!is_essential(protocol::ICMP, 0, 3 << 8, far, true), "a process may not write errors");
        assert!(!is_essential(protocol::ICMP, 0, 8 << 8, far, false), "echo needs a rule");
        assert!(is_essential(protocol::ICMPV6, 0, 133 << 8, group, true));
        assert!(is_essential(protocol::ICMPV6, 0, 134 << 8, group, false));
        let wide = Address::V6(0xff05 << 48, 1);
        assert!(
            is_essential(protocol::ICMPV6, 0, 131 << 8, wide, false),
            "the kernel reports to the group itself"
        );
        assert!(!is_essential(protocol::ICMPV6, 0, 131 << 8, wide, true), "a process only on the link");
        let flagged = Address::V6(0xff32 << 48, 1);
        assert!(is_essential(protocol::ICMPV6, 0, 131 << 8, flagged, true), "ff32:: is the link's");
        assert!(is_essential(protocol::ICMP, 0, 5 << 8, far, false), "a router leads to a better one");
        assert!(!is_essential(protocol::ICMP, 0, 5 << 8, far, true), "a process is no router");
        assert!(!is_essential(protocol::ICMPV6, 0, 134 << 8, group, true), "a process is no router");
        assert!(!is_essential(protocol::ICMPV6, 0, 137 << 8, group, true));
        assert!(!is_essential(protocol::ICMPV6, 0, 133 << 8, far6, true));
        assert!(!is_essential(protocol::ICMPV6, 0, 128 << 8, far6, false));
    }
}
