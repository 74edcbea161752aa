//! Another build takes a wall over, of the same layouts or of others; it may fail or die at any step, and none is seen by
//! the traffic.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use aya::maps::MapData;
use aya::programs::links::{FdLink, PinnedLink};
use dnswall_agent::demo::network::NEAR_V4;
use dnswall_common::{ABI_VERSION, TRIAL_ABI_OFFSET};
use dnswall_tests::act::{Act, Errand, ErrandBy, address, tcp};
use dnswall_tests::lab::ReturnOne;
use dnswall_tests::pace::{flood_pause_us, times};
use dnswall_tests::place::{self, Trial};
use dnswall_tests::process::Process;
use dnswall_tests::wall::Wall;
use dnswall_tests::who::{Exe, Who, at};

const POLICY: &str = r#"
version = 1
mode = "enforce"
[[allow]]
name = "database"
to = ["10.0.3.0/24"]
ports = ["tcp/5432", "udp/5432"]
from = [{ unit = "orders.service", exe = "{copies}/worker" }]
"#;

#[test]
fn a_take_over_that_fails_at_any_step_leaves_the_wall_as_it_was() -> Result<()> {
    let steps = every_step(Trial::Build, "fail")?;
    ensure!(steps >= 10, "only {steps} steps were tried");
    Ok(())
}

#[test]
fn a_take_over_that_dies_at_any_step_is_finished_by_whoever_comes_next() -> Result<()> {
    let steps = every_step(Trial::Build, "die")?;
    ensure!(steps >= 10, "only {steps} steps were tried");
    Ok(())
}

#[test]
fn a_crossing_that_fails_at_any_step_leaves_the_wall_as_it_was() -> Result<()> {
    let steps = every_step(Trial::Abi, "fail")?;
    ensure!(steps >= 14, "only {steps} steps were tried");
    Ok(())
}

#[test]
fn a_crossing_that_dies_at_any_step_is_finished_by_whoever_comes_next() -> Result<()> {
    let steps = every_step(Trial::Abi, "die")?;
    ensure!(steps >= 14, "only {steps} steps were tried");
    Ok(())
}

/// Lets the build's start fail or die at one step after another until it gets through; gives how many there are. Every
/// third one (every sixth on a slow machine), unless `DNSWALL_EVERY_STEP` is set: each takes three starts. Traffic goes on
/// all the while.
fn every_step(build: Trial, fault: &str) -> Result<u64> {
    let mut wall = raise()?;
    let ordinary = place::dnswall()?;
    let flood = flood(&wall)?;
    let stride = if std::env::var_os("DNSWALL_EVERY_STEP").is_some() { 1 } else { times(3, 6) };
    let mut step = 0;
    loop {
        step += if step == 0 { 1 } else { stride };
        ensure!(step < STEPS_MAX, "the steps do not end");
        let before = attached(&wall)?;
        wall.agent.kill()?;
        wall.agent.use_build(place::trial(build)?);
        wall.agent.use_fault(Some(format!("{fault}@{step}")));
        let started = wall.agent.start(None);
        wall.agent.use_fault(None);
        if started.is_ok() {
            break;
        }
        let said = format!("{:#}", started.err().context("it started")?);
        ensure!(said.contains(&format!("step {step} (")), "it ended of something else: {said}");
        // The last step but takes down the wall before: a failure of that leaves both.
        if fault == "fail" && !said.contains("(the wall before)") && !said.contains("(the build's name)") {
            let after = attached(&wall)?;
            ensure!(after == before, "step {step}: {before:?} became {after:?}\n{said}");
        }
        answers(&wall).with_context(|| format!("after step {step}, without an agent"))?;
        // The next one to come is the ordinary build, or this one once more.
        let next = if step % 2 == 0 { place::trial(build)? } else { ordinary.clone() };
        wall.agent.use_build(next);
        wall.agent.start(None).with_context(|| format!("the next start after step {step}"))?;
        answers(&wall).with_context(|| format!("after step {step}, with the next agent"))?;
        let walls = attached(&wall)?;
        ensure!(walls.len() == 1, "after step {step} there are {} walls", walls.len());
        if step % 2 == 0 {
            wall.agent.use_build(ordinary.clone());
            wall.agent.kill()?;
            wall.agent.start(None)?;
        }
    }
    answers(&wall)?;
    judge(flood)?;
    Ok(step - 1)
}

