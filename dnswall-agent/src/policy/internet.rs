//! What `internet` in a policy's `to` means: every address that the registries say is reachable from anywhere.

use ipnet::{Ipv4Net, Ipv6Net};
use std::net::{Ipv4Addr, Ipv6Addr};

/// IPv4 networks that are not the internet, with the document that says so.
pub const NOT_INTERNET4: &[(Ipv4Net, &str)] = &[
    (v4([0, 0, 0, 0], 8), "RFC 791: this network"),
    (v4([10, 0, 0, 0], 8), "RFC 1918: private"),
    (v4([100, 64, 0, 0], 10), "RFC 6598: shared by carriers and clouds"),
    (v4([127, 0, 0, 0], 8), "RFC 1122: loopback"),
    (v4([169, 254, 0, 0], 16), "RFC 3927: link-local, instance metadata"),
    (v4([172, 16, 0, 0], 12), "RFC 1918: private"),
    (v4([192, 0, 0, 0], 24), "RFC 6890: protocol assignments"),
    (v4([192, 0, 2, 0], 24), "RFC 5737: documentation"),
    (v4([192, 88, 99, 0], 24), "RFC 7526: former 6to4 relays"),
    (v4([192, 168, 0, 0], 16), "RFC 1918: private"),
    (v4([198, 18, 0, 0], 15), "RFC 2544: benchmarks"),
    (v4([198, 51, 100, 0], 24), "RFC 5737: documentation"),
    (v4([203, 0, 113, 0], 24), "RFC 5737: documentation"),
    (v4([224, 0, 0, 0], 4), "RFC 1112: multicast"),
    (v4([240, 0, 0, 0], 4), "RFC 1112: reserved, and RFC 919: broadcast"),
];

/// IPv6 networks that hold the internet.
pub const INTERNET6: &[(Ipv6Net, &str)] =
    &[(v6([0x2000, 0, 0], 3), "RFC 4291: global unicast"), (NAT64.0, NAT64.1)];

/// IPv4 through a translator. The IPv4 networks of [`NOT_INTERNET4`] are left out of it as well.
pub const NAT64: (Ipv6Net, &str) = (v6([0x64, 0xff9b, 0], 96), "RFC 6052: IPv4 through NAT64");

/// Parts of [`INTERNET6`] that are not the internet.
pub const NOT_INTERNET6: &[(Ipv6Net, &str)] = &[
    (v6([0x2001, 0, 0], 23), "RFC 2928: protocol assignments, Teredo"),
    (v6([0x2001, 0x0db8, 0], 32), "RFC 3849: documentation"),
    (v6([0x2002, 0, 0], 16), "RFC 3056: 6to4, which can carry a private IPv4 address"),
    (v6([0x3fff, 0, 0], 20), "RFC 9637: documentation"),
];

const fn v4(octets: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]), prefix)
}

const fn v6(first: [u16; 3], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(first[0], first[1], first[2], 0, 0, 0, 0, 0), prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_no_host_bits() {
        assert!(NOT_INTERNET4.iter().all(|(net, _)| net.trunc() == *net));
        assert!(INTERNET6.iter().chain(NOT_INTERNET6).all(|(net, _)| net.trunc() == *net));
    }
}
