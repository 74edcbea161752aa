//! Takes an event, gives it back with process, user and workload named.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;

use dnswall_common::event::{Event, Refused, RefusedKey, hook};
use dnswall_common::flow::Address;
use dnswall_common::image::MODE_AUDIT;
use dnswall_common::reason::Reason;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::cgroups::Cgroups;
use super::clock::Clocks;
use super::dns::{Question, question};
use super::exe::ExeId;
use super::hash::Hashes;
use super::process::{Process, Processes, Recorded};
use super::user::Users;
use super::workload::{Workload, Workloads};
use crate::blocklist::Entry;
use crate::container::{ContainerCounters, Containers, Named, Seeker};
use crate::host::HostRoot;
use crate::kubernetes::Pods;

/// Directories whose programs are known before the first of them runs.
const PROGRAM_DIRECTORIES: [&str; 5] = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/bin", "/sbin"];

/// Where the kernel saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventHook {
    /// A packet on its way out.
    Egress,
    /// A packet on its way in.
    Ingress,
    /// A connect or the first send to an address.
    Connect,
    /// A socket being made.
    SockCreate,
    /// A socket being made whose traffic no other hook sees; `destination_port` is its family.
    Socket,
    /// A device being opened; `source_port` and `destination_port` are its major and minor number.
    Device,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was refused.
    Denied,
    /// It passed, and would have been refused in enforce mode.
    WouldDeny,
}

/// Where it came from and wanted to go. What the hook does not know is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventFlow {
    /// IANA protocol.
    pub protocol: u8,
    /// 4 or 6; 0 for what is not IP.
    pub family: u8,
    /// Source address.
    pub source: Option<IpAddr>,
    /// Source port.
    pub source_port: Option<u16>,
    /// Destination address.
    pub destination: Option<IpAddr>,
    /// Destination port, or `type << 8 | code` of ICMP.
    pub destination_port: u16,
    /// Bytes of the packet; `None` for an attempt.
    pub bytes: Option<u32>,
}

/// An event and all that could be found out about it.
#[derive(Clone, Debug)]
pub struct EnrichedEvent {
    /// When.
    pub time: Timestamp,
    /// The same on the monotonic clock.
    pub time_ns: u64,
    /// Where the kernel saw it.
    pub hook: EventHook,
    /// What became of it.
    pub outcome: Outcome,
    /// Why.
    pub reason: Reason,
    /// Generation of the policy that judged.
    pub generation: u32,
    /// Number of the rule that decided.
    pub rule: u32,
    /// From where to where.
    pub flow: EventFlow,
    /// What was asked, if it was a DNS message.
    pub question: Option<Question>,
    /// The entry of a block list that the name was found by; whoever has the lists looks it up.
    pub listed: Option<Entry>,
    /// The name that led its workload to the destination; whoever has seen the answer knows it.
    pub destination_name: Option<Arc<str>>,
    /// Which process.
    pub process: Arc<Process>,
    /// When the process started.
    pub started: Option<Timestamp>,
    /// Which executable, by the kernel's numbers.
    pub exe: Option<ExeId>,
    /// Which thread, as the kernel wrote it.
    pub comm: [u8; 16],
    /// Which user.
    pub uid: Option<u32>,
    /// The user's name.
    pub user: Option<Arc<str>>,
    /// Which workload.
    pub workload: Arc<Workload>,
    /// Which network namespace, by its cookie; 0 when unknown.
    pub netns: u64,
    /// What its runtime calls it, when it is a container.
    pub named: Option<Named>,
    /// Under what the kernel counts refusals like this one.
    pub refused: RefusedKey,
    /// How many of those it counted so far, this one included (see [`Event::refusals`]).
    pub refusals: u64,
}

/// Where this host keeps what the names come from.
#[derive(Clone, Debug)]
pub struct Roots {
    /// The cgroup2 mount.
    pub cgroup_mount: PathBuf,
    /// The wall's cgroup: the mount, or a directory below it.
    pub wall: PathBuf,
    /// The mount of /proc.
    pub proc: PathBuf,
    /// The host's root directory.
    pub host: HostRoot,
}

