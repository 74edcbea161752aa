//! An HTTP receiver: takes a plan, gives every request that it got and everything that it took.
//!
//! It is a webhook at `/hook`, a collector of Splunk's at `/services/collector/event`, a store of Elastic's at `/_bulk` and a
//! collector of OpenTelemetry's logs at `/v1/logs`.

use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use super::daemon::Daemon;
use super::guard::{self, Guard};
use super::id::ids;
use super::plan::Plan;
use super::site::Site;
use crate::authority::Authority;
use crate::place;

/// The receiver; it ends with this.
pub struct Http {
    directory: PathBuf,
    site: Site,
    guard: Guard,
    arguments: Vec<String>,
    plans: u64,
    daemon: Option<Daemon>,
}

/// A request, whatever became of it.
#[derive(Clone, Debug)]
pub struct Request {
    /// When it was read, in seconds since 1970.
    pub at_secs: f64,
    /// `POST` or another.
    pub method: String,
    /// Without what follows a question mark.
    pub path: String,
    /// What follows it.
    pub query: String,
    /// Names in small letters, and values.
    pub headers: Vec<(String, String)>,
    /// Without its compression; empty when it was not read to its end.
    pub body: Vec<u8>,
    /// The answer's; none when there was none.
    pub status: Option<u16>,
    /// The name in the client's certificate.
    pub client: Option<String>,
}

/// Something that it has: the webhook's body, Splunk's event, Elastic's document.
#[derive(Clone, Debug, Deserialize)]
pub struct Taken {
    /// When it was stored, in seconds since 1970.
    #[serde(rename = "at")]
    pub at_secs: f64,
    /// Where it was sent to.
    pub path: String,
    /// As it came; of OpenTelemetry's logs none, those are in the requests.
    pub document: Option<String>,
    /// Elastic's `_id`.
    pub id: Option<String>,
    /// Elastic's index.
    pub index: Option<String>,
    /// Splunk's channel.
    pub channel: Option<String>,
}

impl Http {
    /// Starts one in a directory of its own.
    ///
    /// # Errors
    /// When Python or openssl is missing, or it does not listen in time.
    pub fn start(directory: PathBuf, authority: &Authority, guard: Guard) -> Result<Self> {
        Self::start_at(Site::own(), directory, authority, guard)
    }

    /// Starts one elsewhere.
    ///
    /// # Errors
    /// See [`Http::start`].
    pub fn start_at(site: Site, directory: PathBuf, authority: &Authority, guard: Guard) -> Result<Self> {
        fs::create_dir_all(&directory)?;
        for (name, text) in SOURCES {
            fs::write(directory.join(name), text)?;
        }
        let path = |name: &str| directory.join(name).display().to_string();
        // It leaves no compiled files beside its own.
        let mut arguments = vec!["-B".to_owned(), path("http_server.py"), directory.display().to_string()];
        arguments.push(SocketAddrV4::new(site.address(), PORT).to_string());
        arguments.extend(guard.arguments(&directory, authority, site.address())?);
        let mut receiver = Self { directory, site, guard, arguments, plans: 0, daemon: None };
        receiver.plan(&Plan::default())?;
        receiver.resume()?;
        Ok(receiver)
    }

    /// Ends it, at once: what Splunk has not indexed by then is lost.
    pub fn stop(&mut self) {
        self.daemon = None;
    }

    /// Starts it again, at the port it had.
    ///
    /// # Errors
    /// When it does not listen in time.
    pub fn resume(&mut self) -> Result<()> {
        let mut command = self.site.command(&place::on_path("python3")?)?;
        command.args(&self.arguments);
        let mut daemon = Daemon::start(command, &self.directory.join("said"))?;
        daemon.await_ports(&[self.at()], &[]).context("start the HTTP receiver")?;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Where it listens.
    pub fn at(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.site.address(), PORT)
    }

    /// A URL of it.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.guard == Guard::Plain { "http" } else { "https" };
        format!("{scheme}://{}{path}", self.at())
    }

    /// What it does from its next request on.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn plan(&mut self, plan: &Plan) -> Result<()> {
        self.plans += 1;
        let mut value = serde_json::to_value(plan)?;
        value["serial"] = Value::from(self.plans);
        // Not half of it.
        let new = self.directory.join("plan.new");
        fs::write(&new, value.to_string())?;
        fs::rename(new, self.directory.join("plan.json")).context("write the receiver's plan")
    }

    /// Every request so far.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn requests(&self) -> Result<Vec<Request>> {
        lines_of(&self.directory, "request")?.into_iter().map(request).collect()
    }

    /// Everything that it has so far.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn taken(&self) -> Result<Vec<Taken>> {
        let lines = lines_of(&self.directory, "taken")?.into_iter();
        lines.map(|line| serde_json::from_value(line).context("read what was taken")).collect()
    }

    /// What it said to its standard error: empty, unless something is wrong with it.
    pub fn said(&self) -> String {
        fs::read_to_string(self.directory.join("said")).unwrap_or_default()
    }
}

impl Request {
    /// The value of a header, whose name is in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The `Authorization` header.
    pub fn authorization(&self) -> Option<&str> {
        self.header("authorization")
    }

    /// Whether it was answered with success.
    pub fn is_taken(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }

    /// The alerts in it.
    pub fn ids(&self) -> Vec<String> {
        ids(&String::from_utf8_lossy(&self.body))
    }
}

impl Taken {
    /// The alerts in it.
    pub fn ids(&self) -> Vec<String> {
        self.document.as_deref().map(ids).unwrap_or_default()
    }
}

fn lines_of(directory: &Path, kind: &str) -> Result<Vec<Value>> {
    // It is not there before the first request.
    let text = fs::read_to_string(directory.join("log.ndjson")).unwrap_or_default();
    let mut lines = Vec::new();
    // A last line without an end is being written.
    for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        let value: Value = serde_json::from_str(line).context("read the receiver's log")?;
        if value["kind"] == kind {
            lines.push(value);
        }
    }
    Ok(lines)
}

fn request(line: Value) -> Result<Request> {
    #[derive(Deserialize)]
    struct Line {
        at: f64,
        method: String,
        path: String,
        query: String,
        headers: Vec<(String, String)>,
        body: String,
        status: Option<u16>,
        client: Option<String>,
    }
    let Line { at, method, path, query, headers, body, status, client } =
        serde_json::from_value(line).context("read a request")?;
    let body = bytes_of(&body).context("read a request's body")?;
    Ok(Request { at_secs: at, method, path, query, headers, body, status, client })
}

/// Bytes that are written as hexadecimal digits.
fn bytes_of(text: &str) -> Result<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Ok(u8::from_str_radix(str::from_utf8(pair)?, 16)?)).collect()
}

const SOURCES: [(&str, &str); 6] = [
    guard::SOURCE,
    ("http_server.py", include_str!("http_server.py")),
    ("hook.py", include_str!("hook.py")),
    ("splunk.py", include_str!("splunk.py")),
    ("elastic.py", include_str!("elastic.py")),
    ("otlp.py", include_str!("otlp.py")),
];
const PORT: u16 = 8088;
