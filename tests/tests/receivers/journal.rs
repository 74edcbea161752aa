//! journald: logger and systemd-cat write, each from inside its mount namespace.

use std::fs;
use std::os::unix::net::UnixDatagram;

use anyhow::{Context as _, Result, ensure};
use dnswall_tests::receiver::journal::{Entry, Journal};
use tempfile::TempDir;

use crate::client::{Said, run, until};

const ID: &str = "0195519e-9200-7000-8000-000000000001";

fn start() -> Result<(TempDir, Journal)> {
    let directory = tempfile::tempdir()?;
    let journal = Journal::start(directory.path().join("journal"))?;
    Ok((directory, journal))
}

fn inside(journal: &Journal, program: &[&str], input: &[u8]) -> Result<Said> {
    let namespace = format!("--mount={}", journal.namespace().display());
    run("nsenter", &[&[namespace.as_str()], program].concat(), input)
}

fn logger(journal: &Journal, text: &str) -> Result<Said> {
    let fields = format!("MESSAGE={text}\nPRIORITY=4\nDNSWALL_ID={ID}\nTAG=a\nTAG=b\n");
    inside(journal, &["logger", "--journald"], fields.as_bytes())
}

/// What was said, without journald's own words.
fn entries(journal: &Journal) -> Result<Vec<Entry>> {
    let all = journal.entries()?.into_iter();
    Ok(all.filter(|entry| entry.field("SYSLOG_IDENTIFIER") != Some("systemd-journald")).collect())
}

fn messages(journal: &Journal) -> Result<Vec<String>> {
    let entries = entries(journal)?;
    Ok(entries.iter().map(|entry| entry.field("MESSAGE").unwrap_or_default().to_owned()).collect())
}

#[test]
fn an_entry_has_its_fields() -> Result<()> {
    let (_directory, journal) = start()?;
    assert_eq!(logger(&journal, "refused")?.code, 0);
    let said =
        inside(&journal, &["systemd-cat", "--identifier=dnswall", "--priority=err"], b"from its output\n")?;
    assert_eq!(said.code, 0, "{}", said.errors);
    // A value with a line end inside has its length before it.
    let long = "x".repeat(5_000) + "\n\u{1b}";
    let mut datagram = b"MESSAGE\n".to_vec();
    datagram.extend((long.len() as u64).to_le_bytes());
    datagram.extend(long.as_bytes());
    datagram.push(b'\n');
    UnixDatagram::unbound()?.send_to(&datagram, journal.socket())?;
    until("all are there", || Ok(entries(&journal)?.len() == 3))?;
    let all = entries(&journal)?;
    let by = |text: &str| all.iter().find(|entry| entry.field("MESSAGE") == Some(text)).context("find it");
    let native = by("refused")?;
    assert_eq!((native.field("PRIORITY"), native.field("DNSWALL_ID")), (Some("4"), Some(ID)));
    assert_eq!((native.field("_TRANSPORT"), native.ids()), (Some("journal"), vec![ID.to_owned()]));
    let mut tags = native.values("TAG").to_vec();
    tags.sort();
    assert_eq!(tags, ["a", "b"]);
    let stream = by("from its output")?;
    assert_eq!((stream.field("PRIORITY"), stream.field("SYSLOG_IDENTIFIER")), (Some("3"), Some("dnswall")));
    assert_eq!(by(&long)?.field("_TRANSPORT"), Some("journal"));
    Ok(())
}

#[test]
fn one_that_is_stopped_refuses_and_comes_back_where_it_was() -> Result<()> {
    let (_directory, mut journal) = start()?;
    assert_eq!(logger(&journal, "before")?.code, 0);
    journal.stop();
    ensure!(logger(&journal, "meanwhile")?.code != 0, "nobody is there");
    ensure!(UnixDatagram::unbound()?.connect(journal.socket()).is_err(), "nobody is there");
    journal.resume()?;
    assert_eq!(logger(&journal, "after")?.code, 0);
    until("it is there", || Ok(messages(&journal)?.len() == 2))?;
    assert_eq!(messages(&journal)?, ["before", "after"]);
    Ok(())
}

/// The host's own sockets and logs are as they were.
#[test]
fn this_hosts_journal_is_not_touched() -> Result<()> {
    let looks = || -> Result<String> {
        let mut seen = String::new();
        for path in ["/run/systemd/journal", "/run/log", "/var/log/journal", "/etc/systemd"] {
            // Some of them are not there where systemd does not run.
            let names = fs::read_dir(path).into_iter().flatten();
            let mut names: Vec<_> = names.map(|name| Ok(name?.file_name())).collect::<Result<_>>()?;
            names.sort();
            seen += &format!("{path}: {names:?}\n");
        }
        Ok(seen + &fs::read_to_string("/proc/self/mountinfo")?)
    };
    let before = looks()?;
    let (_directory, journal) = start()?;
    assert_eq!(logger(&journal, "refused")?.code, 0);
    until("it is there", || Ok(messages(&journal)? == ["refused"]))?;
    let unique = |text: &str| {
        text.lines().filter(|line| line.contains("journal")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(unique(&looks()?), unique(&before));
    Ok(())
}
