//! Takes one string of a `to` list, gives a [`Destination`].

use super::problem::{Problem, quoted};
use crate::blocklist::Pattern;
use ipnet::{IpNet, ipv4_mask_to_prefix};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use toml::Spanned;

/// Where a rule leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Destination {
    /// Every address.
    Any,
    /// Every address that is not private, loopback, link-local, multicast or reserved (see [`super::internet`]).
    Internet,
    /// The resolvers that are known to be asked over TLS, HTTPS or QUIC: their addresses and names (see [`super::encrypted`]).
    EncryptedDns,
    /// One network or address.
    Network(IpNet),
}

/// What a policy writes for [`Destination::EncryptedDns`].
const ENCRYPTED_DNS: &str = "encrypted-dns";

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Internet => f.write_str("internet"),
            Self::EncryptedDns => f.write_str(ENCRYPTED_DNS),
            Self::Network(net) if net.prefix_len() == net.max_prefix_len() => write!(f, "{}", net.addr()),
            Self::Network(net) => write!(f, "{net}"),
        }
    }
}

impl Destination {
    /// Reads one element of `to`.
    ///
    /// # Errors
    /// What is wrong with it and what to write instead.
    pub(super) fn parse(written: &Spanned<String>) -> Result<Self, Problem> {
        let text = written.get_ref().as_str();
        match text {
            "any" => return Ok(Self::Any),
            "internet" => return Ok(Self::Internet),
            _ => {}
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return unmapped(written, IpNet::from(address)).map(Self::Network);
        }
        if let Ok(net) = text.parse::<IpNet>() {
            if net.trunc() != net {
                return Err(Problem::error(written.span(), format!("{net} has host bits set"))
                    .why(format!("a /{} network ends in zero bits", net.prefix_len()))
                    .hint(format!("write {}, or {} for the one address", net.trunc(), net.addr())));
            }
            return unmapped(written, net).map(Self::Network);
        }
        Err(misread(written))
    }
}

/// Where a rule leads.
pub(super) enum Target {
    /// To addresses.
    Address(Destination),
    /// To a name.
    Name(Pattern),
}

impl Target {
    /// Reads one element of a rule's `to`.
    ///
    /// # Errors
    /// What is wrong with it and what to write instead.
    pub(super) fn parse(written: &Spanned<String>) -> Result<Self, Problem> {
        let text = written.get_ref().as_str();
        if text == ENCRYPTED_DNS {
            return Ok(Self::Address(Destination::EncryptedDns));
        }
        match Destination::parse(written) {
            Ok(destination) => Ok(Self::Address(destination)),
            Err(_) if is_meant_as_name(text) => Pattern::new(text).map(Self::Name).map_err(|reason| {
                Problem::error(written.span(), format!("{} is not a domain name", quoted(text)))
                    .why(reason.why())
                    .hint("write like \"api.example.com\", or \"*.example.com\" for what is below")
            }),
            Err(problem) => Err(problem),
        }
    }
}

/// Whether what is no address is a name, and not some other mistake.
fn is_meant_as_name(text: &str) -> bool {
    let is_word = || {
        super::table::nearest(text, &["any", "internet", "all", ENCRYPTED_DNS]).is_some()
            && !text.contains('.')
    };
    is_name(text)
        && !looks_like_address(text)
        && stars_as_network(text).is_none()
        && !text.eq_ignore_ascii_case("localhost")
        && !text.starts_with("proxy:")
        && !is_word()
}

