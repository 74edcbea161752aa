//! Takes the connections that run now, gives a row for each program and destination.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;

use dnswall_common::event::Event;
use dnswall_common::flow::protocol;

use super::{CONNECTIONS_MAX, WORKLOADS_MAX};
use crate::alert::{AlertWorkload, text};
use crate::connections::{Connection, Owned, Seen};
use crate::control::api::ConnectionSeen;
use crate::event::{EnrichedEvent, ExeId};

/// Who talks to whom.
#[derive(Debug, Default)]
pub struct Talk {
    /// Most connections first.
    pub rows: Vec<ConnectionSeen>,
    /// Rows beyond these.
    pub rows_left_out: usize,
    /// How many connections each workload has, those of rows that are left out included.
    pub by_workload: Vec<(AlertWorkload, u64)>,
    /// See [`Seen::namespaces_left_out`].
    pub namespaces_left_out: usize,
    /// See [`Seen::sockets_left_out`].
    pub sockets_left_out: usize,
}

/// Connections that are one row.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    cgroup: u64,
    uid: u32,
    exe: Option<ExeId>,
    comm: [u8; 16],
    protocol: u8,
    remote: SocketAddr,
}

struct Row<'s> {
    first: &'s Connection,
    pids: HashSet<u32>,
    connections: u64,
    opening: u64,
    older: u64,
}

/// Of what a look found in the cgroup `root` and those below it. `name` tells of whom a connection is; it is asked once for each
/// workload, and each row that is shown.
pub fn talk(seen: &Seen, root: &str, mut name: impl FnMut(&Event) -> EnrichedEvent) -> Talk {
    let mut workloads: HashMap<u64, Option<AlertWorkload>> = HashMap::new();
    let mut rows: HashMap<Key, Row<'_>> = HashMap::new();
    let mut cgroups: HashMap<u64, u64> = HashMap::new();
    for connection in seen.connections.iter().filter(|connection| !connection.closing) {
        let Owned { cgroup, uid, pid, exe, comm, start_ns: _ } = Owned::of(connection);
        let workload = workloads.entry(cgroup).or_insert_with(|| {
            let workload = AlertWorkload::new(&name(&connection.event(0)));
            is_below(root, &workload).then_some(workload)
        });
        // The wall is not around it.
        if workload.is_none() {
            continue;
        }
        // A program is one whatever its threads are called.
        let comm = if exe.is_some() { [0; 16] } else { comm };
        let key = Key { cgroup, uid, exe, comm, protocol: connection.protocol, remote: connection.remote };
        let row = rows.entry(key).or_insert_with(|| Row {
            first: connection,
            pids: HashSet::new(),
            connections: 0,
            opening: 0,
            older: 0,
        });
        row.connections += 1;
        row.opening += u64::from(connection.opening);
        row.older += u64::from(connection.is_older());
        if pid != 0 {
            row.pids.insert(pid);
        }
        *cgroups.entry(cgroup).or_default() += 1;
    }
    let mut rows: Vec<Row<'_>> = rows.into_values().collect();
    rows.sort_by_key(|row| (Reverse(row.connections), row.first.remote, row.first.local));
    let rows_left_out = rows.len().saturating_sub(CONNECTIONS_MAX);
    rows.truncate(CONNECTIONS_MAX);
    let mut cgroups: Vec<(u64, u64)> = cgroups.into_iter().collect();
    cgroups.sort_by_key(|(cgroup, count)| (Reverse(*count), *cgroup));
    // The least of them are left out by who puts them together with those that were refused something.
    cgroups.truncate(WORKLOADS_MAX + 1);
    Talk {
        rows: rows.into_iter().map(|row| shown(&row, name(&row.first.event(0)))).collect(),
        rows_left_out,
        by_workload: cgroups
            .into_iter()
            .filter_map(|(cgroup, count)| Some((workloads.remove(&cgroup).flatten()?, count)))
            .collect(),
        namespaces_left_out: seen.namespaces_left_out,
        sockets_left_out: seen.sockets_left_out,
    }
}

/// One whose cgroup is gone may have been anywhere.
fn is_below(root: &str, workload: &AlertWorkload) -> bool {
    workload.cgroup.as_deref().is_none_or(|cgroup| Path::new(cgroup).starts_with(root))
}

fn shown(row: &Row<'_>, named: EnrichedEvent) -> ConnectionSeen {
    let Row { first, pids, connections, opening, older } = row;
    let process = crate::alert::AlertProcess::new(&named);
    ConnectionSeen {
        workload: AlertWorkload::new(&named),
        program: text::program(&process).map(str::to_owned),
        pid: (pids.len() == 1).then(|| pids.iter().next().copied()).flatten(),
        processes: pids.len() as u64,
        user: process.user.or_else(|| process.uid.map(|uid| uid.to_string())),
        protocol: if first.protocol == protocol::TCP { "tcp" } else { "udp" }.to_owned(),
        destination: first.remote.to_string(),
        connections: *connections,
        opening: *opening,
        older: *older,
    }
}
