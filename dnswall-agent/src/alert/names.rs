//! Takes names that were asked for, gives the domain they were registered under, how many there were and some of them: a
//! thousand names below one domain, as tunnels and generated names are, are one group.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use dnswall_common::reason::Reason;
use serde::{Deserialize, Serialize};

use crate::event::EnrichedEvent;

/// Names that are told apart until the next alert; of a flow with more, there were at least so many.
pub const DISTINCT_MAX: usize = 1_024;
/// Names that are shown.
const SAMPLES_MAX: usize = 4;

/// Several names that were asked for. Of those the kernel told of: one a second for each process and resolver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertNames {
    /// Under which domain they were registered; `null` when they have no such in common.
    pub domain: Option<String>,
    /// How many different ones, since the flow's previous alert.
    pub distinct: u64,
    /// The first of the flow. The last is in `dns`.
    pub first: String,
    /// Some of those between.
    pub samples: Vec<String>,
}

/// Names as they come.
#[derive(Debug, Default)]
pub(super) struct Names {
    domain: Option<Arc<str>>,
    first: Option<String>,
    samples: Vec<String>,
    /// Only their hashes, with a key that nobody knows.
    seen: HashSet<u64>,
    hasher: RandomState,
}

impl Names {
    pub(super) fn new(domain: Option<Arc<str>>) -> Self {
        Self { domain, ..Self::default() }
    }

    /// One more.
    pub(super) fn add(&mut self, name: &str) {
        if self.first.is_none() {
            self.first = Some(name.to_owned());
        }
        if self.seen.len() < DISTINCT_MAX
            && self.seen.insert(self.hasher.hash_one(name))
            && self.first.as_deref() != Some(name)
            && self.samples.len() < SAMPLES_MAX
        {
            self.samples.push(name.to_owned());
        }
    }

    /// Those since the last time; nothing when there is no more than the alert's own.
    pub(super) fn take(&mut self) -> Option<AlertNames> {
        let distinct = self.seen.len() as u64;
        (self.seen, self.hasher) = Default::default();
        let samples = std::mem::take(&mut self.samples);
        let first = self.first.clone()?;
        let domain = self.domain.as_deref().map(str::to_owned);
        (distinct > 1).then_some(AlertNames { domain, distinct, first, samples })
    }
}

/// The domain that has a refused question's name, where the name is why it was refused: by the list of public suffixes. A name
/// that is such a suffix itself stands for itself.
pub(super) fn registered(event: &EnrichedEvent) -> Option<Arc<str>> {
    let is_about_name = matches!(
        event.reason,
        Reason::ListedName
            | Reason::DeniedName
            | Reason::QuestionType
            | Reason::NameLength
            | Reason::LabelLength
            | Reason::LabelCount
            | Reason::NamesPerDomain
            | Reason::AnswerBytes
    );
    let question = event.question.as_ref().filter(|_| is_about_name)?;
    let name = question.name.to_ascii_lowercase();
    Some(Arc::from(psl::domain_str(&name).unwrap_or(&name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::sample;

    fn of(name: &str, reason: Reason) -> Option<String> {
        let mut event = sample::enriched();
        event.reason = reason;
        event.question.as_mut().unwrap().name = name.to_owned();
        registered(&event).map(|domain| domain.to_string())
    }

    #[test]
    fn the_list_of_suffixes_says_where_a_domain_begins() {
        let reason = Reason::NamesPerDomain;
        for (name, domain) in [
            ("a1.t.example.com", "example.com"),
            ("A1.T.Example.COM", "example.com"),
            ("x.y.example.co.uk", "example.co.uk"),
            ("a.b.github.io", "b.github.io"),
            ("co.uk", "co.uk"),
            ("localhost", "localhost"),
            ("a.b.nosuchtld", "b.nosuchtld"),
            ("", ""),
            ("..", ".."),
            ("a\\.b.example.org", "example.org"),
        ] {
            assert_eq!(of(name, reason).as_deref(), Some(domain), "{name}");
        }
        assert_eq!(of("example.com", Reason::NoRule), None, "the name has nothing to do with it");
        assert_eq!(of("example.com", Reason::QuestionRate), None);
    }

    #[test]
    fn names_are_counted_and_some_are_shown() {
        let mut names = Names::new(Some(Arc::from("example.com")));
        names.add("a.example.com");
        names.add("a.example.com");
        assert_eq!(names.take(), None, "the alert has it");
        (0..2_000).for_each(|number| names.add(&format!("{number}.example.com")));
        let told = names.take().unwrap();
        assert_eq!((told.distinct, &*told.first, told.samples.len()), (1_024, "a.example.com", SAMPLES_MAX));
        assert_eq!(names.take(), None);
    }
}
