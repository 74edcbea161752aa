//! Takes two policies, gives what differs: for a person before `apply`, and for a program.

use crate::blocklist::bounds;
use crate::blocklist::format::Format;
use crate::blocklist::{KnownGoodNames, List};
use crate::policy::{Dns, Encrypted, Policy, Rule, Scope, Selector};
use domain::base::iana::Rtype;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What differs between two policies. Comments, order of keys and blanks do not count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyDiff {
    /// Each difference, in the order of the sections.
    pub changes: Vec<Change>,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What it is: `mode`, `dns.resolvers`, `allow.orders database`.
    pub what: String,
    /// What it was; `None` when it is new.
    pub before: Option<String>,
    /// What it is now; `None` when it is gone.
    pub after: Option<String>,
}

impl PolicyDiff {
    /// Whether both policies say the same.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// What changes when `new` replaces `old`.
pub fn diff(old: &Policy, new: &Policy) -> PolicyDiff {
    let (old, new) = (statements(old), statements(new));
    let mut changes = Vec::new();
    let keys: BTreeSet<&Key> = old.keys().chain(new.keys()).collect();
    for key in keys {
        let (before, after) = (old.get(key), new.get(key));
        if before != after {
            changes.push(Change { what: key.1.clone(), before: before.cloned(), after: after.cloned() });
        }
    }
    PolicyDiff { changes }
}

/// The section's place in the output, and the name.
type Key = (u8, String);

/// Everything a policy says, each as one line in a form that does not depend on how it is written.
fn statements(policy: &Policy) -> BTreeMap<Key, String> {
    let mut said = BTreeMap::new();
    let mut say = |section: u8, what: String, value: String| {
        if !value.is_empty() {
            said.insert((section, what), value);
        }
    };
    say(0, "mode".to_owned(), policy.mode.to_string());
    say(0, "existing".to_owned(), policy.existing.to_string());
    dns(&policy.dns, &mut say);
    rules(&policy.deny, |name, value| say(2, format!("deny.{name}"), value));
    rules(&policy.allow, |name, value| say(3, format!("allow.{name}"), value));
    for (index, scope) in policy.scopes.iter().enumerate() {
        let name = scope.name.clone().unwrap_or_else(|| index.to_string());
        let Scope { place: _, name: _, from, mode, existing, limits } = scope;
        // The first scope that matches decides, so its place counts.
        let value = format!(
            "{}: mode {mode}, existing {existing}, limits {limits}, from {}",
            index + 1,
            selectors(from)
        );
        say(4, format!("scope.{name}"), value);
    }
    for blocklist in &policy.blocklists {
        let List { name, source, format, action, entries, change } = &blocklist.list;
        let format = format.map_or("auto", Format::name);
        let (least, most) = (entries.start(), entries.end());
        let bounds::Change { shrink_percent, growth_percent } = change;
        let mut value = format!(
            "{} from {source} ({format}), {least} to {most} entries, -{shrink_percent}% to +{growth_percent}%",
            action.name()
        );
        if let Some((url, refresh)) = source.url() {
            // What is secret in a URL is not shown, and still makes it another one.
            value.push_str(&format!(", every {} s, {:.8}", refresh.as_secs(), url.key()));
        }
        say(7, format!("blocklist.{name}"), value);
    }
    let KnownGoodNames { names, lists } = &policy.known_good.names;
    say(8, "known-good.names".to_owned(), list(names));
    let lists: Vec<_> = lists.iter().map(|path| path.display()).collect();
    say(8, "known-good.lists".to_owned(), list(&lists));
    say(5, "raw".to_owned(), list(&policy.raw));
    say(6, "unjudged".to_owned(), list(&policy.unjudged));
    said
}

fn dns(dns: &Dns, say: &mut impl FnMut(u8, String, String)) {
    let Dns {
        place: _,
        resolvers,
        clients,
        encrypted,
        encrypted_at: _,
        deny_types,
        events,
        limits,
        limits_at: _,
        recursors,
        stubs,
        serve,
    } = dns;
    say(1, "dns.resolvers".to_owned(), list(resolvers));
    if !clients.is_empty() {
        say(1, "dns.clients".to_owned(), selectors(clients));
    }
    let encrypted = if *encrypted == Encrypted::Deny { "deny" } else { "allow" };
    say(1, "dns.encrypted".to_owned(), encrypted.to_owned());
    let types: Vec<Rtype> = deny_types.iter().map(|number| Rtype::from_int(*number)).collect();
    say(1, "dns.deny-types".to_owned(), list(&types));
    say(1, "dns.events".to_owned(), events.to_string());
    say(1, "dns.limits".to_owned(), limits.to_string());
    for (index, recursor) in recursors.iter().enumerate() {
        let value = format!("to {} from {}", list(&recursor.to), selectors(&recursor.from));
        say(1, format!("dns.recursor.{index}"), value);
    }
    for stub in stubs {
        let from = if stub.from.is_empty() { "anyone".to_owned() } else { selectors(&stub.from) };
        say(1, format!("dns.stub at {}", stub.address), format!("answers count from {from}"));
    }
    if let Some(serve) = serve {
        say(1, "dns.serve".to_owned(), format!("from {}", list(&serve.from)));
    }
}

fn rules(rules: &[Rule], mut say: impl FnMut(String, String)) {
    for (index, rule) in rules.iter().enumerate() {
        let Rule { place: _, name, to, names, answers, ports, from } = rule;
        let ports = if ports.is_empty() { "any".to_owned() } else { list(ports) };
        let to: Vec<String> =
            to.iter().map(ToString::to_string).chain(names.iter().map(ToString::to_string)).collect();
        let answers = if answers.is_empty() { String::new() } else { format!(" answers {}", list(answers)) };
        let value = format!("to {}{answers} ports {ports} from {}", list(&to), selectors(from));
        say(name.clone().unwrap_or_else(|| index.to_string()), value);
    }
}

fn selectors(from: &[Selector]) -> String {
    if from.is_empty() { "everyone".to_owned() } else { list(from) }
}

/// Sorted, since no list of a policy depends on its order.
fn list(items: &[impl fmt::Display]) -> String {
    let mut texts: Vec<String> = items.iter().map(ToString::to_string).collect();
    texts.sort();
    texts.dedup();
    texts.join(", ")
}

impl fmt::Display for PolicyDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("the policies say the same");
        }
        for (index, Change { what, before, after }) in self.changes.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            match (before, after) {
                (Some(before), Some(after)) => write!(f, "{newline}~ {what}\n  - {before}\n  + {after}")?,
                (Some(before), None) => write!(f, "{newline}- {what}: {before}")?,
                (None, Some(after)) => write!(f, "{newline}+ {what}: {after}")?,
                (None, None) => {}
            }
        }
        Ok(())
    }
}
