//! rsyslog: logger sends over UDP and TCP, openssl over TLS.

use anyhow::{Context as _, Result, ensure};
use dnswall_tests::authority::Authority;
use dnswall_tests::receiver::syslog::{Input, Syslog};
use tempfile::TempDir;

use crate::client::{Said, client_certificate, run, shown, until};

const ID: &str = "0195519e-9200-7000-8000-000000000001";

fn start() -> Result<(TempDir, Authority, Syslog)> {
    let directory = tempfile::tempdir()?;
    let authority = Authority::make(directory.path())?;
    let syslog = Syslog::start(directory.path().join("syslog"), &authority)?;
    Ok((directory, authority, syslog))
}

/// logger's own message, with an element of structured data.
fn logger(syslog: &Syslog, more: &[&str], text: &str) -> Result<Said> {
    let at = syslog.at(Input::Tcp);
    let (host, port) = (at.ip().to_string(), at.port().to_string());
    let fixed =
        ["--server", &host, "--port", &port, "--rfc5424=notime,nohost", "--priority", "local0.warning"];
    let parts = ["--tag", "dnswall", "--msgid", "DNSDROP", "--sd-id", "a@32473", "--sd-param", "id=\"7\""];
    run("logger", &[&fixed[..], &parts, more, &["--", text]].concat(), b"")
}

/// A message with counted octets, through openssl.
fn over_tls(
    syslog: &Syslog,
    input: Input,
    authority: &Authority,
    more: &[&str],
    message: &str,
) -> Result<Said> {
    let at = syslog.at(input).to_string();
    let fixed =
        ["s_client", "-connect", &at, "-CAfile", shown(authority.pem())?, "-verify_return_error", "-quiet"];
    // It stays until it is told that the other side has ended, which it never does.
    let limited = [&["5", "openssl"], &fixed[..], &["-no_ign_eof"], more].concat();
    run("timeout", &limited, format!("{} {message}", message.len()).as_bytes())
}

#[test]
fn a_message_comes_in_its_parts() -> Result<()> {
    let (_directory, _authority, syslog) = start()?;
    let ways: [(&[&str], Input); 3] =
        [(&["--udp"], Input::Udp), (&["--tcp"], Input::Tcp), (&["--tcp", "--octet-count"], Input::Tcp)];
    for (number, (more, input)) in ways.into_iter().enumerate() {
        let said = logger(&syslog, more, &format!("refused {ID} ü"))?;
        ensure!(said.code == 0, "{}", said.errors);
        until("it is there", || Ok(syslog.messages()?.len() == number + 1))?;
        let message = syslog.messages()?.pop().context("a message")?;
        assert_eq!((message.input, message.version, message.pri), (input, 1, 132));
        assert_eq!((message.facility(), message.severity()), (16, 4));
        assert_eq!((message.app_name.as_str(), message.msgid.as_str()), ("dnswall", "DNSDROP"));
        assert_eq!(message.structured_data, "[a@32473 id=\"7\"]");
        assert_eq!(message.msg, format!("refused {ID} ü"));
        assert_eq!(message.ids(), [ID]);
    }
    Ok(())
}

#[test]
fn tls_may_ask_for_a_certificate() -> Result<()> {
    let (directory, authority, syslog) = start()?;
    let message = |text: &str| {
        format!("<130>1 2026-03-01T12:00:00.123456Z web-1 dnswall 12 DNSDROP [a@1 b=\"\\\"\\]\"] {text}")
    };
    over_tls(&syslog, Input::Tls, &authority, &[], &message("to all"))?;
    over_tls(&syslog, Input::Mutual, &authority, &[], &message("without"))?;
    let (pem, key) = client_certificate(&authority, directory.path())?;
    let with = ["-cert", shown(&pem)?, "-key", shown(&key)?];
    over_tls(&syslog, Input::Mutual, &authority, &with, &message("with"))?;
    until("both are there", || Ok(syslog.messages()?.len() >= 2))?;
    let messages = syslog.messages()?;
    let came: Vec<_> = messages.iter().map(|message| (message.input, message.msg.as_str())).collect();
    assert_eq!(came, [(Input::Tls, "to all"), (Input::Mutual, "with")]);
    let first = &messages[0];
    assert_eq!((first.timestamp.as_str(), first.hostname.as_str()), ("2026-03-01T12:00:00.123456Z", "web-1"));
    assert_eq!((first.procid.as_str(), first.structured_data.as_str()), ("12", "[a@1 b=\"\\\"\\]\"]"));
    assert_eq!(first.raw, message("to all"));
    ensure!(syslog.said().contains("did not provide a certificate"), "{}", syslog.said());
    Ok(())
}

#[test]
fn one_that_is_stopped_refuses_and_comes_back_where_it_was() -> Result<()> {
    let (_directory, _authority, mut syslog) = start()?;
    let at = syslog.at(Input::Tcp);
    assert_eq!(logger(&syslog, &["--tcp"], "before")?.code, 0);
    until("it is there", || Ok(syslog.messages()?.len() == 1))?;
    syslog.stop();
    ensure!(logger(&syslog, &["--tcp"], "meanwhile")?.code != 0, "nobody is there");
    syslog.resume()?;
    assert_eq!(syslog.at(Input::Tcp), at);
    assert_eq!(logger(&syslog, &["--tcp"], "after")?.code, 0);
    until("it is there", || Ok(syslog.messages()?.len() == 2))?;
    let texts: Vec<_> = syslog.messages()?.into_iter().map(|message| message.msg).collect();
    assert_eq!(texts, ["before", "after"]);
    Ok(())
}