/// Reads one address where a network will not do.
///
/// # Errors
/// What is wrong with it and what to write instead.
pub(super) fn parse_address(written: &Spanned<String>, what: &str) -> Result<IpAddr, Problem> {
    let text = written.get_ref().as_str();
    if let Ok(address) = text.parse::<IpAddr>() {
        let address = unmapped(written, IpNet::from(address))?.addr();
        if address.is_unspecified() || address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return Err(Problem::error(written.span(), format!("{address} cannot be {what}"))
                .why("no single host has this address")
                .hint("write the address of one host"));
        }
        return Ok(address);
    }
    if text.contains('/') {
        return Err(Problem::error(written.span(), format!("{} is a network", quoted(text)))
            .why(format!("{what} is one address"))
            .hint("list each address by itself"));
    }
    let mut problem = misread(written);
    if let Ok(socket) = text.parse::<SocketAddr>() {
        problem = Problem::error(written.span(), format!("{} has a port", quoted(text)))
            .why("DNS is asked on port 53")
            .hint(format!("write {}", socket.ip()));
    } else if is_name(text) && !looks_like_address(text) {
        problem = Problem::error(written.span(), format!("{} is a name", quoted(text)))
            .why(format!("{what} is needed to look up names, so it is written as an address"))
            .hint("write its address, like \"10.0.0.2\"");
    }
    Err(problem)
}

/// An IPv4 address written as IPv6 never is what a packet carries.
fn unmapped(written: &Spanned<String>, net: IpNet) -> Result<IpNet, Problem> {
    let IpNet::V6(v6) = net else { return Ok(net) };
    match v6.addr().to_ipv4_mapped() {
        Some(address) if v6.prefix_len() >= 96 => {
            let prefix = v6.prefix_len() - 96;
            let write = if prefix == 32 { address.to_string() } else { format!("{address}/{prefix}") };
            Err(Problem::error(
                written.span(),
                format!("{} is an IPv4 address written as IPv6", quoted(written.get_ref())),
            )
            .why("connections to it are IPv4 and are judged as such")
            .hint(format!("write {write}")))
        }
        _ => Ok(net),
    }
}

/// Says what something that is no destination probably should have been.
fn misread(written: &Spanned<String>) -> Problem {
    let text = written.get_ref().as_str();
    let shown = quoted(text);
    let problem = |message: String| Problem::error(written.span(), message);
    let example = "write an address, a network like 10.0.3.0/24, `any` or `internet`";
    if text.trim() != text {
        return problem(format!("{shown} has blanks around it")).hint(format!("write \"{}\"", text.trim()));
    }
    if text.is_empty() {
        return problem("this destination is empty".to_owned()).hint(example);
    }
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return problem(format!("{shown} has a port")).why("ports are a key of their own").hint(format!(
            "write to = [\"{}\"] and ports = [\"tcp/{}\"]",
            socket.ip(),
            socket.port()
        ));
    }
    if let Some((address, zone)) = text.split_once('%')
        && address.parse::<IpAddr>().is_ok()
    {
        return problem(format!("{shown} names an interface"))
            .why(format!("rules do not look at interfaces, so `%{zone}` has no meaning here"))
            .hint(format!("write {address}"));
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'))
        && inner.parse::<IpAddr>().is_ok()
    {
        return problem(format!("{shown} has brackets around it")).hint(format!("write {inner}"));
    }
    if let Some((address, mask)) = text.split_once('/')
        && let Ok(address) = address.parse::<IpAddr>()
    {
        let most = if address.is_ipv4() { 32 } else { 128 };
        let mask = mask.parse::<IpAddr>().ok().and_then(|mask| match mask {
            IpAddr::V4(mask) => ipv4_mask_to_prefix(mask).ok(),
            IpAddr::V6(_) => None,
        });
        return match mask.and_then(|prefix| IpNet::new(address, prefix).ok()) {
            Some(net) => problem(format!("{shown} has a mask instead of a prefix length"))
                .hint(format!("write {}", net.trunc())),
            None => problem(format!("{shown} has no valid prefix length"))
                .why(format!("for {address} it is a number from 0 to {most}"))
                .hint(format!("write {address}/{most}, or {address} alone, for the one address")),
        };
    }
    if let Some((first, last)) = text.split_once('-')
        && let (Ok(first), Ok(last)) = (first.trim().parse::<IpAddr>(), last.trim().parse::<IpAddr>())
    {
        return problem(format!("{shown} is a range"))
            .why("destinations are addresses and networks")
            .hint(range_as_networks(first, last));
    }
    if let Some(net) = stars_as_network(text) {
        return problem(format!("{shown} has a star in an address")).hint(format!("write {net}"));
    }
    if text.contains("://") {
        return problem(format!("{shown} is a URL"))
            .why("a rule sees addresses, not pages")
            .hint("write the addresses it stands for, and the port as ports = [\"tcp/443\"]");
    }
    if text.eq_ignore_ascii_case("localhost") {
        return problem(format!("{shown} needs no rule"))
            .why("what stays on this host always passes, except DNS, which [dns] is for")
            .hint("leave it out");
    }
    if let Some(word) = super::table::nearest(text, &["any", "internet"]).filter(|_| !text.contains('.')) {
        return problem(format!("{shown} is not a destination")).hint(format!("did you mean `{word}`?"));
    }
    if text == ENCRYPTED_DNS {
        return problem(format!("{shown} cannot be written here"))
            .why("it stands for names as well, and only `to` of [[allow]] and [[deny]] leads to names")
            .hint("write addresses or networks");
    }
    if let Some(word) = super::table::nearest(text, &[ENCRYPTED_DNS]) {
        return problem(format!("{shown} is not a destination")).hint(format!("did you mean `{word}`?"));
    }
    if text == "*" || text == "all" {
        return problem(format!("{shown} is not a destination")).hint("write `any`");
    }
    if text.starts_with("proxy:") {
        return problem(format!("not yet: the group {shown}"))
            .hint("write the addresses of the proxies for now");
    }
    if looks_like_address(text) {
        return problem(format!("{shown} is not an address")).why(why_no_address(text)).hint(example);
    }
    if is_name(text) {
        return problem(format!("{shown} is a name"))
            .why("only `to` of [[allow]] and [[deny]] leads to names")
            .hint("write its addresses or networks");
    }
    problem(format!("{shown} is not a destination")).hint(example)
}

