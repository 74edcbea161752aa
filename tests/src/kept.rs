//! Walls that are kept for the next test: takes one whose test is over, gives it as if it had just been raised and nothing
//! published yet.
//!
//! Loading the programs takes an emulated processor a minute or two, which is most of what a test takes there. So
//! `cargo xtask vm` names a directory in `DNSWALL_TEST_KEEP`; elsewhere every test raises a wall of its own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues, RingBuf};
use dnswall_agent::demo::cgroup;
use dnswall_agent::kernel::wall;
use dnswall_common::ABI_VERSION;
use dnswall_common::counter::{COUNTER_TABLE, ReasonCounter};
use dnswall_common::event::{Refused, RefusedKey};
use dnswall_common::identity::CgroupKey;
use dnswall_common::image::Active;
use dnswall_common::reason::REASON_TABLE;
use dnswall_common::socket::ReplyKey;
use dnswall_common::who::Who;

/// The cgroup of a wall that was kept, if there is one. It is the caller's from now on.
///
/// # Errors
/// When the directory cannot be read.
pub fn take() -> Result<Option<PathBuf>> {
    let Some(directory) = directory() else { return Ok(None) };
    let Ok(mut entries) = fs::read_dir(&directory) else { return Ok(None) };
    let Some(entry) = entries.next() else { return Ok(None) };
    let entry = entry.with_context(|| format!("read {}", directory.display()))?;
    fs::remove_file(entry.path()).context("take a wall that was kept")?;
    Ok(Some(cgroup::mount()?.join(entry.file_name())))
}

/// Whether walls are to be kept.
pub fn is_asked_for() -> bool {
    directory().is_some()
}

/// Keeps the wall that stands at this cgroup, in which no process is left, for the next test. `false` when it is to be taken
/// down: enough are kept, or this one is not as a new one would be.
///
/// # Errors
/// When its maps cannot be emptied.
pub fn keep(cgroup: &Path, pins: &Path) -> Result<bool> {
    let Some(directory) = directory() else { return Ok(false) };
    let kept = fs::read_dir(&directory).into_iter().flatten().count();
    // Whatever the test did to it: taken down, another build's, links or programs in disorder.
    if kept >= KEPT_MAX || !wall::is_whole(pins) {
        return Ok(false);
    }
    empty(&pins.join(format!("v{ABI_VERSION}/maps")))?;
    fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    let name = cgroup.file_name().context("name the cgroup")?;
    fs::write(directory.join(name), "").context("note that the wall is kept")?;
    Ok(true)
}

/// Leaves in the maps what a wall has before its first policy. What belongs to a slot of the image, a publication
/// replaces.
fn empty(maps: &Path) -> Result<()> {
    let open = |name: &str| {
        let path = maps.join(name);
        MapData::from_pin(&path).with_context(|| format!("open map {}", path.display()))
    };
    // First, so that the programs note nothing any more.
    Array::<_, Active>::try_from(Map::Array(open("ACTIVE")?))?.set(
        0,
        Active { generation: 0, slot: 0 },
        0,
    )?;
    clear::<CgroupKey, Who>(Map::HashMap(open("CGROUPS")?))?;
    clear::<ReplyKey, u64>(Map::LruHashMap(open("REPLIES")?))?;
    clear::<RefusedKey, Refused>(Map::LruHashMap(open("REFUSED")?))?;
    zero::<ReasonCounter>(open("REASONS")?, REASON_TABLE as u32)?;
    zero::<u64>(open("COUNTERS")?, COUNTER_TABLE as u32)?;
    let mut ring = RingBuf::try_from(Map::RingBuf(open("EVENTS")?))?;
    while ring.next().is_some() {}
    Ok(())
}

fn clear<K: Pod, V: Pod>(map: Map) -> Result<()> {
    let mut map = match map {
        map @ (Map::HashMap(_) | Map::LruHashMap(_)) => HashMap::<_, K, V>::try_from(map)?,
        other => anyhow::bail!("not a hash map: {other:?}"),
    };
    let keys: Vec<K> = map.keys().flatten().collect();
    for key in keys {
        // The kernel may have evicted it.
        let _ = map.remove(&key);
    }
    Ok(())
}

fn zero<V: Pod + Default>(map: MapData, entries: u32) -> Result<()> {
    let mut map = PerCpuArray::<_, V>::try_from(Map::PerCpuArray(map))?;
    let cpus = aya::util::nr_cpus().map_err(|(file, error)| anyhow::anyhow!("read {file}: {error}"))?;
    for entry in 0..entries {
        map.set(entry, PerCpuValues::try_from(vec![V::default(); cpus])?, 0)?;
    }
    Ok(())
}

fn directory() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).map(PathBuf::from)
}

/// A test uses one or two, and each holds memory of the kernel's.
const KEPT_MAX: usize = 2;
const VARIABLE: &str = "DNSWALL_TEST_KEEP";
