//! Sockets that look like one thing or the other.

use super::*;
use std::net::{TcpListener, TcpStream};

fn found(local: &str, remote: &str) -> Found {
    Found {
        protocol: protocol::TCP,
        state: state::ESTABLISHED,
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
        v6_only: false,
        uid: 0,
        inode: 1,
        cgroup: None,
        recorded: None,
        id: SocketId::NONE,
    }
}

fn listener(at: &str, v6_only: bool) -> Listener {
    Listener::of(&Found { state: state::LISTEN, v6_only, ..found(at, "0.0.0.0:0") })
}

#[test]
fn a_port_somebody_listens_on_is_inbound() {
    let check = |at: &str, v6_only: bool, local: &str, inbound: bool| {
        let listeners = HashSet::from([listener(at, v6_only)]);
        let direction = direction(&found(local, "192.0.2.1:443"), &listeners, &(30_000..=60_000));
        assert_eq!(direction.is_none(), inbound, "{at} {local}");
    };
    check("0.0.0.0:40000", false, "10.0.0.1:40000", true);
    check("0.0.0.0:40000", false, "10.0.0.1:40001", false);
    check("0.0.0.0:40000", false, "[2001:db8::1]:40000", false);
    check("[::]:40000", false, "[2001:db8::1]:40000", true);
    check("[::]:40000", false, "10.0.0.1:40000", true);
    check("[::]:40000", true, "10.0.0.1:40000", false);
    check("[::]:40000", true, "[2001:db8::1]:40000", true);
    check("10.0.0.1:40000", false, "10.0.0.1:40000", true);
    check("10.0.0.1:40000", false, "10.0.0.2:40000", false);
}

#[test]
fn a_port_that_a_process_chose_is_unclear() {
    let of = |local| direction(&found(local, "192.0.2.1:443"), &HashSet::new(), &(30_000..=60_000));
    assert_eq!(of("10.0.0.1:30000"), Some(Direction::Outbound));
    assert_eq!(of("10.0.0.1:22"), Some(Direction::Unclear));
}

#[test]
fn what_the_wall_recorded_counts_more_than_any_port() {
    let listeners = HashSet::from([listener("0.0.0.0:40000", false)]);
    let recorded = Recorded {
        cgroup: 1,
        uid: 0,
        pid: 1,
        start_ns: 1,
        exe: None,
        comm: [0; 16],
        cookie: SocketId::NONE.cookie(),
        inbound: false,
    };
    let of = |recorded, local| {
        let found = Found { recorded: Some(recorded), ..found(local, "192.0.2.1:443") };
        direction(&found, &listeners, &(30_000..=60_000))
    };
    assert_eq!(of(recorded, "10.0.0.1:40000"), Some(Direction::Outbound), "somebody else listens there, too");
    assert_eq!(of(Recorded { inbound: true, ..recorded }, "10.0.0.1:50000"), None);
    assert_eq!(of(Recorded { cookie: 7, ..recorded }, "10.0.0.1:22"), None, "a copy of its listener's");
}

#[test]
fn what_stays_here_is_no_connection_to_anywhere() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (_accepted, _) = listener.accept().unwrap();
    let seen = look(Path::new("/proc"), None, Wanted::All).unwrap();
    let local = stream.local_addr().unwrap();
    assert!(
        seen.connections.iter().all(|connection| connection.local != local && connection.remote != local)
    );
    assert!(!seen.namespaces.is_empty());
}
