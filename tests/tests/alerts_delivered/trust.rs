//! Who does not trust whom: nothing is sent, `status` says why, and once the files are mended it goes on.

use std::fs;
use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use dnswall_tests::authority::{Authority, Holder};
use dnswall_tests::receiver::guard::Guard;
use dnswall_tests::receiver::http::Http;
use dnswall_tests::receiver::plan::Plan;
use dnswall_tests::receiver::syslog::{Input, Message, Syslog};

use crate::scene::{Scene, is_once, taken_at};

/// What the two receivers have: rsyslog's input, or what came to the hook.
enum Got<'r> {
    Syslog(&'r Syslog, Input),
    Hook(&'r Http, String),
}

impl Got<'_> {
    fn ids(&self) -> Result<Vec<String>> {
        match self {
            Self::Syslog(syslog, input) => {
                let messages = syslog.messages()?.into_iter().filter(|message| message.input == *input);
                Ok(messages.flat_map(|message| Message::ids(&message)).collect())
            }
            Self::Hook(http, path) => taken_at(http, path),
        }
    }

    fn to(&self, more: &str) -> String {
        match self {
            Self::Syslog(syslog, input) => {
                format!("type = \"syslog\"\naddress = \"tls://{}\"\n{more}", syslog.at(*input))
            }
            Self::Hook(http, path) => format!("type = \"webhook\"\nurl = \"{}\"\n{more}", http.url(path)),
        }
    }
}

fn hook<'r>(http: &'r Http, path: &str) -> Got<'r> {
    Got::Hook(http, format!("/hook/{path}"))
}

#[test]
fn who_is_not_trusted_gets_nothing_until_the_files_are_mended() -> Result<()> {
    let mut scene = Scene::set()?;
    let syslog = Syslog::start(scene.wall.scratch("syslog"), &scene.authority)?;
    let tls = scene.http("tls", Guard::Tls, &Plan::default())?;
    let mutual = scene.http("mutual", Guard::Mutual, &Plan::default())?;
    let other = Authority::make(&scene.wall.scratch("other"))?;
    let good_ca = format!("ca = {:?}\n", scene.authority.pem());

    // An authority that the receiver's is not, and a file that is not there yet.
    let (wrong_ca, no_ca) = (scene.wall.scratch("wrong-ca.pem"), scene.wall.scratch("no-ca.pem"));
    fs::copy(other.pem(), &wrong_ca)?;
    // Certificates that the receivers' authority did not make.
    let directory = scene.wall.scratch("agent");
    fs::create_dir(&directory)?;
    let foreign = other.certify(&directory, "foreign", Holder::Host("agent.example"))?;
    let foreign = format!("{good_ca}certificate = {:?}\nkey = {:?}\n", foreign.pem, foreign.key);
    // A receiver that each of these sinks would reach over TLS, were it not for the file.
    let syslog_2 = Syslog::start(scene.wall.scratch("syslog-2"), &scene.authority)?;
    let cases = [
        ("authority, syslog", Got::Syslog(&syslog, Input::Tls), format!("ca = {wrong_ca:?}"), WRONG),
        ("authority, hook", hook(&tls, "authority"), format!("ca = {wrong_ca:?}"), WRONG),
        ("no file, syslog", Got::Syslog(&syslog_2, Input::Tls), format!("ca = {no_ca:?}"), "read `ca`"),
        ("no file, hook", hook(&tls, "file"), format!("ca = {no_ca:?}"), "read `ca`"),
        ("foreign, syslog", Got::Syslog(&syslog, Input::Mutual), foreign.clone(), REFUSED),
        ("foreign, hook", hook(&mutual, "foreign"), foreign, REFUSED),
    ];
    for (name, got, keys, _) in &cases {
        scene.sink(name, &got.to(&format!("{keys}\ntimeout = \"2s\"")))?;
    }
    // Nobody can mend these without a restart: it is in agent.toml that they show nothing.
    let none =
        [("none, syslog", Got::Syslog(&syslog_2, Input::Mutual)), ("none, hook", hook(&mutual, "none"))];
    for (name, got) in &none {
        scene.sink(name, &got.to(&good_ca))?;
    }
    scene.start()?;
    scene.refuse(3)?;
    let nothing = |name: &str, got: &Got<'_>, why: &str| -> Result<()> {
        let status = scene.until_failing(name, why)?;
        ensure!((status.written, status.waiting) == (0, 3), "{name}: {status:?}");
        ensure!(got.ids()?.is_empty(), "{name}: it came");
        Ok(())
    };
    for (name, got, _, why) in &cases {
        nothing(name, got, why)?;
    }
    for (name, got) in &none {
        nothing(name, got, REFUSED)?;
    }
    ensure!(tls.requests()?.is_empty() && mutual.requests()?.is_empty(), "nothing was sent");

    for ca in [&wrong_ca, &no_ca] {
        fs::copy(scene.authority.pem(), ca)?;
    }
    scene.authority.certify(&directory, "foreign", Holder::Host("agent.example"))?;
    for (name, got, _, _) in &cases {
        let times = scene.until_all_came(name, || got.ids())?;
        ensure!(is_once(&times), "{name}: {times:?}");
        scene.until_taken(name)?;
    }
    ensure!(mutual.requests()?.iter().all(|request| request.client.as_deref() == Some("agent.example")));
    for (name, got) in &none {
        nothing(name, got, REFUSED)?;
    }
    Ok(())
}

