//! Reads a packet's headers from the buffer, gives a [`Packet`] or the reason why it is refused.

use crate::socket::{Owner, Zero};
use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use dnswall_common::flow::Flow;
use dnswall_common::name::LabelWords;
use dnswall_common::packet::{
    IPV4_BYTES, IPV6_BYTES, Network, TRANSPORT_BYTES, Transport, ipv4, ipv4_options, ipv6, skip_extensions,
    transport, transport_bytes_min,
};
use dnswall_common::reason::Reason;
use dnswall_common::verifier::{forget, opaque, unbounded};

/// A packet's headers.
pub struct Packet {
    pub network: Network,
    pub transport: Transport,
    /// 4 or 6.
    pub family: u8,
    _padding: u8,
}

// SAFETY: integers, and addresses whose first variant is all zero; whole words (asserted), aligned to 8.
unsafe impl Zero for Packet {}
const _: () = assert!(size_of::<Packet>().is_multiple_of(8) && size_of::<Owner>().is_multiple_of(8));

impl Packet {
    /// Where it goes.
    #[inline(always)]
    pub fn outbound(&self) -> Flow {
        Flow {
            address: self.network.destination,
            protocol: self.network.protocol,
            port: self.transport.destination_port,
        }
    }

    /// Where the payload begins.
    #[inline(always)]
    pub fn payload_offset(&self) -> u32 {
        self.network.header_bytes + self.transport.header_bytes
    }
}

/// Reads the headers into `packet`.
#[inline(always)]
pub fn read(skb: *mut __sk_buff, packet: &mut Packet) -> Result<(), Reason> {
    as_result(read_into(skb, packet))
}

/// Leaves every byte as it is, but the verifier knows none of them any more: a packet read in one of a dozen ways is the
/// same to it as one read in any other, and what follows is walked once, not once a way.
#[inline(always)]
pub fn forget_way(skb: *mut __sk_buff, packet: &mut Packet) {
    // SAFETY: the context is valid. Any number will do that the verifier does not know.
    let unknown = unbounded(unsafe { (*skb).len });
    let words = core::ptr::from_mut(packet).cast::<u64>();
    let mut at = 0;
    // VERIFIER: a round for each word, unrolled.
    while at < size_of::<Packet>() / 8 {
        // SAFETY: inside the packet, which is whole words, all of them written (`zero`).
        unsafe {
            let word = words.add(at);
            word.write_volatile(forget(word.read_volatile(), unknown));
        }
        at += 1;
    }
}

/// What a function of its own answered: 0, or the number of a reason. Not through a table of reasons: the verifier
/// would walk what follows once for each of them.
#[inline(always)]
fn as_result(number: u32) -> Result<(), Reason> {
    if number == 0 {
        return Ok(());
    }
    // SAFETY: the functions of this file answer 0 or `reason as u32`.
    Err(unsafe { core::mem::transmute::<u8, Reason>(number as u8) })
}

/// Reads the headers; 0, or the number of the reason why they cannot be read. A function of its own, for its frame.
#[inline(never)]
fn read_into(skb: *mut __sk_buff, packet: &mut Packet) -> u32 {
    match read_headers(skb, packet) {
        Ok(()) => 0,
        Err(reason) => reason as u32,
    }
}

#[inline(always)]
fn read_headers(skb: *mut __sk_buff, packet: &mut Packet) -> Result<(), Reason> {
    // IPv4 without options whose first 36 bytes lie in the linear part: nearly every packet, read in place.
    if let Some(header) = linear::<{ IPV4_BYTES + TRANSPORT_BYTES }>(skb)
        && header[0] == 0x45
    {
        let (ip, rest) = header.split_at(IPV4_BYTES);
        if let (Ok(ip), Ok(rest)) = (ip.try_into(), rest.try_into()) {
            packet.family = 4;
            ipv4(ip, &mut packet.network)?;
            packet.transport = transport(packet.network.protocol, rest);
            return Ok(());
        }
    }
    packet.family = load::<1>(skb, 0).ok_or(Reason::Malformed)?[0] >> 4;
    if packet.family == 4 {
        ipv4(&load::<IPV4_BYTES>(skb, 0).ok_or(Reason::Malformed)?, &mut packet.network)?;
        if packet.network.has_options {
            as_result(check_options(skb, packet.network.header_bytes))?;
        }
    } else {
        as_result(read_network6(skb, &mut packet.network))?;
    }
    let least = transport_bytes_min(packet.network.protocol);
    if least != 0 {
        let header = load_transport(skb, packet.network.header_bytes, least).ok_or(Reason::Malformed)?;
        packet.transport = transport(packet.network.protocol, &header);
        return Ok(());
    }
    // Of this protocol nothing is read, so nobody has noticed yet when the last extension header is cut off.
    // SAFETY: the context is valid.
    if unsafe { (*skb).len } < packet.network.header_bytes {
        return Err(Reason::Malformed);
    }
    Ok(())
}

