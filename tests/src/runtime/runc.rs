//! runc by itself.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Home, output};
use crate::place;

/// Runs a container in this directory of the cgroup, to its end, and gives what it said.
///
/// # Errors
/// When it cannot be run.
pub fn run(home: &Home, cgroup: &str, id: &str, arguments: &[String]) -> Result<String> {
    let bundle = home.root().join("bundles").join(id);
    fs::create_dir_all(&bundle)?;
    let runc = place::on_path("runc")?;
    output(Command::new(&runc).arg("spec").arg("--bundle").arg(&bundle))?;
    let path = bundle.join("config.json");
    let mut config: Value =
        serde_json::from_str(&fs::read_to_string(&path)?).context("read what runc made")?;
    config["process"]["args"] = json!(arguments);
    config["process"]["terminal"] = json!(false);
    config["process"]["rlimits"] = json!([]);
    config["linux"]["cgroupsPath"] = json!(format!("{}/{cgroup}/{id}", home.paths.cgroup));
    config["root"]["path"] = json!(home.paths.rootfs);
    fs::write(&path, config.to_string())?;
    let state = home.root().join("run/runc");
    output(Command::new(&runc).arg("--root").arg(&state).arg("run").arg("--bundle").arg(&bundle).arg(id))
}
