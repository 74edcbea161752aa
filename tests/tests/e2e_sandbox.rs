//! What the running agent gave up, as the kernel says it, and that it does its work all the same.

use std::fs;
use std::io::ErrorKind;

use anyhow::{Context as _, Result, ensure};
use dnswall_tests::act::{tcp, udp};
use dnswall_tests::case::{allowed, case, refused};
use dnswall_tests::check::check_wall;
use dnswall_tests::prometheus::{free_address, wait_for};
use dnswall_tests::wall::Wall;
use dnswall_tests::who::at;

const POLICY: &str =
    "version = 1\nmode = \"enforce\"\n[[allow]]\nto = [\"203.0.113.7\"]\nports = [\"tcp/443\"]\n";

/// BPF, PERFMON, NET_ADMIN, SYS_PTRACE, DAC_OVERRIDE, DAC_READ_SEARCH, SYS_ADMIN, SYS_RESOURCE, by their numbers.
const KEPT: u64 = 1 << 39 | 1 << 38 | 1 << 12 | 1 << 19 | 1 << 1 | 1 << 2 | 1 << 21 | 1 << 24;

/// A field of each thread of a process.
fn fields(pid: u32, name: &str) -> Result<Vec<String>> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).context("list the agent's threads")?;
    let mut values = Vec::new();
    for thread in threads {
        let path = thread?.path().join("status");
        let text = match fs::read_to_string(&path) {
            // It ended meanwhile: one that looks at a network namespace lives no longer than that.
            Err(error)
                if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) =>
            {
                continue;
            }
            other => other.with_context(|| format!("read {}", path.display()))?,
        };
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        values.push(line.with_context(|| format!("{name} in {}", path.display()))?.trim().to_owned());
    }
    Ok(values)
}

#[test]
fn every_thread_has_given_up_what_it_does_not_need() -> Result<()> {
    let mut wall = Wall::prepare()?;
    let target = free_address()?;
    let config = fs::read_to_string(wall.agent.config_path())?;
    fs::write(wall.agent.config_path(), format!("{config}[metrics]\naddress = \"{target}\"\n"))?;
    wall.agent.start(Some(POLICY))?;
    let pid = wall.agent.pid().context("the agent runs")?;
    // So that its threads, which come last, are there too.
    wait_for(target, "/readyz", |code, _| code == 200)?;
    for name in ["CapEff", "CapPrm"] {
        let sets = fields(pid, name)?;
        ensure!(sets.len() > 3, "the agent has threads: {sets:?}");
        for set in sets {
            let set = u64::from_str_radix(&set, 16)?;
            ensure!(set & !KEPT == 0 && set & 1 << 12 != 0, "{name} {set:x}");
        }
    }
    for (name, value) in [("CapInh", "0000000000000000"), ("NoNewPrivs", "1"), ("Seccomp", "2")] {
        let values = fields(pid, name)?;
        ensure!(values.iter().all(|found| found == value), "{name}: {values:?}");
    }
    let status = wall.agent.status()?;
    let sandbox = &status["sandbox"];
    ensure!(sandbox["no_new_privileges"] == true && sandbox["system_calls_filtered"] == true, "{sandbox}");
    let log = wall.agent.log();
    ensure!(!log.contains("sandbox"), "{log}");
    check_wall(
        &mut wall,
        &[
            case("allowed", at("app.service"), tcp("203.0.113.7:443"), allowed("allow.0")),
            case("refused, with its alert", at("app.service"), udp("10.0.3.7:99"), refused("egress.denied")),
        ],
    )?;
    ensure!(wall.agent.apply(&POLICY.replace("443", "444"))?.code == 0, "a policy is applied");
    Ok(())
}

#[test]
fn it_can_be_turned_off_and_that_is_said() -> Result<()> {
    let mut wall = Wall::build()?;
    let path = wall.agent.config_path();
    let config = fs::read_to_string(&path).context("read the configuration")?;
    fs::write(&path, format!("sandbox = false\n{config}")).context("write the configuration")?;
    wall.agent.start(Some(POLICY))?;
    let pid = wall.agent.pid().context("the agent runs")?;
    let filters = fields(pid, "Seccomp")?;
    ensure!(filters.iter().all(|found| found == "0"), "{filters:?}");
    let warnings = wall.agent.status()?["warnings"].to_string();
    ensure!(warnings.contains("sandbox: it is off"), "{warnings}");
    Ok(())
}
