//! Takes a policy, gives its rules in the order of precedence, all of one kind: addresses, ports, whom, allow or deny.
//!
//! Here DNS ends: resolvers, recursors, stubs and who may ask become rules like any other, and port 53 leaves every other
//! allow rule. Unless encrypted DNS is allowed, port 853 leaves them, too, and a rule refuses the resolvers that are known to speak
//! it: behind the parts of allow rules that name them, before everything else that is allowed.

use super::destinations::Addresses;
use super::intervals::Intervals;
use super::named::Lists;
use super::who::Selectors;
use crate::blocklist::Pattern;
use crate::policy::encrypted::KNOWN;
use crate::policy::{Destination, Encrypted, Place, Policy, Ports, Protocol, Rule, Selector};
use dnswall_common::flow::{PORT_DNS, PORT_DNS_TLS, protocol};
use dnswall_common::named::PORT_STUB;
use dnswall_common::reason::Action;
use dnswall_common::who::Who;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// What is said about a rule where its number appears: in alerts, counters and explanations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleInfo {
    /// Like `allow.orders database`, `deny.0` or `dns.resolvers`.
    pub name: String,
    /// The part of the policy it comes from.
    pub section: Section,
    /// Line of the policy, from 1; 0 when it is not written there.
    pub line: usize,
}

/// The part of a policy a rule comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Section {
    /// What holds when no rule does.
    Default,
    /// `[[deny]]`
    Deny,
    /// `[dns]`
    Dns,
    /// `[[blocklist]]`
    Blocklist,
    /// `[[allow]]`
    Allow,
}

/// A rule, whatever part of the policy it comes from. Its number is its place in the list.
#[derive(Debug)]
pub(super) struct FlatRule {
    pub(super) info: RuleInfo,
    pub(super) span: Range<usize>,
    pub(super) action: Action,
    pub(super) who: Who,
    pub(super) addresses: Addresses,
    /// The list of names of which one has to have led to the address; 0 when none has to.
    pub(super) names: usize,
    /// Whether it answers for the question for these names as well.
    pub(super) asks: bool,
    /// Protocols and ports, as the lower 24 bits of a port key.
    pub(super) ports: Intervals,
}

/// What the rule is called that says whom anybody may ask.
pub(super) const RESOLVERS: &str = "dns.resolvers";

/// What the rule is called that refuses resolvers that are asked over TLS, HTTPS or QUIC.
pub const ENCRYPTED: &str = "dns.encrypted";

/// Every rule of a policy by number; number 0 is the default and has no addresses. A rule that leads to addresses and to names is two,
/// and one that opens encrypted DNS besides other things is more.
pub(super) fn flatten(
    policy: &Policy,
    known: Known,
    selectors: &mut Selectors,
    lists: &mut Lists,
) -> Vec<FlatRule> {
    let mut flat = Flattener { rules: vec![default_rule()], selectors, lists };
    for (index, rule) in policy.deny.iter().enumerate() {
        // With ports it leaves the question alone.
        let asks = rule.ports.is_empty() || rule.ports.contains(&Ports::Any);
        let part = Part { asks, ..Part::of(rule, port_keys(&rule.ports)) };
        flat.part(rule, index, Section::Deny, part);
    }
    flat.dns(policy);
    match (policy.dns.encrypted, known) {
        (Encrypted::Deny, Known::Refused) => flat.allow_but_encrypted(policy),
        (Encrypted::Deny, Known::LeftOut) => {
            for (index, rule) in policy.allow.iter().enumerate() {
                let (by_port, ports) = tls_apart(rule);
                let ports = by_port.as_slice().iter().chain(ports.as_slice()).copied().collect();
                flat.part(rule, index, Section::Allow, Part::of(rule, Intervals::union(ports)));
            }
        }
        (Encrypted::Allow, _) => {
            for (index, rule) in policy.allow.iter().enumerate() {
                let ports = port_keys(&rule.ports).without(&dns_ports());
                flat.part(rule, index, Section::Allow, Part::of(rule, ports));
            }
        }
    }
    flat.rules
}

/// What becomes of resolvers that are known to be asked over TLS, HTTPS or QUIC, where encrypted DNS is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// They are refused, too.
    Refused,
    /// There is no room for them: the ports alone are closed.
    LeftOut,
}

/// Some of where a rule leads, and on which ports.
struct Part {
    to: Vec<Destination>,
    names: Vec<Pattern>,
    ports: Intervals,
    /// See [`FlatRule::asks`].
    asks: bool,
}

impl Part {
    /// All of it, on these ports.
    fn of(rule: &Rule, ports: Intervals) -> Self {
        let mut names = rule.names.clone();
        if rule.to.contains(&Destination::EncryptedDns) {
            names.extend(KNOWN.names.iter().cloned());
        }
        Self { to: rule.to.clone(), names, ports, asks: false }
    }

