//! What an alert is about.

use dnswall_common::flow::{PORT_DNS, PORT_DNS_TLS, protocol};
use dnswall_common::reason::Reason;

use super::named::named;
use crate::compile::ENCRYPTED;
use crate::event::{EnrichedEvent, EventHook};

named! {
    /// The kind of an alert, as `kind` in its JSON.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum Kind {
        /// Port 53 of something that is not a resolver, or not for this workload.
        DnsDirect = "dns.direct",
        /// Port 853, or a resolver that is known to be asked over TLS, HTTPS or QUIC: its address, or the question for its name.
        DnsEncrypted = "dns.encrypted",
        /// A name that a block list has, or a rule refuses.
        DnsName = "dns.name",
        /// A type of question that the policy refuses.
        DnsType = "dns.type",
        /// A question that is one too many, or for a name of a shape that a limit refuses.
        DnsLimit = "dns.limit",
        /// A packet to port 53 that is not one question, or cannot be read to the end.
        DnsMalformed = "dns.malformed",
        /// Any other connection, datagram or message.
        EgressDenied = "egress.denied",
        /// Somebody asks a DNS server on this host.
        IngressDns = "ingress.dns",
        /// A raw socket.
        SocketRaw = "socket.raw",
        /// A socket whose traffic the wall does not see: AF_PACKET, AF_XDP and the like.
        SocketUnjudged = "socket.unjudged",
        /// A device whose traffic the wall does not see: TUN and the like.
        DeviceUnjudged = "device.unjudged",
        /// Somebody did something to the wall, or it does not hold.
        Tamper = "tamper",
        /// The agent was refused what it tried, to see whether alerts arrive.
        Selftest = "selftest",
        /// Alerts, or refusals that would be in some, did not get where they should.
        AlertsLost = "alerts.lost",
        /// A new version of a list does not count: by its size, its form, or names that are known to be good.
        BlocklistRejected = "blocklist.rejected",
        /// A list was not refreshed for long.
        BlocklistStale = "blocklist.stale",
    }
}

impl Kind {
    /// Whether it is about the agent, the wall or a list: no workload's traffic.
    pub const fn is_own(self) -> bool {
        matches!(
            self,
            Self::Tamper | Self::Selftest | Self::AlertsLost | Self::BlocklistRejected | Self::BlocklistStale
        )
    }

    /// Whether nobody may mute it: what is done to the wall, and whether alerts arrive.
    pub const fn is_never_muted(self) -> bool {
        matches!(self, Self::Tamper | Self::Selftest | Self::AlertsLost)
    }

