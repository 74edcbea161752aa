//! What an agent that ended in order had told of the kernel's counts, so that the next one tells only what came after.
//!
//! An agent that was killed leaves nothing here: its successor has what the spool saved with the alerts.

use dnswall_common::event::{Refused, RefusedKey};

/// The kernel's counts by flow.
pub type Counts = Vec<(RefusedKey, Refused)>;

/// As a file holds them.
pub fn encode(counts: &Counts) -> Vec<u8> {
    let rows: Vec<Row> = counts.iter().map(row).collect();
    // Numbers always have a JSON form.
    serde_json::to_vec(&rows).unwrap_or_default()
}

/// What a file holds; nothing when it was torn or is of another version.
pub fn decode(bytes: &[u8]) -> Option<Counts> {
    let rows: Vec<Row> = serde_json::from_slice(bytes).ok()?;
    rows.into_iter().map(counted).collect()
}

type Row = [u64; 10];

fn row((key, value): &(RefusedKey, Refused)) -> Row {
    let RefusedKey { cgroup, destination: [high, low], entry, pid, destination_port, protocol, reason } =
        *key;
    let Refused { last_event_ns, refusals } = *value;
    let (pid, port) = (u64::from(pid), u64::from(destination_port));
    [cgroup, high, low, entry, pid, port, u64::from(protocol), u64::from(reason), last_event_ns, refusals]
}

fn counted(
    [cgroup, high, low, entry, pid, port, protocol, reason, last_event_ns, refusals]: Row,
) -> Option<(RefusedKey, Refused)> {
    let key = RefusedKey {
        cgroup,
        destination: [high, low],
        entry,
        pid: pid.try_into().ok()?,
        destination_port: port.try_into().ok()?,
        protocol: protocol.try_into().ok()?,
        reason: reason.try_into().ok()?,
    };
    Some((key, Refused { last_event_ns, refusals }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_back_and_nothing_else_is() {
        let key = RefusedKey {
            cgroup: u64::MAX,
            destination: [1 << 63, 0xffff_0a00_0001],
            entry: 1 << 63,
            pid: u32::MAX,
            destination_port: 65_535,
            protocol: 17,
            reason: 2,
        };
        let counts = vec![(key, Refused { last_event_ns: 7, refusals: u64::MAX }); 3];
        let bytes = encode(&counts);
        assert_eq!(decode(&bytes), Some(counts));
        assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(decode(b"[[1,2,3,4,4294967296,5,6,7,8,9]]"), None, "no such process");
        assert_eq!(decode(b""), None);
    }
}
