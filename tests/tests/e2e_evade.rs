//! Ways around: a process that hides in the cgroup tree, in another file, or behind another's socket.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dnswall_tests::act::{Act, address, tcp, udp};
use dnswall_tests::case::{allowed, case, denied, not_for_you, refused};
use dnswall_tests::check::{check, check_wall};
use dnswall_tests::pace::within;
use dnswall_tests::wall::Wall;
use dnswall_tests::who::{Exe, at};

#[test]
fn a_deny_rule_binds_deeper_down_too() -> Result<()> {
    deny_binds_at(&[0, 1, 5, 11, 12])
}

#[test]
fn a_deny_rule_binds_as_deep_as_the_kernel_walks() -> Result<()> {
    deny_binds_at(&[13, 14, 15, 16, 20, 27])
}

/// Deeper than the kernel walks a process has no names, and no rule at all binds it: it gains nothing by hiding there.
#[test]
fn nothing_leaves_from_deeper_than_the_kernel_walks() -> Result<()> {
    let policy = r#"
version = 1
mode = "enforce"
[[allow]]
name = "all"
to = ["any"]
"#;
    let cases = [31, 32, 40, 60].map(|levels| {
        let deep = at(&format!("user.slice/user@1000.service{}", "/d".repeat(levels)));
        case("too deep", deep, tcp("169.254.169.254:80"), not_for_you("egress.denied"))
    });
    check(policy, &cases)
}

fn deny_binds_at(levels: &[usize]) -> Result<()> {
    let policy = r#"
version = 1
mode = "enforce"
[[deny]]
name = "metadata"
to = ["169.254.169.254"]
from = [{ unit = "user@1000.service" }, { cgroup = "{root}/jobs" }]
[[allow]]
name = "all"
to = ["any"]
"#;
    let metadata = denied("egress.denied", "deny.metadata");
    let mut cases = Vec::new();
    for levels in levels {
        let deep = |top: &str| at(&format!("{top}{}", "/d".repeat(*levels)));
        let act = || tcp("169.254.169.254:80");
        cases.push(case("a user's", deep("user.slice/user@1000.service"), act(), metadata));
        cases.push(case("a job's", deep("jobs"), act(), metadata));
        cases.push(case("another", deep("other.service"), act(), allowed("allow.all")));
    }
    check(policy, &cases)
}

#[test]
fn an_executable_is_its_file_and_not_its_name() -> Result<()> {
    let mut wall = Wall::raise(
        r#"
version = 1
mode = "enforce"
[[allow]]
name = "tool"
to = ["10.0.3.0/24"]
from = [{ exe = "{copies}/tool" }]
"#,
    )?;
    wall.echo(&[address("10.0.3.7:1")].into(), &[address("10.0.3.7:1")].into())?;
    let tool = at("app.service").exe(Exe::Copy("tool"));
    let passes = |wall: &Wall| wall.run(&tool, tcp("10.0.3.7:1")).map(|report| report.ok);
    // It is installed after the policy was applied.
    ensure!(!passes(&wall)?, "before the agent has seen it");
    becomes(&wall, &passes, true)?;
    let to = address("10.0.3.7:1");
    let mut running = wall.start(&tool, Act::Hold { to, tcp: false })?;
    ensure!(running.exchange()?.ok, "before the upgrade");
    // Another file takes its name.
    let path = wall.copies().join("tool");
    fs::rename(&path, wall.copies().join("moved"))?;
    fs::copy(wall.probe(), wall.copies().join("upgrade"))?;
    fs::rename(wall.copies().join("upgrade"), &path)?;
    becomes(&wall, &passes, true)?;
    // The process is what it was until it ends; after it the file is nobody's.
    ensure!(running.exchange()?.ok, "a running program was not restarted after its upgrade");
    drop(running);
    let moved = at("app.service").exe(Exe::Copy("moved"));
    becomes(&wall, &|wall: &Wall| wall.run(&moved, tcp("10.0.3.7:1")).map(|report| report.ok), false)?;
    check_wall(&mut wall, &[case("a new file", tool, tcp("10.0.3.8:1"), allowed("allow.tool"))])
}

/// Within a few looks of the agent at the file system.
fn becomes(wall: &Wall, look: &dyn Fn(&Wall) -> Result<bool>, wanted: bool) -> Result<()> {
    let until = Instant::now() + within(Duration::from_secs(8));
    while look(wall)? != wanted {
        ensure!(Instant::now() < until, "it did not become {wanted}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[test]
fn connections_older_than_the_wall_live_on_or_are_cut_and_datagrams_are_judged() -> Result<()> {
    for (existing, lives) in [("keep", true), ("cut", false)] {
        let mut wall = Wall::build()?;
        let to = address("10.0.3.7:5432");
        wall.echo(&[to].into(), &[to].into())?;
        let who = at("app.service");
        let mut old = wall.start(&who, Act::Hold { to, tcp: true })?;
        let mut datagrams = wall.start(&who, Act::Hold { to, tcp: false })?;
        ensure!(old.exchange()?.ok && datagrams.exchange()?.ok);
        wall.agent.start(Some(&format!("version = 1\nmode = \"enforce\"\nexisting = \"{existing}\"\n")))?;
        // They are looked for once the wall stands.
        let until = Instant::now() + Duration::from_secs(60);
        while !wall.agent.status()?["older"].is_object() {
            ensure!(Instant::now() < until, "they are not looked for");
            std::thread::sleep(Duration::from_millis(50));
        }
        let report = old.exchange()?;
        ensure!(report.ok == lives, "existing = {existing}: {report:?}");
        let report = datagrams.exchange()?;
        ensure!(report.is_refused(), "a datagram is no connection: {report:?}");
        check_wall(&mut wall, &[case("new", who, udp("10.0.3.8:5432"), refused("egress.denied"))])?;
    }
    Ok(())
}
