//! What rule numbers mean, by generation: an event may arrive after the policy that judged it was replaced.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use super::AlertPolicy;
use crate::blocklist::ExactLists;

/// Policies remembered, the active one included.
pub const POLICIES_MAX: usize = 4;

/// Name, digest and rule names of one published policy.
#[derive(Clone, Debug)]
pub struct PolicyRules {
    name: String,
    generation: u32,
    digest: String,
    rules: Vec<Arc<str>>,
    lists: Arc<ExactLists>,
    resolvers: Vec<IpAddr>,
}

impl PolicyRules {
    /// `rules` by number, `default` first.
    pub fn new(
        name: &str,
        generation: u32,
        digest: &[u8; 32],
        rules: impl IntoIterator<Item = String>,
        lists: Arc<ExactLists>,
    ) -> Self {
        let digest = digest.iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        Self {
            name: name.to_owned(),
            generation,
            digest,
            rules: rules.into_iter().map(Arc::from).collect(),
            lists,
            resolvers: Vec::new(),
        }
    }

    /// Which tells of questions to these resolvers.
    pub fn with_resolvers(self, resolvers: Vec<IpAddr>) -> Self {
        Self { resolvers, ..self }
    }

    /// The policy's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its generation.
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// Its digest in hexadecimal.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Its block lists.
    pub const fn lists(&self) -> &Arc<ExactLists> {
        &self.lists
    }

    /// The resolvers and stubs whose questions it tells of.
    pub fn resolvers(&self) -> &[IpAddr] {
        &self.resolvers
    }

    /// The name of a rule.
    pub fn rule(&self, number: u32) -> Option<&Arc<str>> {
        self.rules.get(usize::try_from(number).ok()?)
    }
}

/// The last few published policies.
#[derive(Clone, Debug, Default)]
pub struct RuleBook {
    policies: VecDeque<Arc<PolicyRules>>,
}

impl RuleBook {
    /// The policy that was published last.
    pub fn newest(&self) -> AlertPolicy {
        let newest = self.policies.back();
        let generation = newest.map_or(0, |policy| policy.generation());
        AlertPolicy::new(newest.map(|policy| &**policy), generation)
    }

    /// Adds a policy, in place of one with the same generation; the oldest goes when there are too many.
    pub fn insert(&mut self, policy: PolicyRules) {
        self.policies.retain(|known| known.generation != policy.generation);
        self.policies.push_back(Arc::new(policy));
        if self.policies.len() > POLICIES_MAX {
            self.policies.pop_front();
        }
    }

    /// All policies that are remembered.
    pub fn policies(&self) -> impl Iterator<Item = &PolicyRules> {
        self.policies.iter().map(AsRef::as_ref)
    }

    /// The policy of a generation.
    pub fn policy(&self, generation: u32) -> Option<&Arc<PolicyRules>> {
        self.policies.iter().rev().find(|policy| policy.generation == generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_named_by_generation_and_number() {
        let mut book = RuleBook::default();
        for generation in 1..=6 {
            let rules = ["default".to_owned(), format!("allow.{generation}")];
            book.insert(PolicyRules::new("p", generation, &[generation as u8; 32], rules, Arc::default()));
        }
        let rule = |generation, number| book.policy(generation)?.rule(number).map(ToString::to_string);
        assert_eq!(rule(6, 1).as_deref(), Some("allow.6"));
        assert_eq!(rule(3, 0).as_deref(), Some("default"));
        assert_eq!((rule(2, 1), rule(6, 2)), (None, None));
        assert_eq!(book.policy(5).unwrap().digest(), "05".repeat(32));
    }

    #[test]
    fn a_generation_is_one_policy() {
        let mut book = RuleBook::default();
        book.insert(PolicyRules::new("old", 1, &[0; 32], [], Arc::default()));
        book.insert(PolicyRules::new("new", 1, &[0; 32], [], Arc::default()));
        assert_eq!((book.policies.len(), book.policy(1).unwrap().name()), (1, "new"));
        assert_eq!(book.policy(1).unwrap().generation(), 1);
    }
}
