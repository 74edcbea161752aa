//! The wall: raised once, taken over by every later agent, taken down only on request.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use dnswall_common::ABI_VERSION;
use dnswall_common::image::{ImageHeader, Meta};
use thiserror::Error;

use super::cgroup::{Cgroup2Mount, cgroup_id, find_cgroup2, walk};
use super::hook::{self, HookInfo, MissingHook};
use super::maps::Maps;
use super::object::{Loaded, load, object_digest};
use super::publish::{NamedCgroup, PublishError};
use super::ring::Ring;
use super::{bpffs, hook::HOOKS};
use crate::compile::MapImage;

/// Where a wall stands.
#[derive(Clone, Debug)]
pub struct WallOptions {
    /// Directory of the cgroup to attach to.
    pub cgroup: PathBuf,
    /// Directory for pins; the ABI's version is added below it.
    pub pins: PathBuf,
}

/// How the wall came to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raised {
    /// Loaded and attached now.
    New,
    /// It stood already; nothing was attached or loaded.
    TookOver,
    /// It stood already, with programs of another build: they were replaced in place.
    Replaced,
}

/// Why there is no wall.
#[derive(Debug, Error)]
pub enum WallError {
    /// The cgroup2 mount shows only a part of the hierarchy.
    #[error(
        "the cgroup2 mount {mount} shows only {root} of the hierarchy (a private cgroup namespace): a wall attached \
         there would silently miss every other process; run the agent in the host's cgroup namespace \
         (docker: --cgroupns=host, Kubernetes: mount the host's /sys/fs/cgroup)"
    )]
    PartOfHierarchy {
        /// The mount point.
        mount: String,
        /// What is mounted there.
        root: String,
    },
    /// The policy could not be published.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// This host cannot.
    #[error(transparent)]
    Host(#[from] anyhow::Error),
}

/// A standing wall, and the agent's hands on it.
pub struct Wall {
    maps: Maps,
    pins: Pins,
    mount: Cgroup2Mount,
    cgroup: PathBuf,
    missing: Vec<MissingHook>,
}

impl Wall {
    /// Raises the wall, or takes over the one that is pinned, and publishes the image.
    ///
    /// A new wall is attached only after its first policy is in place.
    ///
    /// # Errors
    /// See [`WallError`]. A wall that stood before still stands, with the policy it had.
    pub fn raise(options: &WallOptions, image: &mut MapImage) -> Result<(Self, Raised), WallError> {
        let mount = find_cgroup2()?;
        if !mount.whole {
            let (mount, root) = (mount.path.display().to_string(), mount.root);
            return Err(WallError::PartOfHierarchy { mount, root });
        }
        let cgroup = fs::canonicalize(&options.cgroup)
            .with_context(|| format!("find cgroup {}", options.cgroup.display()))?;
        // Fails early for a directory that is not of the v2 hierarchy.
        mount.relative(&cgroup)?;
        let pins = Pins::below(&options.pins);
        pins.prepare()?;
        let ours = Meta { abi: ABI_VERSION, padding: 0, object: object_digest() };
        if hook::all_pinned(&pins.links) {
            let maps = Maps::from_pins(&pins.maps)?;
            let theirs = maps.meta()?;
            let missing = hook::missing(&pins.links);
            let mut wall = Self { maps, pins, mount, cgroup, missing };
            wall.publish(image)?;
            if theirs == ours {
                return Ok((wall, Raised::TookOver));
            }
            let Loaded { ebpf, .. } = load(Some(&wall.pins.maps))?;
            hook::replace(&ebpf, &wall.pins.links)?;
            wall.maps.set_meta(ours)?;
            return Ok((wall, Raised::Replaced));
        }
        // Links of an interrupted start are worth nothing without the others.
        pins.clear();
        pins.prepare()?;
        let directory = File::open(&cgroup).with_context(|| format!("open cgroup {}", cgroup.display()))?;
        let mut loaded = load(Some(&pins.maps))?;
        let maps = Maps::from_loaded(&mut loaded.ebpf)?;
        let mut wall = Self { maps, pins, mount, cgroup, missing: Vec::new() };
        let attached = (|| -> Result<(), WallError> {
            wall.publish(image)?;
            wall.maps.set_meta(ours)?;
            hook::attach(&mut loaded, &directory, &wall.pins.links)?;
            wall.missing = loaded.missing;
            Ok(())
        })();
        if let Err(error) = attached {
            wall.pins.clear();
            return Err(error);
        }
        Ok((wall, Raised::New))
    }

    /// Publishes an image as the next generation, which it gives.
    ///
    /// # Errors
    /// See [`PublishError`]; the policy that ran still does.
    pub fn publish(&mut self, image: &mut MapImage) -> Result<u32, PublishError> {
        let cgroups = self.named_cgroups(image);
        let generation = self.maps.publish(image, &cgroups)?;
        self.forget_cgroups();
        // Those made while the image was written, and those that there was no room for: their sockets would be nobody's
        // until one of them makes another.
        self.maps.add_cgroups(&self.named_cgroups(image), generation);
        Ok(generation)
    }

