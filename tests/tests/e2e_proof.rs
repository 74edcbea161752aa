//! The agent proves that its wall stands: it tries what is forbidden, notices what others do to the wall, mends it and
//! tells.

use std::fs;
use std::mem::offset_of;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use dnswall_common::image::{Active, Cell, ImageHeader, MODE_AUDIT};
use dnswall_tests::act::{address, tcp, udp};
use dnswall_tests::agent::Agent;
use dnswall_tests::lab::ReturnOne;
use dnswall_tests::place;
use dnswall_tests::tamper;
use dnswall_tests::wall::Wall;
use dnswall_tests::who::at;
use serde_json::Value;

const POLICY: &str = r#"
version = 1
mode = "enforce"
[dns]
resolvers = ["169.254.169.253"]
[[allow]]
name = "database"
to = ["10.0.3.0/24"]
ports = ["tcp/5432"]
from = [{ unit = "orders.service" }]
"#;

/// With an agent that tries often and looks often, in the network of its workloads.
fn raise(policy: &str) -> Result<Wall> {
    let mut wall = Wall::build()?;
    often(&wall)?;
    start(&mut wall, Some(policy))?;
    Ok(wall)
}

fn often(wall: &Wall) -> Result<()> {
    let config = fs::read_to_string(wall.agent.config_path())?;
    let config = config.replace("interval = \"1h\"", "interval = \"2s\"\nwatch = \"1s\"");
    ensure!(config.contains("2s"), "{config}");
    fs::write(wall.agent.config_path(), config).context("write agent.toml")
}

fn start(wall: &mut Wall, policy: Option<&str>) -> Result<()> {
    let Wall { network, agent, .. } = wall;
    Ok(network
        .near
        .run(|| agent.start(policy).map_err(|error| std::io::Error::other(format!("{error:#}"))))?)
}

/// Exit code and answer of `dnswall status`, whatever it says.
fn status(wall: &Wall) -> Result<(i32, Value)> {
    wall.agent.ask(&["status"])
}

/// Waits until `dnswall status` says what is wanted.
fn wait_for(wall: &Wall, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let (code, status) = status(wall)?;
        if wanted(&status) {
            let stands = status["tamper"]["standing"].as_array().is_some_and(Vec::is_empty)
                && status["proof"]["state"] != "failed";
            ensure!(!stands || code == 0, "exit code {code}: {status}");
            return Ok(status);
        }
        ensure!(Instant::now() < until, "status never said so: {status:#}\n{}", wall.agent.log());
        thread::sleep(Duration::from_millis(100));
    }
}

fn tampered(wall: &Wall, reason: &str, object: &str) -> Result<Value> {
    let is = |alert: &Value| {
        alert["kind"] == "tamper" && alert["reason"] == reason && alert["tamper"]["object"] == object
    };
    let until = Instant::now() + Duration::from_secs(60);
    while !wall.agent.alerts()?.iter().any(is) && Instant::now() < until {
        thread::sleep(Duration::from_millis(100));
    }
    let alert = wall.agent.wait_for_alert(0, is)?;
    ensure!(alert["verdict"].is_null() && alert["flow"].is_null() && alert["count"] == 1, "{alert}");
    ensure!(alert["workload"]["cgroup"] == wall.tree.path(), "{alert}");
    Ok(alert)
}

fn outcomes(status: &Value) -> Vec<&str> {
    let attempts = status["proof"]["attempts"].as_array().into_iter().flatten();
    attempts.filter_map(|attempt| attempt["outcome"].as_str()).collect()
}

fn to_documentation(wall: &Wall) -> Result<Vec<Value>> {
    let goes_there = |alert: &Value| {
        let to = alert["flow"]["destination"].as_str().unwrap_or_default();
        to.ends_with(".119") || to.ends_with("::77")
    };
    Ok(wall.agent.alerts()?.into_iter().filter(goes_there).collect())
}

/// The canary's packets that came out at the far side.
fn arrived(wall: &Wall, since: usize) -> usize {
    let places = ["192.0.2.119:9", "[2001:db8:77::77]:9"].map(address);
    places
        .iter()
        .flat_map(|to| [6, 17].map(|protocol| wall.capture.to_port(since, protocol, *to).len()))
        .sum()
}

