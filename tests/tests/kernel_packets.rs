//! Tables of packets through the programs themselves (`BPF_PROG_TEST_RUN`). The sockets are the kernel's dummies: of
//! nobody's, so only what holds for everyone is seen here.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use dnswall_agent::demo::cgroup::Tree;
use dnswall_agent::kernel::find_cgroup2;
use dnswall_common::counter::Counter;
use dnswall_common::event::Event;
use dnswall_common::limits::{EVENT_RETRY_NS, RING_BYTES};
use dnswall_common::reason::Reason;
use dnswall_tests::lab::packet::protocol::{ICMP, ICMPV6, SCTP, TCP, UDP, UDP_LITE};
use dnswall_tests::lab::packet::{
    ACK, RST, SYN, fragment4, icmp, ip, ip_from, question, tcp, udp, with_extensions, with_options,
};
use dnswall_tests::lab::table::Expect::{Pass, Refused, Rule};
use dnswall_tests::lab::table::{Expect, POLICY, check};
use dnswall_tests::lab::{Direction, Lab, Outcome};

fn datagram(to: &str, port: u16) -> Vec<u8> {
    ip(to, UDP, &udp(40_000, port, b"some payload"))
}

fn syn(to: &str, port: u16) -> Vec<u8> {
    ip(to, TCP, &tcp(port, SYN, b""))
}

fn no_rule() -> Expect {
    Refused(Reason::NoRule, "default")
}

#[test]
fn new_flows_meet_the_rules() -> Result<()> {
    check(
        Direction::Egress,
        &[
            ("udp to an allowed port", datagram("198.51.100.1", 443), Rule("allow.web")),
            ("udp, v6", datagram("2001:db8:1::1", 443), Rule("allow.web")),
            ("first port of a range", datagram("198.51.100.1", 4000), Rule("allow.web")),
            ("last port of a range", datagram("198.51.100.1", 5000), Rule("allow.web")),
            ("below a range", datagram("198.51.100.1", 3999), no_rule()),
            ("above a range", datagram("198.51.100.1", 5001), no_rule()),
            ("last address of a network", datagram("198.51.100.255", 443), Rule("allow.web")),
            ("address after a network", datagram("198.51.101.0", 443), no_rule()),
            ("address before a network", datagram("198.51.99.255", 443), no_rule()),
            ("v6 after a network", datagram("2001:db8:2::", 443), no_rule()),
            ("tcp syn", syn("198.51.100.1", 443), Rule("allow.web")),
            ("tcp syn, v6", syn("2001:db8:1::1", 443), Rule("allow.web")),
            ("tcp syn to another port", syn("198.51.100.1", 80), no_rule()),
            ("tcp to a udp range", syn("198.51.100.1", 4000), no_rule()),
            ("deny over allow", syn("198.51.100.66", 443), Refused(Reason::Rule, "deny.hole")),
            ("deny over allow, v6", datagram("2001:db8:1::66", 443), Refused(Reason::Rule, "deny.hole")),
            ("any port", syn("203.0.113.9", 1), Rule("allow.all")),
            ("any port, v6", datagram("2001:db8:9::9", 65_535), Rule("allow.all")),
            ("the greatest v4 address", datagram("255.255.255.255", 443), no_rule()),
            ("the least v4 address", datagram("0.0.0.1", 443), no_rule()),
            ("a v4-mapped destination on the wire", datagram("::ffff:198.51.100.1", 443), no_rule()),
            ("sctp", ip("198.51.100.8", SCTP, &udp(1, 9, b"12345678")), Rule("allow.sctp")),
            ("sctp to another port", ip("198.51.100.8", SCTP, &udp(1, 10, b"12345678")), no_rule()),
            ("udp-lite is udp", ip("198.51.100.1", UDP_LITE, &udp(1, 443, b"12345678")), Rule("allow.web")),
            ("an unknown protocol", ip("198.51.100.1", 47, &[0; 16]), no_rule()),
            ("an unknown protocol to an any rule", ip("203.0.113.9", 47, &[0; 16]), Rule("allow.all")),
            ("protocol 255", ip("198.51.100.1", 255, &[0; 16]), no_rule()),
        ],
    )
}

