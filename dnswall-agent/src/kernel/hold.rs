//! The agent's own hold on its wall: every link and map by descriptor, so that what others do to pins and links is seen,
//! and can be mended.
//!
//! A link that was detached stays a link, of nothing; a pin that was removed takes nothing with it as long as the agent
//! holds what was pinned. What the kernel says is told as it is ([`HookNow`], [`MapNow`], [`PlaceNow`]); what it means is
//! judged elsewhere.

use std::fs::{self, File};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::bpf::{self, LinkNow, ProgramNow};
use super::cgroup::find_cgroup2;
use super::hook::{self, HOOKS, Hook};
use super::link::{self, open_pin, update};
use super::maps::MAP_NAMES;
use super::{Wall, bpffs, object};

/// Descriptors of everything the wall is made of.
pub struct Hold {
    links: PathBuf,
    maps_directory: PathBuf,
    cgroup_path: PathBuf,
    cgroup: File,
    cgroup_id: u64,
    hooks: Vec<HeldHook>,
    maps: Vec<HeldMap>,
}

struct HeldHook {
    hook: Hook,
    link: OwnedFd,
    is: LinkNow,
}

struct HeldMap {
    name: &'static str,
    fd: OwnedFd,
    id: u32,
}

/// One hook, as it was attached and as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookNow {
    /// Program and pin.
    pub program: &'static str,
    /// The hook in the kernel's words.
    pub attach: &'static str,
    /// As this agent left it; `None` where this kernel has no such hook.
    pub was: Option<LinkNow>,
    /// As it is; `None` when the kernel does not say.
    pub is: Option<LinkNow>,
    /// The number of the link at the pin, if one is there.
    pub pinned: Option<u32>,
    /// Every program that runs at this hook, ours included; `None` when the kernel does not say.
    pub effective: Option<Vec<u32>>,
    /// Instructions the verifier walked, where the kernel tells.
    pub verified_instructions: Option<u32>,
}

/// One map, as it was pinned and as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapNow {
    /// Its name.
    pub name: &'static str,
    /// The number of the map the programs use.
    pub id: u32,
    /// The number of the map at the pin, if one is there.
    pub pinned: Option<u32>,
}

/// Where the wall stands, as it was and as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceNow {
    /// The wall's cgroup, by its path.
    pub path: PathBuf,
    /// Its id when the wall was raised.
    pub was: u64,
    /// What the path leads to now; `None` when it leads nowhere.
    pub is: Option<u64>,
    /// Whether a mount still shows the whole hierarchy.
    pub whole: bool,
}

/// What was done about one hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mended {
    /// The program was put back into its link.
    ProgramPutBack,
    /// The hook was attached and pinned anew, with this link.
    AttachedAgain(u32),
    /// The link was pinned again.
    PinnedAgain,
}

impl Hold {
    /// Takes hold of a wall that was just raised.
    ///
    /// # Errors
    /// When something that is pinned cannot be opened.
    pub fn of(wall: &Wall) -> Result<Self> {
        let (links, maps_directory) = (wall.pins().join("links"), wall.pins().join("maps"));
        let cgroup_path = wall.cgroup().to_owned();
        let cgroup =
            File::open(&cgroup_path).with_context(|| format!("open cgroup {}", cgroup_path.display()))?;
        let cgroup_id = cgroup.metadata().context("look at the wall's cgroup")?.ino();
        let mut maps = Vec::new();
        for name in MAP_NAMES {
            let fd = open_pin(&maps_directory.join(name)).with_context(|| format!("open map {name}"))?;
            let id = bpf::map_id(fd.as_fd()).with_context(|| format!("look at map {name}"))?;
            maps.push(HeldMap { name, fd, id });
        }
        let mut hold =
            Self { links, maps_directory, cgroup_path, cgroup, cgroup_id, hooks: Vec::new(), maps };
        for hook in HOOKS {
            let path = hold.links.join(hook.program);
            // A hook that this kernel does not have was never pinned.
            if path.exists() {
                let link = open_pin(&path).with_context(|| format!("open link {}", path.display()))?;
                hold.keep(hook, link)?;
            }
        }
        Ok(hold)
    }

    /// Every hook as it is now.
    pub fn hooks(&self) -> Vec<HookNow> {
        HOOKS.iter().map(|hook| self.hook(hook)).collect()
    }

    fn hook(&self, hook: &Hook) -> HookNow {
        let Hook { program, attach, .. } = *hook;
        let pinned = pinned(&self.links.join(program), |fd| Ok(bpf::link(fd)?.id));
        let Some(held) = self.held(program) else {
            let nothing = HookNow {
                program,
                attach,
                was: None,
                is: None,
                pinned,
                effective: None,
                verified_instructions: None,
            };
            return nothing;
        };
        let is = bpf::link(held.link.as_fd()).ok();
        HookNow {
            program,
            attach,
            was: Some(held.is),
            is,
            pinned,
            effective: bpf::effective(self.cgroup.as_fd(), held.is.attach_type).ok(),
            verified_instructions: is
                .and_then(|is| bpf::program(is.program).ok())
                .and_then(|program| program.verified_instructions),
        }
    }

