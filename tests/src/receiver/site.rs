//! Where a receiver is: takes nothing, or a network namespace, gives an address there and commands that run there.
//!
//! By itself each receiver gets a loopback address that no other one has. So nobody can take a port of it while it is
//! stopped: what is sent from loopback has 127.0.0.1.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::Result;
use dnswall_agent::demo::netns::Namespace;

use crate::place;

/// An address, and the network in which it is one.
#[derive(Clone, Debug)]
pub struct Site {
    address: Ipv4Addr,
    netns: Option<PathBuf>,
}

impl Site {
    /// A loopback address of this network: of this process by its lower 16 bits, of this receiver by its number.
    ///
    /// # Panics
    /// When this process has had [`RECEIVERS_MAX`].
    pub fn own() -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        assert!(number < RECEIVERS_MAX, "more than {RECEIVERS_MAX} receivers in one process");
        let [.., high, low] = process::id().to_be_bytes();
        Self { address: Ipv4Addr::new(127, FIRST + number, high, low), netns: None }
    }

    /// An address of another network, which must have it.
    pub fn inside(netns: &Namespace, address: Ipv4Addr) -> Self {
        Self { address, netns: Some(netns.path()) }
    }

    /// The address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A command that runs in this network, and ends with the thread that starts it.
    pub(super) fn command(&self, program: &Path) -> Result<Command> {
        // A test that takes too long is killed, and drops nothing.
        let mut command = Command::new(place::on_path("setpriv")?);
        command.args(["--pdeathsig", "KILL", "--"]);
        if let Some(netns) = &self.netns {
            command.arg(place::on_path("nsenter")?).arg(format!("--net={}", netns.display())).arg("--");
        }
        command.arg(program);
        Ok(command)
    }
}

static COUNT: AtomicU8 = AtomicU8::new(0);
/// 127.0.0.1 and what others are fond of lie before it.
const FIRST: u8 = 100;
const RECEIVERS_MAX: u8 = 128;
