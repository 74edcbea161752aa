//! One sink of three is down for long, and the agent is killed again and again meanwhile, also in the very moment of a refusal:
//! every refusal is in one alert at every sink, the other two do not wait, and what comes twice comes with the same id.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dnswall_tests::act::udp;
use dnswall_tests::authority::Authority;
use dnswall_tests::pace::within;
use dnswall_tests::receiver::guard::Guard;
use dnswall_tests::receiver::http::Http;
use dnswall_tests::receiver::syslog::{Input, Syslog};
use dnswall_tests::wall::Wall;
use dnswall_tests::who::at;
use serde_json::Value;

const POLICY: &str = "version = 1\nmode = \"enforce\"\n";
/// How often the agent is killed.
const DEATHS: u32 = 5;
/// Refusals between two deaths, each at a destination of its own.
const REFUSALS: u32 = 12;
/// How long an alert may take to a sink that is there.
const SOON: Duration = Duration::from_secs(10);
/// How long the sink that was away may need to be tried again, and to catch up: it rests for a minute at most.
const BACK_WITHIN: Duration = Duration::from_secs(120);

/// What one sink got: how often each alert came, by id, where its flow led, and how many refusals it counts.
type Got = BTreeMap<String, (usize, String, u64)>;

fn got(alerts: impl IntoIterator<Item = Value>) -> Result<Got> {
    let mut got = Got::new();
    for alert in alerts {
        let id = alert["id"].as_str().context("an id")?.to_owned();
        let to = alert["flow"]["destination"].as_str().unwrap_or_default().to_owned();
        let entry = got.entry(id).or_insert((0, to.clone(), alert["count"].as_u64().context("a count")?));
        ensure!(entry.1 == to, "one id for two alerts: {alert}");
        entry.0 += 1;
    }
    Ok(got)
}

fn destinations(got: &Got) -> BTreeSet<&str> {
    got.values().map(|(_, to, _)| to.as_str()).collect()
}

/// How many refusals at each destination are told.
fn told(got: &Got) -> BTreeMap<&str, u64> {
    let mut told = BTreeMap::new();
    got.values().for_each(|(_, to, count)| *told.entry(to.as_str()).or_default() += count);
    told
}

struct Sinks {
    web: Http,
    log: Syslog,
}

impl Sinks {
    fn web(&self) -> Result<Got> {
        got(self
            .web
            .taken()?
            .iter()
            .filter_map(|taken| taken.document.as_deref())
            .flat_map(str::lines)
            .map(serde_json::from_str)
            .collect::<Result<Vec<Value>, _>>()?)
    }

    fn log(&self) -> Result<Got> {
        let messages = self.log.messages()?;
        got(messages
            .iter()
            .map(|message| serde_json::from_str(&message.msg))
            .collect::<Result<Vec<Value>, _>>()?)
    }
}

/// Has everybody refused something, each time somewhere else; where.
fn refuse(wall: &Wall, round: u32) -> Result<BTreeSet<String>> {
    let mut refused = BTreeSet::new();
    for number in 0..REFUSALS {
        let to = format!("198.51.100.{}", round * REFUSALS + number);
        let report = wall.run(&at("app.service").uid(65534), udp(&format!("{to}:4711")))?;
        ensure!(report.is_refused(), "{to}: {report:?}");
        refused.insert(to);
    }
    Ok(refused)
}