    /// Every map as it is now.
    pub fn maps(&self) -> Vec<MapNow> {
        let look = |held: &HeldMap| MapNow {
            name: held.name,
            id: held.id,
            pinned: pinned(&self.maps_directory.join(held.name), bpf::map_id),
        };
        self.maps.iter().map(look).collect()
    }

    /// Where the wall stands now.
    pub fn place(&self) -> PlaceNow {
        PlaceNow {
            path: self.cgroup_path.clone(),
            was: self.cgroup_id,
            is: fs::metadata(&self.cgroup_path).ok().map(|metadata| metadata.ino()),
            whole: find_cgroup2().is_ok_and(|mount| mount.whole),
        }
    }

    /// Pins a map again where it was.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn pin_map(&self, name: &str) -> Result<()> {
        let held = self.maps.iter().find(|held| held.name == name).context("find the map")?;
        pin(&self.maps_directory, name, &held.fd)
    }

    /// Puts a hook back as it was, whatever is wrong with it.
    ///
    /// # Errors
    /// When the kernel refuses; what is wrong still is.
    pub fn mend(&mut self, program: &str) -> Result<Mended> {
        let held = self.held(program).context("find the hook")?;
        let (hook, was) = (held.hook, held.is);
        let is = bpf::link(held.link.as_fd()).context("look at the link")?;
        if is.cgroup == was.cgroup && is.program == was.program {
            pin(&self.links, program, &held.link)?;
            return Ok(Mended::PinnedAgain);
        }
        // What stood there may be gone for good, so the programs are loaded anew, over the maps this agent holds.
        for map in self.maps() {
            if map.pinned != Some(map.id) {
                self.pin_map(map.name)?;
            }
        }
        let ebpf = object::load(Some(&self.maps_directory)).context("load the programs again")?.ebpf;
        if is.cgroup == was.cgroup {
            let loaded = ebpf.program(program).context("find the program")?.fd()?;
            update(held.link.as_fd(), loaded.as_fd()).context("put the program back")?;
            let is = bpf::link(held.link.as_fd()).context("look at the link")?;
            self.held_mut(program).context("find the hook")?.is = is;
            pin_unless_pinned(&self.links, program, self.held(program).context("find the hook")?)?;
            return Ok(Mended::ProgramPutBack);
        }
        let path = self.links.join(program);
        bpffs::ensure(&self.links)?;
        remove(&path)?;
        hook::attach_one(&ebpf, &self.cgroup, &hook, &path)
            .with_context(|| format!("attach {program} again"))?;
        let link = open_pin(&path).with_context(|| format!("open link {}", path.display()))?;
        self.hooks.retain(|held| held.hook.program != program);
        self.keep(hook, link)?;
        Ok(Mended::AttachedAgain(self.held(program).map(|held| held.is.id).unwrap_or_default()))
    }

    /// What the kernel says of a program; nothing when it may not be asked.
    pub fn program(id: u32) -> Option<ProgramNow> {
        bpf::program(id).ok()
    }

    fn keep(&mut self, hook: Hook, link: OwnedFd) -> Result<()> {
        let mut is = bpf::link(link.as_fd()).with_context(|| format!("look at link {}", hook.program))?;
        // Found pinned, but not as it was left: said to be something that it is not, it is mended like any other.
        let uses_our_maps = |program: ProgramNow| self.maps.iter().any(|map| program.maps.contains(&map.id));
        if bpf::program(is.program).is_ok_and(|program| !uses_our_maps(program)) {
            is.program = 0;
        }
        ensure!(is.attach_type == hook.attach_type, "link of another hook");
        is.cgroup = self.cgroup_id;
        self.hooks.push(HeldHook { hook, link, is });
        Ok(())
    }

    fn held(&self, program: &str) -> Option<&HeldHook> {
        self.hooks.iter().find(|held| held.hook.program == program)
    }

    fn held_mut(&mut self, program: &str) -> Option<&mut HeldHook> {
        self.hooks.iter_mut().find(|held| held.hook.program == program)
    }
}

fn pinned(path: &Path, id: impl Fn(std::os::fd::BorrowedFd<'_>) -> std::io::Result<u32>) -> Option<u32> {
    let fd = open_pin(path).ok()?;
    id(fd.as_fd()).ok()
}

fn pin_unless_pinned(directory: &Path, name: &str, held: &HeldHook) -> Result<()> {
    let there = pinned(&directory.join(name), |fd| Ok(bpf::link(fd)?.id));
    if there == Some(held.is.id) { Ok(()) } else { pin(directory, name, &held.link) }
}

fn pin(directory: &Path, name: &str, fd: &OwnedFd) -> Result<()> {
    if let Some(above) = directory.parent() {
        if let Some(top) = above.parent() {
            bpffs::ensure(top)?;
        }
        bpffs::ensure(above)?;
    }
    bpffs::ensure(directory)?;
    let path = directory.join(name);
    remove(&path)?;
    link::pin(fd.as_fd(), &path).with_context(|| format!("pin {}", path.display()))
}

/// Takes away what somebody else put there.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
