//! Takes what is known of a process, gives its selectors: the computation the kernel does, on the host.

use super::image::MapImage;
use super::who::{NameEntry, step};
use crate::policy::CGROUP_LEVELS_MAX;
use dnswall_common::identity::{
    CONTAINER_ID_BYTES, KIND_CONTAINER, KIND_HOST, KIND_UNIT, container_in, extension, name,
};
use dnswall_common::limits::CGROUP_NAME_BYTES;
use dnswall_common::who::Who;

/// A process as the policy sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its cgroup from the root of the hierarchy, as `/proc/PID/cgroup` shows it. Empty or `/` is the root.
    pub cgroup: String,
    /// Its unit; `None` means whatever the cgroup says.
    pub unit: Option<String>,
    /// The id of its container, or how it begins; `None` means whatever the cgroup says.
    pub container: Option<String>,
    /// Its user.
    pub uid: Option<u32>,
    /// Its executable: inode number, and device as `major << 20 | minor`.
    pub exe: Option<(u64, u32)>,
}

impl MapImage {
    /// The selectors a process matches.
    pub fn who(&self, identity: &Identity) -> Who {
        let Some(components) = components(&identity.cgroup) else { return Who::NONE };
        let unit = identity.unit.as_deref().or_else(|| self.unit_of(&components));
        let container = identity.container.as_deref().or_else(|| container_of(&components));
        let free = &self.header.unconstrained;
        let user = identity.uid.and_then(|uid| found(&self.users, &uid));
        let exe = identity.exe.and_then(|exe| found(&self.exes, &exe));
        self.named(unit, container, &components)
            .and(&free.user.or(&user.unwrap_or(Who::NONE)))
            .and(&free.exe.or(&exe.unwrap_or(Who::NONE)))
    }

    /// The selectors that the names of a cgroup satisfy, whoever runs what in it: what the kernel keeps by cgroup.
    pub fn who_by_cgroup(&self, cgroup: &str) -> Who {
        let Some(components) = components(cgroup) else { return Who::NONE };
        self.named(self.unit_of(&components), container_of(&components), &components)
    }

    fn named(&self, unit: Option<&str>, container: Option<&str>, components: &[&str]) -> Who {
        let free = &self.header.unconstrained;
        let unit = unit.map_or(Who::NONE, |unit| self.named_unit(unit));
        let containers = match container {
            Some(id) => {
                let named = self.longest(KIND_CONTAINER, 0, id.as_bytes());
                free.container.or(&named).without(&self.longest(KIND_HOST, 0, &[]))
            }
            None => free.container,
        };
        free.unit.or(&unit).and(&free.cgroup.or(&self.below(components))).and(&containers)
    }

    /// What the selectors of a set are, as the policy writes them.
    pub fn selector_texts(&self, who: &Who) -> Vec<&str> {
        let held = self.selectors.iter().enumerate().filter(|(bit, _)| who.contains(*bit));
        // An entry that allows here and forbids there is two selectors, of one text.
        let mut texts: Vec<&str> = Vec::new();
        for (_, text) in held {
            if !texts.contains(&text.as_str()) {
                texts.push(text);
            }
        }
        texts
    }

    /// The first directory below the wall's root that is not a slice.
    fn unit_of<'c>(&self, components: &[&'c str]) -> Option<&'c str> {
        let mut below = components.iter();
        for root in self.root.path.split('/').filter(|name| !name.is_empty()) {
            if below.next() != Some(&root) {
                return None;
            }
        }
        below.find(|component| !cut(component).ends_with(b".slice")).copied()
    }

    /// The selectors of every cgroup on the way down.
    fn below(&self, components: &[&str]) -> Who {
        let seed = self.header.seed;
        let (mut hash, mut who) = (seed, Who::NONE);
        for component in components {
            hash = step(hash, component, seed);
            who = who.or(&found(&self.paths, &hash).unwrap_or(Who::NONE));
        }
        who
    }

    fn named_unit(&self, unit: &str) -> Who {
        let ended = [cut(unit), &[0]].concat();
        let whole = self.longest(KIND_UNIT, 0, &ended);
        let shape = name(cut(unit)).map(|name| extension(&name, cut(unit).len() as u64));
        match shape {
            Some(0) | None => whole,
            Some(extension) => whole.or(&self.longest(KIND_UNIT, extension, &ended)),
        }
    }

    /// The bits of the longest entry that the name begins with.
    fn longest(&self, kind: u32, extension: u32, name: &[u8]) -> Who {
        let begins = |entry: &&NameEntry| {
            (entry.kind, entry.extension) == (kind, extension) && name.starts_with(&entry.bytes)
        };
        self.names
            .iter()
            .filter(begins)
            .max_by_key(|entry| entry.bytes.len())
            .map_or(Who::NONE, |entry| entry.who)
    }
}

/// The directories of a path; `None` when there are more than the kernel walks, and nothing matches.
fn components(cgroup: &str) -> Option<Vec<&str>> {
    let components: Vec<&str> = cgroup.split('/').filter(|name| !name.is_empty()).collect();
    (components.len() <= CGROUP_LEVELS_MAX).then_some(components)
}

/// As much of a directory's name as the kernel reads.
pub(super) fn cut(text: &str) -> &[u8] {
    &text.as_bytes()[..text.len().min(CGROUP_NAME_BYTES - 1)]
}

/// The id of the container that these directories lead into.
fn container_of<'c>(components: &[&'c str]) -> Option<&'c str> {
    let (place, start) = container_in(components.iter().map(|component| cut(component)))?;
    components[place].get(start..start + CONTAINER_ID_BYTES)
}

fn found<K: Ord + Copy>(entries: &[(K, Who)], key: &K) -> Option<Who> {
    entries.binary_search_by_key(key, |entry| entry.0).ok().map(|at| entries[at].1)
}
