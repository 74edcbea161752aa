//! One workload floods while a sink is away and the spool is small: what another one did before is not buried, an alert says
//! what was lost, and every count adds up.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dnswall_tests::act::{Act, address, udp};
use dnswall_tests::authority::Authority;
use dnswall_tests::pace::within;
use dnswall_tests::receiver::guard::Guard;
use dnswall_tests::receiver::http::Http;
use dnswall_tests::wall::Wall;
use dnswall_tests::who::at;
use serde_json::Value;

const POLICY: &str = "version = 1\nmode = \"enforce\"\n";
/// Users who flood, and destinations of each: more alerts than the smallest spool holds, and no more than are kept apart.
const USERS: u32 = 8;
const DESTINATIONS: u32 = 500;
const RARE: &str = "198.51.100.77:4711";
const SOON: Duration = Duration::from_secs(30);
/// How long the sink that was away may need: it rests for a minute at most.
const BACK_WITHIN: Duration = Duration::from_secs(120);

/// Alerts by id: one that came twice is there once.
type Got = BTreeMap<String, Value>;

fn got(alerts: impl IntoIterator<Item = Value>) -> Result<Got> {
    alerts.into_iter().map(|alert| Ok((alert["id"].as_str().context("an id")?.to_owned(), alert))).collect()
}

fn at_web(web: &Http) -> Result<Got> {
    let documents = web.taken()?;
    let lines = documents.iter().filter_map(|taken| taken.document.as_deref()).flat_map(str::lines);
    got(lines.map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?)
}

