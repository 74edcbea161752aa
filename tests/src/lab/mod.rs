//! The kernel programs without a wall: loaded, given a policy, and run on packets made by hand
//! (`BPF_PROG_TEST_RUN`), in a network namespace of the calling thread's own.

pub mod budget;
pub mod packet;
pub(crate) mod raw;
pub mod stack;
pub mod table;

use std::fs::File;
use std::os::fd::AsFd as _;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};
use aya::Ebpf;
use aya::programs::{CgroupSkb, Program, TestRun as _, TestRunOptions};
use dnswall_agent::blocklist::Lists;
use dnswall_agent::compile::{FixedEnvironment, MapImage, compile};
use dnswall_agent::event::decode;
use dnswall_agent::kernel::cgroup::walk;
use dnswall_agent::kernel::{Maps, Ring, find_cgroup2, object};
use dnswall_agent::policy;
use dnswall_common::counter::Counter;
use dnswall_common::event::{Event, Refused, RefusedKey};
use dnswall_common::reason::Reason;
use dnswall_common::who::Who;

use packet::{SOURCE4, SOURCE6};
pub use raw::ReturnOne;

/// Bytes of the Ethernet header that `BPF_PROG_TEST_RUN` wants before the packet and takes away.
const ETHERNET_BYTES: usize = 14;
/// Bytes of `struct __sk_buff` up to `hwtstamp`.
const CONTEXT_BYTES: usize = 192;
/// Where `ifindex` is in it.
const CONTEXT_IFINDEX: usize = 40;
/// The index of the loopback device, in every network namespace.
const LOOPBACK: u32 = 1;
/// The name of the device packets pretend to leave through.
const DEVICE: &str = "dwlab0";

/// The key of the hashes in what a lab publishes.
pub const SEED: u64 = 7;

/// Which program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// `dw_egress`
    Egress,
    /// The same on the loopback device.
    Loopback,
    /// `dw_ingress`
    Ingress,
}

/// What one packet met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The program let it pass.
    pub passed: bool,
    /// The reason whose counter of refusals moved, if one did.
    pub refused: Option<Reason>,
    /// The rule that was counted, by name.
    pub rule: Option<String>,
}

/// Loaded programs and their maps.
pub struct Lab {
    ebpf: Ebpf,
    maps: Maps,
    image: MapImage,
    ifindex: u32,
    network: File,
    /// The reading end of what is told of refusals.
    ring: Ring,
}

impl Lab {
    /// Loads the programs and publishes a policy.
    ///
    /// # Errors
    /// When the kernel refuses a program, or the policy is wrong.
    pub fn new(policy: &str) -> Result<Self> {
        // SAFETY: unsafe for CLONE_FILES alone; only this thread gets another network, until it ends.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }
            .context("unshare the network namespace (this needs root)")?;
        ip(&["link", "add", DEVICE, "type", "veth", "peer", "name", "dwlab1"])?;
        for address in [format!("{SOURCE4}/24"), format!("{SOURCE6}/64")] {
            ip(&["address", "add", &address, "dev", DEVICE])?;
        }
        let ifindex = interface_index(DEVICE)?;
        ensure!(ifindex > LOOPBACK, "the device must not be the loopback's index");
        let mut ebpf = object::load(None)?.ebpf;
        let mut maps = Maps::from_loaded(&mut ebpf)?;
        let [ring, _] = maps.take_rings().context("take the rings")?;
        let mut image = compiled(policy)?;
        let cgroups = cgroups(&image)?;
        maps.publish(&mut image, &cgroups)?;
        let network = File::open("/proc/thread-self/ns/net").context("open the network namespace")?;
        Ok(Self { ebpf, maps, image, ifindex, network, ring })
    }

    /// Does something with this process's one lab under a policy. Loading takes most of the time of a short table, and
    /// very much of it where the processor is emulated.
    ///
    /// # Errors
    /// See [`Lab::new`], and those of what is done.
    pub fn shared<T>(policy: &str, act: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        static LAB: Mutex<Option<Lab>> = Mutex::new(None);
        // A test that failed leaves nothing half done: what is published is published whole.
        let mut shared = LAB.lock().unwrap_or_else(PoisonError::into_inner);
        let lab = match shared.as_mut() {
            None => shared.insert(Self::new(policy)?),
            Some(lab) => {
                let kind = Some(rustix::thread::LinkNameSpaceType::Network);
                rustix::thread::move_into_link_name_space(lab.network.as_fd(), kind)
                    .context("enter the lab's network namespace")?;
                lab.publish(policy)?;
                lab
            }
        };
        act(lab)
    }

    /// Publishes another policy.
    ///
    /// # Errors
    /// When it is wrong or does not fit.
    pub fn publish(&mut self, policy: &str) -> Result<()> {
        self.image = compiled(policy)?;
        let cgroups = cgroups(&self.image)?;
        self.maps.publish(&mut self.image, &cgroups)?;
        Ok(())
    }

