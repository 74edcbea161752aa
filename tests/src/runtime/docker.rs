//! Docker Engine, with a data root of its own and nothing that it would do to this host's network.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Home, Paths, archive, output};
use crate::place;
use crate::receiver::daemon::Daemon;

/// A running daemon, and an image.
pub struct Docker {
    home: Paths,
    socket: PathBuf,
    daemon: Option<Daemon>,
}

impl Docker {
    /// Starts one, with an image of this name.
    ///
    /// # Errors
    /// When it is missing, or is not ready in time.
    pub fn with_image(home: &Home, image: &str) -> Result<Self> {
        let root = home.root();
        // What the agent reads, in its words; the daemon is told by its command line.
        home.write("etc/docker/daemon.json", "{ \"data-root\": \"/docker\" }")?;
        let (settings, socket) = (root.join("dockerd.json"), root.join("docker.sock"));
        fs::write(&settings, "{}").context("write Docker's settings")?;
        let mut command = Command::new(place::on_path("setpriv")?);
        command.args(["--pdeathsig", "KILL", "--"]).arg(place::on_path("dockerd")?);
        command.arg("--config-file").arg(&settings).arg("--data-root").arg(root.join("docker"));
        command.arg("--exec-root").arg(root.join("dk")).arg("--pidfile").arg(root.join("dockerd.pid"));
        command.arg("--host").arg(format!("unix://{}", socket.display())).args(["--storage-driver", "vfs"]);
        command.args(["--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]);
        command.args(["--exec-opt", "native.cgroupdriver=cgroupfs"]);
        let mut daemon = Daemon::start(command, &root.join("dockerd.log"))?;
        daemon.await_ready(|| socket.exists())?;
        let docker = Self { home: home.paths.clone(), socket, daemon: Some(daemon) };
        output(docker.command(&["import"])?.arg(archive(home)?).arg(image))?;
        Ok(docker)
    }

    /// Runs a container in this directory of the cgroup, to its end, and gives what it said. Nothing of it is left then.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn run(&self, cgroup: &str, name: &str, image: &str, arguments: &[String]) -> Result<String> {
        let parent = format!("{}/{cgroup}", self.home.cgroup);
        let mut command = self.command(&["run", "--rm", "--network", "none", "--cgroup-parent", &parent])?;
        output(command.args(["--name", name, image]).args(arguments))
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(place::on_path("docker")?);
        command.arg("--host").arg(format!("unix://{}", self.socket.display())).args(arguments);
        // Nobody's settings of his own.
        command.env("DOCKER_CONFIG", &self.home.root);
        Ok(command)
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.end();
        }
    }
}
