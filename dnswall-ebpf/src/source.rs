//! Whether a packet comes from where it says. A process that gives itself another's address sends to itself, or to whom
//! it may, and the answer goes to the other: the kernel's own reset, error, echo or handshake, or an innocent server's.
//!
//! `bind()` and the source that a control message names tell which sockets do it ([`SOCKET_FOREIGN`]); `egress.rs` refuses
//! what they send, unless `[unjudged]` names whose they are.
//!
//! [`SOCKET_FOREIGN`]: dnswall_common::socket::SOCKET_FOREIGN

use crate::local_address::may_be_local;
use crate::packet::{half, linear};
use crate::socket;
use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::bpf_sk_fullsock;
use dnswall_common::flow::{Address, protocol};
use dnswall_common::packet::{IPV4_BYTES, IPV6_BYTES};
use dnswall_common::verifier::forget;

/// `SOCK_RAW`
const TYPE_RAW: u32 = 3;

/// Whether an address a socket takes for its own is another's. Whoever is bound to a group, or to none, sends from an
/// address the kernel chooses. A function of its own, for its frame.
#[inline(never)]
pub fn is_not_ours(sk: *mut bpf_sock, address: &Address) -> bool {
    let nobodys = match *address {
        Address::V4(address) => address == 0 || address >> 28 == 0xe || address == u32::MAX,
        Address::V6(high, low) => (high == 0 && low == 0) || high >> 56 == 0xff,
    };
    !nobodys && !address.is_loopback() && !may_be_local(sk, address)
}

/// Whether a packet on the loopback device plainly says where it comes from: a loopback address, or the same address it
/// goes to, which a raw socket may have made up; and has nothing between its headers that leads it elsewhere. Nearly all
/// do. A function of its own, for its frame.
#[inline(never)]
pub fn is_plain(skb: *mut __sk_buff) -> bool {
    // Volatile, so that the compiler keeps the context an argument: the verifier takes no packet pointers there.
    // SAFETY: the context is valid.
    if unsafe { core::ptr::addr_of!((*skb).len).read_volatile() } < IPV4_BYTES as u32 {
        return false;
    }
    let to_itself = if let Some(header) = linear::<IPV6_BYTES>(skb)
        && header[0] >> 4 == 6
    {
        if !matches!(header[6], protocol::TCP | protocol::UDP | protocol::ICMPV6) {
            return false;
        }
        let (high, low) = (half(header, 8), half(header, 16));
        if high == 0 && low == 1 {
            return true;
        }
        high == half(header, 24) && low == half(header, 32)
    } else if let Some(header) = linear::<IPV4_BYTES>(skb)
        && header[0] == 0x45
    {
        if header[12] == 127 {
            return true;
        }
        (header[12] ^ header[16])
            | (header[13] ^ header[17])
            | (header[14] ^ header[18])
            | (header[15] ^ header[19])
            == 0
    } else {
        false
    };
    to_itself && !is_raw(socket::of(skb))
}

/// 1 when a raw or ping socket's packet says that it comes from another host. Of these nobody sees what they are bound
/// to, or what they write into their headers. A number that the verifier does not know: it would walk what follows once for
/// each answer. A function of its own, for its frame.
#[inline(never)]
pub fn is_made_up(skb: *mut __sk_buff) -> u8 {
    // SAFETY: the context is valid. Volatile: see `is_plain`.
    let length = unsafe { core::ptr::addr_of!((*skb).len).read_volatile() };
    let sk = socket::of(skb);
    if sk.is_null() || !(is_raw(sk) || is_ping(sk)) {
        return 0;
    }
    let source = if let Some(header) = linear::<IPV6_BYTES>(skb)
        && header[0] >> 4 == 6
    {
        Address::V6(half(header, 8), half(header, 16))
    } else if let Some(header) = linear::<IPV4_BYTES>(skb) {
        Address::V4(u32::from_be_bytes([header[12], header[13], header[14], header[15]]))
    } else {
        return 1;
    };
    forget(is_not_ours(sk, &source) as u64, length as u64) as u8
}

/// Whether whoever sends writes headers of its own: a raw socket, the kernel's own among them.
#[inline(always)]
fn is_raw(sk: *mut bpf_sock) -> bool {
    if sk.is_null() {
        return false;
    }
    // SAFETY: checked for null; the helper answers null for anything but a full socket.
    let full = unsafe { bpf_sk_fullsock(sk) };
    // SAFETY: as above.
    !full.is_null() && unsafe { (*full).type_ } == TYPE_RAW
}

#[inline(always)]
fn is_ping(sk: *mut bpf_sock) -> bool {
    // SAFETY: checked for null by the caller; the helper answers null for anything but a full socket.
    let full = unsafe { bpf_sk_fullsock(sk) };
    // SAFETY: as above.
    !full.is_null() && matches!(unsafe { (*full).protocol } as u8, protocol::ICMP | protocol::ICMPV6)
}