/// A receiver whose certificate is for another host.
#[test]
fn another_host_gets_nothing() -> Result<()> {
    let mut scene = Scene::set()?;
    let mut syslog = Syslog::start(scene.wall.scratch("syslog"), &scene.authority)?;
    let mut http = scene.http("http", Guard::Tls, &Plan::default())?;
    let ca = format!("ca = {:?}\n", scene.authority.pem());
    let address = |at: std::net::SocketAddrV4| Holder::Address((*at.ip()).into());
    let elsewhere = Ipv4Addr::new(192, 0, 2, 7);
    let holders = [Holder::Address(elsewhere.into()), Holder::Host("other.example")];
    certify(&scene, &mut syslog, &mut http, holders)?;
    scene.sink("syslog", &Got::Syslog(&syslog, Input::Tls).to(&ca))?;
    scene.sink("hook", &hook(&http, "a").to(&ca))?;
    scene.start()?;
    scene.refuse(3)?;
    for name in ["syslog", "hook"] {
        let status = scene.until_failing(name, WRONG)?;
        ensure!((status.written, status.waiting) == (0, 3), "{name}: {status:?}");
    }
    ensure!(syslog.messages()?.is_empty() && http.requests()?.is_empty(), "nothing was sent");
    let holders = [address(syslog.at(Input::Tls)), address(http.at())];
    certify(&scene, &mut syslog, &mut http, holders)?;
    for (name, got) in [("syslog", Got::Syslog(&syslog, Input::Tls)), ("hook", hook(&http, "a"))] {
        let times = scene.until_all_came(name, || got.ids())?;
        ensure!(is_once(&times), "{name}: {times:?}");
        scene.until_taken(name)?;
    }
    Ok(())
}

/// Gives both another certificate, with which they start again.
fn certify(scene: &Scene, syslog: &mut Syslog, http: &mut Http, holders: [Holder<'_>; 2]) -> Result<()> {
    syslog.stop();
    http.stop();
    for (name, holder) in ["syslog", "http"].into_iter().zip(holders) {
        scene.authority.certify(&scene.wall.scratch(name), "server", holder)?;
    }
    syslog.resume()?;
    http.resume()
}

/// Of the receiver's certificate, whatever is the matter with it.
const WRONG: &str = "invalid peer certificate: ";
/// Of one's own; what it says depends on when the receiver leaves.
const REFUSED: &str = "";
