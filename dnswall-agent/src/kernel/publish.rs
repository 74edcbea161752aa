//! Takes an image, writes it into the slot that does not count, and flips the generation.
//!
//! Every verdict reads [`Active`] once and everything else through it, so at any moment each follows one generation
//! as a whole. The slot that is written was left by the flip before; programs that still read it have ended when the
//! grace period at the beginning is over. Whatever fails before the flip leaves the running policy as it was.

use std::collections::HashSet;

use anyhow::{Context as _, Result};
use aya::Pod;
use aya::maps::lpm_trie::Key;
use aya::maps::{HashMap, MapData, MapError};
use dnswall_common::counter::RuleCounter;
use dnswall_common::identity::{CgroupKey, ExeKey, NAME_KEY_FIXED_BITS, NameKey, PathKey, UserKey, name};
use dnswall_common::image::Active;
use dnswall_common::limits::{
    CELLS_MAX, NODES_PORT_MAX, NODES4_MAX, NODES6_MAX, RULES_MAX, TERMS_MAX, TYPE_WORDS,
};
use dnswall_common::listed::ExceptionKey;
use dnswall_common::named::{FILTER_WORDS, PatternKey, filter_place};
use dnswall_common::socket::flow_key;
use dnswall_common::who::Who;
use thiserror::Error;

use super::grace;
use super::maps::Maps;
use crate::compile::{Excess, MapImage};

/// `BPF_NOEXIST`
const NO_EXIST: u64 = 1;

/// A cgroup and what its names match under the new image.
pub type NamedCgroup = (u64, Who);

/// Why an image was not published. The policy that ran before still does.
#[derive(Debug, Error)]
pub enum PublishError {
    /// More than the maps hold.
    #[error("the policy does not fit the kernel's maps: it needs {}", listed(.0))]
    TooLarge(Vec<Excess>),
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] anyhow::Error),
}

impl Maps {
    /// Publishes an image; `cgroups` are those that exist now, so that sockets made before are known under it.
    ///
    /// Gives the new generation, which the image's header then has too.
    ///
    /// # Errors
    /// See [`PublishError`]; nothing has changed then.
    pub fn publish(&mut self, image: &mut MapImage, cgroups: &[NamedCgroup]) -> Result<u32, PublishError> {
        check_capacity(image)?;
        let old = self.active();
        let slot = if old.generation == 0 { 0 } else { 1 - (old.slot & 1) };
        let generation = old.generation.checked_add(1).unwrap_or(1);
        image.header.generation = generation;
        image.header.flow_key = flow_key(image.header.seed, generation);

        // Also what an attempt that failed, or died, has left under the number that is given away now.
        self.forget_cgroups(old.generation, |_| true);
        self.write_arrays(image, slot as usize);
        let table = self.write_table(&image.lists, slot).context("write the table of listed names")?;
        self.write_exceptions(image, slot).context("write what the lists do not refuse")?;
        self.write_named(image, slot).context("write the names that rules lead to")?;
        self.write_who(image, slot).context("write who the rules bind")?;
        self.add_cgroups(cgroups, generation);
        self.clear_rule_counters(slot, image.rules.len()).context("clear the counters")?;

        self.active.store_last(0, Active { generation, slot });
        self.keep_table(table, slot);
        Ok(generation)
    }

    fn write_arrays(&mut self, image: &MapImage, slot: usize) {
        self.nodes4.write(slot * NODES4_MAX, &image.nodes4);
        self.nodes6.write(slot * NODES6_MAX, &image.nodes6);
        self.nodes_port.write(slot * NODES_PORT_MAX, &image.nodes_port);
        self.cells.write(slot * CELLS_MAX, &image.cells);
        self.terms.write(slot * TERMS_MAX, &image.terms);
        self.types.write(slot, &[types(image)]);
        self.name_filter.write(slot * FILTER_WORDS, &name_filter(image));
        self.headers.write(slot, &[image.header]);
    }

    fn write_exceptions(&mut self, image: &MapImage, slot: u32) -> Result<()> {
        let exceptions = image.lists.exceptions.iter();
        replace(
            &mut self.exceptions,
            |key| key.slot == slot,
            exceptions
                .map(|exception| (ExceptionKey { hash: exception.hash, slot, padding: 0 }, exception.bits)),
        )
    }

    fn write_named(&mut self, image: &MapImage, slot: u32) -> Result<()> {
        let named = image.named.iter();
        replace(
            &mut self.named,
            |key| key.slot == slot,
            named.map(|(pattern, entry)| (PatternKey { pattern: *pattern, slot, padding: 0 }, *entry)),
        )
    }

