//! `check(policy, traffic)`: plays a table through a wall and compares four things with what it says: what the
//! application saw, what arrived at the far side, the alert, and what `policy explain` answers.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dnswall_agent::demo::network::{FAR_NETWORKS, FAR_V4, FAR_V6, NEAR_V4, NEAR_V6};
use serde_json::Value;

use crate::act::{Act, Report};
use crate::case::{Alarm, Case, Expect};
use crate::dig;
use crate::flow::Flow;
use crate::pace::within;
use crate::wall::{INTERNET, Wall};
use crate::who::Exe;

/// Raises a wall with this policy and plays the table through it.
///
/// # Errors
/// Every line that does not come out as it says, at once.
pub fn check(policy: &str, cases: &[Case]) -> Result<()> {
    let mut wall = Wall::prepare()?;
    for case in cases {
        if let Exe::Copy(name) = case.who.exe {
            wall.copy(name)?;
        }
    }
    let policy = wall.fill_in(policy);
    wall.agent.start(Some(&policy))?;
    check_wall(&mut wall, cases)
}

/// Plays a table through a wall that stands.
///
/// # Errors
/// See [`check`].
pub fn check_wall(wall: &mut Wall, cases: &[Case]) -> Result<()> {
    listen(wall, cases)?;
    let mut results = Vec::new();
    for case in cases {
        let mut wrong = Vec::new();
        if let Some(feature) = case.act.needs()
            && !feature.is_here()?
        {
            wrong.extend(feature.lacking(&wall.run(&case.who, case.act.clone())?));
            println!("not run: {}: {}", feature.name(), case.name);
            results.push((case, None, wrong));
            continue;
        }
        let pid = play(wall, case, &mut wrong).map_err(|error| wrong.push(format!("{error:#}"))).ok();
        if case.explained
            && let Err(error) = explain(wall, case, &mut wrong)
        {
            wrong.push(format!("{error:#}"));
        }
        results.push((case, pid, wrong));
    }
    // An alert that nobody should have sent may take a moment to arrive.
    thread::sleep(within(QUIET));
    let alerts = wall.agent.alerts()?;
    for (_, pid, wrong) in results.iter_mut().filter(|(case, ..)| matches!(case.expect, Expect::Allowed(_))) {
        let theirs = alerts.iter().filter(|alert| pid.is_some_and(|pid| alert["process"]["pid"] == pid));
        wrong.extend(theirs.map(|alert| format!("there was an alert: {alert}")));
    }
    results.retain(|(_, _, wrong)| !wrong.is_empty());
    let mut failures = String::new();
    for (Case { name, who, act, .. }, _, wrong) in &results {
        failures += &format!("{name}: {} uid {} {act:?}\n", who.cgroup, who.uid);
        failures.extend(wrong.iter().map(|line| format!("    {line}\n")));
    }
    if !failures.is_empty() {
        let (failed, all) = (results.len(), cases.len());
        bail!("{failed} of {all} cases:\n{failures}--- the agent's log\n{}", wall.agent.log());
    }
    println!("{} cases", cases.len());
    Ok(())
}

/// Opens a server for everything the table connects to at the far side.
fn listen(wall: &mut Wall, cases: &[Case]) -> Result<()> {
    let (mut tcp, mut udp) = (BTreeSet::new(), BTreeSet::new());
    for case in cases {
        match case.act {
            Act::Tcp { to, .. } if is_far(to.ip()) => tcp.insert(to),
            Act::Udp { to, .. } if is_far(to.ip()) => udp.insert(to),
            _ => false,
        };
    }
    // dnsmasq answers there.
    tcp.retain(|to| to.port() != 53);
    udp.retain(|to| to.port() != 53);
    wall.echo(&tcp, &udp)
}

/// Does it, and compares what the application, the far side and the alerts say; gives the process id.
fn play(wall: &Wall, case: &Case, wrong: &mut Vec<String>) -> Result<u32> {
    let alerts = wall.agent.alerts()?.len();
    let mark = wall.capture.mark()?;
    let (report, pid, process) = if case.who.exe == Exe::Dig {
        let (report, pid) = dig::ask(wall, &case.who, &case.act)?;
        (report, pid, None)
    } else {
        let (report, process) = wall.attempt(&case.who, case.act.clone())?;
        (report, process.pid(), Some(process))
    };
    wall.capture.mark()?;
    compare_report(case, &report, wrong);
    compare_arrival(wall, case, mark, wrong);
    match case.expect {
        Expect::Allowed(_) => {}
        Expect::Refused(alarm) | Expect::Dropped(alarm) => {
            compare_alert(wall, case, alerts, pid, alarm, "denied", wrong)
        }
        Expect::WouldDeny(alarm) => compare_alert(wall, case, alerts, pid, alarm, "would-deny", wrong),
    }
    // It lives until here, so that the agent can look at it.
    drop(process);
    Ok(pid)
}

fn compare_report(case: &Case, report: &Report, wrong: &mut Vec<String>) {
    let at_once = within(if case.who.exe == Exe::Dig { DIG_AT_ONCE } else { AT_ONCE });
    let said = match case.expect {
        Expect::Allowed(_) | Expect::WouldDeny(_) => (!report.ok).then_some("was not answered"),
        Expect::Dropped(_) => report.ok.then_some("was answered"),
        Expect::Refused(_) if !report.is_refused() => Some("did not get EPERM"),
        Expect::Refused(_) => {
            (u128::from(report.elapsed_us) > at_once.as_micros()).then_some("got EPERM too late")
        }
    };
    wrong.extend(said.map(|said| format!("{said}: {report:?}")));
}

