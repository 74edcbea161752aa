//! What names in rules become: whom they lead where, what differs between two policies, how many there may be.

use dnswall_agent::blocklist::name::DomainName;
use dnswall_agent::compile::{FixedEnvironment, Identity, compile, diff, explain, explain_name};
use dnswall_agent::policy::{Policy, parse};
use dnswall_common::flow::{Address, Flow, protocol};
use dnswall_common::quota::{LIMITS_ANSWERS, LIMITS_QUESTIONS};
use dnswall_common::who::Who;
use std::fmt::Write as _;

fn policy(text: &str) -> Policy {
    parse(text, "policy.toml").unwrap_or_else(|problems| panic!("{problems}"))
}

fn refusal(text: &str) -> String {
    compile(&policy(text), &FixedEnvironment::default()).expect_err("a refusal").render(false)
}

const NAMES: &str = r#"version = 1
mode = "enforce"

[dns]
resolvers = ["10.0.0.2"]

[[deny]]
name = "tracking"
to = ["*.ads.example", "ads.example"]

[[deny]]
name = "not by mail"
to = ["*.corp.example"]
ports = ["tcp/25"]

[[allow]]
name = "payments"
to = ["API.pay.example.", "*.cdn.example", "10.0.3.0/24"]
ports = ["tcp/443"]
from = [{ unit = "shop.service" }]

[[allow]]
name = "inside"
to = ["*.corp.example"]
answers = ["10.0.0.0/8"]
ports = ["tcp/25", "tcp/443"]
"#;

#[test]
fn names_are_explained_by_their_question_and_where_they_lead() {
    let compiled = compile(&policy(NAMES), &FixedEnvironment::default());
    let (image, warnings) = compiled.unwrap_or_else(|problems| panic!("{problems}"));
    assert!(warnings.is_empty(), "{warnings:?}");
    let shop = Identity { cgroup: "/system.slice/shop.service".to_owned(), ..Identity::default() };
    let other = Identity { cgroup: "/system.slice/other.service".to_owned(), ..Identity::default() };
    let cases = [
        (&shop, "api.pay.example", 443),
        (&shop, "www.api.pay.example", 443),
        (&shop, "api.pay.example", 80),
        (&other, "api.pay.example", 443),
        (&shop, "a.b.cdn.example", 443),
        (&shop, "cdn.example", 443),
        (&other, "db.corp.example", 443),
        (&other, "db.corp.example", 25),
        (&shop, "ads.example", 443),
        (&shop, "x.y.ads.example", 443),
        (&shop, "dns.google", 443),
    ];
    let mut text = String::new();
    for (identity, name, port) in cases {
        let parsed = DomainName::new(name).expect("a name");
        let explanation = explain_name(&image, identity, &parsed, protocol::TCP, port);
        writeln!(text, "{} {name} {port}\n{explanation}\n", identity.cgroup).expect("a string");
    }
    for (said, address) in [("44.1.2.3", 0x2c01_0203), ("8.8.8.8, a resolver over HTTPS", 0x0808_0808)] {
        let by_address = Flow { address: Address::V4(address), protocol: protocol::TCP, port: 443 };
        writeln!(text, "{said}\n{}\n", explain(&image, &shop, &by_address)).expect("a string");
    }
    insta::assert_snapshot!(text);
}

#[test]
fn who_may_answer_is_thought_of_before_names_are_believed() {
    let warnings = |dns: &str, rule: &str| {
        let text =
            format!("version = 1\nmode = \"enforce\"\n[dns]\n{dns}\n[[{rule}]]\nto = [\"a.example\"]\n");
        let (_, warnings) = compile(&policy(&text), &FixedEnvironment::default()).expect("an image");
        warnings.into_iter().map(|warning| warning.message).collect::<Vec<_>>()
    };
    assert_eq!(warnings("", "allow"), ["rules lead to names, and nobody's answers count"]);
    let open = "anybody here may answer as the stub at 127.0.0.53";
    assert_eq!(warnings("resolvers = [\"127.0.0.53\"]", "allow"), [open]);
    let stub = "[[dns.stub]]\naddress = \"127.0.0.53\"\nfrom = [{ unit = \"systemd-resolved.service\" }]";
    assert_eq!(warnings(stub, "allow"), [""; 0]);
    assert_eq!(warnings("resolvers = [\"10.0.0.2\"]", "allow"), [""; 0]);
    // Encrypted resolvers are refused by name in every policy: nobody has to answer for that.
    assert_eq!(warnings("", "deny"), [""; 0]);
}

