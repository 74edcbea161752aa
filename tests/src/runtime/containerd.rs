//! containerd, with directories of its own, and `ctr`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Home, Paths, output};
use crate::place;
use crate::receiver::daemon::Daemon;

/// A running containerd.
pub struct Containerd {
    home: Paths,
    socket: PathBuf,
    _daemon: Daemon,
}

impl Containerd {
    /// Starts one.
    ///
    /// # Errors
    /// When it is missing, or is not ready in time.
    pub fn start(home: &Home) -> Result<Self> {
        let root = home.root();
        // What the agent reads, in its words, and what containerd does.
        home.write("etc/containerd/config.toml", "version = 2\nstate = \"/cd/state\"\n")?;
        let socket = root.join("cd.sock");
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {:?}\n",
            root.join("cd/root"),
            root.join("cd/state"),
            socket
        );
        let path = root.join("containerd.toml");
        fs::write(&path, config).context("write containerd's configuration")?;
        let mut command = Command::new(place::on_path("setpriv")?);
        command.args(["--pdeathsig", "KILL", "--"]).arg(place::on_path("containerd")?);
        command.arg("--config").arg(&path).args(["--log-level", "warn"]);
        let mut daemon = Daemon::start(command, &root.join("containerd.log"))?;
        daemon.await_ready(|| socket.exists())?;
        Ok(Self { home: home.paths.clone(), socket, _daemon: daemon })
    }

    /// Runs a container in this directory of the cgroup, to its end, with these annotations, and gives what it said.
    ///
    /// # Errors
    /// When it cannot be run.
    pub fn run(
        &self,
        namespace: &str,
        cgroup: &str,
        id: &str,
        annotations: &[(&str, &str)],
        arguments: &[String],
    ) -> Result<String> {
        let mut command = Command::new(place::on_path("ctr")?);
        command.arg("--address").arg(&self.socket).args([
            "--namespace",
            namespace,
            "run",
            "--rm",
            "--rootfs",
        ]);
        command.arg("--cgroup").arg(format!("{}/{cgroup}/{id}", self.home.cgroup));
        for (key, value) in annotations {
            command.arg("--annotation").arg(format!("{key}={value}"));
        }
        output(command.arg(&self.home.rootfs).arg(id).args(arguments))
    }
}