#[test]
fn what_is_forbidden_is_tried_refused_and_told() -> Result<()> {
    let wall = raise(POLICY)?;
    // The first try is over before anybody is told that the agent is ready.
    let (code, first) = status(&wall)?;
    ensure!(code == 0 && first["proof"]["state"] == "proven", "{code}: {first:#}");
    ensure!(outcomes(&first) == ["refused"; 4], "{first:#}");
    ensure!(first["proof"]["attempts"][0]["to"] == "192.0.2.119:9", "{first:#}");
    ensure!(
        first["proof"]["attempts"]
            .as_array()
            .is_some_and(|all| all.iter().all(|one| one["latency_us"].is_u64()))
    );
    ensure!(all_attached(&first), "{first:#}");
    let third = wait_for(&wall, |status| status["proof"]["runs"].as_u64() >= Some(3))?;
    ensure!(third["proof"]["failures"] == 0 && third["tamper"]["count"] == 0, "{third:#}");
    // What the canary does is counted, and nobody's alert.
    let (_, status) = status(&wall)?;
    ensure!(status["counters"]["refusals-of-the-proof"].as_u64() >= Some(8), "{}", status["counters"]);
    ensure!(status["counters"]["refusals-observed"] == 0, "{}", status["counters"]);
    ensure!(wall.agent.alerts()?.is_empty(), "{:?}", wall.agent.alerts()?);
    wall.capture.mark()?;
    ensure!(arrived(&wall, 0) == 0, "the canary got out");
    Ok(())
}

#[test]
fn whoever_goes_where_the_canary_goes_is_told_all_the_same() -> Result<()> {
    let wall = raise(POLICY)?;
    let (_, process) = wall.attempt(&at("app.service"), udp("192.0.2.119:9"))?;
    let alert = wall.agent.wait_for_alert(0, |alert| alert["process"]["pid"] == process.pid())?;
    ensure!(alert["kind"] == "egress.denied" && alert["flow"]["destination"] == "192.0.2.119", "{alert}");
    ensure!(to_documentation(&wall)?.len() == 1, "{:?}", to_documentation(&wall)?);
    Ok(())
}

#[test]
fn in_audit_mode_it_is_let_through_and_told() -> Result<()> {
    let wall = raise(&POLICY.replace("enforce", "audit"))?;
    let status = wait_for(&wall, |status| status["proof"]["runs"].as_u64() >= Some(2))?;
    ensure!(status["proof"]["state"] == "proven" && outcomes(&status) == ["reported"; 4], "{status:#}");
    ensure!(wall.agent.alerts()?.is_empty(), "{:?}", wall.agent.alerts()?);
    wall.capture.mark()?;
    ensure!(arrived(&wall, 0) > 0, "audit let nothing through");
    Ok(())
}

#[test]
fn a_policy_that_allows_everything_leaves_nothing_to_prove() -> Result<()> {
    let open = r#"
version = 1
mode = "enforce"
[dns]
encrypted = "allow"
[[dns.recursor]]
from = [{ user = "root" }]
to = ["any"]
[[allow]]
name = "everything"
to = ["any"]
"#;
    let wall = raise(open)?;
    let (code, said) = status(&wall)?;
    ensure!(code == 0 && said["proof"]["state"] == "nothing-forbidden", "{code}: {said:#}");
    ensure!(wall.agent.apply(POLICY)?.code == 0);
    wait_for(&wall, |status| status["proof"]["state"] == "proven")?;
    Ok(())
}

#[test]
fn an_agent_behind_its_own_wall_tries_by_itself() -> Result<()> {
    let mut wall = Wall::build()?;
    often(&wall)?;
    let home = wall.tree.child("dnswall.service")?;
    wall.agent.start_behind(home);
    start(&mut wall, Some(POLICY))?;
    let (code, said) = status(&wall)?;
    ensure!(code == 0 && outcomes(&said) == ["refused"; 4], "{code}: {said:#}");
    // Moved out of its cgroup it says so, and goes on from without.
    let pid = wall.agent.pid().context("it runs")?;
    fs::write(wall.tree.child("elsewhere.service")?.join("cgroup.procs"), pid.to_string())?;
    let alert = tampered(&wall, "agent-moved", "agent")?;
    ensure!(alert["tamper"]["found"].to_string().contains("elsewhere.service"), "{alert}");
    let runs = status(&wall)?.1["proof"]["runs"].as_u64();
    let later = wait_for(&wall, |status| status["proof"]["runs"].as_u64() > runs)?;
    ensure!(outcomes(&later) == ["refused"; 4] && to_documentation(&wall)?.is_empty(), "{later:#}");
    Ok(())
}