    /// Publishes a policy whatever lists it names, with these instead.
    ///
    /// # Errors
    /// See [`Lab::publish`].
    pub fn publish_lists(&mut self, policy: &str, lists: &Arc<Lists>) -> Result<()> {
        self.image = compiled_with(policy, lists)?;
        let cgroups = cgroups(&self.image)?;
        self.maps.publish(&mut self.image, &cgroups)?;
        Ok(())
    }

    /// The image that counts.
    pub fn image(&self) -> &MapImage {
        &self.image
    }

    /// What the kernel counted.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn counter(&self, counter: Counter) -> Result<u64> {
        Ok(self.maps.counters()?[counter as usize])
    }

    /// Every refused flow that the kernel knows, as the agent reads them.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn refused_flows(&self) -> Result<Vec<(RefusedKey, Refused)>> {
        self.maps.refused_flows()
    }

    /// Takes every event out of the ring, and gives the last.
    ///
    /// # Errors
    /// When one is none.
    pub fn drain(&mut self) -> Result<Option<Event>> {
        let mut last = None;
        while let Some(event) = self.ring.next(decode) {
            last = Some(event.context("read an event")?);
        }
        Ok(last)
    }

    /// Runs a program once on an IP packet.
    ///
    /// # Errors
    /// When the kernel refuses to run it.
    pub fn run(&mut self, direction: Direction, packet: &[u8]) -> Result<Outcome> {
        let reasons = self.maps.reason_counters()?;
        let rules = self.maps.rule_counters(self.image.rules.len())?;
        let (value, _) = self.repeat(direction, packet, 1)?;
        let passed = match value {
            0 => false,
            1 => true,
            other => bail!("the program returned {other}"),
        };
        let moved = self.maps.reason_counters()?.iter().zip(&reasons).position(|(now, before)| now != before);
        let counted =
            self.maps.rule_counters(rules.len())?.iter().zip(&rules).position(|(now, was)| now != was);
        Ok(Outcome {
            passed,
            refused: moved.and_then(|number| Reason::from_number(number as u8)),
            rule: counted.map(|rule| self.image.rules[rule].name.clone()),
        })
    }

    /// Runs a program `times` over on the same packet; the last return value, and nanoseconds a run.
    ///
    /// # Errors
    /// When the kernel refuses to run it.
    pub fn repeat(&mut self, direction: Direction, packet: &[u8], times: u32) -> Result<(u32, u64)> {
        let mut context = [0u8; CONTEXT_BYTES];
        let ifindex = if direction == Direction::Loopback { LOOPBACK } else { self.ifindex };
        context[CONTEXT_IFINDEX..CONTEXT_IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
        let framed = framed(packet);
        let mut options = TestRunOptions::new();
        options.data_in = Some(&framed);
        options.ctx_in = Some(&context);
        options.repeat = times;
        let name = if direction == Direction::Ingress { "dw_ingress" } else { "dw_egress" };
        let program: &CgroupSkb = match self.ebpf.program(name).context("find the program")? {
            Program::CgroupSkb(program) => program,
            _ => bail!("{name} is of an unexpected type"),
        };
        let result = program.test_run(options).context("run the program")?;
        Ok((result.return_value, result.duration.as_nanos() as u64))
    }
}

/// The packet behind an Ethernet header of its protocol.
fn framed(packet: &[u8]) -> Vec<u8> {
    let mut framed = vec![0u8; ETHERNET_BYTES];
    let kind: u16 = if packet.first().is_some_and(|byte| byte >> 4 == 6) { 0x86dd } else { 0x0800 };
    framed[12..].copy_from_slice(&kind.to_be_bytes());
    framed.extend_from_slice(packet);
    framed
}

/// A policy's image for a host without users, executables or cgroups.
///
/// # Errors
/// When the policy is wrong.
pub fn compiled(text: &str) -> Result<MapImage> {
    compiled_with(text, &Arc::default())
}

fn compiled_with(text: &str, lists: &Arc<Lists>) -> Result<MapImage> {
    let policy = policy::parse(text, "lab.toml").map_err(|problems| anyhow::anyhow!("{problems}"))?;
    let environment = FixedEnvironment { seed: SEED, lists: lists.clone(), ..FixedEnvironment::default() };
    let (image, _) = compile(&policy, &environment).map_err(|problems| anyhow::anyhow!("{problems}"))?;
    Ok(image)
}

/// The cgroups there are: the dummy sockets belong to the one of the thread that runs the program.
fn cgroups(image: &MapImage) -> Result<Vec<(u64, Who)>> {
    let mount = find_cgroup2()?;
    let mut cgroups = Vec::new();
    walk(&mount, &mount.path, &mut |id, path| cgroups.push((id, image.who_by_cgroup(path))));
    Ok(cgroups)
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("run ip (package iproute2)")?;
    ensure!(
        output.status.success(),
        "ip {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn interface_index(name: &str) -> Result<u32> {
    let output = Command::new("ip").args(["-o", "link", "show", name]).output().context("run ip")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = text.split(':').next().context("read the device's index")?;
    number.trim().parse().with_context(|| format!("read the index in {text:?}"))
}
