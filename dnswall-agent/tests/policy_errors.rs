//! What a person sees who wrote a policy with mistakes in it.

use dnswall_agent::policy::{Problems, parse};

/// Every mistake of the policy, as the terminal shows it.
fn mistakes(text: &str) -> String {
    parse(text, "policy.toml").expect_err("a mistake").render(false)
}

/// The mistakes of a policy whose top is right.
fn mistakes_in(rest: &str) -> String {
    mistakes(&format!("version = 1\nmode = \"audit\"\n\n{rest}"))
}

#[test]
fn five_different_mistakes_are_reported_at_once() {
    insta::assert_snapshot!(mistakes(
        r#"version = 2
mode = "enforced"

[dns]
resolver = ["10.0.0.2"]

[[allow]]
name = "orders database"
to = ["10.0.3.1/24"]
ports = ["5432"]
"#
    ));
}

#[test]
fn syntax_does_not_hide_the_rest() {
    insta::assert_snapshot!(mistakes(
        r#"version = 1
mode = enforce

[dns]
resolvers = ["10.0.0.2"
encrypted = "deny"

[[allow]]
to = ["10.0.3.0/33"]

[[allow]
to = "10.0.4.0/24"

[[deny]]
to = ["any"]
port = ["tcp/25"]
to = ["10.0.0.0/8"]
"#
    ));
}

#[test]
fn text_without_quotes() {
    insta::assert_snapshot!(mistakes_in(
        r#"[dns]
resolvers = [10.0.0.2, fd00::2]
encrypted = deny

[[allow]]
to = [10.0.0.0/8, any, "10.0.3.1"]
ports = [tcp/443, 443]
name =

[[deny]]
to
"#
    ));
}

#[test]
fn wrong_types() {
    insta::assert_snapshot!(mistakes(
        r#"version = "1"
mode = true
allow = 5
dns = ["10.0.0.2"]

[[deny]]
name = 1.5
to = "10.0.0.1"
ports = 443
from = { unit = "orders.service" }

[[deny]]
to = [10, "10.0.0.2"]
ports = [443]
from = ["orders.service", { user = true }]
"#
    ));
}

#[test]
fn what_is_missing() {
    insta::assert_snapshot!(mistakes(
        r#"# An empty start.

[dns.serve]

[[dns.recursor]]

[[dns.stub]]

[[allow]]

[[deny]]
to = []
ports = []
from = []

[[allow]]
to = ["any"]
from = [{}]

[[scope]]

[raw]
"#
    ));
}

#[test]
fn ports_of_dns_belong_to_dns() {
    insta::assert_snapshot!(mistakes_in(
        r#"[[allow]]
to = ["10.0.0.2"]
ports = ["udp/53", "tcp/53", "sctp/53", "udp/50-60"]

[[deny]]
to = ["10.0.0.2"]
ports = ["udp/53"]
"#
    ));
}

#[test]
fn what_is_known_but_cannot_be_done_yet() {
    insta::assert_snapshot!(mistakes_in(
        r#"[dns]
resolvers = ["dns.example.net"]

[[allow]]
to = ["api.stripe.com", "*.githubusercontent.com", "proxy:corp"]
from = [{ pod = "shop/*" }, { container = "web", exe = "/usr/bin/x" }]
"#
    ));
}

#[test]
fn lists_that_are_fetched() {
    insta::assert_snapshot!(mistakes_in(
        r#"[dns]
resolvers = ["10.0.0.2"]

[[blocklist]]
name = "fine"
source = "https://user:word@lists.example.net/malware.txt?token=sesame"
refresh = "1d"
max-shrink = "0%"
max-growth = "1000%"

[[blocklist]]
name = "plain"
source = "http://user:word@lists.example.net/malware.txt?token=sesame"
refresh = "59s"
max-shrink = "101%"
max-growth = "-1%"

[[blocklist]]
name = "other protocol"
source = "ftp://lists.example.net/malware.txt"
refresh = "31d"
max-shrink = "a third"
max-growth = 100

[[blocklist]]
name = "twice"
source = "https://user:word@lists.example.net/malware.txt?token=sesame"
refresh = "soon"

[[blocklist]]
name = "twice, right"
source = "https://user:word@lists.example.net/malware.txt?token=sesame"

[[blocklist]]
name = "a file"
source = "/etc/dnswall/lists/malware.txt"
refresh = "1h"

[[blocklist]]
name = "no URL"
source = "https://lists.example.net/mal ware.txt#top"

[[blocklist]]
name = "here"
source = "http://[::1]:8080/malware.txt"
"#
    ));
}

#[test]
fn names_in_rules() {
    insta::assert_snapshot!(mistakes_in(
        r#"[dns]
resolvers = ["10.0.0.2"]

[[dns.recursor]]
from = [{ unit = "unbound.service" }]
to = ["dns.example.net"]

[[allow]]
to = ["api..example", "*.1.2", "localhost", "interne", "a_b.example", "*.example.org"]
answers = []

[[allow]]
to = ["10.0.0.0/8"]
answers = ["internet"]

[[allow]]
to = ["api.example"]
answers = ["db.example", "10.0.0.1/8"]

[[deny]]
to = ["ads.example"]
answers = ["any"]
"#
    ));
}

#[test]
fn lists_and_types() {
    insta::assert_snapshot!(mistakes_in(
        r#"[dns]
resolvers = ["10.0.0.2"]
deny-types = ["ANY", "NULLL", "TYPE70000", 5]

[[blocklist]]
name = "a"
source = "malware.txt"
format = "adblock"
action = "drop"
min-entries = 10
max-entries = 5

[[blocklist]]
name = "a"
min-entries = -1

[known-good]
names = ["example.com/path", "*.*.example.com", "a..b", "10.0.0.1", "bücher.example"]
lists = ["top.txt"]
"#
    ));
}

#[test]
fn resolvers_and_stubs() {
    insta::assert_snapshot!(mistakes_in(
        r#"[dns]
resolvers = ["10.0.0.0/24", "0.0.0.0", "10.0.0.2:53", "::ffff:10.0.0.2", "fe80::1%eth0"]
clients = []
encrypted = "block"

[[dns.stub]]
address = "10.0.0.2"
"#
    ));
}

#[test]
fn events_and_limits() {
    insta::assert_snapshot!(mistakes_in(
        r#"[dns]
events = "some"
sample = 5

[dns.limits]
name-length = 300
label-length = "long"
labels = 0
question-per-second = 5
answer-bytes = { TXT = 0, BOGUS = 5, NULL = "x", MX = 1, TYPE15 = 2 }

[[scope]]
from = [{ unit = "a.service" }]
limits = { labels = -1, answer-bytes = { A = 1, AAAA = 1, TXT = 1, NULL = 1, MX = 1 } }

[[scope]]
from = [{ unit = "b.service" }]
"#
    ));
}

#[test]
fn names_and_scopes() {
    insta::assert_snapshot!(mistakes_in(
        r#"[[allow]]
name = "a"
to = ["10.0.0.1"]

[[allow]]
name = "a"
to = ["10.0.0.2"]

[[allow]]
name = " "
to = ["10.0.0.3"]

[[allow]]
to = ["10.0.0.4"]

[[allow]]
name = "3"
to = ["10.0.0.5"]

[[scope]]
name = "nothing"
from = [{ unit = "batch-*.service" }]

[[scope]]
from = [{ unit = "batch-*.service" }]
mode = "aduit"
existing = "kill"

[[deny]]
to = ["10.0.0.6"]
mode = "audit"
action = "drop"
"#
    ));
}

#[test]
fn problems_travel_as_json() {
    let problems =
        parse("version = 1\nmode = \"audit\"\ncolour = 1\n", "policy.toml").expect_err("a mistake");
    insta::assert_json_snapshot!(problems);
    let text = serde_json::to_string(&problems).expect("plain data");
    let back: Problems = serde_json::from_str(&text).expect("what was written");
    assert_eq!(back.list(), problems.list());
}

#[test]
fn color_is_only_there_when_asked_for() {
    let problems = parse("", "policy.toml").expect_err("a mistake");
    assert!(!problems.render(false).contains('\u{1b}'));
    assert!(problems.render(true).contains('\u{1b}'));
}
