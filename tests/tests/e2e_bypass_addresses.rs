//! Other ways to write an address, and addresses that mean many hosts or another one.

use anyhow::{Result, ensure};
use dnswall_tests::act::{Act, TcpBy, UdpBy, dns, dns_tcp, tcp, tcp_by, udp, udp_by};
use dnswall_tests::case::{allowed, case, denied, refused};
use dnswall_tests::check::check;
use dnswall_tests::wall::Wall;
use dnswall_tests::who::{Who, at};

/// IPv4 inside IPv6: translators, tunnels of old, and forms that only ever were notation.
#[test]
fn embedded_addresses_are_not_what_they_embed() -> Result<()> {
    let policy = r#"
version = 1
mode = "enforce"
[dns]
resolvers = ["10.0.3.53"]
[[deny]]
name = "quarantine"
to = ["8.8.9.0/24"]
[[allow]]
name = "lab"
to = ["10.0.3.0/24"]
[[allow]]
name = "internet"
to = ["internet"]
"#;
    let no = refused("egress.denied");
    let direct = refused("dns.direct");
    let quarantine = denied("egress.denied", "deny.quarantine");
    check(
        policy,
        &[
            case("NAT64 of a private one", nobody(), udp("[64:ff9b::a00:308]:9000"), no),
            case("NAT64 of instance metadata", nobody(), tcp("[64:ff9b::a9fe:a9fe]:80"), no),
            case("NAT64, a prefix of one's own", nobody(), udp("[64:ff9b:1::808:808]:9000"), no),
            case("6to4", nobody(), udp("[2002:a00:308::1]:9000"), no),
            case("6to4 of the internet", nobody(), tcp("[2002:808:808::1]:443"), no),
            case("Teredo", nobody(), udp("[2001::a00:308]:9000"), no),
            case("ISATAP", nobody(), udp("[fe80::5efe:a00:308]:9000"), no).unexplained(),
            case("IPv4-compatible", nobody(), udp("[::10.0.3.8]:9000"), no),
            case("IPv4-translated", nobody(), udp("[::ffff:0:a00:308]:9000"), no),
            case("a question through NAT64", nobody(), dns("64:ff9b::a00:335".parse()?), direct),
            case("over TCP", nobody(), dns_tcp("64:ff9b::808:808".parse()?), direct),
            case("v4-mapped", nobody(), tcp_by("8.8.9.8:443", TcpBy::SixSocket), quarantine),
            case("v4-mapped, UDP", nobody(), udp_by("8.8.9.8:443", UdpBy::SixSocket), quarantine),
            case("directly", nobody(), udp("10.0.3.8:9000"), allowed("allow.lab")),
        ],
    )
}

/// What reaches more than one host, and whoever on the link feels called.
#[test]
fn groups_and_broadcasts_are_destinations() -> Result<()> {
    let policy = r#"
version = 1
mode = "enforce"
[dns]
resolvers = ["169.254.169.253"]
[[allow]]
name = "any but names"
to = ["10.0.0.0/8"]
ports = ["udp/9000"]
"#;
    let no = refused("egress.denied");
    let direct = refused("dns.direct");
    // explain does not know from which port somebody asks.
    check(
        policy,
        &[
            case("mDNS", nobody(), udp("224.0.0.251:5353"), no),
            case("mDNS, IPv6, of the site", nobody(), udp("[ff05::fb]:5353"), no),
            case("LLMNR", nobody(), udp("224.0.0.252:5355"), no),
            case("LLMNR over TCP", nobody(), tcp("10.0.4.8:5355"), no),
            case("NetBIOS names", nobody(), udp("10.77.0.255:137"), no),
            case("SSDP", nobody(), udp("239.255.255.250:1900"), no),
            case("a question to all", nobody(), udp("255.255.255.255:53"), direct),
            case("a question to the link", nobody(), udp("10.77.0.255:53"), direct),
            case("a question to a group", nobody(), udp("224.0.0.251:53"), direct),
            case("all hosts", nobody(), udp("224.0.0.1:9000"), no),
            case("everyone", nobody(), udp("255.255.255.255:9000"), no),
            case("DHCP from another port", nobody(), udp("255.255.255.255:67"), no).unexplained(),
            case("DHCP from another port, to a server", nobody(), udp("10.77.0.1:67"), no).unexplained(),
        ],
    )
}

/// An honest limit: the kernel tells the link which groups somebody joined, and a group's name is up to whoever joins.
#[test]
fn a_joined_group_is_told_to_the_link() -> Result<()> {
    let wall = Wall::raise("version = 1\nmode = \"enforce\"\n")?;
    for (group, told_to) in [("239.83.69.67", "224.0.0.22"), ("ff1e::5345:4352:4554", "ff02::16")] {
        let group: std::net::IpAddr = group.parse()?;
        let mark = wall.capture.mark()?;
        let report = wall.run(&nobody(), Act::Join { group })?;
        ensure!(report.ok, "{report:?}");
        wall.capture.mark()?;
        let bytes = match group {
            std::net::IpAddr::V4(group) => group.octets().to_vec(),
            std::net::IpAddr::V6(group) => group.octets().to_vec(),
        };
        let told = wall.capture.since(mark, told_to.parse()?);
        let named =
            told.iter().filter(|packet| packet.payload.windows(bytes.len()).any(|window| window == bytes));
        ensure!(
            named.count() > 0,
            "{group} was not told: then this limit is gone, and the book wrong: {told:?}"
        );
    }
    Ok(())
}

fn nobody() -> Who {
    at("app.service").uid(65534)
}
