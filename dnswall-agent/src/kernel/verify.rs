//! Takes the image that was published, says where the kernel's maps hold something else by now.
//!
//! Arrays are compared in the agent's own mapping of them; tables of who by looking every entry up, and by counting
//! those nobody published. Nothing is written. The caller sees to it that nobody publishes meanwhile.

use std::collections::HashMap as Index;

use dnswall_common::ABI_VERSION;
use dnswall_common::identity::{
    CgroupKey, ExeKey, NAME_KEY_FIXED_BITS, Name, NameKey, PathKey, UserKey, name,
};
use dnswall_common::image::{Active, Meta};
use dnswall_common::limits::{CELLS_MAX, NODES_PORT_MAX, NODES4_MAX, NODES6_MAX, TERMS_MAX};
use dnswall_common::listed::ExceptionKey;
use dnswall_common::named::{FILTER_WORDS, PatternKey};
use dnswall_common::who::Who;

use super::maps::Maps;
use super::object::object_digest;
use super::publish::{NamedCgroup, name_filter, types};
use crate::compile::MapImage;

impl Maps {
    /// Names of the maps in which the kernel's copy of this image is not what was published; `cgroups` are those that
    /// exist now, or none to leave out what takes a walk through all of them.
    pub fn changed(&self, image: &MapImage, cgroups: &[NamedCgroup]) -> Vec<&'static str> {
        let active = self.active();
        let slot = active.slot as usize & 1;
        let wanted = Active { generation: image.header.generation, slot: slot as u32 };
        let checks: [(&'static str, bool); 18] = [
            ("META", self.meta.get(&0, 0).is_ok_and(|meta| meta == made_by_this_build())),
            // Everything below is looked at through it, so a slot that was swapped shows there as well.
            ("ACTIVE", active == wanted),
            ("HEADERS", self.headers.holds(slot, &[image.header])),
            ("NODES4", self.nodes4.holds(slot * NODES4_MAX, &image.nodes4)),
            ("NODES6", self.nodes6.holds(slot * NODES6_MAX, &image.nodes6)),
            ("NODES_PORT", self.nodes_port.holds(slot * NODES_PORT_MAX, &image.nodes_port)),
            ("CELLS", self.cells.holds(slot * CELLS_MAX, &image.cells)),
            ("TERMS", self.terms.holds(slot * TERMS_MAX, &image.terms)),
            ("LISTED", self.holds_table(image, slot as u32)),
            ("EXCEPTIONS", self.holds_exceptions(image, slot as u32)),
            ("NAMES", self.holds_named(image, slot as u32)),
            ("NAME_FILTER", self.name_filter.holds(slot * FILTER_WORDS, &name_filter(image))),
            ("TYPES", self.types.holds(slot, &[types(image)])),
            ("WHO_USERS", self.holds_users(image, slot as u32)),
            ("WHO_EXES", self.holds_exes(image, slot as u32)),
            ("WHO_PATHS", self.holds_paths(image, slot as u32)),
            ("WHO_NAMES", self.holds_names(image, slot as u32)),
            ("CGROUPS", self.holds_cgroups(cgroups, active.generation)),
        ];
        checks.into_iter().filter(|(_, same)| !same).map(|(name, _)| name).collect()
    }

    fn holds_exceptions(&self, image: &MapImage, slot: u32) -> bool {
        let exceptions = &image.lists.exceptions;
        let mine = self.exceptions.keys().flatten().filter(|key| key.slot == slot).count();
        mine == exceptions.len()
            && exceptions.iter().all(|exception| {
                let key = ExceptionKey { hash: exception.hash, slot, padding: 0 };
                self.exceptions.get(&key, 0).is_ok_and(|bits| bits == exception.bits)
            })
    }

    fn holds_named(&self, image: &MapImage, slot: u32) -> bool {
        let mine = self.named.keys().flatten().filter(|key| key.slot == slot).count();
        mine == image.named.len()
            && image.named.iter().all(|(pattern, entry)| {
                let key = PatternKey { pattern: *pattern, slot, padding: 0 };
                self.named.get(&key, 0).is_ok_and(|it| it == *entry)
            })
    }

    fn holds_users(&self, image: &MapImage, slot: u32) -> bool {
        let mine = self.users.keys().flatten().filter(|key| key.slot == slot).count();
        let holds =
            |uid: u32, who: &Who| self.users.get(&UserKey { uid, slot }, 0).is_ok_and(|it| it == *who);
        mine == image.users.len() && image.users.iter().all(|(uid, who)| holds(*uid, who))
    }

    fn holds_exes(&self, image: &MapImage, slot: u32) -> bool {
        let mine = self.exes.keys().flatten().filter(|key| key.slot == slot).count();
        mine == image.exes.len()
            && image.exes.iter().all(|((number, device), who)| {
                let key = ExeKey { number: *number, device: *device, slot };
                self.exes.get(&key, 0).is_ok_and(|it| it == *who)
            })
    }

    fn holds_paths(&self, image: &MapImage, slot: u32) -> bool {
        let mine = self.paths.keys().flatten().filter(|key| key.slot == slot).count();
        mine == image.paths.len()
            && image.paths.iter().all(|(hash, who)| {
                let key = PathKey { hash: *hash, slot, padding: 0 };
                self.paths.get(&key, 0).is_ok_and(|it| it == *who)
            })
    }

    // A look-up in a trie finds the longest entry, not the one that was written: entries are compared as a whole.
    fn holds_names(&self, image: &MapImage, slot: u32) -> bool {
        let mut wanted: Index<(u32, u32, u32, Name), Who> = Index::new();
        for entry in &image.names {
            let Some(bytes) = name(&entry.bytes) else { return false };
            let bits = NAME_KEY_FIXED_BITS + 8 * entry.bytes.len() as u32;
            wanted.insert((bits, slot << 16 | entry.kind, entry.extension, bytes), entry.who);
        }
        let found: Vec<_> = self
            .names
            .iter()
            .flatten()
            .map(|(key, who)| {
                let NameKey { kind, extension, name } = key.data();
                ((key.prefix_len(), kind, extension, name), who)
            })
            .filter(|((_, kind, ..), _)| kind >> 16 == slot)
            .collect();
        found.len() == wanted.len() && found.iter().all(|(key, who)| wanted.get(key) == Some(who))
    }

    // The kernel adds cgroups by itself, and one that has no room is no difference.
    fn holds_cgroups(&self, cgroups: &[NamedCgroup], generation: u32) -> bool {
        cgroups.iter().all(|(cgroup, who)| {
            let key = CgroupKey { cgroup: *cgroup, generation, padding: 0 };
            self.cgroups.get(&key, 0).map_or(true, |it| it == *who)
        })
    }

    /// Lets the programs judge by the slot that holds this image's header again, whatever `ACTIVE` says by now, so that
    /// what is published next gets a number that was never given before.
    pub(super) fn restore_active(&mut self, image: &MapImage) {
        let generation = image.header.generation;
        let holds = |slot: &usize| self.headers.read(*slot).is_some_and(|it| it.generation == generation);
        let slot = (0..2).find(holds).unwrap_or(self.active().slot as usize & 1);
        let active = Active { generation, slot: slot as u32 };
        if self.active() != active {
            self.active.store_last(0, active);
        }
    }

    /// Says again what made the maps.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub(super) fn restore_meta(&mut self) -> anyhow::Result<()> {
        self.set_meta(made_by_this_build())
    }
}

fn made_by_this_build() -> Meta {
    Meta { abi: ABI_VERSION, padding: 0, object: object_digest() }
}
