//! Who was behind a refusal: a process that is gone, those above it, the program's hash, and the name that led to an address.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dnswall_tests::act::{Act, READY};
use dnswall_tests::pace::{times, within};
use dnswall_tests::process::Process;
use dnswall_tests::wall::Wall;
use dnswall_tests::who::{Who, at};
use dnswall_tests::zone::{Follow, Kind, PORT};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const POLICY: &str = r#"
version = 1
mode = "enforce"
[dns]
resolvers = ["203.0.113.77"]
events = "all"
"#;
/// Nobody may go there.
const FORBIDDEN: &str = "198.51.100.9";
/// Processes that are gone before anybody looks.
const GONE: u16 = 40;

/// Runs a script that says [`READY`] and stays.
fn script(wall: &Wall, who: &Who, program: &Path, script: &str) -> Result<Process> {
    let arguments = vec!["-c".to_owned(), format!("{script}\necho {READY}\nread line")];
    wall.start(who, Act::Launch { program: program.to_path_buf(), arguments })
}

/// One connection attempt of a bash.
fn attempt(port: u16) -> String {
    format!(": 2>/dev/null </dev/tcp/{FORBIDDEN}/{port} || true")
}

fn alert_of(wall: &Wall, port: u16) -> Result<Value> {
    wall.agent.wait_for_alert(0, |alert| alert["flow"]["destination_port"] == port)
}

fn sha256(path: &Path) -> Result<String> {
    let output = Command::new("sha256sum").arg(path).output().context("run sha256sum")?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.split_ascii_whitespace().next().context("read a hash")?.to_owned())
}

/// That the alert has this hash. A machine that runs another one's instructions may take longer over a program than an alert waits, and
/// counts that.
fn has_hash(wall: &Wall, alert: &Value, hash: &str) -> Result<()> {
    let found = &alert["process"]["hash"];
    if times(false, true) && found.is_null() {
        return counts(wall, "alerts-without-their-hash", |late| late > 0);
    }
    ensure!(found["sha256"] == hash, "{hash} is not in {alert:#}");
    Ok(())
}

