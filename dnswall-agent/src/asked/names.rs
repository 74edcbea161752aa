//! Takes answers, gives the name that led a workload to an address, for as long as the answer holds.
//!
//! Never a guess: the last answer that the workload itself got. What another one was told may be its own invention. An answer holds
//! for as long as it does in the kernel ([`lifetime_ns`]).

use std::net::IpAddr;
use std::sync::Arc;

use dnswall_common::named::lifetime_ns;

use crate::event::dns::Answer;
use crate::lru::Lru;

/// Addresses that are remembered.
pub const NAMES_MAX: usize = 16_384;

/// Who got an answer: cgroup and network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asker {
    /// The cgroup.
    pub cgroup: u64,
    /// The network namespace's cookie; 0 when unknown.
    pub netns: u64,
}

/// Names by the addresses they led to.
#[derive(Debug)]
pub struct Names {
    of_asker: Lru<(Asker, IpAddr), Led>,
}

#[derive(Clone, Debug)]
struct Led {
    name: Arc<str>,
    until_ns: u64,
}

impl Default for Names {
    fn default() -> Self {
        Self { of_asker: Lru::new(NAMES_MAX) }
    }
}

impl Names {
    /// Takes an answer to a question for this name. `at_ns` is the monotonic clock.
    pub fn learn(&mut self, asker: Asker, name: &str, answer: &Answer, at_ns: u64) {
        let Some(ttl_secs) = answer.ttl_secs else { return };
        // However it was asked: resolvers choose the case at random.
        let name = Arc::from(name.to_ascii_lowercase());
        let led = Led { name, until_ns: at_ns.saturating_add(lifetime_ns(ttl_secs)) };
        for address in &answer.addresses {
            self.of_asker.insert((asker, *address), led.clone());
        }
    }

    /// The name that led there.
    pub fn find(&mut self, asker: Asker, address: IpAddr, at_ns: u64) -> Option<Arc<str>> {
        let led = self.of_asker.get(&(asker, address))?;
        (at_ns <= led.until_ns).then(|| Arc::clone(&led.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::dns::Question;
    use dnswall_common::named::TTL_MAX;

    const APP: Asker = Asker { cgroup: 1, netns: 1 };
    const OTHER: Asker = Asker { cgroup: 1, netns: 2 };

    fn answer(addresses: &[&str], ttl_secs: Option<u32>) -> Answer {
        Answer {
            question: Question { name: "of.no.interest".to_owned(), kind: "A".to_owned(), id: 1 },
            code: "NOERROR".to_owned(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            ttl_secs,
            aliases: Vec::new(),
            truncated: false,
            bytes: 45,
        }
    }

    fn name(names: &mut Names, asker: Asker, address: &str, at_ns: u64) -> Option<String> {
        names.find(asker, address.parse().unwrap(), at_ns).map(|name| name.to_string())
    }

    #[test]
    fn the_last_answer_of_the_workloads_own_names_an_address() {
        let mut names = Names::default();
        names.learn(APP, "A.exAmple", &answer(&["192.0.2.1", "2001:db8::1"], Some(60)), 0);
        names.learn(APP, "b.example", &answer(&["192.0.2.1"], Some(60)), 1);
        names.learn(OTHER, "c.example", &answer(&["192.0.2.1"], Some(60)), 2);
        assert_eq!(name(&mut names, APP, "192.0.2.1", 3).as_deref(), Some("b.example"));
        assert_eq!(name(&mut names, APP, "2001:db8::1", 3).as_deref(), Some("a.example"));
        assert_eq!(name(&mut names, OTHER, "192.0.2.1", 3).as_deref(), Some("c.example"));
        assert_eq!(name(&mut names, OTHER, "2001:db8::1", 3), None, "another one's answer");
        assert_eq!(name(&mut names, APP, "192.0.2.2", 3), None);
    }

    #[test]
    fn an_answer_holds_as_long_as_it_says() {
        let mut names = Names::default();
        names.learn(APP, "a.example", &answer(&["192.0.2.1"], Some(60)), 0);
        let end = lifetime_ns(60);
        assert!(name(&mut names, APP, "192.0.2.1", end).is_some());
        assert_eq!(name(&mut names, APP, "192.0.2.1", end + 1), None);
        names.learn(APP, "c.example", &answer(&["192.0.2.9"], Some(u32::MAX)), 0);
        let most = lifetime_ns(TTL_MAX);
        assert!(name(&mut names, APP, "192.0.2.9", most).is_some());
        assert_eq!(name(&mut names, APP, "192.0.2.9", most + 1), None);
        names.learn(APP, "d.example", &answer(&["192.0.2.10"], None), 0);
        assert_eq!(name(&mut names, APP, "192.0.2.10", 0), None);
    }
}
