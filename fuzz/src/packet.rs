//! Packets: the host's build of the reader that the kernel's programs use, put together as they do.

use dnswall_common::flow::{Address, Flow};
use dnswall_common::packet::{
    IPV4_BYTES, IPV6_BYTES, Network, TRANSPORT_BYTES, Transport, ipv4, ipv4_options, ipv6, is_essential,
    skip_extensions, transport, transport_bytes_min,
};
use dnswall_common::reason::Reason;

/// The headers of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The network header.
    pub network: Network,
    /// The transport header.
    pub transport: Transport,
}

impl Packet {
    /// Where it goes.
    pub fn outbound(&self) -> Flow {
        Flow {
            address: self.network.destination,
            protocol: self.network.protocol,
            port: self.transport.destination_port,
        }
    }

    /// Where the payload begins.
    pub fn payload_offset(&self) -> u32 {
        self.network.header_bytes + self.transport.header_bytes
    }
}

/// Reads a packet as `dnswall-ebpf/src/packet.rs` does.
///
/// # Errors
/// The reason why it is refused.
pub fn read(data: &[u8]) -> Result<Packet, Reason> {
    let mut network = Network::EMPTY;
    let version = data.first().ok_or(Reason::Malformed)? >> 4;
    if version == 4 {
        ipv4(&take::<IPV4_BYTES>(data, 0).ok_or(Reason::Malformed)?, &mut network)?;
        if network.has_options {
            let end = network.header_bytes as usize;
            let written = data.get(IPV4_BYTES..end).ok_or(Reason::Malformed)?;
            let mut options = [0; 40];
            options[..written.len()].copy_from_slice(written);
            ipv4_options(&options)?;
        }
    } else {
        ipv6(&take::<IPV6_BYTES>(data, 0).ok_or(Reason::Malformed)?, &mut network)?;
        skip_extensions(&mut network, |offset| take::<2>(data, offset as usize))?;
    }
    let least = transport_bytes_min(network.protocol) as usize;
    let mut header = [0; TRANSPORT_BYTES];
    let rest = data.get(network.header_bytes as usize..).unwrap_or_default();
    if least != 0 {
        if rest.len() < least {
            return Err(Reason::Malformed);
        }
        let known = if rest.len() >= TRANSPORT_BYTES { TRANSPORT_BYTES } else { least };
        header[..known].copy_from_slice(&rest[..known]);
        return Ok(Packet { network, transport: transport(network.protocol, &header) });
    }
    if data.len() < network.header_bytes as usize {
        return Err(Reason::Malformed);
    }
    Ok(Packet { network, transport: Transport::EMPTY })
}

fn take<const N: usize>(data: &[u8], offset: usize) -> Option<[u8; N]> {
    data.get(offset..)?.first_chunk().copied()
}

/// What must hold of every packet.
pub fn check(data: &[u8]) {
    let packet = match read(data) {
        Ok(packet) => packet,
        Err(reason) => return check_refused(data, reason),
    };
    let Packet { network, transport } = packet;
    let least = transport_bytes_min(network.protocol);
    assert!((network.header_bytes + least) as usize <= data.len(), "read past the end: {packet:?}");
    assert!(network.header_bytes >= 20 && transport.header_bytes <= 60, "{packet:?}");
    // A header that was read is what it is, whatever follows: 16 bytes of it are looked at, those beyond never.
    let looked_at = (network.header_bytes as usize + TRANSPORT_BYTES).min(data.len());
    if data.len() >= network.header_bytes as usize + TRANSPORT_BYTES || least == 0 {
        assert_eq!(read(&[data, b"tail"].concat()), Ok(packet));
        assert_eq!(read(&data[..looked_at]), Ok(packet));
    }
    // Every shorter piece is refused, or the same packet: none is read as another one.
    for end in (0..looked_at).rev() {
        if let Ok(piece) = read(&data[..end]) {
            assert_eq!(piece.outbound(), packet.outbound(), "cut to {end} bytes it goes elsewhere");
            assert_eq!(piece.transport.tcp_flags, transport.tcp_flags);
        }
    }
    let flow = packet.outbound();
    let essential = |from_process| {
        is_essential(flow.protocol, transport.source_port, flow.port, flow.address, from_process)
    };
    assert!(
        !essential(true) || essential(false) || flow.protocol == 58,
        "a process may what the kernel may not"
    );
    check_family(data, &packet);
}

/// On the wire an address is of the packet's own family, mapped or not: no IPv6 packet meets an IPv4 rule.
fn check_family(data: &[u8], packet: &Packet) {
    let is_v4 = data[0] >> 4 == 4;
    for address in [packet.network.source, packet.network.destination] {
        assert_eq!(matches!(address, Address::V4(_)), is_v4, "{packet:?}");
    }
    // As an event carries it, an address reads back; a mapped one as the IPv4 address it names.
    let [high, low] = packet.network.destination.to_words();
    let bytes = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
    let again = Address::from_v6_bytes(&bytes);
    let is_mapped = high == 0 && low >> 32 == 0xffff;
    assert_eq!(again, if is_mapped { Address::V4(low as u32) } else { packet.network.destination });
}

fn check_refused(data: &[u8], reason: Reason) {
    let form = [Reason::Malformed, Reason::Fragment, Reason::SourceRoute, Reason::ExtensionHeaders];
    assert!(form.contains(&reason), "{reason:?}");
    // Only what is cut off may become readable when more follows.
    if reason != Reason::Malformed {
        assert_eq!(read(&[data, &[0; 64]].concat()), Err(reason));
    }
}
