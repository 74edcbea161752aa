//! Random packets through the kernel's programs (`BPF_PROG_TEST_RUN`) and through the host's build of the reader and of
//! `decide`: both must say the same, by verdict, reason and rule.
//!
//! The sockets are the kernel's dummies, which nobody recorded, so what is compared is the way of a packet of the
//! kernel's own. The packets are those of `fuzz/corpus/packet`, changed a little, a lot, or put together.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use dnswall_common::decide::decide;
use dnswall_common::flow::protocol;
use dnswall_common::named::NameSet;
use dnswall_common::packet::{IPV4_BYTES, IPV6_BYTES, TCP_ACK, TCP_RST, TCP_SYN, is_essential};
use dnswall_common::reason::{Action, Reason};
use dnswall_common::who::Who;
use dnswall_fuzz::Dice;
use dnswall_fuzz::packet::{Packet, read};

use crate::lab::packet::{SOURCE4, SOURCE6};
use crate::lab::{Direction, Lab, Outcome};

/// Rules at which the corpus' packets aim.
const POLICY: &str = r#"
version = 1
mode = "enforce"
[dns]
resolvers = ["192.0.2.53", "2001:db8::53"]
[[allow]]
to = ["198.51.100.0/24", "2001:db8:1::/48"]
ports = ["tcp/443", "udp/1-600", "icmp/echo", "sctp/9"]
[[allow]]
to = ["192.0.2.0/25"]
[[deny]]
to = ["198.51.100.66", "2001:db8:1::66", "192.0.2.1"]
"#;

/// Bytes of the longest packet tried; the kernel takes one page.
const PACKET_BYTES_MAX: usize = 1400;

/// A source of packets, and the programs that judge them.
pub struct Differ {
    lab: Lab,
    seeds: Vec<Vec<u8>>,
    dice: Dice,
}

impl Differ {
    /// Loads the programs and reads the corpus; the packets follow from `seed`.
    ///
    /// # Errors
    /// When the kernel refuses the programs.
    pub fn new(seed: u64) -> Result<Self> {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/packet");
        let mut paths: Vec<_> = fs::read_dir(&corpus)
            .with_context(|| format!("read {}", corpus.display()))?
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<Result<_, _>>()?;
        // The order of a directory is not the same everywhere.
        paths.sort();
        let mut seeds =
            paths.iter().map(fs::read).collect::<Result<Vec<_>, _>>().context("read the corpus")?;
        seeds.iter_mut().for_each(|seed| come_from_the_lab(seed));
        ensure!(!seeds.is_empty(), "{} is empty", corpus.display());
        Ok(Self { lab: Lab::new(POLICY)?, seeds, dice: Dice::of(&seed.to_le_bytes()) })
    }

    /// Every packet of the corpus as it is.
    ///
    /// # Errors
    /// When kernel and host disagree, or the kernel refuses to run.
    pub fn replay(&mut self) -> Result<()> {
        for seed in self.seeds.clone() {
            self.compare(&seed)?;
        }
        Ok(())
    }

    /// So many random packets; returns how many of them passed.
    ///
    /// # Errors
    /// When kernel and host disagree, or the kernel refuses to run.
    pub fn rounds(&mut self, count: usize) -> Result<usize> {
        let mut passed = 0;
        for _ in 0..count {
            let packet = self.packet();
            passed += usize::from(self.compare(&packet)?);
        }
        Ok(passed)
    }

    fn compare(&mut self, packet: &[u8]) -> Result<bool> {
        let wanted = self.expected(packet);
        let met = self
            .lab
            .run(Direction::Egress, packet)
            .with_context(|| format!("run {} bytes: {packet:02x?}", packet.len()))?;
        ensure!(met == wanted, "the kernel says {met:?}, the host {wanted:?}, of {packet:02x?}");
        Ok(met.passed)
    }

    fn expected(&self, data: &[u8]) -> Outcome {
        let image = self.lab.image();
        let rule = |number: u32| Some(image.rule(number).name.clone());
        let refused = |reason, number| Outcome { passed: false, refused: Some(reason), rule: rule(number) };
        let packet = match read(data) {
            Ok(packet) => packet,
            Err(reason) => return refused(reason, 0),
        };
        let essential = is_essential_here(&packet);
        if essential && !is_made_up(data) || continues(&packet, data.len()) {
            return Outcome { passed: true, refused: None, rule: None };
        }
        let verdict = decide(image, &packet.outbound(), &Who::EVERYONE, &NameSet::NONE);
        match verdict.action {
            _ if essential => refused(Reason::ForgedSource, 0),
            Action::Allow if is_made_up(data) => refused(Reason::ForgedSource, 0),
            Action::Allow => match unasked(&packet, data) {
                // The flow is counted as allowed first: which of two counters moved is told by the lower rule.
                Some(reason) => refused(reason, 0),
                None => Outcome { passed: true, refused: None, rule: rule(verdict.rule) },
            },
            Action::Deny => refused(verdict.reason, verdict.rule),
        }
    }

    fn packet(&mut self) -> Vec<u8> {
        let mut packet = self.seeds[self.dice.below(self.seeds.len())].clone();
        // Half the changes in the headers, where nearly every byte means something.
        for _ in 0..self.dice.below(5) {
            let at = self.dice.below(packet.len().clamp(1, 64));
            match self.dice.below(8) {
                0 => packet[at] = self.dice.draw() as u8,
                1 => packet[at] ^= 1 << self.dice.below(8),
                2 => packet[at] = TELLING[self.dice.below(TELLING.len())],
                3 => packet.truncate(self.dice.below(packet.len()) + 1),
                4 => packet.insert(at, TELLING[self.dice.below(TELLING.len())]),
                5 => drop(packet.remove(at)),
                6 => {
                    let other = &self.seeds[self.dice.below(self.seeds.len())];
                    packet.truncate(self.dice.below(packet.len()) + 1);
                    packet.extend(&other[self.dice.below(other.len())..]);
                }
                _ => packet.resize(packet.len() + self.dice.below(80), self.dice.draw() as u8),
            }
            if packet.is_empty() {
                packet.push(0x45);
            }
        }
        packet.truncate(PACKET_BYTES_MAX);
        // `BPF_PROG_TEST_RUN` of Linux 6.18 runs nothing shorter than a header of the Ethernet frame's protocol.
        let least = if packet[0] >> 4 == 6 { IPV6_BYTES } else { IPV4_BYTES };
        packet.resize(packet.len().max(least), 0);
        packet
    }
}

