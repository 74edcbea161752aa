//! `dnswall alert test` and the heartbeat: they pass when alerts arrive, and say where they stop when they do not, with each
//! part of the way broken in turn.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dnswall_tests::authority::Authority;
use dnswall_tests::mounted::Mounted;
use dnswall_tests::pace::within;
use dnswall_tests::receiver::guard::Guard;
use dnswall_tests::receiver::http::Http;
use dnswall_tests::tamper;
use dnswall_tests::wall::Wall;
use serde_json::Value;

const POLICY: &str = "version = 1\nmode = \"enforce\"\n";
const SOON: Duration = Duration::from_secs(60);

fn configure(wall: &Wall, change: impl FnOnce(String) -> String) -> Result<()> {
    let config = fs::read_to_string(wall.agent.config_path())?;
    fs::write(wall.agent.config_path(), change(config)).context("write agent.toml")
}

/// What a test says: its exit code, and each step that failed with its words.
fn test(wall: &Wall) -> Result<(i32, Vec<String>, Value)> {
    let (code, said) = wall.agent.ask(&["alert", "test", "--within", "3s"])?;
    let steps = said["steps"].as_array().with_context(|| format!("steps: {said}"))?;
    let failed = steps.iter().filter(|step| step["passed"] == false).map(|step| {
        let text = |key: &str| step[key].as_str().unwrap_or_default().to_owned();
        format!("{}: {}", text("name"), text("note"))
    });
    Ok((code, failed.collect(), said.clone()))
}

/// That it fails at this step, with these words, and at no other but those that cannot pass then.
fn check_broken(wall: &Wall, step: &str, words: &[&str]) -> Result<()> {
    let (code, failed, said) = test(wall)?;
    ensure!(code == 1 && said["passed"] == false, "{code}: {said:#}");
    let first = failed.first().with_context(|| format!("{said:#}"))?;
    ensure!(first.starts_with(step) && words.iter().all(|word| first.contains(word)), "{failed:?}");
    // `status` says so, too.
    let last = &wall.agent.status()?["selftest"]["last"];
    ensure!(last["number"] == said["number"] && last["passed"] == false, "{last:#}");
    let text = wall.agent.say(&["alert", "test", "--within", "1s"])?;
    ensure!(text.code == 1 && text.text.contains("NOT"), "{}", text.text);
    Ok(())
}

#[test]
fn it_passes_and_its_alert_is_a_real_one() -> Result<()> {
    let mut wall = Wall::prepare()?;
    let authority = Authority::make(&wall.scratch("authority"))?;
    let web = Http::start(wall.scratch("web"), &authority, Guard::Tls)?;
    configure(&wall, |config| {
        let (url, ca) = (web.url("/hook"), authority.pem());
        format!("{config}[[sink]]\nname = \"web\"\ntype = \"webhook\"\nurl = {url:?}\nca = {ca:?}\n")
    })?;
    wall.agent.start(Some(POLICY))?;
    for number in 1..=2 {
        let (code, failed, said) = test(&wall)?;
        ensure!(code == 0 && failed.is_empty() && said["number"] == number, "{said:#}");
        let steps: Vec<&str> =
            said["steps"].as_array().into_iter().flatten().filter_map(|step| step["name"].as_str()).collect();
        ensure!(
            steps.len() == 5 && steps[..3] == ["kernel", "ring", "spool"] && steps[4] == "sink web",
            "{steps:?}"
        );
        let timed =
            said["steps"].as_array().into_iter().flatten().skip(1).all(|step| step["micros"].is_u64());
        ensure!(timed, "{said:#}");
        let alert = wall.agent.wait_for_alert(0, |alert| alert["id"] == said["id"])?;
        ensure!(
            alert["kind"] == "selftest" && alert["verdict"] == "denied" && alert["severity"] == "info",
            "{alert}"
        );
        ensure!(alert["selftest"]["number"] == number && alert["selftest"]["asked"] == "command", "{alert}");
        let previous = &alert["selftest"]["previous"];
        ensure!(previous.is_null() == (number == 1), "{alert}");
        if number == 2 {
            let taken =
                previous["sinks"].as_array().into_iter().flatten().all(|sink| sink["taken_us"].is_u64());
            ensure!(previous["number"] == 1 && previous["saved_us"].is_u64() && taken, "{alert}");
        }
        let id = said["id"].as_str().unwrap_or_default();
        ensure!(web.taken()?.iter().any(|taken| taken.ids().iter().any(|there| there == id)), "{id}");
    }
    // It is nobody's refusal.
    let alerts = wall.agent.alerts()?;
    ensure!(alerts.iter().all(|alert| alert["kind"] == "selftest"), "{alerts:?}");
    Ok(())
}

