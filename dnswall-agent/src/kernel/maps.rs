//! The maps, wherever they come from: freshly loaded, or pinned by an earlier agent.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use aya::Ebpf;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, PerCpuArray, RingBuf, SkStorage};
use dnswall_common::counter::{ReasonCounter, RuleCounter};
use dnswall_common::event::{Refused, RefusedKey};
use dnswall_common::identity::{CgroupKey, ExeKey, NameKey, PathKey, UserKey};
use dnswall_common::image::{Active, Cell, ImageHeader, Meta, Term};
use dnswall_common::limits::TYPE_WORDS;
use dnswall_common::listed::ExceptionKey;
use dnswall_common::named::{Learned, LearnedKey, Pattern, PatternKey};
use dnswall_common::search::{Node4, Node6, NodePort};
use dnswall_common::socket::{ReplyKey, SocketState};
use dnswall_common::who::Who;

use super::listed::Table;
use super::mapped::Mapped;
use super::object::take_map;

/// Every map, by the name of its pin.
pub const MAP_NAMES: [&str; 31] = [
    "META",
    "ACTIVE",
    "HEADERS",
    "NODES4",
    "NODES6",
    "NODES_PORT",
    "CELLS",
    "TERMS",
    "LISTED",
    "EXCEPTIONS",
    "TYPES",
    "NAMES",
    "NAME_FILTER",
    "ASKED",
    "LEARNED",
    "PACES",
    "OPEN_QUESTIONS",
    "DISTINCTS",
    "WHO_USERS",
    "WHO_EXES",
    "WHO_PATHS",
    "WHO_NAMES",
    "CGROUPS",
    "SOCKETS",
    "REPLIES",
    "REFUSED",
    "EVENTS",
    "QUESTIONS",
    "RULES",
    "REASONS",
    "COUNTERS",
];

/// Handles on the maps the agent reads or writes.
pub struct Maps {
    pub(super) meta: Array<MapData, Meta>,
    pub(super) active: Mapped<Active>,
    pub(super) headers: Mapped<ImageHeader>,
    pub(super) nodes4: Mapped<Node4>,
    pub(super) nodes6: Mapped<Node6>,
    pub(super) nodes_port: Mapped<NodePort>,
    pub(super) cells: Mapped<Cell>,
    pub(super) terms: Mapped<Term>,
    pub(super) listed: MapData,
    /// What was published last.
    pub(super) table: Option<Arc<Table>>,
    pub(super) exceptions: HashMap<MapData, ExceptionKey, u64>,
    pub(super) types: Mapped<[u64; TYPE_WORDS]>,
    pub(super) named: HashMap<MapData, PatternKey, Pattern>,
    pub(super) name_filter: Mapped<u64>,
    pub(super) learned: HashMap<MapData, LearnedKey, Learned>,
    pub(super) users: HashMap<MapData, UserKey, Who>,
    pub(super) exes: HashMap<MapData, ExeKey, Who>,
    pub(super) paths: HashMap<MapData, PathKey, Who>,
    pub(super) names: LpmTrie<MapData, NameKey, Who>,
    pub(super) cgroups: HashMap<MapData, CgroupKey, Who>,
    pub(super) sockets: SkStorage<MapData, SocketState>,
    pub(super) replies: HashMap<MapData, ReplyKey, u64>,
    pub(super) refused: HashMap<MapData, RefusedKey, Refused>,
    pub(super) rules: PerCpuArray<MapData, RuleCounter>,
    pub(super) reasons: PerCpuArray<MapData, ReasonCounter>,
    pub(super) counters: PerCpuArray<MapData, u64>,
    pub(super) ring: Option<RingBuf<MapData>>,
    pub(super) questions: Option<RingBuf<MapData>>,
}

impl Maps {
    /// Takes the maps out of what was loaded.
    ///
    /// # Errors
    /// When a map is missing or of another shape.
    pub fn from_loaded(ebpf: &mut Ebpf) -> Result<Self> {
        Self::collect(|name| take_map(ebpf, name))
    }