fn wait_for(what: &str, patience: Duration, mut is_there: impl FnMut() -> Result<bool>) -> Result<()> {
    let until = Instant::now() + within(patience);
    while !is_there()? {
        ensure!(Instant::now() < until, "{what}: not within {patience:?}");
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn flood(wall: &Wall, user: u32) -> Result<()> {
    let from = address(&format!("[2001:db8:f::{user}:0]:9000"));
    let report =
        wall.run(&at("noisy.service").uid(20_000 + user), Act::Sweep { from, count: DESTINATIONS })?;
    let refused: u64 = report.counts.iter().map(|(_, refused)| refused).sum();
    ensure!(refused == u64::from(DESTINATIONS), "{report:?}");
    Ok(())
}

/// Waits until the agent has told all it has to tell of so many refusals.
fn counted(wall: &Wall, refusals: u64) -> Result<()> {
    wait_for("all counts", SOON, || {
        let counters = &wall.agent.status()?["counters"];
        Ok(counters["refusals-observed"].as_u64() >= Some(refusals) && counters["refusals-pending"] == 0)
    })?;
    // From there to the file.
    wait_for("all alerts", SOON, || {
        let status = wall.agent.status()?;
        let sinks = status["sinks"].as_array().into_iter().flatten();
        Ok(sinks.filter(|sink| sink["name"] != "web").all(|sink| sink["waiting"] == 0))
    })
}

/// Refusals that alerts stand for, and the agent's account of them.
fn check_sums(wall: &Wall, alerts: &Got) -> Result<()> {
    let status = wall.agent.status()?;
    let counter = |name: &str| status["counters"][name].as_u64().unwrap_or_default();
    let counted = |alert: &&Value| !alert["verdict"].is_null() && alert["kind"] != "selftest";
    let alerted: u64 = alerts.values().filter(counted).filter_map(|alert| alert["count"].as_u64()).sum();
    let told = counter("refusals-observed") - counter("refusals-overflowed") - counter("refusals-orphaned");
    let refused = status["spool"]["refused_refusals"].as_u64().unwrap_or_default();
    ensure!(counter("refusals-pending") == 0 && alerted + refused == told, "{alerted} alerted: {status:#}");
    Ok(())
}

fn add_config(wall: &Wall, more: &str) -> Result<()> {
    let config = fs::read_to_string(wall.agent.config_path())?;
    // The tables that are there go on.
    let limits = "[alerts]\n";
    ensure!(config.contains(limits), "{config}");
    let (alerts, rest) = more.split_once('\n').context("two lines")?;
    let config = config.replacen(limits, &format!("{limits}{alerts}\n"), 1);
    fs::write(wall.agent.config_path(), config + rest).context("write agent.toml")
}

fn is_of(alert: &Value, unit: &str) -> bool {
    alert["workload"]["unit"] == unit
}

#[test]
fn a_rare_alert_is_not_buried_and_what_is_lost_is_said() -> Result<()> {
    let mut wall = Wall::prepare()?;
    let authority = Authority::make(&wall.scratch("authority"))?;
    let mut web = Http::start(wall.scratch("web"), &authority, Guard::Tls)?;
    let sink = format!(
        "workload-burst = 100000\n[spool]\nmax-bytes = 4194304\n[[sink]]\nname = \"web\"\ntype = \"webhook\"\n\
         url = {:?}\nca = {:?}\ntimeout = \"2s\"\n",
        web.url("/hook"),
        authority.pem(),
    );
    add_config(&wall, &sink)?;
    web.stop();
    wall.agent.start(Some(POLICY))?;

    let report = wall.run(&at("quiet.service").uid(65534), udp(RARE))?;
    ensure!(report.is_refused(), "{report:?}");
    wall.agent.wait_for_alert(0, |alert| is_of(alert, "quiet.service"))?;
    for user in 0..USERS {
        flood(&wall, user)?;
        // So that the sink that is there is never behind, however slow the machine is.
        counted(&wall, u64::from((user + 1) * DESTINATIONS))?;
    }
    let says_lost = |alert: &&Value| alert["kind"] == "alerts.lost";
    wait_for("the alert that says so", SOON, || {
        Ok(wall.agent.alerts()?.iter().any(|alert| says_lost(&alert)))
    })?;
    let settled = |name: &'static str| {
        let status = wall.agent.status()?;
        let sink = status["sinks"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|sink| sink["name"].as_str().is_some_and(|is| is.starts_with(name)));
        sink.cloned().with_context(|| format!("no sink {name}: {status:#}"))
    };
    web.resume()?;
    wait_for("the sink that was away", BACK_WITHIN, || Ok(settled("web")?["waiting"] == 0))?;
    counted(&wall, u64::from(USERS * DESTINATIONS) + 1)?;
    check_sums(&wall, &got(wall.agent.alerts()?)?)?;
    let (up, down) = (settled("file")?, settled("web")?);
    let number = |sink: &Value, key: &str| sink[key].as_u64().unwrap_or_default();
    ensure!(number(&up, "lost") == 0 && number(&down, "lost") > 500, "{up:#} {down:#}");
    ensure!(number(&up, "written") == number(&down, "written") + number(&down, "lost"), "{up:#} {down:#}");

    // What no alert said yet, the last one says.
    ensure!(wall.agent.stop()? == 0);
    let (up, down) = (got(wall.agent.alerts()?)?, at_web(&web)?);
    ensure!(down.values().any(|alert| is_of(alert, "quiet.service")), "the rare alert was buried");
    let missing: BTreeSet<&String> = up.keys().filter(|id| !down.contains_key(*id)).collect();
    ensure!(missing.iter().all(|id| is_of(&up[*id], "noisy.service")), "others' alerts are missing");
    let said = |got: &Got| -> u64 {
        let sinks = got.values().filter(says_lost).filter_map(|alert| alert["lost"]["sinks"].as_array());
        sinks.flatten().filter(|sink| sink["name"] == "web").filter_map(|sink| sink["alerts"].as_u64()).sum()
    };
    eprintln!("{} alerts, {} of them lost to the sink that was away", up.len(), missing.len());
    ensure!(said(&up) == missing.len() as u64, "{} said to be lost, {} missing", said(&up), missing.len());
    ensure!(said(&down) == said(&up), "the sink it happened to knows it, too");
    Ok(())
}

#[test]
fn what_a_workload_has_too_much_of_is_told_in_one_alert() -> Result<()> {
    let mut wall = Wall::prepare()?;
    add_config(&wall, "workload-burst = 50\n")?;
    wall.agent.start(Some(POLICY))?;
    flood(&wall, 0)?;
    flood(&wall, 1)?;
    let report = wall.run(&at("quiet.service").uid(65534), udp(RARE))?;
    ensure!(report.is_refused(), "{report:?}");
    wall.agent.wait_for_alert(0, |alert| is_of(alert, "quiet.service"))?;
    counted(&wall, u64::from(2 * DESTINATIONS) + 1)?;
    let alerts = got(wall.agent.alerts()?)?;
    check_sums(&wall, &alerts)?;
    let (folded, single): (Vec<_>, Vec<_>) = alerts
        .values()
        .filter(|alert| is_of(alert, "noisy.service"))
        .partition(|alert| alert["limited"].is_object());
    // Some came back to the workload while it flooded.
    ensure!((50..150).contains(&single.len()), "{} alone", single.len());
    let stand_for: u64 = folded.iter().filter_map(|alert| alert["limited"]["alerts"].as_u64()).sum();
    ensure!(stand_for + single.len() as u64 >= u64::from(2 * DESTINATIONS), "{stand_for} folded");
    ensure!(folded.iter().all(|alert| alert["flow"]["destination"].is_null()), "{folded:?}");
    Ok(())
}
