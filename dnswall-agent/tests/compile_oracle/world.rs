//! A random policy, and how it is written.

use crate::pool::{CGROUPS, EXES, ID1, ID2, PATTERNS, PORTS, ROOTS, UNITS, USERS};
use crate::reader::{lies_in, slice_path};
use dnswall_agent::compile::{FixedEnvironment, RootCgroup};
use proptest::prelude::*;
use std::fmt::Write as _;
use std::net::IpAddr;

#[derive(Clone, Debug)]
pub struct Entry {
    pub unit: Option<usize>,
    pub cgroup: Option<usize>,
    pub container: Option<String>,
    pub user: Option<usize>,
    pub exe: Option<usize>,
}

#[derive(Clone, Debug)]
pub enum To {
    Any,
    Internet,
    EncryptedDns,
    Net(IpAddr, u8),
    Name(&'static str),
}

#[derive(Clone, Debug)]
pub enum Port {
    Any,
    Range(&'static str, u16, u16),
    Whole(&'static str),
    Echo,
}

#[derive(Clone, Debug)]
pub struct Rule {
    pub named: bool,
    pub to: Vec<To>,
    pub answers: Vec<To>,
    pub ports: Vec<Port>,
    pub from: Vec<Entry>,
}

#[derive(Clone, Debug)]
pub struct World {
    pub root: usize,
    pub audit: bool,
    pub cut: bool,
    pub resolvers: Vec<IpAddr>,
    pub clients: Vec<Entry>,
    pub encrypted: bool,
    pub recursors: Vec<(Vec<To>, Vec<Entry>)>,
    pub stubs: Vec<IpAddr>,
    pub serve: Option<Vec<To>>,
    pub deny: Vec<Rule>,
    pub allow: Vec<Rule>,
    pub scopes: Vec<(Vec<Entry>, Option<bool>, Option<bool>)>,
    pub raw: Vec<Entry>,
}

pub fn entry() -> impl Strategy<Value = Entry> {
    let container = (any::<bool>(), prop_oneof![Just(12usize), Just(13), Just(16), Just(64)])
        .prop_map(|(first, digits)| (if first { ID1 } else { ID2 })[..digits].to_owned());
    let rare = |strategy: BoxedStrategy<usize>| proptest::option::weighted(0.3, strategy);
    (
        proptest::option::weighted(0.6, 0..UNITS.len()),
        rare((0..CGROUPS.len()).boxed()),
        proptest::option::weighted(0.2, container),
        rare((0..USERS.len()).boxed()),
        rare((0..EXES.len()).boxed()),
    )
        .prop_map(|(unit, cgroup, container, user, exe)| Entry { unit, cgroup, container, user, exe })
        .prop_filter("an entry has a key, and a slice and a cgroup that can both hold", |entry| {
            let slice = entry.unit.map(|unit| UNITS[unit]).and_then(slice_path);
            let apart = match (&slice, entry.cgroup.map(|cgroup| CGROUPS[cgroup])) {
                (Some(slice), Some(cgroup)) => !lies_in(slice, cgroup) && !lies_in(cgroup, slice),
                _ => false,
            };
            let Entry { unit, cgroup, container, user, exe } = entry;
            !apart
                && (unit.is_some()
                    || cgroup.is_some()
                    || container.is_some()
                    || user.is_some()
                    || exe.is_some())
        })
}

pub fn net() -> impl Strategy<Value = To> {
    let v4 = (0u32..4, any::<u8>(), 22u8..=32).prop_map(|(third, last, prefix)| {
        let address = 10 << 24 | third << 8 | u32::from(last);
        let mask = if prefix == 0 { 0 } else { u32::MAX << (32 - prefix) };
        To::Net(IpAddr::V4((address & mask).into()), prefix)
    });
    let v6 = (0u128..3, any::<u8>(), 110u8..=128).prop_map(|(group, last, prefix)| {
        let address = 0xfd << 120 | group << 16 | u128::from(last);
        To::Net(IpAddr::V6((address & (u128::MAX << (128 - prefix))).into()), prefix)
    });
    let odd = proptest::sample::select(vec![
        ("0.0.0.0", 0),
        ("0.0.0.0", 1),
        ("128.0.0.0", 1),
        ("10.0.0.0", 8),
        ("255.255.255.255", 32),
        ("8.8.8.0", 24),
        ("8.8.8.8", 32),
        ("2001:4860:4860::8888", 128),
        ("169.254.169.254", 32),
        ("::", 0),
        ("fd00::", 8),
        ("8000::", 1),
        ("::ffff:0:0", 95),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 128),
        ("2001:db8::", 32),
    ])
    .prop_filter_map("host bits", |(address, prefix): (&str, u8)| {
        let address: IpAddr = address.parse().ok()?;
        // ::ffff:0:0/95 has its last bit set.
        match address {
            IpAddr::V6(v6) if prefix == 95 => {
                Some(To::Net(IpAddr::V6((u128::from(v6) & !(1 << 32)).into()), 95))
            }
            _ => Some(To::Net(address, prefix)),
        }
    });
    prop_oneof![4 => v4, 3 => v6, 2 => odd]
}

pub fn to() -> impl Strategy<Value = Vec<To>> {
    let one = prop_oneof![8 => net(), 1 => Just(To::Any), 1 => Just(To::Internet)];
    proptest::collection::vec(one, 1..4)
}

/// What a rule leads to: names as well.
pub fn targets() -> impl Strategy<Value = Vec<To>> {
    let name = proptest::sample::select(PATTERNS.to_vec()).prop_map(To::Name);
    let word = proptest::sample::select(vec![To::Any, To::Internet, To::EncryptedDns]);
    let one = prop_oneof![4 => net(), 3 => word, 4 => name];
    proptest::collection::vec(one, 1..4)
}

pub fn ports(is_allow: bool) -> impl Strategy<Value = Vec<Port>> {
    let port = || proptest::sample::select(PORTS.to_vec());
    let protocol = || proptest::sample::select(vec!["tcp", "udp", "sctp"]);
    let range =
        (protocol(), port(), port()).prop_map(|(protocol, a, b)| Port::Range(protocol, a.min(b), a.max(b)));
    let one = (protocol(), port()).prop_map(|(protocol, port)| Port::Range(protocol, port, port));
    let whole = proptest::sample::select(vec!["tcp", "udp", "sctp", "icmp"]).prop_map(Port::Whole);
    let any_port = prop_oneof![3 => range, 3 => one, 2 => whole, 1 => Just(Port::Any), 1 => Just(Port::Echo)];
    let usable = any_port.prop_filter("port 53 is not a rule's to allow", move |port| match port {
        Port::Range("tcp" | "udp", 53, 53) => !is_allow,
        _ => true,
    });
    proptest::collection::vec(usable, 0..4)
}

pub fn rules(is_allow: bool) -> impl Strategy<Value = Vec<Rule>> {
    let from = proptest::collection::vec(entry(), 0..3);
    let answers = proptest::option::of(to());
    let rule = (any::<bool>(), targets(), answers, ports(is_allow), from);
    let rule = rule.prop_map(move |(named, to, answers, ports, from)| {
        let leads_to_names = to.iter().any(|to| matches!(to, To::Name(_)));
        let answers = answers.filter(|_| is_allow && leads_to_names).unwrap_or_default();
        Rule { named, to, answers, ports, from }
    });
    proptest::collection::vec(rule, 0..6)
}

pub fn entries(range: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Entry>> {
    proptest::collection::vec(entry(), range)
}

pub fn world() -> impl Strategy<Value = World> {
    let resolver =
        proptest::sample::select(vec!["10.0.0.2", "10.0.3.7", "fd00::2", "127.0.0.53", "::1", "127.0.0.1"])
            .prop_map(|address| address.parse::<IpAddr>().expect("an address"));
    let stub = proptest::sample::select(vec!["127.0.0.53", "127.0.0.54"])
        .prop_map(|address| address.parse::<IpAddr>().expect("an address"));
    let dns = (
        proptest::collection::vec(resolver, 0..4),
        entries(0..2),
        any::<bool>(),
        proptest::collection::vec((to(), entries(1..3)), 0..2),
        proptest::collection::vec(stub, 0..2),
        proptest::option::of(to()),
    );
    let scope = (entries(1..3), proptest::option::of(any::<bool>()), proptest::option::of(any::<bool>()))
        .prop_filter("a scope says something", |scope| scope.1.is_some() || scope.2.is_some());
    (
        (0..ROOTS.len(), any::<bool>(), any::<bool>()),
        dns,
        rules(false),
        rules(true),
        proptest::collection::vec(scope, 0..3),
        entries(0..3),
    )
        .prop_map(|((root, audit, cut), dns, deny, allow, scopes, raw)| {
            let (resolvers, clients, encrypted, recursors, stubs, serve) = dns;
            World {
                root,
                audit,
                cut,
                resolvers,
                clients,
                encrypted,
                recursors,
                stubs,
                serve,
                deny,
                allow,
                scopes,
                raw,
            }
        })
}

impl World {
    pub fn root(&self) -> &'static str {
        ROOTS[self.root].trim_end_matches('/')
    }

    pub fn text(&self) -> String {
        let mut text =
            format!("version = 1\nmode = {:?}\nexisting = {:?}\n", mode(self.audit), existing(self.cut));
        let out = &mut text;
        let resolvers: Vec<String> = self.resolvers.iter().map(ToString::to_string).collect();
        writeln!(out, "[dns]\nresolvers = {resolvers:?}").expect("a string");
        writeln!(out, "encrypted = {:?}", if self.encrypted { "allow" } else { "deny" }).expect("a string");
        self.from(out, "clients", &self.clients);
        for (to, from) in &self.recursors {
            writeln!(out, "[[dns.recursor]]\nto = {:?}", texts(to)).expect("a string");
            self.from(out, "from", from);
        }
        for stub in &self.stubs {
            writeln!(out, "[[dns.stub]]\naddress = \"{stub}\"").expect("a string");
        }
        if let Some(serve) = &self.serve {
            writeln!(out, "[dns.serve]\nfrom = {:?}", texts(serve)).expect("a string");
        }
        for (section, rules) in [("deny", &self.deny), ("allow", &self.allow)] {
            for (index, rule) in rules.iter().enumerate() {
                writeln!(out, "[[{section}]]\nto = {:?}", texts(&rule.to)).expect("a string");
                if !rule.answers.is_empty() {
                    writeln!(out, "answers = {:?}", texts(&rule.answers)).expect("a string");
                }
                if rule.named {
                    writeln!(out, "name = \"rule {index}\"").expect("a string");
                }
                if !rule.ports.is_empty() {
                    writeln!(out, "ports = {:?}", rule.ports.iter().map(Port::text).collect::<Vec<_>>())
                        .expect("a string");
                }
                self.from(out, "from", &rule.from);
            }
        }
        for (from, audit, cut) in &self.scopes {
            writeln!(out, "[[scope]]").expect("a string");
            self.from(out, "from", from);
            if let Some(audit) = audit {
                writeln!(out, "mode = {:?}", mode(*audit)).expect("a string");
            }
            if let Some(cut) = cut {
                writeln!(out, "existing = {:?}", existing(*cut)).expect("a string");
            }
        }
        if !self.raw.is_empty() {
            writeln!(out, "[raw]").expect("a string");
            self.from(out, "from", &self.raw);
        }
        text
    }

    fn from(&self, out: &mut String, key: &str, entries: &[Entry]) {
        if entries.is_empty() {
            return;
        }
        let entries: Vec<String> = entries
            .iter()
            .map(|Entry { unit, cgroup, container, user, exe }| {
                let keys = [
                    unit.map(|unit| format!("unit = {:?}", UNITS[unit])),
                    cgroup.map(|cgroup| format!("cgroup = \"{}{}\"", self.root(), CGROUPS[cgroup])),
                    container.as_ref().map(|container| format!("container = {container:?}")),
                    user.map(|user| format!("user = {}", USERS[user].0)),
                    exe.map(|exe| format!("exe = {:?}", EXES[exe].0)),
                ];
                format!("{{ {} }}", keys.into_iter().flatten().collect::<Vec<_>>().join(", "))
            })
            .collect();
        writeln!(out, "{key} = [{}]", entries.join(", ")).expect("a string");
    }

    pub fn environment(&self) -> FixedEnvironment {
        FixedEnvironment {
            lists: Default::default(),
            users: [("alice".to_owned(), 1000), ("bob".to_owned(), 1001)].into(),
            executables: EXES.iter().map(|(path, files)| ((*path).to_owned(), files.to_vec())).collect(),
            root: RootCgroup { id: 7, path: ROOTS[self.root].to_owned() },
            seed: 0x5eed,
            has_decided: false,
            network_namespace: 0,
        }
    }
}

pub fn mode(audit: bool) -> &'static str {
    if audit { "audit" } else { "enforce" }
}

pub fn existing(cut: bool) -> &'static str {
    if cut { "cut" } else { "keep" }
}

pub fn texts(to: &[To]) -> Vec<String> {
    let text = |to: &To| match to {
        To::Any => "any".to_owned(),
        To::Internet => "internet".to_owned(),
        To::EncryptedDns => "encrypted-dns".to_owned(),
        // A whole-length prefix is the same as none: one family is written this way, the other that.
        To::Net(IpAddr::V4(address), 32) => address.to_string(),
        To::Net(address, prefix) => format!("{address}/{prefix}"),
        To::Name(name) => (*name).to_owned(),
    };
    to.iter().map(text).collect()
}

impl Port {
    fn text(&self) -> String {
        match self {
            Self::Any => "any".to_owned(),
            Self::Range(protocol, first, last) if first == last => format!("{protocol}/{first}"),
            Self::Range(protocol, first, last) => format!("{protocol}/{first}-{last}"),
            Self::Whole(protocol) => format!("{protocol}/any"),
            Self::Echo => "icmp/echo".to_owned(),
        }
    }
}