fn looks_like_address(text: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || b"./".contains(&byte));
    digits(text)
        || (text.contains(':') && text.bytes().all(|byte| byte.is_ascii_hexdigit() || b":./".contains(&byte)))
}

fn why_no_address(text: &str) -> &'static str {
    let numbers: Vec<&str> = text.split('/').next().unwrap_or_default().split('.').collect();
    if text.contains(':') {
        return "an IPv6 address is eight groups of up to four hexadecimal digits, or fewer with one `::`";
    }
    if numbers.len() != 4 {
        return "an IPv4 address has four numbers";
    }
    if numbers.iter().any(|number| number.len() > 1 && number.starts_with('0')) {
        return "a number with a leading zero means different things to different programs";
    }
    "each number of an IPv4 address is from 0 to 255"
}

fn is_name(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

fn range_as_networks(first: IpAddr, last: IpAddr) -> String {
    const SHOWN_MAX: usize = 6;
    let networks: Vec<String> = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) if first <= last => ipnet::Ipv4Subnets::new(first, last, 0)
            .take(SHOWN_MAX + 1)
            .map(|net| format!("\"{net}\""))
            .collect(),
        (IpAddr::V6(first), IpAddr::V6(last)) if first <= last => ipnet::Ipv6Subnets::new(first, last, 0)
            .take(SHOWN_MAX + 1)
            .map(|net| format!("\"{net}\""))
            .collect(),
        _ => return "write a network like 10.0.3.0/24".to_owned(),
    };
    if networks.len() > SHOWN_MAX {
        return "write it as networks like 10.0.3.0/24".to_owned();
    }
    format!("write {}", networks.join(", "))
}

