//! One question to a server: takes a URL and what is known of its list, gives its answer, the body of it in a file.
//!
//! All of it is bounded in time, by one limit for everything and a shorter one for each silence.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode, header};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::super::url::ListUrl;
use super::body::{Body, Encoding, Miss};
use crate::host::HostRoot;

/// Redirects that are followed, with https.
const REDIRECTS_MAX: u32 = 5;
/// Bytes of what a server calls its version.
const VALIDATOR_BYTES_MAX: usize = 256;
/// How long a connection may take, and each wait for something that was not there yet.
const STILL: Duration = Duration::from_secs(20);

/// How servers are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// A file of authorities whose certificates are good, beside the host's.
    pub ca: Option<PathBuf>,
    /// How long one list may take, redirects and body included.
    pub timeout: Duration,
    /// Whose authorities are good where this system has none: the host's, of an agent in a container.
    pub host: HostRoot,
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
    url: &ListUrl,
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
    let response = request.call().map_err(|error| words(&error, left))?;
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
    let explain = |error| words(&ureq::Error::from(error), left);
    body.copy(response.into_body().into_reader(), &explain)?;
    let (sha256, bytes) = body.finish()?;
    Ok(Answer::Body { validators, sha256, bytes })
}

fn client(url: &ListUrl, asked: &Asked, left: Duration) -> Result<ureq::Agent, String> {
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
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let roots = RootCerts::from(authorities(asked)?);
        let tls = TlsConfig::builder().root_certs(roots).unversioned_rustls_crypto_provider(provider);
        config = config.tls_config(tls.build());
    }
    Ok(config.build().new_agent())
}

/// The system's, else the host's; and those of the file.
fn authorities(asked: &Asked) -> Result<Vec<Certificate<'static>>, String> {
    let mut found = rustls_native_certs::load_native_certs().certs;
    if found.is_empty() && !asked.host.is_ours() {
        let bundles =
            BUNDLES.iter().filter_map(|path| asked.host.read(Path::new(path), BUNDLE_BYTES_MAX).ok());
        let bundle = bundles.into_iter().next().unwrap_or_default();
        found.extend(CertificateDer::pem_slice_iter(&bundle).flatten());
    }
    if let Some(path) = &asked.ca {
        let unreadable = |error| format!("read `ca` {}: {error}", path.display());
        let file = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        found.extend(file.map_err(unreadable)?);
    }
    if found.is_empty() {
        return Err("this host has no certificates of authorities to know a server by: install them (ca-certificates), \
                    or name a file as `ca` in [lists] of agent.toml"
            .to_owned());
    }
    Ok(found.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect())
}

/// Where distributions keep them all in one file: Debian and Alpine, Red Hat, SUSE.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];
/// Bytes of such a file: it has some two hundred thousand.
const BUNDLE_BYTES_MAX: u64 = 8 << 20;

/// What a server calls its version, if it can be said back to it.
fn validator(headers: &HeaderMap, name: &header::HeaderName) -> Option<String> {
    let text = headers.get(name)?.to_str().ok()?;
    (!text.is_empty() && text.len() <= VALIDATOR_BYTES_MAX).then(|| text.to_owned())
}

/// Why there is no answer. Errors that would show a URL do not.
fn words(error: &ureq::Error, left: Duration) -> String {
    match error {
        ureq::Error::Io(error) => io_words(error),
        ureq::Error::Timeout(ureq::Timeout::Global | ureq::Timeout::PerCall | ureq::Timeout::RecvBody) => {
            format!("it was not here within {} s", left.as_secs_f32().ceil())
        }
        ureq::Error::Timeout(_) => "the server keeps silent".to_owned(),
        ureq::Error::HostNotFound => "its host has no address".to_owned(),
        ureq::Error::RequireHttpsOnly(_) => "it redirects to where it would come without https".to_owned(),
        ureq::Error::TooManyRedirects => "it redirects too often, or without https".to_owned(),
        ureq::Error::BadUri(_) | ureq::Error::RedirectFailed => "it redirects to what is no URL".to_owned(),
        ureq::Error::Rustls(error) => format!("TLS: {error}"),
        ureq::Error::ConnectProxyFailed(_) => "the proxy does not connect".to_owned(),
        other => other.to_string(),
    }
}

fn io_words(error: &io::Error) -> String {
    if error.raw_os_error() == Some(libc::EPERM) {
        return "this host does not let the agent go there (EPERM): the policy needs a rule for dnswall.service and the \
                list's host"
            .to_owned();
    }
    let inner = error.get_ref();
    if let Some(tls) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        return format!("TLS: {tls}");
    }
    if let Some(wrapped) = inner.and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
        return words(wrapped, Duration::ZERO);
    }
    let said = error.to_string();
    match said.strip_prefix("failed to lookup address information: ") {
        Some(why) => format!(
            "its host's name cannot be looked up: {why} (may dnswall.service ask the resolver? `dnswall events` has what \
             was refused)"
        ),
        None => said,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_is_named_when_it_refuses() {
        let said = words(&ureq::Error::Io(io::Error::from_raw_os_error(libc::EPERM)), Duration::ZERO);
        assert!(said.contains("EPERM") && said.contains("dnswall.service"), "{said}");
    }
}
