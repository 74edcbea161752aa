//! Podman, rootful, with a storage of its own.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::{Home, Paths, archive, output};
use crate::place;

/// An image, and the containers that are made of it.
pub struct Podman {
    home: Paths,
    program: PathBuf,
}

impl Podman {
    /// With an image of this name.
    ///
    /// # Errors
    /// When Podman is missing, or fails.
    pub fn with_image(home: &Home, image: &str) -> Result<Self> {
        let podman = Self { home: home.paths.clone(), program: place::on_path("podman")? };
        home.write(
            "etc/containers/storage.conf",
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"/graph\"\nrunroot = \"/run/graph\"\n",
        )?;
        output(podman.command(&["import", "--quiet"]).arg(archive(home)?).arg(image))?;
        Ok(podman)
    }

    /// Runs a container in this directory of the cgroup, to its end, and gives what it said. Nothing of it is left then.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn run(&self, cgroup: &str, name: &str, image: &str, arguments: &[String]) -> Result<String> {
        output(self.of_container(cgroup, name, &["--rm"], image).args(arguments))
    }

    /// Starts a container, and gives its id.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, cgroup: &str, name: &str, image: &str, arguments: &[String]) -> Result<String> {
        output(self.of_container(cgroup, name, &["--detach"], image).args(arguments))
    }

    fn of_container(&self, cgroup: &str, name: &str, how: &[&str], image: &str) -> Command {
        let parent = format!("{}/{cgroup}", self.home.cgroup);
        let mut command = self.command(&["run", "--name", name, "--network", "none", "--cgroupns", "host"]);
        // Where limits may not be raised, those that Podman gives by itself would be.
        command.args(["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--pids-limit=-1"]);
        command.args(["--cgroup-parent", &parent]).args(how).arg(image);
        command
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let root = &self.home.root;
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(root.join("graph")).arg("--runroot").arg(root.join("run/graph"));
        command.arg("--tmpdir").arg(root.join("tmp")).args(["--storage-driver", "vfs"]);
        // crun refuses a hybrid hierarchy.
        command.args(["--cgroup-manager", "cgroupfs", "--runtime", "runc", "--events-backend", "none"]);
        command.args(arguments).env("CONTAINERS_CONF", "/dev/null");
        command
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        if let Err(error) = output(&mut self.command(&["rm", "--all", "--force", "--time", "0"])) {
            eprintln!("Podman's containers are left: {error:#}");
        }
    }
}
