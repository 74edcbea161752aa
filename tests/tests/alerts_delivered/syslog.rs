//! Syslog: every way to rsyslog, with every format, and rsyslog stopped and resumed.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use dnswall_tests::authority::Holder;
use dnswall_tests::receiver::syslog::{Input, Message, Syslog};
use serde_json::{Value, json};

use crate::scene::{Scene, id, is_once};

/// One sink: how it gets there, framing, format, and its facility, by which its messages are told from the others'.
struct Way(Input, &'static str, &'static str, &'static str, u8);

const WAYS: [Way; 10] = [
    Way(Input::Udp, "octets", "text", "authpriv", 10),
    Way(Input::Udp, "lines", "json", "local0", 16),
    Way(Input::Tcp, "octets", "text", "local1", 17),
    Way(Input::Tcp, "lines", "text", "local2", 18),
    Way(Input::Tcp, "lines", "ocsf", "local3", 19),
    Way(Input::Tls, "octets", "text", "local4", 20),
    Way(Input::Tls, "lines", "cef", "local5", 21),
    Way(Input::Tls, "octets", "ecs", "local6", 22),
    Way(Input::Mutual, "octets", "leef", "local7", 23),
    Way(Input::Mutual, "lines", "json", "daemon", 3),
];
const ENTERPRISE: u32 = 54_321;

impl Way {
    fn name(&self) -> String {
        let Self(input, framing, format, facility, _) = self;
        format!("{input:?} {framing} {format} {facility}")
    }

    fn keys(&self, syslog: &Syslog, files: &str) -> String {
        let Self(input, framing, format, facility, _) = self;
        let (scheme, more) = match input {
            Input::Udp => ("udp", ""),
            Input::Tcp => ("tcp", ""),
            Input::Tls | Input::Mutual => ("tls", files),
        };
        let at = syslog.at(*input);
        format!(
            "type = \"syslog\"\naddress = \"{scheme}://{at}\"\nframing = \"{framing}\"\nformat = \"{format}\"\n\
             facility = \"{facility}\"\nenterprise = {ENTERPRISE}\n{more}"
        )
    }

    fn messages(&self, syslog: &Syslog) -> Result<Vec<Message>> {
        let all = syslog.messages()?.into_iter();
        Ok(all.filter(|message| message.facility() == self.4).collect())
    }

    fn ids(&self, syslog: &Syslog) -> Result<Vec<String>> {
        Ok(self.messages(syslog)?.iter().flat_map(Message::ids).collect())
    }
}

#[test]
fn every_way_to_rsyslog_brings_every_alert() -> Result<()> {
    let mut scene = Scene::set()?;
    let mut syslog = Syslog::start(scene.wall.scratch("syslog"), &scene.authority)?;
    let own = scene.authority.certify(&scene.wall.scratch(""), "agent", Holder::Host("agent.example"))?;
    let (ca, pem, key) = (scene.authority.pem(), own.pem, own.key);
    let files = format!("ca = {ca:?}\ncertificate = {pem:?}\nkey = {key:?}\n");
    for way in &WAYS {
        scene.sink(&way.name(), &way.keys(&syslog, &files))?;
    }
    scene.start()?;
    scene.refuse(8)?;
    let all = scene.wall.agent.alerts()?;
    let pid = scene.wall.agent.pid().context("it runs")?;
    for way in &WAYS {
        let name = way.name();
        let times = scene.until_all_came(&name, || way.ids(&syslog))?;
        ensure!(is_once(&times), "{name}: {times:?}");
        scene.until_taken(&name)?;
        let messages = way.messages(&syslog)?;
        ensure!(messages.len() == all.len(), "{name}: each in a message of its own");
        for (place, (alert, message)) in all.iter().zip(&messages).enumerate() {
            check(way, place, alert, message, pid)
                .with_context(|| format!("{name}: {alert}\n{message:?}"))?;
        }
    }

    syslog.stop();
    let missed = scene.refuse(5)?;
    // Datagrams are sent to whoever may be there.
    for way in WAYS.iter().filter(|way| way.0 != Input::Udp) {
        let status = scene.until_failing(&way.name(), "refused")?;
        ensure!(status.waiting == 5, "{}: {status:?}", way.name());
    }
    syslog.resume()?;
    scene.refuse(3)?;
    for way in &WAYS {
        let name = way.name();
        if way.0 == Input::Udp {
            // Those from before and those from after.
            let mut expected = scene.ids()?;
            for alert in &missed {
                expected.remove(&id(alert)?);
            }
            let lost = || Ok(way.ids(&syslog)?.into_iter().filter(|id| expected.contains(id)).collect());
            scene.until_came(&name, &expected, lost)?;
            continue;
        }
        let times = scene.until_all_came(&name, || way.ids(&syslog))?;
        ensure!(times.values().all(|times| *times <= 2), "{name}: {times:?}");
        scene.until_taken(&name)?;
    }
    Ok(())
}

/// Everything that the RFC has, and what the message says of the alert.
fn check(way: &Way, place: usize, alert: &Value, message: &Message, pid: u32) -> Result<()> {
    let Way(input, framing, format, _, facility) = way;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let severity = match alert["severity"].as_str() {
        Some("info") => 6,
        Some("low") => 5,
        Some("medium") => 4,
        Some("high") => 3,
        Some("critical") => 2,
        other => anyhow::bail!("severity {other:?}"),
    };
    assert_eq!((message.input, message.version), (*input, 1));
    assert_eq!((message.facility(), message.severity()), (*facility, severity));
    assert_eq!(message.timestamp, text(&alert["time"]));
    assert_eq!(message.hostname, text(&alert["host"]));
    assert_eq!((message.app_name.as_str(), message.procid.clone()), ("dnswall", pid.to_string()));
    assert_eq!(message.msgid, text(&alert["kind"]));
    // A line's end is no part of it, nor is a length.
    ensure!(message.raw.starts_with('<') && !message.raw.ends_with('\n'), "framing {framing}");
    let elements = elements(&message.structured_data)?;
    let sequence: usize = elements["meta"]["sequenceId"].parse()?;
    assert_eq!(sequence, place + 1);
    let msg = message.msg.as_str();
    let flow = &alert["flow"];
    match *format {
        "text" => {
            let own = &elements[format!("dnswall@{ENTERPRISE}").as_str()];
            for (name, value) in [
                ("id", text(&alert["id"])),
                ("severity", text(&alert["severity"])),
                ("verdict", "denied".to_owned()),
                ("count", alert["count"].to_string()),
                ("generation", alert["policy"]["generation"].to_string()),
                ("src", text(&flow["source"])),
                ("dst", text(&flow["destination"])),
                ("spt", flow["source_port"].to_string()),
                ("dpt", "9000".to_owned()),
                ("proto", "udp".to_owned()),
                ("communityId", text(&flow["community_id"])),
                ("reason", "no-rule".to_owned()),
                ("rule", "default".to_owned()),
                ("pid", alert["process"]["pid"].to_string()),
                ("uid", alert["process"]["uid"].to_string()),
                ("exe", text(&alert["process"]["exe"])),
                ("unit", "app.service".to_owned()),
                ("cgroup", text(&alert["workload"]["cgroup"])),
            ] {
                assert_eq!(own.get(name), Some(&value), "{name}");
            }
            let sentence = msg.strip_prefix('\u{feff}').context("a byte order mark")?;
            ensure!(sentence.contains(&text(&flow["destination"])), "{sentence}");
        }
        "json" => assert_eq!(serde_json::from_str::<Value>(msg)?, *alert),
        "ecs" => {
            let value: Value = serde_json::from_str(msg)?;
            assert_eq!(value["event"]["id"], alert["id"]);
            assert_eq!(value["destination"]["ip"], flow["destination"]);
        }
        "ocsf" => {
            let value: Value = serde_json::from_str(msg)?;
            assert_eq!(value["metadata"]["uid"], alert["id"]);
            assert_eq!((&value["class_uid"], &value["dst_endpoint"]["port"]), (&json!(4001), &json!(9000)));
        }
        "cef" => {
            let (header, extension) = msg.rsplit_once('|').context("a header")?;
            let words: Vec<&str> = header.split('|').collect();
            assert_eq!((words.len(), words[0], words[1]), (7, "CEF:0", "dnswall"));
            assert_eq!(words[4], text(&alert["kind"]));
            for pair in [format!("externalId={}", text(&alert["id"])), "dpt=9000".to_owned()] {
                ensure!(extension.split(' ').any(|word| word == pair), "{pair}: {extension}");
            }
        }
        "leef" => {
            let (header, values) = msg.rsplit_once('|').context("a header")?;
            ensure!(header.starts_with("LEEF:2.0|dnswall|dnswall|") && header.ends_with("|x09"), "{header}");
            let values: BTreeMap<&str, &str> =
                values.split('\t').filter_map(|pair| pair.split_once('=')).collect();
            assert_eq!(values["id"], text(&alert["id"]));
            assert_eq!((values["dst"], values["dstPort"]), (text(&flow["destination"]).as_str(), "9000"));
        }
        other => anyhow::bail!("format {other}"),
    }
    Ok(())
}

/// `[name key="value" …][…]`, read by the letter of RFC 5424.
fn elements(text: &str) -> Result<BTreeMap<&str, BTreeMap<&str, String>>> {
    let mut elements = BTreeMap::new();
    let mut rest = text;
    while !rest.is_empty() {
        rest = rest.strip_prefix('[').context("an element")?;
        let end = rest.find([' ', ']']).context("its end")?;
        let (name, mut behind) = rest.split_at(end);
        let mut parameters = BTreeMap::new();
        while let Some(parameter) = behind.strip_prefix(' ') {
            let (key, value) = parameter.split_once("=\"").context("a parameter")?;
            let mut plain = String::new();
            let mut characters = value.char_indices();
            let end = loop {
                match characters.next().context("a quote at the end")? {
                    (at, '"') => break at,
                    (_, '\\') => plain.push(characters.next().context("what is escaped")?.1),
                    (_, ']') => anyhow::bail!("] is not escaped"),
                    (_, other) => plain.push(other),
                }
            };
            ensure!(parameters.insert(key, plain).is_none(), "{key} is there twice");
            behind = &value[end + 1..];
        }
        elements.insert(name, parameters);
        rest = behind.strip_prefix(']').context("the element's end")?;
    }
    Ok(elements)
}
