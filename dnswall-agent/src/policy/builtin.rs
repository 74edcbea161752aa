//! Takes the host's resolvers, gives the policy that applies where none was written yet.

use std::fmt::Write as _;
use std::net::IpAddr;

/// Where the built-in policy says it comes from.
pub const BUILTIN_ORIGIN: &str = "built-in";

/// Units that commonly listen on loopback and ask the outside themselves.
const LOCAL_RESOLVERS: &[&str] = &[
    "systemd-resolved.service",
    "dnsmasq.service",
    "unbound.service",
    "named.service",
    "pdns-recursor.service",
    "NetworkManager.service",
];

/// The policy for a host about which only its resolvers are known: it reports, and blocks nothing.
///
/// Loopback addresses (systemd-resolved's 127.0.0.53, a local unbound or dnsmasq) become stubs that everyone may
/// ask. When there are no others, it cannot be known here whom the local resolver asks in turn, so the usual local
/// resolvers are excepted by unit, wherever they ask; a caller that knows the upstream servers as well (as
/// /run/systemd/resolve/resolv.conf lists them) passes them too, and the exception is not needed.
pub fn default_policy(resolvers: &[IpAddr]) -> String {
    let mut text = String::from(
        "# The built-in policy: nothing is blocked, everything a wall would block is reported.\n\
         version = 1\n\
         mode = \"audit\"\n\n\
         [dns]\n",
    );
    let list: Vec<String> = resolvers.iter().map(|address| format!("\"{address}\"")).collect();
    if list.is_empty() {
        text.push_str("# This host names no resolver, so every question is reported.\n");
    }
    // Writing to a string cannot fail.
    let _ = writeln!(text, "resolvers = [{}]", list.join(", "));
    if !resolvers.is_empty() && resolvers.iter().all(IpAddr::is_loopback) {
        text.push_str(
            "\n# The resolver is on this host, and whom it asks is not known here.\n[[dns.recursor]]\nfrom = [\n",
        );
        for unit in LOCAL_RESOLVERS {
            let _ = writeln!(text, "    {{ unit = \"{unit}\" }},");
        }
        text.push_str("]\nto = [\"any\"]\n");
    }
    text
}

/// The name servers in the text of a resolv.conf(5), in order, each once. Lines that are not understood are skipped,
/// as resolvers do; an interface (`%eth0`) is left out.
pub fn resolvers_of(resolv_conf: &str) -> Vec<IpAddr> {
    let mut resolvers = Vec::new();
    for line in resolv_conf.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let address = words.next().and_then(|word| word.split('%').next()?.parse::<IpAddr>().ok());
        if let Some(address) = address.map(|address| address.to_canonical())
            && !resolvers.contains(&address)
            && !address.is_unspecified()
            && !address.is_multicast()
        {
            resolvers.push(address);
        }
    }
    resolvers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Mode, parse};

    fn policy(resolv_conf: &str) -> crate::policy::Policy {
        parse(&default_policy(&resolvers_of(resolv_conf)), BUILTIN_ORIGIN).unwrap()
    }

    #[test]
    fn resolv_conf_is_read_as_resolvers_read_it() {
        let text = "# nameserver 1.1.1.1\nsearch lan\n nameserver 10.0.0.2\nnameserver\tfe80::1%eth0 # x\n\
                    nameserver 10.0.0.2\n;nameserver 9.9.9.9\nnameserver nonsense\nnameservers 8.8.8.8\n\
                    nameserver ::ffff:10.0.0.3\nnameserver 0.0.0.0\n";
        let expected: Vec<IpAddr> = ["10.0.0.2", "fe80::1", "10.0.0.3"].map(|a| a.parse().unwrap()).into();
        assert_eq!(resolvers_of(text), expected);
    }

    #[test]
    fn the_built_in_policy_is_a_policy_whatever_the_host_says() {
        let plain = policy("nameserver 10.0.0.2\nnameserver fd00::2\n");
        assert_eq!((plain.mode, plain.dns.resolvers.len(), plain.dns.recursors.len()), (Mode::Audit, 2, 0));
        let stub = policy("nameserver 127.0.0.53\n");
        assert_eq!((stub.dns.resolvers.len(), stub.dns.stubs.len(), stub.dns.recursors.len()), (0, 1, 1));
        let both = policy("nameserver 127.0.0.53\nnameserver 10.0.0.2\n");
        assert_eq!((both.dns.resolvers.len(), both.dns.stubs.len(), both.dns.recursors.len()), (1, 1, 0));
        assert_eq!(policy("").dns.resolvers.len(), 0);
    }
}
