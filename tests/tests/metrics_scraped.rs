//! Metrics as a real Prometheus reads them from a real agent, the rules and the dashboard that are made of them, and health.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dnswall_common::image::Active;
use dnswall_tests::act::{MessageBy, address, dns, tcp, udp};
use dnswall_tests::ask::{asked, message, wire};
use dnswall_tests::authority::Authority;
use dnswall_tests::list_server::{ListServer, Shown};
use dnswall_tests::pace::within;
use dnswall_tests::prometheus::{Prometheus, ask, free_address, get, promtool, wait_for};
use dnswall_tests::resolver::RESOLVER;
use dnswall_tests::tamper;
use dnswall_tests::wall::Wall;
use dnswall_tests::who::at;
use serde_json::{Value, json};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// What must not be on the page.
const SECRET: &str = "sesame";

fn deploy() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn configure(wall: &Wall, more: &str) -> Result<()> {
    let config = fs::read_to_string(wall.agent.config_path())?;
    fs::write(wall.agent.config_path(), config + more).context("write agent.toml")
}

fn policy(list: &str) -> String {
    format!(
        "version = 1\nmode = \"enforce\"\n[dns]\nresolvers = [\"169.254.169.253\"]\nevents = \"all\"\n\
         [[allow]]\nname = \"database\"\nto = [\"10.0.3.0/24\"]\nports = [\"tcp/5432\"]\n\
         [[blocklist]]\nname = \"bad\"\nsource = {list:?}\nrefresh = \"1h\"\nmin-entries = 1\n"
    )
}

/// Every metric that a text names: of expressions, and of a page.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("dnswall_") || word.starts_with("process_")).collect()
}

fn families(page: &str) -> BTreeSet<&str> {
    page.lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| names(line).into_iter().take(1))
        .collect()
}

/// The dashboard's panels: title and expressions, each as Grafana would ask it for all hosts.
fn panels(dashboard: &Value) -> Result<Vec<(String, Vec<String>)>> {
    let panels = dashboard["panels"].as_array().context("panels")?;
    let drawn = panels.iter().filter(|panel| panel["type"] != "row");
    drawn
        .map(|panel| {
            let title = panel["title"].as_str().context("a title")?.to_owned();
            let targets = panel["targets"].as_array().context("targets")?;
            let expressions = targets.iter().map(|target| {
                let expression =
                    target["expr"].as_str().with_context(|| format!("{title}: an expression"))?;
                let asked =
                    [("$__rate_interval", "30s"), ("$__range", "30s"), ("$job", ".*"), ("$instance", ".*")];
                Ok(asked
                    .iter()
                    .fold(expression.to_owned(), |text, (variable, value)| text.replace(variable, value)))
            });
            Ok((title.clone(), expressions.collect::<Result<_>>()?))
        })
        .collect()
}

