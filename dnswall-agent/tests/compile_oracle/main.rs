//! Compiled policies decide as a reader would: random policies are written as text, parsed and compiled, and asked
//! about flows near every boundary. The oracle reads the same policy rule by rule, and shares no code with the
//! compiler: its own idea of units, containers, networks and what the internet is.

mod pool;
mod reader;
mod traffic;
mod world;

use dnswall_agent::blocklist::name::DomainName;
use dnswall_agent::compile::{Identity, MapImage, Outcome, compile, explain};
use dnswall_agent::policy::parse;
use dnswall_common::decide::decide;
use dnswall_common::flow::Flow;
use dnswall_common::named::NameSet;
use dnswall_common::reason::{Action, Reason};
use proptest::prelude::*;
use reader::{Answer, allows, binds, leads_to, oracle};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use traffic::{Dice, addresses, flow, packet, process};
use world::{Entry, To, world};

fn answer(image: &MapImage, flow: &Flow, by: Option<&str>, identity: &Identity) -> Answer {
    let name = |text| DomainName::new(text).expect("a name");
    let known = by.map_or(NameSet::NONE, |text| image.lists_of(&name(text)));
    let verdict = decide(image, flow, &image.who(identity), &known);
    let name = image.rule(verdict.rule).name.clone();
    match (verdict.action, verdict.reason) {
        (Action::Allow, Reason::Rule) => Answer::Allowed(name),
        (Action::Deny, Reason::Rule) => Answer::Denied(name),
        (Action::Deny, Reason::NameUnknown) => Answer::NameUnknown,
        (Action::Deny, Reason::NotForThisWorkload) => Answer::NotForThisWorkload,
        (Action::Deny, Reason::NoRule) => Answer::NoRule,
        other => panic!("unexpected verdict {other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn compiled_policies_decide_as_a_reader_would(world in world(), seed: u64) {
        let text = world.text();
        let policy = parse(&text, "random.toml").map_err(|problems| TestCaseError::fail(format!("{problems}")))?;
        let compiled = compile(&policy, &world.environment());
        let (image, _) = compiled.map_err(|problems| TestCaseError::fail(format!("{problems}")))?;
        let addresses = addresses(&world);
        let mut dice = Dice(seed);
        for _ in 0..150 {
            let (packet, process) = (packet(&mut dice, &addresses), process(&mut dice));
            let identity = Identity {
                cgroup: format!("{}{}", world.root(), process.place),
                uid: Some(process.uid),
                exe: Some(process.exe),
                ..Identity::default()
            };
            let expected = oracle(&world, &packet, &process);
            let flow = flow(&packet);
            prop_assert_eq!(&answer(&image, &flow, packet.by, &identity), &expected, "{:?} {:?}\n{}", packet, process, text);

            let root = world.root();
            let holds = |scope: &&(Vec<Entry>, Option<bool>, Option<bool>)| {
                let only_reports = scope.1.unwrap_or(world.audit);
                let who = if only_reports { allows } else { binds };
                who(&scope.0, &process, root)
            };
            let scope = world.scopes.iter().find(holds);
            let audit = scope.and_then(|scope| scope.1).unwrap_or(world.audit);
            let cut = scope.and_then(|scope| scope.2).unwrap_or(world.cut);
            let who = image.who(&identity);
            prop_assert_eq!(image.header.treatment(&who), (if audit { 2 } else { 1 }, if cut { 2 } else { 1 }));
            let raw = !world.raw.is_empty() && allows(&world.raw, &process, root);
            prop_assert_eq!(image.header.raw.intersects(&who), raw, "raw for {:?}\n{}", process, text);

            let explanation = explain(&image, &identity, &flow);
            if packet.by.is_none() && !matches!(explanation.reason.as_str(), "loopback" | "essential") {
                let outcome = match (&expected, audit) {
                    (Answer::Allowed(_), _) => Outcome::Allowed,
                    (_, true) => Outcome::WouldDeny,
                    (_, false) => Outcome::Denied,
                };
                prop_assert_eq!(explanation.outcome, outcome);
            }
        }
    }
}

#[test]
fn the_oracle_itself_knows_a_network() {
    let net = [To::Net(IpAddr::V4(Ipv4Addr::new(10, 0, 3, 0)), 24)];
    assert!(leads_to(&net, "10.0.3.255".parse().expect("an address")));
    assert!(!leads_to(&net, "10.0.4.0".parse().expect("an address")));
    assert!(!leads_to(&net, IpAddr::V6(Ipv6Addr::LOCALHOST)));
}
