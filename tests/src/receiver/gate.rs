//! A gate before a server: takes connections at one port, plain or TLS, and hands them on to another.
//!
//! For a server that forgets everything when it ends, or that speaks no TLS, and to lose answers on their way. Closed, its port
//! refuses connections.

use std::fs;
use std::net::SocketAddrV4;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::daemon::Daemon;
use super::guard::{self, Guard};
use super::site::Site;
use crate::authority::Authority;
use crate::place;

/// The gate; it closes with this.
pub struct Gate {
    directory: PathBuf,
    arguments: Vec<String>,
    at: SocketAddrV4,
    site: Site,
    daemon: Option<Daemon>,
}

impl Gate {
    /// An open one, from this port of a site to that one. Kafka's clients say who they are where `names` says how, who, and the
    /// password.
    ///
    /// # Errors
    /// When Python or openssl is missing, or it does not listen in time.
    pub fn open(
        directory: PathBuf,
        authority: &Authority,
        guard: Guard,
        site: Site,
        port: u16,
        behind: u16,
        names: Option<[&str; 3]>,
    ) -> Result<Self> {
        fs::create_dir_all(&directory)?;
        let (source, text) = guard::SOURCE;
        fs::write(directory.join(source), text)?;
        fs::write(directory.join("gate.py"), include_str!("gate.py"))?;
        fs::write(directory.join("doorman.py"), include_str!("doorman.py"))?;
        let [at, behind] = [port, behind].map(|port| SocketAddrV4::new(site.address(), port));
        let path = |name: &str| directory.join(name).display().to_string();
        // It leaves no compiled files beside its own.
        let mut arguments = vec!["-B".to_owned(), path("gate.py"), directory.display().to_string()];
        arguments.extend([at.to_string(), behind.to_string()]);
        arguments.extend(guard.arguments(&directory, authority, site.address())?);
        arguments.extend(names.into_iter().flatten().map(str::to_owned));
        let mut gate = Self { directory, arguments, at, site, daemon: None };
        gate.reopen()?;
        Ok(gate)
    }

    /// Cuts every connection, and refuses new ones.
    pub fn close(&mut self) {
        self.daemon = None;
    }

    /// Lets them in again.
    ///
    /// # Errors
    /// When it does not listen in time.
    pub fn reopen(&mut self) -> Result<()> {
        let mut command = self.site.command(&place::on_path("python3")?)?;
        command.args(&self.arguments);
        let mut daemon = Daemon::start(command, &self.directory.join("said"))?;
        daemon.await_ports(&[self.at], &[]).context("open the gate")?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Whether answers are lost from now on, although what is asked arrives.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub fn lose_answers(&self, lose: bool) -> Result<()> {
        let silent = self.directory.join("silent");
        if lose {
            fs::write(silent, "")?;
        } else if silent.exists() {
            fs::remove_file(silent)?;
        }
        Ok(())
    }
}