#[test]
fn a_real_prometheus_reads_a_real_agent() -> Result<()> {
    let mut wall = Wall::prepare()?;
    let ca = Authority::make(&wall.scratch(""))?;
    let mut server = ListServer::start(wall.probe(), wall.scratch("lists"), &ca, None, HERE, Shown::Good)?;
    server.serve("listed.example\n", &json!({}))?;
    let target = free_address()?;
    configure(
        &wall,
        &format!("[lists]\nca = {:?}\ntimeout = \"3s\"\n[metrics]\naddress = \"{target}\"\n", ca.pem()),
    )?;
    // One test of the alerts' way, at the start: it has metrics, too.
    let config = fs::read_to_string(wall.agent.config_path())?;
    fs::write(wall.agent.config_path(), config.replace("enabled = false", "interval = \"1h\""))?;
    wall.echo(&[address("10.0.3.7:5432")].into(), &[].into())?;
    wall.agent.start(Some(&policy(&server.url(&format!("/list.txt?token={SECRET}")))))?;

    // promtool's lint finds nothing, and every counter of the agent's has a metric.
    let page = wait_for(target, "/metrics", |code, _| code == 200)?;
    let said = promtool(&deploy(), &["check", "metrics"], &page)?;
    ensure!(said.is_empty(), "{said}");
    ensure!(!page.contains("dnswall_unlisted"), "a counter has no metric: {page}");
    ensure!(!page.contains(SECRET), "{page}");
    let (head, open) = ask(target, "/metrics", "accept: application/openmetrics-text; version=1.0.0\r\n")?;
    ensure!(head.contains("application/openmetrics-text") && open.ends_with("# EOF\n"), "{head}");

    let rules = deploy().join("prometheus/dnswall.rules.yml");
    let rules_text = fs::read_to_string(&rules)?;
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(deploy().join("grafana/dnswall.json"))?)?;
    let panels = panels(&dashboard)?;

    let prometheus = Prometheus::start(&wall.scratch("prometheus"), target, &rules)?;
    prometheus.wait_for("up{job=\"dnswall\"}", |up| up == 1.0)?;
    // So that there is something before it that it can grow from.
    prometheus.wait_for("count_over_time(dnswall_wall_stands[30s])", |scrapes| scrapes >= 2.0)?;
    let app = at("app.service");
    for _ in 0..5 {
        ensure!(wall.run(&app, tcp("10.0.3.7:5432"))?.ok && wall.run(&app, dns(RESOLVER))?.ok);
        ensure!(
            wall.run(&app, udp("10.0.4.7:99"))?.is_refused()
                && wall.run(&app, tcp("10.0.3.7:80"))?.is_refused()
        );
        ensure!(
            wall.run(&app, asked(&message(&wire("listed.example"), 1, &[]), MessageBy::Datagram))?
                .is_refused()
        );
    }
    let status = wall.agent.status()?;
    let counted = |list: &str, name: &str, key: &str| {
        let all = status[list].as_array().into_iter().flatten();
        all.filter(|one| one["name"] == name).filter_map(|one| one[key].as_f64()).sum::<f64>()
    };
    for (expression, list, name, key, least) in [
        (
            "dnswall_rule_refusals_total{rule=\"default\",verdict=\"denied\"}",
            "rules",
            "default",
            "denied",
            10.0,
        ),
        (
            "dnswall_rule_refusals_total{rule=\"blocklist\",verdict=\"denied\"}",
            "rules",
            "blocklist",
            "denied",
            5.0,
        ),
        (
            "dnswall_rule_allowed_flows_total{rule=\"allow.database\"}",
            "rules",
            "allow.database",
            "allowed",
            5.0,
        ),
        (
            "dnswall_refusals_total{reason=\"no-rule\",verdict=\"denied\"}",
            "reasons",
            "no-rule",
            "denied",
            10.0,
        ),
        (
            "dnswall_refusals_total{reason=\"listed-name\",verdict=\"denied\"}",
            "reasons",
            "listed-name",
            "denied",
            5.0,
        ),
    ] {
        let wanted = counted(list, name, key);
        ensure!(wanted >= least, "{name}: {wanted} in {status}");
        prometheus.wait_for(expression, |value| value == wanted)?;
    }
    prometheus.wait_for("sum(dnswall_sink_alerts_written_total)", |written| written >= 1.0)?;

    // Whoever renames a metric finds it in the rules and the dashboard too. Some begin with the first alert.
    let page = wait_for(target, "/metrics", |code, page| {
        let needed = ["last_success_timestamp_seconds{", "dnswall_selftest_arrived_timestamp_seconds"];
        code == 200 && needed.iter().all(|name| page.contains(name))
    })?;
    let expressions = panels.iter().flat_map(|(_, expressions)| expressions).map(String::as_str);
    let on_page = families(&page);
    for text in expressions.chain([rules_text.as_str()]) {
        let unknown: Vec<&str> = names(text).difference(&on_page).copied().collect();
        ensure!(unknown.is_empty(), "no such metric: {unknown:?} in {text}");
    }

    prometheus.wait_for("time() - dnswall_proof_last_proven_timestamp_seconds", |age| {
        (0.0..300.0).contains(&age)
    })?;
    let digest = status["policy"]["digest"].as_str().context("a digest")?;
    prometheus.wait_for(&format!("dnswall_policy_info{{digest=\"{digest}\"}}"), |one| one == 1.0)?;
    prometheus.wait_for("dnswall_policy_mode{mode=\"enforce\"}", |one| one == 1.0)?;
    prometheus.wait_for("dnswall_blocklist_entries{list=\"bad\"}", |entries| entries == 1.0)?;
    let pid = wall.agent.pid().context("it runs")?;
    let started = fs::metadata(format!("/proc/{pid}"))?
        .created()
        .or_else(|_| fs::metadata(format!("/proc/{pid}"))?.modified())?;
    let started = started.duration_since(std::time::UNIX_EPOCH)?.as_secs_f64();
    prometheus.wait_for("process_start_time_seconds", |time| (time - started).abs() < 60.0)?;

    // Everything that the dashboard asks has an answer.
    for (title, expressions) in &panels {
        for expression in expressions {
            let answer = prometheus.query(expression).with_context(|| format!("panel {title}"))?;
            ensure!(!answer.is_empty(), "panel {title} is empty: {expression}");
        }
    }
    // And of a host that is well no rule says anything but that it is there.
    let firing = prometheus.query("ALERTS")?;
    ensure!(firing.len() == 1 && firing[0].0["alertname"] == "DnswallWatchdog", "{firing:?}");
    server.stop();

    wall.agent.kill()?;
    prometheus.wait_for("up{job=\"dnswall\"}", |up| up == 0.0)?;
    prometheus
        .wait_for("count(ALERTS{alertname=\"DnswallAgentDown\",alertstate=\"pending\"})", |one| one == 1.0)?;
    Ok(())
}

