//! The play: who tries what, and what the wall should make of it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::far_side::{DATABASE, Place};
use super::network::NEAR_V4;
use super::part::Act;

/// The wall's policy, as it is shown.
pub(super) const POLICY: &str = r#"version = 1
mode = "enforce"

[dns]
resolvers = ["10.0.0.53"]                # all that anything may ask on port 53

[[allow]]
name = "orders database"
to = ["10.0.3.0/24"]
ports = ["tcp/5432"]
from = [{ unit = "shop.service" }]       # this unit, and nobody else
"#;

/// One attempt.
pub(super) struct Scene {
    /// What happens, for people.
    pub(super) title: &'static str,
    /// Whether the intruder does it.
    pub(super) by_intruder: bool,
    /// The unit in which it happens.
    pub(super) unit: &'static str,
    /// What is tried.
    pub(super) act: Act,
    /// The alert's kind when the wall refuses it.
    pub(super) refused_as: Option<&'static str>,
}

/// What everyone does, in order.
pub(super) fn scenes() -> Vec<Scene> {
    let ask = |server, tcp, name: &str| Act::Ask { server, name: name.to_owned(), tcp };
    let work = |title, act| Scene { title, by_intruder: false, unit: SHOP, act, refused_as: None };
    let attack =
        |title, act, kind| Scene { title, by_intruder: true, unit: SHOP, act, refused_as: Some(kind) };
    vec![
        work(
            "The shop asks its resolver 10.0.0.53 where the database is",
            ask(RESOLVER, false, "db.shop.example"),
        ),
        work("The shop connects to its database, 10.0.3.7 port 5432", Act::Connect { to: ORDERS }),
        attack(
            "An intruder in the shop asks 198.51.100.53, a resolver of its own",
            ask(FOREIGN, false, "beacon.evil.example"),
            "dns.direct",
        ),
        attack("... the same over TCP", ask(FOREIGN, true, "beacon.evil.example"), "dns.direct"),
        attack("... the same over IPv6", ask(FOREIGN_V6, false, "beacon.evil.example"), "dns.direct"),
        attack("... DNS over TLS instead, port 853", Act::Connect { to: FOREIGN_TLS }, "dns.encrypted"),
        attack("It calls home, 203.0.113.66 port 443", Act::Connect { to: HOME }, "egress.denied"),
        attack("It opens a raw socket to write packets by hand", Act::RawSocket, "socket.raw"),
        Scene {
            title: "It restarts as backup.service and tries the database from there",
            by_intruder: true,
            unit: "backup.service",
            act: Act::Connect { to: ORDERS },
            refused_as: Some("egress.denied"),
        },
    ]
}

/// The unit that was broken into.
pub(super) const SHOP: &str = "shop.service";
/// Whom everything on the server runs as: nobody.
pub(super) const SHOP_UID: u32 = 65534;
/// Where the shop serves its visitors.
pub(super) const SHOP_WINDOW: SocketAddr = v4(NEAR_V4, 443);
/// What the intruder's program is called.
pub(super) const INTRUDER: &str = "kworkerd";

/// Places that the server needs.
pub(super) const FRIENDLY: [Place; 2] = [Place::Dns(RESOLVER), Place::Tcp(ORDERS)];
/// Places that nothing must ever reach.
pub(super) const HOSTILE: [Place; 4] =
    [Place::Dns(FOREIGN), Place::Dns(FOREIGN_V6), Place::Tcp(FOREIGN_TLS), Place::Tcp(HOME)];

const RESOLVER: SocketAddr = v4(Ipv4Addr::new(10, 0, 0, 53), 53);
const ORDERS: SocketAddr = v4(DATABASE, 5432);
const FOREIGN: SocketAddr = v4(Ipv4Addr::new(198, 51, 100, 53), 53);
const FOREIGN_TLS: SocketAddr = v4(Ipv4Addr::new(198, 51, 100, 53), 853);
const FOREIGN_V6: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53)), 53);
const HOME: SocketAddr = v4(Ipv4Addr::new(203, 0, 113, 66), 443);

const fn v4(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(address), port)
}
