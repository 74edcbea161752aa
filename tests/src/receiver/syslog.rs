//! rsyslog as a receiver: gives every syslog message that it got over UDP, TCP or TLS, in its parts.
//!
//! TCP and TLS take both framings, counted octets and line ends (RFC 6587).

use std::fs;
use std::net::SocketAddrV4;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Deserializer, de};

use super::daemon::Daemon;
use super::id::ids;
use super::site::Site;
use crate::authority::{Authority, Holder};
use crate::place;

/// The receiver; it ends with this.
pub struct Syslog {
    directory: PathBuf,
    site: Site,
    daemon: Option<Daemon>,
}

/// How a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    /// A datagram.
    Udp,
    /// TCP in plain text.
    Tcp,
    /// TLS, from anybody.
    Tls,
    /// TLS, from who has a certificate of the authority.
    Mutual,
}

/// A message, as rsyslog read it.
#[derive(Clone, Debug, Deserialize)]
pub struct Message {
    /// How it came.
    pub input: Input,
    /// When, by RFC 3339.
    pub at: String,
    /// 1 for RFC 5424, 0 for what came before it.
    #[serde(deserialize_with = "number")]
    pub version: u8,
    /// Facility × 8 + severity.
    #[serde(deserialize_with = "number")]
    pub pri: u8,
    /// When it says that it was written.
    pub timestamp: String,
    /// HOSTNAME.
    pub hostname: String,
    /// APP-NAME.
    pub app_name: String,
    /// PROCID.
    pub procid: String,
    /// MSGID.
    pub msgid: String,
    /// STRUCTURED-DATA, still escaped.
    pub structured_data: String,
    /// MSG.
    pub msg: String,
    /// All of it.
    pub raw: String,
}

impl Syslog {
    /// Starts one in a directory of its own.
    ///
    /// # Errors
    /// When rsyslog or openssl is missing, or it does not listen in time.
    pub fn start(directory: PathBuf, authority: &Authority) -> Result<Self> {
        Self::start_at(Site::own(), directory, authority)
    }

    /// Starts one elsewhere.
    ///
    /// # Errors
    /// See [`Syslog::start`].
    pub fn start_at(site: Site, directory: PathBuf, authority: &Authority) -> Result<Self> {
        fs::create_dir_all(&directory)?;
        let address = site.address();
        authority.certify(&directory, "server", Holder::Address(address.into()))?;
        let values = [
            ("@DIRECTORY@", directory.display().to_string()),
            ("@AUTHORITY@", authority.pem().display().to_string()),
            ("@ADDRESS@", address.to_string()),
        ];
        let config = include_str!("syslog.conf").to_owned();
        let config = values.iter().fold(config, |config, (name, value)| config.replace(name, value));
        fs::write(directory.join("syslog.conf"), config)?;
        let mut receiver = Self { directory, site, daemon: None };
        receiver.resume()?;
        Ok(receiver)
    }

    /// Ends it; first it writes down what it has got.
    pub fn stop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.end();
        }
    }

    /// Starts it again, at the ports it had.
    ///
    /// # Errors
    /// When it does not listen in time.
    pub fn resume(&mut self) -> Result<()> {
        let program = place::on_path("rsyslogd").or_else(|_| place::on_path("../sbin/rsyslogd"))?;
        let mut command = self.site.command(&program)?;
        // In the foreground, without a file of its process id.
        command.args(["-n", "-i", "NONE", "-f"]).arg(self.directory.join("syslog.conf"));
        let mut daemon = Daemon::start(command, &self.directory.join("said"))?;
        let tcp = [Input::Tcp, Input::Tls, Input::Mutual].map(|input| self.at(input));
        daemon.await_ports(&tcp, &[self.at(Input::Udp)]).context("start rsyslog")?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Where it listens.
    pub fn at(&self, input: Input) -> SocketAddrV4 {
        let port = match input {
            Input::Udp | Input::Tcp => 514,
            Input::Tls => 6514,
            Input::Mutual => 6515,
        };
        SocketAddrV4::new(self.site.address(), port)
    }

    /// Every message so far.
    ///
    /// # Errors
    /// When its log cannot be read.
    pub fn messages(&self) -> Result<Vec<Message>> {
        // It is not there before the first message.
        let text = fs::read_to_string(self.directory.join("log.ndjson")).unwrap_or_default();
        // A last line without an end is being written.
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines.map(|line| serde_json::from_str(line).with_context(|| format!("read {line}"))).collect()
    }

    /// What it complained of: every client that left in the middle, and whatever is wrong with it.
    pub fn said(&self) -> String {
        fs::read_to_string(self.directory.join("said")).unwrap_or_default()
    }
}

impl Message {
    /// From 0 to 23.
    pub fn facility(&self) -> u8 {
        self.pri >> 3
    }

    /// From 0 (emergency) to 7 (debug).
    pub fn severity(&self) -> u8 {
        self.pri & 7
    }

    /// The alerts in it.
    pub fn ids(&self) -> Vec<String> {
        ids(&self.raw)
    }
}

/// rsyslog writes numbers as texts.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}
