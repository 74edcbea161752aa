//! Whom a receiver lets in: takes an authority, gives what the receiver's server is told.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Result;

use crate::authority::{Authority, Holder};

/// Whom it lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Everybody, in plain text.
    Plain,
    /// Everybody, over TLS.
    Tls,
    /// Who has a certificate of the authority, over TLS.
    Mutual,
}

impl Guard {
    /// Makes the certificate for this address, and gives the two arguments that `guard.py` reads.
    pub(super) fn arguments(
        self,
        directory: &Path,
        authority: &Authority,
        address: Ipv4Addr,
    ) -> Result<[String; 2]> {
        if self == Self::Plain {
            return Ok([NONE.to_owned(), NONE.to_owned()]);
        }
        authority.certify(directory, CERTIFICATE, Holder::Address(address.into()))?;
        let shown = directory.join(CERTIFICATE).display().to_string();
        let asked =
            if self == Self::Mutual { authority.pem().display().to_string() } else { NONE.to_owned() };
        Ok([shown, asked])
    }
}

/// What `guard.py` needs beside the server that it is part of.
pub(super) const SOURCE: (&str, &str) = ("guard.py", include_str!("guard.py"));
const CERTIFICATE: &str = "server";
const NONE: &str = "-";
