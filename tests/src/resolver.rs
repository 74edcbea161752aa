//! Real resolvers: dnsmasq at the far side (every resolver there is) or inside the wall, unbound inside.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use dnswall_agent::demo::netns::Namespace;

use crate::act::{Act, Order};
use crate::pace::within;
use crate::probe::dns;
use crate::process::Process;

/// The resolver that policies allow.
pub const RESOLVER: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 253));
/// The IPv6 resolver that policies allow.
pub const RESOLVER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x253));
/// A resolver that no policy allows.
pub const FOREIGN: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 53));
/// An IPv6 resolver that no policy allows.
pub const FOREIGN_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53));
/// Another one, which some policies allow to some.
pub const SECOND: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 53));
/// What every name's address is.
pub const ANSWER: &str = "192.0.2.80";

/// A running dnsmasq.
pub struct Dnsmasq {
    _process: Process,
}

impl Dnsmasq {
    /// Starts one in `netns` (and `cgroup`) that answers at these addresses, and waits until it does.
    ///
    /// # Errors
    /// When dnsmasq is missing or does not answer.
    pub fn start(
        probe: &Path,
        netns: &Namespace,
        cgroup: Option<PathBuf>,
        addresses: &[IpAddr],
    ) -> Result<Self> {
        Self::start_with(probe, netns, cgroup, addresses, format!("--address=/#/{ANSWER}"))
    }

    /// Starts one that asks another in turn.
    ///
    /// # Errors
    /// See [`Dnsmasq::start`].
    pub fn forward(
        probe: &Path,
        netns: &Namespace,
        cgroup: Option<PathBuf>,
        addresses: &[IpAddr],
        to: IpAddr,
    ) -> Result<Self> {
        Self::start_with(probe, netns, cgroup, addresses, format!("--server={to}"))
    }

    fn start_with(
        probe: &Path,
        netns: &Namespace,
        cgroup: Option<PathBuf>,
        addresses: &[IpAddr],
        option: String,
    ) -> Result<Self> {
        let program = PathBuf::from(DNSMASQ);
        if !program.is_file() {
            bail!("{DNSMASQ} does not exist: install dnsmasq-base (cargo xtask test does)");
        }
        // --user: with another one it would lose the signal that ends it with the test.
        let mut arguments: Vec<String> =
            ["--keep-in-foreground", "--user=root", "--bind-interfaces", "--no-resolv"]
                .iter()
                .chain(&["--no-hosts", "--conf-file=/dev/null", "--pid-file=", "--log-facility=-"])
                .map(ToString::to_string)
                .collect();
        arguments.push(option);
        arguments.extend(addresses.iter().map(|address| format!("--listen-address={address}")));
        let act = Act::Launch { program, arguments };
        let order = Order { cgroup, netns: Some(netns.path()), uid: 0, maker: None, wait_ms: 0, act };
        let process = Process::spawn(probe, &order)?;
        for address in addresses {
            wait_for_answer(netns, *address).with_context(|| format!("wait for dnsmasq at {address}"))?;
        }
        Ok(Self { _process: process })
    }
}

/// A running unbound.
pub struct Unbound {
    _process: Process,
}

impl Unbound {
    /// Starts one in `netns` and `cgroup` that answers at `at`, keeps what it was answered, and asks `to` in turn; its files are in
    /// `directory`.
    ///
    /// # Errors
    /// When unbound is missing or does not answer.
    pub fn forward(
        probe: &Path,
        netns: &Namespace,
        cgroup: Option<PathBuf>,
        directory: &Path,
        at: IpAddr,
        to: IpAddr,
    ) -> Result<Self> {
        let program = PathBuf::from(UNBOUND);
        if !program.is_file() {
            bail!("{UNBOUND} does not exist: install unbound (cargo xtask test does)");
        }
        let config = format!(
            "server:\n interface: {at}\n do-daemonize: no\n chroot: \"\"\n username: \"\"\n pidfile: \"\"\n \
             use-syslog: no\n directory: {directory:?}\n module-config: \"iterator\"\n do-not-query-localhost: no\n \
             num-threads: 1\nforward-zone:\n name: \".\"\n forward-addr: {to}\nremote-control:\n control-enable: no\n"
        );
        let path = directory.join("unbound.conf");
        fs::write(&path, config).context("write unbound.conf")?;
        let arguments = vec!["-c".to_owned(), path.display().to_string()];
        let act = Act::Launch { program, arguments };
        let order = Order { cgroup, netns: Some(netns.path()), uid: 0, maker: None, wait_ms: 0, act };
        let process = Process::spawn(probe, &order)?;
        wait_for_answer(netns, at).with_context(|| format!("wait for unbound at {at}"))?;
        Ok(Self { _process: process })
    }
}

fn wait_for_answer(netns: &Namespace, address: IpAddr) -> Result<()> {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = netns.run(|| UdpSocket::bind(any))?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let until = Instant::now() + within(READY_WITHIN);
    while Instant::now() < until {
        // Refused by ICMP until it listens.
        let sent = socket.send_to(&dns::question("ready.example"), (address, 53));
        if sent.is_ok() && socket.recv(&mut [0; 512]).is_ok() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(10));
    }
    bail!("no answer")
}

const READY_WITHIN: Duration = Duration::from_secs(10);
const DNSMASQ: &str = "/usr/sbin/dnsmasq";
const UNBOUND: &str = "/usr/sbin/unbound";
