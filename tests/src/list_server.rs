//! A real https server of block lists, with a certificate of an authority that was made for the test.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dnswall_agent::demo::netns::Namespace;
use serde_json::{Value, json};

use crate::act::{Act, Order};
use crate::authority::{Authority, Certificate, Holder};
use crate::pace::within;
use crate::place;
use crate::process::Process;

/// The server; it ends with this.
pub struct ListServer {
    directory: PathBuf,
    address: IpAddr,
    port: u16,
    probe: PathBuf,
    netns: Option<PathBuf>,
    certificate: Option<Certificate>,
    process: Option<Process>,
}

/// Whose certificate a server shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown<'s> {
    /// One for its own address, of the authority.
    Good,
    /// One for this host.
    For(&'s str),
    /// None: plain http.
    None,
}

impl ListServer {
    /// Starts one at this address, in `netns` or here; `authority` certifies it.
    ///
    /// # Errors
    /// When Python or openssl is missing, or it does not listen in time.
    pub fn start(
        probe: &Path,
        directory: PathBuf,
        authority: &Authority,
        netns: Option<&Namespace>,
        address: IpAddr,
        shown: Shown<'_>,
    ) -> Result<Self> {
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("server.py"), include_str!("list_server.py"))?;
        let holder = match shown {
            Shown::Good => Some(Holder::Address(address)),
            Shown::For(host) => Some(Holder::Host(host)),
            Shown::None => None,
        };
        let certificate = holder.map(|holder| authority.certify(&directory, "server", holder)).transpose()?;
        let (probe, netns) = (probe.to_owned(), netns.map(Namespace::path));
        let mut server = Self { directory, address, port: 0, probe, netns, certificate, process: None };
        server.plan(&json!({"status": 404}))?;
        server.body("")?;
        server.resume()?;
        Ok(server)
    }

    /// Ends it.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts it again, at the port it had.
    ///
    /// # Errors
    /// When it does not listen in time.
    pub fn resume(&mut self) -> Result<()> {
        let port = self.directory.join("port");
        // It is not there the first time.
        let _ = fs::remove_file(&port);
        let certificate = self.certificate.as_ref().map(|certificate| certificate.pem.with_extension(""));
        let certificate = certificate.map_or("-".to_owned(), |path| path.display().to_string());
        let arguments = vec![
            self.directory.join("server.py").display().to_string(),
            self.directory.display().to_string(),
            format!("{}:{}", self.address, self.port),
            certificate,
        ];
        let act = Act::Launch { program: place::on_path("python3")?, arguments };
        let order = Order { cgroup: None, netns: self.netns.clone(), uid: 0, maker: None, wait_ms: 0, act };
        self.process = Some(Process::spawn(&self.probe, &order)?);
        let until = Instant::now() + within(READY_WITHIN);
        while Instant::now() < until {
            if let Ok(text) = fs::read_to_string(&port) {
                self.port = text.parse().context("read the server's port")?;
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        bail!("the server of lists does not listen after {READY_WITHIN:?}")
    }

    /// A URL of it.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://{}:{}{path}", self.address, self.port)
    }

    /// What it does from now on: see `list_server.py`. A key that is a path holds for that path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn plan(&self, plan: &Value) -> Result<()> {
        // Not half of it.
        let new = self.directory.join("plan.new");
        fs::write(&new, plan.to_string())?;
        fs::rename(new, self.directory.join("plan.json")).context("write the server's plan")
    }

    /// The list that it has.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn body(&self, text: &str) -> Result<()> {
        fs::write(self.directory.join("body"), text).context("write the server's list")
    }

    /// The same with a plan.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn serve(&self, text: &str, plan: &Value) -> Result<()> {
        self.body(text)?;
        self.plan(plan)
    }

    /// Whether it sent a half of what it was asked for.
    pub fn has_sent_half(&self) -> bool {
        self.directory.join("half-sent").exists()
    }

    /// What it was asked so far.
    ///
    /// # Errors
    /// When that cannot be read.
    pub fn requests(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(self.directory.join("requests.ndjson")).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).context("read what the server was asked"))
            .collect()
    }
}

const READY_WITHIN: Duration = Duration::from_secs(20);
