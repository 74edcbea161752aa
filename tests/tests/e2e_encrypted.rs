//! Resolvers that are asked over TLS, HTTPS or QUIC: refused by address and by name, unless a rule is for them.

use std::fs;

use anyhow::{Result, ensure};
use dnswall_tests::act::{MessageBy, dns, ping, tcp, udp};
use dnswall_tests::ask::{asked, asked6, message, wire};
use dnswall_tests::case::{Alarm, Case, Expect, allowed, case, denied, refused};
use dnswall_tests::check::{check, check_wall};
use dnswall_tests::wall::Wall;
use dnswall_tests::who::at;

const RULE: &str = "dns.encrypted";
/// Without a rule that refuses it, each of these would pass.
const OPEN: &str = r#"
version = 1
mode = "enforce"
[[allow]]
name = "everything"
to = ["any"]
[dns]
resolvers = ["169.254.169.253", "fd00:ec2::253"]
"#;

const QUAD9: &str = "9.9.9.9";
const GOOGLE: &str = "2001:4860:4860::8888";

fn question(name: &'static str, by: MessageBy, expect: Expect) -> Case {
    case(name, at("app.service"), asked(&message(&wire(name), 1, &[]), by), expect).unexplained()
}

#[test]
fn known_resolvers_are_refused_on_every_port_and_their_names_are_not_asked_for() -> Result<()> {
    let app = || at("app.service");
    let no = denied("dns.encrypted", RULE);
    let never = Expect::Refused(Alarm { kind: "dns.encrypted", reason: "denied-name", rule: RULE });
    let fine = allowed("allow.everything");
    let to = |port: u16| tcp(&format!("{QUAD9}:{port}"));
    let resolvers = allowed("dns.resolvers");
    let refusals = [
        case("over HTTPS", app(), to(443), no),
        case("over TLS", app(), to(853), no),
        case("over HTTPS on another port", app(), to(8443), no),
        case("over HTTP/3", app(), udp(&format!("{QUAD9}:443")), no),
        case("over QUIC", app(), udp(&format!("{QUAD9}:853")), no),
        case("over IPv6", app(), tcp(&format!("[{GOOGLE}]:443")), no),
        case("through a translator", app(), tcp("[64:ff9b::808:808]:443"), no),
        question("dns.google", MessageBy::Datagram, never),
        question("DNS.Quad9.NET", MessageBy::Datagram, never),
        question("dns.google", MessageBy::Stream, never.unheard()),
        question("mozilla.cloudflare-dns.com", MessageBy::Datagram, never),
        question("use-application-dns.net", MessageBy::Datagram, never),
        question("_dns.resolver.arpa", MessageBy::Datagram, never),
        case("IPv6", app(), asked6(&message(&wire("dns.google"), 28, &[]), MessageBy::Datagram), never)
            .unexplained(),
    ];
    let rest = [
        case("its own port is [dns]'s", app(), dns(QUAD9.parse()?), refused("dns.direct")),
        case("an echo", app(), ping(QUAD9), fine),
        case("its neighbour", app(), tcp("9.9.9.8:443"), fine),
        case("its neighbour over IPv6", app(), tcp("[2001:4860:4860::8889]:443"), fine),
        question("google", MessageBy::Datagram, resolvers),
        question("xdns.google", MessageBy::Datagram, resolvers),
        question("dns.google.example", MessageBy::Datagram, resolvers),
        question("quad9.net", MessageBy::Stream, resolvers),
    ];
    check(OPEN, &[&refusals[..], &rest].concat())?;

    // The same ways are open where the policy says so.
    let open = format!("{OPEN}encrypted = \"allow\"\n");
    check(
        &open,
        &[
            case("over HTTPS", app(), to(443), fine),
            case("over TLS", app(), to(853), fine),
            case("over HTTP/3", app(), udp(&format!("{QUAD9}:443")), fine),
            case("over IPv6", app(), tcp(&format!("[{GOOGLE}]:443")), fine),
            question("dns.google", MessageBy::Datagram, resolvers),
            question("use-application-dns.net", MessageBy::Stream, resolvers),
        ],
    )
}