#[test]
fn what_a_wall_knows_crosses_to_other_layouts_and_what_can_be_said_crosses_back() -> Result<()> {
    let mut wall = raise()?;
    let mut client = wall.start(&worker(), Act::Hold { to: address(DATABASE), tcp: false })?;
    let mut held = wall.start(&worker(), Act::Hold { to: address(DATABASE), tcp: true })?;
    let mut spare = wall.start(&worker(), Act::Hold { to: address(DATABASE), tcp: true })?;
    // Someone whom no rule allows has asked, and is answered from time to time.
    let place = SocketAddr::new(NEAR_V4.into(), 8080);
    let mut server = wall.start(&at("web.service"), Act::Push { at: place })?;
    let asker = wall.network.far.run(|| UdpSocket::bind("198.51.100.9:0"))?;
    asker.send_to(b"anything new?", place)?;
    ensure!(server.exchange()?.ok);
    ensure!(wall.run(&at("app.service"), tcp(DATABASE))?.is_refused());
    let refused = |wall: &Wall| -> Result<u64> {
        let status = wall.agent.status()?;
        let reasons = status["reasons"].as_array().context("reasons")?;
        Ok(reasons.iter().filter_map(|reason| reason["denied"].as_u64()).sum())
    };
    let counted = refused(&wall)?;
    let generation =
        |wall: &Wall| -> Result<Option<u64>> { Ok(wall.agent.status()?["policy"]["generation"].as_u64()) };
    let before = generation(&wall)?;
    ensure!(counted > 0 && before > Some(0), "{counted} {before:?}");

    restart(&mut wall, Trial::Abi)?;
    ensure!(attached(&wall)?.keys().eq([&format!("v{}", ABI_VERSION + TRIAL_ABI_OFFSET)]));
    ensure!(generation(&wall)? > before, "the generation goes on");
    ensure!(refused(&wall)? >= counted, "{counted} refusals became {}", refused(&wall)?);
    for process in [&mut server, &mut client, &mut held, &mut spare] {
        ensure!(process.exchange()?.ok);
    }
    // That the connection was allowed is known, not assumed: it can be taken back.
    let cut = "version = 1\nmode = \"enforce\"\nexisting = \"cut\"\n";
    ensure!(wall.agent.apply(cut)?.code == 0);
    ensure!(!spare.exchange()?.ok && !held.exchange()?.ok, "connections that crossed are cut");
    ensure!(client.exchange()?.is_refused(), "a connected socket is judged by the new policy");
    ensure!(wall.agent.apply(&wall.fill_in(POLICY))?.code == 0);
    let mut held = wall.start(&worker(), Act::Hold { to: address(DATABASE), tcp: true })?;
    ensure!(client.exchange()?.ok && held.exchange()?.ok);

    wall.agent.kill()?;
    wall.agent.use_build(place::dnswall()?);
    wall.agent.start(None)?;
    ensure!(attached(&wall)?.keys().eq([&format!("v{ABI_VERSION}")]));
    ensure!(client.exchange()?.ok, "a connected socket is its holder's");
    ensure!(held.exchange()?.ok, "an established connection lives on");
    ensure!(server.exchange()?.is_refused(), "who may be answered is not known");
    asker.send_to(b"anything new?", place)?;
    wall.capture.mark()?;
    ensure!(server.exchange()?.ok, "they asked again");
    answers(&wall)?;
    ensure!(wall.agent.apply(cut)?.code == 0);
    ensure!(client.exchange()?.is_refused(), "its holder may not any more");
    Ok(())
}

#[test]
fn hooks_that_a_build_does_not_have_go_and_come_back_when_it_fails() -> Result<()> {
    let mut wall = raise()?;
    let links = wall.agent.pins().join(format!("v{ABI_VERSION}/links"));
    let gone = links.join("dw_gone");
    let program = ReturnOne::load()?;
    program.attach_and_pin(wall.tree.directory(), &gone)?;
    let (link, before) = (link(&gone)?, attached(&wall)?);

    wall.agent.kill()?;
    wall.agent.use_build(place::trial(Trial::Build)?);
    // Its last step but one: no name, every hook, one of them gone, and then the policy.
    let publish = fs::read_dir(&links)?.count() + 2;
    wall.agent.use_fault(Some(format!("fail@{publish}")));
    let said = format!("{:#}", wall.agent.start(None).err().context("it started")?);
    ensure!(said.contains(&format!("step {publish} (publish)")), "{said}");
    ensure!(self::link(&gone)? == link && attached(&wall)? == before, "it is not as it was");
    wall.agent.use_fault(None);
    wall.agent.start(None)?;
    ensure!(!gone.exists());
    answers(&wall)
}

#[test]
fn a_hook_that_is_missing_is_attached_and_the_others_stay() -> Result<()> {
    let mut wall = raise()?;
    let before = attached(&wall)?;
    for missing in ["dw_egress", "dw_sendmsg6"] {
        wall.agent.kill()?;
        fs::remove_file(wall.agent.pins().join(format!("v{ABI_VERSION}/links")).join(missing))?;
        wall.agent.start(None)?;
        answers(&wall)?;
        let after = attached(&wall)?;
        let links = |walls: &Walls| -> Vec<(String, u32)> {
            let all = walls.values().flatten().map(|(name, (link, _))| (name.clone(), *link));
            all.filter(|(name, _)| name != "dw_egress" && name != "dw_sendmsg6").collect()
        };
        ensure!(links(&before) == links(&after), "{before:?} became {after:?}");
        ensure!(after.values().all(|hooks| hooks.contains_key(missing)));
    }
    Ok(())
}

