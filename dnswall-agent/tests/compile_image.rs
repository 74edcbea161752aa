//! What a policy becomes: a small image in full, the limits, and what is said about it.

use dnswall_agent::compile::{FixedEnvironment, Identity, MapImage, RootCgroup, compile, diff, explain};
use dnswall_agent::policy::{BUILTIN_ORIGIN, Policy, Warning, default_policy, parse};
use dnswall_common::decide::decide;
use dnswall_common::flow::{Address, Flow, protocol};
use dnswall_common::limits::{RULES_MAX, SCOPES_MAX, SELECTORS_MAX, TERMS_PER_CELL_MAX, WHO_ENTRIES_MAX};
use dnswall_common::named::NameSet;
use dnswall_common::reason::Action;
use dnswall_common::who::Who;
use std::fmt::Write as _;
use std::time::Instant;

const FULL: &str = r#"version = 1
mode = "enforce"

[dns]
resolvers = ["10.0.0.2", "127.0.0.53"]
encrypted = "allow"
clients = [{ unit = "systemd-resolved.service" }]

[[dns.recursor]]
from = [{ unit = "unbound.service", exe = "/usr/sbin/unbound" }]
to = ["any"]

[dns.serve]
from = ["10.0.0.0/8"]

[[deny]]
name = "instance metadata"
to = ["169.254.169.254"]

[[allow]]
name = "orders database"
to = ["10.0.3.0/24"]
ports = ["tcp/5432"]
from = [{ unit = "orders.service" }, { unit = "orders-*.service" }, { user = "postgres" }]

[[allow]]
to = ["internet"]
ports = ["tcp/443", "udp/443"]
from = [{ unit = "web.slice" }, { cgroup = "/custom" }, { container = "0123456789ab" }]

[[scope]]
name = "batch, first week"
from = [{ unit = "batch-*.service" }]
mode = "audit"

[raw]
from = [{ exe = "/usr/bin/ping" }]
"#;

fn environment() -> FixedEnvironment {
    FixedEnvironment {
        users: [("postgres".to_owned(), 70)].into(),
        executables: [("/usr/sbin/unbound".to_owned(), vec![(1001, 8 << 20 | 1)])].into(),
        root: RootCgroup::default(),
        seed: 42,
        lists: Default::default(),
        network_namespace: 7,
        has_decided: false,
    }
}

fn policy(text: &str) -> Policy {
    parse(text, "policy.toml").unwrap_or_else(|problems| panic!("{problems}"))
}

