//! Takes an event, gives its flow as an alert has it: from where to where, with every name and number that is known.

use std::net::IpAddr;

use dnswall_common::flow::protocol;
use dnswall_common::reason::Reason;
use serde::{Deserialize, Serialize};

use super::community_id::{Ports, community_id};
use super::unjudged;
use crate::event::{EnrichedEvent, EventHook};

/// From where to where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertFlow {
    /// `tcp`, `udp`, … or the IANA number; of a socket that is no IP socket its family (`AF_PACKET`), of a device its
    /// path.
    pub protocol: String,
    /// Source address.
    pub source: Option<IpAddr>,
    /// Source port.
    pub source_port: Option<u16>,
    /// Destination address; `null` also when the alert sums up many (see [`group`](super::group)).
    pub destination: Option<IpAddr>,
    /// Destination port; `null` for protocols without ports, and where the packet could not be read that far.
    pub destination_port: Option<u16>,
    /// Type and code, for ICMP.
    pub icmp: Option<AlertIcmp>,
    /// `ipv4` or `ipv6`: the socket's, so that an IPv4 address may appear under `ipv6`; else `none`.
    pub family: String,
    /// Where the kernel saw it.
    pub hook: EventHook,
    /// Bytes of the packet; `null` for an attempt.
    pub bytes: Option<u32>,
    /// Its Community ID; `null` where an address or port is not known.
    #[serde(default)]
    pub community_id: Option<String>,
    /// The name whose answer led the workload to the destination; `null` where no answer was seen.
    #[serde(default)]
    pub destination_name: Option<String>,
}

/// Type and code of an ICMP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertIcmp {
    /// Type.
    #[serde(rename = "type")]
    pub kind: u8,
    /// Code.
    pub code: u8,
}

impl AlertFlow {
    /// The protocol's IANA number; `None` for what is not IP.
    pub fn protocol_number(&self) -> Option<u8> {
        match self.protocol.as_str() {
            "icmp" => Some(protocol::ICMP),
            "tcp" => Some(protocol::TCP),
            "udp" => Some(protocol::UDP),
            "icmpv6" => Some(protocol::ICMPV6),
            "sctp" => Some(protocol::SCTP),
            "udplite" => Some(protocol::UDP_LITE),
            other => other.parse().ok(),
        }
    }

    /// The flow of an event.
    pub(crate) fn new(event: &EnrichedEvent) -> Self {
        let flow = &event.flow;
        let is_icmp = [protocol::ICMP, protocol::ICMPV6].contains(&flow.protocol);
        let has_ports =
            [protocol::TCP, protocol::UDP, protocol::UDP_LITE, protocol::SCTP].contains(&flow.protocol);
        // What is refused for its form was not read as far as the port.
        let is_read = !matches!(
            event.reason,
            Reason::Malformed | Reason::Fragment | Reason::SourceRoute | Reason::ExtensionHeaders
        );
        let [kind, code] = flow.destination_port.to_be_bytes();
        // A socket being made, and a sum of many flows, have no destination at all.
        let somewhere = flow.destination.is_some();
        let source_port = flow.source_port.filter(|_| event.hook != EventHook::Device);
        let destination_port = (has_ports && somewhere && is_read).then_some(flow.destination_port);
        let icmp = (is_icmp && somewhere && is_read).then_some(AlertIcmp { kind, code });
        let ports = match flow.protocol {
            protocol::ICMP | protocol::ICMPV6 => icmp.map(|icmp| Ports::Icmp(icmp.kind, icmp.code)),
            protocol::TCP | protocol::UDP | protocol::SCTP => {
                source_port.zip(destination_port).map(|(from, to)| Ports::Pair(from, to))
            }
            // UDP-Lite has ports, and the specification does not know it.
            _ => Some(Ports::None),
        };
        Self {
            protocol: match event.hook {
                EventHook::Socket => unjudged::family(flow.destination_port),
                EventHook::Device => unjudged::device(flow.source_port.unwrap_or(0), flow.destination_port),
                _ => protocol_name(flow.protocol),
            },
            source: flow.source,
            source_port,
            destination: flow.destination,
            destination_port,
            icmp,
            family: match flow.family {
                4 => "ipv4",
                6 => "ipv6",
                _ => "none",
            }
            .to_owned(),
            hook: event.hook,
            bytes: flow.bytes,
            community_id: flow
                .source
                .zip(flow.destination)
                .zip(ports)
                .map(|((from, to), ports)| community_id(flow.protocol, from, to, ports)),
            destination_name: event.destination_name.as_deref().map(str::to_owned),
        }
    }
}

fn protocol_name(number: u8) -> String {
    match number {
        protocol::ICMP => "icmp".to_owned(),
        protocol::TCP => "tcp".to_owned(),
        protocol::UDP => "udp".to_owned(),
        protocol::ICMPV6 => "icmpv6".to_owned(),
        protocol::SCTP => "sctp".to_owned(),
        protocol::UDP_LITE => "udplite".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::sample;

    #[test]
    fn icmp_has_no_ports_but_type_and_code() {
        let mut event = sample::enriched();
        (event.flow.protocol, event.flow.destination_port) = (protocol::ICMPV6, 128 << 8 | 3);
        let flow = AlertFlow::new(&event);
        assert_eq!((flow.destination_port, flow.icmp), (None, Some(AlertIcmp { kind: 128, code: 3 })));
        event.flow.protocol = 47;
        let flow = AlertFlow::new(&event);
        assert_eq!((flow.protocol.as_str(), flow.destination_port, flow.icmp), ("47", None, None));
    }

    #[test]
    fn a_protocol_is_found_again_by_its_name() {
        let mut flow = AlertFlow::new(&sample::enriched());
        for number in 0..=u8::MAX {
            flow.protocol = protocol_name(number);
            assert_eq!(flow.protocol_number(), Some(number));
        }
        flow.protocol = "AF_PACKET".to_owned();
        assert_eq!(flow.protocol_number(), None);
    }

    #[test]
    fn an_id_of_the_flow_needs_both_ends() {
        let mut event = sample::enriched();
        let of = |event: &EnrichedEvent| AlertFlow::new(event).community_id;
        assert_eq!(of(&event).as_deref(), Some("1:+FqJGyCuR8AaMAlZOpg71NEBLw4="));
        event.flow.source_port = None;
        assert_eq!(of(&event), None);
        event.flow.protocol = 47;
        assert!(of(&event).is_some(), "no ports are needed");
        event.flow.source = None;
        assert_eq!(of(&event), None);
        event = sample::enriched();
        event.reason = Reason::Fragment;
        assert_eq!(of(&event), None, "its ports were not read");
    }
}
