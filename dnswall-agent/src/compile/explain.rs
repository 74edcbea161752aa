//! Takes an image, a process and a flow, gives the verdict and why: what the kernel would say to a new connection.

use super::identity::Identity;
use super::image::MapImage;
use super::rules::RuleInfo;
use crate::blocklist::name::DomainName;
use crate::policy::{Existing, Mode};
use dnswall_common::decide::{decide, in_cell};
use dnswall_common::flow::{Address, Flow, protocol};
use dnswall_common::image::{Cell, MODE_AUDIT, Term};
use dnswall_common::named::{BELOW, NameSet};
use dnswall_common::packet::is_essential;
use dnswall_common::reason::{Action, Reason, Verdict};
use dnswall_common::search::{find_port, find4, find6};
use dnswall_common::who::Who;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What happens to a flow, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// What happens.
    pub outcome: Outcome,
    /// A [`Reason`] by name.
    pub reason: String,
    /// Number of the rule that decided; 0 when none did.
    pub rule_number: u32,
    /// The rule that decided; the default when none did.
    pub rule: RuleInfo,
    /// The mode that holds for this process.
    pub mode: Mode,
    /// What happens to its live connections when the policy changes.
    pub existing: Existing,
    /// The scope that says so, if one does.
    pub scope: Option<String>,
    /// The `from` entries the process matches, as the policy writes them.
    pub matches: Vec<String>,
    /// Rules that name this destination and port, but other workloads, and come before the one that decided.
    pub passed_over: Vec<RuleInfo>,
    /// The same in a sentence.
    pub because: String,
}

/// What happens to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It passes.
    Allowed,
    /// It is refused.
    Denied,
    /// It passes and is reported: in mode `enforce` it would be refused.
    WouldDeny,
}

impl Outcome {
    /// As alerts write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::WouldDeny => "would-deny",
        }
    }
}

/// Explains what the image does to the first packet of a flow. For who may ask a DNS server here, the flow has the
/// protocol [`protocol::SERVE`] and the address that asks.
///
/// Whether an address is one of this host's own, so that packets to it never leave, is not known here; only loopback
/// addresses are taken as such.
pub fn explain(image: &MapImage, identity: &Identity, flow: &Flow) -> Explanation {
    explain_who(image, &image.who(identity), flow)
}

/// The same for somebody whose selectors are known.
pub fn explain_who(image: &MapImage, who: &Who, flow: &Flow) -> Explanation {
    let verdict = judge(image, flow, who);
    let passed_over = match verdict.reason {
        Reason::Rule | Reason::NotForThisWorkload => passed_over(image, flow, &asker(flow, who)),
        Reason::NameUnknown => by_name_only(image, flow, who),
        _ => Vec::new(),
    };
    explanation(image, who, &verdict, passed_over)
}

/// Explains what the image does to a name: to the question for it, and to a connection where its answers lead.
pub fn explain_name(
    image: &MapImage,
    identity: &Identity,
    name: &DomainName<'_>,
    protocol: u8,
    port: u16,
) -> Explanation {
    let who = image.who(identity);
    if let Ok(answer) = image.lists.check(name)
        && answer.outcome == "denied"
    {
        let (reason, rule) = (Reason::ListedName, image.header.listed_rule);
        let verdict = Verdict { action: Action::Deny, reason, padding: 0, rule };
        let mut explanation = explanation(image, &who, &verdict, Vec::new());
        explanation.because = format!("the question is refused: {}", answer.because);
        return explanation;
    }
    let lists = image.lists_of(name);
    if let Some(Verdict { action: Action::Deny, reason: Reason::Rule, rule, .. }) =
        in_cell(image, image.header.question_cell, &who, &lists)
    {
        let verdict = Verdict { action: Action::Deny, reason: Reason::DeniedName, padding: 0, rule };
        return explanation(image, &who, &verdict, Vec::new());
    }
    // What a rule says by name it says wherever the name may lead: any address of each class will do.
    let by_name = image.addresses().find_map(|address| {
        let flow = Flow { address, protocol, port };
        let verdict = decide(image, &flow, &who, &lists);
        (verdict.reason == Reason::Rule && image.is_by_name(&flow, verdict.rule)).then_some((flow, verdict))
    });
    match by_name {
        Some((flow, verdict)) => {
            let passed_over = passed_over(image, &flow, &who);
            let mut explanation = explanation(image, &who, &verdict, passed_over);
            explanation.because.push_str(" where the answers to it lead, for as long as they say");
            explanation
        }
        None => {
            let flow = Flow { address: ON_THE_INTERNET, protocol, port };
            let mut explanation = explain_who(image, &who, &flow);
            let elsewhere = std::mem::take(&mut explanation.because);
            explanation.because =
                format!("no rule leads this process to the name; anywhere on the internet: {elsewhere}");
            explanation
        }
    }
}

