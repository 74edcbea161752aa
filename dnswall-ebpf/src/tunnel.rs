//! Tunnels of this host's own. What is sent to one over the loopback device, or to all, the kernel unwraps and sends on, and
//! the packet that leaves belongs to no socket: no program would judge it.

use crate::identity::{UID_UNKNOWN, as_number, field, offsets, pointer};
use crate::packet::half;
use crate::socket;
use aya_ebpf::bindings::{__sk_buff, bpf_sock, bpf_sock_tuple};
use aya_ebpf::helpers::generated::{bpf_sk_lookup_udp, bpf_sk_release, bpf_skb_load_bytes};
use aya_ebpf::programs::SockAddrContext;

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
/// Found as the kernel finds who receives it, but on the loopback device: what is bound to another device, and receives for
/// that one's address, is not found. Nobody can share the port of the kernel's own socket that is bound to none; whoever
/// shares a process's by binding to the loopback device counts as it. Also when the ports, at `ports_at`, cannot be
/// read. A function of its own, for its frame.
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
    // The destination is behind the source. Flags, not an address: there is little stack.
    let (is_group, is_loopback) =
        if is_v6 { (tuple[16] == 0xff, half(&tuple, 16) == 0) } else { (tuple[4] >= 224, tuple[4] == 127) };
    let bytes = if is_v6 { TUPLE6_BYTES } else { TUPLE4_BYTES };
    let tuple = tuple.as_mut_ptr().cast::<bpf_sock_tuple>();
    // SAFETY: the tuple holds so many bytes.
    let found = unsafe { bpf_sk_lookup_udp(skb.cast(), tuple, bytes as u32, OWN_NAMESPACE, 0) };
    unwraps(found, is_group, !is_group && !is_loopback)
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
    unwraps(found, a_process_too, false) && is_wanted
}

/// What became of the search, which is over then. Where many may hear it, a user who made a tunnel's socket of his own counts
/// for nobody: else he would keep others from a port that he shares with them.
#[inline(always)]
fn unwraps(found: *mut bpf_sock, by_many: bool, counts_when_bound_to_device: bool) -> bool {
    if found.is_null() {
        return false;
    }
    let number = as_number(found);
    let kind = pointer(number, field!(offsets().udp_encapsulation)) as u8;
    // SAFETY: not null, and not released yet.
    let is_bound = unsafe { (*found).bound_dev_if } != 0;
    let is_users = by_many
        && kind <= ANYBODYS_MAX
        && !socket::is_kernels(number)
        && socket::state(found).is_some_and(|state| !matches!(state.uid, 0 | UID_UNKNOWN));
    // SAFETY: released once, and not used after.
    unsafe { bpf_sk_release(found.cast()) };
    (kind != 0 && kind != RXRPC && !is_users) || (is_bound && counts_when_bound_to_device)
}