/// Names what an event has only numbers for.
#[derive(Debug)]
pub struct Enricher {
    processes: Processes,
    workloads: Workloads,
    users: Users,
    containers: Option<Containers>,
    pods: Option<Arc<Pods>>,
}

impl Enricher {
    /// For a host. Nothing is read before the first event or [`Self::learn_programs`].
    pub fn new(roots: Roots, users: Users, hashes: Option<Arc<Hashes>>) -> Self {
        let Roots { cgroup_mount, wall, proc, host } = roots;
        let workloads = Workloads::new(cgroup_mount, &wall, proc.clone());
        Self { processes: Processes::new(proc, host, hashes), workloads, users, containers: None, pods: None }
    }

    /// Names containers too, and pods as far as `pods` knows them.
    #[must_use]
    pub fn with_containers(self, seeker: Seeker, pods: Option<Arc<Pods>>) -> Self {
        Self { containers: Some(Containers::new(seeker)), pods, ..self }
    }

    /// Names cgroups that are gone, too.
    #[must_use]
    pub fn with_cgroups(self, cgroups: Arc<Cgroups>) -> Self {
        Self { workloads: self.workloads.with_cgroups(cgroups), ..self }
    }

    /// What was counted of containers.
    pub fn container_counters(&self) -> ContainerCounters {
        self.containers.as_ref().map(Containers::counters).unwrap_or_default()
    }

    /// Learns where the host's usual programs are, so that one that ends at once has a name too. Returns how many.
    pub fn learn_programs(&mut self) -> usize {
        let exes = self.processes.exes();
        // A directory this host does not have is no mistake.
        PROGRAM_DIRECTORIES.iter().filter_map(|path| exes.learn_directory(path.as_ref()).ok()).sum()
    }

    /// What is known of cgroups.
    pub const fn workloads(&self) -> &Workloads {
        &self.workloads
    }

    /// Names everything in an event that [`super::decode()`] let through.
    pub fn enrich(&mut self, event: &Event, clocks: &Clocks) -> EnrichedEvent {
        let question = question(event);
        let Event {
            time_ns,
            cookie: _,
            cgroup,
            entry: _,
            netns,
            start_ns,
            exe_number,
            refusals,
            source,
            destination,
            exe_device,
            uid,
            pid,
            generation,
            rule,
            packet_bytes,
            source_port,
            destination_port,
            payload_bytes: _,
            protocol,
            family,
            hook: hook_number,
            reason: reason_number,
            mode,
            identity: _,
            parent,
            comm,
            payload: _,
        } = *event;
        let now_ns = clocks.monotonic_ns;
        let exe = (exe_number != 0).then_some(ExeId { number: exe_number, device: exe_device });
        let workload = self.workloads.find(cgroup, pid, now_ns);
        let named = self.named(&workload, now_ns);
        let uid = (uid != u32::MAX).then_some(uid);
        EnrichedEvent {
            time: clocks.at_monotonic(time_ns),
            time_ns,
            hook: hook_of(hook_number),
            outcome: if mode == MODE_AUDIT { Outcome::WouldDeny } else { Outcome::Denied },
            reason: Reason::from_number(reason_number).unwrap_or(Reason::ImageUnreadable),
            generation,
            rule,
            flow: EventFlow {
                protocol,
                family,
                source: address(source),
                source_port: (source_port != 0).then_some(source_port),
                destination: address(destination),
                destination_port,
                bytes: (packet_bytes != 0).then_some(packet_bytes),
            },
            question,
            listed: None,
            destination_name: None,
            process: self.processes.find(&Recorded { pid, start_ns, parent, exe, comm }, clocks.boot_ns),
            started: (start_ns != 0).then(|| clocks.at_boot(start_ns)),
            exe,
            comm,
            uid,
            user: uid.and_then(|uid| self.user(uid, &workload, now_ns)),
            workload,
            netns,
            named,
            refused: refused_key(event),
            refusals,
        }
    }

