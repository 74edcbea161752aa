//! File systems that go with the test.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A place where something is mounted, or will be.
pub struct Mounted(PathBuf);

impl Mounted {
    /// What somebody else mounts there.
    pub fn by_another(at: PathBuf) -> Self {
        Self(at)
    }

    /// A file system in memory, in a directory of its own.
    ///
    /// # Errors
    /// The kernel's.
    pub fn tmpfs(at: &Path) -> Result<Self> {
        fs::create_dir(at)?;
        mount("tmpfs", at, "tmpfs", MountFlags::empty(), None).context("mount a tmpfs")?;
        Ok(Self(at.to_owned()))
    }

    /// A file system in memory that holds so much, as tmpfs takes it, in a directory of its own.
    ///
    /// # Errors
    /// The kernel's.
    pub fn small(at: &Path, size: &str) -> Result<Self> {
        fs::create_dir(at)?;
        let options = CString::new(format!("size={size}"))?;
        mount("tmpfs", at, "tmpfs", MountFlags::empty(), options.as_c_str()).context("mount a tmpfs")?;
        Ok(Self(at.to_owned()))
    }

    /// One layer over another, whose files keep their numbers.
    ///
    /// # Errors
    /// The kernel's.
    pub fn overlay(lower: &Path, upper: &Path, work: &Path, at: &Path) -> Result<Self> {
        let layers = [("lowerdir", lower), ("upperdir", upper), ("workdir", work)];
        let layers = layers.map(|(name, path)| format!("{name}={}", path.display())).join(",");
        let options = CString::new(format!("{layers},xino=off"))?;
        mount("overlay", at, "overlay", MountFlags::empty(), options.as_c_str())
            .context("mount an overlay")?;
        Ok(Self(at.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Whoever still runs a program of it keeps it until then; and perhaps nothing is mounted.
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}
