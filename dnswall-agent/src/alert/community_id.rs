//! Takes a flow's protocol, addresses and ports, gives its Community ID version 1, by which other tools' records of the
//! same flow are found: SHA-1 of all that in one order for both directions, in Base64.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dnswall_common::flow::protocol;
use sha1::{Digest as _, Sha1};

/// The version, in front of the hash.
const VERSION: &str = "1:";
/// The seed; whoever does not agree on another uses this one.
const SEED: u16 = 0;

/// What stands in place of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// The protocol has none.
    None,
    /// Source and destination.
    Pair(u16, u16),
    /// Type and code of an ICMP message.
    Icmp(u8, u8),
}

/// The identifier; addresses are to be of one family.
pub fn community_id(number: u8, source: IpAddr, destination: IpAddr, ports: Ports) -> String {
    let (source, destination) = (octets(source), octets(destination));
    let (ports, two_way) = match ports {
        Ports::None => (None, true),
        Ports::Pair(from, to) => (Some((from, to)), true),
        Ports::Icmp(kind, code) => match counterpart(number, kind) {
            Some(answer) => (Some((kind.into(), answer.into())), true),
            None => (Some((kind.into(), code.into())), false),
        },
    };
    let (from, to) = ports.unwrap_or_default();
    let in_order = !two_way || (&source, from) <= (&destination, to);
    let (first, second) =
        if in_order { ((source, from), (destination, to)) } else { ((destination, to), (source, from)) };
    let mut hash = Sha1::new();
    hash.update(SEED.to_be_bytes());
    hash.update(first.0);
    hash.update(second.0);
    hash.update([number, 0]);
    if ports.is_some() {
        hash.update(first.1.to_be_bytes());
        hash.update(second.1.to_be_bytes());
    }
    VERSION.to_owned() + &STANDARD.encode(hash.finalize())
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The type that answers this one or is answered by it, so that both directions are one flow.
const fn counterpart(number: u8, kind: u8) -> Option<u8> {
    Some(match (number, kind) {
        (protocol::ICMP, 0) => 8,
        (protocol::ICMP, 8) => 0,
        (protocol::ICMP, 9) => 10,
        (protocol::ICMP, 10) => 9,
        (protocol::ICMP, 13 | 15 | 17) => kind + 1,
        (protocol::ICMP, 14 | 16 | 18) => kind - 1,
        (protocol::ICMPV6, 128 | 130 | 133 | 135 | 139 | 144) => kind + 1,
        (protocol::ICMPV6, 129 | 131 | 134 | 136 | 140 | 145) => kind - 1,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by the specification's own program from its captures (corelight/community-id-spec, `baseline/baseline_deflt.json`).
    const BASELINE: &str = "\
58 fe80::200:86ff:fe05:80da fe80::260:97ff:fe07:69ea 135 136 1:dGHyGvjMfljg6Bppwm3bg0LO8TY=
58 fe80::260:97ff:fe07:69ea fe80::200:86ff:fe05:80da 136 135 1:dGHyGvjMfljg6Bppwm3bg0LO8TY=
58 fe80::260:97ff:fe07:69ea fe80::200:86ff:fe05:80da 135 136 1:zavyT/cezQr1fmImYCwYnMXbgck=
58 fe80::200:86ff:fe05:80da fe80::260:97ff:fe07:69ea 136 135 1:zavyT/cezQr1fmImYCwYnMXbgck=
58 3ffe:501:1800:2345::2 3ffe:507:0:1:200:86ff:fe05:80da 3 0 1:2ObVBgIn28oZvibYZhZMBgh7WdQ=
58 3ffe:501:410:0:2c0:dfff:fe47:33e 3ffe:507:0:1:200:86ff:fe05:80da 1 4 1:hLZd0XGWojozrvxqE0dWB1iM6R0=
58 3ffe:507:0:1:200:86ff:fe05:80da 3ffe:501:0:1001::2 128 129 1:+TW+HtLHvV1xnGhV1lv7XoJrqQg=
58 3ffe:501:0:1001::2 3ffe:507:0:1:200:86ff:fe05:80da 129 128 1:+TW+HtLHvV1xnGhV1lv7XoJrqQg=
58 fe80::200:86ff:fe05:80da ff02::2 133 134 1:hO+sN4H+MG5MY/8hIrXPqc4ZQz0=
58 fe80::260:97ff:fe07:69ea ff02::1 134 133 1:pkvHqCL88/tg1k4cPigmZXUtL00=
1 192.168.0.89 192.168.0.1 8 0 1:X0snYXpgwiv9TZtqg64sgzUn6Dk=
1 192.168.0.1 192.168.0.89 0 8 1:X0snYXpgwiv9TZtqg64sgzUn6Dk=
1 10.0.0.1 10.0.0.2 11 0 1:YHxtAirCG//0OzkcVAukqKQN9xM=
6 2001:470:e5bf:dead:4957:2174:e82c:4887 2607:f8b0:400c:c03::1a 63943 25 1:/qFaeAR+gFe1KYjMzVDsMv+wgU4=
6 2607:f8b0:400c:c03::1a 2001:470:e5bf:dead:4957:2174:e82c:4887 25 63943 1:/qFaeAR+gFe1KYjMzVDsMv+wgU4=
132 192.168.170.8 192.168.170.56 7 7 1:MP2EtRCAUIZvTw6MxJHLV7N7JDs=
132 192.168.170.56 192.168.170.8 7 7 1:MP2EtRCAUIZvTw6MxJHLV7N7JDs=
6 128.232.110.120 66.35.250.204 34855 80 1:LQU9qZlK+B5F3KDmev6m5PMibrg=
6 66.35.250.204 128.232.110.120 80 34855 1:LQU9qZlK+B5F3KDmev6m5PMibrg=
17 192.168.1.52 8.8.8.8 54585 53 1:d/FP5EW3wiY1vCndhwleRRKHowQ=
17 8.8.8.8 192.168.1.52 53 54585 1:d/FP5EW3wiY1vCndhwleRRKHowQ=
46 10.1.12.1 10.1.12.2 - - 1:KHlLkgoJW7ifUTyTSgyVfkFHzKw=
46 10.1.12.2 10.1.12.1 - - 1:KHlLkgoJW7ifUTyTSgyVfkFHzKw=";

    #[test]
    fn the_published_baseline_comes_out() {
        for line in BASELINE.lines() {
            let [number, source, destination, from, to, expected] =
                line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let number: u8 = number.parse().unwrap();
            let ports = match (number, from.parse::<u16>(), to.parse::<u16>()) {
                (protocol::ICMP | protocol::ICMPV6, Ok(kind), Ok(code)) => {
                    Ports::Icmp(kind as u8, code as u8)
                }
                (_, Ok(from), Ok(to)) => Ports::Pair(from, to),
                _ => Ports::None,
            };
            let (source, destination) = (source.parse().unwrap(), destination.parse().unwrap());
            assert_eq!(community_id(number, source, destination, ports), expected, "{line}");
        }
    }

    #[test]
    fn a_message_without_an_answer_has_a_direction() {
        let [one, other]: [IpAddr; 2] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
        let id = |from, to, kind| community_id(protocol::ICMP, from, to, Ports::Icmp(kind, 0));
        assert_ne!(id(one, other, 11), id(other, one, 11));
        assert_eq!(id(one, other, 8), id(other, one, 0));
    }
}
