//! systemd's journal as a receiver: gives every entry that a journald of its own got.
//!
//! It runs in a mount namespace where the paths of the journal are its own, and in an empty network namespace (audit's socket
//! is the host's network's); this host's journal is not touched. A process sees it at the usual paths when it enters
//! [`Journal::namespace`].

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::daemon::Daemon;
use super::id::ids;
use super::site::Site;
use crate::place;

/// The receiver; it ends with this.
pub struct Journal {
    directory: PathBuf,
    site: Site,
    holder: Daemon,
    daemon: Option<Daemon>,
}

/// An entry: its fields, each of which may be there more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    fields: BTreeMap<String, Vec<String>>,
}

impl Journal {
    /// Starts one in a directory of its own.
    ///
    /// # Errors
    /// When systemd's journald is missing, or it does not listen in time.
    pub fn start(directory: PathBuf) -> Result<Self> {
        ensure!(Path::new(JOURNALD).exists(), "{JOURNALD} does not exist (Debian: systemd)");
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("journal.sh"), include_str!("journal.sh"))?;
        let site = Site::own();
        let mut command = site.command(&place::on_path("unshare")?)?;
        command.args(["--mount", "--net", "--propagation=private", "sh"]);
        command.arg(directory.join("journal.sh")).arg(&directory);
        let mut holder = Daemon::start(command, &directory.join("said"))?;
        holder.await_ready(|| directory.join("ready").exists()).context("prepare the journal's paths")?;
        let mut receiver = Self { directory, site, holder, daemon: None };
        receiver.resume()?;
        Ok(receiver)
    }

    /// Ends it; first it writes down what it has got. Its sockets stay, and refuse.
    pub fn stop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.end();
        }
    }

    /// Starts it again.
    ///
    /// # Errors
    /// When it does not listen in time.
    pub fn resume(&mut self) -> Result<()> {
        let mut command = self.site.command(&place::on_path("nsenter")?)?;
        for (option, kind) in [("--mount", "mnt"), ("--net", "net")] {
            command.arg(format!("{option}={}", self.namespace_of(kind)));
        }
        command.arg(JOURNALD);
        let mut daemon = Daemon::start(command, &self.directory.join("said"))?;
        let socket = self.socket();
        let answers = || UnixDatagram::unbound().is_ok_and(|own| own.connect(&socket).is_ok());
        daemon.await_ready(answers).context("start journald")?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Its socket for entries, at a path that every process sees.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("run/socket")
    }

    /// The mount namespace in which its socket is `/run/systemd/journal/socket`.
    pub fn namespace(&self) -> PathBuf {
        self.namespace_of("mnt").into()
    }

    /// Every entry so far.
    ///
    /// # Errors
    /// When journalctl cannot read them.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let mut command = Command::new(place::on_path("journalctl")?);
        // Long values, too.
        command.args(["--output=json", "--all", "--no-pager", "--quiet", "--directory"]);
        let output = command.arg(self.directory.join("log")).output().context("run journalctl")?;
        ensure!(output.status.success(), "journalctl: {}", String::from_utf8_lossy(&output.stderr));
        let lines = str::from_utf8(&output.stdout)?.lines();
        lines.map(|line| Ok(entry(&serde_json::from_str(line).context("read an entry")?))).collect()
    }

    fn namespace_of(&self, kind: &str) -> String {
        format!("/proc/{}/ns/{kind}", self.holder.pid())
    }
}

impl Entry {
    /// The first value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.first().map(String::as_str)
    }

    /// All values of a field.
    pub fn values(&self, name: &str) -> &[String] {
        self.fields.get(name).map_or(&[], Vec::as_slice)
    }

    /// The alerts in it.
    pub fn ids(&self) -> Vec<String> {
        self.fields.values().flatten().flat_map(|value| ids(value)).collect()
    }
}

/// journalctl writes a value that is no plain text as an array of bytes, and several as an array of those.
fn entry(value: &Value) -> Entry {
    let fields = value.as_object().into_iter().flatten().map(|(name, value)| {
        let values = match value {
            Value::Array(parts) if parts.iter().all(|part| !part.is_number()) => {
                parts.iter().map(text).collect()
            }
            other => vec![text(other)],
        };
        (name.clone(), values)
    });
    Entry { fields: fields.collect() }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(bytes) => {
            let bytes: Vec<u8> =
                bytes.iter().filter_map(Value::as_u64).filter_map(|byte| byte.try_into().ok()).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        other => other.to_string(),
    }
}

const JOURNALD: &str = "/usr/lib/systemd/systemd-journald";