/// Reads an IPv6 header and those behind it; 0, or the number of the reason why they cannot be read. A function of its
/// own, for its frame.
#[inline(never)]
fn read_network6(skb: *mut __sk_buff, network: &mut Network) -> u32 {
    let mut header = [0; IPV6_BYTES];
    if !load_into(skb, 0, &mut header) {
        return Reason::Malformed as u32;
    }
    if let Err(reason) = ipv6(&header, network) {
        return reason as u32;
    }
    match skip_extensions(network, |offset| load::<2>(skb, offset)) {
        Ok(()) => 0,
        Err(reason) => reason as u32,
    }
}

/// A number that the verifier does not know. Read anew each time: it would have to be kept on the stack.
#[inline(always)]
pub fn unknown(skb: *mut __sk_buff) -> u64 {
    // SAFETY: the context is valid.
    unbounded(unsafe { core::ptr::addr_of!((*skb).len).read_volatile() })
}

/// The packet's first `N` bytes in place, when they are in the linear part of the buffer.
#[inline(always)]
pub fn linear<'a, const N: usize>(skb: *mut __sk_buff) -> Option<&'a [u8; N]> {
    // SAFETY: the context is valid; `data` and `data_end` are what the verifier bounds packet access with.
    let (start, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    if start + N > end {
        return None;
    }
    // SAFETY: just checked.
    Some(unsafe { &*(start as *const [u8; N]) })
}

/// Half an IPv6 address: eight bytes from `at`, as a number.
#[inline(always)]
pub fn half<const N: usize>(header: &[u8; N], at: usize) -> u64 {
    u64::from_be_bytes([
        header[at],
        header[at + 1],
        header[at + 2],
        header[at + 3],
        header[at + 4],
        header[at + 5],
        header[at + 6],
        header[at + 7],
    ])
}

/// Copies `N` bytes from `offset`, wherever in the buffer they lie.
#[inline(always)]
pub fn load<const N: usize>(skb: *mut __sk_buff, offset: u32) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    load_into(skb, offset, &mut bytes).then_some(bytes)
}

#[inline(always)]
fn load_into<const N: usize>(skb: *mut __sk_buff, offset: u32, bytes: &mut [u8; N]) -> bool {
    // SAFETY: `bytes` holds N bytes; the helper checks the offset against the packet.
    unsafe { bpf_skb_load_bytes(skb.cast(), offset, bytes.as_mut_ptr().cast(), N as u32) == 0 }
}

/// Copies 1 to 64 bytes, and zeroes behind them.
#[inline(always)]
pub fn load_zeroed(skb: *mut __sk_buff, offset: u32, bytes: u32, words: &mut LabelWords) -> bool {
    let unknown = unknown(skb);
    // Of which the verifier does not know that it is zero: words that were not written over would make a state of their own.
    let zero = forget(0, unknown);
    let mut word = 0;
    while word < words.len() {
        // SAFETY: a word of the array. Volatile: the compiler would call `memset`.
        unsafe { core::ptr::addr_of_mut!(words[word]).write_volatile(zero) };
        word += 1;
    }
    // VERIFIER: 1 to 64.
    let bytes = (opaque(bytes.wrapping_sub(1) as u64) & 63) + 1;
    // SAFETY: the words hold 64 bytes; the helper checks the offset against the packet.
    unsafe { bpf_skb_load_bytes(skb.cast(), offset, words.as_mut_ptr().cast(), bytes as u32) == 0 }
}

#[inline(always)]
fn load_transport(skb: *mut __sk_buff, offset: u32, least: u32) -> Option<[u8; TRANSPORT_BYTES]> {
    if let Some(header) = load::<TRANSPORT_BYTES>(skb, offset) {
        return Some(header);
    }
    // A short last header: take what must be there.
    let mut header = [0; TRANSPORT_BYTES];
    match least {
        14 => header[..14].copy_from_slice(&load::<14>(skb, offset)?),
        8 => header[..8].copy_from_slice(&load::<8>(skb, offset)?),
        _ => header[..2].copy_from_slice(&load::<2>(skb, offset)?),
    }
    Some(header)
}

/// 0, or the number of the reason why the options are refused. A function of its own, for its frame.
#[inline(never)]
fn check_options(skb: *mut __sk_buff, header_bytes: u32) -> u32 {
    let mut options = [0; 40];
    let mut at = 0;
    // VERIFIER: ten rounds with constant indices.
    while at < 40 {
        if (IPV4_BYTES + at) as u32 >= header_bytes {
            break;
        }
        let Some(word) = load::<4>(skb, (IPV4_BYTES + at) as u32) else {
            return Reason::Malformed as u32;
        };
        options[at] = word[0];
        options[at + 1] = word[1];
        options[at + 2] = word[2];
        options[at + 3] = word[3];
        at += 4;
    }
    match ipv4_options(&options) {
        Ok(()) => 0,
        Err(reason) => reason as u32,
    }
}