/// The value of a key, where a line of YAML has it.
fn value<'l>(line: &'l str, key: &str) -> Option<&'l str> {
    line.trim_start_matches([' ', '-']).strip_prefix(key)?.strip_prefix(':').map(str::trim)
}

#[test]
fn every_rule_fires_when_it_should_and_only_then() -> Result<()> {
    let directory = deploy().join("prometheus");
    promtool(&directory, &["check", "rules", "dnswall.rules.yml"], "")?;
    promtool(&directory, &["test", "rules", "dnswall.rules.test.yml"], "")?;
    let text = |name| fs::read_to_string(directory.join(name)).with_context(|| format!("read {name}"));
    let (rules, tests) = (text("dnswall.rules.yml")?, text("dnswall.rules.test.yml")?);
    let meaning = fs::read_to_string(deploy().join("../docs/monitoring.md"))?;
    let mut cases: BTreeSet<(&str, bool)> = BTreeSet::new();
    let mut alert = "";
    for line in tests.lines() {
        if let Some(name) = value(line, "alertname") {
            alert = name;
        } else if let Some(expected) = value(line, "exp_alerts") {
            cases.insert((alert, expected != "[]"));
        }
    }
    for name in rules.lines().filter_map(|line| value(line, "alert")) {
        ensure!(cases.contains(&(name, true)), "{name} is not seen firing");
        ensure!(cases.contains(&(name, false)) || name == "DnswallWatchdog", "{name} is not seen silent");
        ensure!(
            meaning.contains(&format!("### {name}\n")),
            "docs/monitoring.md does not say what {name} means"
        );
    }
    Ok(())
}

#[test]
fn the_dashboard_can_be_imported() -> Result<()> {
    let dashboard: Value = serde_json::from_str(&fs::read_to_string(deploy().join("grafana/dnswall.json"))?)?;
    let variables = dashboard["templating"]["list"].as_array().context("variables")?;
    let is_source = |variable: &Value| variable["type"] == "datasource" && variable["name"] == "datasource";
    ensure!(variables.iter().any(is_source) && dashboard["uid"] == "dnswall", "{variables:?}");
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().context("panels")? {
        ensure!(
            ids.insert(panel["id"].as_u64().context("an id")?),
            "{}: its id is another's",
            panel["title"]
        );
        ensure!(
            panel["type"] == "row" || panel["datasource"]["uid"] == "${datasource}",
            "{}",
            panel["title"]
        );
        for target in panel["targets"].as_array().into_iter().flatten() {
            ensure!(target["datasource"]["uid"] == "${datasource}", "{}", panel["title"]);
        }
    }
    let titles = ["Drops", "Top offenders", "DNS", "Delivery", "Policy and lists", "Proof"];
    let rows: Vec<&Value> =
        dashboard["panels"].as_array().into_iter().flatten().filter(|it| it["type"] == "row").collect();
    ensure!(titles.iter().all(|title| rows.iter().any(|row| row["title"] == *title)), "{rows:?}");
    ensure!(panels(&dashboard)?.len() > 20);
    Ok(())
}

