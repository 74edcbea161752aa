//! An agent whose own root is not the host's: users and program files of the policy are the host's, and so are the names
//! in its alerts.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Result, ensure};
use dnswall_tests::act::{address, tcp, udp};
use dnswall_tests::wall::Wall;
use dnswall_tests::who::{Exe, at};

// Here nobody is called carrier, and there is no /srv/app.
const POLICY: &str = r#"
version = 1
mode = "enforce"
[dns]
resolvers = ["169.254.169.253"]
[[allow]]
name = "by user"
to = ["10.0.3.7"]
ports = ["tcp/5432"]
from = [{ user = "carrier" }]
[[allow]]
name = "by program"
to = ["10.0.3.7"]
ports = ["tcp/5433"]
from = [{ exe = "/srv/a*" }]
"#;

#[test]
fn users_and_programs_are_looked_up_in_the_hosts_root() -> Result<()> {
    let mut wall = Wall::build()?;
    // The test's own directory is the host: its copies of the probe are reached through a link from its root.
    fs::create_dir(wall.scratch("etc"))?;
    fs::write(wall.scratch("etc/passwd"), "root:x:0:0:::\ncarrier:x:65534:65534:::\n")?;
    symlink("/copies", wall.scratch("srv"))?;
    wall.copy("app")?;
    let config = fs::read_to_string(wall.agent.config_path())?;
    let config = format!("host-root = {:?}\n{config}", wall.scratch(""));
    fs::write(wall.agent.config_path(), config)?;
    wall.agent.start(Some(POLICY))?;
    wall.echo(&[address("10.0.3.7:5432"), address("10.0.3.7:5433")].into(), &[].into())?;

    let anyone = at("app.service");
    let carrier = at("app.service").uid(65534);
    let app = at("app.service").exe(Exe::Copy("app"));
    for (who, to, passes) in [
        (&carrier, "10.0.3.7:5432", true),
        (&anyone, "10.0.3.7:5432", false),
        (&app, "10.0.3.7:5433", true),
        (&carrier, "10.0.3.7:5433", false),
    ] {
        let report = wall.run(who, tcp(to))?;
        ensure!(report.ok == passes && report.is_refused() != passes, "{who:?} to {to}: {report:?}");
    }

    let (_, process) = wall.attempt(&carrier, udp("10.0.4.7:99"))?;
    let alert = wall.agent.wait_for_alert(0, |alert| alert["process"]["pid"] == process.pid())?;
    ensure!(alert["process"]["user"] == "carrier", "{alert}");

    let ask = |from: &str, port: &str| {
        wall.agent.ask(&["policy", "explain", "--from", from, "--to", "10.0.3.7", "--port", port])
    };
    for (from, port, expected) in
        [("user:carrier", "tcp/5432", 0), ("user:root", "tcp/5432", 1), ("exe:/srv/app", "tcp/5433", 0)]
    {
        let (code, said) = ask(from, port)?;
        ensure!(code == expected, "{from} {port}: {said}");
    }
    let applied = wall.agent.apply(&POLICY.replace("carrier", "nobody"))?;
    ensure!(applied.code == 3 && applied.errors.contains("no user `nobody`"), "{applied:?}");
    Ok(())
}