#[test]
fn a_foreign_detach_is_mended_and_told() -> Result<()> {
    let wall = raise(POLICY)?;
    let before = status(&wall)?.1;
    for program in ["dw_egress", "dw_connect4"] {
        let link = tamper::open(&tamper::link(wall.agent.pins(), program))?;
        tamper::detach(&link)?;
        let alert = tampered(&wall, "link-detached", program)?;
        ensure!(alert["tamper"]["mended"] == true, "{alert}");
        ensure!(alert["policy"]["digest"] == before["policy"]["digest"], "{alert}");
    }
    let after = wait_for(&wall, all_attached)?;
    ensure!(after["tamper"]["count"].as_u64() >= Some(2), "{after:#}");
    ensure!(ids(&after, "dw_egress") != ids(&before, "dw_egress"), "{after:#}");
    ensure!(wall.run(&at("app.service"), udp("10.0.4.7:99"))?.is_refused());
    ensure!(wall.run(&at("app.service"), tcp("10.0.4.7:99"))?.is_refused());
    Ok(())
}

#[test]
fn a_replaced_program_is_put_back_and_told() -> Result<()> {
    let wall = raise(POLICY)?;
    let before = status(&wall)?.1;
    let open = ReturnOne::load()?;
    open.put_into(&tamper::open(&tamper::link(wall.agent.pins(), "dw_egress"))?)?;
    let alert = tampered(&wall, "program-replaced", "dw_egress")?;
    ensure!(alert["tamper"]["mended"] == true, "{alert}");
    ensure!(alert["tamper"]["found"].to_string().contains(&open.id()?.to_string()), "{alert}");
    let after = status(&wall)?.1;
    ensure!(ids(&after, "dw_egress").0 == ids(&before, "dw_egress").0, "the link is still the same");
    ensure!(ids(&after, "dw_egress").1 != u64::from(open.id()?), "{after:#}");
    ensure!(wall.run(&at("app.service"), udp("10.0.4.7:99"))?.is_refused());
    Ok(())
}

#[test]
fn a_program_that_was_replaced_while_no_agent_ran_is_put_back_by_the_next() -> Result<()> {
    let mut wall = raise(POLICY)?;
    wall.agent.kill()?;
    let open = ReturnOne::load()?;
    open.put_into(&tamper::open(&tamper::link(wall.agent.pins(), "dw_egress"))?)?;
    wall.echo(&[].into(), &[address("10.0.4.7:99")].into())?;
    ensure!(wall.run(&at("app.service"), udp("10.0.4.7:99"))?.ok, "the hole is there");
    start(&mut wall, None)?;
    ensure!(wall.run(&at("app.service"), udp("10.0.4.7:99"))?.is_refused());
    // Not known to be tampering: a take-over that died in the middle looks the same.
    ensure!(wall.agent.log().contains("its programs replaced by this version's"), "{}", wall.agent.log());
    Ok(())
}