/// An address that is on the internet, and nothing else: 44.0.0.1.
const ON_THE_INTERNET: Address = Address::V4(0x2c00_0001);

fn explanation(image: &MapImage, who: &Who, verdict: &Verdict, passed_over: Vec<RuleInfo>) -> Explanation {
    let (mode, existing) = image.header.treatment(who);
    let outcome = match verdict.action {
        Action::Allow => Outcome::Allowed,
        Action::Deny if mode == MODE_AUDIT => Outcome::WouldDeny,
        Action::Deny => Outcome::Denied,
    };
    let scopes = usize::from(image.header.scope_count);
    let scope = image.header.scopes.iter().take(scopes).position(|scope| scope.who.intersects(who));
    let scope = scope.and_then(|index| image.scopes.get(index)).map(|scope| scope.name.clone());
    Explanation {
        outcome,
        reason: verdict.reason.name().to_owned(),
        rule_number: verdict.rule,
        rule: image.rule(verdict.rule).clone(),
        mode: if mode == MODE_AUDIT { Mode::Audit } else { Mode::Enforce },
        existing: if existing == dnswall_common::image::EXISTING_CUT {
            Existing::Cut
        } else {
            Existing::Keep
        },
        scope,
        matches: image.selector_texts(who).into_iter().map(str::to_owned).collect(),
        because: because(image, verdict, &passed_over),
        passed_over,
    }
}

fn judge(image: &MapImage, flow: &Flow, who: &Who) -> Verdict {
    if stays_here(flow.address) {
        return Verdict::without_rule(Action::Allow, Reason::Loopback);
    }
    if flow.protocol == protocol::SERVE {
        let verdict = decide(image, flow, &asker(flow, who), &NameSet::NONE);
        return match verdict.action {
            Action::Allow => verdict,
            Action::Deny => Verdict::without_rule(Action::Deny, Reason::NotServed),
        };
    }
    // A DHCP client asks from the port below the server's.
    let source_port = if matches!(flow.address, Address::V4(_)) { 68 } else { 546 };
    if is_essential(flow.protocol, source_port, flow.port, flow.address, true) {
        return Verdict::without_rule(Action::Allow, Reason::Essential);
    }
    // Where names led only the kernel knows.
    decide(image, flow, who, &NameSet::NONE)
}

/// Whoever asks a DNS server here is on another host, and nobody the policy could name.
fn asker(flow: &Flow, who: &Who) -> Who {
    if flow.protocol == protocol::SERVE { Who::EVERYONE } else { *who }
}

/// Loopback, and the unspecified address, which connects to loopback.
fn stays_here(address: Address) -> bool {
    address.is_loopback() || matches!(address, Address::V4(0) | Address::V6(0, 0))
}

/// The rules of the flow's cell that bind other workloads, up to the one that binds this.
fn passed_over(image: &MapImage, flow: &Flow, who: &Who) -> Vec<RuleInfo> {
    let terms = terms(image, flow).unwrap_or_default();
    terms
        .iter()
        .take_while(|term| !term.who.intersects(who) || term.names != 0)
        .filter(|term| !term.who.intersects(who))
        .map(|term| image.rule(term.rule).clone())
        .collect()
}