fn image(text: &str) -> (MapImage, Vec<Warning>) {
    compile(&policy(text), &environment()).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Why the policy cannot be compiled.
fn refusal(text: &str) -> String {
    compile(&policy(text), &environment()).expect_err("a refusal").render(false)
}

fn bits(who: &Who) -> Vec<usize> {
    (0..SELECTORS_MAX).filter(|bit| who.contains(*bit)).collect()
}

/// Everything in the image that a person can read.
fn dump(image: &MapImage) -> String {
    let mut text = String::new();
    let out = &mut text;
    let mut line = |line: String| writeln!(out, "{line}").expect("a string");
    let header = &image.header;
    line(format!("nodes {} {} {}", header.nodes4, header.nodes6, header.nodes_port));
    line(format!("mode {} existing {} raw {:?}", header.mode, header.existing, bits(&header.raw)));
    for (number, rule) in image.rules.iter().enumerate() {
        line(format!("rule {number} {} {:?} line {}", rule.name, rule.section, rule.line));
    }
    for (bit, selector) in image.selectors.iter().enumerate() {
        line(format!("selector {bit} {selector}"));
    }
    for (scope, info) in header.scopes.iter().zip(&image.scopes) {
        line(format!(
            "scope {} {:?} mode {} existing {}",
            info.name,
            bits(&scope.who),
            scope.mode,
            scope.existing
        ));
    }
    let free = &header.unconstrained;
    for (key, who) in [
        ("unit", &free.unit),
        ("cgroup", &free.cgroup),
        ("container", &free.container),
        ("user", &free.user),
        ("exe", &free.exe),
    ] {
        line(format!("without {key} {:?}", bits(who)));
    }
    image.users.iter().for_each(|(uid, who)| line(format!("user {uid} {:?}", bits(who))));
    image.exes.iter().for_each(|(exe, who)| line(format!("exe {exe:?} {:?}", bits(who))));
    image.paths.iter().for_each(|(hash, who)| line(format!("path {hash:016x} {:?}", bits(who))));
    for name in &image.names {
        let text = String::from_utf8_lossy(&name.bytes).replace('\0', "<end>");
        line(format!("name {} {:08x} {text} {:?}", name.kind, name.extension, bits(&name.who)));
    }
    for (index, cell) in image.cells.iter().enumerate() {
        let terms = &image.terms[cell.first as usize..][..usize::from(cell.count)];
        let terms: Vec<String> = terms
            .iter()
            .map(|term| format!("{} {:?} {:?}", term.rule, term.action, bits(&term.who)))
            .collect();
        line(format!("cell {index} flags {} [{}]", cell.flags, terms.join(", ")));
    }
    for (index, node) in image.nodes4.iter().enumerate() {
        let keys: Vec<String> =
            node.keys.iter().map(|key| std::net::Ipv4Addr::from(*key).to_string()).collect();
        line(format!("node4 {index} {} -> {:?}", keys.join(" "), node.values));
    }
    for (index, node) in image.nodes_port.iter().enumerate() {
        let key = |key: &u64| format!("{}:{}:{}", key >> 24, key >> 16 & 255, key & 0xffff);
        let keys: Vec<String> = node.keys.iter().map(key).collect();
        line(format!("node_port {index} {} -> {:?}", keys.join(" "), node.values));
    }
    text
}

#[test]
fn a_small_image_in_full() {
    let (image, warnings) = image(FULL);
    insta::assert_snapshot!(dump(&image));
    insta::assert_snapshot!("warnings", policy(FULL).problems(warnings).render(false));
}

#[test]
fn what_a_host_or_the_kernel_cannot_hold() {
    let text = r#"version = 1
mode = "audit"

[[allow]]
to = ["10.0.0.1"]
from = [{ user = "nobody-here" }, { unit = "a.slice", cgroup = "/b" }]

[[allow]]
to = ["10.0.0.2"]
from = [{ exe = "/opt/*" }]
"#;
    let many = FixedEnvironment {
        executables: [("/opt/*".to_owned(), (0..300).map(|inode| (inode, 1)).collect())].into(),
        ..environment()
    };
    insta::assert_snapshot!(compile(&policy(text), &many).expect_err("a refusal").render(false));
}

/// A policy without the list of encrypted resolvers, which is another one every year.
const HEAD: &str = "version = 1\nmode = \"audit\"\n[dns]\nencrypted = \"allow\"\n";

/// A policy of `count` rules, each written by `rule`.
fn many(count: usize, rule: impl Fn(usize) -> String) -> String {
    (0..count).fold(HEAD.to_owned(), |text, index| text + &rule(index))
}

#[test]
fn limits_are_said_with_their_numbers() {
    let user = |index| format!("[[allow]]\nto = [\"10.0.0.1\"]\nfrom = [{{ user = {index} }}]\n");
    let message = refusal(&many(TERMS_PER_CELL_MAX + 1, user));
    assert!(message.contains("65 rules answer for the same destination and port"), "{message}");
    assert!(message.contains("at most 64; the first is allow.0 (line 5), this is allow.64"), "{message}");
    assert!(compile(&policy(&many(TERMS_PER_CELL_MAX, user)), &environment()).is_ok());

    let apart = |index| format!("[[allow]]\nto = [\"10.0.{index}.1\"]\nfrom = [{{ user = {index} }}]\n");
    let message = refusal(&many(SELECTORS_MAX, apart));
    assert!(
        // The DHCP clients of an [unjudged] and a [raw] that are not written are one.
        message.contains("names 257 different workloads") && message.contains("there are 255"),
        "{message}"
    );
    // One is everyone, one the DHCP clients of what is not written.
    assert!(compile(&policy(&many(SELECTORS_MAX - 2, apart)), &environment()).is_ok());
    let nobody = format!("{}[unjudged]\nfrom = []\n[raw]\nfrom = []\n", many(SELECTORS_MAX - 1, apart));
    assert!(compile(&policy(&nobody), &environment()).is_ok());

    let scope = |index| format!("[[scope]]\nmode = \"audit\"\nfrom = [{{ user = {index} }}]\n");
    let message = refusal(&many(SCOPES_MAX + 1, scope));
    assert!(message.contains("has 17 scopes") && message.contains("holds 16"), "{message}");

    let rule = |index| format!("[[deny]]\nto = [\"{}\"]\n", std::net::Ipv4Addr::from(index as u32 * 2));
    let message = refusal(&many(RULES_MAX, rule));
    assert!(message.contains("has 16384 rules") && message.contains("at most 16366"), "{message}");

    let ports: Vec<String> = (0..70).map(|port| format!("\"tcp/{}\"", port * 2 + 1000)).collect();
    let ports = ports.join(", ");
    let rule = |index| format!("[[allow]]\nto = [\"10.0.{index}.1\"]\nports = [{ports}]\n");
    assert!(compile(&policy(&many(200, rule)), &environment()).is_ok());
    let rule = |index| {
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + index as u32 * 2);
        format!("[[allow]]\nto = [\"{address}\"]\nports = [{ports}]\n")
    };
    let message = refusal(&many(1000, rule));
    assert!(message.contains("need 140000 boundaries between ports"), "{message}");
    assert!(message.contains("the kernel holds 131072"), "{message}");
}

