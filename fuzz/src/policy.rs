//! Policies: whatever the text is, it ends with an image that answers as a reader would, or with problems that have a
//! place in it.

use std::net::IpAddr;

use dnswall_agent::compile::{FixedEnvironment, Identity, MapImage, Section, compile, explain};
use dnswall_agent::policy::encrypted::KNOWN;
use dnswall_agent::policy::{Destination, Policy, Ports, Problems, Protocol, Rule, parse};
use dnswall_common::flow::{Address, Flow, protocol};
use dnswall_common::named::NameSet;

use crate::Dice;

/// Questions asked of each policy.
const QUESTIONS: usize = 24;

/// Reads, compiles, asks.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let policy = match parse(text, "hostile.toml") {
        Ok(policy) => policy,
        Err(problems) => return check_problems(text, &problems),
    };
    let environment = FixedEnvironment {
        users: [("alice".to_owned(), 1000)].into(),
        executables: [("/usr/bin/a".to_owned(), vec![(11, 8)])].into(),
        seed: 7,
        ..FixedEnvironment::default()
    };
    match compile(&policy, &environment) {
        Ok((image, _)) => ask(&policy, &image, &mut Dice::of(data)),
        Err(problems) => check_problems(text, &problems),
    }
}

/// Every problem points into the text, and what is shown of it cannot steer a terminal.
pub fn check_problems(text: &str, problems: &Problems) {
    assert!(problems.has_errors());
    let lines = text.split('\n').count();
    for problem in problems.list() {
        assert!((1..=lines).contains(&problem.line) && problem.column >= 1, "{problem:?}");
        assert!(text.get(problem.span.clone()).is_some(), "{problem:?}");
    }
    let shown = problems.render(false);
    let steers = |character: char| character.is_control() && !matches!(character, '\n' | '\t');
    assert!(!shown.contains(steers), "control characters reach the terminal: {shown:?}");
}

/// Flows at and beside whatever the policy names, of processes that it may name.
fn ask(policy: &Policy, image: &MapImage, dice: &mut Dice) {
    let rules = || policy.deny.iter().chain(&policy.allow);
    let mut addresses: Vec<IpAddr> = policy.dns.resolvers.clone();
    addresses.extend(
        ["8.8.8.8", "127.0.0.1", "::ffff:8.8.8.8", "2001:4860::8"]
            .map(|text| text.parse::<IpAddr>().expect("an address")),
    );
    for to in rules().flat_map(|rule| &rule.to) {
        if let Destination::Network(net) = to {
            addresses.extend([net.network(), net.broadcast()]);
        }
    }
    let mut ports = vec![0, 53, 443, 853, 2048, u16::MAX];
    for named in rules().flat_map(|rule| &rule.ports) {
        if let Ports::Range { first, last, .. } = named {
            ports.extend([*first, *last, first.wrapping_sub(1), last.wrapping_add(1)]);
        }
    }
    let protocols = [6, 17, 136, 132, 1, 58, 47, 255];
    for _ in 0..QUESTIONS {
        let address = addresses[dice.below(addresses.len())];
        let flow = Flow {
            address: on_the_wire(address),
            protocol: protocols[dice.below(protocols.len())],
            port: ports[dice.below(ports.len())],
        };
        let identity = Identity {
            cgroup: ["/", "/system.slice/orders.service", "/a.slice/a-b.slice"][dice.below(3)].to_owned(),
            uid: [None, Some(0), Some(1000)][dice.below(3)],
            exe: [None, Some((11, 8))][dice.below(2)],
            ..Identity::default()
        };
        check_answer(policy, image, address, &flow, &identity);
    }
}

/// What is allowed by a rule is named by that rule, and what a rule for everyone denies is not allowed.
fn check_answer(policy: &Policy, image: &MapImage, address: IpAddr, flow: &Flow, identity: &Identity) {
    let answer = explain(image, identity, flow);
    assert_eq!(answer, explain(image, identity, flow));
    assert!(!answer.because.is_empty() && (answer.rule_number as usize) < image.rules.len(), "{answer:?}");
    if matches!(answer.reason.as_str(), "loopback" | "essential") {
        return;
    }
    let who = image.who(identity);
    let verdict = dnswall_common::decide::decide(image, flow, &who, &NameSet::NONE);
    let is_allowed = verdict.action == dnswall_common::reason::Action::Allow;
    let names =
        |rule: &Rule, internet: bool| leads_to(&rule.to, address, internet) && names_port(&rule.ports, flow);
    let denied = policy.deny.iter().any(|rule| rule.from.is_empty() && names(rule, false));
    if flow.protocol != protocol::SERVE {
        assert!(!(denied && is_allowed), "denied to everyone, and allowed: {flow:?} {answer:?}");
    }
    if is_allowed && answer.rule.section == Section::Allow {
        assert!(policy.allow.iter().any(|rule| names(rule, true)), "allowed by nothing: {flow:?} {answer:?}");
        assert!(!is_question(flow), "port 53 is not a rule's to open: {answer:?}");
    }
}

fn on_the_wire(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => Address::V4(address.into()),
        IpAddr::V6(address) => Address::V6((u128::from(address) >> 64) as u64, u128::from(address) as u64),
    }
}

/// What the internet is the compiler's own tests know; here it is taken for everything or for nothing.
fn leads_to(to: &[Destination], address: IpAddr, internet: bool) -> bool {
    to.iter().any(|to| match to {
        Destination::Any => true,
        Destination::Internet => internet,
        // Through a translator to IPv4 as well.
        Destination::EncryptedDns => internet || KNOWN.networks.iter().any(|net| net.contains(&address)),
        Destination::Network(net) => net.contains(&address),
    })
}

fn is_question(flow: &Flow) -> bool {
    flow.port == 53 && matches!(flow.protocol, protocol::TCP | protocol::UDP | protocol::UDP_LITE)
}

fn names_port(ports: &[Ports], flow: &Flow) -> bool {
    let is = |name: Protocol| match name {
        Protocol::Tcp => flow.protocol == protocol::TCP,
        Protocol::Udp => matches!(flow.protocol, protocol::UDP | protocol::UDP_LITE),
        Protocol::Sctp => flow.protocol == protocol::SCTP,
    };
    ports.is_empty()
        || ports.iter().any(|port| match *port {
            Ports::Any => true,
            Ports::Range { protocol, first, last } => is(protocol) && (first..=last).contains(&flow.port),
            Ports::IcmpEcho => {
                (flow.protocol == protocol::ICMP && flow.port >> 8 == 8)
                    || (flow.protocol == protocol::ICMPV6 && flow.port >> 8 == 128)
            }
            Ports::IcmpAny => matches!(flow.protocol, protocol::ICMP | protocol::ICMPV6),
        })
}