    /// What names resolvers that are known to be asked over TLS, HTTPS or QUIC, by their own addresses or names, and the rest.
    fn split(self) -> (Self, Self) {
        let (to, others) = self.to.into_iter().partition(|destination| KNOWN.is_named_by(destination));
        let (names, further) = self.names.into_iter().partition(|name| KNOWN.is_named_by_name(name));
        let named = Self { to, names, ports: self.ports.clone(), asks: true };
        (named, Self { to: others, names: further, ports: self.ports, asks: self.asks })
    }
}

struct Flattener<'a> {
    rules: Vec<FlatRule>,
    selectors: &'a mut Selectors,
    lists: &'a mut Lists,
}

impl Flattener<'_> {
    /// What `[[allow]]` opens where encrypted DNS is refused: first what says that it is for that, by its port or by a resolver's own
    /// address or name, then the refusal, then the rest.
    fn allow_but_encrypted(&mut self, policy: &Policy) {
        let mut others = Vec::new();
        for (index, rule) in policy.allow.iter().enumerate() {
            let (by_port, ports) = tls_apart(rule);
            if !by_port.is_empty() {
                // All of it, but the question only for the resolvers it names.
                let (named, rest) = Part::of(rule, by_port).split();
                self.part(rule, index, Section::Allow, named);
                self.part(rule, index, Section::Allow, rest);
                if ports.is_empty() {
                    continue;
                }
            }
            let (named, rest) = Part::of(rule, ports).split();
            self.part(rule, index, Section::Allow, named);
            others.push((index, rule, rest));
        }
        self.encrypted(&policy.dns.encrypted_at);
        for (index, rule, rest) in others {
            self.part(rule, index, Section::Allow, rest);
        }
    }

    /// Refuses the resolvers that are known to be asked over TLS, HTTPS or QUIC, on all ports but that of DNS itself, and questions for
    /// their names. Nothing else is at their addresses.
    fn encrypted(&mut self, place: &Place) {
        let all = [protocol::TCP, protocol::UDP].map(|protocol| port_range(protocol, 0, u16::MAX));
        let ports = Intervals::union(all.to_vec()).without(&dns_ports());
        let addresses = Addresses::new([&Destination::EncryptedDns]);
        let refuse = |flat: &mut Self, addresses, ports| {
            flat.push(ENCRYPTED.to_owned(), Section::Dns, place, Action::Deny, &[], addresses, ports);
        };
        refuse(self, addresses, ports);
        refuse(self, Addresses::default(), Intervals::default());
        self.lead_to(&KNOWN.names, true);
    }

    /// Adds a part of a rule, as one for its addresses and one for its names.
    fn part(&mut self, rule: &Rule, index: usize, section: Section, part: Part) {
        let (word, action) =
            if section == Section::Deny { ("deny", Action::Deny) } else { ("allow", Action::Allow) };
        let name = match &rule.name {
            Some(name) => format!("{word}.{name}"),
            None => format!("{word}.{index}"),
        };
        let addresses = |to: &[Destination]| {
            let addresses = Addresses::new(to);
            if action == Action::Allow { addresses.without_mapped() } else { addresses }
        };
        let Part { to, names, ports, asks } = part;
        if !to.is_empty() {
            let addresses = addresses(&to);
            self.push(name.clone(), section, &rule.place, action, &rule.from, addresses, ports.clone());
        }
        if !names.is_empty() {
            let anywhere = if action == Action::Allow { Destination::Internet } else { Destination::Any };
            let addresses =
                if rule.answers.is_empty() { addresses(&[anywhere]) } else { addresses(&rule.answers) };
            self.push(name, section, &rule.place, action, &rule.from, addresses, ports);
            self.lead_to(&names, asks);
        }
    }

    /// Has the rule that was added last hold where these names lead.
    fn lead_to(&mut self, names: &[Pattern], asks: bool) {
        let number = self.lists.number(names);
        if let Some(rule) = self.rules.last_mut() {
            (rule.names, rule.asks) = (number, asks);
        }
    }

    fn dns(&mut self, policy: &Policy) {
        let dns = &policy.dns;
        let questions = || dns_ports();
        if !dns.resolvers.is_empty() {
            let resolvers: Vec<Destination> =
                dns.resolvers.iter().map(|address| Destination::Network((*address).into())).collect();
            self.allow_dns(
                RESOLVERS.to_owned(),
                &dns.place,
                &dns.clients,
                Addresses::new(&resolvers),
                questions(),
            );
        }
        for (index, recursor) in dns.recursors.iter().enumerate() {
            let addresses = Addresses::new(&recursor.to).without_mapped();
            let name = format!("dns.recursor.{index}");
            self.allow_dns(name, &recursor.place, &recursor.from, addresses, questions());
        }
        for (index, stub) in dns.stubs.iter().enumerate() {
            // `from` says whose answers count, not who may ask: a stub is there for everyone.
            let address = Destination::Network(stub.address.into());
            let (name, addresses) = (format!("dns.stub.{index}"), Addresses::new(&[address]));
            self.allow_dns(name.clone(), &stub.place, &[], addresses.clone(), questions());
            let answered = Intervals::union(vec![port_range(protocol::SERVE, PORT_STUB, PORT_STUB)]);
            self.allow_dns(name, &stub.place, &stub.from, addresses, answered);
        }
        if let Some(serve) = &dns.serve {
            let asked = port_range(protocol::SERVE, PORT_DNS, PORT_DNS);
            let addresses = Addresses::new(&serve.from).without_mapped();
            self.allow_dns(
                "dns.serve".to_owned(),
                &serve.place,
                &[],
                addresses,
                Intervals::union(vec![asked]),
            );
        }
    }

    fn allow_dns(
        &mut self,
        name: String,
        place: &Place,
        from: &[Selector],
        addresses: Addresses,
        ports: Intervals,
    ) {
        self.push(name, Section::Dns, place, Action::Allow, from, addresses, ports);
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of a rule, each of another type")]
    fn push(
        &mut self,
        name: String,
        section: Section,
        place: &Place,
        action: Action,
        from: &[Selector],
        addresses: Addresses,
        ports: Intervals,
    ) {
        let who = match action {
            Action::Allow => self.selectors.allowed(from),
            Action::Deny => self.selectors.bound(from),
        };
        let info = RuleInfo { name, section, line: place.line };
        self.rules.push(FlatRule {
            info,
            span: place.span.clone(),
            action,
            who,
            addresses,
            names: 0,
            asks: false,
            ports,
        });
    }
}

