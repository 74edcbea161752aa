//! Takes an act, gives where it goes.

use std::net::IpAddr;

use dnswall_common::flow::protocol::{ICMP, ICMPV6, SCTP, TCP, UDP, UDP_LITE};

use crate::act::{Act, FRIEND, FRIEND_V6, MessageBy, UdpBy, address};
use crate::trick::{Forged, Forgery, Handed};

impl Act {
    /// Where it goes, as `policy explain` is asked; `None` for what goes nowhere.
    pub fn flow(&self) -> Option<Flow> {
        let (address, protocol, port) = match self {
            // The header's destination is the first hop.
            Self::Udp { to, by: UdpBy::SourceRoute } => {
                let hop = if to.is_ipv4() { FRIEND } else { FRIEND_V6 };
                (address(hop).ip(), UDP, Some(to.port()))
            }
            Self::Udp { to, by: UdpBy::Lite } => (to.ip(), UDP_LITE, Some(to.port())),
            Self::Udp { to, .. } | Self::Hold { to, tcp: false } => (to.ip(), UDP, Some(to.port())),
            Self::Tcp { to, .. } | Self::Hold { to, tcp: true } => (to.ip(), TCP, Some(to.port())),
            Self::Dns { server, tcp, .. } => (server.ip(), if *tcp { TCP } else { UDP }, Some(server.port())),
            Self::Message { server, by, .. } => {
                let protocol = match by {
                    MessageBy::Datagram | MessageBy::Segments | MessageBy::FromPort53 => UDP,
                    MessageBy::ZeroCopy | MessageBy::Spliced => UDP,
                    MessageBy::Lite => UDP_LITE,
                    _ => TCP,
                };
                (server.ip(), protocol, Some(server.port()))
            }
            Self::Ping { to, .. } => (*to, if to.is_ipv4() { ICMP } else { ICMPV6 }, None),
            Self::Raw { to, protocol, payload, .. } => {
                let has_port = [TCP, UDP, UDP_LITE, SCTP].contains(protocol);
                let port = payload.get(2..4).filter(|_| has_port);
                (*to, *protocol, port.map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]])))
            }
            Self::Handed { to, what, .. }
            | Self::Outlive { to, what, .. }
            | Self::Inherit { to, what, .. } => match what {
                Handed::Tcp | Handed::TcpConnected => (to.ip(), TCP, Some(to.port())),
                Handed::Ping => (to.ip(), if to.is_ipv4() { ICMP } else { ICMPV6 }, None),
                _ => (to.ip(), UDP, Some(to.port())),
            },
            Self::Forge(Forged { source, by, .. }) => match by {
                Forgery::Tcp | Forgery::TcpBoundTwice | Forgery::Multipath => {
                    (source.ip(), TCP, Some(source.port()))
                }
                Forgery::Segments => (source.ip(), UDP, Some(source.port())),
                _ => (source.ip(), if source.is_ipv4() { ICMP } else { ICMPV6 }, None),
            },
            Self::Link { to, .. } => (to.ip(), UDP, Some(to.port())),
            Self::As { act, .. } => return act.flow(),
            Self::Socket { .. }
            | Self::Serve { .. }
            | Self::Flood { .. }
            | Self::Storm { .. }
            | Self::Launch { .. } => {
                return None;
            }
            Self::Make { .. } | Self::Join { .. } | Self::Sweep { .. } | Self::Answer { .. } => return None,
            Self::Names { .. } | Self::Time { .. } | Self::Zone { .. } | Self::Follow(_) => return None,
            Self::Push { .. } | Self::Unwrap { .. } | Self::Load { .. } | Self::Steps { .. } => return None,
            Self::HoldRaw { .. } | Self::HoldForged(_) | Self::KeepSilent { .. } | Self::Stall { .. } => {
                return None;
            }
        };
        let icmp = match self {
            Self::Raw { payload, protocol: ICMP | ICMPV6, .. } => payload.first().copied(),
            Self::Ping { to, .. } => Some(if to.is_ipv4() { 8 } else { 128 }),
            Self::Handed { to, what: Handed::Ping, .. } => Some(if to.is_ipv4() { 8 } else { 128 }),
            _ => None,
        };
        Some(Flow { address, protocol, port, icmp })
    }
}

/// Where an act goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Destination address.
    pub address: IpAddr,
    /// IANA protocol.
    pub protocol: u8,
    /// Destination port, where the protocol has one.
    pub port: Option<u16>,
    /// The type of an ICMP message.
    pub icmp: Option<u8>,
}

impl Flow {
    /// As `policy explain --port` takes it.
    pub fn port_text(&self) -> String {
        let port = self.port.unwrap_or_default();
        match (self.protocol, self.icmp) {
            (_, Some(8 | 128)) => "icmp/echo".into(),
            (_, Some(kind)) => format!("icmp/{kind}"),
            (TCP, _) => format!("tcp/{port}"),
            (UDP | UDP_LITE, _) => format!("udp/{port}"),
            (SCTP, _) => format!("sctp/{port}"),
            (other, _) => format!("ip/{other}"),
        }
    }
}
