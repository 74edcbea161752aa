//! Takes the destinations of a rule, gives the addresses they stand for.

use super::intervals::Intervals;
use crate::policy::Destination;
use crate::policy::encrypted::KNOWN;
use crate::policy::internet::{INTERNET6, NAT64, NOT_INTERNET4, NOT_INTERNET6};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

/// Addresses, by family, as numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses {
    /// IPv4.
    pub(super) v4: Intervals,
    /// IPv6.
    pub(super) v6: Intervals,
}

impl Addresses {
    /// What the destinations stand for, together.
    pub(super) fn new<'a>(destinations: impl IntoIterator<Item = &'a Destination>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for destination in destinations {
            match destination {
                Destination::Any => {
                    v4.push((0, u32::MAX.into()));
                    v6.push((0, u128::MAX));
                }
                Destination::Internet => {
                    v4.extend(INTERNET.v4.as_slice());
                    v6.extend(INTERNET.v6.as_slice());
                }
                Destination::EncryptedDns => {
                    v4.extend(ENCRYPTED_DNS.v4.as_slice());
                    v6.extend(ENCRYPTED_DNS.v6.as_slice());
                }
                Destination::Network(IpNet::V4(net)) => v4.push(ends4(net)),
                Destination::Network(IpNet::V6(net)) => v6.push(ends6(net)),
            }
        }
        Self { v4: Intervals::union(v4), v6: Intervals::union(v6) }
    }

    /// Whether no address is in it.
    pub(super) fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Without IPv4 addresses written as IPv6. As the destination of a packet on the wire they are never legitimate
    /// (RFC 4942 2.2), and a connection to one is IPv4 and judged as such.
    #[must_use]
    pub(super) fn without_mapped(self) -> Self {
        let mapped = u128::from(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0));
        let v6 = self.v6.without(&Intervals::union(vec![(mapped, mapped | u128::from(u32::MAX))]));
        Self { v4: self.v4, v6 }
    }
}

/// What `internet` stands for.
static INTERNET: LazyLock<Addresses> = LazyLock::new(|| {
    let not4 = Intervals::union(NOT_INTERNET4.iter().map(|(net, _)| ends4(net)).collect());
    let translated = ends6(&NAT64.0).0;
    let not6 = NOT_INTERNET6.iter().map(|(net, _)| ends6(net));
    let not6 =
        not6.chain(not4.as_slice().iter().map(|(first, last)| (translated | first, translated | last)));
    let all6 = Intervals::union(INTERNET6.iter().map(|(net, _)| ends6(net)).collect());
    Addresses {
        v4: Intervals::union(vec![(0, u32::MAX.into())]).without(&not4),
        v6: all6.without(&Intervals::union(not6.collect())),
    }
});

/// What `encrypted-dns` stands for, also through a translator to IPv4.
static ENCRYPTED_DNS: LazyLock<Addresses> = LazyLock::new(|| {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    let translated = ends6(&NAT64.0).0;
    for network in &KNOWN.networks {
        match network {
            IpNet::V4(net) => {
                let (first, last) = ends4(net);
                v4.push((first, last));
                v6.push((translated | first, translated | last));
            }
            IpNet::V6(net) => v6.push(ends6(net)),
        }
    }
    Addresses { v4: Intervals::union(v4), v6: Intervals::union(v6) }
});

fn ends4(net: &Ipv4Net) -> (u128, u128) {
    let number = |address: Ipv4Addr| u128::from(u32::from(address));
    (number(net.network()), number(net.broadcast()))
}

fn ends6(net: &Ipv6Net) -> (u128, u128) {
    (u128::from(net.network()), u128::from(net.broadcast()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    #[test]
    fn the_internet_is_what_is_reachable_from_anywhere() {
        let internet = Addresses::new([&Destination::Internet]);
        let holds = |text: &str| {
            let (set, address) = match text.parse().unwrap() {
                IpAddr::V4(address) => (&internet.v4, u128::from(u32::from(address))),
                IpAddr::V6(address) => (&internet.v6, u128::from(address)),
            };
            set.as_slice().iter().any(|(first, last)| (*first..=*last).contains(&address))
        };
        for text in ["8.8.8.8", "1.0.0.0", "100.63.255.255", "172.32.0.0", "223.255.255.255", "192.0.1.0"] {
            assert!(holds(text), "{text}");
        }
        for text in ["2606:4700::1111", "2a00::1", "64:ff9b::808:808", "2001:200::1", "3ffe::1"] {
            assert!(holds(text), "{text}");
        }
        for text in
            ["0.0.0.0", "10.1.2.3", "100.64.0.0", "127.0.0.1", "169.254.169.254", "192.168.0.1", "224.0.0.1"]
        {
            assert!(!holds(text), "{text}");
        }
        for text in
            ["::", "::1", "fe80::1", "fd00::1", "ff02::1", "2001:db8::1", "2002:a00:1::1", "::ffff:8.8.8.8"]
        {
            assert!(!holds(text), "{text}");
        }
        assert!(!holds("64:ff9b::a00:1"), "a translator leads to 10.0.0.1");
        assert!(!holds("255.255.255.255") && !holds("203.0.113.9") && !holds("198.51.100.53"));
    }
}
