//! Takes the `from` entries of a policy, gives each distinct one a bit, and the tables by which the kernel finds the
//! bits of a process.
//!
//! A process has a selector's bit when each of the five kinds of table grants it: by finding the process in the
//! table, or because the selector does not use that kind of key ([`Unconstrained`]). A slice is a cgroup to all of
//! this; an entry that names both needs only the deeper, if one lies within the other.

use super::environment::{Environment, FileId, RootCgroup};
use super::identity::cut;
use crate::policy::{CGROUP_LEVELS_MAX, CgroupPath, Problem, Selector, Unit, User, Warning};
use dnswall_common::identity::{
    KIND_CONTAINER, KIND_HOST, KIND_UNIT, component_hash, extension_hash, name, path_step,
};
use dnswall_common::image::Unconstrained;
use dnswall_common::limits::{SELECTORS_MAX, WHO_ENTRIES_MAX};
use dnswall_common::who::Who;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Executables one pattern may stand for.
pub const EXECUTABLES_PER_PATTERN_MAX: usize = 256;

/// An entry of the kernel's table of names: the longest one that a name begins with holds the bits of all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameEntry {
    /// [`KIND_UNIT`], [`KIND_CONTAINER`] or [`KIND_HOST`].
    pub kind: u32,
    /// 0, or the [`extension_hash`] a name must have.
    pub extension: u32,
    /// How the name begins; a whole name ends in a zero.
    pub bytes: Vec<u8>,
    /// The selectors it grants, those of every entry it begins with included.
    pub who: Who,
}

/// Selectors by bit. Bit 0 is everyone.
pub(super) struct Selectors {
    bits: HashMap<(String, Reach), usize>,
    distinct: Vec<(Selector, Reach)>,
    /// The first that found no bit.
    too_many: Option<Selector>,
}

/// Where a selector holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reach {
    Everywhere,
    /// Not in containers: it allows something to a user of the host's and says nothing else of who that is. Whoever is root in
    /// a container without a user namespace can be any user's number.
    Host,
}

/// The tables of an image.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) users: BTreeMap<u32, Who>,
    pub(super) exes: BTreeMap<FileId, Who>,
    pub(super) paths: BTreeMap<u64, Who>,
    pub(super) names: Vec<NameEntry>,
}

impl Selectors {
    pub(super) fn new() -> Self {
        Self { bits: HashMap::new(), distinct: Vec::new(), too_many: None }
    }

    /// The bits of a `from` list that allows something; an empty one is everyone.
    pub(super) fn allowed(&mut self, from: &[Selector]) -> Who {
        self.who(from, |selector| if selector.is_user_alone() { Reach::Host } else { Reach::Everywhere })
    }

    /// The bits of a `from` list that forbids something, or holds somebody to the rules; an empty one is everyone.
    pub(super) fn bound(&mut self, from: &[Selector]) -> Who {
        self.who(from, |_| Reach::Everywhere)
    }

    fn who(&mut self, from: &[Selector], reach: impl Fn(&Selector) -> Reach) -> Who {
        if from.is_empty() {
            return Who::EVERYONE;
        }
        let mut who = Who::NONE;
        for selector in from {
            let next = self.bits.len() + 1;
            let reach = reach(selector);
            let bit = *self.bits.entry((selector.to_string(), reach)).or_insert(next);
            if bit < SELECTORS_MAX {
                who.insert(bit);
            }
            if bit == next && next < SELECTORS_MAX {
                self.distinct.push((selector.clone(), reach));
            } else if bit == next && self.too_many.is_none() {
                self.too_many = Some(selector.clone());
            }
        }
        who
    }

    /// What each bit stands for; bit 0 is "everyone".
    pub(super) fn texts(&self) -> Vec<String> {
        let distinct = self.distinct.iter().map(|(selector, _)| selector.to_string());
        std::iter::once("everyone".to_owned()).chain(distinct).collect()
    }

