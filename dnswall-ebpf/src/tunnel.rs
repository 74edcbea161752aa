//! Tunnels of this host's own. What is sent to one over the loopback device, or to all, the kernel unwraps and sends on, and
//! the packet that leaves belongs to no socket: no program would judge it.

use crate::identity::{UID_UNKNOWN, as_number, field, offsets, pointer};
use crate::packet::half;
use crate::socket;
use aya_ebpf::bindings::{__sk_buff, bpf_sock, bpf_sock_tuple};
use aya_ebpf::helpers::generated::{bpf_sk_lookup_udp, bpf_sk_release, bpf_skb_load_bytes};
use aya_ebpf::programs::SockAddrContext;
use dnswall_common::flow::Address;

/// Bytes of a tuple: two addresses and two ports, as they are in a packet.
const TUPLE4_BYTES: usize = 12;
const TUPLE6_BYTES: usize = 36;
/// Of two ports in one word, the second.
const PORT_SECOND: u32 = if cfg!(target_endian = "little") { 1 << 16 } else { 1 };
/// `BPF_F_CURRENT_NETNS`: the packet's.
const OWN_NAMESPACE: u64 = u64::MAX;

/// `UDP_ENCAP_L2TPINUDP`: this and those below it any process may set for its own socket (`UDP_ENCAP`).
const ANYBODYS_MAX: u8 = 3;
/// `UDP_ENCAP_RXRPC`: unwraps nothing that is sent on.
const RXRPC: u8 = 6;

/// Whether a datagram goes to a socket of which the kernel unwraps what arrives: VXLAN, Geneve, GUE, L2TP, GTP, ESP in UDP.
/// Found as the kernel finds who receives it, but on the loopback device, where what another device's address receives is not
/// found when it is bound to that device. Nobody can share a kernel's own socket's port; whoever shares another's by binding
/// to a device counts as it. Also when the ports, at `ports_at`, cannot be read. A function of its own, for its frame.
#[inline(never)]
pub fn takes(skb: *mut __sk_buff, is_v6: bool, ports_at: u32) -> bool {
    let mut tuple = [0u8; TUPLE6_BYTES];
    let read = |at: u32, to: &mut [u8]| {
        // SAFETY: the slice is live; the helper checks the offset against the packet.
        unsafe { bpf_skb_load_bytes(skb.cast(), at, to.as_mut_ptr().cast(), to.len() as u32) == 0 }
    };
    let is_read = if is_v6 {
        read(8, &mut tuple[..TUPLE6_BYTES - 4]) && read(ports_at, &mut tuple[TUPLE6_BYTES - 4..])
    } else {
        read(12, &mut tuple[..TUPLE4_BYTES - 4]) && read(ports_at, &mut tuple[TUPLE4_BYTES - 4..TUPLE4_BYTES])
    };
    if !is_read {
        return true;
    }
    let destination = if is_v6 {
        Address::V6(half(&tuple, 16), half(&tuple, 24))
    } else {
        Address::V4(half(&tuple, 0) as u32)
    };
    let bytes = if is_v6 { TUPLE6_BYTES } else { TUPLE4_BYTES };
    let tuple = tuple.as_mut_ptr().cast::<bpf_sock_tuple>();
    // SAFETY: the tuple holds so many bytes.
    let found = unsafe { bpf_sk_lookup_udp(skb.cast(), tuple, bytes as u32, OWN_NAMESPACE, 0) };
    unwraps(found, !destination.is_loopback() && !destination.is_group())
}

/// Whether such a socket would hear a datagram to this port, sent to the address as one of this host's: one of the kernel's
/// own, or, if that is asked for, of a process's (IPsec's and GTP's daemons have one, and send to the same port elsewhere).
/// One socket of all that would hear it is found. A function of its own, for its frame.
#[inline(never)]
pub fn listens(ctx: &SockAddrContext, address: u32, port: u16, a_process_too: bool) -> bool {
    // From nobody: a socket that is connected hears its other end alone.
    let mut tuple = [0, address.to_be(), port.to_be() as u32 * PORT_SECOND];
    let tuple = tuple.as_mut_ptr().cast::<bpf_sock_tuple>();
    // SAFETY: the tuple holds so many bytes.
    let found =
        unsafe { bpf_sk_lookup_udp(ctx.sock_addr.cast(), tuple, TUPLE4_BYTES as u32, OWN_NAMESPACE, 0) };
    let is_wanted = a_process_too || (!found.is_null() && socket::is_kernels(as_number(found)));
    unwraps(found, false) && is_wanted
}

/// What became of the search, which is over then. A user who made a tunnel's socket of his own counts for nobody: else he
/// would keep others from a port that he shares with them.
#[inline(always)]
fn unwraps(found: *mut bpf_sock, counts_when_bound_to_device: bool) -> bool {
    if found.is_null() {
        return false;
    }
    let kind = pointer(as_number(found), field!(offsets().udp_encapsulation)) as u8;
    // SAFETY: not null, and not released yet.
    let is_bound = unsafe { (*found).bound_dev_if } != 0;
    let is_users = socket::state(found).is_some_and(|state| !matches!(state.uid, 0 | UID_UNKNOWN));
    // SAFETY: released once, and not used after.
    unsafe { bpf_sk_release(found.cast()) };
    let is_tunnel = kind != 0 && kind != RXRPC && !(kind <= ANYBODYS_MAX && is_users);
    is_tunnel || (is_bound && counts_when_bound_to_device)
}