#[test]
fn a_rule_that_names_a_resolver_opens_it_for_whom_it_says() -> Result<()> {
    let rules = format!(
        r#"{OPEN}
[[allow]]
name = "cloudflared"
to = ["{QUAD9}", "10.0.3.0/24"]
ports = ["tcp/443"]
from = [{{ unit = "cloudflared.service" }}]
[[allow]]
name = "unbound"
to = ["internet"]
ports = ["tcp/853"]
from = [{{ unit = "unbound.service" }}]
[[allow]]
name = "browser"
to = ["encrypted-dns"]
ports = ["tcp/443"]
from = [{{ unit = "browser.service" }}]
[[deny]]
name = "guests"
to = ["encrypted-dns"]
from = [{{ unit = "guest.service" }}]
"#
    );
    let no = denied("dns.encrypted", RULE);
    let never = |rule| Expect::Refused(Alarm { kind: "dns.encrypted", reason: "denied-name", rule });
    let to = |port: u16| tcp(&format!("{QUAD9}:{port}"));
    let ask = |name| asked(&message(&wire(name), 1, &[]), MessageBy::Datagram);
    let unit = |name: &'static str| at(name);
    let by_guest = Alarm { kind: "dns.name", reason: "denied-name", rule: "deny.guests" };
    check(
        &rules,
        &[
            case("by its address", unit("cloudflared.service"), to(443), allowed("allow.cloudflared")),
            case("not on its other ports", unit("cloudflared.service"), to(853), no),
            case("not another resolver", unit("cloudflared.service"), tcp("[2001:4860:4860::8888]:443"), no),
            case("not its name", unit("cloudflared.service"), ask("dns.quad9.net"), never(RULE))
                .unexplained(),
            case("not for others", unit("app.service"), to(443), no),
            case("by the port", unit("unbound.service"), to(853), allowed("allow.unbound")),
            case("not by another", unit("unbound.service"), to(443), no),
            case("all of them", unit("browser.service"), to(443), allowed("allow.browser")),
            case(
                "all of them over IPv6",
                unit("browser.service"),
                tcp(&format!("[{GOOGLE}]:443")),
                allowed("allow.browser"),
            ),
            case("and their names", unit("browser.service"), ask("dns.google"), allowed("dns.resolvers"))
                .unexplained(),
            case(
                "a rule that refuses them wins",
                unit("guest.service"),
                to(443),
                denied("egress.denied", "deny.guests"),
            ),
            case("their names as well", unit("guest.service"), ask("dns.google"), Expect::Refused(by_guest))
                .unexplained(),
        ],
    )
}

/// A policy that an agent before this list left, and that has no room for it.
#[test]
fn what_has_decided_goes_on_where_the_list_does_not_fit() -> Result<()> {
    let names: Vec<String> = (0..4_000).map(|index| format!("\"n{index}.example\"")).collect();
    let names = names.join(", ");
    let policy = |encrypted| {
        format!("{OPEN}encrypted = \"{encrypted}\"\n[[allow]]\nname = \"many\"\nto = [{names}]\n")
    };
    let mut wall = Wall::prepare()?;
    wall.agent.start(Some(&policy("allow")))?;
    let anew = wall.agent.apply(&policy("deny"))?;
    ensure!(anew.code == 3 && anew.errors.contains("the kernel holds 4096"), "{anew:?}");
    wall.agent.stop()?;
    fs::write(wall.agent.state().join("policy.toml"), policy("deny"))?;
    wall.agent.start(None)?;
    let log = wall.agent.log();
    ensure!(log.contains("known resolvers of encrypted DNS are not refused"), "{log}");
    let app = || at("app.service");
    let to = |port: u16| tcp(&format!("{QUAD9}:{port}"));
    check_wall(
        &mut wall,
        &[
            case("over TLS", app(), to(853), refused("dns.encrypted")),
            case("over HTTPS", app(), to(443), allowed("allow.everything")),
        ],
    )
}