#[test]
fn a_heartbeat_comes_by_itself() -> Result<()> {
    let mut wall = Wall::prepare()?;
    configure(&wall, |config| config.replace("enabled = false", "interval = \"5s\""))?;
    wall.agent.start(Some(POLICY))?;
    let beat = |number: u64| {
        move |alert: &Value| alert["selftest"]["number"] == number && alert["selftest"]["asked"] == "schedule"
    };
    wait_for_beat(&wall, beat(1))?;
    let second = wait_for_beat(&wall, beat(2))?;
    ensure!(second["selftest"]["previous"]["sinks"][0]["taken_us"].is_u64(), "{second}");
    let until = Instant::now() + within(SOON);
    while wall.agent.status()?["selftest"]["arrived"].is_null() {
        ensure!(Instant::now() < until, "none arrived: {:#}", wall.agent.status()?["selftest"]);
        thread::sleep(Duration::from_millis(100));
    }
    // The next agent goes on with the numbers.
    wall.agent.kill()?;
    wall.agent.start(None)?;
    wait_for_beat(&wall, |alert| alert["selftest"]["number"].as_u64().is_some_and(|number| number >= 3))?;
    Ok(())
}

/// A test's thread also looks at all of the wall, which takes its time on a busy machine.
fn wait_for_beat(wall: &Wall, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let until = Instant::now() + within(SOON);
    loop {
        if let Some(found) = wall.agent.alerts()?.into_iter().find(&wanted) {
            return Ok(found);
        }
        ensure!(Instant::now() < until, "no such test: {:?}", wall.agent.alerts()?);
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_sink_that_nobody_answers_is_named() -> Result<()> {
    let mut wall = Wall::prepare()?;
    // Nobody else has its port.
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let authority = Authority::make(&wall.scratch("authority"))?;
    let stranger = Authority::make(&wall.scratch("stranger"))?;
    let web = Http::start(wall.scratch("web"), &authority, Guard::Tls)?;
    let closed = listener.local_addr()?;
    drop(listener);
    for (sink, words) in [
        (format!("type = \"syslog\"\naddress = \"tcp://{closed}\"\n"), ["refused", ""]),
        (
            format!("type = \"webhook\"\nurl = {:?}\nca = {:?}\n", web.url("/hook"), stranger.pem()),
            ["TLS", "certificate"],
        ),
        ("type = \"webhook\"\nurl = \"https://no-such-siem.invalid/\"\n".to_owned(), ["looked up", "name"]),
    ] {
        let before = fs::read_to_string(wall.agent.config_path())?;
        configure(&wall, |config| format!("{config}[[sink]]\nname = \"siem\"\n{sink}"))?;
        wall.agent.start(Some(POLICY))?;
        check_broken(&wall, "sink siem: ", &words).with_context(|| sink.clone())?;
        wall.agent.stop()?;
        fs::write(wall.agent.config_path(), before)?;
    }
    Ok(())
}

#[test]
fn a_spool_that_cannot_be_written_is_named() -> Result<()> {
    let mut wall = Wall::prepare()?;
    // Too small for what the spool would take beforehand.
    let _small = Mounted::small(&wall.agent.state(), "2m")?;
    wall.agent.start(Some(POLICY))?;
    ensure!(test(&wall)?.0 == 0, "it passes while there is room");
    let mut ballast = File::create(wall.agent.state().join("ballast"))?;
    while ballast.write(&[1; 4096]).is_ok_and(|written| written > 0) {}
    // Until the spool has used what it has of its own.
    let until = Instant::now() + within(Duration::from_secs(60));
    while test(&wall)?.0 == 0 {
        ensure!(Instant::now() < until, "the spool is never full");
    }
    check_broken(&wall, "spool: the alert is not on disk", &["No space left"])?;
    // The sink has it all the same.
    let (_, failed, said) = test(&wall)?;
    ensure!(failed.len() == 1, "{failed:?}");
    wall.agent.wait_for_alert(0, |alert| alert["id"] == said["id"])?;
    Ok(())
}

#[test]
fn a_ring_that_takes_nothing_is_named() -> Result<()> {
    let mut wall = Wall::raise(POLICY)?;
    tamper::fill_ring(wall.agent.pins())?;
    let (code, failed, said) = test(&wall)?;
    let words = "ring: the kernel counted the refusal and its event never came";
    ensure!(code == 1 && failed.first().is_some_and(|first| first.starts_with(words)), "{said:#}");
    ensure!(said["steps"][0]["passed"] == true, "the wall itself stands: {said:#}");
    // Another agent begins where writing stopped.
    wall.agent.stop()?;
    Ok(())
}
