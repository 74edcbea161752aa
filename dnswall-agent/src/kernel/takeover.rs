//! Takes a wall that stands and the programs of this build, which have the same layouts; gives the same wall with these
//! programs. All of them, or the wall as it was.
//!
//! Hook by hook, what records first and what judges last: a link both builds have gets the new program in one step, a
//! hook that is new is attached, and what this build does not have goes at the end, judges first. Every mixture on the
//! way is a whole wall, because programs of the same layouts understand each other's maps. While it is one, `META` names
//! no build; so whoever starts next, of whatever build, puts its own programs into all links. That is all there is to a
//! take-over that dies in the middle.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result, ensure};
use aya::Ebpf;

use super::fault;
use super::hook::{HOOKS, Hook, attach_one};
use super::link::{self, Link, open_program, pin, pinned_program_id};
use super::pins::Pins;

/// Programs of this build in the place of another's, not yet for good.
pub struct TakeOver<'a> {
    pins: &'a Pins,
    done: Vec<Done>,
}

/// One step that can be taken back.
enum Done {
    /// A link runs another program.
    Replaced { name: String, link: Link, before: Option<OwnedFd> },
    /// There is a link more.
    Attached { name: String },
    /// There is a link less. The descriptor keeps it attached.
    Removed { name: String, link: Link },
}

/// Puts the loaded programs in place.
///
/// # Errors
/// When the kernel refuses one; what had been done is undone.
pub fn replace<'a>(ebpf: &mut Ebpf, cgroup: &File, pins: &'a Pins) -> Result<TakeOver<'a>> {
    let mut standing: BTreeMap<String, Link> = BTreeMap::new();
    for name in pins.link_names() {
        let link = Link::open(&pins.links.join(&name))?;
        standing.insert(name, link);
    }
    let mut take_over = TakeOver { pins, done: Vec::new() };
    match take_over.all(ebpf, cgroup, &mut standing) {
        Ok(()) => Ok(take_over),
        Err(error) => Err(match take_over.undo() {
            Ok(()) => error.context("the wall stands as it was"),
            Err(left) => error.context(left),
        }),
    }
}

impl TakeOver<'_> {
    fn all(&mut self, ebpf: &mut Ebpf, cgroup: &File, standing: &mut BTreeMap<String, Link>) -> Result<()> {
        for hook in &HOOKS {
            if !is_loaded(ebpf, hook) {
                continue;
            }
            fault::step(hook.program)?;
            let name = hook.program.to_owned();
            if let Some(link) = standing.remove(hook.program) {
                let before = open_program(&self.pins.programs.join(hook.program), link.program_id);
                let program = ebpf.program(hook.program).context("find the program")?.fd()?;
                link.run(program.as_fd()).with_context(|| format!("put the new {name} in place"))?;
                self.done.push(Done::Replaced { name, link, before });
                continue;
            }
            if attach(ebpf, cgroup, hook, self.pins)? {
                self.done.push(Done::Attached { name });
            }
        }
        let names = self.pins.link_names();
        for name in names.iter().rev() {
            let Some(link) = standing.remove(name) else { continue };
            fault::step(name)?;
            fs::remove_file(self.pins.links.join(name))
                .with_context(|| format!("remove the link of {name}"))?;
            self.done.push(Done::Removed { name: name.clone(), link });
        }
        Ok(())
    }

    /// Keeps the programs that run now: from here on there is no way back. Where they cannot be pinned, a later agent
    /// opens them by number.
    pub fn keep(self, ebpf: &Ebpf) {
        for done in &self.done {
            if let Done::Removed { link, .. } = done {
                // Where that fails, the kernel does it a moment later.
                let _ = link.detach();
            }
        }
        remember(ebpf, self.pins);
    }

    /// Takes everything back.
    ///
    /// # Errors
    /// Says what could not be.
    pub fn undo(mut self) -> Result<()> {
        let mut left = Vec::new();
        while let Some(done) = self.done.pop() {
            let undone = match &done {
                Done::Replaced { link, before: Some(before), .. } => link.run(before.as_fd()),
                Done::Replaced { before: None, .. } => Err(std::io::Error::other(
                    "the program before could not be opened, which takes CAP_SYS_ADMIN or its pin",
                )),
                Done::Attached { name } => link::remove(&self.pins.links.join(name)),
                Done::Removed { name, link } => link.pin(&self.pins.links.join(name)),
            };
            let (Done::Replaced { name, .. } | Done::Attached { name } | Done::Removed { name, .. }) = &done;
            if let Err(error) = undone {
                left.push(format!("{name}: {error}"));
            }
        }
        ensure!(left.is_empty(), "the wall stands, with programs of two builds ({})", left.join("; "));
        Ok(())
    }
}

/// Attaches one program, unless it cannot be and need not be; gives whether it is.
///
/// # Errors
/// When there is no wall without it.
pub fn attach(ebpf: &mut Ebpf, cgroup: &File, hook: &Hook, pins: &Pins) -> Result<bool> {
    match attach_one(ebpf, cgroup, hook, &pins.links.join(hook.program)) {
        Ok(()) => Ok(true),
        Err(error) if hook.required => {
            Err(error).with_context(|| format!("attach {} to {}", hook.program, hook.attach))
        }
        Err(error) => {
            tracing::warn!("{} is not attached to {}: {error:#}", hook.program, hook.attach);
            Ok(false)
        }
    }
}

/// Whether the program is loaded: one that is not required may not be.
pub fn is_loaded(ebpf: &Ebpf, hook: &Hook) -> bool {
    ebpf.program(hook.program).is_some_and(|program| program.fd().is_ok())
}

/// Pins the loaded programs that are attached, for [`open_program`] and [`is_whole`]; others are forgotten.
pub fn remember(ebpf: &Ebpf, pins: &Pins) {
    let attached = pins.link_names();
    for entry in fs::read_dir(&pins.programs).into_iter().flatten().flatten() {
        // One that stays is another program than the link's, and not taken for it.
        let _ = fs::remove_file(entry.path());
    }
    for name in &attached {
        let Some(Ok(program)) = ebpf.program(name).map(|program| program.fd()) else { continue };
        if let Err(error) = pin(program.as_fd(), &pins.programs.join(name)) {
            tracing::warn!(
                "program {name} is not pinned, so the next build may not be able to put it back: {error}"
            );
        }
    }
}

/// Whether every link runs the program that was put there last: none was replaced, removed or left out half way.
pub fn is_whole(pins: &Pins) -> bool {
    let remembered: Vec<String> = fs::read_dir(&pins.programs)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let runs_it = |name: &String| {
        let link = Link::open(&pins.links.join(name)).ok();
        link.is_some_and(|link| pinned_program_id(&pins.programs.join(name)) == Some(link.program_id))
    };
    HOOKS.iter().filter(|hook| hook.required).all(|hook| remembered.iter().any(|name| name == hook.program))
        && remembered.iter().all(runs_it)
        && pins.link_names().iter().all(|name| remembered.contains(name))
}