/// An apply holds what a look at the agent needs, here for as long as a long list takes.
#[test]
fn an_apply_keeps_no_scraper_waiting() -> Result<()> {
    let mut wall = Wall::prepare()?;
    let target = free_address()?;
    configure(&wall, &format!("[metrics]\naddress = \"{target}\"\n"))?;
    let policy = "version = 1\nmode = \"enforce\"\n[dns]\nresolvers = [\"169.254.169.253\"]\n";
    wall.agent.start(Some(policy))?;
    ensure!(wait_for(target, "/metrics", |code, _| code == 200)?.contains("dnswall_blocklists_entries 0\n"));
    let list = wall.scratch("long.txt");
    let names: String = (0..LONG).map(|number| format!("n{number}.example\n")).collect();
    fs::write(&list, names)?;
    let long = format!("{policy}[[blocklist]]\nname = \"long\"\nsource = {list:?}\n");

    let (agent, mut slowest, mut before) = (&wall.agent, Duration::ZERO, 0);
    thread::scope(|scope| -> Result<()> {
        let applied = scope.spawn(|| agent.apply(&long));
        while !applied.is_finished() {
            let began = Instant::now();
            let (code, page) = get(target, "/metrics")?;
            slowest = slowest.max(began.elapsed());
            ensure!(code == 200 && get(target, "/healthz")?.0 == 200, "{code}: {page}");
            before += usize::from(page.contains("dnswall_blocklists_entries 0\n"));
            thread::sleep(Duration::from_millis(50));
        }
        let applied = applied.join().ok().context("apply")??;
        ensure!(applied.code == 0, "{applied:?}");
        Ok(())
    })?;
    ensure!(
        before > 0 && slowest < within(Duration::from_secs(5)),
        "{before} pages, the slowest in {slowest:?}"
    );
    println!("{before} pages meanwhile, the slowest in {slowest:?}");
    wait_for(target, "/metrics", |_, page| page.contains(&format!("dnswall_blocklists_entries {LONG}\n")))?;
    Ok(())
}

/// Names whose table takes some seconds to make.
const LONG: usize = 300_000;

#[test]
fn readiness_says_what_is_wrong() -> Result<()> {
    let mut wall = Wall::prepare()?;
    let target = free_address()?;
    configure(&wall, &format!("[metrics]\naddress = \"{target}\"\n"))?;
    // Nobody mends it while it is looked at.
    let config = fs::read_to_string(wall.agent.config_path())?;
    fs::write(wall.agent.config_path(), config.replace("[proof]\n", "[proof]\nwatch = \"1h\"\n"))?;
    let policy = "version = 1\nmode = \"enforce\"\n[dns]\nresolvers = [\"169.254.169.253\"]\n";

    // Whoever has its port first keeps nobody from starting, and is told of.
    let taken = TcpListener::bind(target).context("take the port")?;
    wall.agent.start(Some(policy))?;
    let warnings = wall.agent.status()?["warnings"].to_string();
    ensure!(warnings.contains(&format!("metrics are not served at {target}")), "{warnings}");
    drop(taken);
    ensure!(wait_for(target, "/readyz", |code, _| code == 200)? == "wall: ok\npolicy: ok\nreader: ok\n");
    ensure!(!wall.agent.status()?["warnings"].to_string().contains("metrics are not served"));
    ensure!(get(target, "/healthz")? == (200, "ok\n".to_owned()));

    let map = tamper::map(wall.agent.pins(), "ACTIVE");
    let mut before = Vec::new();
    tamper::edit(&map, 0u32, size_of::<Active>(), |value: &mut [u8]| {
        before = value.to_vec();
        value.fill(0);
    })?;
    let said = wait_for(target, "/readyz", |code, _| code == 503)?;
    ensure!(said == "wall: ok\npolicy: the kernel has none\nreader: ok\n", "{said}");
    tamper::edit(&map, 0u32, size_of::<Active>(), |value: &mut [u8]| value.copy_from_slice(&before))?;
    wait_for(target, "/readyz", |code, _| code == 200)?;

    tamper::detach(&tamper::open(&tamper::link(wall.agent.pins(), "dw_egress"))?)?;
    let said = wait_for(target, "/readyz", |code, _| code == 503)?;
    ensure!(said == "wall: hook dw_egress is gone\npolicy: ok\nreader: ok\n", "{said}");
    let page = get(target, "/metrics")?.1;
    ensure!(page.contains("\ndnswall_wall_stands 0\n"), "{page}");
    ensure!(page.contains("\ndnswall_hook_state{hook=\"dw_egress\",state=\"gone\"} 1\n"), "{page}");
    ensure!(get(target, "/healthz")?.0 == 200, "the process is well");

    wall.agent.kill()?;
    ensure!(get(target, "/healthz").is_err(), "it is gone");
    Ok(())
}