/// The tables that no policy of 255 workloads can fill, but for programs, which a pattern names many of.
const _: () = assert!(SELECTORS_MAX <= WHO_ENTRIES_MAX);

#[test]
fn tables_that_are_too_small_are_said_with_their_numbers() {
    let listed = |count: u32, text: &dyn Fn(u32) -> String| {
        let list: Vec<String> = (0..count).map(|index| format!("\"{}\"", text(index))).collect();
        format!("{HEAD}[[allow]]\nto = [{}]\n", list.join(", "))
    };
    // Every other address is a network of its own: two boundaries each.
    let v4 = |index: u32| std::net::Ipv4Addr::from(0x0a00_0000 + 2 * index).to_string();
    let message = refusal(&listed(131_073, &v4));
    assert!(message.contains("need 262146 boundaries between IPv4 destinations"), "{message}");
    assert!(message.contains("the kernel holds 262144"), "{message}");
    let v6 = |index: u32| std::net::Ipv6Addr::from((0x2001_0db8 << 96) + 2 * u128::from(index)).to_string();
    let message = refusal(&listed(65_537, &v6));
    assert!(message.contains("need 131074 boundaries between IPv6 destinations"), "{message}");
    assert!(message.contains("the kernel holds 131072"), "{message}");

    let programs = |pattern: usize| {
        let files = (0..256).map(|file| (1 + 256 * pattern as u64 + file, 1)).collect();
        (format!("/opt/{pattern}/*"), files)
    };
    let opt = FixedEnvironment { executables: (0..17).map(programs).collect(), ..environment() };
    let exe =
        |index| format!("[[allow]]\nto = [\"10.0.{index}.1\"]\nfrom = [{{ exe = \"/opt/{index}/*\" }}]\n");
    let message = compile(&policy(&many(17, exe)), &opt).expect_err("a refusal").render(false);
    assert!(message.contains("name 4352 executables") && message.contains("holds 4096"), "{message}");
    assert!(compile(&policy(&many(16, exe)), &opt).is_ok());
}

/// Whoever makes files, or takes a user away, must not leave a host without its policy at the next boot.
#[test]
fn what_has_decided_goes_on_with_what_fits() {
    let programs = |pattern: usize, count: u64| {
        let files = (0..count).map(|file| (1 + 300 * pattern as u64 + file, 1)).collect();
        (format!("/opt/{pattern}/*"), files)
    };
    let exe =
        |index| format!("[[allow]]\nto = [\"10.0.{index}.1\"]\nfrom = [{{ exe = \"/opt/{index}/*\" }}]\n");
    let decided = |count, each| FixedEnvironment {
        executables: (0..count).map(|pattern| programs(pattern, each)).collect(),
        has_decided: true,
        ..environment()
    };
    let compiled =
        |count, each| compile(&policy(&many(count, exe)), &decided(count, each)).expect("an image");
    let (image, warnings) = compiled(1, 300);
    assert_eq!(image.exes.len(), 256);
    assert!(warnings.iter().any(|warning| warning.message.contains("300 executables")), "{warnings:?}");
    assert_eq!(compiled(16, 256).0.exes.len(), 4096);
    assert_eq!(compiled(17, 256).0.exes.len(), 17 * 240, "a share each");

    let text =
        "version = 1\nmode = \"audit\"\n[[allow]]\nto = [\"10.0.0.1\"]\nfrom = [{ user = \"gone\" }]\n";
    assert!(compile(&policy(text), &environment()).is_err());
    let (_, warnings) = compile(&policy(text), &decided(0, 0)).expect("an image");
    assert!(warnings.iter().any(|warning| warning.message.contains("no user")), "{warnings:?}");
}

/// Rules that overlap in every way: `from` entry `i` may go where bit `i` of the address says.
fn overlapping(rules: u32) -> String {
    let rule = |index: usize| {
        let to: Vec<String> = (0..1u32 << rules)
            .filter(|address| address >> index & 1 == 1)
            .map(|address| format!("\"{}\"", std::net::Ipv4Addr::from(0x0a00_0000 + address)))
            .collect();
        format!("[[allow]]\nto = [{}]\nfrom = [{{ user = {index} }}]\n", to.join(", "))
    };
    many(rules as usize, rule)
}