#[test]
fn an_edited_map_is_written_again_and_told() -> Result<()> {
    let wall = raise(POLICY)?;
    let before = status(&wall)?.1;
    let pins = wall.agent.pins();
    let slot = |wall: &Wall| -> Result<u32> {
        let generation = status(wall)?.1["policy"]["generation"].as_u64().context("a generation")?;
        Ok((generation as u32 + 1) % 2)
    };
    // From enforcing to audit, in the image that counts.
    let audit = |value: &mut [u8]| value[offset_of!(ImageHeader, mode)] = MODE_AUDIT;
    tamper::edit(&tamper::map(pins, "HEADERS"), slot(&wall)?, size_of::<ImageHeader>(), audit)?;
    let alert = tampered(&wall, "map-edited", "HEADERS")?;
    ensure!(alert["tamper"]["mended"] == true, "{alert}");
    let after = wait_for(&wall, |status| status["mode"] == "enforce")?;
    ensure!(after["policy"]["generation"] != before["policy"]["generation"], "{after:#}");
    ensure!(after["policy"]["digest"] == before["policy"]["digest"], "{after:#}");
    // Nothing counts any more.
    let nothing = |value: &mut [u8]| value.fill(0);
    tamper::edit(&tamper::map(pins, "ACTIVE"), 0u32, size_of::<Active>(), nothing)?;
    let until = Instant::now() + Duration::from_secs(60);
    while status(&wall)?.1["tamper"]["count"].as_u64() < Some(2) && Instant::now() < until {
        thread::sleep(Duration::from_millis(100));
    }
    let next = wait_for(&wall, |status| status["mode"] == "enforce")?;
    let generation = |status: &Value| status["policy"]["generation"].as_u64();
    ensure!(generation(&next) > generation(&after), "a number was given twice: {next:#}");
    // A cell that leads elsewhere.
    let first = slot(&wall)? * dnswall_common::limits::CELLS_MAX as u32;
    let other = |value: &mut [u8]| value[offset_of!(Cell, count)] ^= 1;
    tamper::edit(&tamper::map(pins, "CELLS"), first, size_of::<Cell>(), other)?;
    tampered(&wall, "map-edited", "CELLS")?;
    ensure!(wall.run(&at("app.service"), udp("10.0.4.7:99"))?.is_refused());
    wait_for(&wall, |status| status["tamper"]["standing"].as_array().is_some_and(Vec::is_empty))?;
    Ok(())
}

#[test]
fn removed_pins_are_pinned_again_and_told() -> Result<()> {
    let mut wall = raise(POLICY)?;
    let before = status(&wall)?.1;
    fs::remove_file(tamper::link(wall.agent.pins(), "dw_egress"))?;
    tampered(&wall, "pin-lost", "dw_egress")?;
    fs::remove_dir_all(wall.agent.pins())?;
    tampered(&wall, "pin-lost", "dw_connect4")?;
    tampered(&wall, "pin-lost", "REPLIES")?;
    let after = status(&wall)?.1;
    ensure!(ids(&after, "dw_egress") == ids(&before, "dw_egress"), "nothing was attached anew: {after:#}");
    // Nobody else takes the directory that was made anew.
    let directory = wall.scratch("second");
    fs::create_dir(&directory)?;
    let mut second = Agent::prepare(&directory, wall.tree.directory())?;
    ensure!(second.start(Some(POLICY)).is_err(), "two agents for one wall");
    std::mem::forget(second);
    // It outlives the agent again, and the next one takes it over.
    wall.agent.kill()?;
    ensure!(wall.run(&at("app.service"), udp("10.0.4.7:99"))?.is_refused());
    start(&mut wall, None)?;
    // The same link; its program is put in anew, because the pins of the programs are gone with the others.
    ensure!(ids(&status(&wall)?.1, "dw_egress").0 == ids(&before, "dw_egress").0);
    Ok(())
}

#[test]
fn what_others_attach_is_noted_and_no_alert() -> Result<()> {
    let wall = raise(POLICY)?;
    let other = ReturnOne::load()?;
    let _link = other.attach(wall.tree.directory())?;
    let status = wait_for(&wall, |status| {
        let hooks = status["hooks"].as_array().into_iter().flatten();
        hooks.filter(|hook| hook["name"] == "dw_egress").any(|hook| hook["after"][0].is_string())
    })?;
    let runs = status["proof"]["runs"].as_u64();
    wait_for(&wall, |status| status["proof"]["runs"].as_u64() > runs)?;
    ensure!(wall.agent.alerts()?.is_empty(), "{:?}", wall.agent.alerts()?);
    Ok(())
}

