//! Takes kind and reason, gives how bad that is.
//!
//! | severity | what has it | why |
//! |---|---|---|
//! | `critical` | tampering that the agent could not mend | the wall does not hold what it promises |
//! | `high` | tampering that was mended; `socket.unjudged`, `device.unjudged` | somebody works at the wall, or past it |
//! | | `alerts.lost` | nobody knows what was in them |
//! | | a listed name; names that are long, many, or weigh much; a question in parts, or in memory that can still change | few programs do this without meaning to |
//! | | a forged source, a tunnel of this host's, source routing; an image that cannot be read | a packet made to get around rules, or a broken wall |
//! | `medium` | other `dns.*`, `socket.raw`; a destination that a rule refuses by name or number; headers that cannot be read | a program with habits of its own, or worse |
//! | | `blocklist.*` | what protects this host gets old, or somebody serves another list |
//! | `low` | a destination that no rule names, `ingress.dns` | mostly a rule that is missing |
//! | `info` | `selftest`; that a `blocklist.*` is over | the agent's own doing |
//!
//! Whether the packet was refused or, in audit mode, passed is no part of it: what was tried is the same.

use dnswall_common::reason::Reason;

use super::kind::Kind;
use super::named::named;

named! {
    /// How bad it is, from the least to the worst.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Severity {
        /// Good to know.
        Info = "info",
        /// Look at it some day.
        Low = "low",
        /// Look at it soon; also what an alert has that was written before alerts had severities.
        #[default]
        Medium = "medium",
        /// Look at it now.
        High = "high",
        /// Get up and look at it.
        Critical = "critical",
    }
}

impl Severity {
    /// Of a refusal.
    pub const fn of(kind: Kind, reason: Reason) -> Self {
        match kind {
            Kind::DnsName => match reason {
                Reason::ListedName => Self::High,
                _ => Self::Medium,
            },
            Kind::DnsLimit => match reason {
                // A resolver that does not answer, or a wrong search domain, does this too.
                Reason::QuestionRate | Reason::NxdomainRate => Self::Medium,
                _ => Self::High,
            },
            Kind::DnsMalformed => match reason {
                Reason::SplitQuestion | Reason::UnstableQuestion => Self::High,
                _ => Self::Medium,
            },
            Kind::EgressDenied => match reason {
                Reason::ForgedSource | Reason::Tunnel | Reason::SourceRoute | Reason::ImageUnreadable => {
                    Self::High
                }
                Reason::Rule
                | Reason::Malformed
                | Reason::Fragment
                | Reason::ExtensionHeaders
                | Reason::NoPolicy => Self::Medium,
                _ => Self::Low,
            },
            Kind::DnsDirect | Kind::DnsEncrypted | Kind::DnsType | Kind::SocketRaw => Self::Medium,
            Kind::IngressDns => Self::Low,
            Kind::SocketUnjudged | Kind::DeviceUnjudged => Self::High,
            Kind::Tamper => Self::Critical,
            Kind::Selftest => Self::Info,
            Kind::AlertsLost => Self::High,
            Kind::BlocklistRejected | Kind::BlocklistStale => Self::Medium,
        }
    }

    /// Of tampering.
    pub const fn of_tampering(mended: bool) -> Self {
        if mended { Self::High } else { Self::Critical }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_matters_where_it_says_more_than_the_kind() {
        for (kind, reason, expected) in [
            (Kind::DnsDirect, Reason::NoRule, Severity::Medium),
            (Kind::DnsName, Reason::ListedName, Severity::High),
            (Kind::DnsName, Reason::DeniedName, Severity::Medium),
            (Kind::DnsLimit, Reason::NamesPerDomain, Severity::High),
            (Kind::DnsLimit, Reason::NxdomainRate, Severity::Medium),
            (Kind::DnsMalformed, Reason::UnstableQuestion, Severity::High),
            (Kind::DnsMalformed, Reason::NotAQuestion, Severity::Medium),
            (Kind::EgressDenied, Reason::NoRule, Severity::Low),
            (Kind::EgressDenied, Reason::NameUnknown, Severity::Low),
            (Kind::EgressDenied, Reason::Rule, Severity::Medium),
            (Kind::EgressDenied, Reason::ForgedSource, Severity::High),
            (Kind::IngressDns, Reason::NotServed, Severity::Low),
            (Kind::SocketUnjudged, Reason::UnjudgedSocket, Severity::High),
        ] {
            assert_eq!(Severity::of(kind, reason), expected, "{kind} {reason:?}");
        }
        assert_eq!([true, false].map(Severity::of_tampering), [Severity::High, Severity::Critical]);
    }

    #[test]
    fn they_are_in_order() {
        // The spool keeps a severity by its place in this order.
        assert_eq!(Severity::ALL.map(Severity::name), ["info", "low", "medium", "high", "critical"]);
    }
}