#[test]
fn lists_and_terms_are_counted_beyond_what_fits() {
    // 2^14 sets of 14 rules have 14 * 2^13 members.
    let message = refusal(&overlapping(14));
    assert!(message.contains("combine into 114688 terms") && message.contains("holds 65536"), "{message}");
    assert!(!message.contains(" lists\n"), "{message}");
    let (image, _) = image(&overlapping(12));
    assert_eq!((image.cells.len(), image.terms.len()), (1 << 12, 12 << 11));
    assert!(image.excesses().is_empty());
}

#[test]
fn every_limit_is_said_at_once() {
    let scope = |index| format!("[[scope]]\nmode = \"audit\"\nfrom = [{{ user = {} }}]\n", 1000 + index);
    let rule = |index| {
        let address = std::net::Ipv4Addr::from(index as u32 * 2);
        format!("[[allow]]\nto = [\"{address}\"]\nfrom = [{{ user = {} }}]\n", index % 300)
    };
    let user = |index| format!("[[allow]]\nto = [\"240.0.0.1\"]\nfrom = [{{ user = {index} }}]\n");
    let mut text = many(RULES_MAX, rule);
    text.extend((0..70).map(user));
    text.extend((0..SCOPES_MAX + 1).map(scope));
    let message = refusal(&text);
    for number in [
        "has 16454 rules",
        "at most 16366",
        "names 318 different workloads",
        "there are 255",
        "has 17 scopes",
        "holds 16",
        "70 rules answer for the same destination and port",
        "at most 64",
    ] {
        assert!(message.contains(number), "{number} is missing:\n{message}");
    }
}

#[test]
fn an_image_says_everything_of_which_it_has_too_much() {
    let (mut image, _) = image(FULL);
    assert!(image.excesses().is_empty());
    image.terms = vec![image.terms[0]; 65_537];
    image.users = vec![(1, Who::NONE); 5_000];
    let said: Vec<String> = image.excesses().iter().map(ToString::to_string).collect();
    assert_eq!(said, ["65537 terms (the kernel holds 65536)", "5000 users (the kernel holds 4096)"]);
}

/// Compiles and says how long it took; the bound only catches what is out of all proportion.
fn timed(what: &str, text: &str) -> MapImage {
    let start = Instant::now();
    let policy = policy(text);
    let parsed = start.elapsed();
    let (image, _) = compile(&policy, &environment()).unwrap_or_else(|problems| panic!("{problems}"));
    let compiled = start.elapsed() - parsed;
    println!(
        "{what}: parse {parsed:?}, compile {compiled:?}, {} nodes4 {} nodes_port",
        image.nodes4.len(),
        image.nodes_port.len()
    );
    assert!(compiled.as_secs() < 20, "{what} took {compiled:?}");
    image
}

fn decides(image: &MapImage, address: u32, port: u16) -> Option<String> {
    let flow = Flow { address: Address::V4(address), protocol: protocol::TCP, port };
    let verdict = decide(image, &flow, &Who::EVERYONE, &NameSet::NONE);
    (verdict.action == Action::Allow).then(|| image.rule(verdict.rule).name.clone())
}

#[test]
fn ten_thousand_networks_and_ten_thousand_rules_compile_quickly() {
    let network = |index: u32| std::net::Ipv4Addr::from(0x0a00_0000 + index * 512);
    let list: Vec<String> = (0..10_000).map(|index| format!("\"{}/24\"", network(index))).collect();
    let list = list.join(", ");
    let one = timed(
        "10,000 networks in one rule",
        &many(1, |_| format!("[[allow]]\nname = \"all\"\nto = [{list}]\n")),
    );
    assert_eq!((one.header.nodes4, one.cells.len()), (1250, 2));
    assert_eq!(decides(&one, 0x0a00_0000 + 512 * 9_999 + 255, 443).as_deref(), Some("allow.all"));
    assert_eq!(decides(&one, 0x0a00_0000 + 512 * 9_999 + 256, 443), None);

    let rule =
        |index: usize| format!("[[allow]]\nto = [\"{}/24\"]\nports = [\"tcp/443\"]\n", network(index as u32));
    let each = timed("10,000 rules of one network", &many(10_000, rule));
    assert_eq!(decides(&each, 0x0a00_0000 + 512 * 7_777, 443).as_deref(), Some("allow.7777"));
    assert_eq!(decides(&each, 0x0a00_0000 + 512 * 7_777, 80), None);

    let any = |index: usize| format!("[[allow]]\nto = [\"{}/24\"]\n", network(index as u32));
    let each = timed("10,000 rules of one network, any port", &many(10_000, any));
    assert_eq!(decides(&each, 0x0a00_0000 + 512 * 9_999, 80).as_deref(), Some("allow.9999"));

    let nested = |index: usize| {
        let ports = if index == 0 { "any".to_owned() } else { format!("tcp/{}", index + 1000) };
        format!("[[allow]]\nto = [\"10.0.0.0/8\"]\nports = [\"{ports}\"]\n")
    };
    let same = timed("10,000 rules for the same network", &many(10_000, nested));
    assert_eq!(decides(&same, 0x0a00_0001, 2000).as_deref(), Some("allow.0"));
}