    /// Opens the maps an earlier agent pinned.
    ///
    /// # Errors
    /// When a pin is missing or of another shape.
    pub fn from_pins(directory: &Path) -> Result<Self> {
        Self::collect(|name| {
            let path = directory.join(name);
            MapData::from_pin(&path).with_context(|| format!("open map {}", path.display()))
        })
    }

    fn collect(mut open: impl FnMut(&str) -> Result<MapData>) -> Result<Self> {
        Ok(Self {
            meta: Array::try_from(Map::Array(open("META")?))?,
            active: Mapped::new(&open("ACTIVE")?, "ACTIVE")?,
            headers: Mapped::new(&open("HEADERS")?, "HEADERS")?,
            nodes4: Mapped::new(&open("NODES4")?, "NODES4")?,
            nodes6: Mapped::new(&open("NODES6")?, "NODES6")?,
            nodes_port: Mapped::new(&open("NODES_PORT")?, "NODES_PORT")?,
            cells: Mapped::new(&open("CELLS")?, "CELLS")?,
            terms: Mapped::new(&open("TERMS")?, "TERMS")?,
            listed: open("LISTED")?,
            table: None,
            exceptions: HashMap::try_from(Map::HashMap(open("EXCEPTIONS")?))?,
            types: Mapped::new(&open("TYPES")?, "TYPES")?,
            named: HashMap::try_from(Map::HashMap(open("NAMES")?))?,
            name_filter: Mapped::new(&open("NAME_FILTER")?, "NAME_FILTER")?,
            learned: HashMap::try_from(Map::LruHashMap(open("LEARNED")?))?,
            users: HashMap::try_from(Map::HashMap(open("WHO_USERS")?))?,
            exes: HashMap::try_from(Map::HashMap(open("WHO_EXES")?))?,
            paths: HashMap::try_from(Map::HashMap(open("WHO_PATHS")?))?,
            names: LpmTrie::try_from(Map::LpmTrie(open("WHO_NAMES")?))?,
            cgroups: HashMap::try_from(Map::HashMap(open("CGROUPS")?))?,
            sockets: SkStorage::try_from(Map::SkStorage(open("SOCKETS")?))?,
            replies: HashMap::try_from(Map::LruHashMap(open("REPLIES")?))?,
            refused: HashMap::try_from(Map::LruHashMap(open("REFUSED")?))?,
            rules: PerCpuArray::try_from(Map::PerCpuArray(open("RULES")?))?,
            reasons: PerCpuArray::try_from(Map::PerCpuArray(open("REASONS")?))?,
            counters: PerCpuArray::try_from(Map::PerCpuArray(open("COUNTERS")?))?,
            ring: Some(RingBuf::try_from(Map::RingBuf(open("EVENTS")?))?),
            questions: Some(RingBuf::try_from(Map::RingBuf(open("QUESTIONS")?))?),
        })
    }

    /// What the programs judge by right now.
    pub fn active(&self) -> Active {
        self.active.read(0).unwrap_or_default()
    }

    /// The header of the image that counts; `None` before the first policy is published.
    pub fn header(&self) -> Option<ImageHeader> {
        let active = self.active();
        if active.generation == 0 { None } else { self.headers.read(active.slot as usize & 1) }
    }

    /// What made the maps that are pinned there.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn pinned_meta(directory: &Path) -> Result<Meta> {
        let path = directory.join("META");
        let map = MapData::from_pin(&path).with_context(|| format!("open map {}", path.display()))?;
        Array::<_, Meta>::try_from(Map::Array(map))?.get(&0, 0).context("read map META")
    }

    /// Says what made the maps.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn set_meta(&mut self, meta: Meta) -> Result<()> {
        self.meta.set(0, meta, 0).context("write map META")
    }
}
