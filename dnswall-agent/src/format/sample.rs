//! Alerts of every kind, and some that nobody would want to see, for the tests of the formats.

use dnswall_common::flow::protocol;
use dnswall_common::reason::Reason;

use crate::alert::{
    Alert, AlertBlocklist, AlertHash, AlertLimited, AlertLost, AlertLostBySink, AlertNames, AlertPod,
    AlertPolicy, AlertSelftest, AlertTamper, Asked, Kind, Severity, Tally, sample,
};
use crate::blocklist::Entry;
use crate::event::{EnrichedEvent, EventHook, Outcome};

/// One alert of every kind at least, by a name for it.
pub fn alerts() -> Vec<(&'static str, Alert)> {
    let mut alerts = vec![
        ("question", of(|_| {})),
        ("encrypted", of(|event| connect(event, 853))),
        ("listed", of(listed)),
        ("denied-name", of(|event| event.reason = Reason::DeniedName)),
        ("type", of(|event| event.reason = Reason::QuestionType)),
        ("limit", of(|event| event.reason = Reason::NamesPerDomain)),
        ("malformed", of(malformed)),
        ("connect", of(|event| connect(event, 443))),
        ("named", named()),
        ("icmp", of(|event| other_protocol(event, protocol::ICMPV6))),
        ("gre", of(|event| other_protocol(event, 47))),
        ("sum", of(sum)),
        ("ingress", of(ingress)),
        ("raw", of(|event| opened(event, EventHook::SockCreate, Reason::RawSocket, 0))),
        ("unjudged", of(|event| opened(event, EventHook::Socket, Reason::UnjudgedSocket, 17))),
        ("device", of(|event| opened(event, EventHook::Device, Reason::UnjudgedDevice, 200))),
        ("unknown", of(unknown)),
        ("mended", tamper(true)),
        ("tamper", tamper(false)),
        ("selftest", selftest()),
        ("names", Alert { names: Some(names("example.com")), ..of(listed) }),
        ("limited", Alert { limited: Some(AlertLimited { alerts: 12 }), dns: None, ..of(sum) }),
        (
            "limited-all",
            Alert { limited: Some(AlertLimited { alerts: 3 }), flow: None, dns: None, ..of(sum) },
        ),
        ("lost", lost("siem")),
        ("rejected", blocklist(Kind::BlocklistRejected, "malware")),
        ("stale", blocklist(Kind::BlocklistStale, "malware")),
    ];
    let policy = sample::book();
    let mut container = sample::enriched();
    let workload = std::sync::Arc::make_mut(&mut container.workload);
    workload.container = Some("0123456789abcdef".repeat(4));
    let alert = Alert::new(&container, policy.policy(3).map(|policy| &**policy), "web-1", sample::tally());
    alerts.push(("container", alert.clone()));
    alerts.push(("pod", in_pod(alert)));
    let mut claimed = of(|_| {});
    claimed.workload.container_name = Some("shop-api".to_owned());
    claimed.workload.runtime = Some("podman".to_owned());
    alerts.push(("claimed", claimed));
    alerts.push(("hostile-lost", lost("\u{1b}[31m|=\\\"]\n\r\t\0\u{2028}ß")));
    alerts.push(("hostile-list", blocklist(Kind::BlocklistRejected, &"\\=|\"]ß\n".repeat(1_000))));
    alerts.push(("hostile", hostile("\u{1b}[31m|=\\\"]\n\r\t\0 src=6.6.6.6 CEF:0|a|b \u{2028}\u{feff}ß")));
    alerts.push(("long", hostile(&"\\=|\"]ß".repeat(1_000))));
    alerts
}

fn in_pod(mut alert: Alert) -> Alert {
    let text = str::to_owned;
    let workload = &mut alert.workload;
    workload.container_name = Some(text("api"));
    workload.image = Some(text("registry.example.net/shop/api:1.2"));
    workload.runtime = Some(text("containerd"));
    workload.pod = Some(AlertPod {
        namespace: text("shop"),
        name: text("api-7d9f4-x2x"),
        uid: Some(text("0123abcd-0123-4123-8123-0123456789ab")),
        container: Some(text("api")),
        node: Some(text("node-7")),
        labels: Some([("app", "api"), ("tier", "front")].map(|(key, label)| (text(key), text(label))).into()),
    });
    alert
}

/// An alert whose every text, as far as strangers choose it, is this one.
pub fn hostile(text: &str) -> Alert {
    let mut alert = of(listed);
    let text = || text.to_owned();
    alert.host = text();
    alert.rule = Some(text());
    alert.policy.name = Some(text());
    if let Some(dns) = &mut alert.dns {
        (dns.name, dns.kind) = (text(), text());
        (dns.list, dns.entry) = (Some(text()), Some(text()));
    }
    alert.names = Some(names(&text()));
    let process = &mut alert.process;
    (process.comm, process.exe) = (Some(text()), Some(text()));
    (process.command_line, process.user) = (Some(text()), Some(text()));
    process.parents = process.parent.iter().cycle().take(8).cloned().collect();
    process.hash = Some(AlertHash { sha256: "5e".repeat(32) });
    for parent in process.parent.iter_mut().chain(&mut process.parents) {
        (parent.exe, parent.comm, parent.command_line) = (Some(text()), Some(text()), Some(text()));
    }
    if let Some(flow) = &mut alert.flow {
        flow.destination_name = Some(text());
    }
    let workload = &mut alert.workload;
    (workload.cgroup, workload.unit) = (Some(text()), Some(text()));
    (workload.slice, workload.container) = (Some(text()), Some(text()));
    (workload.container_name, workload.image, workload.runtime) = (Some(text()), Some(text()), Some(text()));
    workload.pod = Some(AlertPod {
        namespace: text(),
        name: text(),
        uid: Some(text()),
        container: Some(text()),
        node: Some(text()),
        labels: Some([(text(), text())].into()),
    });
    alert
}