    /// Looks up what each selector names on this host, gives the tables and what no selector asks for.
    pub(super) fn resolve(
        &self,
        environment: &dyn Environment,
        problems: &mut Vec<Problem>,
        warnings: &mut Vec<Warning>,
    ) -> (Tables, Unconstrained) {
        let executables = self.executables(environment);
        let mut resolver = Resolver {
            environment,
            executables_max: executables_max(&executables, environment),
            executables,
            root: environment.root_cgroup(),
            seed: environment.seed(),
            tables: Tables::default(),
            names: BTreeMap::new(),
            free: Unconstrained {
                unit: Who::EVERYONE,
                cgroup: Who::EVERYONE,
                container: Who::EVERYONE,
                user: Who::EVERYONE,
                exe: Who::EVERYONE,
            },
            problems,
            warnings,
        };
        if let Some(first) = &self.too_many {
            let message = format!("this policy names {} different workloads", self.bits.len());
            resolver.problems.push(
                Problem::error(first.span.clone(), message)
                    .why(format!(
                        "each different entry of a `from` list takes one of the kernel's bits, and there are {}; \
                         this is the first without one",
                        SELECTORS_MAX - 1
                    ))
                    .hint("name several at once, with a pattern like batch-*.service or a slice"),
            );
        }
        for (index, (selector, reach)) in self.distinct.iter().enumerate() {
            resolver.selector(index + 1, selector);
            if *reach == Reach::Host {
                resolver.name(index + 1, KIND_HOST, 0, Vec::new());
            }
        }
        resolver.finish()
    }

    /// What each path or pattern names.
    fn executables(&self, environment: &dyn Environment) -> BTreeMap<String, Vec<FileId>> {
        let patterns: BTreeSet<&String> =
            self.distinct.iter().filter_map(|(selector, _)| Some(selector.exe.as_ref()?.get_ref())).collect();
        patterns.into_iter().map(|pattern| (pattern.clone(), environment.executables(pattern))).collect()
    }
}

/// How many files of each pattern count. Where all of a policy that has decided would be too many, each has its share.
fn executables_max(found: &BTreeMap<String, Vec<FileId>>, environment: &dyn Environment) -> usize {
    let all: usize = found.values().map(|files| files.len().min(EXECUTABLES_PER_PATTERN_MAX)).sum();
    if all > WHO_ENTRIES_MAX && environment.has_decided() {
        (WHO_ENTRIES_MAX / found.len()).min(EXECUTABLES_PER_PATTERN_MAX)
    } else {
        EXECUTABLES_PER_PATTERN_MAX
    }
}

struct Resolver<'a> {
    environment: &'a dyn Environment,
    executables: BTreeMap<String, Vec<FileId>>,
    executables_max: usize,
    root: RootCgroup,
    seed: u64,
    tables: Tables,
    names: BTreeMap<(u32, u32, Vec<u8>), Who>,
    free: Unconstrained,
    problems: &'a mut Vec<Problem>,
    warnings: &'a mut Vec<Warning>,
}