    /// The kind of an event that this rule decided; `None` when nobody knows which.
    pub fn of(event: &EnrichedEvent, rule: Option<&str>) -> Self {
        if rule == Some(ENCRYPTED) && matches!(event.reason, Reason::Rule | Reason::DeniedName) {
            return Self::DnsEncrypted;
        }
        let port = match event.flow.protocol {
            protocol::TCP | protocol::UDP | protocol::UDP_LITE => event.flow.destination_port,
            _ => 0,
        };
        match (event.hook, event.reason, port) {
            (EventHook::Socket, _, _) => Self::SocketUnjudged,
            (EventHook::Device, _, _) => Self::DeviceUnjudged,
            (EventHook::SockCreate, _, _) | (_, Reason::RawSocket, _) => Self::SocketRaw,
            (EventHook::Ingress, _, _) => Self::IngressDns,
            (_, Reason::ListedName | Reason::DeniedName, _) => Self::DnsName,
            (_, Reason::QuestionType, _) => Self::DnsType,
            (
                _,
                Reason::NameLength
                | Reason::LabelLength
                | Reason::LabelCount
                | Reason::QuestionRate
                | Reason::NamesPerDomain
                | Reason::NxdomainRate
                | Reason::AnswerBytes,
                _,
            ) => Self::DnsLimit,
            (
                _,
                Reason::MalformedQuestion
                | Reason::SplitQuestion
                | Reason::NotAQuestion
                | Reason::UnstableQuestion
                | Reason::TooManyLabels,
                _,
            )
            | (_, Reason::Malformed, PORT_DNS) => Self::DnsMalformed,
            (_, _, PORT_DNS) => Self::DnsDirect,
            (_, _, PORT_DNS_TLS) => Self::DnsEncrypted,
            _ => Self::EgressDenied,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::sample;

    #[test]
    fn events_have_their_kind() {
        let check = |hook, reason, protocol, port, expected: Kind| {
            let mut event = sample::enriched();
            (event.hook, event.reason) = (hook, reason);
            (event.flow.protocol, event.flow.destination_port) = (protocol, port);
            assert_eq!(Kind::of(&event, Some("x")), expected, "{hook:?} {reason:?} {protocol} {port}");
        };
        use EventHook::{Connect, Device, Egress, Ingress, SockCreate, Socket};
        check(Egress, Reason::NoRule, protocol::UDP, 53, Kind::DnsDirect);
        check(Connect, Reason::NotForThisWorkload, protocol::TCP, 53, Kind::DnsDirect);
        check(Egress, Reason::NoRule, protocol::UDP_LITE, 53, Kind::DnsDirect);
        check(Egress, Reason::Malformed, protocol::UDP, 53, Kind::DnsMalformed);
        check(Egress, Reason::Malformed, protocol::UDP, 54, Kind::EgressDenied);
        check(Egress, Reason::ListedName, protocol::UDP, 53, Kind::DnsName);
        check(Egress, Reason::DeniedName, protocol::TCP, 53, Kind::DnsName);
        check(Connect, Reason::NameUnknown, protocol::TCP, 443, Kind::EgressDenied);
        check(Egress, Reason::QuestionType, protocol::TCP, 53, Kind::DnsType);
        check(Egress, Reason::NamesPerDomain, protocol::UDP, 53, Kind::DnsLimit);
        check(Egress, Reason::AnswerBytes, protocol::TCP, 53, Kind::DnsLimit);
        check(Egress, Reason::SplitQuestion, protocol::TCP, 53, Kind::DnsMalformed);
        check(Egress, Reason::UnstableQuestion, protocol::UDP, 53, Kind::DnsMalformed);
        check(Egress, Reason::NotAQuestion, protocol::UDP_LITE, 53, Kind::DnsMalformed);
        check(Connect, Reason::NoRule, protocol::TCP, 853, Kind::DnsEncrypted);
        check(Connect, Reason::Rule, protocol::TCP, 443, Kind::EgressDenied);
        check(Egress, Reason::NoRule, protocol::ICMP, 53, Kind::EgressDenied);
        check(Egress, Reason::NoRule, protocol::SCTP, 53, Kind::EgressDenied);
        check(Ingress, Reason::NotServed, protocol::UDP, 53, Kind::IngressDns);
        check(SockCreate, Reason::RawSocket, 255, 0, Kind::SocketRaw);
        check(Egress, Reason::RawSocket, protocol::UDP, 53, Kind::SocketRaw);
        check(Socket, Reason::UnjudgedSocket, 0, 17, Kind::SocketUnjudged);
        check(Device, Reason::UnjudgedDevice, 0, 200, Kind::DeviceUnjudged);
    }

    #[test]
    fn a_known_resolver_is_told_by_the_rule() {
        let mut event = sample::enriched();
        (event.flow.protocol, event.flow.destination_port) = (protocol::TCP, 443);
        for (reason, rule, expected) in [
            (Reason::Rule, Some(ENCRYPTED), Kind::DnsEncrypted),
            (Reason::DeniedName, Some(ENCRYPTED), Kind::DnsEncrypted),
            (Reason::NoRule, Some(ENCRYPTED), Kind::EgressDenied),
            (Reason::Rule, Some("deny.dns.encrypted"), Kind::EgressDenied),
            (Reason::Rule, None, Kind::EgressDenied),
        ] {
            event.reason = reason;
            assert_eq!(Kind::of(&event, rule), expected, "{reason:?} {rule:?}");
        }
    }
}
