//! What becomes of rules where encrypted DNS is refused.

use dnswall_agent::blocklist::name::DomainName;
use dnswall_agent::compile::{FixedEnvironment, Identity, MapImage, compile, explain, explain_name};
use dnswall_agent::policy::{Policy, parse};
use dnswall_common::flow::{Address, Flow, protocol};
use std::net::IpAddr;

fn policy(text: &str) -> Policy {
    parse(text, "policy.toml").unwrap_or_else(|problems| panic!("{problems}"))
}

/// The image, and what it warns of.
fn compiled(text: &str, environment: &FixedEnvironment) -> (MapImage, Vec<String>) {
    let (image, warnings) =
        compile(&policy(text), environment).unwrap_or_else(|problems| panic!("{problems}"));
    (image, warnings.into_iter().map(|warning| warning.message).collect())
}

fn rule_for(image: &MapImage, address: &str, port: u16) -> String {
    let address = match address.parse().expect("an address") {
        IpAddr::V4(address) => Address::V4(address.into()),
        IpAddr::V6(address) => Address::V6((u128::from(address) >> 64) as u64, u128::from(address) as u64),
    };
    let explanation = explain(image, &Identity::default(), &Flow { address, protocol: protocol::TCP, port });
    format!("{} {}", explanation.outcome.name(), explanation.rule.name)
}

#[test]
fn a_rule_that_is_used_in_one_part_is_used() {
    let text = r#"version = 1
mode = "enforce"
[[allow]]
name = "a"
to = ["9.9.9.9", "64:ff9b::909:909"]
ports = ["tcp/443"]
[[allow]]
name = "b"
to = ["9.9.9.9", "10.99.0.2"]
ports = ["tcp/443"]
[[allow]]
name = "none of it"
to = ["9.9.9.9"]
ports = ["tcp/443"]
"#;
    let (image, warnings) = compiled(text, &FixedEnvironment::default());
    assert_eq!(warnings, ["allow.none of it never decides"]);
    assert_eq!(rule_for(&image, "9.9.9.9", 443), "allowed allow.a");
    assert_eq!(rule_for(&image, "64:ff9b::909:909", 443), "allowed allow.a", "its own address, translated");
    assert_eq!(rule_for(&image, "10.99.0.2", 443), "allowed allow.b");
    assert_eq!(rule_for(&image, "9.9.9.9", 853), "denied dns.encrypted");
}

#[test]
fn a_port_opens_no_names_that_a_rule_does_not_name() {
    let text = r#"version = 1
mode = "enforce"
[dns]
resolvers = ["10.0.0.2"]
[[allow]]
name = "by port"
to = ["*.com", "*.net", "dns.quad9.net"]
ports = ["tcp/853"]
[[allow]]
name = "web"
to = ["internet"]
ports = ["tcp/443"]
"#;
    let (image, _) = compiled(text, &FixedEnvironment::default());
    let question = |name: &str| {
        let name = DomainName::new(name).expect("a name");
        explain_name(&image, &Identity::default(), &name, protocol::TCP, 853).reason
    };
    assert_eq!(question("dns.quad9.net"), "rule");
    assert_eq!(question("dns.mullvad.net"), "denied-name");
    assert_eq!(question("cloudflare-dns.com"), "denied-name");
    assert_eq!(question("www.example.com"), "rule");
    assert_eq!(rule_for(&image, "9.9.9.9", 443), "denied dns.encrypted");
}

#[test]
fn what_has_decided_goes_on_without_the_list_where_that_does_not_fit() {
    let rule = |index| {
        format!("[[allow]]\nto = [\"9.9.9.9\"]\nports = [\"tcp/443\"]\nfrom = [{{ user = {index} }}]\n")
    };
    let head = "version = 1\nmode = \"enforce\"\n".to_owned();
    let full = (0..64).fold(head, |text, index| text + &rule(index))
        + "[[allow]]\nto = [\"internet\"]\nports = [\"tcp/1-65535\"]\nfrom = [{ user = 0 }]\n";
    // With the refusal it is one more than there may be; this is without it, too.
    let crowded = format!("{full}{}", rule(99));
    let refusal = compile(&policy(&full), &FixedEnvironment::default()).expect_err("too many").render(false);
    assert!(refusal.contains("65 rules answer for the same destination and port"), "{refusal}");
    let decided = FixedEnvironment { has_decided: true, ..FixedEnvironment::default() };
    let (image, warnings) = compiled(&full, &decided);
    assert_eq!(warnings, ["known resolvers of encrypted DNS are not refused"]);
    let by = |port| {
        let who = Identity { uid: Some(0), ..Identity::default() };
        let flow = Flow { address: Address::V4(0x0808_0808), protocol: protocol::TCP, port };
        explain(&image, &who, &flow).outcome.name().to_owned()
    };
    assert_eq!(
        (by(443), by(853)),
        ("allowed".to_owned(), "denied".to_owned()),
        "the port is closed all the same"
    );
    assert!(compile(&policy(&crowded), &decided).is_err(), "what does not fit without the list either");
}

#[test]
fn a_stub_that_nobody_named_is_limited_like_anybody_which_is_said() {
    let with = |dns: &str| {
        let text = format!("version = 1\nmode = \"enforce\"\n[dns]\n{dns}\n[dns.limits]\nlabels = 5\n");
        compiled(&text, &FixedEnvironment::default()).1
    };
    assert_eq!(
        with("resolvers = [\"127.0.0.53\"]"),
        ["whoever answers at 127.0.0.53 is limited like anybody"]
    );
    let named = "[[dns.stub]]\naddress = \"127.0.0.53\"\nfrom = [{ unit = \"systemd-resolved.service\" }]";
    assert_eq!(with(named), [""; 0]);
}
