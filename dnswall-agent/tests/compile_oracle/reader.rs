//! The oracle: reads a policy rule by rule, from the top, for one packet of one process.

use crate::pool::{CGROUPS, EXES, RESOLVER_ADDRESSES, RESOLVER_NAME, UNITS, USERS};
use crate::world::{Entry, Port, Rule, To, World};
use dnswall_common::limits::CGROUP_DEPTH_MAX;
use std::net::IpAddr;

#[derive(Clone, Debug)]
pub struct Process {
    /// Below the wall's root.
    pub place: String,
    pub uid: u32,
    pub exe: (u64, u32),
}

pub fn slice_path(unit: &str) -> Option<String> {
    let stem = unit.strip_suffix(".slice")?;
    let mut path = String::new();
    let mut name = String::new();
    for part in stem.split('-') {
        if !name.is_empty() {
            name.push('-');
        }
        name.push_str(part);
        path.push_str(&format!("/{name}.slice"));
    }
    Some(path)
}

pub fn lies_in(path: &str, above: &str) -> bool {
    path == above || path.starts_with(&format!("{above}/"))
}

impl Process {
    fn is_too_deep(&self, root: &str) -> bool {
        format!("{root}{}", self.place).matches('/').count() >= CGROUP_DEPTH_MAX
    }

    fn unit(&self) -> Option<&str> {
        self.place.split('/').find(|name| !name.is_empty() && !name.ends_with(".slice"))
    }

    fn container(&self) -> Option<&str> {
        for name in self.place.split('/') {
            let stem = name.trim_end_matches(".scope");
            let id = stem.rsplit('-').next().unwrap_or(stem);
            if id.len() == 64 && id.chars().all(|c| "0123456789abcdef".contains(c)) {
                return Some(id);
            }
            let somebodys = [".service", ".scope"].iter().any(|end| name.ends_with(end));
            if somebodys || name == "user.slice" || name.starts_with("lxc.payload.") {
                return None;
            }
        }
        None
    }

    pub fn matches(&self, entry: &Entry, root: &str) -> bool {
        let hidden = self.is_too_deep(root);
        let Entry { unit, cgroup, container, user, exe } = entry;
        let unit_matches = |pattern: &str| {
            if let Some(path) = slice_path(pattern) {
                return lies_in(&self.place, &path);
            }
            let Some(unit) = self.unit() else { return false };
            match pattern.split_once('*') {
                None => unit == pattern,
                Some((prefix, "")) => unit.starts_with(prefix),
                Some((prefix, kind)) => {
                    unit.starts_with(prefix)
                        && unit.rsplit('.').next() == Some(&kind[1..])
                        && unit.contains('.')
                }
            }
        };
        unit.is_none_or(|unit| !hidden && unit_matches(UNITS[unit]))
            && cgroup.is_none_or(|cgroup| !hidden && lies_in(&self.place, CGROUPS[cgroup]))
            && container
                .as_ref()
                .is_none_or(|digits| !hidden && self.container().is_some_and(|id| id.starts_with(digits)))
            && user.is_none_or(|user| self.uid == USERS[user].1)
            && exe.is_none_or(|exe| EXES[exe].1.contains(&self.exe))
    }
}

impl Entry {
    /// A user of the host's: whoever is root in a container can be any of them.
    fn is_user_alone(&self) -> bool {
        let Self { unit, cgroup, container, user, exe } = self;
        user.is_some() && (unit.or(*cgroup).or(*exe).is_none() && container.is_none())
    }
}

pub fn is_internet(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            !matches!(
                (a, b, c),
                (0 | 10 | 127 | 224..=255, _, _)
                    | (100, 64..=127, _)
                    | (169, 254, _)
                    | (172, 16..=31, _)
                    | (192, 0, 0 | 2)
                    | (192, 88, 99)
                    | (192, 168, _)
                    | (198, 18 | 19, _)
                    | (198, 51, 100)
                    | (203, 0, 113)
            )
        }
        IpAddr::V6(v6) => {
            let s = v6.segments();
            if s[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
                return is_internet(IpAddr::V4((u32::from(s[6]) << 16 | u32::from(s[7])).into()));
            }
            (0x2000..0x4000).contains(&s[0])
                && !(s[0] == 0x2001 && s[1] < 0x200)
                && !(s[0] == 0x2001 && s[1] == 0xdb8)
                && s[0] != 0x2002
                && !(s[0] == 0x3fff && s[1] < 0x1000)
        }
    }
}

