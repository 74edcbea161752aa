//! What is loaded: the object file built from dnswall-ebpf, and its programs and maps in the kernel.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use aya::maps::{MapData, MapError, MapInfo};
use aya::programs::Program;
use aya::{Btf, Ebpf, EbpfLoader, Pod};
use dnswall_common::identity::KernelOffsets;
use sha2::{Digest as _, Sha256};

use super::btf::{self, VMLINUX};
use super::hook::{HOOKS, Hook, MissingHook, SOCKET};
use super::lsm;
use super::maps::MAP_NAMES;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/dnswall-ebpf"));

/// The object file, as built.
pub fn object() -> &'static [u8] {
    OBJECT
}

/// SHA-256 of the object: what tells one build of the programs from another.
pub fn object_digest() -> [u8; 32] {
    Sha256::digest(OBJECT).into()
}

/// What was loaded.
pub struct Loaded {
    /// The maps and programs.
    pub ebpf: Ebpf,
    /// Hooks that this kernel does not have, and why.
    pub missing: Vec<MissingHook>,
}

/// Loads every map and program, attaches none. With a directory, maps are pinned there, and those already pinned
/// there are used.
///
/// # Errors
/// When this kernel refuses a map or a required program; says which, with the verifier's last words.
pub fn load(map_pins: Option<&Path>) -> Result<Loaded> {
    let mut ebpf = make_maps(map_pins)?;
    let btf = kernel_btf()?;
    let mut missing = Vec::new();
    for hook in HOOKS {
        match load_one(&mut ebpf, &hook, &btf).with_context(|| format!("load program {}", hook.program)) {
            Ok(()) => {}
            Err(error) if hook.required => return Err(error),
            Err(error) => missing.push(MissingHook::new(&hook, &error)),
        }
    }
    Ok(Loaded { ebpf, missing })
}

fn load_one(ebpf: &mut Ebpf, hook: &Hook, btf: &Btf) -> Result<()> {
    match ebpf.program_mut(hook.program).context("find it")? {
        Program::CgroupSkb(program) => program.load()?,
        Program::CgroupSock(program) => program.load()?,
        Program::CgroupSockAddr(program) => program.load()?,
        Program::CgroupDevice(program) => program.load()?,
        // Attached to a module that is not active it would stand there and never be called.
        Program::LsmCgroup(program) if hook.program == SOCKET => match lsm::obstacle() {
            None => program.load("socket_create", btf)?,
            Some(obstacle) => bail!(obstacle),
        },
        _ => bail!("it is of an unexpected type"),
    }
    Ok(())
}

/// Whether this build makes every map just as it is pinned there: aya takes a pinned map for the one it was to make
/// without a look at it. Maps that are not pinned are no difference.
///
/// # Errors
/// When this build's maps cannot be made.
pub fn fits(map_pins: &Path) -> Result<bool> {
    let mut ebpf = make_maps(None)?;
    for name in MAP_NAMES {
        let Ok(pinned) = MapData::from_pin(map_pins.join(name)) else { continue };
        let (ours, theirs) = (take_map(&mut ebpf, name)?.info()?, pinned.info()?);
        let definition = |map: &MapInfo| {
            Ok::<_, MapError>((
                map.map_type()?,
                map.key_size(),
                map.value_size(),
                map.max_entries(),
                map.map_flags(),
            ))
        };
        if definition(&ours)? != definition(&theirs)? {
            tracing::info!("map {name} is pinned in another shape than this build's");
            return Ok(false);
        }
    }
    Ok(true)
}

fn make_maps(map_pins: Option<&Path>) -> Result<Ebpf> {
    raise_memlock_limit();
    let offsets = Offsets(btf::kernel_offsets(Path::new(VMLINUX))?);
    let btf = kernel_btf()?;
    let mut loader = EbpfLoader::new();
    loader.btf(Some(&btf)).override_global("OFFSETS", &offsets, true);
    if let Some(directory) = map_pins {
        for name in MAP_NAMES {
            loader.map_pin_path(name, directory.join(name));
        }
    }
    loader.load(OBJECT).context("create the maps")
}

fn kernel_btf() -> Result<Btf> {
    Btf::from_sys_fs().context("read the kernel's BTF")
}

/// Takes a map out of what was loaded.
///
/// # Errors
/// When the object has no such map, or its type is not plain.
pub fn take_map(ebpf: &mut Ebpf, name: &str) -> Result<MapData> {
    use aya::maps::Map;
    match ebpf.take_map(name).with_context(|| format!("find map {name}"))? {
        Map::Array(data)
        | Map::ArrayOfMaps(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::LpmTrie(data)
        | Map::PerCpuArray(data)
        | Map::SkStorage(data)
        | Map::RingBuf(data) => Ok(data),
        other => anyhow::bail!("map {name} is of an unexpected type: {other:?}"),
    }
}

/// Lifts the limit of locked memory, against which kernels before 5.11 count maps and programs.
pub fn raise_memlock_limit() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    // Where it is refused, either the kernel does not need it, or loading says so.
    let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct Offsets(KernelOffsets);

// SAFETY: integers only.
unsafe impl Pod for Offsets {}