fn stars_as_network(text: &str) -> Option<String> {
    let numbers: Vec<&str> = text.split('.').collect();
    let known = numbers.iter().take_while(|number| **number != "*").count();
    if numbers.len() > 4 || known == 0 || known == numbers.len() || numbers[known..].iter().any(|n| *n != "*")
    {
        return None;
    }
    let mut octets = [0u8; 4];
    for (octet, number) in octets.iter_mut().zip(&numbers[..known]) {
        *octet = number.parse().ok()?;
    }
    Some(format!("{}/{}", Ipv4Addr::from(octets), known * 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, String> {
        let written = Spanned::new(0..text.len(), text.to_owned());
        let problem =
            |problem: Problem| format!("{} | {}", problem.message, problem.hint.unwrap_or_default());
        Destination::parse(&written).map(|to| to.to_string()).map_err(problem)
    }

    #[test]
    fn destinations_are_read() {
        for text in
            ["any", "internet", "10.0.3.0/24", "10.0.3.7", "::1", "2001:db8::/32", "0.0.0.0/0", "::/0"]
        {
            assert_eq!(parse(text), Ok(text.to_owned()));
        }
        assert_eq!(parse("10.0.3.7/32"), Ok("10.0.3.7".to_owned()));
    }

    #[test]
    fn a_rule_leads_to_names_as_well_and_no_mistake_is_taken_for_one() {
        let target = |text: &str| {
            let written = Spanned::new(0..text.len(), text.to_owned());
            match Target::parse(&written) {
                Ok(Target::Name(pattern)) => format!("name {pattern}"),
                Ok(Target::Address(destination)) => format!("address {destination}"),
                Err(problem) => problem.message,
            }
        };
        assert_eq!(target("API.Stripe.com."), "name api.stripe.com");
        assert_eq!(target("*.b\u{fc}cher.example"), "name *.xn--bcher-kva.example");
        assert_eq!(target("db"), "name db");
        assert_eq!(target("10.0.3.7"), "address 10.0.3.7");
        assert_eq!(target("encrypted-dns"), "address encrypted-dns");
        for mistake in [
            "Any",
            "interne",
            "all",
            "localhost",
            "10.0.3.*",
            "10.0.3",
            "*",
            "a b",
            "*.*.com",
            "a..b",
            "encrypted_dns",
        ] {
            assert!(!target(mistake).starts_with("name"), "{mistake}");
        }
        assert!(target("*.1.2").contains("is not a domain name"));
    }

    #[test]
    fn mistakes_say_what_to_write() {
        let cases = [
            (
                "10.0.3.1/24",
                "10.0.3.1/24 has host bits set | write 10.0.3.0/24, or 10.0.3.1 for the one address",
            ),
            ("10.0.3.0/255.255.255.0", "write 10.0.3.0/24"),
            ("10.0.3.0/33", "no valid prefix length"),
            ("10.0.3.*", "write 10.0.3.0/24"),
            ("10.*", "write 10.0.0.0/8"),
            ("10.0.3.7:443", "write to = [\"10.0.3.7\"] and ports = [\"tcp/443\"]"),
            ("10.0.0.0-10.0.0.5", "write \"10.0.0.0/30\", \"10.0.0.4/31\""),
            ("[::1]", "write ::1"),
            ("fe80::1%eth0", "write fe80::1"),
            ("::ffff:10.0.0.1", "write 10.0.0.1"),
            ("::ffff:10.0.0.0/104", "write 10.0.0.0/8"),
            ("010.0.0.1", "is not an address"),
            ("10.0.3", "is not an address"),
            ("https://example.com/", "is a URL"),
            ("api.stripe.com", "is a name | write its addresses"),
            ("*.githubusercontent.com", "is a name | write its addresses"),
            ("Any", "did you mean `any`"),
            ("interne", "did you mean `internet`"),
            ("encrypted-dns", "cannot be written here"),
            ("encryted-dns", "did you mean `encrypted-dns`"),
            ("", "is empty"),
            (" 10.0.0.1", "write \"10.0.0.1\""),
            ("a b", "is not a destination"),
        ];
        for (text, expected) in cases {
            let problem = parse(text).unwrap_err();
            assert!(problem.contains(expected), "{text}: {problem}");
        }
    }
}