#[test]
fn a_wall_that_lets_the_canary_through_is_no_wall_to_start_with() -> Result<()> {
    let mut wall = Wall::build()?;
    often(&wall)?;
    // What the host takes for its own never leaves it, and the wall never sees it: no other way to a hole was found.
    for network in ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"] {
        let local = ["route", "add", "local", network, "dev", "lo", "src", "10.77.0.2"];
        wall.network.near.run(|| {
            let done = Command::new("ip").args(local).status()?;
            if done.success() { Ok(()) } else { Err(std::io::Error::other("ip route")) }
        })?;
    }
    let error = start(&mut wall, Some(POLICY)).err().context("it started")?;
    let said = format!("{error:#}");
    ensure!(said.contains("exit status: 4") && said.contains("does not hold"), "{said}");
    ensure!(said.contains("udp to 192.0.2.119:9 was let through"), "{said}");
    ensure!(wall.run(&at("app.service"), udp("10.0.4.7:99"))?.is_refused(), "the wall stands as it was left");
    // Told otherwise it runs, and says what it is worth.
    let config = fs::read_to_string(wall.agent.config_path())?;
    fs::write(wall.agent.config_path(), config.replace("[proof]", "[proof]\nat-start = \"report\""))?;
    let Wall { network, agent, .. } = &mut wall;
    // The harness waits for a status that is well.
    network.near.run(|| {
        let started = agent.start_unproven(Some(POLICY));
        started.map_err(|error| std::io::Error::other(format!("{error:#}")))
    })?;
    let (code, said) = status(&wall)?;
    ensure!(code == 1 && said["proof"]["state"] == "failed", "{code}: {said:#}");
    ensure!(
        said["tamper"]["standing"][0].as_str().is_some_and(|words| words.starts_with("not-refused")),
        "{said:#}"
    );
    let alert = tampered(&wall, "not-refused", "canary")?;
    ensure!(alert["tamper"]["mended"] == false, "{alert}");
    Ok(())
}

#[test]
fn in_a_cgroup_namespace_that_hides_the_hierarchy_it_does_not_start() -> Result<()> {
    let wall = Wall::build()?;
    let home = wall.tree.child("container.slice")?;
    let mount = dnswall_agent::demo::cgroup::mount()?;
    let path = |name: &str| wall.scratch(name).to_string_lossy().into_owned();
    // As in a container: a namespace of its own, in which the mount calls itself the root and is not.
    let script = format!(
        "echo 0 > {home}/cgroup.procs && exec {unshare} --cgroup --mount sh -c 'umount -l {mount} && mount -t cgroup2 none {mount} && \
         grep -q \"/ {mount} .* - cgroup2\" /proc/self/mountinfo && exec \"$0\" \"$@\"' \"$0\" \"$@\"",
        // By its path: busybox's shell knows one of its own, which cannot.
        unshare = place::on_path("unshare")?.display(),
        home = home.display(),
        mount = mount.display()
    );
    let said = Command::new("sh")
        .args(["-c", &script])
        .arg(place::dnswall()?)
        .args(["agent", "run", "--pins"])
        .arg(wall.agent.pins())
        .args(["--state", &path("state"), "--socket", &path("control.sock"), "--config", &path("agent.toml")])
        .output()
        .context("run the agent in a namespace")?;
    let errors = String::from_utf8_lossy(&said.stderr);
    ensure!(said.status.code() == Some(4), "{:?}: {errors}", said.status);
    ensure!(errors.contains("hierarchy"), "{errors}");
    ensure!(!wall.agent.pins().exists() || wall.agent.pins().read_dir()?.next().is_none(), "pins are left");
    Ok(())
}

fn all_attached(status: &Value) -> bool {
    let hooks = status["hooks"].as_array();
    hooks.is_some_and(|hooks| {
        hooks.iter().all(|hook| hook["state"] == "attached" || hook["state"] == "not-available")
    })
}

/// Link and program of a hook.
fn ids(status: &Value, program: &str) -> (u64, u64) {
    let hooks = status["hooks"].as_array().into_iter().flatten();
    let id = |hook: &Value, name: &str| hook[name].as_u64().unwrap_or_default();
    hooks
        .filter(|hook| hook["name"] == program)
        .map(|hook| (id(hook, "link_id"), id(hook, "program_id")))
        .next()
        .unwrap_or_default()
}
