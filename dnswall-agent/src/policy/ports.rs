//! Takes one string of a `ports` list, gives [`Ports`].

use super::problem::{Problem, quoted};
use std::fmt;
use toml::Spanned;

/// What a rule's `ports` may name: a protocol and its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ports {
    /// Every protocol and port.
    Any,
    /// Ports of a protocol, both ends included.
    Range {
        /// The protocol.
        protocol: Protocol,
        /// The lowest port.
        first: u16,
        /// The highest port.
        last: u16,
    },
    /// ICMP and ICMPv6 echo requests.
    IcmpEcho,
    /// All of ICMP and ICMPv6.
    IcmpAny,
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP, and UDP-Lite with it.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// As a policy writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl Ports {
    /// Whether this names exactly this one port, as opposed to a range that happens to hold it.
    pub fn is_only(self, port: u16) -> bool {
        matches!(self, Self::Range { first, last, .. } if first == port && last == port)
    }

    /// Reads one element of `ports`.
    ///
    /// # Errors
    /// What is wrong with it and what to write instead.
    pub(super) fn parse(written: &Spanned<String>) -> Result<Self, Problem> {
        let text = written.get_ref().as_str();
        if text == "any" {
            return Ok(Self::Any);
        }
        let Some((protocol, ports)) = text.split_once('/') else {
            return Err(without_protocol(written));
        };
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            "icmp" => return icmp(written, ports),
            other => return Err(unknown_protocol(written, other, ports)),
        };
        if ports == "any" {
            return Ok(Self::Range { protocol, first: 0, last: u16::MAX });
        }
        let (first, last) = match ports.split_once('-') {
            Some((first, last)) => (number(written, protocol, first)?, number(written, protocol, last)?),
            None => {
                let port = number(written, protocol, ports)?;
                (port, port)
            }
        };
        if first > last {
            return Err(Problem::error(written.span(), format!("the range {} runs backwards", quoted(text)))
                .hint(format!("write {}/{last}-{first}", protocol.name())));
        }
        Ok(Self::Range { protocol, first, last })
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Range { protocol, first: 0, last: u16::MAX } => write!(f, "{}/any", protocol.name()),
            Self::Range { protocol, first, last } if first == last => {
                write!(f, "{}/{first}", protocol.name())
            }
            Self::Range { protocol, first, last } => write!(f, "{}/{first}-{last}", protocol.name()),
            Self::IcmpEcho => f.write_str("icmp/echo"),
            Self::IcmpAny => f.write_str("icmp/any"),
        }
    }
}

/// Ports people write by name.
const NAMED: &[(&str, &str)] = &[
    ("http", "tcp/80"),
    ("https", "tcp/443"),
    ("imaps", "tcp/993"),
    ("kafka", "tcp/9092"),
    ("ldap", "tcp/389"),
    ("ldaps", "tcp/636"),
    ("mysql", "tcp/3306"),
    ("ntp", "udp/123"),
    ("postgres", "tcp/5432"),
    ("postgresql", "tcp/5432"),
    ("quic", "udp/443"),
    ("redis", "tcp/6379"),
    ("smtp", "tcp/25"),
    ("ssh", "tcp/22"),
    ("syslog", "udp/514"),
];

const EXAMPLES: &str = "write like tcp/443, udp/1024-2048, sctp/any, icmp/echo or any";

fn icmp(written: &Spanned<String>, what: &str) -> Result<Ports, Problem> {
    match what {
        "echo" => Ok(Ports::IcmpEcho),
        "any" => Ok(Ports::IcmpAny),
        "8" | "128" | "ping" | "echo-request" => {
            Err(Problem::error(written.span(), format!("{} is not a kind of ICMP", quoted(what)))
                .hint("write icmp/echo: it means pings of IPv4 and IPv6"))
        }
        _ => Err(Problem::error(written.span(), format!("{} is not a kind of ICMP", quoted(what)))
            .why("errors and answers always pass, pings can be allowed, the rest only as a whole")
            .hint("write icmp/echo or icmp/any")),
    }
}

