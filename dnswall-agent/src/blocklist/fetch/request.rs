//! One question to a server: takes a URL and what is known of its list, gives its answer, the body of it in a file.
//!
//! All of it is bounded in time, by one limit for everything and a shorter one for each silence.

use std::fs::File;
use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode, header};

use super::body::{Body, Encoding, Miss};
use crate::remote::{ServerUrl, Trust, http_words};

/// Redirects that are followed, with https.
const REDIRECTS_MAX: u32 = 5;
/// Bytes of what a server calls its version.
const VALIDATOR_BYTES_MAX: usize = 256;
/// How long a connection may take, and each wait for something that was not there yet.
const STILL: Duration = Duration::from_secs(20);

/// How servers are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Whose certificates are good.
    pub trust: Trust,
    /// How long one list may take, redirects and body included.
    pub timeout: Duration,
}

/// What the server calls the version that is here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    /// `ETag`
    pub etag: Option<String>,
    /// `Last-Modified`
    pub last_modified: Option<String>,
}

/// What it answers.
#[derive(Debug)]
pub enum Answer {
    /// The version that is here is still the one.
    Same,
    /// A version, whole.
    Body {
        /// What it calls it.
        validators: Validators,
        /// Of the body as it was sent, hexadecimal.
        sha256: String,
        /// How long that is.
        bytes: u64,
    },
}

/// Asks for a list; its body goes into `file`.
///
/// # Errors
/// See [`Miss`].
pub fn ask(
    url: &ServerUrl,
    asked: &Asked,
    known: &Validators,
    file: &mut File,
    until: Instant,
) -> Result<Answer, Miss> {
    let left = asked.timeout.min(until.saturating_duration_since(Instant::now()));
    if left.is_zero() {
        return Err(Miss::Failed("there was no time left for it".to_owned()));
    }
    let agent = client(url, asked, left)?;
    let mut request = agent.get(url.secret()).header(header::ACCEPT_ENCODING, "gzip");
    if let Some(etag) = &known.etag {
        request = request.header(header::IF_NONE_MATCH, etag);
    }
    if let Some(date) = &known.last_modified {
        request = request.header(header::IF_MODIFIED_SINCE, date);
    }
    let response = request.call().map_err(|error| http_words(&error, left))?;
    let is_conditional = known.etag.is_some() || known.last_modified.is_some();
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED if is_conditional => return Ok(Answer::Same),
        other if other.is_redirection() && other != StatusCode::NOT_MODIFIED => {
            let why = format!("the server redirects ({other}), which is not followed from plain http");
            return Err(Miss::Failed(why));
        }
        other => return Err(Miss::Failed(format!("the server answers {other}"))),
    }
    let encoding = Encoding::of(response.headers())?;
    let validators = Validators {
        etag: validator(response.headers(), &header::ETAG),
        last_modified: validator(response.headers(), &header::LAST_MODIFIED),
    };
    let mut body = Body::new(file, encoding);
    let explain = |error| http_words(&ureq::Error::from(error), left);
    body.copy(response.into_body().into_reader(), &explain)?;
    let (sha256, bytes) = body.finish()?;
    Ok(Answer::Body { validators, sha256, bytes })
}

fn client(url: &ServerUrl, asked: &Asked, left: Duration) -> Result<ureq::Agent, String> {
    let still = STILL.min(left);
    let mut config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .https_only(url.is_encrypted())
        .max_redirects(if url.is_encrypted() { REDIRECTS_MAX } else { 0 })
        .user_agent(concat!("dnswall/", env!("CARGO_PKG_VERSION")))
        .timeout_global(Some(left))
        .timeout_connect(Some(still))
        .timeout_per_read(Some(still))
        .max_idle_connections(0);
    if url.is_here() {
        config = config.proxy(None);
    }
    if url.is_encrypted() {
        config = config.tls_config(asked.trust.for_http(None)?);
    }
    Ok(config.build().new_agent())
}

/// What a server calls its version, if it can be said back to it.
fn validator(headers: &HeaderMap, name: &header::HeaderName) -> Option<String> {
    let text = headers.get(name)?.to_str().ok()?;
    (!text.is_empty() && text.len() <= VALIDATOR_BYTES_MAX).then(|| text.to_owned())
}