/// Tampering, all of whose texts are this one.
pub fn hostile_tampering(text: &str) -> Alert {
    let mut alert = tamper(false);
    alert.host = text.to_owned();
    alert.workload.cgroup = Some(text.to_owned());
    if let Some(tamper) = &mut alert.tamper {
        (tamper.object, tamper.found, tamper.done) = (text.to_owned(), text.to_owned(), text.to_owned());
    }
    alert
}

/// Names below a domain.
fn names(domain: &str) -> AlertNames {
    let name = |at: u32| format!("{at}.{domain}");
    AlertNames {
        domain: Some(domain.to_owned()),
        distinct: 40,
        first: name(1),
        samples: vec![name(2), name(3)],
    }
}

fn of_agent(kind: Kind, reason: &str) -> Alert {
    let policy = AlertPolicy::new(sample::book().policy(3).map(|policy| &**policy), 3);
    Alert::blank(kind, Severity::High, reason, policy, "web-1", sample::tally())
}

fn lost(sink: &str) -> Alert {
    let sinks = vec![AlertLostBySink { name: sink.to_owned(), alerts: 7 }];
    let lost = AlertLost { queue: 1, memory: 0, refusals: 30, events: 4, sinks };
    Alert { lost: Some(lost), ..of_agent(Kind::AlertsLost, "lost") }
}

fn blocklist(kind: Kind, text: &str) -> Alert {
    let about = AlertBlocklist {
        name: text.to_owned(),
        source: format!("https://lists.example/{text}"),
        found: text.to_owned(),
        over: false,
        fetched: Some(sample::tally().first),
        entries: 9,
    };
    Alert { blocklist: Some(about), ..of_agent(kind, "rejected") }
}

fn of(change: impl FnOnce(&mut EnrichedEvent)) -> Alert {
    let mut event = sample::enriched();
    change(&mut event);
    Alert::new(&event, sample::book().policy(3).map(|policy| &**policy), "web-1", sample::tally())
}

fn connect(event: &mut EnrichedEvent, port: u16) {
    (event.hook, event.outcome, event.question) = (EventHook::Connect, Outcome::WouldDeny, None);
    let above = vec![sample::parent(1_200, "sshd", 9_000_000_000), sample::parent(1, "systemd", 0)];
    std::sync::Arc::make_mut(&mut event.process).parents = above;
    (event.flow.protocol, event.flow.family) = (protocol::TCP, 6);
    (event.flow.source, event.flow.source_port, event.flow.bytes) = (None, None, None);
    event.flow.destination = Some("2001:db8::7".parse().unwrap());
    event.flow.destination_port = port;
}

fn listed(event: &mut EnrichedEvent) {
    event.reason = Reason::ListedName;
    let text = str::to_owned;
    let entry = Entry {
        list: text("malware"),
        entry: text("example.com"),
        meaning: text("subtree"),
        line: 17,
        action: text("deny"),
        digest: Some("cd".repeat(32)),
    };
    event.listed = Some(entry);
}

/// A connection to where a name led, by a program whose hash is known.
fn named() -> Alert {
    let mut alert = of(|event| {
        connect(event, 443);
        event.destination_name = Some(std::sync::Arc::from("evil.example"));
    });
    alert.process.hash = Some(AlertHash { sha256: "5e".repeat(32) });
    alert
}

fn malformed(event: &mut EnrichedEvent) {
    (event.reason, event.question) = (Reason::MalformedQuestion, None);
}

fn other_protocol(event: &mut EnrichedEvent, number: u8) {
    event.question = None;
    (event.flow.protocol, event.flow.destination_port) = (number, 128 << 8);
    event.flow.source = Some("2001:db8::5".parse().unwrap());
    event.flow.destination = Some("2001:db8::7".parse().unwrap());
}

fn sum(event: &mut EnrichedEvent) {
    (event.question, event.flow.source, event.flow.source_port) = (None, None, None);
    (event.flow.destination, event.flow.bytes, event.flow.destination_port) = (None, None, 443);
}

fn ingress(event: &mut EnrichedEvent) {
    (event.hook, event.reason) = (EventHook::Ingress, Reason::NotServed);
}

fn opened(event: &mut EnrichedEvent, hook: EventHook, reason: Reason, number: u16) {
    sum(event);
    (event.hook, event.reason, event.flow.destination_port) = (hook, reason, number);
    event.flow.source_port = (hook == EventHook::Device).then_some(10);
    (event.flow.protocol, event.flow.family) = match hook {
        EventHook::SockCreate => (protocol::ICMP, 4),
        _ => (0, 0),
    };
}

fn unknown(event: &mut EnrichedEvent) {
    sum(event);
    (event.process, event.workload) = Default::default();
    (event.uid, event.user, event.started) = (None, None, None);
}

fn selftest() -> Alert {
    let test = AlertSelftest { number: 7, asked: Asked::Schedule, latency_us: 1_500, previous: None };
    let mut event = sample::enriched();
    connect(&mut event, 9);
    let policy = sample::book().policy(3).cloned();
    Alert::of_selftest(&event, policy.as_deref(), "web-1", test, Tally { count: 1, ..sample::tally() })
}

fn tamper(mended: bool) -> Alert {
    let about = AlertTamper {
        object: "dw_egress".to_owned(),
        found: "link 17 is attached to nothing".to_owned(),
        done: if mended { "attached again as link 40" } else { "nothing can be done from here" }.to_owned(),
        mended,
    };
    let policy = of(|_| {}).policy;
    let tally = Tally { count: 1, ..sample::tally() };
    Alert::of_tampering("link-detached", about, policy, "/", "web-1", tally)
}