/// The rules of the flow's cell that bind this workload, but only where one of their names led.
fn by_name_only(image: &MapImage, flow: &Flow, who: &Who) -> Vec<RuleInfo> {
    let terms = terms(image, flow).unwrap_or_default();
    let is_it = |term: &&Term| term.action == Action::Allow as u8 && term.names != 0;
    let bind = terms.iter().filter(|term| term.who.intersects(who)).filter(is_it);
    bind.map(|term| image.rule(term.rule).clone()).collect()
}

impl MapImage {
    /// The lists that a name is of.
    pub fn lists_of(&self, name: &DomainName<'_>) -> NameSet {
        let suffixes: Vec<u64> = name.suffixes(self.header.seed).collect();
        let (whole, above) = suffixes.split_last().map_or((0, &[][..]), |(whole, above)| (*whole, above));
        // From the whole name to the shortest suffix: the longest pattern has the lists of all others.
        let patterns = std::iter::once(whole).chain(above.iter().rev().map(|suffix| suffix ^ BELOW));
        let entry = |number: u64| {
            let at = self.named.binary_search_by_key(&number, |(number, _)| *number).ok()?;
            Some(self.named[at].1.lists)
        };
        patterns.into_iter().find_map(entry).unwrap_or(NameSet::NONE)
    }

    /// The first address of every class, in both families.
    fn addresses(&self) -> impl Iterator<Item = Address> {
        let v4 = self.nodes4.iter().flat_map(|node| node.keys).map(Address::V4);
        let ends6 = self.nodes6.iter().flat_map(|node| node.highs.into_iter().zip(node.lows));
        let v6 = ends6.map(|(high, low)| Address::V6(high, low));
        v4.chain(v6)
    }

    /// Whether a rule answers for this flow only where one of its names led.
    fn is_by_name(&self, flow: &Flow, rule: u32) -> bool {
        let terms = terms(self, flow).unwrap_or_default();
        terms.iter().any(|term| term.rule == rule && term.names != 0)
    }
}

fn terms<'i>(image: &'i MapImage, flow: &Flow) -> Option<&'i [Term]> {
    let header = &image.header;
    let class = match flow.address {
        Address::V4(address) => find4(header.nodes4, address, |index| image.nodes4.get(index as usize))?,
        Address::V6(high, low) => find6(header.nodes6, high, low, |index| image.nodes6.get(index as usize))?,
    };
    let key = flow.port_key(class);
    let cell = find_port(header.nodes_port, key, |index| image.nodes_port.get(index as usize))?;
    let Cell { first, count, flags: _ } = *image.cells.get(cell as usize)?;
    image.terms.get(first as usize..first as usize + usize::from(count))
}

fn because(image: &MapImage, verdict: &Verdict, passed_over: &[RuleInfo]) -> String {
    let rule = image.rule(verdict.rule);
    let verb = if verdict.action == Action::Allow { "allows" } else { "denies" };
    let others = || {
        let names: Vec<String> = passed_over.iter().map(described).collect();
        names.join(", ")
    };
    match verdict.reason {
        Reason::Rule => format!("{} {verb} it", described(rule)),
        Reason::NotForThisWorkload => {
            format!("rules name this destination and port, but not for this process: {}", others())
        }
        Reason::NameUnknown => {
            format!("only where one of their names led the process, as its own answers said: {}", others())
        }
        Reason::DeniedName => format!("{} denies the question", described(rule)),
        Reason::NoRule => "no rule names this destination and port".to_owned(),
        Reason::NotServed => "[dns.serve] does not let this address ask a DNS server here".to_owned(),
        Reason::Loopback => "what stays on this host always passes".to_owned(),
        Reason::Essential => "every host needs it to be on a network at all".to_owned(),
        other => other.name().to_owned(),
    }
}

fn described(rule: &RuleInfo) -> String {
    if rule.line == 0 { rule.name.clone() } else { format!("{} (line {})", rule.name, rule.line) }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.outcome.name(), self.because)?;
        let matched: Vec<&str> = self.matches.iter().skip(1).map(String::as_str).collect();
        let matched = if matched.is_empty() { "no `from` entry".to_owned() } else { matched.join(" and ") };
        writeln!(f, "  the process matches {matched}")?;
        let scope = self.scope.as_deref().unwrap_or("the policy");
        write!(f, "  mode {} (from {scope})", self.mode)
    }
}