/// Waits until a counter is as it should be: they are shown once a second.
fn counts(wall: &Wall, counter: &str, is_right: impl Fn(u64) -> bool) -> Result<()> {
    let until = Instant::now() + within(Duration::from_secs(10));
    loop {
        let counters = wall.agent.status()?["counters"].clone();
        if counters[counter].as_u64().is_some_and(&is_right) {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{counter}: {counters:#}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// A directory where everybody may run what is in it.
fn open_to_all(wall: &Wall) -> Result<()> {
    for directory in [wall.scratch(""), wall.copies()] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

#[test]
fn a_process_that_is_gone_is_named_with_those_above_it_and_its_hash() -> Result<()> {
    let wall = Wall::raise(POLICY)?;
    let agent =
        Pid::from_raw(wall.agent.pid().context("the agent runs")?.cast_signed()).context("its number")?;
    // While it does not look, all of them come and go.
    kill_process(agent, Signal::STOP)?;
    let first = 9000;
    let last = first + GONE - 1;
    let all = format!(
        "for port in $(seq {first} {last}); do /bin/bash -c \": 2>/dev/null </dev/tcp/{FORBIDDEN}/$port\"; done"
    );
    let shell = script(&wall, &at("app.service"), Path::new("/bin/sh"), &all)?;
    kill_process(agent, Signal::CONT)?;
    let shells_exe = fs::canonicalize("/bin/sh")?;
    let (bash, hash) = (fs::canonicalize("/bin/bash")?, sha256(Path::new("/bin/bash"))?);
    for port in first..=last {
        let alert = alert_of(&wall, port)?;
        let process = &alert["process"];
        let pid = process["pid"].as_u64().context("a process id")?;
        ensure!(!Path::new(&format!("/proc/{pid}")).exists(), "it is still there");
        let expected = [
            ("/exe", Value::from(bash.to_string_lossy())),
            ("/parent/pid", shell.pid().into()),
            ("/parent/exe", shells_exe.to_string_lossy().into()),
            ("/parents/0/pid", std::process::id().into()),
            ("/command_line", Value::Null),
        ];
        for (pointer, value) in expected {
            ensure!(process.pointer(pointer) == Some(&value), "{pointer} is not {value}: {alert:#}");
        }
        has_hash(&wall, &alert, &hash)?;
        let script = process["parent"]["command_line"].as_str().context("the shell's arguments")?;
        ensure!(script.contains("-c for port in"), "{alert:#}");
        let parents = process["parents"].as_array().context("a list")?;
        ensure!((1..=8).contains(&parents.len()), "{alert:#}");
        let starts: Vec<&str> = std::iter::once(&process["parent"])
            .chain(parents)
            .map(|parent| parent["start"].as_str().context("a start"))
            .collect::<Result<_>>()?;
        ensure!(starts.is_sorted_by(|child, parent| child >= parent), "{starts:?}");
    }
    // One file, read once.
    counts(&wall, "programs-hashed", |programs| programs == 1)?;
    counts(&wall, "program-reads-stuck", |threads| threads == 0)
}

#[test]
fn a_unit_that_is_gone_is_named_however_short_it_was_there() -> Result<()> {
    let wall = Wall::raise(POLICY)?;
    let first = 9200;
    for port in first..first + GONE {
        let unit = format!("job-{port}.service");
        let arguments = vec!["-c".to_owned(), attempt(port)];
        wall.output(&at(&unit), Act::Launch { program: "/bin/bash".into(), arguments })?;
        fs::remove_dir(wall.tree.child(&unit)?).with_context(|| format!("remove {unit}"))?;
    }
    let mut unnamed = 0;
    for port in first..first + GONE {
        let alert = alert_of(&wall, port)?;
        let unit = &alert["workload"]["unit"];
        ensure!(unit.is_null() || *unit == format!("job-{port}.service"), "{alert:#}");
        unnamed += u64::from(unit.is_null());
    }
    // Whoever is told may get no turn for as long as a unit is there, on a machine with too much to do: that is counted.
    ensure!(unnamed <= u64::from(GONE) / 10, "{unnamed} of {GONE} have no name");
    counts(&wall, "cgroups-unnamed", |times| times == unnamed)?;
    counts(&wall, "cgroups-unwatched", |times| times == 0)
}

#[test]
fn a_program_without_a_name_and_one_that_nobody_may_read_is_hashed() -> Result<()> {
    let wall = Wall::raise(POLICY)?;
    open_to_all(&wall)?;
    let dropper = wall.copies().join("dropper");
    fs::copy("/bin/bash", &dropper)?;
    fs::OpenOptions::new()
        .append(true)
        .open(&dropper)
        .and_then(|mut file| std::io::Write::write_all(&mut file, b"nobody has seen this one"))?;
    let hash = sha256(&dropper)?;
    fs::set_permissions(&dropper, fs::Permissions::from_mode(0o111))?;
    chown(&dropper, Some(65534), Some(65534))?;
    chown(wall.copies(), Some(65534), Some(65534))?;
    let path = dropper.to_string_lossy();
    let act = format!("/bin/rm -f {path}\n{}", attempt(9100));
    let process = script(&wall, &at("app.service").uid(65534), &dropper, &act)?;
    ensure!(!dropper.exists(), "it is gone");
    let alert = alert_of(&wall, 9100)?;
    ensure!(alert["process"]["pid"] == process.pid(), "{alert:#}");
    ensure!(alert["process"]["exe"] == format!("{path} (deleted)"), "{alert:#}");
    has_hash(&wall, &alert, &hash)
}

#[test]
fn another_program_in_the_same_place_has_another_hash() -> Result<()> {
    let wall = Wall::raise(POLICY)?;
    let path = wall.copies().join("tool");
    let mut hashes = Vec::new();
    for round in 0..3u16 {
        match round {
            0 => drop(fs::copy("/bin/bash", &path)?),
            // Another file under its name.
            1 => {
                let new = wall.copies().join("new");
                fs::copy("/bin/bash", &new)?;
                append(&new)?;
                fs::rename(&new, &path)?;
            }
            // The same file, written to.
            _ => append(&path)?,
        }
        hashes.push(sha256(&path)?);
        let process = script(&wall, &at("app.service"), &path, &attempt(9200 + round))?;
        let alert = alert_of(&wall, 9200 + round)?;
        ensure!(alert["process"]["pid"] == process.pid(), "{alert:#}");
        ensure!(alert["process"]["exe"] == *path.to_string_lossy(), "{alert:#}");
        has_hash(&wall, &alert, &hashes[usize::from(round)])?;
    }
    hashes.sort_unstable();
    hashes.dedup();
    ensure!(hashes.len() == 3, "{hashes:?}");
    Ok(())
}

fn append(path: &Path) -> Result<()> {
    let mut file = fs::OpenOptions::new().append(true).open(path)?;
    std::io::Write::write_all(&mut file, b"more").context("write to it")
}

#[test]
fn hashes_can_be_turned_off() -> Result<()> {
    let mut wall = Wall::prepare()?;
    let config = fs::read_to_string(wall.agent.config_path())?;
    fs::write(wall.agent.config_path(), format!("{config}[process]\nhash = false\n"))?;
    wall.agent.start(Some(POLICY))?;
    let process = script(&wall, &at("app.service"), Path::new("/bin/bash"), &attempt(9300))?;
    let alert = alert_of(&wall, 9300)?;
    ensure!(alert["process"]["pid"] == process.pid() && alert["process"]["hash"].is_null(), "{alert:#}");
    ensure!(alert["process"]["parent"]["pid"] == std::process::id(), "{alert:#}");
    Ok(())
}

#[test]
fn an_address_is_told_with_the_name_that_led_there() -> Result<()> {
    let mut wall = Wall::prepare()?;
    let _zone = wall.zone()?;
    wall.agent.start_inside(wall.network.near.path());
    wall.agent.start(Some(POLICY))?;
    let by_name = Follow { ports: vec![PORT], ..Follow::asks(Kind::Alias, "app.example", 7, 1) };
    let report = wall.run(&at("app.service"), Act::Follow(by_name))?;
    let [asked, went] = &report.tallies[..] else { anyhow::bail!("two tallies: {report:?}") };
    ensure!(asked.ok == 1 && went.ok == 0 && went.refused == 1, "{report:?}");
    let alert = alert_of(&wall, PORT)?;
    ensure!(alert["flow"]["destination_name"] == "alias-60-7.app.example", "{alert:#}");
    ensure!(alert["dns"].is_null() && alert["flow"]["destination"].is_string(), "{alert:#}");
    // Where nothing led to, nothing is claimed.
    let told = wall.agent.alerts()?.len();
    let process = script(&wall, &at("app.service"), Path::new("/bin/bash"), &attempt(9400))?;
    let alert = wall.agent.wait_for_alert(told, |alert| alert["process"]["pid"] == process.pid())?;
    ensure!(alert["flow"]["destination_name"].is_null(), "{alert:#}");
    let said = wall.agent.say(&["events"])?;
    ensure!(said.text.contains(" alias-60-7.app.example "), "{said:?}");
    Ok(())
}

#[test]
fn a_listed_name_is_told_with_the_version_of_the_list() -> Result<()> {
    let mut wall = Wall::prepare()?;
    let path = wall.scratch("list");
    fs::write(&path, "bad.example\n")?;
    let policy = format!("{POLICY}[[blocklist]]\nname = \"bad\"\nsource = {:?}\n", path.to_string_lossy());
    let _zone = wall.zone()?;
    wall.agent.start_inside(wall.network.near.path());
    wall.agent.start(Some(&policy))?;
    wall.run(&at("app.service"), Act::Follow(Follow::asks(Kind::Host, "bad.example", 1, 1)))?;
    let alert = wall.agent.wait_for_alert(0, |alert| alert["kind"] == "dns.name")?;
    ensure!(
        alert["dns"]["list"] == "bad" && alert["dns"]["list_digest"] == sha256(&path)?.as_str(),
        "{alert:#}"
    );
    let (_, lists) = wall.agent.ask(&["blocklist", "status"])?;
    ensure!(lists.to_string().contains(&sha256(&path)?), "{lists:#}");
    Ok(())
}
