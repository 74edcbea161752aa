//! Who may ask whom on port 53.

use anyhow::Result;
use dnswall_tests::act::TcpBy;
use dnswall_tests::act::{UdpBy, dns, dns_tcp, tcp, tcp_by, udp, udp_by};
use dnswall_tests::case::{allowed, case, denied, not_for_you, refused};
use dnswall_tests::check::check;
use dnswall_tests::resolver::{FOREIGN, FOREIGN_V6, RESOLVER, RESOLVER_V6, SECOND};
use dnswall_tests::who::{Exe, at};

#[test]
fn only_the_resolvers_are_asked() -> Result<()> {
    let policy = r#"
version = 1
mode = "enforce"
[dns]
resolvers = ["169.254.169.253", "fd00:ec2::253"]
"#;
    let app = at("app.service");
    let user = at("user.slice/user-1000.slice/user@1000.service/app.slice").uid(65534);
    let dig = at("app.service").exe(Exe::Dig);
    let direct = refused("dns.direct");
    let resolvers = allowed("dns.resolvers");
    check(
        policy,
        &[
            case("the resolver", app.clone(), dns(RESOLVER), resolvers),
            case("the resolver over TCP", app.clone(), dns_tcp(RESOLVER), resolvers),
            case("the IPv6 resolver", app.clone(), dns(RESOLVER_V6), resolvers),
            case("the IPv6 resolver over TCP", app.clone(), dns_tcp(RESOLVER_V6), resolvers),
            case("the resolver, as a user", user.clone(), dns(RESOLVER), resolvers),
            case("dig the resolver", dig.clone(), dns(RESOLVER), resolvers),
            case("dig +tcp the resolver", dig.clone(), dns_tcp(RESOLVER), resolvers),
            case("dig the IPv6 resolver", dig.clone(), dns(RESOLVER_V6), resolvers),
            case("dig +tcp the IPv6 resolver", dig.clone(), dns_tcp(RESOLVER_V6), resolvers),
            // Over UDP dig gets EPERM from its send and waits for an answer all the same (strace, BIND 9.18).
            case("dig a foreign resolver", dig.clone(), dns(FOREIGN), direct.unheard()),
            case("dig +tcp a foreign resolver", dig.clone(), dns_tcp(FOREIGN), direct),
            case("dig a foreign IPv6 resolver", dig.clone(), dns(FOREIGN_V6), direct.unheard()),
            case("dig +tcp a foreign IPv6 resolver", dig.clone(), dns_tcp(FOREIGN_V6), direct),
            case("dig as a user", user.clone().exe(Exe::Dig), dns(FOREIGN), direct.unheard()),
            case("a foreign resolver", app.clone(), dns(FOREIGN), direct),
            case("a foreign resolver over TCP", app.clone(), dns_tcp(FOREIGN), direct),
            case("a foreign IPv6 resolver", app.clone(), dns(FOREIGN_V6), direct),
            case("a foreign IPv6 resolver over TCP", app.clone(), dns_tcp(FOREIGN_V6), direct),
            case("as a user", user.clone(), dns(FOREIGN), direct),
            case("connected", app.clone(), udp_by("198.51.100.61:53", UdpBy::Connected), direct),
            case("connected, IPv6", app.clone(), udp_by("[2001:db8::62]:53", UdpBy::Connected), direct),
            case("sendmmsg", app.clone(), udp_by("198.51.100.63:53", UdpBy::Sendmmsg), direct),
            case("sendmmsg, IPv6", app.clone(), udp_by("[2001:db8::64]:53", UdpBy::Sendmmsg), direct),
            case("v4-mapped", app.clone(), udp_by("198.51.100.65:53", UdpBy::SixSocket), direct),
            case("v4-mapped over TCP", app.clone(), tcp_by("198.51.100.66:53", TcpBy::SixSocket), direct),
            case("connected elsewhere", app.clone(), udp_by("198.51.100.67:53", UdpBy::Retargeted), direct),
            case("from port 53", app.clone(), udp_by("198.51.100.68:53", UdpBy::SourcePort53), direct),
            case("UDP-Lite", app.clone(), udp_by("198.51.100.69:53", UdpBy::Lite), direct),
            case("io_uring", app.clone(), udp_by("198.51.100.90:53", UdpBy::Uring), direct),
            case("io_uring, TCP", app.clone(), tcp_by("198.51.100.91:53", TcpBy::Uring), direct),
            case("fast open", app.clone(), tcp_by("198.51.100.70:53", TcpBy::FastOpen), direct),
            case("multipath TCP", app.clone(), tcp_by("198.51.100.71:53", TcpBy::Multipath), direct),
            case("TCP from port 53", app.clone(), tcp_by("198.51.100.72:53", TcpBy::SourcePort53), direct),
            case(
                "anything from port 53",
                app.clone(),
                udp_by("198.51.100.9:9000", UdpBy::SourcePort53),
                refused("egress.denied"),
            ),
            case(
                "no DNS on another port of the resolver",
                app.clone(),
                udp("169.254.169.253:5353"),
                refused("egress.denied"),
            ),
            case("DNS over TLS", app.clone(), tcp("198.51.100.9:853"), refused("dns.encrypted")),
            case("DNS over QUIC", app.clone(), udp("198.51.100.9:853"), refused("dns.encrypted")),
            case(
                "DNS over TLS to the resolver",
                app.clone(),
                tcp("169.254.169.253:853"),
                refused("dns.encrypted"),
            ),
            case("DNS over TLS, IPv6", app, tcp("[2001:db8::53]:853"), refused("dns.encrypted")),
        ],
    )
}

