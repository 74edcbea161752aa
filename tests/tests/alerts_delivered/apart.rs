//! Sinks that hang, each in its own way, and one that does not: it has its alerts at once.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dnswall_tests::pace::within;
use dnswall_tests::receiver::guard::Guard;
use dnswall_tests::receiver::plan::{Fault, How, Plan};

use crate::scene::{Scene, is_once, taken_at};

#[test]
fn who_hangs_delays_nobody_else() -> Result<()> {
    let mut scene = Scene::set()?;
    let plan = Plan::default().fault("/hook/silent", Fault::how(How::Silent));
    let http = scene.http("http", Guard::Plain, &plan)?;
    // Connections come about, and nobody reads.
    let mute = TcpListener::bind("127.0.0.1:0")?;
    let mute_at = mute.local_addr()?;
    // So many wait already that the kernel answers no more.
    let full = TcpListener::bind("127.0.0.1:0")?;
    rustix::net::listen(&full, 0)?;
    let full_at = full.local_addr()?;
    let fill = || std::net::TcpStream::connect_timeout(&full_at, Duration::from_millis(200));
    let waiting: Vec<_> = (0..4).map_while(|_| fill().ok()).collect();
    ensure!(fill().is_err(), "{} wait, and still there is room", waiting.len());
    let ca = scene.authority.pem();
    let hanging = [
        ("silent", format!("type = \"webhook\"\nurl = \"{}\"", http.url("/hook/silent"))),
        ("mute tls", format!("type = \"syslog\"\naddress = \"tls://{mute_at}\"\nca = {ca:?}")),
        ("mute http", format!("type = \"elastic\"\nurl = \"http://{mute_at}\"")),
        ("mute kafka", format!("type = \"kafka\"\nbrokers = [\"{mute_at}\"]\ntls = false")),
        ("full", format!("type = \"syslog\"\naddress = \"tcp://{full_at}\"")),
    ];
    for (name, keys) in &hanging {
        scene.sink(name, &format!("{keys}\ntimeout = \"5m\""))?;
    }
    scene.sink("well", &format!("type = \"webhook\"\nurl = \"{}\"", http.url("/hook/well")))?;
    scene.start()?;
    for round in 1..=3 {
        let began = Instant::now();
        scene.refuse(3)?;
        let times = scene.until_all_came("well", || taken_at(&http, "/hook/well"))?;
        let lasted = began.elapsed();
        ensure!(is_once(&times) && lasted < within(Duration::from_secs(3)), "round {round}: {lasted:?}");
    }
    for (name, _) in &hanging {
        let status = scene.status(name)?;
        ensure!((status.written, status.waiting) == (0, 9), "{name}: {status:?}");
        ensure!(status.oldest_waiting_secs.is_some_and(|secs| secs > 0.0), "{name}: {status:?}");
    }
    // Nor the agent's end.
    let began = Instant::now();
    scene.wall.agent.stop()?;
    ensure!(began.elapsed() < within(Duration::from_secs(8)), "it ended in {:?}", began.elapsed());
    Ok(())
}
