//! Lists of a million names.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dnswall_tests::act::{Act, MessageBy};
use dnswall_tests::ask::{message, wire};
use dnswall_tests::bench::names::write;
use dnswall_tests::lists;
use dnswall_tests::pace::within;
use dnswall_tests::wall::Wall;
use dnswall_tests::who::{Who, at};
use serde_json::json;

/// Servers that answer whatever they are asked with just that, and as many at a time as there are.
const ECHO: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 252));
/// The same over IPv6.
const ECHO_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x252));
/// Names in the list, where `DNSWALL_TEST_LIST` gives no other.
const NAMES: usize = 1_100_000;
/// Of them, so many are asked for.
const ASKED: usize = 10_000;

#[test]
fn a_million_names() -> Result<()> {
    let mut wall = Wall::prepare()?;
    let given = std::env::var_os("DNSWALL_TEST_LIST");
    let list = given.map_or_else(|| wall.scratch("million.txt"), Into::into);
    if !list.exists() {
        write(&list, NAMES)?;
    }
    let names = lists::names(&list)?;
    let policy = format!(
        "version = 1\nmode = \"enforce\"\n[dns]\nresolvers = [\"{ECHO}\", \"{ECHO_V6}\"]\n[[blocklist]]\nname = \"million\"\nsource = {list:?}\nmin-entries = 1_000_000\n"
    );
    let both = BTreeSet::from([ECHO, ECHO_V6].map(|ip| SocketAddr::new(ip, 53)));
    wall.echo(&both, &both)?;
    // One program asks for all of them.
    let config = fs::read_to_string(wall.agent.config_path())?;
    fs::write(wall.agent.config_path(), config.replace("[alerts]\n", "[alerts]\nworkload-burst = 100000\n"))?;
    wall.agent.start(Some(&policy))?;
    let lists = wall.agent.ask(&["blocklist", "status"])?.1;
    let (entries, bytes) =
        (lists["entries"].as_u64().unwrap_or(0), lists["kernel_bytes"].as_u64().unwrap_or(0));
    println!("{entries} names in {bytes} bytes");
    ensure!(entries >= 1_000_000 && bytes <= 6 * entries, "{lists}");

    let servers = [(ECHO, false), (ECHO_V6, false), (ECHO, true), (ECHO_V6, true)]
        .map(|(ip, tcp)| (SocketAddr::new(ip, 53), tcp));
    let step = names.len() / ASKED;
    let some: Vec<&String> = names.iter().step_by(step).take(ASKED).collect();
    let mut file = String::new();
    for (at, name) in some.iter().enumerate() {
        // As it is, in another case, below it: a third each, over each way.
        match at / servers.len() % 3 {
            0 => writeln!(file, "{name}")?,
            1 => writeln!(file, "{}", name.to_uppercase())?,
            _ => writeln!(file, "a{at}.b.{name}")?,
        }
    }
    let path = wall.scratch("asked.txt");
    fs::write(&path, &file)?;
    let mark = wall.capture.mark()?;
    let many = |silence_ms: u64| Act::Names { servers: servers.to_vec(), names: path.clone(), silence_ms };
    let report = wall.run(&at_app(), many(within(Duration::from_millis(150)).as_millis() as u64))?;
    let quarter = (ASKED / 4) as u64;
    ensure!(report.counts == [(0, quarter); 4], "listed names: answered and refused {:?}", report.counts);
    wall.capture.mark()?;
    for server in [ECHO, ECHO_V6] {
        let arrived = wall.capture.since(mark, server);
        let leaked =
            arrived.iter().filter(|packet| packet.port() == Some(53) && packet.carries_data()).count();
        ensure!(leaked == 0, "LEAKED: {leaked} packets with data arrived at {server}");
    }

    // Not listed: another first letter, another end, the parent where it is no entry itself, a sibling.
    let all: std::collections::HashSet<&str> = names.iter().map(String::as_str).collect();
    let is_listed = |name: &str| {
        name.match_indices('.')
            .map(|(at, _)| &name[at + 1..])
            .chain([name])
            .any(|suffix| all.contains(suffix))
    };
    let mut file = String::new();
    let (mut count, mut at) = (0, 0);
    while count < ASKED {
        let name = &names[at * 7 % names.len()];
        let (first, rest) = name.split_once('.').unwrap_or((name, "example"));
        let look_alike = match at % 4 {
            0 => format!("x{name}"),
            1 => format!("{first}x.{rest}"),
            2 => rest.to_owned(),
            _ => format!("sibling{at}.{rest}"),
        };
        at += 1;
        if !is_listed(&look_alike) && look_alike.len() < 250 {
            writeln!(file, "{look_alike}")?;
            count += 1;
        }
    }
    fs::write(&path, &file)?;
    let report = wall.run(&at_app(), many(within(Duration::from_secs(5)).as_millis() as u64))?;
    ensure!(report.counts == [(quarter, 0); 4], "other names: answered and refused {:?}", report.counts);

    let wanted = some.first().context("a name")?.to_lowercase();
    let alert = wall.agent.wait_for_alert(0, |alert| alert["dns"]["entry"] == json!(wanted));
    let alert = alert.context("an alert with the entry")?;
    ensure!(
        alert["rule"] == "blocklist.million"
            && alert["dns"]["list"] == "million"
            && alert["dns"]["line"].is_u64(),
        "{alert}"
    );
    wall.agent.kill()?;
    fs::write(&path, some.iter().take(400).map(|name| format!("{name}\n")).collect::<String>())?;
    let by_datagram = Act::Names { servers: servers[..2].to_vec(), names: path, silence_ms: 1_000 };
    let report = wall.run(&at_app(), by_datagram)?;
    ensure!(report.counts == [(0, 200); 2], "without an agent: answered and refused {:?}", report.counts);
    let by_stream = Act::Message {
        server: servers[2].0,
        message: message(&wire(some[0]), 1, &[]),
        by: MessageBy::Stream,
    };
    let report = wall.run(&at_app(), by_stream)?;
    ensure!(report.is_silence(), "over TCP, without an agent: {report:?}");
    Ok(())
}

fn at_app() -> Who {
    at("app.service")
}