    fn write_who(&mut self, image: &MapImage, slot: u32) -> Result<()> {
        replace(
            &mut self.users,
            |key| key.slot == slot,
            image.users.iter().map(|(uid, who)| (UserKey { uid: *uid, slot }, *who)),
        )?;
        replace(
            &mut self.exes,
            |key| key.slot == slot,
            image
                .exes
                .iter()
                .map(|((number, device), who)| (ExeKey { number: *number, device: *device, slot }, *who)),
        )?;
        replace(
            &mut self.paths,
            |key| key.slot == slot,
            image.paths.iter().map(|(hash, who)| (PathKey { hash: *hash, slot, padding: 0 }, *who)),
        )?;
        let stale: Vec<Key<NameKey>> =
            self.names.keys().flatten().filter(|key| { key.data() }.kind >> 16 == slot).collect();
        for key in stale {
            ignore_missing(self.names.remove(&key))?;
        }
        for entry in &image.names {
            let bytes = name(&entry.bytes).context("a name longer than the kernel reads")?;
            let key = NameKey { kind: slot << 16 | entry.kind, extension: entry.extension, name: bytes };
            let bits = NAME_KEY_FIXED_BITS + 8 * entry.bytes.len() as u32;
            self.names.insert(&Key::new(bits, key), entry.who, 0)?;
        }
        Ok(())
    }

    /// Adds cgroups that an image does not know yet. One that does not fit must not keep a policy from being published:
    /// its new sockets are evaluated by the kernel one by one, which counts them; no rule binds its old ones.
    pub fn add_cgroups(&mut self, cgroups: &[NamedCgroup], generation: u32) {
        for (cgroup, who) in cgroups {
            let key = CgroupKey { cgroup: *cgroup, generation, padding: 0 };
            // "Exists" is the usual answer.
            let _ = self.cgroups.insert(key, who, NO_EXIST);
        }
    }

    /// Every cgroup the kernel remembers.
    pub fn known_cgroups(&self) -> HashSet<u64> {
        self.cgroups.keys().flatten().map(|key| key.cgroup).collect()
    }

    /// Removes what is known for any other generation than this one, after a grace period. `exists` says which cgroups
    /// there still are.
    pub fn forget_cgroups(&mut self, generation: u32, exists: impl Fn(u64) -> bool) {
        grace::wait();
        let is_stale = |key: &CgroupKey| key.generation != generation || !exists(key.cgroup);
        let stale: Vec<CgroupKey> = self.cgroups.keys().flatten().filter(is_stale).collect();
        for key in stale {
            let _ = self.cgroups.remove(&key);
        }
    }

    fn clear_rule_counters(&mut self, slot: u32, rules: usize) -> Result<()> {
        let cpus = aya::util::nr_cpus().map_err(|(file, error)| anyhow::anyhow!("read {file}: {error}"))?;
        let zero = aya::maps::PerCpuValues::try_from(vec![RuleCounter::default(); cpus])?;
        for rule in 0..rules as u32 {
            self.rules.set(slot * RULES_MAX as u32 + rule, zero_copy(&zero), 0)?;
        }
        Ok(())
    }
}

fn zero_copy(values: &aya::maps::PerCpuValues<RuleCounter>) -> aya::maps::PerCpuValues<RuleCounter> {
    aya::maps::PerCpuValues::try_from(values.to_vec()).expect("as many values as before")
}

fn check_capacity(image: &MapImage) -> Result<(), PublishError> {
    let excesses = image.excesses();
    if excesses.is_empty() { Ok(()) } else { Err(PublishError::TooLarge(excesses)) }
}

fn listed(excesses: &[Excess]) -> String {
    excesses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn replace<K: Pod, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    is_stale: impl Fn(&K) -> bool,
    entries: impl Iterator<Item = (K, V)>,
) -> Result<()> {
    let stale: Vec<K> = map.keys().flatten().filter(is_stale).collect();
    for key in stale {
        ignore_missing(map.remove(&key))?;
    }
    for (key, value) in entries {
        map.insert(key, value, 0)?;
    }
    Ok(())
}

/// The types of question an image refuses, as the kernel has them.
pub(super) fn types(image: &MapImage) -> [u64; TYPE_WORDS] {
    std::array::from_fn(|at| image.types.get(at).copied().unwrap_or_default())
}

/// Which patterns an image may have, as the kernel has it.
pub(super) fn name_filter(image: &MapImage) -> Vec<u64> {
    let mut filter = vec![0; FILTER_WORDS];
    for (pattern, _) in &image.named {
        let (word, bit) = filter_place(*pattern);
        filter[word] |= 1 << bit;
    }
    filter
}

fn ignore_missing(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        other => other,
    }
}
