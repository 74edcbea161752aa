//! Clients that are not ours: takes a command line, gives what they said.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use dnswall_tests::authority::Authority;
use dnswall_tests::pace::within;
use dnswall_tests::place;
use dnswall_tests::receiver::guard::Guard;
use dnswall_tests::receiver::http::Http;
use dnswall_tests::receiver::plan::Plan;
use serde_json::Value;
use tempfile::TempDir;

/// What a client said.
pub struct Said {
    /// Its exit code.
    pub code: i32,
    /// Its standard output.
    pub text: Vec<u8>,
    /// Its standard error.
    pub errors: String,
}

/// Runs a client with this on its standard input.
pub fn run(program: &str, arguments: &[&str], input: &[u8]) -> Result<Said> {
    let mut command = Command::new(place::on_path(program)?);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {program}"))?;
    let mut stdin = child.stdin.take().context("take its input")?;
    // It may end without having read it.
    let _ = stdin.write_all(input);
    drop(stdin);
    let output = child.wait_with_output().with_context(|| format!("wait for {program}"))?;
    let code = output.status.code().unwrap_or(-1);
    Ok(Said { code, text: output.stdout, errors: String::from_utf8_lossy(&output.stderr).into_owned() })
}

/// An answer to curl.
#[derive(Debug)]
pub struct Answer {
    /// curl's exit code.
    pub code: i32,
    /// The status; 0 without an answer.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("read {self:?}"))
    }
}

/// Posts a body.
pub fn curl(url: &str, more: &[&str], body: &[u8]) -> Result<Answer> {
    let plain = ["--silent", "--show-error", "--max-time", "10", "--data-binary", "@-"];
    let arguments = [&plain[..], &["--write-out", "\n%{http_code}"], more, &[url]].concat();
    let Said { code, mut text, errors } = run("curl", &arguments, body)?;
    let end = text.iter().rposition(|byte| *byte == b'\n').with_context(|| format!("curl: {errors}"))?;
    let status = str::from_utf8(&text[end + 1..])?.parse()?;
    text.truncate(end);
    Ok(Answer { code, status, body: text })
}

/// An HTTP receiver, with an authority, in a directory.
pub struct Scene {
    pub http: Http,
    pub authority: Authority,
    directory: TempDir,
}

impl Scene {
    pub fn set(guard: Guard) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let authority = Authority::make(directory.path())?;
        let http = Http::start(directory.path().join("http"), &authority, guard)?;
        Ok(Self { http, authority, directory })
    }

    /// With a plan.
    pub fn planned(plan: &Plan) -> Result<Self> {
        let mut scene = Self::set(Guard::Plain)?;
        scene.http.plan(plan)?;
        Ok(scene)
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Posts to a path.
    pub fn post(&self, path: &str, more: &[&str], body: &str) -> Result<Answer> {
        curl(&self.http.url(path), more, body.as_bytes())
    }

    /// The documents that it has.
    pub fn documents(&self) -> Result<Vec<String>> {
        Ok(self.http.taken()?.into_iter().filter_map(|taken| taken.document).collect())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if !thread::panicking() {
            assert_eq!(self.http.said(), "", "it has nothing to complain of");
        }
    }
}

/// Waits until it is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let until = Instant::now() + within(Duration::from_secs(10));
    while !is_so()? {
        ensure!(Instant::now() < until, "{what}: not within 10 s");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A path as an argument.
pub fn shown(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is text")
}

/// `NAME.pem` and `NAME.key` of a client.
pub fn client_certificate(authority: &Authority, directory: &Path) -> Result<(PathBuf, PathBuf)> {
    let holder = dnswall_tests::authority::Holder::Host("agent.example");
    let certificate = authority.certify(directory, "client", holder)?;
    if !certificate.pem.exists() {
        bail!("no certificate was made");
    }
    Ok((certificate.pem, certificate.key))
}
