//! Block lists for tests.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use dnswall_agent::blocklist::bounds::Change;
use dnswall_agent::blocklist::build::{Before, NAMES_MAX, build};
use dnswall_agent::blocklist::known_good::KnownGood;
use dnswall_agent::blocklist::{List, ListAction, ListSource, Lists};

use crate::lab::SEED;

/// The names of a list with a name in each line, gzip or not.
///
/// # Errors
/// When it cannot be read.
pub fn names(path: &Path) -> Result<Vec<String>> {
    let output = Command::new("zcat").arg("--force").arg(path).output().context("run zcat")?;
    ensure!(output.status.success(), "read {}", path.display());
    let text = String::from_utf8(output.stdout)?;
    let names = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(names.map(str::to_lowercase).filter(|name| name.contains('.')).collect())
}

/// Reads a list that refuses, for a [`crate::lab::Lab`]. Its index is in `directory`.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path, directory: &Path) -> Result<Arc<Lists>> {
    let list = List {
        name: "names".to_owned(),
        source: ListSource::File(path.to_path_buf()),
        format: None,
        action: ListAction::Deny,
        entries: 0..=NAMES_MAX,
        change: Change::default(),
    };
    let open = |_: &List| File::open(path).map(Some);
    let index = |_| tempfile::tempfile_in(directory);
    Ok(Arc::new(build(&[list], KnownGood::default(), SEED, &open, Before::default(), &index)?))
}