    /// Makes room: forgets cgroups that are gone, and what older generations knew.
    pub fn forget_cgroups(&mut self) {
        let generation = self.maps.active().generation;
        // Those made after this look are missing in it, so what the kernel knew before is taken first.
        let known = self.maps.known_cgroups();
        let mut exists = HashSet::new();
        walk(&self.mount, &self.cgroup, &mut |id, _| {
            exists.insert(id);
        });
        self.maps.forget_cgroups(generation, |cgroup| exists.contains(&cgroup) || !known.contains(&cgroup));
    }

    fn named_cgroups(&self, image: &MapImage) -> Vec<NamedCgroup> {
        let mut cgroups = Vec::new();
        walk(&self.mount, &self.cgroup, &mut |id, path| cgroups.push((id, image.who_by_cgroup(path))));
        cgroups
    }

    /// The header of the image the programs judge by, as the kernel has it.
    pub fn header(&self) -> Option<ImageHeader> {
        self.maps.header()
    }

    /// The maps, to read counters from.
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// The reading end of the ring; there is one.
    pub fn take_ring(&mut self) -> Option<Ring> {
        self.maps.take_ring()
    }

    /// What the kernel says of every hook.
    ///
    /// # Errors
    /// When a link is gone.
    pub fn hooks(&self) -> Result<Vec<HookInfo>> {
        hook::inspect(&self.pins.links)
    }

    /// Hooks this wall does without, and why.
    pub fn missing(&self) -> &[MissingHook] {
        &self.missing
    }

    /// The cgroup the wall stands at.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// The directory of the pins, the ABI's version included.
    pub fn pins(&self) -> &Path {
        &self.pins.top
    }
}

/// What taking a wall down took down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detached {
    /// Hooks that were attached.
    pub hooks: usize,
}

/// Takes down whatever is pinned below `pins`, of any ABI version. Needs no agent.
///
/// # Errors
/// When a pin cannot be removed.
pub fn detach(pins: &Path) -> Result<Detached> {
    let mut hooks = 0;
    let entries = match fs::read_dir(pins) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Detached { hooks }),
        Err(error) => return Err(anyhow!(error).context(format!("read pin directory {}", pins.display()))),
    };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with('v')) {
            let version = Pins::at(entry.path());
            hooks += version.link_count();
            version.clear();
            if version.link_count() != 0 {
                return Err(anyhow!("links are still pinned in {}", version.links.display()));
            }
        }
    }
    bpffs::remove(pins);
    Ok(Detached { hooks })
}

/// The seed of the wall that is pinned there, or a new one: what was hashed under it stays known across restarts.
pub fn seed(pins: &Path) -> u64 {
    let pinned = Maps::from_pins(&Pins::below(pins).maps).ok().and_then(|maps| maps.header());
    match pinned {
        Some(header) => header.seed,
        None => {
            let mut bytes = [0; 8];
            // The kernel's generator does not fail once it is seeded, which it is before user space runs services.
            let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
            u64::from_ne_bytes(bytes)
        }
    }
}

/// The root cgroup's id and path, for the compiler.
///
/// # Errors
/// When the cgroup is not of the v2 hierarchy.
pub fn root_cgroup(directory: &Path) -> Result<(u64, String)> {
    let mount = find_cgroup2()?;
    let directory =
        fs::canonicalize(directory).with_context(|| format!("find cgroup {}", directory.display()))?;
    Ok((cgroup_id(&directory)?, mount.relative(&directory)?))
}

/// The directories of one ABI version's pins.
struct Pins {
    top: PathBuf,
    maps: PathBuf,
    links: PathBuf,
}

impl Pins {
    fn below(pins: &Path) -> Self {
        Self::at(pins.join(format!("v{ABI_VERSION}")))
    }

    fn at(top: PathBuf) -> Self {
        Self { maps: top.join("maps"), links: top.join("links"), top }
    }

    fn prepare(&self) -> Result<()> {
        if let Some(above) = self.top.parent() {
            bpffs::ensure(above)?;
        }
        bpffs::ensure(&self.top)?;
        bpffs::ensure(&self.maps)?;
        bpffs::ensure(&self.links)
    }

    fn link_count(&self) -> usize {
        HOOKS.iter().filter(|hook| self.links.join(hook.program).exists()).count()
    }

    /// Removes links first, so that no program runs without its maps, then the maps.
    fn clear(&self) {
        for directory in [&self.links, &self.maps] {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                // What cannot be removed is found again by `link_count`.
                let _ = fs::remove_file(entry.path());
            }
            let _ = fs::remove_dir(directory);
        }
        let _ = fs::remove_dir(&self.top);
    }
}
