//! Whom servers are known by, and who this host is to them: takes names of files, gives what TLS needs. The files are read
//! each time, so that a certificate may be renewed while the agent runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use crate::host::HostRoot;

/// Whose certificates are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// A file of authorities whose certificates are good, beside the host's.
    pub ca: Option<PathBuf>,
    /// Whose authorities are good where this system has none: the host's, of an agent in a container.
    pub host: HostRoot,
}

/// Who this host is to a server that asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// File of the certificate, and of those that lead from it to an authority (PEM).
    pub certificate: PathBuf,
    /// File of its private key (PEM).
    pub key: PathBuf,
}

impl Trust {
    /// For requests over HTTP.
    ///
    /// # Errors
    /// Which file cannot be read, for people.
    pub fn for_http(&self, identity: Option<&Identity>) -> Result<TlsConfig, String> {
        let authorities = self.authorities()?;
        let roots: Vec<Certificate<'static>> =
            authorities.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        let own = identity.map(Identity::for_http).transpose()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Ok(TlsConfig::builder()
            .root_certs(RootCerts::from(roots))
            .client_cert(own)
            .unversioned_rustls_crypto_provider(provider)
            .build())
    }

    /// For any other protocol over TLS.
    ///
    /// # Errors
    /// Which file cannot be read, for people.
    pub fn for_tls(&self, identity: Option<&Identity>) -> Result<rustls::ClientConfig, String> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(self.authorities()?);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?
            .with_root_certificates(roots);
        match identity.map(Identity::for_tls).transpose()? {
            None => Ok(config.with_no_client_auth()),
            Some((chain, key)) => config
                .with_client_auth_cert(chain, key)
                .map_err(|error| format!("use `certificate` and `key`: {error}")),
        }
    }

    /// The system's, else the host's; and those of the file.
    fn authorities(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let mut found = rustls_native_certs::load_native_certs().certs;
        if found.is_empty() && !self.host.is_ours() {
            let bundles =
                BUNDLES.iter().filter_map(|path| self.host.read(Path::new(path), BUNDLE_BYTES_MAX).ok());
            let bundle = bundles.into_iter().next().unwrap_or_default();
            found.extend(CertificateDer::pem_slice_iter(&bundle).flatten());
        }
        if let Some(path) = &self.ca {
            let unreadable = |error| format!("read `ca` {}: {error}", path.display());
            found.extend(certificates(path).map_err(unreadable)?);
        }
        if found.is_empty() {
            return Err("this host has no certificates of authorities to know a server by: install them (ca-certificates), \
                        or name a file of them as `ca` in agent.toml"
                .to_owned());
        }
        Ok(found)
    }
}

impl Identity {
    fn for_http(&self) -> Result<ClientCert, String> {
        let chain: Vec<_> = self.chain()?.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        let pem = std::fs::read(&self.key)
            .map_err(|error| format!("read `key` {}: {error}", self.key.display()))?;
        let key = PrivateKey::from_pem(&pem).map_err(|_| self.no_key())?;
        Ok(ClientCert::new_with_certs(&chain, key))
    }

    fn for_tls(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|_| self.no_key())?;
        Ok((self.chain()?, key))
    }

    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let path = &self.certificate;
        certificates(path).map_err(|error| format!("read `certificate` {}: {error}", path.display()))
    }

    /// What is in the file stays out of the words.
    fn no_key(&self) -> String {
        format!("read `key` {}: it has no private key, or may not be read", self.key.display())
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, rustls::pki_types::pem::Error> {
    CertificateDer::pem_file_iter(path).and_then(Iterator::collect)
}

/// Where distributions keep them all in one file: Debian and Alpine, Red Hat, SUSE.
const BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];
/// Bytes of such a file: it has some two hundred thousand.
const BUNDLE_BYTES_MAX: u64 = 8 << 20;
