//! An authority for one test: takes a directory and names, gives certificates that openssl made.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::place;

/// Who certifies: `ca.pem` and `ca.key` in a directory.
#[derive(Clone, Debug)]
pub struct Authority {
    pem: PathBuf,
    key: PathBuf,
}

/// What one can show: `NAME.pem` and `NAME.key`.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate.
    pub pem: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Whom a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder<'h> {
    /// Whoever has this address.
    Address(IpAddr),
    /// Whoever has this name.
    Host(&'h str),
}

impl Authority {
    /// A new one, in this directory.
    ///
    /// # Errors
    /// When openssl is missing or fails.
    pub fn make(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory)?;
        let (key, pem) = (directory.join("ca.key"), directory.join("ca.pem"));
        openssl(&["req", "-x509", "-nodes", "-days", DAYS, "-subj", "/CN=authority of a test"], |command| {
            command.args(EC).arg("-keyout").arg(&key).arg("-out").arg(&pem);
        })?;
        Ok(Self { pem, key })
    }

    /// The certificate that others trust it by.
    pub fn pem(&self) -> &Path {
        &self.pem
    }

    /// Certifies `holder`, and writes files of this name into the directory.
    ///
    /// # Errors
    /// When openssl fails.
    pub fn certify(&self, directory: &Path, name: &str, holder: Holder<'_>) -> Result<Certificate> {
        let path = directory.join(name);
        let [key, request, pem, names] = ["key", "csr", "pem", "cnf"].map(|end| path.with_extension(end));
        let (common, alternative) = match holder {
            Holder::Address(address) => (address.to_string(), format!("IP:{address}")),
            Holder::Host(host) => (host.to_owned(), format!("DNS:{host}")),
        };
        fs::write(&names, format!("subjectAltName={alternative}\nbasicConstraints=CA:FALSE\n"))?;
        openssl(&["req", "-nodes", "-subj", &format!("/CN={common}")], |command| {
            command.args(EC).arg("-keyout").arg(&key).arg("-out").arg(&request);
        })?;
        openssl(&["x509", "-req", "-days", DAYS, "-CAcreateserial"], |command| {
            command.arg("-in").arg(&request).arg("-CA").arg(&self.pem).arg("-CAkey").arg(&self.key);
            command.arg("-extfile").arg(&names).arg("-out").arg(&pem);
        })?;
        Ok(Certificate { pem, key })
    }
}

fn openssl(arguments: &[&str], more: impl FnOnce(&mut Command)) -> Result<()> {
    let mut command = Command::new(place::on_path("openssl")?);
    command.args(arguments);
    more(&mut command);
    let output = command.output().context("run openssl")?;
    ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

const DAYS: &str = "2";
const EC: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];