#[test]
fn dns_goes_to_the_resolvers_alone() -> Result<()> {
    let dns = |to: &str| ip(to, UDP, &udp(40_000, 53, &question("example.com")));
    check(
        Direction::Egress,
        &[
            ("resolver", dns("192.0.2.53"), Rule("dns.resolvers")),
            ("resolver, v6", dns("2001:db8::53"), Rule("dns.resolvers")),
            ("resolver, tcp", syn("192.0.2.53", 53), Rule("dns.resolvers")),
            ("resolver, another port", datagram("192.0.2.53", 5353), no_rule()),
            ("resolver, https", syn("192.0.2.53", 443), no_rule()),
            ("another server", dns("198.51.100.1"), no_rule()),
            ("another server, tcp", syn("198.51.100.1", 53), no_rule()),
            ("another server, v6", dns("2001:db8:1::1"), no_rule()),
            ("where everything is allowed", dns("203.0.113.9"), no_rule()),
            ("where everything is allowed, tcp", syn("203.0.113.9", 53), no_rule()),
            ("dns over tls where everything is allowed", syn("203.0.113.9", 853), no_rule()),
            ("dns over quic where everything is allowed", datagram("203.0.113.9", 853), no_rule()),
            ("udp-lite to port 53", ip("203.0.113.9", UDP_LITE, &udp(1, 53, b"12345678")), no_rule()),
        ],
    )
}

#[test]
fn what_every_host_needs_passes_and_no_more() -> Result<()> {
    check(
        Direction::Egress,
        &[
            ("icmp echo to a rule", ip("198.51.100.7", ICMP, &icmp(8, 0)), Rule("allow.ping")),
            ("icmpv6 echo to a rule", ip("2001:db8:1::7", ICMPV6, &icmp(128, 0)), Rule("allow.ping")),
            ("icmp echo elsewhere", ip("198.51.100.9", ICMP, &icmp(8, 0)), no_rule()),
            ("icmpv6 echo elsewhere", ip("2001:db8:1::9", ICMPV6, &icmp(128, 0)), no_rule()),
            ("echo reply of the kernel", ip("192.0.2.1", ICMP, &icmp(0, 0)), Pass),
            ("unreachable", ip("192.0.2.1", ICMP, &icmp(3, 1)), Pass),
            ("timestamp request", ip("192.0.2.1", ICMP, &icmp(13, 0)), no_rule()),
            ("redirect", ip("192.0.2.1", ICMP, &icmp(5, 0)), Pass),
            ("router advertisement", ip("192.0.2.1", ICMP, &icmp(9, 0)), no_rule()),
            ("listener report to a wide group", ip("ff05::1234", ICMPV6, &icmp(131, 0)), Pass),
            ("listener done to a wide group", ip("ff0e::1234", ICMPV6, &icmp(132, 0)), Pass),
            ("neighbour solicitation", ip("ff02::1:ff00:1", ICMPV6, &icmp(135, 0)), Pass),
            ("router solicitation", ip("ff02::2", ICMPV6, &icmp(133, 0)), Pass),
            ("multicast listener report", ip("ff02::16", ICMPV6, &icmp(143, 0)), Pass),
            ("igmp to a group", ip("224.0.0.22", 2, &[0; 8]), Pass),
            ("igmp to a host", ip("192.0.2.1", 2, &[0; 8]), no_rule()),
            ("dhcp", ip("255.255.255.255", UDP, &udp(68, 67, b"discover")), Pass),
            ("dhcp renewal", ip("10.0.0.1", UDP, &udp(68, 67, b"request")), Pass),
            ("dhcp to the internet", ip("203.0.113.1", UDP, &udp(68, 67, b"request")), no_rule()),
            ("dhcp from another port", ip("10.0.0.1", UDP, &udp(6800, 67, b"request")), no_rule()),
            ("dhcpv6", ip("ff02::1:2", UDP, &udp(546, 547, b"solicit")), Pass),
            ("dhcpv6 to a server", ip("fe80::1", UDP, &udp(546, 547, b"request")), Pass),
            ("dhcpv6 to another group", ip("ff02::2", UDP, &udp(546, 547, b"solicit")), no_rule()),
            ("dhcpv6 to a wider group", ip("ff05::1:2", UDP, &udp(546, 547, b"solicit")), no_rule()),
            ("dhcpv6 to the internet", ip("2001:db8:9::1", UDP, &udp(546, 547, b"request")), no_rule()),
            ("reset without payload", ip("192.0.2.1", TCP, &tcp(80, RST | ACK, b"")), Pass),
            ("reset with payload", ip("192.0.2.1", TCP, &tcp(80, RST | ACK, b"data")), no_rule()),
            ("bare acknowledgement", ip("192.0.2.1", TCP, &tcp(80, ACK, b"")), Pass),
            ("data of a connection nobody has", ip("192.0.2.1", TCP, &tcp(80, ACK, b"data")), no_rule()),
            ("syn and ack of no listener", ip("192.0.2.1", TCP, &tcp(80, SYN | ACK, b"")), no_rule()),
        ],
    )
}

