//! Takes kind, reason and flow, gives the techniques of MITRE ATT&CK that an adversary would be using.
//!
//! An alert names a technique where what was refused is what the technique does, and none where it would be a guess: most
//! refused connections are a rule that is missing, and who tags them all teaches others to ignore the tag.
//!
//! | what | techniques | why |
//! |---|---|---|
//! | `dns.direct`, `dns.type`, a listed name, too many questions | T1071.004 DNS | questions as a way to be commanded: to a server of one's own, in types that carry much, for a name that is known for it |
//! | `dns.encrypted` | T1071.004, T1572 Protocol Tunneling | the technique names DNS over HTTPS. Not T1573: that is encryption beside what the protocol itself has |
//! | `dns.limit` by the shape and number of names | T1071.004, T1572, T1048.003 Exfiltration Over Unencrypted Non-C2 Protocol | what leaves inside names |
//! | `answer-bytes` | T1071.004, T1572 | what comes inside answers |
//! | `nxdomain-rate` | T1568.002 Domain Generation Algorithms | names that do not exist, one after the other |
//! | `dns.malformed` | T1071.004, T1572 | to port 53, and something else than one question |
//! | `egress.denied` of ICMP or anything but TCP and UDP, `socket.raw`, `socket.unjudged` | T1095 Non-Application Layer Protocol | it names ICMP, raw sockets and VSOCK |
//! | `AF_PACKET`, besides | T1040 Network Sniffing | such a socket reads what others send |
//! | `tunnel`, `device.unjudged` | T1572 | packets inside packets |
//! | to the address of a cloud's metadata | T1552.005 Cloud Instance Metadata API | there is nothing else at that address |
//! | `tamper` | T1686 Disable or Modify System Firewall | it is one. T1562.004 until ATT&CK 19 dissolved T1562 |
//! | anything else: `egress.denied`, `ingress.dns`, `denied-name`, `alerts.lost`, `blocklist.*` | none | not T1041 or T1571: nobody saw what was to be sent, and any port may be the usual one |

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dnswall_common::flow::protocol;
use dnswall_common::reason::Reason;

use super::kind::Kind;

/// The version of ATT&CK whose numbers these are.
pub const ATTACK_VERSION: &str = "19";

/// Where clouds tell an instance about itself, keys included.
const METADATA: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];
/// `AF_PACKET`
const PACKET_FAMILY: u16 = 17;

const DNS: &str = "T1071.004";
const TUNNEL: &str = "T1572";
const EXFILTRATION: &str = "T1048.003";
const GENERATED_NAMES: &str = "T1568.002";
const NO_APPLICATION: &str = "T1095";
const SNIFFING: &str = "T1040";
const METADATA_API: &str = "T1552.005";
const FIREWALL: &str = "T1686";

/// Techniques of a refusal. `port` is the destination's, or the family of a socket being made.
pub fn techniques(
    kind: Kind,
    reason: Reason,
    protocol: u8,
    destination: Option<IpAddr>,
    port: u16,
) -> &'static [&'static str] {
    match kind {
        Kind::DnsDirect | Kind::DnsType => &[DNS],
        Kind::DnsEncrypted | Kind::DnsMalformed => &[DNS, TUNNEL],
        Kind::DnsName => match reason {
            Reason::ListedName => &[DNS],
            _ => &[],
        },
        Kind::DnsLimit => match reason {
            Reason::NxdomainRate => &[GENERATED_NAMES],
            Reason::QuestionRate => &[DNS],
            Reason::AnswerBytes => &[DNS, TUNNEL],
            _ => &[DNS, TUNNEL, EXFILTRATION],
        },
        Kind::EgressDenied if reason == Reason::Tunnel => &[TUNNEL],
        Kind::EgressDenied if destination.is_some_and(|address| METADATA.contains(&address)) => {
            &[METADATA_API]
        }
        Kind::EgressDenied => match protocol {
            protocol::TCP | protocol::UDP | protocol::UDP_LITE => &[],
            _ => &[NO_APPLICATION],
        },
        Kind::SocketUnjudged if port == PACKET_FAMILY => &[SNIFFING, NO_APPLICATION],
        Kind::SocketRaw | Kind::SocketUnjudged => &[NO_APPLICATION],
        Kind::DeviceUnjudged => &[TUNNEL],
        Kind::IngressDns => &[],
        Kind::Tamper => &[FIREWALL],
        Kind::Selftest | Kind::AlertsLost | Kind::BlocklistRejected | Kind::BlocklistStale => &[],
    }
}

/// Techniques of tampering.
pub const fn of_tampering() -> &'static [&'static str] {
    &[FIREWALL]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_technique_is_named_where_it_is_no_guess() {
        let somewhere: IpAddr = "198.51.100.7".parse().unwrap();
        let of = |kind, reason, protocol, port| techniques(kind, reason, protocol, Some(somewhere), port);
        assert_eq!(of(Kind::DnsDirect, Reason::NoRule, protocol::UDP, 53), [DNS]);
        assert_eq!(of(Kind::DnsEncrypted, Reason::Rule, protocol::TCP, 443), [DNS, TUNNEL]);
        assert_eq!(of(Kind::DnsName, Reason::ListedName, protocol::UDP, 53), [DNS]);
        assert!(of(Kind::DnsName, Reason::DeniedName, protocol::UDP, 53).is_empty());
        assert_eq!(of(Kind::DnsLimit, Reason::NameLength, protocol::UDP, 53), [DNS, TUNNEL, EXFILTRATION]);
        assert_eq!(of(Kind::DnsLimit, Reason::NxdomainRate, protocol::UDP, 53), [GENERATED_NAMES]);
        assert!(of(Kind::EgressDenied, Reason::NoRule, protocol::TCP, 4_444).is_empty());
        assert_eq!(of(Kind::EgressDenied, Reason::NoRule, protocol::ICMP, 0), [NO_APPLICATION]);
        assert_eq!(of(Kind::EgressDenied, Reason::Tunnel, protocol::UDP, 4_789), [TUNNEL]);
        assert_eq!(of(Kind::SocketUnjudged, Reason::UnjudgedSocket, 0, 17), [SNIFFING, NO_APPLICATION]);
        assert_eq!(of(Kind::SocketUnjudged, Reason::UnjudgedSocket, 0, 40), [NO_APPLICATION]);
        assert!(of(Kind::IngressDns, Reason::NotServed, protocol::UDP, 53).is_empty());
        for address in METADATA {
            let found = techniques(Kind::EgressDenied, Reason::Rule, protocol::TCP, Some(address), 80);
            assert_eq!(found, [METADATA_API], "{address}");
        }
    }
}
