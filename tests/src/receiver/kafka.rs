//! A Kafka broker as a receiver: gives every record of its topic.
//!
//! The broker is Tansu, which keeps its records in memory; a [`Gate`] stands before it, so that it can be out of reach without
//! forgetting them, and speaks TLS and SASL for it.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::daemon::Daemon;
use super::gate::Gate;
use super::guard::Guard;
use super::id::ids;
use super::site::Site;
use crate::authority::Authority;
use crate::place;

/// The receiver; it ends with this.
pub struct Kafka {
    directory: PathBuf,
    site: Site,
    topic: String,
    partitions: u32,
    gate: Gate,
    _broker: Daemon,
}

/// A record, as the broker has it.
#[derive(Clone, Debug, Deserialize)]
pub struct Record {
    /// In which part of the topic.
    pub partition: u32,
    /// At which place of it, from 0.
    pub offset: u64,
    /// When, in milliseconds since 1970, as the producer says.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<String>,
    /// What it says.
    pub value: Option<String>,
    /// Its headers.
    pub headers: BTreeMap<String, Option<String>>,
}

impl Kafka {
    /// Starts one with an empty topic, in a directory of its own.
    ///
    /// # Errors
    /// When Tansu or Python is missing, or it does not listen in time.
    pub fn start(
        directory: PathBuf,
        authority: &Authority,
        guard: Guard,
        topic: &str,
        partitions: u32,
    ) -> Result<Self> {
        Self::start_at(Site::own(), directory, authority, guard, topic, partitions)
    }

    /// [`Kafka::start`] for clients that say who they are: by which mechanism (as SASL calls it), user, password.
    ///
    /// # Errors
    /// See [`Kafka::start`].
    pub fn start_with_names(
        directory: PathBuf,
        authority: &Authority,
        guard: Guard,
        names: [&str; 3],
        topic: &str,
        partitions: u32,
    ) -> Result<Self> {
        Self::launch(Site::own(), directory, authority, guard, Some(names), topic, partitions)
    }

    /// Starts one elsewhere.
    ///
    /// # Errors
    /// See [`Kafka::start`].
    pub fn start_at(
        site: Site,
        directory: PathBuf,
        authority: &Authority,
        guard: Guard,
        topic: &str,
        partitions: u32,
    ) -> Result<Self> {
        Self::launch(site, directory, authority, guard, None, topic, partitions)
    }

    fn launch(
        site: Site,
        directory: PathBuf,
        authority: &Authority,
        guard: Guard,
        names: Option<[&str; 3]>,
        topic: &str,
        partitions: u32,
    ) -> Result<Self> {
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("kafka_reader.py"), include_str!("kafka_reader.py"))?;
        let [at, behind] = [PORT, BROKER_PORT].map(|port| SocketAddrV4::new(site.address(), port));
        let tansu = place::tool("tansu")?;
        let mut command = site.command(&tansu)?;
        command.args(["broker", "--storage-engine=memory://tansu/"]);
        // Where it is, and where clients go once they have asked who is there.
        command.arg(format!("--listener-url=tcp://{behind}"));
        command.arg(format!("--advertised-listener-url=tcp://{at}"));
        let mut broker = Daemon::start(command, &directory.join("said"))?;
        broker.await_ports(&[behind], &[]).context("start the Kafka broker")?;
        create(site.command(&tansu)?, behind, topic, partitions)?;
        let gate =
            Gate::open(directory.join("gate"), authority, guard, site.clone(), PORT, BROKER_PORT, names)?;
        Ok(Self { directory, site, topic: topic.to_owned(), partitions, gate, _broker: broker })
    }

    /// Puts it out of reach. It keeps what it has.
    pub fn stop(&mut self) {
        self.gate.close();
    }

    /// Puts it within reach again, at the port it had.
    ///
    /// # Errors
    /// When it does not listen in time.
    pub fn resume(&mut self) -> Result<()> {
        self.gate.reopen()
    }

    /// Whether its answers are lost from now on, although it takes what it gets.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub fn lose_answers(&self, lose: bool) -> Result<()> {
        self.gate.lose_answers(lose)
    }

    /// Where it listens.
    pub fn at(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.site.address(), PORT)
    }

    /// Every record so far, also while it is out of reach.
    ///
    /// # Errors
    /// When the broker cannot be asked.
    pub fn records(&self) -> Result<Vec<Record>> {
        let mut command = self.site.command(Path::new(PYTHON))?;
        command.arg("-B").arg(self.directory.join("kafka_reader.py")).arg(self.site.address().to_string());
        command.args([BROKER_PORT.to_string(), self.topic.clone(), self.partitions.to_string()]);
        let output = command.output().context("run the reader of records")?;
        ensure!(output.status.success(), "read records: {}", String::from_utf8_lossy(&output.stderr));
        let lines = str::from_utf8(&output.stdout)?.lines();
        lines.map(|line| serde_json::from_str(line).context("read a record")).collect()
    }
}

impl Record {
    /// The alerts in it.
    pub fn ids(&self) -> Vec<String> {
        self.value.as_deref().map(ids).unwrap_or_default()
    }
}

fn create(mut command: Command, broker: SocketAddrV4, topic: &str, partitions: u32) -> Result<()> {
    command.args(["topic", "create", topic]).arg(format!("--broker=tcp://{broker}"));
    command.arg(format!("--partitions={partitions}"));
    let output = command.output().context("run tansu")?;
    ensure!(output.status.success(), "create topic {topic}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

const PORT: u16 = 9092;
const BROKER_PORT: u16 = 9093;
/// The one that Debian's package of the client is for; there may be others on `PATH`.
const PYTHON: &str = "/usr/bin/python3";
