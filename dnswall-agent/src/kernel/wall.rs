//! The wall: raised once, taken over by every later agent, taken down only on request.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use dnswall_common::ABI_VERSION;
use dnswall_common::image::{ImageHeader, Meta};
use thiserror::Error;

use super::cgroup::{Cgroup2Mount, cgroup_id, find_cgroup2, walk};
use super::crossing::Crossing;
use super::hook::{self, MissingHook};
use super::maps::Maps;
use super::migrate::{Source, holds_links, predecessor};
use super::object::{Loaded, fits, load, object_digest};
use super::pins::Pins;
use super::publish::{NamedCgroup, PublishError};
use super::ring::Ring;
use super::{bpffs, fault, takeover};
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
    /// A wall of other layouts stood there: this one was raised beside it, and that one taken down.
    Crossed {
        /// Which layouts.
        from: u32,
        /// Whether what it had counted and recorded is known to this one.
        carried: bool,
    },
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
        let directory = File::open(&cgroup).with_context(|| format!("open cgroup {}", cgroup.display()))?;
        let site = Site { pins, mount, cgroup, directory };
        let others = site.others()?;
        // One that is not whole stands beside another only when a crossing died: it begins anew.
        let stands = hook::all_pinned(&site.pins.links)
            || (others.is_empty() && holds_links(&site.pins) && Maps::from_pins(&site.pins.maps).is_ok());
        if !stands {
            // Links of an interrupted start are worth nothing without the others.
            site.pins.clear();
            return site.raise(image, &others);
        }
        if Maps::pinned_meta(&site.pins.maps)? == ours() && takeover::is_whole(&site.pins) {
            let mut wall = site.with(|pins| Maps::from_pins(&pins.maps))?;
            wall.publish(image)?;
            take_down(&others)?;
            return Ok((wall, Raised::TookOver));
        }
        if !fits(&site.pins.maps)? {
            site.pins.set_aside()?;
            let others = site.others()?;
            return site.raise(image, &others);
        }
        let wall = site.take_over(image)?;
        take_down(&others)?;
        Ok((wall, Raised::Replaced))
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

    /// Names of the maps that hold something else than this image, which was published last. What the kernel remembers
    /// of cgroups takes a walk through all of them, and is looked at when `thoroughly` says so.
    pub fn changed(&self, image: &MapImage, thoroughly: bool) -> Vec<&'static str> {
        let cgroups = if thoroughly { self.named_cgroups(image) } else { Vec::new() };
        self.maps.changed(image, &cgroups)
    }

    /// Publishes the image again after somebody changed the maps.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub fn restore(&mut self, image: &mut MapImage) -> Result<u32, PublishError> {
        self.maps.restore_active(image);
        self.maps.restore_meta()?;
        self.publish(image)
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
    pub fn take_rings(&mut self) -> Option<[Ring; 2]> {
        self.maps.take_rings()
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

/// Where a wall is to stand.
struct Site {
    pins: Pins,
    mount: Cgroup2Mount,
    cgroup: PathBuf,
    directory: File,
}

impl Site {
    /// Walls of other layouts that stand here.
    fn others(&self) -> Result<Vec<Pins>> {
        Ok(self.pins.others()?.into_iter().filter(holds_links).collect())
    }

    fn with(self, maps: impl FnOnce(&Pins) -> Result<Maps>) -> Result<Wall> {
        let Self { pins, mount, cgroup, directory: _ } = self;
        let missing = hook::missing(&pins.links, &[]);
        Ok(Wall { maps: maps(&pins)?, pins, mount, cgroup, missing })
    }

    /// Raises a wall where none of these layouts stands, beside `others`, which it takes down.
    fn raise(self, image: &mut MapImage, others: &[Pins]) -> Result<(Wall, Raised), WallError> {
        self.pins.prepare()?;
        let directory = self.directory.try_clone().context("share the cgroup's directory")?;
        let mut loaded = load(Some(&self.pins.maps))?;
        let mut wall = self.with(|_| Maps::from_loaded(&mut loaded.ebpf))?;
        let mut sources: Vec<Source> = others.iter().map(Source::open).collect();
        // The newest policy is the one with the highest number.
        sources.sort_by_key(|source| std::cmp::Reverse(source.active().map(|(active, _)| active.generation)));
        let attached = (|| -> Result<(), WallError> {
            if let Some((before, _)) = sources.first().and_then(Source::active) {
                wall.maps.begin_after(before);
            }
            wall.publish(image)?;
            if sources.is_empty() {
                hook::attach(&mut loaded, &directory, &wall.pins.links)?;
            } else {
                let Wall { maps, pins, mount, cgroup, missing: _ } = &mut wall;
                let mut crossing =
                    Crossing { ebpf: &mut loaded.ebpf, maps, pins, cgroup: &directory, sources: &sources };
                crossing.attach(mount, cgroup)?;
            }
            wall.missing = hook::missing(&wall.pins.links, &loaded.missing);
            takeover::remember(&loaded.ebpf, &wall.pins);
            fault::step("the build's name")?;
            wall.maps.set_meta(ours())?;
            Ok(())
        })();
        if let Err(error) = attached {
            wall.pins.clear();
            return Err(error);
        }
        take_down(others)?;
        let raised = sources.first().map_or(Raised::New, |from| Raised::Crossed {
            from: from.abi,
            carried: sources.iter().all(Source::is_readable),
        });
        Ok((wall, raised))
    }

    /// Puts this build's programs and policy into a wall of the same layouts.
    fn take_over(self, image: &mut MapImage) -> Result<Wall, WallError> {
        let directory = self.directory.try_clone().context("share the cgroup's directory")?;
        let before = Maps::pinned_meta(&self.pins.maps)?;
        let Loaded { mut ebpf, missing } = load(Some(&self.pins.maps))?;
        let mut wall = self.with(|_| Maps::from_loaded(&mut ebpf))?;
        let pins = wall.pins.clone();
        fault::step("no build's name")?;
        wall.maps.set_meta(Meta { object: [0; 32], ..before })?;
        let mut publish = |wall: &mut Wall| -> Result<(), WallError> {
            fault::step("publish")?;
            Ok(wall.publish(image).map(drop)?)
        };
        let published = match takeover::replace(&mut ebpf, &directory, &pins) {
            Err(error) => Err(WallError::Host(error)),
            Ok(replaced) => match publish(&mut wall) {
                Ok(()) => {
                    replaced.keep(&ebpf);
                    Ok(())
                }
                Err(error) => {
                    if let Err(left) = replaced.undo() {
                        tracing::error!("{left:#}");
                    }
                    Err(error)
                }
            },
        };
        if let Err(error) = published {
            // With programs of two builds it stays nobody's, and the next start replaces them all.
            if takeover::is_whole(&pins) {
                wall.maps.set_meta(before)?;
            }
            return Err(error);
        }
        wall.missing = hook::missing(&pins.links, &missing);
        fault::step("the build's name")?;
        wall.maps.set_meta(ours())?;
        Ok(wall)
    }
}

/// Whether a wall of this very build stands there, and every hook runs the program that was put there.
pub fn is_whole(pins: &Path) -> bool {
    let pins = Pins::below(pins);
    hook::all_pinned(&pins.links)
        && Maps::pinned_meta(&pins.maps).is_ok_and(|meta| meta == ours())
        && takeover::is_whole(&pins)
}

/// What this build's programs and layouts are called.
fn ours() -> Meta {
    Meta { abi: ABI_VERSION, padding: 0, object: object_digest() }
}

/// Takes down walls beside one that is whole.
fn take_down(others: &[Pins]) -> Result<()> {
    for other in others {
        fault::step("the wall before")?;
        other.clear();
        if holds_links(other) {
            let at = other.links.display();
            return Err(anyhow!(
                "the wall of another version still stands, and both decide: {at} cannot be emptied"
            ));
        }
    }
    Ok(())
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
    for wall in Pins::all(pins)? {
        hooks += wall.link_names().len();
        wall.clear();
        if holds_links(&wall) {
            return Err(anyhow!("links are still pinned in {}", wall.links.display()));
        }
    }
    if pins.exists() {
        bpffs::remove(pins);
    }
    Ok(Detached { hooks })
}

/// The seed of the wall that is pinned there, or a new one: what was hashed under it stays known across restarts and
/// versions.
pub fn seed(pins: &Path) -> u64 {
    match predecessor(pins).and_then(|wall| wall.active()) {
        Some((_, seed)) => seed,
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
