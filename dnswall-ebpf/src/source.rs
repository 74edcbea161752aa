//! Whether a packet comes from where it says. A process that gives itself another's address sends to itself, or to whom
//! it may, and the answer goes to the other: the kernel's own reset, error, echo or handshake, or an innocent server's.
//!
//! `bind()` and the source that a control message names tell which sockets do it ([`SOCKET_FOREIGN`]); `egress.rs` refuses
//! what they send, unless `[unjudged]` names whose they are.
//!
//! [`SOCKET_FOREIGN`]: dnswall_common::socket::SOCKET_FOREIGN

use crate::local_address::may_be_local;
use crate::packet::{half, linear};
use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use dnswall_common::flow::Address;
use dnswall_common::packet::{IPV4_BYTES, IPV6_BYTES};

/// Whether an address a socket takes for its own is another's. Whoever is bound to a group, or to none, sends from an
/// address the kernel chooses. A function of its own, for its frame.
#[inline(never)]
pub fn is_not_ours(sk: *mut bpf_sock, address: &Address) -> bool {
    let nobodys = match *address {
        Address::V4(address) => address == 0 || address >= 0xe000_0000,
        Address::V6(high, low) => (high == 0 && low == 0) || high >> 56 == 0xff,
    };
    !nobodys && !address.is_loopback() && !may_be_local(sk, address)
}

/// Whether a packet on the loopback device plainly says where it comes from: the same address it goes to, or a loopback
/// address. Nearly all do. A function of its own, for its frame.
#[inline(never)]
pub fn is_plain(skb: *mut __sk_buff) -> bool {
    // Volatile, so that the compiler keeps the context an argument: the verifier takes no packet pointers there.
    // SAFETY: the context is valid.
    if unsafe { core::ptr::addr_of!((*skb).len).read_volatile() } < IPV4_BYTES as u32 {
        return false;
    }
    if let Some(header) = linear::<IPV6_BYTES>(skb)
        && header[0] >> 4 == 6
    {
        let (high, low) = (half(header, 8), half(header, 16));
        return (high == half(header, 24) && low == half(header, 32)) || (high == 0 && low == 1);
    }
    match linear::<IPV4_BYTES>(skb) {
        Some(header) if header[0] >> 4 == 4 => {
            header[12] == 127
                || (header[12] ^ header[16])
                    | (header[13] ^ header[17])
                    | (header[14] ^ header[18])
                    | (header[15] ^ header[19])
                    == 0
        }
        _ => false,
    }
}