#[test]
fn names_and_where_they_may_lead_are_differences() {
    let changed = NAMES
        .replace("\"*.cdn.example\", ", "")
        .replace("answers = [\"10.0.0.0/8\"]", "answers = [\"internet\", \"10.0.0.0/8\"]");
    insta::assert_snapshot!(diff(&policy(NAMES), &policy(&changed)));
}

#[test]
fn scopes_have_the_limits_they_say_and_those_of_dns_else() {
    let text = r#"version = 1
mode = "enforce"
[dns.limits]
labels = 5
questions-per-second = 10
answer-bytes = { TXT = 100, NULL = 200 }
[[dns.recursor]]
from = [{ unit = "unbound.service" }]
to = ["any"]
[[scope]]
name = "same"
from = [{ unit = "same.service" }]
mode = "audit"
[[scope]]
name = "more"
from = [{ unit = "more.service" }]
limits = { labels = 9, questions-per-second = "none", names-per-domain = 10 }
[[scope]]
name = "none"
from = [{ unit = "none.service" }]
limits = { labels = "none", questions-per-second = "none", answer-bytes = {} }
[[scope]]
name = "more again"
from = [{ unit = "again.service" }]
limits = { labels = 9, questions-per-second = "none", names-per-domain = 10 }
"#;
    let (image, _) =
        compile(&policy(text), &FixedEnvironment::default()).unwrap_or_else(|problems| panic!("{problems}"));
    let at = |unit: &str| Identity { cgroup: format!("/system.slice/{unit}"), ..Identity::default() };
    let of = |unit: &str| {
        let who = image.who(&at(unit));
        let limits = image.header.limits[usize::from(image.header.limits_of(&who))];
        let weighed = limits.answers.iter().filter(|answer| answer.bytes != 0).count();
        let rule = image.rule(limits.rule).name.clone();
        (
            limits.labels,
            limits.questions,
            limits.names,
            weighed,
            rule,
            image.header.unlimited.intersects(&who),
        )
    };
    let everyones = |is_unlimited| (5, 10, 0, 2, "dns.limits".to_owned(), is_unlimited);
    assert_eq!(of("other.service"), everyones(false));
    assert_eq!(of("same.service"), everyones(false));
    assert_eq!(of("unbound.service"), everyones(true));
    let more = (9, 0, 10, 2, "scope.more.limits".to_owned(), false);
    assert_eq!((of("more.service"), of("again.service")), (more.clone(), more));
    assert_eq!(of("none.service"), (0, 0, 0, 0, "default".to_owned(), false));
    assert_eq!(image.header.limited, LIMITS_QUESTIONS | LIMITS_ANSWERS);
    // Whom no scope could name has the strictest of all, not those of a scope that has none.
    let hidden = image.header.limits[usize::from(image.header.limits_of(&Who::NONE))];
    assert_eq!((hidden.labels, hidden.questions, hidden.names), (5, 10, 10));
    assert_eq!(image.rule(hidden.rule).name, "dns.limits");

    let scopes = |count: usize| {
        let scope = |index| {
            format!("[[scope]]\nfrom = [{{ user = {index} }}]\nlimits = {{ labels = {} }}\n", index + 1)
        };
        (0..count).fold("version = 1\nmode = \"audit\"\n".to_owned(), |text, index| text + &scope(index))
    };
    assert!(compile(&policy(&scopes(14)), &FixedEnvironment::default()).is_ok());
    let message = refusal(&scopes(15));
    assert!(message.contains("16 different sets of limits") && message.contains("holds 15"), "{message}");
}

/// A policy without the names of encrypted resolvers.
const HEAD: &str = "version = 1\nmode = \"audit\"\n[dns]\nencrypted = \"allow\"\n";

#[test]
fn too_many_names_are_said_with_their_numbers() {
    let names = |count: usize| {
        let list: Vec<String> = (0..count).map(|index| format!("\"n{index}.example\"")).collect();
        format!("{HEAD}[[allow]]\nto = [{}]\n", list.join(", "))
    };
    assert!(compile(&policy(&names(4_096)), &FixedEnvironment::default()).is_ok());
    let message = refusal(&names(4_097));
    assert!(message.contains("lead to 4097 names") && message.contains("the kernel holds 4096"), "{message}");
    let lists = |count: u32| {
        let rule =
            |index: u32| format!("[[allow]]\nto = [\"n{index}.example\"]\nports = [\"tcp/{index}\"]\n");
        let rules: String = (1_000..1_000 + count).map(rule).collect();
        format!("{HEAD}{rules}")
    };
    assert!(compile(&policy(&lists(255)), &FixedEnvironment::default()).is_ok());
    let message = refusal(&lists(256));
    assert!(message.contains("256 rules have names of their own"), "{message}");
}
