//! The table of listed names: takes lists, makes a map of just their size, and puts it where the programs look.
//!
//! A map is made once for each reading of the lists and stands in both slots, so that policies which say the same of names
//! share it. It is frozen: what is in it then, nobody changes.

use std::os::fd::AsFd as _;
use std::sync::{Arc, Weak};

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use dnswall_common::listed::Bucket;

use super::mapped::Mapped;
use super::maps::Maps;
use super::{bpf, grace};
use crate::blocklist::Lists;
use crate::compile::MapImage;

/// `BPF_F_MMAPABLE | BPF_F_INNER_MAP`, as the map `LISTED` has it.
const FLAGS: u32 = 0x400 | 0x1000;

/// Words of a bucket.
const WORDS: u32 = (size_of::<Bucket>() / 8) as u32;

/// The map that holds the names of some lists.
pub struct Table {
    lists: Weak<Lists>,
    map: MapData,
    id: u32,
}

impl Table {
    fn new(lists: &Arc<Lists>) -> Result<Self> {
        let count = u32::try_from(lists.table.len()).context("count the buckets")?;
        let map = bpf::make_array(WORDS, count, FLAGS).context("make the map")?;
        let map = MapData::from_fd(map)?;
        Mapped::new(&map, "LISTED")?.write(0, &lists.table);
        bpf::freeze(map.fd().as_fd()).context("freeze the map")?;
        Ok(Self { lists: Arc::downgrade(lists), id: bpf::map_id(map.fd().as_fd())?, map })
    }

    fn is_of(&self, lists: &Arc<Lists>) -> bool {
        self.lists.upgrade().is_some_and(|it| Arc::ptr_eq(&it, lists))
    }
}

impl Maps {
    /// Has a slot hold the names of these lists. Gives the table, which is the published one once the slot counts.
    pub(super) fn write_table(&self, lists: &Arc<Lists>, slot: u32) -> Result<Option<Arc<Table>>> {
        if lists.table.is_empty() {
            bpf::remove_map(self.listed.fd().as_fd(), slot)?;
            return Ok(None);
        }
        let table = match &self.table {
            Some(table) if table.is_of(lists) => table.clone(),
            _ => Arc::new(Table::new(lists)?),
        };
        bpf::set_map(self.listed.fd().as_fd(), slot, table.map.fd().as_fd())?;
        Ok(Some(table))
    }

    /// Takes note of what a slot holds that counts now, and has the other hold the same: the table before is given back.
    pub(super) fn keep_table(&mut self, table: Option<Arc<Table>>, slot: u32) {
        self.table = table;
        let (listed, other) = (self.listed.fd().as_fd(), 1 - (slot & 1));
        if self.table_in(slot) == self.table_in(other) {
            return;
        }
        grace::wait();
        let done = match &self.table {
            Some(table) => bpf::set_map(listed, other, table.map.fd().as_fd()),
            None => bpf::remove_map(listed, other),
        };
        if let Err(error) = done {
            tracing::warn!("give back the table of names that is no longer used: {error}");
        }
    }

    /// Whether a slot holds what was published.
    pub(super) fn holds_table(&self, image: &MapImage, slot: u32) -> bool {
        let published = self.table.as_ref().map(|table| table.id);
        published.is_none() == image.lists.table.is_empty() && self.table_in(slot) == published
    }

    /// The number of the map in a slot.
    fn table_in(&self, slot: u32) -> Option<u32> {
        bpf::map_in(self.listed.fd().as_fd(), slot).ok().flatten()
    }
}
