//! One flow: where a packet or a connection attempt wants to go.

/// IANA protocol numbers the wall knows by name.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// UDP-Lite, judged as UDP.
    pub const UDP_LITE: u8 = 136;
    /// `IPPROTO_SMC` (from 6.11), not one on the wire: TCP whose data the adapter may carry.
    pub const SMC: u32 = 256;
    /// Not a protocol on the wire: the key under which "may ask a DNS server here" is compiled (255 is reserved by
    /// IANA and a packet that carries it is refused before it gets near a rule).
    pub const SERVE: u8 = 255;
}

/// Whether the kernel unwraps what arrives with this protocol, where somebody has set up such a tunnel, and sends on what is
/// inside: as [`is_tunnel`], IPsec, PIM's register (in its first version as IGMP).
#[inline(always)]
pub const fn is_encapsulation(next_header: u8) -> bool {
    is_tunnel(next_header) || matches!(next_header, 2 | 50 | 51 | 103 | 108)
}

/// The same without those that are spoken to groups in earnest: IP in IP, GRE, L2TP, MPLS in IP.
#[inline(always)]
pub const fn is_tunnel(next_header: u8) -> bool {
    matches!(next_header, 4 | 41 | 47 | 115 | 137)
}

/// The port of DNS.
pub const PORT_DNS: u16 = 53;
/// The port of DNS over TLS and DNS over QUIC.
pub const PORT_DNS_TLS: u16 = 853;

/// An address in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// IPv4, also when it arrived as `::ffff:a.b.c.d`.
    V4(u32),
    /// IPv6: the upper and the lower half.
    V6(u64, u64),
}

impl Address {
    /// From the 16 bytes of an IPv6 address in network order; a v4-mapped one becomes IPv4.
    #[inline(always)]
    pub const fn from_v6_bytes(bytes: &[u8; 16]) -> Self {
        let whole = u128::from_be_bytes(*bytes);
        let (high, low) = ((whole >> 64) as u64, whole as u64);
        if high == 0 && low >> 32 == 0xffff { Self::V4(low as u32) } else { Self::V6(high, low) }
    }

    /// Network order, IPv4 as v4-mapped: the form in events and socket storage.
    #[inline(always)]
    pub const fn to_words(self) -> [u64; 2] {
        match self {
            Self::V4(address) => [0, 0xffff_0000_0000 | address as u64],
            Self::V6(high, low) => [high, low],
        }
    }

    /// 127.0.0.0/8 or ::1.
    #[inline(always)]
    pub const fn is_loopback(self) -> bool {
        match self {
            Self::V4(address) => address >> 24 == 127,
            Self::V6(high, low) => high == 0 && low == 1,
        }
    }

    /// Multicast, or 255.255.255.255.
    #[inline(always)]
    pub const fn is_group(self) -> bool {
        match self {
            Self::V4(address) => address >> 28 == 14 || address == u32::MAX,
            Self::V6(high, _) => high >> 56 == 0xff,
        }
    }
}

/// Where a packet or connection attempt goes: what [`crate::decide::decide`] judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The far end (for inbound DNS: who asks).
    pub address: Address,
    /// IANA protocol number, or [`protocol::SERVE`].
    pub protocol: u8,
    /// Destination port; for ICMP `type << 8 | code`; 0 where the protocol has none.
    pub port: u16,
}

impl Flow {
    /// The key of the port tree: class, protocol, port. UDP-Lite is judged as UDP.
    #[inline(always)]
    pub const fn port_key(&self, class: u32) -> u64 {
        let protocol = if self.protocol == protocol::UDP_LITE { protocol::UDP } else { self.protocol };
        port_key(class, protocol, self.port)
    }
}

/// The key of the port tree.
#[inline(always)]
pub const fn port_key(class: u32, protocol: u8, port: u16) -> u64 {
    (class as u64) << 24 | (protocol as u64) << 16 | port as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_multicast_and_everybody() {
        for (address, is_group) in [
            (Address::V4(0xe000_0001), true),
            (Address::V4(0xefff_ffff), true),
            (Address::V4(u32::MAX), true),
            (Address::V4(0xf000_0000), false),
            (Address::V4(0xdfff_ffff), false),
            (Address::V6(0xff02 << 48, 1), true),
            (Address::V6(0xfe80 << 48, 1), false),
        ] {
            assert_eq!(address.is_group(), is_group, "{address:?}");
        }
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        let mut bytes = [0; 16];
        bytes[10..].copy_from_slice(&[0xff, 0xff, 8, 8, 4, 4]);
        assert_eq!(Address::from_v6_bytes(&bytes), Address::V4(0x0808_0404));
        assert_eq!(Address::V4(0x0808_0404).to_words(), [0, 0xffff_0808_0404]);
        let mut loopback = [0; 16];
        loopback[15] = 1;
        assert!(Address::from_v6_bytes(&loopback).is_loopback());
        assert!(!Address::from_v6_bytes(&[0; 16]).is_loopback());
    }
}
