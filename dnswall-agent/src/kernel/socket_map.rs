//! The map of what is recorded of each socket, as something to ask the kernel with.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::maps::MapData;

/// The map of a wall pinned at `pins`, the ABI's version included (see [`super::Wall::pins`]).
///
/// # Errors
/// When the pin is missing or cannot be opened.
pub fn socket_map(pins: &Path) -> Result<OwnedFd> {
    let path = pins.join("maps").join("SOCKETS");
    let map = MapData::from_pin(&path).with_context(|| format!("open map {}", path.display()))?;
    map.fd().as_fd().try_clone_to_owned().context("share map SOCKETS")
}