#[test]
fn explanations_say_who_where_and_why() {
    let (image, _) = image(FULL);
    let at = |cgroup: &str| Identity { cgroup: cgroup.to_owned(), ..Identity::default() };
    let tcp = |address: [u8; 4], port| Flow {
        address: Address::V4(u32::from_be_bytes(address)),
        protocol: protocol::TCP,
        port,
    };
    let orders = at("/system.slice/orders-eu.service");
    let batch = at("/system.slice/batch-7.service");
    let postgres = Identity { uid: Some(70), ..Identity::default() };
    let by_unit = Identity { unit: Some("orders.service".to_owned()), ..Identity::default() };
    let container = Identity { container: Some("0123456789abcdef".to_owned()), ..Identity::default() };
    let asked = |address: [u8; 4]| Flow { protocol: protocol::SERVE, ..tcp(address, 53) };
    let cases = [
        (&orders, tcp([10, 0, 3, 7], 5432)),
        (&postgres, tcp([10, 0, 3, 7], 5432)),
        (&by_unit, tcp([10, 0, 3, 7], 5432)),
        (&batch, tcp([10, 0, 3, 7], 5432)),
        (&at("/nobody"), tcp([10, 0, 4, 7], 5432)),
        (&container, tcp([93, 184, 216, 34], 443)),
        (&at("/web.slice/a.service"), tcp([93, 184, 216, 34], 443)),
        (&at("/custom/deep"), tcp([93, 184, 216, 34], 80)),
        (&orders, tcp([169, 254, 169, 254], 80)),
        (&orders, tcp([10, 0, 0, 2], 53)),
        (&orders, tcp([127, 0, 0, 53], 53)),
        (&orders, asked([10, 9, 9, 9])),
        (&orders, asked([11, 9, 9, 9])),
    ];
    let mut text = String::new();
    for (identity, flow) in cases {
        writeln!(text, "{identity:?}\n{flow:?}\n{}\n", explain(&image, identity, &flow)).expect("a string");
    }
    insta::assert_snapshot!(text);
    insta::assert_json_snapshot!("explanation", explain(&image, &batch, &tcp([10, 0, 3, 7], 5432)));
}

#[test]
fn differences_between_policies() {
    let changed = FULL
        .replace("mode = \"enforce\"", "mode = \"audit\" # for now")
        .replace("\"10.0.0.2\", ", "\"10.0.0.2\", \"fd00::2\", ")
        .replace("ports = [\"tcp/5432\"]", "ports = [\"tcp/5433\"]")
        .replace("name = \"instance metadata\"", "name = \"metadata\"");
    insta::assert_snapshot!(diff(&policy(FULL), &policy(&changed)));
    let same = FULL.replace("\"tcp/443\", \"udp/443\"", "\"udp/443\",   \"tcp/443\"");
    assert!(diff(&policy(FULL), &policy(&same)).is_empty());
    assert_eq!(diff(&policy(FULL), &policy(FULL)).to_string(), "the policies say the same");
}

#[test]
fn the_built_in_policy_compiles_everywhere() {
    for resolvers in [vec![], vec!["127.0.0.53"], vec!["10.0.0.2", "fd00::2"], vec!["::1", "10.0.0.2"]] {
        let resolvers: Vec<_> =
            resolvers.iter().map(|address| address.parse().expect("an address")).collect();
        let policy = parse(&default_policy(&resolvers), BUILTIN_ORIGIN)
            .unwrap_or_else(|problems| panic!("{problems}"));
        let (_, warnings) =
            compile(&policy, &FixedEnvironment::default()).unwrap_or_else(|problems| panic!("{problems}"));
        assert!(warnings.is_empty(), "{resolvers:?}: {warnings:?}");
    }
}
