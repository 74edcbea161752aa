//! Block lists for tests.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

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