#[test]
fn what_cannot_be_read_is_refused_with_its_reason() -> Result<()> {
    let refused = |reason| Refused(reason, "default");
    let segment = udp(40_000, 443, b"some payload");
    let web = "198.51.100.1";
    let web6 = "2001:db8:1::1";
    let mut short_header = ip(web, UDP, &segment);
    short_header[0] = 0x44;
    let mut no_version = ip(web, UDP, &segment);
    no_version[0] = 0x15;
    let lsrr = [131, 7, 4, 8, 8, 8, 8];
    let ssrr = [1, 7, 3, 4, 137, 3, 4];
    check(
        Direction::Egress,
        &[
            ("first fragment", fragment4(web, 0x2000, UDP, &segment), refused(Reason::Fragment)),
            ("later fragment", fragment4(web, 0x0001, UDP, &segment), refused(Reason::Fragment)),
            ("don't fragment", fragment4(web, 0x4000, UDP, &segment), Rule("allow.web")),
            ("header length 4", short_header, refused(Reason::Malformed)),
            ("version 1", no_version, refused(Reason::Malformed)),
            ("udp cut short", ip(web, UDP, &segment[..7]), refused(Reason::Malformed)),
            ("udp header alone", ip(web, UDP, &segment[..8]), Rule("allow.web")),
            ("tcp cut before its flags", ip(web, TCP, &tcp(443, SYN, b"")[..13]), refused(Reason::Malformed)),
            ("no segment at all", ip(web, UDP, &[]), refused(Reason::Malformed)),
            ("icmp cut short", ip(web, ICMP, &[8]), refused(Reason::Malformed)),
            ("loose source route", with_options(web, &lsrr, UDP, &segment), refused(Reason::SourceRoute)),
            (
                "strict one behind others",
                with_options(web, &ssrr, UDP, &segment),
                refused(Reason::SourceRoute),
            ),
            ("router alert", with_options(web, &[148, 4, 0, 0], UDP, &segment), Rule("allow.web")),
            (
                "option without a length",
                with_options(web, &[1, 1, 1, 148], UDP, &segment),
                refused(Reason::Malformed),
            ),
            ("option of length 0", with_options(web, &[148, 0], UDP, &segment), refused(Reason::Malformed)),
            ("ten words of options", with_options(web, &[1; 40], UDP, &segment), Rule("allow.web")),
            ("hop-by-hop", with_extensions(web6, &[(0, 0)], UDP, &segment), Rule("allow.web")),
            ("three", with_extensions(web6, &[(0, 1), (60, 2), (135, 0)], UDP, &segment), Rule("allow.web")),
            ("eight", with_extensions(web6, &[(60, 0); 8], UDP, &segment), Rule("allow.web")),
            ("nine", with_extensions(web6, &[(60, 0); 9], UDP, &segment), refused(Reason::ExtensionHeaders)),
            ("routing", with_extensions(web6, &[(43, 0)], UDP, &segment), refused(Reason::SourceRoute)),
            (
                "routing second",
                with_extensions(web6, &[(60, 0), (43, 0)], UDP, &segment),
                refused(Reason::SourceRoute),
            ),
            ("fragment header", with_extensions(web6, &[(44, 0)], UDP, &segment), refused(Reason::Fragment)),
            ("no next header", with_extensions(web6, &[], 59, &[]), refused(Reason::Malformed)),
            (
                "extension past the end",
                with_extensions(web6, &[(60, 0)], 60, &[]),
                refused(Reason::Malformed),
            ),
            (
                "extension past the end, of a protocol without ports",
                with_extensions(web6, &[(60, 0)], 50, &[])[..46].to_vec(),
                refused(Reason::Malformed),
            ),
            ("v6 udp cut short", with_extensions(web6, &[], UDP, &segment[..6]), refused(Reason::Malformed)),
            ("encrypted payload", with_extensions(web6, &[], 50, &[0; 16]), no_rule()),
        ],
    )
}

#[test]
fn only_who_may_ask_asks_here() -> Result<()> {
    let asks =
        |from: &str, to: &str| ip_from(Some(from), to, UDP, &udp(40_000, 53, &question("example.com")));
    let opens = |from: &str, port: u16| ip_from(Some(from), "10.0.0.1", TCP, &tcp(port, SYN, b""));
    let sends = |from: u16, to: u16, payload: &[u8]| {
        ip_from(Some("192.0.2.9"), "10.0.0.1", UDP, &udp(from, to, payload))
    };
    let mut answer = question("example.com");
    answer[2] |= 0x80;
    let refused = || Refused(Reason::NotServed, "default");
    check(
        Direction::Ingress,
        &[
            ("from the served network", asks("10.1.2.3", "10.0.0.1"), Rule("dns.serve")),
            ("from the served network, v6", asks("2001:db8:10::1", "2001:db8::1"), Rule("dns.serve")),
            ("from elsewhere", asks("192.0.2.9", "10.0.0.1"), refused()),
            ("from elsewhere, v6", asks("2001:db8:11::1", "2001:db8::1"), refused()),
            ("tcp from the served network", opens("10.1.2.3", 53), Rule("dns.serve")),
            ("tcp from elsewhere", opens("192.0.2.9", 53), refused()),
            ("an answer to port 53", sends(53, 53, &answer), Pass),
            ("something else", sends(1, 443, b"data"), Pass),
            ("tcp to something else", opens("192.0.2.9", 22), Pass),
            ("too short to be a question", sends(1, 53, b""), refused()),
        ],
    )
}