/// Protocols and ports of a rule; none written is any.
fn port_keys(ports: &[Ports]) -> Intervals {
    if ports.is_empty() {
        return Intervals::union(keys(Ports::Any));
    }
    Intervals::union(ports.iter().flat_map(|ports| keys(*ports)).collect())
}

fn default_rule() -> FlatRule {
    FlatRule {
        info: RuleInfo { name: "default".to_owned(), section: Section::Default, line: 0 },
        span: 0..0,
        action: Action::Deny,
        who: Who::EVERYONE,
        addresses: Addresses::default(),
        names: 0,
        asks: false,
        ports: Intervals::default(),
    }
}

/// The ports of encrypted DNS that an allow rule names, and its other ones without these and those of DNS.
fn tls_apart(rule: &Rule) -> (Intervals, Intervals) {
    let closed = Intervals::union(dns_ports().as_slice().iter().copied().chain(tls_ports()).collect());
    let by_port = rule.ports.iter().filter(|ports| ports.is_only(PORT_DNS_TLS));
    let by_port = Intervals::union(by_port.flat_map(|ports| keys(*ports)).collect());
    (by_port, port_keys(&rule.ports).without(&closed))
}

/// DNS over TLS and over QUIC.
fn tls_ports() -> [(u128, u128); 2] {
    [protocol::TCP, protocol::UDP].map(|protocol| port_range(protocol, PORT_DNS_TLS, PORT_DNS_TLS))
}

/// Questions over UDP and TCP; UDP-Lite is judged as UDP.
fn dns_ports() -> Intervals {
    Intervals::union(vec![
        port_range(protocol::UDP, PORT_DNS, PORT_DNS),
        port_range(protocol::TCP, PORT_DNS, PORT_DNS),
    ])
}

fn keys(ports: Ports) -> Vec<(u128, u128)> {
    const ECHO4: u16 = 8 << 8;
    const ECHO6: u16 = 128 << 8;
    match ports {
        // Who may ask a DNS server here is not a destination: SERVE is no protocol a rule can name.
        Ports::Any => vec![(port_key(0, 0), port_key(protocol::SERVE - 1, u16::MAX))],
        Ports::Range { protocol, first, last } => {
            let protocol = match protocol {
                Protocol::Tcp => protocol::TCP,
                Protocol::Udp => protocol::UDP,
                Protocol::Sctp => protocol::SCTP,
            };
            vec![port_range(protocol, first, last)]
        }
        Ports::IcmpEcho => vec![
            port_range(protocol::ICMP, ECHO4, ECHO4 | 0xff),
            port_range(protocol::ICMPV6, ECHO6, ECHO6 | 0xff),
        ],
        Ports::IcmpAny => {
            vec![port_range(protocol::ICMP, 0, u16::MAX), port_range(protocol::ICMPV6, 0, u16::MAX)]
        }
    }
}

fn port_range(protocol: u8, first: u16, last: u16) -> (u128, u128) {
    (port_key(protocol, first), port_key(protocol, last))
}

fn port_key(protocol: u8, port: u16) -> u128 {
    dnswall_common::flow::port_key(0, protocol, port).into()
}
