//! A real Prometheus that scrapes an agent, its `promtool`, and what either says.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::pace::within;
use crate::place;

/// A server of time series; it ends with this.
pub struct Prometheus {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Prometheus {
    /// Starts one that scrapes `target` every second, as job `dnswall`, and goes by these rules.
    ///
    /// # Errors
    /// When the program is missing, or does not answer in time.
    pub fn start(directory: &Path, target: SocketAddr, rules: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let config = directory.join("prometheus.yml");
        let text = format!(
            "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\nrule_files: [{rules:?}]\n\
             scrape_configs:\n  - job_name: dnswall\n    static_configs:\n      - targets: [\"{target}\"]\n"
        );
        fs::write(&config, text).context("write prometheus.yml")?;
        let (address, log) = (free_address()?, directory.join("log"));
        let written = File::create(&log).context("make the log")?;
        let child = Command::new(place::on_path("prometheus")?)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(written.try_clone()?)
            .stderr(written)
            .spawn()
            .context("start prometheus")?;
        let mut server = Self { child, address, log };
        let until = Instant::now() + within(READY_WITHIN);
        while !get(server.address, "/-/ready").is_ok_and(|(code, _)| code == 200) {
            let ended = server.child.try_wait()?;
            ensure!(ended.is_none() && Instant::now() < until, "{ended:?}: {}", server.log());
            thread::sleep(EVERY);
        }
        Ok(server)
    }

    /// Where it shows its pages.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What an expression gives now: labels and values.
    ///
    /// # Errors
    /// When it is not an expression.
    pub fn query(&self, expression: &str) -> Result<Vec<(Value, f64)>> {
        let (code, text) = get(self.address, &format!("/api/v1/query?query={}", encoded(expression)))?;
        let answer: Value = serde_json::from_str(&text).with_context(|| format!("read {text}"))?;
        ensure!(code == 200 && answer["status"] == "success", "{expression}: {code} {}", answer["error"]);
        let result = answer["data"]["result"].as_array().context("a result")?;
        result
            .iter()
            .map(|one| {
                let value = one["value"][1].as_str().and_then(|value| value.parse().ok());
                Ok((one["metric"].clone(), value.with_context(|| format!("{expression}: {one}"))?))
            })
            .collect()
    }

    /// The one value that an expression gives, once it is what is wanted.
    ///
    /// # Errors
    /// When it never is.
    pub fn wait_for(&self, expression: &str, wanted: impl Fn(f64) -> bool) -> Result<f64> {
        let until = Instant::now() + within(SCRAPED_WITHIN);
        loop {
            let seen = self.query(expression)?;
            if let [(_, value)] = seen[..]
                && wanted(value)
            {
                return Ok(value);
            }
            ensure!(Instant::now() < until, "{expression} is {seen:?}\n{}", self.log());
            thread::sleep(EVERY);
        }
    }

    /// What it wrote, for a person who reads a failure.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs promtool, and gives what it said.
///
/// # Errors
/// When it finds something wrong.
pub fn promtool(directory: &Path, arguments: &[&str], input: &str) -> Result<String> {
    let mut child = Command::new(place::on_path("promtool")?)
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start promtool")?;
    child.stdin.take().context("promtool's input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output().context("wait for promtool")?;
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    if !output.status.success() {
        bail!("promtool {arguments:?}: {}: {said}", output.status);
    }
    Ok(said)
}

/// Asks a path, and gives the answer's code and body.
///
/// # Errors
/// When nobody answers.
pub fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let (head, body) = ask(address, path, "")?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((code.with_context(|| format!("read {head:?}"))?, body))
}

/// Waits until a path answers so, and gives its body: an agent that has started may take a moment to listen.
///
/// # Errors
/// When it never does.
pub fn wait_for(target: SocketAddr, path: &str, wanted: impl Fn(u16, &str) -> bool) -> Result<String> {
    let until = Instant::now() + within(SCRAPED_WITHIN);
    loop {
        let said = get(target, path);
        if let Ok((code, text)) = &said
            && wanted(*code, text)
        {
            return Ok(text.clone());
        }
        ensure!(Instant::now() < until, "{path}: {said:?}");
        thread::sleep(EVERY);
    }
}

/// The same as [`get`] with more headers, each with its line's end; gives the answer's head and body.
///
/// # Errors
/// When nobody answers.
pub fn ask(address: SocketAddr, path: &str, headers: &str) -> Result<(String, String)> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_WITHIN).context("connect")?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    // Of version 1.0, so that the body comes as it is.
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {address}\r\n{headers}\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("read the answer to {path}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("read {answer:?}"))?;
    Ok((head.to_owned(), body.to_owned()))
}

/// An address of this host's loopback that nobody listens at.
///
/// # Errors
/// The kernel's.
pub fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?.local_addr()?)
}

fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

const EVERY: Duration = Duration::from_millis(100);
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
const READY_WITHIN: Duration = Duration::from_secs(60);
const SCRAPED_WITHIN: Duration = Duration::from_secs(30);
