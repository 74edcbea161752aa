//! Report or block, for all and for some; and what never leaves the host.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use dnswall_tests::act::{Act, TcpBy, address, dns, dns_tcp, ping, tcp, tcp_by, udp};
use dnswall_tests::case::{allowed, case, passes, refused, would_deny, would_refuse};
use dnswall_tests::check::{check, check_wall};
use dnswall_tests::resolver::{FOREIGN, FOREIGN_V6, RESOLVER};
use dnswall_tests::wall::Wall;
use dnswall_tests::who::{Exe, at};

#[test]
fn audit_reports_and_lets_pass() -> Result<()> {
    let policy = r#"
version = 1
mode = "audit"
[dns]
resolvers = ["169.254.169.253"]
[[deny]]
name = "quarantine"
to = ["10.0.9.0/24"]
[[allow]]
name = "database"
to = ["10.0.3.0/24"]
ports = ["tcp/5432"]
"#;
    let app = || at("app.service");
    check(
        policy,
        &[
            case("the resolver", app(), dns(RESOLVER), allowed("dns.resolvers")),
            case("a foreign resolver", app(), dns(FOREIGN), would_refuse("dns.direct")),
            case("over TCP", app(), dns_tcp(FOREIGN), would_refuse("dns.direct")),
            case("over IPv6", app(), dns(FOREIGN_V6), would_refuse("dns.direct")),
            case("dig", app().exe(Exe::Dig), dns(FOREIGN), would_refuse("dns.direct")),
            case("allowed", app(), tcp("10.0.3.7:5432"), allowed("allow.database")),
            case("not allowed", app(), tcp("10.0.3.7:5433"), would_refuse("egress.denied")),
            case("not allowed, UDP", app(), udp("10.0.3.7:5433"), would_refuse("egress.denied")),
            case("denied", app(), udp("10.0.9.1:1"), would_deny("egress.denied", "deny.quarantine")),
            case("echo", app(), ping("10.0.3.7"), would_refuse("egress.denied")),
            case("TLS", app(), tcp("10.0.3.7:853"), would_refuse("dns.encrypted")),
        ],
    )
}

#[test]
fn scopes_treat_some_apart() -> Result<()> {
    let rules = r#"
[dns]
resolvers = ["169.254.169.253"]
[[allow]]
name = "database"
to = ["10.0.3.0/24"]
ports = ["tcp/5432"]
"#;
    let batch = || at("batch-1.service");
    let app = || at("app.service");
    let apart = r#"
[[scope]]
name = "batch, first week"
from = [{ unit = "batch-*.service" }]
mode = "audit"
"#;
    check(
        &format!("version = 1\nmode = \"enforce\"\n{rules}{apart}"),
        &[
            case("in the scope", batch(), tcp("10.0.4.1:80"), would_refuse("egress.denied")),
            case("in the scope, DNS", batch(), dns(FOREIGN), would_refuse("dns.direct")),
            case("in the scope, allowed", batch(), tcp("10.0.3.1:5432"), allowed("allow.database")),
            case("out of the scope", app(), tcp("10.0.4.1:80"), refused("egress.denied")),
            case("out of the scope, DNS", app(), dns(FOREIGN), refused("dns.direct")),
            case("forged", at("app.service/batch-1.service"), dns(FOREIGN), refused("dns.direct")),
        ],
    )?;
    check(
        &format!("version = 1\nmode = \"audit\"\n{rules}{}", apart.replace("audit", "enforce")),
        &[
            case("in the scope", batch(), tcp("10.0.4.1:80"), refused("egress.denied")),
            case("in the scope, DNS", batch(), dns_tcp(FOREIGN), refused("dns.direct")),
            case("out of the scope", app(), tcp("10.0.4.1:80"), would_refuse("egress.denied")),
            case("out of the scope, DNS", app(), dns(FOREIGN), would_refuse("dns.direct")),
        ],
    )
}

#[test]
fn what_never_leaves_the_host_passes() -> Result<()> {
    let mut wall = Wall::raise("version = 1\nmode = \"enforce\"\n")?;
    let server = at("server.service");
    let places = ["127.0.0.1:7000", "[::1]:7000", "10.77.0.2:7001", "[fd00:77::2]:7001", "127.9.9.9:7002"];
    let mut running = Vec::new();
    for place in places {
        for tcp in [true, false] {
            running.push(wall.start(&server, Act::Serve { at: place.parse()?, tcp })?);
        }
    }
    // These answer for every address there is, which must not open the way to any but the host's own.
    for place in ["0.0.0.0:7003", "[::]:7004"] {
        running.push(wall.start(&server, Act::Serve { at: place.parse()?, tcp: true })?);
    }
    let app = || at("app.service").uid(65534);
    let mut cases = Vec::new();
    for place in ["10.77.0.2:7003", "10.77.0.2:7004", "[fd00:77::2]:7004"] {
        cases.push(case("own, served by all", app(), tcp(place), passes("loopback")).unexplained());
        cases.push(
            case("own, v4-mapped", app(), tcp_by(place, TcpBy::SixSocket), passes("loopback")).unexplained(),
        );
    }
    for place in ["10.77.0.1:7003", "10.77.0.1:7004", "[fd00:77::1]:7004", "[2001:db8::9]:7004"] {
        cases.push(case("elsewhere, served here", app(), tcp(place), refused("egress.denied")));
    }
    for place in places {
        let own = place.starts_with("10.") || place.starts_with("[fd");
        for act in [tcp(place), udp(place)] {
            let line = case("loopback", app(), act, passes("loopback"));
            // An address of its own is the host's only where the host is: explain knows no namespace.
            cases.push(if own { line.unexplained() } else { line });
        }
    }
    cases.push(case("echo", app(), ping("127.0.0.1"), passes("loopback")));
    cases.push(case("echo, own", app(), ping("10.77.0.2"), passes("loopback")).unexplained());
    cases.push(case("elsewhere", app(), tcp("10.77.0.1:7001"), refused("egress.denied")));
    check_wall(&mut wall, &cases)?;
    ensure!(running.len() == 2 * places.len() + 2);
    Ok(())
}

#[test]
fn an_answer_to_what_audit_let_out_opens_nothing() -> Result<()> {
    let audit = "version = 1\nmode = \"audit\"\n";
    let to = address("10.0.3.7:9000");
    let mut wall = Wall::raise(audit)?;
    wall.echo(&BTreeSet::new(), &BTreeSet::from([to]))?;
    let mut held = wall.start(&at("app.service"), Act::Hold { to, tcp: false })?;
    for round in 0..2 {
        let skip = wall.agent.alerts()?.len();
        let report = held.exchange()?;
        ensure!(report.ok, "round {round}: {report:?}");
        let alert = wall.agent.wait_for_alert(skip, |alert| alert["process"]["pid"] == held.pid())?;
        ensure!(alert["verdict"] == "would-deny", "round {round}: {alert}");
        std::thread::sleep(Duration::from_millis(1100)); // one alert a second for each flow
    }
    ensure!(wall.agent.apply(&audit.replace("audit", "enforce"))?.code == 0);
    let report = held.exchange()?;
    ensure!(report.is_refused(), "after two answers: {report:?}");
    Ok(())
}