#[test]
fn resolvers_may_be_for_some_only() -> Result<()> {
    let policy = r#"
version = 1
mode = "enforce"
[dns]
resolvers = ["169.254.169.253", "fd00:ec2::253"]
clients = [{ unit = "stub.service" }, { user = "nobody" }]
"#;
    let resolvers = allowed("dns.resolvers");
    check(
        policy,
        &[
            case("the unit", at("system.slice/stub.service"), dns(RESOLVER), resolvers),
            case("the unit, IPv6 over TCP", at("stub.service"), dns_tcp(RESOLVER_V6), resolvers),
            case("the user", at("app.service").uid(65534), dns(RESOLVER), resolvers),
            case("the unit elsewhere", at("stub.service"), dns(FOREIGN), refused("dns.direct")),
            case("another unit", at("app.service"), dns(RESOLVER), not_for_you("dns.direct")),
            case("another unit over TCP", at("app.service"), dns_tcp(RESOLVER), not_for_you("dns.direct")),
            case("another unit, IPv6", at("app.service"), dns(RESOLVER_V6), not_for_you("dns.direct")),
            case("dig", at("app.service").exe(Exe::Dig), dns(RESOLVER), not_for_you("dns.direct").unheard()),
            case("a forged unit", at("app.service/stub.service"), dns(RESOLVER), not_for_you("dns.direct")),
        ],
    )
}

#[test]
fn recursors_are_known_by_who_and_where() -> Result<()> {
    let policy = r#"
version = 1
mode = "enforce"
[dns]
resolvers = ["169.254.169.253"]
[[dns.recursor]]
from = [{ unit = "unbound.service", exe = "{copies}/unbound" }]
to = ["203.0.113.0/24", "2001:db8::/48"]
[[dns.recursor]]
from = [{ user = "nobody" }]
to = ["any"]
[[deny]]
name = "poisoned"
to = ["198.51.100.53"]
ports = ["udp/53"]
"#;
    let unbound = at("system.slice/unbound.service").exe(Exe::Copy("unbound"));
    let recursor = allowed("dns.recursor.0");
    check(
        policy,
        &[
            case("who and where", unbound.clone(), dns(SECOND), recursor),
            case("over TCP", unbound.clone(), dns_tcp(SECOND), recursor),
            case("over IPv6", unbound.clone(), dns(FOREIGN_V6), recursor),
            case("elsewhere", unbound.clone(), dns(RESOLVER_V6), not_for_you("dns.direct")),
            case(
                "another executable",
                at("system.slice/unbound.service"),
                dns(SECOND),
                not_for_you("dns.direct"),
            ),
            case(
                "another unit",
                at("app.service").exe(Exe::Copy("unbound")),
                dns(SECOND),
                not_for_you("dns.direct"),
            ),
            case(
                "dig in its unit",
                at("unbound.service").exe(Exe::Dig),
                dns(SECOND),
                not_for_you("dns.direct").unheard(),
            ),
            case(
                "the same name",
                at("unbound.service").exe(Exe::Copy("unbound2")),
                dns(SECOND),
                not_for_you("dns.direct"),
            ),
            case("anywhere", at("app.service").uid(65534), dns(SECOND), allowed("dns.recursor.1")),
            case(
                "anywhere over TCP",
                at("app.service").uid(65534),
                dns_tcp(FOREIGN),
                allowed("dns.recursor.1"),
            ),
            case(
                "but not there",
                at("app.service").uid(65534),
                dns(FOREIGN),
                denied("dns.direct", "deny.poisoned"),
            ),
            case("not another port", unbound.clone(), udp("203.0.113.53:5353"), refused("egress.denied")),
            case("not TLS", unbound, tcp("203.0.113.53:853"), refused("dns.encrypted")),
        ],
    )
}

#[test]
fn encrypted_dns_opens_by_name_or_as_a_whole() -> Result<()> {
    let rules = r#"
version = 1
mode = "enforce"
[[allow]]
name = "lab"
to = ["10.0.5.0/24"]
[[allow]]
name = "tls"
to = ["10.0.6.0/24"]
ports = ["tcp/853"]
[dns]
resolvers = ["169.254.169.253"]
"#;
    let app = at("app.service");
    let cases = [
        case("any means any", app.clone(), tcp("10.0.5.1:852"), allowed("allow.lab")),
        case("any leaves 53 out", app.clone(), udp("10.0.5.1:53"), refused("dns.direct")),
        case("any leaves TCP 53 out", app.clone(), tcp("10.0.5.1:53"), refused("dns.direct")),
        case("named", app.clone(), tcp("10.0.6.1:853"), allowed("allow.tls")),
        case("not named", app.clone(), udp("10.0.6.1:853"), refused("dns.encrypted")),
    ];
    let denied = [
        case("any leaves 853 out", app.clone(), tcp("10.0.5.1:853"), refused("dns.encrypted")),
        case("any leaves UDP 853 out", app.clone(), udp("10.0.5.1:853"), refused("dns.encrypted")),
    ];
    check(rules, &[&cases[..], &denied].concat())?;
    let lifted = [
        case("any has 853", app.clone(), tcp("10.0.5.1:853"), allowed("allow.lab")),
        case("any has UDP 853", app, udp("10.0.5.1:853"), allowed("allow.lab")),
    ];
    check(&format!("{rules}encrypted = \"allow\"\n"), &[&cases[..], &lifted].concat())
}
