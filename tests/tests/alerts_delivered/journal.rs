//! systemd's journal: an entry for each alert, with its fields.

use std::os::unix::net::UnixDatagram;

use anyhow::{Context as _, Result, ensure};
use dnswall_agent::alert::Alert;
use dnswall_agent::format::journal::fields as journal_fields;
use dnswall_agent::sink::journal::hand_over;
use dnswall_tests::act::{Act, Errand, ErrandBy, address};
use dnswall_tests::receiver::journal::{Entry, Journal};
use dnswall_tests::who::at;
use serde_json::Value;

use crate::scene::{Scene, id, is_once, until};

/// Without journald's own words.
fn entries(journal: &Journal) -> Result<Vec<Entry>> {
    let all = journal.entries()?.into_iter();
    Ok(all.filter(|entry| entry.field("SYSLOG_IDENTIFIER") == Some("dnswall")).collect())
}

fn ids(journal: &Journal) -> Result<Vec<String>> {
    let entries = entries(journal)?;
    entries.iter().map(|entry| Ok(entry.field("DNSWALL_ID").context("an id")?.to_owned())).collect()
}

#[test]
fn entries_have_every_alert_and_its_fields() -> Result<()> {
    let mut scene = Scene::set()?;
    let mut journal = Journal::start(scene.wall.scratch("journal"))?;
    scene.sink("journal", &format!("type = \"journald\"\nsocket = {:?}", journal.socket()))?;
    scene.start()?;
    scene.refuse(3)?;
    let long = long_command(&mut scene)?;
    let times = scene.until_all_came("journal", || ids(&journal))?;
    ensure!(is_once(&times), "{times:?}");
    scene.until_taken("journal")?;
    let all = scene.wall.agent.alerts()?;
    let pid = scene.wall.agent.pid().context("it runs")?;
    for (alert, entry) in all.iter().zip(&entries(&journal)?) {
        check(alert, entry, pid).with_context(|| format!("{alert}\n{entry:?}"))?;
    }
    let command = &long["process"]["command_line"];
    ensure!(command.to_string().len() > 4_000, "as JSON has it: {command}");

    journal.stop();
    scene.refuse(4)?;
    let status = scene.until_failing("journal", "refused")?;
    ensure!(status.waiting == 4, "{status:?}");
    journal.resume()?;
    scene.refuse(1)?;
    let times = scene.until_all_came("journal", || ids(&journal))?;
    ensure!(is_once(&times), "{times:?}");
    scene.until_taken("journal")?;
    Ok(())
}

/// No alert is as long as the usual datagram may be, which is for the host to say; so here it may be shorter.
#[test]
fn what_no_datagram_has_room_for_comes_in_a_file() -> Result<()> {
    let mut scene = Scene::set()?;
    let journal = Journal::start(scene.wall.scratch("journal"))?;
    scene.start()?;
    let long = long_command(&mut scene)?;
    let alert: Alert = serde_json::from_value(long.clone())?;
    let fields = journal_fields(&alert);
    let socket = UnixDatagram::unbound()?;
    socket2::SockRef::from(&socket).set_send_buffer_size(1)?;
    let refused = socket.send_to(&fields, journal.socket()).err().and_then(|error| error.raw_os_error());
    ensure!(refused == Some(libc::EMSGSIZE), "{refused:?}: a datagram has room for {} bytes", fields.len());
    hand_over(&socket, &journal.socket(), &fields)?;
    until("it is there", || Ok(ids(&journal)? == [id(&long)?]))?;
    check(&long, &entries(&journal)?[0], std::process::id())
}

/// Lets somebody with a long command line, its own order, try where nobody may go, and gives the alert.
fn long_command(scene: &mut Scene) -> Result<Value> {
    let to = address("10.0.4.9:77");
    let errands = vec![Errand { to, by: ErrandBy::UdpFresh }; 200];
    let before = scene.wall.agent.alerts()?.len();
    let mut process = scene.wall.start(&at("app.service"), Act::Steps { errands })?;
    process.exchange()?;
    let is_it = |alert: &Value| alert["flow"]["destination"] == "10.0.4.9";
    let alert = scene.wall.agent.wait_for_alert(before, is_it)?;
    // The others of the same flow are told once its interval is over.
    let told = |alert: &Value| is_it(alert) && alert["count"] == 199;
    scene.wall.agent.wait_for_alert(before, told)?;
    Ok(alert)
}

fn check(alert: &Value, entry: &Entry, pid: u32) -> Result<()> {
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let priority = match alert["severity"].as_str() {
        Some("info") => "6",
        Some("low") => "5",
        Some("medium") => "4",
        Some("high") => "3",
        other => anyhow::bail!("severity {other:?}"),
    };
    for (name, value) in [
        ("PRIORITY", priority.to_owned()),
        ("SYSLOG_IDENTIFIER", "dnswall".to_owned()),
        ("_PID", pid.to_string()),
        ("_TRANSPORT", "journal".to_owned()),
        ("DNSWALL_ID", id(alert)?),
        ("DNSWALL_KIND", text(&alert["kind"])),
        ("DNSWALL_REASON", "no-rule".to_owned()),
        ("DNSWALL_RULE", "default".to_owned()),
        ("DNSWALL_COUNT", text(&alert["count"])),
        ("DNSWALL_EXE", text(&alert["process"]["exe"])),
        ("DNSWALL_DESTINATION", text(&alert["flow"]["destination"])),
        ("OBJECT_SYSTEMD_UNIT", "app.service".to_owned()),
        ("OBJECT_PID", text(&alert["process"]["pid"])),
    ] {
        assert_eq!(entry.values(name), [value], "{name}");
    }
    let whole: Value = serde_json::from_str(entry.field("DNSWALL_ALERT").context("the alert")?)?;
    assert_eq!(whole, *alert);
    let message = entry.field("MESSAGE").context("a message")?;
    ensure!(message.contains(&text(&alert["flow"]["destination"])), "{message}");
    Ok(())
}
