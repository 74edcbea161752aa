//! The resolvers that anybody may ask over TLS, HTTPS or QUIC, as far as they are known: a list with a date, in this binary.

use super::Destination;
use super::internet::NAT64;
use crate::blocklist::Pattern;
use ipnet::IpNet;
use serde::Deserialize;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

/// The list.
#[derive(Debug)]
pub struct EncryptedDns {
    /// The day it was last looked through.
    pub date: String,
    /// Their names, and those by which programs ask whether a network wants them.
    pub names: Vec<Pattern>,
    /// Their addresses.
    pub networks: Vec<IpNet>,
}

/// As its file writes it; comments there say what belongs in it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    date: String,
    canaries: Vec<String>,
    operator: Vec<Operator>,
}

/// Somebody who runs resolvers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Operator {
    #[expect(dead_code, reason = "for readers of the file")]
    name: String,
    names: Vec<String>,
    addresses: Vec<String>,
    #[expect(dead_code, reason = "for readers of the file")]
    source: String,
}

/// The list of this binary.
pub static KNOWN: LazyLock<EncryptedDns> = LazyLock::new(|| {
    let file: File = toml::from_str(include_str!("../../data/encrypted-dns.toml")).expect("read by a test");
    let written = file.operator.iter().flat_map(|operator| &operator.addresses);
    let network = |text: &String| text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    EncryptedDns {
        date: file.date,
        names: file
            .operator
            .iter()
            .flat_map(|operator| &operator.names)
            .chain(&file.canaries)
            .map(|name| Pattern::new(name).expect("read by a test"))
            .collect(),
        networks: written.map(|text| network(text).expect("read by a test")).collect(),
    }
});

impl fmt::Display for EncryptedDns {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { date, names, networks } = self;
        write!(formatter, "{} names and {} networks, as of {date}", names.len(), networks.len())
    }
}

impl EncryptedDns {
    /// Whether a destination is one of the resolvers, or some of them, and nothing else.
    pub fn is_named_by(&self, destination: &Destination) -> bool {
        match destination {
            Destination::EncryptedDns => true,
            Destination::Network(net) => {
                let translated = translated(net);
                self.networks
                    .iter()
                    .any(|known| known.contains(net) || translated.is_some_and(|net| known.contains(&net)))
            }
            Destination::Any | Destination::Internet => false,
        }
    }

    /// The same of a pattern of names.
    pub fn is_named_by_name(&self, pattern: &Pattern) -> bool {
        self.names.iter().any(|known| known.holds(pattern))
    }
}

/// The IPv4 network that a translator makes of this one.
fn translated(net: &IpNet) -> Option<IpNet> {
    let IpNet::V6(v6) = net else { return None };
    let bits = v6.prefix_len().checked_sub(NAT64.0.prefix_len()).filter(|_| NAT64.0.contains(v6))?;
    let [.., a, b, c, d] = v6.network().octets();
    IpNet::new(Ipv4Addr::new(a, b, c, d).into(), bits).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::internet::{INTERNET6, NOT_INTERNET4};

    #[test]
    fn the_list_can_be_read_and_says_each_thing_once() {
        assert!(KNOWN.date.parse::<jiff::civil::Date>().is_ok(), "{}", KNOWN.date);
        let mut names: Vec<_> = KNOWN.names.iter().collect();
        names.sort();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "a name twice");
        for network in &KNOWN.networks {
            let others = KNOWN.networks.iter().filter(|other| other.contains(network)).count();
            assert_eq!((others, network.trunc()), (1, *network));
            // A wrong digit here would refuse what is no resolver at all.
            match network {
                IpNet::V4(net) => {
                    assert!(net.prefix_len() >= 24, "{net}");
                    assert!(!NOT_INTERNET4.iter().any(|(not, _)| not.contains(net)), "{net}");
                }
                IpNet::V6(net) => {
                    assert!(net.prefix_len() >= 32, "{net}");
                    assert!(INTERNET6.iter().any(|(internet, _)| internet.contains(net)), "{net}");
                }
            }
        }
        for name in ["dns.google", "cloudflare-dns.com", "use-application-dns.net", "dns.quad9.net"] {
            assert!(KNOWN.is_named_by_name(&Pattern::new(name).unwrap()), "{name}");
        }
    }

    #[test]
    fn what_is_wide_names_no_resolver() {
        let named = |text: &str| KNOWN.is_named_by(&Destination::Network(text.parse().unwrap()));
        assert!(named("9.9.9.9/32") && named("2001:4860:4860::8888/128"));
        assert!(named("64:ff9b::808:808/128") && !named("64:ff9b::/96") && !named("64:ff9b::909:900/128"));
        assert!(!named("9.9.9.0/24") && !named("9.9.9.0/32") && !named("0.0.0.0/0"));
        assert!(KNOWN.is_named_by(&Destination::EncryptedDns) && !KNOWN.is_named_by(&Destination::Internet));
        let named = |text: &str| KNOWN.is_named_by_name(&Pattern::new(text).unwrap());
        assert!(named("dns.google") && named("mozilla.cloudflare-dns.com") && named("*.cloudflare-dns.com"));
        assert!(!named("*.google") && !named("google") && !named("*.com") && !named("notdns.google"));
    }
}
