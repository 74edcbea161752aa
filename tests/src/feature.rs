//! What a case needs of the kernel. Whether it is there is asked of the kernel, outside of any wall.
//!
//! Where it is missing a case says so instead of passing: it must fail at the step and with the error by which a kernel
//! tells that it lacks the feature. On the machines that run `cargo xtask test` everything must be there; only where
//! `DNSWALL_TEST_LACKING` is set (`cargo xtask vm` does, and counts these cases) may something be missing.

use std::io::Error;

use anyhow::{Context as _, Result, bail};
use aya::util::KernelVersion;
use io_uring::{IoUring, Probe, opcode};
use socket2::{Domain, Protocol, Socket, Type};

use crate::act::Report;

/// Something that not every kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Multipath TCP: from 5.6, where it is configured (Debian's 5.10 is without).
    Multipath,
    /// UDP-Lite: 7.2 no longer has it, 6.18 did.
    UdpLite,
    /// Sockets that io_uring makes: from 5.19.
    UringSocket,
    /// A network namespace's own limit of what its sockets keep (`net.core.optmem_max`): from 6.8.
    OwnSocketMemory,
    /// File systems of a process's own (FUSE), where the module is.
    Fuse,
}

impl Feature {
    /// For a person.
    pub fn name(self) -> &'static str {
        match self {
            Self::Multipath => "multipath TCP",
            Self::UdpLite => "UDP-Lite",
            Self::UringSocket => "sockets of io_uring's",
            Self::OwnSocketMemory => "limits of socket memory for each namespace",
            Self::Fuse => "FUSE",
        }
    }

    /// Whether this kernel has it.
    ///
    /// # Errors
    /// When it is missing where everything has to be there, or the kernel says something else than yes or no.
    pub fn is_here(self) -> Result<bool> {
        let asked = match self {
            Self::Multipath => makes(Type::STREAM, Protocol::MPTCP),
            Self::UdpLite => makes(Type::DGRAM, Protocol::from(libc::IPPROTO_UDPLITE)),
            Self::UringSocket => ring_makes_sockets(),
            Self::OwnSocketMemory => KernelVersion::current()
                .map(|version| version >= KernelVersion::new(6, 8, 0))
                .map_err(Error::other),
            Self::Fuse => Ok(std::fs::File::open("/dev/fuse").is_ok()),
        };
        let is_here = asked.with_context(|| format!("ask the kernel for {}", self.name()))?;
        if !is_here && std::env::var_os(VARIABLE).is_none() {
            bail!("this kernel has no {}, which a case is about", self.name());
        }
        Ok(is_here)
    }

    /// The step at which a kernel tells that it does not know it, and the error.
    fn told_by(self) -> (&'static str, i32) {
        match self {
            Self::Multipath | Self::UdpLite => ("socket", LACKING),
            Self::UringSocket => ("socket", libc::EINVAL),
            Self::OwnSocketMemory => ("disguise", libc::ENOENT),
            Self::Fuse => ("mount", libc::ENOENT),
        }
    }

    /// What is wrong with what a probe saw on a kernel without it.
    pub fn lacking(self, report: &Report) -> Option<String> {
        let (step, errno) = self.told_by();
        let told = !report.ok && report.step.as_deref() == Some(step) && report.errno == Some(errno);
        (!told).then(|| {
            format!(
                "without {} it should fail at {step} with {}: {report:?}",
                self.name(),
                Error::from_raw_os_error(errno)
            )
        })
    }
}

/// Whether the kernel copies what comes from a pipe into a datagram, so that nobody can change it any more. Over IPv6 all before 6.5 do; over
/// IPv4 later stable releases of 6.1 (`udp_sendpage` asks for `MSG_SPLICE_PAGES`, of which nothing knows there), and neither 5.10 nor 6.5.
///
/// # Errors
/// When the kernel does not say its version.
pub fn copies_from_pipes(over_ipv6: bool) -> Result<bool> {
    let version = KernelVersion::current().context("ask for the kernel's version")?;
    let first = if over_ipv6 { KernelVersion::new(0, 0, 0) } else { KernelVersion::new(6, 1, 0) };
    Ok((first..KernelVersion::new(6, 5, 0)).contains(&version))
}

fn makes(kind: Type, protocol: Protocol) -> std::io::Result<bool> {
    match Socket::new(Domain::IPV4, kind, Some(protocol)) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(LACKING) => Ok(false),
        Err(error) => Err(error),
    }
}

fn ring_makes_sockets() -> std::io::Result<bool> {
    let mut probe = Probe::new();
    IoUring::new(1)?.submitter().register_probe(&mut probe)?;
    Ok(probe.is_supported(opcode::Socket::CODE))
}

/// What `socket()` says of a protocol that the kernel does not know.
const LACKING: i32 = libc::EPROTONOSUPPORT;
const VARIABLE: &str = "DNSWALL_TEST_LACKING";
