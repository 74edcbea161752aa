//! What may be written into `[[sink]]`, and what may not.

use std::time::Duration;

use super::super::Config;
use super::http::{ACKNOWLEDGED_DEFAULT, INDEX_DEFAULT};
use super::*;
use crate::remote::{Scheme, Secret};

fn sinks(text: &str) -> Vec<SinkConfig> {
    match Config::parse(text, "agent.toml") {
        Ok(config) => config.sinks,
        Err(problems) => panic!("{}", problems.render(false)),
    }
}

fn mistakes(text: &str) -> String {
    Config::parse(text, "agent.toml").unwrap_err().render(false)
}

#[test]
fn every_type_needs_little_and_is_called_by_where_it_leads() {
    let all = r#"
[[sink]]
type = "syslog"
address = "tls://siem.example.net"
[[sink]]
type = "webhook"
url = "https://hooks.example.net/dnswall?key=hush"
[[sink]]
type = "splunk"
url = "https://splunk.example.net:8088"
token-file = "/etc/dnswall/splunk.token"
[[sink]]
type = "elastic"
url = "https://elastic.example.net:9200"
token-env = "ELASTIC_API_KEY"
[[sink]]
type = "otlp"
url = "http://127.0.0.1:4318/v1/logs"
[[sink]]
type = "journald"
"#;
    let all = sinks(all);
    let names: Vec<&str> = all.iter().map(|sink| sink.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "syslog tls://siem.example.net:6514",
            "webhook https://hooks.example.net 8432de78",
            "splunk https://splunk.example.net:8088",
            "elastic https://elastic.example.net:9200",
            "otlp http://127.0.0.1:4318",
            "journald",
        ]
    );
    assert!(!format!("{all:?}").contains("hush"));
    let SinkTarget::Splunk { server, options } = &all[2].target else { panic!("{:?}", all[2]) };
    let token = Secret::File("/etc/dnswall/splunk.token".into());
    assert_eq!(server.authorization, Some((Scheme::Splunk, token)));
    assert_eq!(options.acknowledged_within, Some(ACKNOWLEDGED_DEFAULT));
    let SinkTarget::Elastic { format, index, .. } = &all[3].target else { panic!("{:?}", all[3]) };
    assert_eq!((*format, index.as_str()), (Format::Ecs, INDEX_DEFAULT));
}

#[test]
fn everything_can_be_said() {
    let all = sinks(
        r#"
[[sink]]
name = "siem"
type = "syslog"
address = "tls://[2001:db8::1]:10514"
format = "cef"
framing = "octets"
facility = "local4"
enterprise = 64_512
ca = "/etc/dnswall/ca.pem"
certificate = "/etc/dnswall/host.pem"
key = "/etc/dnswall/host.key"
timeout = "5s"
[[sink]]
name = "hook"
type = "webhook"
url = "https://hooks.example.net"
format = "ocsf"
body = "array"
authorization = "basic"
token-file = "/etc/dnswall/hook"
[[sink]]
name = "indexer"
type = "splunk"
url = "https://splunk.example.net:8088"
token-env = "HEC"
index = "security"
source = "wall"
sourcetype = "_json"
acknowledge = false
"#,
    );
    let SinkTarget::Syslog { place, remote, framing, syslog } = &all[0].target else {
        panic!("{:?}", all[0])
    };
    assert_eq!(
        (place.port, *framing, syslog.body, syslog.enterprise),
        (10_514, Framing::Octets, Format::Cef, 64_512)
    );
    assert!(remote.identity.is_some() && remote.timeout == Duration::from_secs(5));
    let SinkTarget::Webhook { server, format, body } = &all[1].target else { panic!("{:?}", all[1]) };
    assert_eq!((*format, *body), (Format::Ocsf, Body::Array));
    assert!(matches!(server.authorization, Some((Scheme::Basic, _))));
    let SinkTarget::Splunk { options, .. } = &all[2].target else { panic!("{:?}", all[2]) };
    assert_eq!((options.acknowledged_within, options.index.as_deref()), (None, Some("security")));
}

#[test]
fn what_is_wrong_is_said_with_what_to_write() {
    insta::assert_snapshot!(mistakes(
        r#"
[[sink]]
type = "syslog"
address = "siem.example.net:6514"
url = "https://siem.example.net"
[[sink]]
type = "syslog"
address = "udp://siem.example.net"
ca = "/etc/dnswall/ca.pem"
facility = "local9"
[[sink]]
type = "webhook"
url = "http://hooks.example.net/"
certificate = "/etc/dnswall/host.pem"
[[sink]]
type = "webhook"
url = "https://user:hush@hooks.example.net/"
format = "cef"
body = "array"
authorization = "bearer"
[[sink]]
type = "splunk"
url = "https://splunk.example.net:8088"
[[sink]]
type = "elastic"
format = "leef"
token-file = "/a"
token-env = "B"
[[sink]]
name = "a"
type = "journald"
[[sink]]
name = "a"
type = "file"
path = "/var/log/a"
"#
    ));
}