#[test]
fn maps_of_another_shape_are_another_layout() -> Result<()> {
    let mut wall = raise()?;
    let flood = flood(&wall)?;
    wall.agent.kill()?;
    let pin = wall.agent.pins().join(format!("v{ABI_VERSION}/maps/REPLIES"));
    fs::remove_file(&pin)?;
    aya::maps::HashMap::<MapData, [u64; 2], u64>::create(16, 0)?.pin(&pin)?;
    wall.agent.use_build(place::trial(Trial::Build)?);
    wall.agent.start(None)?;
    answers(&wall)?;
    ensure!(attached(&wall)?.keys().eq([&format!("v{ABI_VERSION}")]));
    ensure!(wall.agent.log().contains("REPLIES is pinned in another shape"), "{}", wall.agent.log());
    judge(flood)
}

#[test]
fn a_wall_of_other_layouts_is_not_opened_by_an_agent_that_does_not_know_its_policy() -> Result<()> {
    let mut wall = raise()?;
    restart(&mut wall, Trial::Abi)?;
    wall.agent.kill()?;
    fs::remove_dir_all(wall.agent.state())?;
    wall.agent.use_build(place::dnswall()?);
    let said = format!("{:#}", wall.agent.start(None).err().context("it started")?);
    ensure!(said.contains("a wall stands at"), "{said}");
    answers(&wall)
}

fn worker() -> Who {
    at("orders.service").exe(Exe::Copy("worker"))
}

fn raise() -> Result<Wall> {
    let mut wall = Wall::build()?;
    wall.copy("worker")?;
    let served = BTreeSet::from([address(DATABASE)]);
    wall.echo(&served, &served)?;
    let policy = wall.fill_in(POLICY);
    wall.agent.start(Some(&policy))?;
    Ok(wall)
}

fn restart(wall: &mut Wall, build: Trial) -> Result<()> {
    wall.agent.kill()?;
    wall.agent.use_build(place::trial(build)?);
    wall.agent.start(None)
}

/// Every way that is allowed, and some that are not.
fn flood(wall: &Wall) -> Result<[(Process, bool); 3]> {
    use ErrandBy::{TcpFresh, TcpHeld, UdpConnected, UdpFresh, UdpSendto};
    let load = |who: &Who, to: &str, ways: &[ErrandBy]| {
        let errands = ways.iter().map(|by| Errand { to: address(to), by: *by }).collect();
        wall.start(who, Act::Load { errands, pause_us: flood_pause_us() })
    };
    let fresh = [UdpFresh, UdpSendto, UdpConnected, TcpFresh];
    Ok([
        (load(&worker(), DATABASE, &[UdpFresh, UdpSendto, UdpConnected, TcpFresh, TcpHeld])?, true),
        (load(&worker(), FORBIDDEN, &fresh)?, false),
        (load(&at("orders.service"), DATABASE, &fresh)?, false),
    ])
}

fn judge(flood: [(Process, bool); 3]) -> Result<()> {
    for (process, allowed) in flood {
        let tallies = process.finish()?.tallies;
        println!("allowed {allowed}: {tallies:?}");
        for tally in &tallies {
            let right = if allowed { tally.refused == 0 && tally.failed == 0 } else { tally.ok == 0 };
            ensure!(right && tally.ok + tally.refused + tally.failed > 10, "allowed {allowed}: {tallies:?}");
        }
    }
    Ok(())
}

/// Whether those get through who may, and nobody else.
fn answers(wall: &Wall) -> Result<()> {
    let report = wall.run(&worker(), tcp(DATABASE))?;
    ensure!(report.ok, "the worker may: {report:?}");
    for (who, to) in [(worker(), FORBIDDEN), (at("orders.service"), DATABASE), (at("app.service"), DATABASE)]
    {
        let report = wall.run(&who, tcp(to))?;
        ensure!(report.is_refused(), "{who:?} to {to}: {report:?}");
    }
    Ok(())
}

/// By wall and hook: link and program.
type Walls = BTreeMap<String, BTreeMap<String, (u32, u32)>>;

fn attached(wall: &Wall) -> Result<Walls> {
    let mut walls = Walls::new();
    for version in wall.agent.pins().read_dir()? {
        let version = version?;
        let mut hooks = BTreeMap::new();
        for entry in version.path().join("links").read_dir().into_iter().flatten() {
            let entry = entry?;
            hooks.insert(entry.file_name().to_string_lossy().into_owned(), link(&entry.path())?);
        }
        if !hooks.is_empty() {
            walls.insert(version.file_name().to_string_lossy().into_owned(), hooks);
        }
    }
    Ok(walls)
}

fn link(pin: &Path) -> Result<(u32, u32)> {
    let info = FdLink::from(PinnedLink::from_pin(pin)?).info()?;
    Ok((info.id(), info.program_id()))
}

const DATABASE: &str = "10.0.3.7:5432";
const FORBIDDEN: &str = "10.0.4.7:5432";
/// More than any take-over has.
const STEPS_MAX: u64 = 40;
