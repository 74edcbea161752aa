//! Where a question is in a packet that may pass otherwise.

use crate::image::KernelImage;
use crate::packet::{Packet, linear};
use aya_ebpf::bindings::__sk_buff;
use dnswall_common::flow::{PORT_DNS, protocol};
use dnswall_common::packet::{IPV4_BYTES, IPV6_BYTES, TCP_URG};

/// Where a DNS message begins in a packet, as a number that [`Place::number`] makes, greater than [`PASS`].
#[derive(Clone, Copy)]
pub struct Place(pub u32);

/// Bits of [`Place`] that are the offset of what follows the transport header.
pub const OFFSET: u32 = 0xffff;
/// [`Place`]: over TCP, where a message follows its length.
pub const OVER_TCP: u32 = 1 << 16;
/// [`Place`]: from port 53, as a DNS server answers one that asks from there.
pub const FROM_SERVER: u32 = 1 << 17;
/// [`Place`]: the slot of the image that allowed the packet.
const SLOT: u32 = 1 << 18;
/// [`Place`]: a byte of it is urgent, which the other end takes out of what it reads.
pub const URGENT: u32 = 1 << 19;
/// [`Place`]: a segment that a process wrote by hand, beside those of a connection.
pub const BY_HAND: u32 = 1 << 20;

/// What a packet with plain headers is to this room.
pub enum Plain {
    /// Not to a DNS server.
    Other,
    /// A message that begins there.
    Message(Place),
    /// Not plain enough to say.
    Unread,
}

impl Place {
    /// Of a packet that was read; `is_raw`: of a raw socket's.
    #[inline(always)]
    pub fn of(packet: &Packet, slot: u32, is_raw: bool) -> Option<Self> {
        let transport = &packet.transport;
        let next_header = packet.network.protocol;
        let is_udp = matches!(next_header, protocol::UDP | protocol::UDP_LITE);
        if transport.destination_port != PORT_DNS || !(is_udp || next_header == protocol::TCP) {
            return None;
        }
        let place = Self::new(packet.payload_offset(), !is_udp, transport.source_port == PORT_DNS, slot);
        let by_hand = if is_raw { BY_HAND } else { 0 };
        Some(Self(place.urgent(transport.tcp_flags).0 | by_hand))
    }

    /// With what a TCP header's flags say of urgent data; they are 0 of other packets.
    #[inline(always)]
    fn urgent(self, tcp_flags: u8) -> Self {
        Self(self.0 | if tcp_flags & TCP_URG != 0 { URGENT } else { 0 })
    }

    #[inline(always)]
    fn new(offset: u32, over_tcp: bool, from_server: bool, slot: u32) -> Self {
        let over_tcp = if over_tcp { OVER_TCP } else { 0 };
        let from_server = if from_server { FROM_SERVER } else { 0 };
        Self((offset & OFFSET) | over_tcp | from_server | ((slot & 1) * SLOT))
    }

    /// For a function that answers with a number. No header ends before its second byte.
    #[inline(always)]
    pub fn number(self) -> i32 {
        self.0 as i32
    }

    #[inline(always)]
    pub fn image(self) -> Option<KernelImage> {
        KernelImage::in_slot(u32::from(self.0 & SLOT != 0))
    }
}

/// Looks for a message to a DNS server behind headers without options, in place.
#[inline(always)]
pub fn plain(skb: *mut __sk_buff, slot: u32) -> Plain {
    if let Some(header) = linear::<{ IPV6_BYTES + 8 }>(skb)
        && header[0] >> 4 == 6
    {
        let next_header = header[6];
        if !matches!(next_header, protocol::TCP | protocol::UDP) {
            return Plain::Other;
        }
        if header[42] != 0 || header[43] != PORT_DNS as u8 {
            return Plain::Other;
        }
        let from_server = header[40] == 0 && header[41] == PORT_DNS as u8;
        if next_header == protocol::UDP {
            return Plain::Message(Place::new(IPV6_BYTES as u32 + 8, false, from_server, slot));
        }
        let Some(header) = linear::<{ IPV6_BYTES + 20 }>(skb) else { return Plain::Unread };
        let bytes = (header[52] >> 4) as u32 * 4;
        let place = Place::new(IPV6_BYTES as u32 + bytes, true, from_server, slot);
        return Plain::Message(place.urgent(header[53]));
    }
    let Some(header) = linear::<{ IPV4_BYTES + 8 }>(skb) else { return Plain::Unread };
    if header[0] != 0x45 || (header[6] & 0x3f) | header[7] != 0 {
        return Plain::Unread;
    }
    let next_header = header[9];
    if !matches!(next_header, protocol::TCP | protocol::UDP) {
        return Plain::Other;
    }
    if header[22] != 0 || header[23] != PORT_DNS as u8 {
        return Plain::Other;
    }
    let from_server = header[20] == 0 && header[21] == PORT_DNS as u8;
    if next_header == protocol::UDP {
        return Plain::Message(Place::new(IPV4_BYTES as u32 + 8, false, from_server, slot));
    }
    let Some(header) = linear::<{ IPV4_BYTES + 20 }>(skb) else { return Plain::Unread };
    let bytes = (header[32] >> 4) as u32 * 4;
    Plain::Message(Place::new(IPV4_BYTES as u32 + bytes, true, from_server, slot).urgent(header[33]))
}
