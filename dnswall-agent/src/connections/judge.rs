//! Takes what a look found and a compiled policy, gives the connections that the policy refuses.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

use dnswall_common::event::{Event, IDENTITY_OLD_SOCKET, IDENTITY_SOCKET, hook};
use dnswall_common::flow::{Address, Flow, protocol};
use dnswall_common::image::{MODE_AUDIT, MODE_ENFORCE};
use dnswall_common::limits::EVENT_PAYLOAD_BYTES;
use dnswall_common::reason::Reason;
use dnswall_common::who::Who;

use super::{Connection, Direction, Owner, Seen};
use crate::compile::{Explanation, Identity, MapImage, Outcome, explain_who};
use crate::kernel::cgroup::{Cgroup2Mount, walk};
use crate::policy::Existing;

/// The cgroups that there are, by id.
#[derive(Debug, Default)]
pub struct Scene {
    cgroups: HashMap<u64, String>,
}

/// A connection that a policy refuses.
#[derive(Debug)]
pub struct Refused<'s> {
    /// The connection.
    pub connection: &'s Connection,
    /// What the policy says.
    pub explanation: Explanation,
}

impl Scene {
    /// What the hierarchy holds now.
    pub fn look(mount: &Cgroup2Mount) -> Self {
        let mut cgroups = HashMap::new();
        walk(mount, &mount.path, &mut |id, path| {
            cgroups.insert(id, path.to_owned());
        });
        Self { cgroups }
    }

    /// Those of the connections that the policy refuses, or in audit mode would, in the order of their destinations.
    /// Only of processes below the image's wall.
    pub fn refused<'s>(&self, seen: &'s Seen, image: &MapImage) -> Vec<Refused<'s>> {
        let judge = |connection: &'s Connection| {
            let who = self.who(connection, image)?;
            let explanation = explain_who(image, &who, &connection.flow());
            // Where a name led when it began: it goes on, whatever the name's time.
            let is_by_name = explanation.reason == Reason::NameUnknown.name();
            (explanation.outcome != Outcome::Allowed && !is_by_name)
                .then_some(Refused { connection, explanation })
        };
        let mut refused: Vec<Refused<'s>> = seen.connections.iter().filter_map(judge).collect();
        refused.sort_by_key(|refused| (refused.connection.remote, refused.connection.local));
        refused
    }

    /// The selectors of a connection's owner; `None` for one that is outside the wall.
    pub fn who(&self, connection: &Connection, image: &MapImage) -> Option<Who> {
        let Owned { cgroup, uid, exe, .. } = Owned::of(connection);
        let Some(path) = self.cgroups.get(&cgroup) else {
            // Its cgroup is gone, and with it all that is known of it: only a wall around everything holds it for sure.
            return (image.root.path.trim_end_matches('/').is_empty()).then_some(Who::NONE);
        };
        if !Path::new(path).starts_with(&image.root.path) {
            return None;
        }
        let exe = exe.map(|exe| (exe.number, exe.device));
        Some(image.who(&Identity { cgroup: path.clone(), uid: Some(uid), exe, ..Identity::default() }))
    }
}

/// What is known of a connection's owner, from whichever of the two knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned {
    /// Its cgroup; 0 when it is not known.
    pub cgroup: u64,
    /// Its user.
    pub uid: u32,
    /// Its process; 0 when it is not known.
    pub pid: u32,
    /// When that started, nanoseconds since boot.
    pub start_ns: u64,
    /// Its executable.
    pub exe: Option<crate::event::ExeId>,
    /// Name of the thread; zeros when it is not known.
    pub comm: [u8; 16],
}

impl Owned {
    /// Whose it is.
    pub fn of(connection: &Connection) -> Self {
        let Connection { recorded, owner, cgroup, uid, .. } = connection;
        match (recorded, owner) {
            (Some(recorded), _) => Self {
                cgroup: recorded.cgroup,
                uid: recorded.uid,
                pid: recorded.pid,
                start_ns: recorded.start_ns,
                exe: recorded.exe,
                comm: recorded.comm,
            },
            (None, owner) => {
                let Owner { pid, start_ns, exe } = owner.unwrap_or(Owner { pid: 0, start_ns: 0, exe: None });
                Self { cgroup: cgroup.unwrap_or_default(), uid: *uid, pid, start_ns, exe, comm: [0; 16] }
            }
        }
    }
}

impl Connection {
    /// Where it goes.
    pub fn flow(&self) -> Flow {
        Flow { address: address(self.remote.ip()), protocol: self.protocol, port: self.remote.port() }
    }

    /// The same as the kernel would tell it of a packet that is only reported, for whoever names its owner.
    pub fn event(&self, time_ns: u64) -> Event {
        let Owned { cgroup, uid, pid, start_ns, exe, comm } = Owned::of(self);
        Event {
            entry: 0,
            time_ns,
            cookie: self.id.cookie(),
            cgroup,
            netns: 0,
            start_ns,
            exe_number: exe.map_or(0, |exe| exe.number),
            refusals: 1,
            source: address(self.local.ip()).to_words(),
            destination: address(self.remote.ip()).to_words(),
            exe_device: exe.map_or(0, |exe| exe.device),
            uid,
            pid,
            generation: 0,
            rule: 0,
            packet_bytes: 0,
            source_port: self.local.port(),
            destination_port: self.remote.port(),
            payload_bytes: 0,
            protocol: self.protocol,
            family: if self.remote.is_ipv4() { 4 } else { 6 },
            hook: hook::EGRESS,
            reason: Reason::NoRule as u8,
            mode: MODE_AUDIT,
            identity: if self.recorded.is_some() { IDENTITY_SOCKET } else { IDENTITY_OLD_SOCKET },
            parent: 0,
            comm,
            payload: [0; EVENT_PAYLOAD_BYTES],
        }
    }
}

impl Refused<'_> {
    /// Whether the policy ends it: it says so, enforces, and it is sure enough that it began here. One that is not open yet
    /// is no existing one: its packets are refused, and its process would wait for minutes. Datagrams need no end: each is
    /// judged.
    pub fn is_cut(&self) -> bool {
        let Explanation { outcome, existing, .. } = &self.explanation;
        *outcome == Outcome::Denied
            && (*existing == Existing::Cut || self.connection.opening)
            && self.connection.direction == Direction::Outbound
            && self.connection.protocol == protocol::TCP
    }

    /// The same as the kernel would tell it of a packet. `denied` says what became of it.
    pub fn event(&self, time_ns: u64, generation: u32, denied: bool) -> Event {
        let Self { connection, explanation } = self;
        let reason = Reason::ALL.iter().find(|reason| reason.name() == explanation.reason);
        Event {
            generation,
            rule: explanation.rule_number,
            reason: reason.copied().unwrap_or(Reason::NoRule) as u8,
            mode: if denied { MODE_ENFORCE } else { MODE_AUDIT },
            ..connection.event(time_ns)
        }
    }
}

fn address(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => Address::V4(address.to_bits()),
        IpAddr::V6(address) => Address::from_v6_bytes(&address.octets()),
    }
}