/// Bytes that mean something somewhere in a header: versions, protocols, extension headers, options, flags.
const TELLING: [u8; 22] =
    [0, 1, 2, 4, 6, 8, 16, 17, 18, 20, 43, 44, 51, 53, 58, 59, 60, 0x45, 0x4f, 0x60, 131, 136];

/// Gives a packet of the corpus an address of the lab's for its source, if it has one at all.
fn come_from_the_lab(packet: &mut [u8]) {
    let (at, source): (usize, &[u8]) = match packet.first().map(|first| first >> 4) {
        Some(6) => (8, &SOURCE6.octets()),
        _ => (12, &SOURCE4.octets()),
    };
    if let Some(place) = packet.get_mut(at..at + source.len()) {
        place.copy_from_slice(source);
    }
}

/// Whether a packet says that it comes from another host (`dnswall-ebpf/src/source.rs`). The dummy is bound to whatever the
/// packet says; of what is written by hand the kernel's own sockets are not asked.
fn is_made_up(data: &[u8]) -> bool {
    let by_hand = |next_header: u8| !matches!(next_header, 6 | 17 | 136);
    if data[0] >> 4 == 6 {
        let Some(source) = data.get(8..24).and_then(|source| <[u8; 16]>::try_from(source).ok()) else {
            return false;
        };
        let source = Ipv6Addr::from(source);
        let nobodys = source.is_unspecified() || source.is_loopback();
        return !by_hand(data[6]) && !nobodys && source != SOURCE6;
    }
    let source = Ipv4Addr::new(data[12], data[13], data[14], data[15]);
    // The kernel's programs take a source of 0.0.0.0 and of the loopback network for one that the host has; a group's is nobody's.
    let nobodys = source.is_unspecified() || source.is_loopback();
    !by_hand(data[9]) && !nobodys && source != SOURCE4
}

/// What needs no rule of what the kernel itself sends (`verdict_old` in `dnswall-ebpf/src/egress.rs`).
fn is_essential_here(packet: &Packet) -> bool {
    let (flow, transport) = (packet.outbound(), packet.transport);
    is_essential(flow.protocol, transport.source_port, flow.port, flow.address, false)
}

/// What continues a connection that nobody recorded.
fn continues(packet: &Packet, length: usize) -> bool {
    let (flow, transport) = (packet.outbound(), packet.transport);
    // The dummy is no listener and no stream, so only what carries nothing continues a connection.
    flow.protocol == protocol::TCP
        && transport.tcp_flags & TCP_SYN == 0
        && transport.tcp_flags & (TCP_RST | TCP_ACK) != 0
        && length <= packet.payload_offset() as usize
}

/// Why the message in a packet to port 53 may not leave, if it is none or not one whole question. Shares nothing with the
/// kernel's reader.
fn unasked(packet: &Packet, data: &[u8]) -> Option<Reason> {
    let flow = packet.outbound();
    let over_tcp = flow.protocol == protocol::TCP;
    if flow.port != 53 || !(over_tcp || [protocol::UDP, protocol::UDP_LITE].contains(&flow.protocol)) {
        return None;
    }
    let mut message = data.get(packet.payload_offset() as usize..).unwrap_or_default();
    if over_tcp {
        let Some((length, rest)) = message.split_first_chunk::<2>() else {
            return (!message.is_empty()).then_some(Reason::SplitQuestion);
        };
        if usize::from(u16::from_be_bytes(*length)) != rest.len() {
            return Some(Reason::SplitQuestion);
        }
        message = rest;
    }
    let Some((head, name)) = message.split_first_chunk::<12>() else {
        return match message.get(2) {
            Some(flags) if message.len() >= 10 => head_alone(*flags, packet),
            _ => Some(Reason::MalformedQuestion),
        };
    };
    let count = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    if head[2] & 0x80 != 0 && packet.transport.source_port == 53 && !over_tcp {
        return None;
    }
    if head[2] & 0xf8 != 0 {
        return Some(Reason::NotAQuestion);
    }
    if count(4) != 1 || count(6) != 0 || count(8) > 1 {
        return Some(Reason::MalformedQuestion);
    }
    let (mut labels, mut at) = (0, 0);
    loop {
        match name.get(at) {
            None | Some(64..) => return Some(Reason::MalformedQuestion),
            Some(0) => break,
            Some(_) if labels == 40 => return Some(Reason::TooManyLabels),
            Some(length) => {
                labels += 1;
                at += usize::from(*length) + 1;
            }
        }
    }
    let is_whole = at < 255 && name.len() >= at + 5;
    (!is_whole).then_some(Reason::MalformedQuestion)
}

/// What a message is that ends before its header does: the kernel looks at flags first.
fn head_alone(flags: u8, packet: &Packet) -> Option<Reason> {
    if flags & 0x80 != 0 && packet.transport.source_port == 53 && packet.outbound().protocol != protocol::TCP
    {
        return None;
    }
    Some(if flags & 0xf8 != 0 { Reason::NotAQuestion } else { Reason::MalformedQuestion })
}
