//! What no packet hook sees into: sockets of other families, and devices that carry packets.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Result, ensure};
use aya::util::KernelVersion;
use dnswall_agent::kernel::lsm;
use dnswall_tests::act::Act;
use dnswall_tests::case::{Alarm, Case, Expect, case, refused_for};
use dnswall_tests::check::check_wall;
use dnswall_tests::wall::Wall;
use dnswall_tests::who::{Who, at};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

const POLICY: &str = r#"
version = 1
mode = "enforce"
[unjudged]
from = [{ unit = "vpn.service" }]
[[scope]]
name = "trial"
from = [{ unit = "trial.service" }]
mode = "audit"
"#;

const AF_VSOCK: i32 = 40;
const AF_XDP: i32 = 44;

#[test]
fn sockets_of_other_families_are_for_some() -> Result<()> {
    let mut wall = Wall::raise(POLICY)?;
    let alarm = Alarm { kind: "socket.unjudged", reason: "unjudged-socket", rule: "default" };
    let packet = || Act::Socket { family: libc::AF_PACKET, kind: libc::SOCK_RAW, protocol: 0 };
    let no = refused_for(alarm.kind, alarm.reason);
    let quiet = |name, who, act| -> Case { case(name, who, act, Expect::Allowed(NOBODY_ASKS)).unexplained() };
    let local = |family, kind| Act::Socket { family, kind, protocol: 0 };
    let mut cases = vec![
        quiet("one that may", at("vpn.service"), packet()),
        quiet("on this host", at("app.service"), local(libc::AF_UNIX, libc::SOCK_STREAM)),
        quiet("to the kernel", at("app.service"), local(libc::AF_NETLINK, libc::SOCK_RAW)),
    ];
    let refused = vec![
        case("frames", at("app.service"), packet(), no),
        case("frames, root of no unit", at("user.slice"), packet(), no),
        case("frames without header", at("app.service"), local(libc::AF_PACKET, libc::SOCK_DGRAM), no),
        case("past the stack", at("app.service"), local(AF_XDP, libc::SOCK_RAW), no),
        case("to the hypervisor", at("app.service"), local(AF_VSOCK, libc::SOCK_STREAM), no),
        case("only reported", at("trial.service"), packet(), Expect::WouldDeny(alarm)),
    ];
    if guards(&wall, "AF_PACKET", lsm::obstacle().is_none())? {
        cases.extend(refused);
    } else {
        cases.extend(refused.into_iter().map(|case| quiet(case.name, case.who, case.act)));
    }
    check_wall(&mut wall, &cases)
}

#[test]
fn devices_that_carry_packets_are_for_some() -> Result<()> {
    let wall = Wall::raise(POLICY)?;
    // Its number counts, not its name: with or without the driver it is refused or not.
    let node = Node::make(10, 200)?;
    let refused = |who: &Who| is_refused(&wall, who, &node.0);
    // From 6.1 on a program may ask which process opens a device.
    if !guards(&wall, TUN, KernelVersion::current()? >= KernelVersion::new(6, 1, 0))? {
        ensure!(!refused(&at("app.service"))?, "a tunnel is refused where no hook is");
        return Ok(());
    }
    ensure!(!refused(&at("vpn.service"))?, "one that may");
    ensure!(!is_refused(&wall, &at("app.service"), "/dev/null")?, "any other device");
    ensure!(!refused(&at("trial.service"))?, "audit only reports");
    ensure!(refused(&at("app.service"))?, "a tunnel");
    ensure!(refused(&at("app.service").uid(1000))?, "a user's tunnel");
    for (unit, verdict) in [("trial.service", "would-deny"), ("app.service", "denied")] {
        let alert = wall.agent.wait_for_alert(0, |alert| alert["workload"]["unit"] == unit)?;
        let said = [&alert["kind"], &alert["reason"], &alert["verdict"], &alert["flow"]["protocol"]];
        ensure!(said == ["device.unjudged", "unjudged-device", verdict, TUN], "{alert}");
        ensure!(alert["flow"]["family"] == "none" && alert["flow"]["source_port"].is_null(), "{alert}");
    }
    ensure!(
        wall.agent.alerts()?.iter().all(|alert| alert["workload"]["unit"] != "vpn.service"),
        "an alert of what is allowed"
    );
    Ok(())
}

/// `policy explain` has no question for it.
const NOBODY_ASKS: dnswall_tests::case::Because =
    dnswall_tests::case::Because { reason: "rule", rule: "default" };
const TUN: &str = "/dev/net/tun";

/// Whether the wall refuses them, which is whether this kernel can. Where it does not, everybody may, and `status` must say so
/// of `what`.
fn guards(wall: &Wall, what: &str, can: bool) -> Result<bool> {
    let warned = wall.agent.status()?["warnings"].to_string().contains(what);
    ensure!(warned != can, "is {what} open? It need not be: {can}, and the wall warns: {warned}");
    Ok(can)
}

fn is_refused(wall: &Wall, who: &Who, device: &str) -> Result<bool> {
    let script = format!("exec 2>&1; exec 3<>{device}; echo opened");
    let act = Act::Launch { program: "/bin/sh".into(), arguments: vec!["-c".to_owned(), script] };
    let (said, _) = wall.output(who, act)?;
    Ok(said.contains("Operation not permitted"))
}

/// A device file of the test's own that everybody may open.
struct Node(String);

impl Node {
    fn make(major: u32, minor: u32) -> Result<Self> {
        let path = format!("/dev/dnswall-test-{}", std::process::id());
        mknodat(CWD, &path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(major, minor))?;
        let node = Self(path);
        std::fs::set_permissions(&node.0, std::fs::Permissions::from_mode(0o666))?;
        Ok(node)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