impl Resolver<'_> {
    fn selector(&mut self, bit: usize, selector: &Selector) {
        match &selector.unit {
            Some(unit) => self.unit(bit, unit),
            None => self.free.unit.insert(bit),
        }
        match &selector.container {
            Some(digits) => self.name(bit, KIND_CONTAINER, 0, digits.as_bytes().to_vec()),
            None => self.free.container.insert(bit),
        }
        match self.cgroup(selector) {
            Some(path) => {
                let hash = path_hash(&path, self.seed);
                self.tables.paths.entry(hash).or_insert(Who::NONE).insert(bit);
            }
            None => self.free.cgroup.insert(bit),
        }
        self.user(bit, selector);
        self.exe(bit, selector);
    }

    fn unit(&mut self, bit: usize, unit: &Unit) {
        match unit {
            Unit::Named(name) => self.name(bit, KIND_UNIT, 0, [name.as_bytes(), &[0]].concat()),
            Unit::Pattern { prefix, extension } => {
                let extension =
                    extension.as_ref().map_or(0, |extension| extension_hash(extension.as_bytes()));
                self.name(bit, KIND_UNIT, extension, prefix.as_bytes().to_vec());
            }
            Unit::Slice { .. } => self.free.unit.insert(bit),
            Unit::AnyOf(units) => units.iter().for_each(|unit| self.unit(bit, unit)),
        }
    }

    fn name(&mut self, bit: usize, kind: u32, extension: u32, bytes: Vec<u8>) {
        self.names.entry((kind, extension, bytes)).or_insert(Who::NONE).insert(bit);
    }

    /// The one cgroup a selector asks for: its `cgroup`, its slice, or the deeper of both.
    fn cgroup(&mut self, selector: &Selector) -> Option<CgroupPath> {
        let slice = match &selector.unit {
            Some(Unit::Slice { path, .. }) => Some(path.below(&self.root.path)),
            _ => None,
        };
        let path = match (slice, selector.cgroup.clone()) {
            (Some(slice), Some(cgroup)) if cgroup.is_within(&slice) => cgroup,
            (Some(slice), Some(cgroup)) if slice.is_within(&cgroup) => slice,
            (Some(slice), Some(cgroup)) => {
                self.problems.push(
                    Problem::error(selector.span.clone(), "no process can match this entry")
                        .why(format!(
                            "the slice is {}, which does not lie in {}",
                            slice.as_str(),
                            cgroup.as_str()
                        ))
                        .hint("all keys of one entry must match: make two entries of it, or drop one key"),
                );
                cgroup
            }
            (slice, cgroup) => slice.or(cgroup)?,
        };
        let depth = path.components().count();
        if depth > CGROUP_LEVELS_MAX {
            self.problems.push(
                Problem::error(selector.span.clone(), format!("{} is {depth} levels deep", path.as_str()))
                    .why(format!("the kernel walks at most {CGROUP_LEVELS_MAX} levels")),
            );
        }
        self.warn_outside(selector, &path);
        Some(path)
    }

    fn warn_outside(&mut self, selector: &Selector, path: &CgroupPath) {
        let root = self.root.path.trim_end_matches('/');
        let inside =
            path.as_str().strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let above = root.strip_prefix(path.as_str()).is_some_and(|rest| rest.starts_with('/'));
        if !inside && !above {
            self.warnings.push(
                Problem::warning(selector.span.clone(), format!("{} lies outside the wall", path.as_str()))
                    .why(format!("this wall stands at {root}, and no process of it can match"))
                    .hint(format!("write a path below {root}")),
            );
        }
    }

    fn user(&mut self, bit: usize, selector: &Selector) {
        let Some(user) = &selector.user else { return self.free.user.insert(bit) };
        let uid = match user.get_ref() {
            User::Id(id) => Some(*id),
            User::Name(name) => self.environment.uid(name),
        };
        match (uid, user.get_ref()) {
            (Some(uid), _) => self.tables.users.entry(uid).or_insert(Who::NONE).insert(bit),
            (None, User::Name(name)) => {
                let message = format!("this host has no user {}", crate::policy::quoted(name));
                let hint = "correct the name, or write the user's number";
                if self.environment.has_decided() {
                    self.warnings.push(Problem::warning(user.span(), message).hint(hint));
                } else {
                    self.problems.push(Problem::error(user.span(), message).hint(hint));
                }
            }
            (None, User::Id(_)) => {}
        }
    }

    fn exe(&mut self, bit: usize, selector: &Selector) {
        let Some(exe) = &selector.exe else { return self.free.exe.insert(bit) };
        let files = self.executables.get(exe.get_ref()).cloned().unwrap_or_default();
        if files.is_empty() {
            self.warnings.push(
                Problem::warning(
                    exe.span(),
                    format!("{} does not exist", crate::policy::quoted(exe.get_ref())),
                )
                .why("no process matches this entry until the file is there")
                .hint("correct the path, or leave it for when the program is installed"),
            );
        }
        let most = self.executables_max;
        if files.len() > most {
            let message = format!("this names {} executables", files.len());
            let hint = "name fewer, or tell the workload by its `unit` or `user`";
            if self.environment.has_decided() {
                self.warnings.push(
                    Problem::warning(exe.span(), message)
                        .why(format!("{most} of them count, those that root owns before others"))
                        .hint(hint),
                );
            } else {
                self.problems.push(
                    Problem::error(exe.span(), message)
                        .why(format!("a pattern may stand for {most}"))
                        .hint(hint),
                );
            }
        }
        for file in files.into_iter().take(most) {
            self.tables.exes.entry(file).or_insert(Who::NONE).insert(bit);
        }
    }

    fn finish(mut self) -> (Tables, Unconstrained) {
        self.tables.names = cumulative(self.names);
        let sizes = [
            ("users", self.tables.users.len()),
            ("executables", self.tables.exes.len()),
            ("cgroups", self.tables.paths.len()),
            ("units and containers", self.tables.names.len()),
        ];
        for (what, count) in sizes.into_iter().filter(|(_, count)| *count > WHO_ENTRIES_MAX) {
            self.problems.push(
                Problem::error(0..0, format!("the `from` entries name {count} {what}"))
                    .why(format!("the kernel's table holds {WHO_ENTRIES_MAX}"))
                    .hint("name fewer, with patterns or slices"),
            );
        }
        (self.tables, self.free)
    }
}