fn wait_for(what: &str, patience: Duration, mut is_there: impl FnMut() -> Result<bool>) -> Result<()> {
    let until = Instant::now() + within(patience);
    while !is_there()? {
        ensure!(Instant::now() < until, "{what}: not within {patience:?}");
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[test]
fn a_sink_that_is_away_while_the_agent_dies_gets_everything() -> Result<()> {
    let mut wall = Wall::prepare()?;
    let authority = Authority::make(&wall.scratch("authority"))?;
    let mut sinks = Sinks {
        web: Http::start(wall.scratch("web"), &authority, Guard::Tls)?,
        log: Syslog::start(wall.scratch("log"), &authority)?,
    };
    let more = format!(
        "[[sink]]\nname = \"web\"\ntype = \"webhook\"\nurl = {:?}\nca = {ca:?}\ntimeout = \"2s\"\n\
         [[sink]]\nname = \"log\"\ntype = \"syslog\"\naddress = \"tls://{}\"\nformat = \"json\"\nca = {ca:?}\n",
        sinks.web.url("/hook"),
        sinks.log.at(Input::Tls),
        ca = authority.pem(),
    );
    let config = fs::read_to_string(wall.agent.config_path())?;
    fs::write(wall.agent.config_path(), config + &more).context("write agent.toml")?;
    wall.agent.start(Some(POLICY))?;

    let mut refused = refuse(&wall, 0)?;
    wait_for("the first alerts", SOON, || {
        Ok(destinations(&sinks.web()?).len() == refused.len()
            && destinations(&sinks.log()?).len() == refused.len())
    })?;
    sinks.web.stop();
    for death in 1..=DEATHS {
        let more = refuse(&wall, death)?;
        refused.extend(more);
        let began = Instant::now();
        // The two that are there have them, as soon as ever.
        wait_for("alerts while another sink is away", SOON, || {
            let file = got(wall.agent.alerts()?)?;
            Ok(destinations(&file).len() == refused.len()
                && destinations(&sinks.log()?).len() == refused.len())
        })?;
        eprintln!("round {death}: after {:?}", began.elapsed());
        // Some now, so that it dies with alerts that are in its memory alone, or in the ring.
        refused.extend(refuse(&wall, DEATHS + death)?);
        wall.agent.kill()?;
        wall.agent.start(None)?;
        wait_for("what the dead agent did not tell", SOON, || {
            Ok(destinations(&got(wall.agent.alerts()?)?).len() == refused.len())
        })?;
    }
    let status = wall.agent.status()?;
    let waiting = status["sinks"].as_array().into_iter().flatten().find(|sink| sink["name"] == "web");
    let waiting = waiting.and_then(|sink| sink["waiting"].as_u64()).unwrap_or_default();
    ensure!(waiting >= u64::from(2 * DEATHS * REFUSALS), "{status:#}");
    sinks.web.resume()?;
    wait_for("the sink that was away", BACK_WITHIN, || {
        Ok(destinations(&sinks.web()?).len() == refused.len())
    })?;
    wait_for("all of it", SOON, || {
        let status = wall.agent.status()?;
        Ok(status["sinks"].as_array().into_iter().flatten().all(|sink| sink["waiting"] == 0))
    })?;

    let (file, web, log) = (got(wall.agent.alerts()?)?, sinks.web()?, sinks.log()?);
    for (name, got) in [("file", &file), ("web", &web), ("log", &log)] {
        let to: BTreeSet<&str> = refused.iter().map(String::as_str).collect();
        ensure!(destinations(got) == to, "{name}: {:?}", destinations(got));
        let wrong: Vec<_> = told(got).into_iter().filter(|(_, refusals)| *refusals != 1).collect();
        ensure!(wrong.is_empty(), "{name}: each was refused once, and told so often: {wrong:?}");
        let twice = got.values().filter(|(times, ..)| *times > 1).count();
        eprintln!("{name}: {} alerts, {twice} of them more than once", got.len());
    }
    let ids = |got: &Got| got.keys().cloned().collect::<BTreeSet<String>>();
    ensure!(ids(&file) == ids(&web) && ids(&file) == ids(&log), "the sinks have other alerts");
    let status = wall.agent.status()?;
    let lost = |sink: &Value| sink["lost"] != 0 || sink["rejected"] != 0;
    ensure!(!status["sinks"].as_array().into_iter().flatten().any(lost), "{status:#}");
    Ok(())
}
