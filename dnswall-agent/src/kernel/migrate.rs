//! Takes the maps of a wall of other layouts, gives what they say in this build's layouts.
//!
//! Of most other versions nothing is known: newer ones are not written yet, and version 1 is not worth it. What happens
//! to their sockets then is in [`super::crossing`].

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::Pod;
use aya::maps::{HashMap, Map, MapData, MapError, MapType, PerCpuArray, SkStorage};
use dnswall_common::counter::{COUNTER_TABLE, ReasonCounter};
use dnswall_common::event::{Refused, RefusedKey};
use dnswall_common::image::{Active, ImageHeader};
use dnswall_common::named::{Learned, LearnedKey};
use dnswall_common::reason::REASON_TABLE;
use dnswall_common::socket::{REPLY_ASKED, ReplyKey, SocketState};

use super::mapped::{Mapped, first_word};
use super::maps::Maps;
use super::open_sockets::OpenSocket;
use super::pins::Pins;

/// Versions whose sockets, replies and counts mean the same, byte for byte, as in this build, but for what
/// [`Source::socket`] writes over. Whoever changes one of these layouts takes the others out, or writes here how they are
/// read.
///
/// Up to version 6 the image's header knew no limits, and events were shorter: neither crosses. Nor does what was counted for limits,
/// which begin anew. Up to version 5 nothing was learned of names. Up to version 4 refusals were counted without the listed name
/// ([`RefusedKey4`]). Up to version 3 a socket ended in the generation of its connection, then `next_way`, `never_heard` and a word of
/// padding.
const READABLE: &[u32] = &[2, 3, 4, 5, 6, 7];

/// Key of map `REFUSED` up to version 4.
#[repr(C)]
#[derive(Clone, Copy)]
struct RefusedKey4 {
    cgroup: u64,
    destination: [u64; 2],
    pid: u32,
    destination_port: u16,
    protocol: u8,
    reason: u8,
}

// SAFETY: integers without padding between or behind them.
unsafe impl Pod for RefusedKey4 {}

const _: () = assert!(size_of::<RefusedKey4>() == 32);

/// What a wall counted by flow, in either layout.
enum Refusals {
    Of4(HashMap<MapData, RefusedKey4, Refused>),
    Ours(HashMap<MapData, RefusedKey, Refused>),
}

/// `BPF_NOEXIST`
const NO_EXIST: u64 = 1;

/// A wall of other layouts, as far as it can be read.
pub struct Source {
    /// Which layouts.
    pub abi: u32,
    active: Option<(Active, u64)>,
    sockets: Option<SkStorage<MapData, SocketState>>,
    replies: Option<HashMap<MapData, ReplyKey, u64>>,
    refused: Option<Refusals>,
    learned: Option<HashMap<MapData, LearnedKey, Learned>>,
    reasons: Option<PerCpuArray<MapData, ReasonCounter>>,
    counters: Option<PerCpuArray<MapData, u64>>,
}

impl Source {
    /// Opens what can be read of a wall.
    pub fn open(pins: &Pins) -> Self {
        let abi = pins.abi();
        let open = |name: &str, kind: MapType| -> Option<MapData> {
            if abi != dnswall_common::ABI_VERSION && !READABLE.contains(&abi) {
                return None;
            }
            let map = MapData::from_pin(pins.maps.join(name)).ok()?;
            (map.info().ok()?.map_type().ok()? == kind).then_some(map)
        };
        // Each checks the sizes of key and value.
        Self {
            abi,
            active: active(&open),
            sockets: open("SOCKETS", MapType::SkStorage).and_then(|map| Map::SkStorage(map).try_into().ok()),
            replies: open("REPLIES", MapType::LruHash).and_then(|map| Map::LruHashMap(map).try_into().ok()),
            refused: open("REFUSED", MapType::LruHash)
                .and_then(|map| Refusals::new(Map::LruHashMap(map), (2..=4).contains(&abi))),
            learned: open("LEARNED", MapType::LruHash).and_then(|map| Map::LruHashMap(map).try_into().ok()),
            reasons: open("REASONS", MapType::PerCpuArray)
                .and_then(|map| Map::PerCpuArray(map).try_into().ok()),
            counters: open("COUNTERS", MapType::PerCpuArray)
                .and_then(|map| Map::PerCpuArray(map).try_into().ok()),
        }
    }

    /// Whether sockets and replies can be read: nothing is lost in the crossing.
    pub fn is_readable(&self) -> bool {
        self.active.is_some() && self.sockets.is_some() && self.replies.is_some()
    }

    /// What its programs judge by, and the key of all its hashes; `None` when it cannot be read, or never judged.
    pub fn active(&self) -> Option<(Active, u64)> {
        self.active
    }

    /// What is recorded in a socket, as the new wall needs it.
    pub fn socket(&self, socket: &OpenSocket) -> Option<SocketState> {
        let state = self.sockets.as_ref()?.get(socket, 0).ok()?;
        // Datagrams may come while nobody looks: whether one came is asked of the replies. The source is looked at again.
        Some(SocketState { never_heard: 0, next_way: 0, source: 0, ..state })
    }