    /// Asks for the hash of the program behind an event, which will be in its process.
    pub fn ask_hash(&mut self, event: &EnrichedEvent) {
        self.processes.ask_hash(&event.process, event.exe, event.started, event.uid);
    }

    fn named(&mut self, workload: &Workload, now_ns: u64) -> Option<Named> {
        let container = self.containers.as_mut()?.find(workload, now_ns)?;
        let pods = self.pods.as_ref().filter(|_| container.pod.is_some());
        let uid = container.pod.as_ref().and_then(|pod| pod.uid.as_deref());
        let labels = pods.zip(uid).and_then(|(pods, uid)| pods.labels(uid));
        Some(Named { labels, node: pods.and_then(|pods| pods.node().cloned()), container })
    }

    /// Names what is known of refusals of which the kernel has only the count: no source, no rule, and of the process its number.
    pub fn of_count(
        &mut self,
        key: RefusedKey,
        entry: Refused,
        generation: u32,
        clocks: &Clocks,
    ) -> EnrichedEvent {
        let RefusedKey { cgroup, destination, entry: _, pid, destination_port, protocol, reason } = key;
        let Refused { last_event_ns, refusals } = entry;
        let reason = Reason::from_number(reason).unwrap_or(Reason::ImageUnreadable);
        let destination = address(destination);
        let workload = self.workloads.find(cgroup, pid, clocks.monotonic_ns);
        let named = self.named(&workload, clocks.monotonic_ns);
        let family = match destination {
            Some(IpAddr::V4(_)) => 4,
            Some(IpAddr::V6(_)) => 6,
            None => 0,
        };
        EnrichedEvent {
            time: clocks.at_monotonic(last_event_ns),
            time_ns: last_event_ns,
            hook: match reason {
                Reason::RawSocket => EventHook::SockCreate,
                Reason::UnjudgedSocket => EventHook::Socket,
                Reason::UnjudgedDevice => EventHook::Device,
                Reason::NotServed => EventHook::Ingress,
                _ => EventHook::Egress,
            },
            outcome: Outcome::Denied,
            reason,
            generation,
            rule: u32::MAX,
            flow: EventFlow {
                protocol,
                family,
                source: None,
                source_port: None,
                destination,
                destination_port,
                bytes: None,
            },
            question: None,
            listed: None,
            process: Arc::new(Process { pid: (pid != 0).then_some(pid), ..Process::default() }),
            started: None,
            exe: None,
            comm: [0; 16],
            uid: None,
            user: None,
            workload,
            netns: 0,
            destination_name: None,
            named,
            refused: key,
            refusals,
        }
    }

    /// A container has users of its own, of which this host's names say nothing; only root is root everywhere.
    fn user(&mut self, uid: u32, workload: &Workload, now_ns: u64) -> Option<Arc<str>> {
        if workload.container.is_some() && uid != 0 { None } else { self.users.name(uid, now_ns) }
    }
}

/// Under what the kernel counts refusals like this one.
pub const fn refused_key(event: &Event) -> RefusedKey {
    RefusedKey {
        cgroup: event.cgroup,
        destination: event.destination,
        entry: event.entry,
        pid: event.pid,
        destination_port: event.destination_port,
        protocol: event.protocol,
        reason: event.reason,
    }
}

fn hook_of(number: u8) -> EventHook {
    match number {
        hook::INGRESS => EventHook::Ingress,
        hook::CONNECT => EventHook::Connect,
        hook::SOCK_CREATE => EventHook::SockCreate,
        hook::SOCKET => EventHook::Socket,
        hook::DEVICE => EventHook::Device,
        // Only EGRESS is left: decode lets no other number through.
        _ => EventHook::Egress,
    }
}