#[test]
fn audit_lets_pass_and_counts() -> Result<()> {
    Lab::shared(&POLICY.replace("mode = \"enforce\"", "mode = \"audit\""), |lab| {
        let met = lab.run(Direction::Egress, &syn("198.51.100.1", 80))?;
        assert_eq!(
            met,
            Outcome { passed: true, refused: Some(Reason::NoRule), rule: Some("default".to_owned()) },
            "reported, not refused"
        );
        lab.publish(POLICY)?;
        assert!(
            !lab.run(Direction::Egress, &syn("198.51.100.1", 80))?.passed,
            "the next generation enforces"
        );
        Ok(())
    })
}

/// A datagram that is refused, each number another flow.
fn refused_flow(number: u32) -> Vec<u8> {
    let [_, high, middle, low] = number.to_be_bytes();
    datagram(&format!("10.{high}.{middle}.{low}"), 443)
}

/// More than the second half of the ring takes, and than the agent reads of a map in a call.
const FLOWS: u32 = 10_000;
/// Bytes of an event in the ring, with the kernel's header.
const RECORD_BYTES: usize = size_of::<Event>() + 8;

#[test]
fn a_workload_that_fills_the_ring_leaves_place_for_another_and_every_flow_is_counted() -> Result<()> {
    Lab::shared(POLICY, |lab| {
        lab.drain()?;
        let known = lab.refused_flows()?.len();
        let (sent, lost) = (lab.counter(Counter::EventsSent)?, lab.counter(Counter::EventsLost)?);
        let began = Instant::now();
        for number in 0..FLOWS {
            ensure!(lab.repeat(Direction::Egress, &refused_flow(number), 1)?.0 == 0, "flow {number} passed");
        }
        let sent = lab.counter(Counter::EventsSent)? - sent;
        let half = (RING_BYTES / 2).div_ceil(RECORD_BYTES) as u64;
        let crowd = 1 + began.elapsed().as_secs();
        ensure!(
            (half..=half + crowd).contains(&sent),
            "{sent} events of one workload, half a ring is {half}"
        );
        ensure!(lab.counter(Counter::EventsLost)? - lost == u64::from(FLOWS) - sent, "not all are counted");
        // The agent learns of what found no place by looking at the kernel's counts.
        let flows = lab.refused_flows()?;
        ensure!(flows.len() == known + FLOWS as usize, "{} of {FLOWS} flows were read", flows.len() - known);

        let told_of_another = {
            let _elsewhere = Elsewhere::enter()?;
            let before = lab.counter(Counter::EventsSent)?;
            lab.repeat(Direction::Egress, &refused_flow(0), 1)?;
            lab.counter(Counter::EventsSent)? - before
        };
        ensure!(told_of_another == 1, "the other workload's event found no place");
        // Nobody waits for a second to be told of once there is place.
        let mut untold = FLOWS;
        let before = lab.counter(Counter::EventsLost)?;
        while lab.counter(Counter::EventsLost)? == before {
            untold += 1;
            lab.repeat(Direction::Egress, &refused_flow(untold), 1)?;
        }
        lab.drain()?;
        thread::sleep(Duration::from_nanos(EVENT_RETRY_NS));
        lab.repeat(Direction::Egress, &refused_flow(untold), 1)?;
        let event = lab.drain()?.context("what had found no place was not told of")?;
        ensure!(event.refusals == 2, "it was refused twice, not {} times", event.refusals);
        Ok(())
    })
}

/// This process in a cgroup of its own, until it goes.
struct Elsewhere {
    home: PathBuf,
    /// Goes after the process has left it: it ends whoever is in it.
    _tree: Tree,
}

impl Elsewhere {
    fn enter() -> Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").context("read the own cgroup")?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).context("find the own cgroup")?;
        let home = find_cgroup2()?.path.join(own).join("cgroup.procs");
        let tree = Tree::create("dnswall-test").context("make a cgroup")?;
        fs::write(tree.directory().join("cgroup.procs"), "0").context("enter it")?;
        Ok(Self { home, _tree: tree })
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        fs::write(&self.home, "0").expect("go back to the own cgroup");
    }
}