fn is_resolver(address: IpAddr) -> bool {
    RESOLVER_ADDRESSES.contains(&address.to_string().as_str())
}

/// Whether it is a resolver's own address or name, and nothing wider.
fn is_of_resolver(to: &To) -> bool {
    match to {
        To::EncryptedDns => true,
        To::Net(address, prefix) => {
            *prefix == if address.is_ipv4() { 32 } else { 128 } && is_resolver(*address)
        }
        To::Name(name) => *name == RESOLVER_NAME,
        To::Any | To::Internet => false,
    }
}

pub fn leads_to(to: &[To], address: IpAddr) -> bool {
    to.iter().any(|to| match (to, address) {
        (To::Any, _) => true,
        (To::Internet, address) => is_internet(address),
        (To::EncryptedDns, address) => is_resolver(address),
        (To::Net(IpAddr::V4(net), prefix), IpAddr::V4(address)) => {
            (0..*prefix).all(|bit| u32::from(*net) >> (31 - bit) & 1 == u32::from(address) >> (31 - bit) & 1)
        }
        (To::Net(IpAddr::V6(net), prefix), IpAddr::V6(address)) => (0..*prefix)
            .all(|bit| u128::from(*net) >> (127 - bit) & 1 == u128::from(address) >> (127 - bit) & 1),
        _ => false,
    })
}

fn is_named(to: &[To], name: &str) -> bool {
    to.iter().any(|to| match to {
        To::Name(pattern) => match pattern.strip_prefix('*') {
            Some(end) => name.len() > end.len() && name.ends_with(end),
            None => name == *pattern,
        },
        To::EncryptedDns => name == RESOLVER_NAME,
        _ => false,
    })
}

impl Rule {
    fn leads_to_names(&self) -> bool {
        self.to.iter().any(|to| matches!(to, To::Name(_) | To::EncryptedDns))
    }

    /// Whether a name of the rule may lead there.
    fn may_lead_to(&self, address: IpAddr, is_allow: bool) -> bool {
        let internet = [if is_allow { To::Internet } else { To::Any }];
        let answers = if self.answers.is_empty() { &internet[..] } else { &self.answers };
        self.leads_to_names() && leads_to(answers, address)
    }
}

/// What goes over the wire, by number and port.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    pub address: IpAddr,
    /// The name that led there.
    pub by: Option<&'static str>,
    pub protocol: u8,
    pub port: u16,
}

impl Packet {
    fn is(&self, name: &str) -> bool {
        match name {
            "tcp" => self.protocol == 6,
            "udp" => self.protocol == 17 || self.protocol == 136,
            "sctp" => self.protocol == 132,
            "icmp" => self.protocol == 1 || self.protocol == 58,
            _ => false,
        }
    }

    fn is_to(&self, port: u16) -> bool {
        (self.is("tcp") || self.is("udp")) && self.port == port
    }

    fn is_mapped(&self) -> bool {
        matches!(self.address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some())
    }

    fn names(&self, ports: &[Port]) -> bool {
        if self.protocol == 255 {
            return false;
        }
        ports.is_empty()
            || ports.iter().any(|port| match port {
                Port::Any => true,
                Port::Whole(protocol) => self.is(protocol),
                Port::Range(protocol, first, last) => {
                    self.is(protocol) && *first <= self.port && self.port <= *last
                }
                Port::Echo => {
                    (self.protocol == 1 && self.port >> 8 == 8)
                        || (self.protocol == 58 && self.port >> 8 == 128)
                }
            })
    }

    fn names_exactly(&self, ports: &[Port]) -> bool {
        let exact = |port: &Port| matches!(port, Port::Range(protocol, a, b) if self.is(protocol) && a == b && *a == self.port);
        ports.iter().any(exact)
    }
}

#[derive(Debug, PartialEq)]
pub enum Answer {
    Allowed(String),
    Denied(String),
    NameUnknown,
    NotForThisWorkload,
    NoRule,
}

pub fn binds(from: &[Entry], process: &Process, root: &str) -> bool {
    from.is_empty() || from.iter().any(|entry| process.matches(entry, root))
}