/// An address as events carry it; zero is none.
pub fn address(words: [u64; 2]) -> Option<IpAddr> {
    if words == [0, 0] {
        return None;
    }
    let whole = u128::from(words[0]) << 64 | u128::from(words[1]);
    Some(match Address::from_v6_bytes(&whole.to_be_bytes()) {
        Address::V4(address) => IpAddr::V4(Ipv4Addr::from_bits(address)),
        Address::V6(..) => IpAddr::V6(Ipv6Addr::from_bits(whole)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::sample;

    fn enricher() -> (tempfile::TempDir, Enricher) {
        let root = tempfile::tempdir().unwrap();
        let mount = root.path().join("cgroup");
        let proc = root.path().join("proc");
        std::fs::create_dir_all(mount.join("system.slice/orders.service")).unwrap();
        std::fs::create_dir_all(mount.join("docker").join("a".repeat(64))).unwrap();
        std::fs::create_dir_all(&proc).unwrap();
        let roots = Roots { cgroup_mount: mount.clone(), wall: mount, proc, host: HostRoot::default() };
        (root, Enricher::new(roots, Users::with(|uid| Some(format!("user{uid}"))), None))
    }

    fn clocks() -> Clocks {
        Clocks {
            now: "2026-03-01T12:00:00Z".parse().unwrap(),
            monotonic_ns: 100_500_000_000,
            boot_ns: 100_500_000_000,
        }
    }

    fn id(root: &tempfile::TempDir, path: &str) -> u64 {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(root.path().join("cgroup").join(path)).unwrap().ino()
    }

    #[test]
    fn numbers_become_names() {
        let (root, mut enricher) = enricher();
        let mut event = sample::event();
        event.cgroup = id(&root, "system.slice/orders.service");
        let enriched = enricher.enrich(&event, &clocks());
        assert_eq!(enriched.time.to_string(), "2026-03-01T11:59:59.5Z");
        assert_eq!(enriched.started.unwrap().to_string(), "2026-03-01T11:59:58.5Z");
        assert_eq!((enriched.hook, enriched.outcome), (EventHook::Egress, Outcome::Denied));
        assert_eq!(enriched.flow.destination, Some("198.51.100.53".parse().unwrap()));
        assert_eq!(enriched.question.unwrap().name, "example.com");
        assert_eq!(enriched.workload.unit.as_deref(), Some("orders.service"));
        assert_eq!((enriched.uid, enriched.user.as_deref()), (Some(1000), Some("user1000")));
        assert_eq!(enriched.process.comm.as_deref(), Some("dig"));
    }

    #[test]
    fn what_is_not_known_is_none() {
        let (_root, mut enricher) = enricher();
        let mut event = sample::event();
        (event.cgroup, event.pid, event.start_ns, event.uid, event.exe_number) = (0, 0, 0, u32::MAX, 0);
        (event.source, event.source_port, event.packet_bytes, event.destination) = ([0; 2], 0, 0, [0; 2]);
        (event.comm, event.parent) = ([0; 16], 0);
        (event.mode, event.hook) = (MODE_AUDIT, hook::SOCK_CREATE);
        let enriched = enricher.enrich(&event, &clocks());
        assert_eq!(*enriched.process, Process::default());
        assert_eq!(*enriched.workload, Workload::default());
        assert_eq!((enriched.uid, enriched.user, enriched.started, enriched.exe), (None, None, None, None));
        let EventFlow { source, source_port, destination, bytes, .. } = enriched.flow;
        assert_eq!((source, source_port, destination, bytes), (None, None, None, None));
        assert_eq!((enriched.hook, enriched.outcome), (EventHook::SockCreate, Outcome::WouldDeny));
    }

    #[test]
    fn a_containers_users_are_not_this_hosts() {
        let (root, mut enricher) = enricher();
        let mut event = sample::event();
        event.cgroup = id(&root, &format!("docker/{}", "a".repeat(64)));
        let enriched = enricher.enrich(&event, &clocks());
        assert_eq!(enriched.workload.container, Some("a".repeat(64)));
        assert_eq!((enriched.uid, enriched.user), (Some(1000), None));
        event.uid = 0;
        assert_eq!(enricher.enrich(&event, &clocks()).user.as_deref(), Some("user0"));
    }

    #[test]
    fn addresses_keep_their_family() {
        assert_eq!(address(sample::words("2001:db8::1")), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(address(sample::words("::ffff:192.0.2.1")), Some("192.0.2.1".parse().unwrap()));
    }
}