fn compare_arrival(wall: &Wall, case: &Case, mark: usize, wrong: &mut Vec<String>) {
    let Some(flow) = case.act.flow().filter(|flow| leaves(unmapped(flow.address))) else { return };
    let arrived = match flow.port {
        Some(port) => {
            wall.capture.to_port(mark, flow.protocol, SocketAddr::new(unmapped(flow.address), port))
        }
        None => wall.capture.since(mark, unmapped(flow.address)),
    };
    // A connection to a server that may be asked stands: what counts is what is said in it.
    let about_question =
        matches!(case.expect, Expect::Refused(alarm) | Expect::Dropped(alarm) if alarm.is_about_question());
    let arrived = arrived.iter().filter(|packet| !about_question || packet.carries_data()).count();
    match case.expect {
        Expect::Allowed(_) | Expect::WouldDeny(_) if arrived == 0 => wrong.push("nothing arrived".into()),
        Expect::Refused(_) | Expect::Dropped(_) if arrived > 0 => {
            wrong.push(format!("LEAKED: {arrived} packets arrived"));
        }
        _ => {}
    }
}

fn compare_alert(
    wall: &Wall,
    case: &Case,
    skip: usize,
    pid: u32,
    alarm: Alarm,
    verdict: &str,
    wrong: &mut Vec<String>,
) {
    let alert = match wall.agent.wait_for_alert(skip, |alert| alert["process"]["pid"] == pid) {
        Ok(alert) => alert,
        Err(error) => return wrong.push(format!("pid {pid}: {error:#}")),
    };
    let exe = case.who.exe_path(wall.probe(), &wall.copies());
    let cgroup = format!("{}/{}", wall.tree.path(), case.who.cgroup);
    let mut expected = vec![
        ("/kind", Value::from(alarm.kind)),
        ("/verdict", verdict.into()),
        ("/reason", alarm.reason.into()),
        ("/rule", alarm.rule.into()),
        ("/process/exe", exe.to_string_lossy().into()),
        ("/process/uid", case.who.uid.into()),
        ("/workload/cgroup", cgroup.into()),
        ("/process/user", case.who.user().into()),
        ("/workload/unit", case.who.unit().into()),
        ("/workload/container", case.who.container().into()),
        ("/schema", 1.into()),
    ];
    if let Some(Flow { address, port, .. }) = case.act.flow() {
        expected.push(("/flow/destination", unmapped(address).to_string().into()));
        // What is refused for its form was not read as far as the port.
        let unread = ["fragment", "source-route", "malformed", "extension-headers"].contains(&alarm.reason);
        let port = if unread { Some(Value::Null) } else { port.map(Value::from) };
        expected.extend(port.map(|port| ("/flow/destination_port", port)));
    }
    for (pointer, value) in expected {
        let said = alert.pointer(pointer).unwrap_or(&Value::Null);
        if *said != value {
            wrong.push(format!("the alert's {pointer} is {said}, not {value}"));
        }
    }
}

fn explain(wall: &Wall, case: &Case, wrong: &mut Vec<String>) -> Result<()> {
    let Some(flow) = case.act.flow() else { return Ok(()) };
    let cgroup = format!("cgroup:{}/{}", wall.tree.path(), case.who.cgroup);
    let exe: PathBuf = case.who.exe_path(wall.probe(), &wall.copies());
    let (user, exe) = (format!("user:{}", case.who.uid), format!("exe:{}", exe.display()));
    let to = flow.address.to_string();
    let from = ["policy", "explain", "--from", &cgroup, "--from", &user, "--from", &exe];
    let (code, said) = wall
        .agent
        .ask(&[&from[..], &["--to", &to, "--port", &flow.port_text()]].concat())
        .context("explain")?;
    let (verdict, reason, rule) = match case.expect {
        Expect::Allowed(because) => ("allow", because.reason, because.rule),
        Expect::Refused(alarm) | Expect::Dropped(alarm) => ("deny", alarm.reason, alarm.rule),
        Expect::WouldDeny(alarm) => ("would-deny", alarm.reason, alarm.rule),
    };
    let expected = [("verdict", verdict), ("reason", reason), ("rule", rule)];
    for (key, value) in expected.into_iter().filter(|(key, value)| said[*key] != *value) {
        wrong.push(format!("explain (exit code {code}) says {key} {}, not {value}", said[key]));
    }
    Ok(())
}

/// The form in which the kernel and the alerts see it.
fn unmapped(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Whether what is sent there would leave the near side, and so arrive at the far one's end of the cable.
fn leaves(address: IpAddr) -> bool {
    !address.is_loopback() && address != IpAddr::V4(NEAR_V4) && address != IpAddr::V6(NEAR_V6)
}

/// Whether an address is the far side's.
fn is_far(address: IpAddr) -> bool {
    address == IpAddr::V4(FAR_V4)
        || address == IpAddr::V6(FAR_V6)
        || FAR_NETWORKS.iter().chain(&INTERNET).any(|(network, bits)| match (network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (network.to_bits() ^ address.to_bits()) >> (32 - bits) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                (network.to_bits() ^ address.to_bits()) >> (128 - bits) == 0
            }
            _ => false,
        })
}

/// How soon an application must hear that it was refused.
const AT_ONCE: Duration = Duration::from_millis(100);
/// The same for dig, whose start and end are measured with it: half of what it takes to believe in silence.
const DIG_AT_ONCE: Duration = Duration::from_millis(500);
const QUIET: Duration = Duration::from_millis(300);