    /// Copies who may be answered. What the new wall knows itself is younger, and stays.
    ///
    /// # Errors
    /// When the new map cannot be written.
    pub fn copy_replies(&self, to: &mut Maps) -> Result<()> {
        let Some(replies) = &self.replies else { return Ok(()) };
        for (key, seen) in entries(replies) {
            let known = to.replies.get(&key, 0).ok();
            if known.is_none_or(|known| known & REPLY_ASKED == seen & REPLY_ASKED && known < seen) {
                to.replies.insert(key, seen, 0).context("write who may be answered")?;
            }
        }
        Ok(())
    }

    /// Copies where names led. What the new wall has learned itself is younger, and stays.
    ///
    /// # Errors
    /// When the new map cannot be written.
    pub fn copy_learned(&self, to: &mut Maps) -> Result<()> {
        for (key, learned) in self.learned.iter().flat_map(entries) {
            match to.learned.insert(key, learned, NO_EXIST) {
                Err(error) if !is_existing(&error) => return Err(error).context("write where names led"),
                _ => {}
            }
        }
        Ok(())
    }

    /// Copies what was counted. Both walls count for a moment; the old one's numbers hold it all.
    ///
    /// # Errors
    /// When a map cannot be written.
    pub fn copy_counts(&self, to: &mut Maps) -> Result<()> {
        for (key, theirs) in self.refused.iter().flat_map(Refusals::entries) {
            let ours = to.refused.get(&key, 0).ok();
            if ours.is_none_or(|ours| ours.refusals < theirs.refusals) {
                to.refused.insert(key, theirs, 0).context("write refusals by flow")?;
            }
        }
        if let Some(reasons) = &self.reasons {
            copy_table(reasons, &mut to.reasons, REASON_TABLE).context("write counts by reason")?;
        }
        if let Some(counters) = &self.counters {
            copy_table(counters, &mut to.counters, COUNTER_TABLE).context("write counters")?;
        }
        Ok(())
    }
}

impl Refusals {
    fn new(map: Map, is_of_4: bool) -> Option<Self> {
        if is_of_4 { map.try_into().ok().map(Self::Of4) } else { map.try_into().ok().map(Self::Ours) }
    }

    fn entries(&self) -> Vec<(RefusedKey, Refused)> {
        let theirs = match self {
            Self::Ours(map) => return entries(map),
            Self::Of4(map) => entries(map),
        };
        let ours = |key: RefusedKey4| {
            let RefusedKey4 { cgroup, destination, pid, destination_port, protocol, reason } = key;
            RefusedKey { cgroup, destination, entry: 0, pid, destination_port, protocol, reason }
        };
        theirs.into_iter().map(|(key, refused)| (ours(key), refused)).collect()
    }
}

impl Maps {
    /// Begins after another wall's last generation, so that what its sockets remember is not taken for something of
    /// this one's. Only before anything is attached.
    pub fn begin_after(&mut self, before: Active) {
        self.active.store_last(0, before);
    }

    /// Records a socket, unless it is recorded already; gives whether it was not.
    ///
    /// # Errors
    /// When memory is short.
    pub fn record(&mut self, socket: &OpenSocket, state: SocketState) -> Result<bool> {
        match self.sockets.insert(socket, state, NO_EXIST) {
            Ok(()) => Ok(true),
            Err(error) if is_existing(&error) => Ok(false),
            Err(error) => Err(error).context("record a socket"),
        }
    }
}

/// The wall below `pins` whose sockets and hashes live on in the next: this build's own, else the newest that can be
/// read.
pub fn predecessor(pins: &Path) -> Option<Source> {
    let mut walls = Pins::all(pins).ok()?;
    let ours = Pins::below(pins).top;
    walls.sort_by_key(|wall| (wall.top != ours, std::cmp::Reverse(wall.abi())));
    walls.iter().map(Source::open).find(|source| source.active.is_some())
}

fn active(open: &dyn Fn(&str, MapType) -> Option<MapData>) -> Option<(Active, u64)> {
    let active = Mapped::<Active>::new(&open("ACTIVE", MapType::Array)?, "ACTIVE").ok()?.read(0)?;
    // The header may have grown; the seed is its first word.
    let seed = first_word(&open("HEADERS", MapType::Array)?, "HEADERS", active.slot as usize & 1).ok()?;
    (active.generation != 0).then_some((active, seed))
}

const _: () = assert!(core::mem::offset_of!(ImageHeader, seed) == 0);

/// What a map holds; entries that come and go meanwhile may be left out.
fn entries<K: Pod, V: Pod>(map: &HashMap<MapData, K, V>) -> Vec<(K, V)> {
    map.iter().flatten().collect()
}

fn copy_table<V: Pod>(
    from: &PerCpuArray<MapData, V>,
    to: &mut PerCpuArray<MapData, V>,
    length: usize,
) -> Result<()> {
    for index in 0..length as u32 {
        to.set(index, from.get(&index, 0)?, 0)?;
    }
    Ok(())
}

/// `EEXIST`
fn is_existing(error: &MapError) -> bool {
    let MapError::SyscallError(error) = error else { return false };
    error.io_error.kind() == std::io::ErrorKind::AlreadyExists
}

/// Whether anything is pinned there.
pub fn holds_links(pins: &Pins) -> bool {
    fs::read_dir(&pins.links).is_ok_and(|mut entries| entries.next().is_some())
}