fn number(written: &Spanned<String>, protocol: Protocol, text: &str) -> Result<u16, Problem> {
    let protocol = protocol.name();
    let problem = |message: String| Problem::error(written.span(), message);
    if text.is_empty() {
        return Err(problem(format!("{} lacks a port", quoted(written.get_ref())))
            .hint(format!("write {protocol}/443, {protocol}/1024-2048 or {protocol}/any")));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match text.parse::<u16>() {
            Ok(0) => Err(problem("there is no port 0".to_owned())
                .why("ports are numbers from 1 to 65535")
                .hint(format!("begin with 1, or write {protocol}/any"))),
            Ok(port) => Ok(port),
            Err(_) => {
                Err(problem(format!("there is no port {text}")).why("ports are numbers from 1 to 65535"))
            }
        };
    }
    if text == "*" {
        return Err(problem("a star is not a port".to_owned()).hint(format!("write {protocol}/any")));
    }
    if text.contains(',') {
        let each: Vec<String> =
            text.split(',').map(|port| format!("\"{protocol}/{}\"", port.trim())).collect();
        return Err(problem(format!("{} lists several ports", quoted(written.get_ref())))
            .hint(format!("write {}", each.join(", "))));
    }
    if text.contains(':') {
        return Err(problem(format!("{} is not a range", quoted(text)))
            .hint(format!("write {protocol}/{}", text.replacen(':', "-", 1))));
    }
    let problem = problem(format!("{} is not a port", quoted(text))).why("ports are numbers from 1 to 65535");
    Err(match NAMED.iter().find(|(name, port)| *name == text && port.starts_with(protocol)) {
        Some((_, port)) => problem.hint(format!("write {port}")),
        None => problem.hint(EXAMPLES),
    })
}

fn without_protocol(written: &Spanned<String>) -> Problem {
    let text = written.get_ref().as_str();
    let shown = quoted(text);
    let problem = |message: String| Problem::error(written.span(), message);
    let folded = text.to_ascii_lowercase();
    match folded.as_str() {
        "tcp" | "udp" | "sctp" => {
            return problem(format!("{shown} lacks its ports"))
                .hint(format!("write {folded}/any, or {folded}/443"));
        }
        "icmp" | "ping" => {
            return problem(format!("{shown} is not enough")).hint("write icmp/echo or icmp/any");
        }
        "*" | "all" | "any" => return problem(format!("{shown} is not a port")).hint("write any"),
        _ => {}
    }
    if let Some((_, port)) = NAMED.iter().find(|(name, _)| *name == folded) {
        return problem(format!("{shown} is not a port")).hint(format!("write {port}"));
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return problem(format!("{shown} lacks its protocol"))
            .hint(format!("write tcp/{text} or udp/{text}"));
    }
    problem(format!("{shown} is not a protocol and port")).hint(EXAMPLES)
}

fn unknown_protocol(written: &Spanned<String>, protocol: &str, ports: &str) -> Problem {
    let problem =
        Problem::error(written.span(), format!("{} is not a protocol with ports", quoted(protocol)));
    if ["tcp", "udp", "sctp"].contains(&ports) {
        return problem.hint(format!("the protocol comes first: write {ports}/{protocol}"));
    }
    let folded = protocol.to_ascii_lowercase();
    match folded.as_str() {
        "tcp" | "udp" | "sctp" | "icmp" => problem.hint(format!("write {folded}/{ports}")),
        "icmpv6" | "icmp6" => problem.hint("write icmp/echo or icmp/any: both mean IPv4 and IPv6"),
        "udplite" | "udp-lite" => problem.hint(format!("write udp/{ports}: it covers UDP-Lite")),
        "dns" => problem.why("port 53 belongs to [dns]").hint("list the server in [dns] resolvers"),
        _ => problem.hint(format!("{EXAMPLES}; other protocols pass only with any")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, String> {
        let written = Spanned::new(0..text.len(), text.to_owned());
        let problem =
            |problem: Problem| format!("{} | {}", problem.message, problem.hint.unwrap_or_default());
        Ports::parse(&written).map(|ports| ports.to_string()).map_err(problem)
    }

    #[test]
    fn ports_are_read() {
        for text in ["any", "tcp/443", "udp/1024-2048", "sctp/any", "icmp/echo", "icmp/any", "tcp/1-65535"] {
            assert_eq!(parse(text), Ok(text.to_owned()));
        }
    }

    #[test]
    fn mistakes_say_what_to_write() {
        let cases = [
            ("443", "write tcp/443 or udp/443"),
            ("443/tcp", "write tcp/443"),
            ("tcp", "write tcp/any, or tcp/443"),
            ("TCP/443", "write tcp/443"),
            ("tcp/https", "write tcp/443"),
            ("https", "write tcp/443"),
            ("tcp/80,443", "write \"tcp/80\", \"tcp/443\""),
            ("tcp/2048-1024", "write tcp/1024-2048"),
            ("tcp/80:90", "write tcp/80-90"),
            ("tcp/", "lacks a port"),
            ("tcp/0", "there is no port 0"),
            ("tcp/70000", "there is no port 70000"),
            ("icmp/8", "write icmp/echo"),
            ("icmp", "write icmp/echo or icmp/any"),
            ("gre/1", "other protocols pass only with any"),
            ("*", "write any"),
            ("", "is not a protocol and port"),
        ];
        for (text, expected) in cases {
            let problem = parse(text).unwrap_err();
            assert!(problem.contains(expected), "{text}: {problem}");
        }
    }
}
