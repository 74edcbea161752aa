//! Where walls are pinned: one directory for each version of the layouts, and in it links, maps and programs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use dnswall_common::ABI_VERSION;

use super::hook::HOOKS;
use super::{bpffs, link};

/// The directories of one wall's pins.
#[derive(Clone, Debug)]
pub struct Pins {
    /// The version's directory.
    pub top: PathBuf,
    /// Maps, by name.
    pub maps: PathBuf,
    /// Links, by the name of their program.
    pub links: PathBuf,
    /// The programs those links run, by name: a later agent without the right to open them by number puts them back
    /// when its own cannot all be put in place.
    pub programs: PathBuf,
}

impl Pins {
    /// Of this program's layouts.
    pub fn below(pins: &Path) -> Self {
        Self::at(pins.join(format!("v{ABI_VERSION}")))
    }

    /// In this directory.
    pub fn at(top: PathBuf) -> Self {
        let [maps, links, programs] = ["maps", "links", "programs"].map(|name| top.join(name));
        Self { maps, links, programs, top }
    }

    /// Every wall below `pins`, of whatever layout.
    ///
    /// # Errors
    /// When the directory cannot be read; one that is missing holds none.
    pub fn all(pins: &Path) -> Result<Vec<Self>> {
        let entries = match fs::read_dir(pins) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(error).with_context(|| format!("read pin directory {}", pins.display()));
            }
        };
        let is_wall =
            |entry: &fs::DirEntry| entry.file_name().to_str().is_some_and(|name| name.starts_with('v'));
        let mut found: Vec<Self> =
            entries.flatten().filter(is_wall).map(|entry| Self::at(entry.path())).collect();
        found.sort_by(|a, b| a.top.cmp(&b.top));
        Ok(found)
    }

    /// The other walls beside this one.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn others(&self) -> Result<Vec<Self>> {
        let above = self.top.parent().context("the pin directory has none above it")?;
        Ok(Self::all(above)?.into_iter().filter(|other| other.top != self.top).collect())
    }

    /// Which layouts: the number in the directory's name; 0 when there is none.
    pub fn abi(&self) -> u32 {
        abi_of(&self.top).unwrap_or(0)
    }

    /// Makes the directories.
    ///
    /// # Errors
    /// When they cannot be made on a BPF file system.
    pub fn prepare(&self) -> Result<()> {
        if let Some(above) = self.top.parent() {
            bpffs::ensure(above)?;
        }
        [&self.top, &self.maps, &self.links, &self.programs].into_iter().try_for_each(|at| bpffs::ensure(at))
    }

    /// Gives the wall another name, so that one of other layouts can be pinned under its old one. It stands all the while.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn set_aside(&self) -> Result<()> {
        let taken = |number: &u32| self.top.with_file_name(format!("v{}-{number}", self.abi()));
        let aside = (1..).map(|number| taken(&number)).find(|path| !path.exists()).context("find a name")?;
        fs::rename(&self.top, &aside).with_context(|| format!("set {} aside", self.top.display()))
    }

    /// Names of the links that are pinned, whichever build of dnswall knows them: in the order of [`HOOKS`], unknown
    /// ones before the first that judges.
    pub fn link_names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.links).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        let place = |name: &str| HOOKS.iter().position(|hook| hook.program == name);
        let unknown = place(FIRST_JUDGE).unwrap_or(0);
        names.sort_by_key(|name| (place(name).unwrap_or(unknown), place(name).is_some(), name.clone()));
        names
    }

    /// Takes the wall down: what judges before what records, so that what still judges is never without a record; then
    /// the rest.
    pub fn clear(&self) {
        for name in self.link_names().iter().rev() {
            // What cannot be removed is found again by `link_names`.
            let _ = link::remove(&self.links.join(name));
        }
        for directory in [&self.links, &self.programs, &self.maps] {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                let _ = fs::remove_file(entry.path());
            }
            let _ = fs::remove_dir(directory);
        }
        let _ = fs::remove_dir(&self.top);
    }
}

/// The hooks before this one record, and those from here on judge by what was recorded.
const FIRST_JUDGE: &str = "dw_ingress";

/// The version of the layouts in the name of a pin directory: `v2`, or `v2-1` for one that was set aside.
pub fn abi_of(directory: &Path) -> Option<u32> {
    let name = directory.file_name()?.to_str()?.strip_prefix('v')?;
    name.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_says_which_layouts_it_holds() {
        for (name, abi) in
            [("v2", Some(2)), ("v102", Some(102)), ("v2-1", Some(2)), ("v", None), ("x2", None)]
        {
            assert_eq!(abi_of(&Path::new("/sys/fs/bpf/dnswall").join(name)), abi, "{name}");
        }
    }

    #[test]
    fn walls_are_found_and_ordered() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["v1/links", "v2/links", "v2-1/links", "other"] {
            fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        let names = |pins: Vec<Pins>| -> Vec<u32> { pins.iter().map(Pins::abi).collect() };
        assert_eq!(names(Pins::all(directory.path()).unwrap()), [1, 2, 2]);
        let ours = Pins::at(directory.path().join("v2"));
        assert_eq!(names(ours.others().unwrap()), [1, 2]);
        assert!(Pins::all(&directory.path().join("missing")).unwrap().is_empty());
        for name in ["dw_egress", "dw_gone", "dw_sock_create"] {
            fs::write(ours.links.join(name), "").unwrap();
        }
        assert_eq!(ours.link_names(), ["dw_sock_create", "dw_gone", "dw_egress"]);
    }
}