/// The hash under which the kernel finds a cgroup, from the root of the hierarchy down.
pub(super) fn path_hash(path: &CgroupPath, seed: u64) -> u64 {
    path.components().fold(seed, |hash, component| step(hash, component, seed))
}

/// One more directory on the way down. Longer names are cut as the kernel cuts them.
pub(super) fn step(hash: u64, component: &str, seed: u64) -> u64 {
    match name(cut(component)) {
        Some(name) => path_step(hash, component_hash(&name, seed)),
        None => hash,
    }
}

/// Gives each entry the bits of every entry that it begins with. The map's order puts those right before it.
fn cumulative(names: BTreeMap<(u32, u32, Vec<u8>), Who>) -> Vec<NameEntry> {
    let mut entries: Vec<NameEntry> = Vec::with_capacity(names.len());
    let mut above: Vec<usize> = Vec::new();
    for ((kind, extension, bytes), who) in names {
        let begins_with = |entry: &NameEntry| {
            (entry.kind, entry.extension) == (kind, extension) && bytes.starts_with(&entry.bytes)
        };
        while above.last().is_some_and(|index| !begins_with(&entries[*index])) {
            above.pop();
        }
        let inherited = above.last().map_or(Who::NONE, |index| entries[*index].who);
        above.push(entries.len());
        entries.push(NameEntry { kind, extension, bytes, who: who.or(&inherited) });
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bit(index: usize) -> Who {
        let mut who = Who::NONE;
        who.insert(index);
        who
    }

    #[test]
    fn longer_names_have_the_bits_of_the_shorter_they_begin_with() {
        let entry = |bytes: &str, index| ((KIND_UNIT, 0, bytes.as_bytes().to_vec()), bit(index));
        let other = ((KIND_UNIT, 7, b"ab".to_vec()), bit(9));
        let names = BTreeMap::from([
            entry("", 1),
            entry("a", 2),
            entry("ab", 3),
            entry("abc", 4),
            entry("ac", 5),
            entry("b", 6),
            other,
        ]);
        let who: Vec<Vec<usize>> = cumulative(names)
            .iter()
            .map(|entry| (0..SELECTORS_MAX).filter(|bit| entry.who.contains(*bit)).collect())
            .collect();
        assert_eq!(
            who,
            [vec![1], vec![1, 2], vec![1, 2, 3], vec![1, 2, 3, 4], vec![1, 2, 5], vec![1, 6], vec![9]]
        );
    }
}
