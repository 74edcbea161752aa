//! Who does something: cgroup, user and executable.

use std::path::{Path, PathBuf};

use dnswall_common::identity::{CONTAINER_ID_BYTES, container_in};

/// A process's identity, as the policy sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// Cgroup below the wall's root.
    pub cgroup: String,
    /// User.
    pub uid: u32,
    /// Which executable.
    pub exe: Exe,
}

/// An executable that does what it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exe {
    /// The probe itself.
    Probe,
    /// A copy of the probe under this name, in the directory of [`crate::wall::Wall::copies`].
    Copy(&'static str),
    /// The real `dig`, for questions.
    Dig,
}

/// Someone in this cgroup below the wall's root, as root, with the probe.
pub fn at(cgroup: &str) -> Who {
    Who { cgroup: cgroup.into(), uid: 0, exe: Exe::Probe }
}

impl Who {
    /// As another user.
    #[must_use]
    pub fn uid(self, uid: u32) -> Self {
        Self { uid, ..self }
    }

    /// With another executable.
    #[must_use]
    pub fn exe(self, exe: Exe) -> Self {
        Self { exe, ..self }
    }

    /// Its unit: the first directory that is no slice.
    pub fn unit(&self) -> Option<&str> {
        self.cgroup.split('/').find(|name| !name.is_empty() && !name.ends_with(".slice"))
    }

    /// Its container: the topmost directory that is named like one, unless it is somebody's own.
    pub fn container(&self) -> Option<&str> {
        let (place, start) = container_in(self.cgroup.split('/').map(str::as_bytes))?;
        self.cgroup.split('/').nth(place)?.get(start..start + CONTAINER_ID_BYTES)
    }

    /// The user's name, for those that the tables use.
    pub fn user(&self) -> Option<&'static str> {
        match self.uid {
            0 => Some("root"),
            1 => Some("daemon"),
            65534 => Some("nobody"),
            _ => None,
        }
    }

    /// The executable's path.
    pub fn exe_path(&self, probe: &Path, copies: &Path) -> PathBuf {
        match &self.exe {
            Exe::Probe => probe.to_path_buf(),
            Exe::Copy(name) => copies.join(name),
            Exe::Dig => PathBuf::from(DIG),
        }
    }
}

/// Debian's and everyone else's place.
pub const DIG: &str = "/usr/bin/dig";
