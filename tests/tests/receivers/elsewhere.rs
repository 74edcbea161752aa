//! Receivers in another network: who is there reaches them, and nobody here.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use dnswall_agent::demo::netlink::Netlink;
use dnswall_agent::demo::netns::Namespace;
use dnswall_tests::authority::Authority;
use dnswall_tests::receiver::guard::Guard;
use dnswall_tests::receiver::http::Http;
use dnswall_tests::receiver::kafka::Kafka;
use dnswall_tests::receiver::site::Site;
use dnswall_tests::receiver::syslog::{Input, Syslog};

use crate::client::{run, shown, until};

#[test]
fn a_receiver_may_be_in_another_network() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let authority = Authority::make(directory.path())?;
    let netns = Namespace::create().context("make a network")?;
    netns.run(|| Netlink::open()?.set_up("lo")).context("set its loopback up")?;
    let net = format!("--net={}", netns.path().display());
    let site = || Site::inside(&netns, Ipv4Addr::new(127, 0, 0, 7));
    let http = Http::start_at(site(), directory.path().join("http"), &authority, Guard::Tls)?;
    let curl = ["curl", "--silent", "--cacert", shown(authority.pem())?, "--data", "x"];
    let url = http.url("/hook");
    ensure!(run("env", &[&curl[..], &[url.as_str()]].concat(), b"")?.code == 7, "not from here");
    let said = run("nsenter", &[&[net.as_str()], &curl[..], &[url.as_str()]].concat(), b"")?;
    ensure!(said.code == 0, "{}", said.errors);
    assert_eq!(http.taken()?.len(), 1);
    let syslog = Syslog::start_at(site(), directory.path().join("syslog"), &authority)?;
    let at = syslog.at(Input::Udp);
    let (host, port) = (at.ip().to_string(), at.port().to_string());
    run("nsenter", &[&net, "logger", "--udp", "--server", &host, "--port", &port, "x"], b"")?;
    until("it is there", || Ok(syslog.messages()?.len() == 1))?;
    let kafka =
        Kafka::start_at(site(), directory.path().join("kafka"), &authority, Guard::Plain, "alerts", 1)?;
    assert_eq!(kafka.records()?.len(), 0);
    Ok(())
}