/// The same where it allows something.
pub fn allows(from: &[Entry], process: &Process, root: &str) -> bool {
    let holds = |entry: &Entry| !entry.is_user_alone() || process.container().is_none();
    from.is_empty() || from.iter().any(|entry| process.matches(entry, root) && holds(entry))
}

/// Reads the policy from the top, in the order of precedence.
pub fn oracle(world: &World, packet: &Packet, process: &Process) -> Answer {
    let root = world.root();
    let (mut named_for_others, mut is_by_unknown_name) = (false, false);
    let name = |section: &str, index: usize, rule: &Rule| {
        if rule.named { format!("{section}.rule {index}") } else { format!("{section}.{index}") }
    };
    for (index, rule) in world.deny.iter().enumerate() {
        let by_name = packet.by.is_some_and(|name| is_named(&rule.to, name));
        let leads = leads_to(&rule.to, packet.address) || by_name;
        if leads && packet.names(&rule.ports) && binds(&rule.from, process, root) {
            return Answer::Denied(name("deny", index, rule));
        }
    }
    let mut consider = |applies: bool, from: &[Entry]| {
        let is_bound = allows(from, process, root);
        named_for_others |= applies && !is_bound;
        applies && is_bound
    };
    if packet.is_to(53) {
        let remote: Vec<&IpAddr> = world.resolvers.iter().filter(|address| !address.is_loopback()).collect();
        if consider(remote.contains(&&packet.address), &world.clients) {
            return Answer::Allowed("dns.resolvers".to_owned());
        }
        for (index, (to, from)) in world.recursors.iter().enumerate() {
            if consider(leads_to(to, packet.address) && !packet.is_mapped(), from) {
                return Answer::Allowed(format!("dns.recursor.{index}"));
            }
        }
        let mut stubs = world.stubs.clone();
        for address in world.resolvers.iter().filter(|address| address.is_loopback()) {
            if !stubs.contains(address) {
                stubs.push(*address);
            }
        }
        if let Some(index) = stubs.iter().position(|address| *address == packet.address) {
            return Answer::Allowed(format!("dns.stub.{index}"));
        }
    }
    if packet.protocol == 255 && packet.port == 53 {
        let asked = |serve: &Vec<To>| leads_to(serve, packet.address) && !packet.is_mapped();
        if world.serve.as_ref().is_some_and(asked) {
            return Answer::Allowed("dns.serve".to_owned());
        }
    }
    let mut allow = |index: usize, rule: &Rule| {
        let is_open = packet.names(&rule.ports) && !packet.is_to(53) && !packet.is_mapped();
        if consider(leads_to(&rule.to, packet.address) && is_open, &rule.from) {
            return Some(Answer::Allowed(name("allow", index, rule)));
        }
        if consider(rule.may_lead_to(packet.address, true) && is_open, &rule.from) {
            if packet.by.is_some_and(|name| is_named(&rule.to, name)) {
                return Some(Answer::Allowed(name("allow", index, rule)));
            }
            is_by_unknown_name = true;
        }
        None
    };
    let refuses_encrypted = !world.encrypted;
    if refuses_encrypted {
        // What is meant for it: by its port, or by a resolver itself.
        for (index, rule) in world.allow.iter().enumerate() {
            let of_resolvers = rule.to.iter().filter(|to| is_of_resolver(to)).cloned().collect();
            let to = match packet.is_to(853) {
                true if packet.names_exactly(&rule.ports) => rule.to.clone(),
                true => continue,
                false => of_resolvers,
            };
            if let Some(answer) = allow(index, &Rule { to, ..rule.clone() }) {
                return answer;
            }
        }
        if is_resolver(packet.address) && (packet.is("tcp") || packet.is("udp")) && packet.port != 53 {
            return Answer::Denied("dns.encrypted".to_owned());
        }
    }
    if !(refuses_encrypted && packet.is_to(853)) {
        for (index, rule) in world.allow.iter().enumerate() {
            let others = |to: &&To| !refuses_encrypted || !is_of_resolver(to);
            let to = rule.to.iter().filter(others).cloned().collect();
            if let Some(answer) = allow(index, &Rule { to, ..rule.clone() }) {
                return answer;
            }
        }
    }
    if is_by_unknown_name {
        Answer::NameUnknown
    } else if named_for_others {
        Answer::NotForThisWorkload
    } else {
        Answer::NoRule
    }
}
