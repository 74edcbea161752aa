//! Takes what this host shows of itself in TLS, gives the same with a note of whether the server asked for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};

/// What is shown, to one server.
#[derive(Debug)]
pub(super) struct Shown {
    own: Arc<dyn ResolvesClientCert>,
    was_asked_for: AtomicBool,
}

impl Shown {
    /// Stands between the configuration and what it would show.
    pub(super) fn before(config: &mut ClientConfig) -> Arc<Self> {
        let own = Arc::clone(&config.client_auth_cert_resolver);
        let shown = Arc::new(Self { own, was_asked_for: AtomicBool::new(false) });
        config.client_auth_cert_resolver = Arc::clone(&shown) as Arc<dyn ResolvesClientCert>;
        shown
    }

    /// Whether the server asked, be there something to show or not.
    pub(super) fn was_asked_for(&self) -> bool {
        self.was_asked_for.load(Ordering::Relaxed)
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, issuers: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.was_asked_for.store(true, Ordering::Relaxed);
        self.own.resolve(issuers, schemes)
    }

    fn only_raw_public_keys(&self) -> bool {
        self.own.only_raw_public_keys()
    }

    fn has_certs(&self) -> bool {
        self.own.has_certs()
    }
}
