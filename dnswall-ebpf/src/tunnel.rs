//! Tunnels of this host's own. What is sent to one over the loopback device the kernel unwraps and sends on, and the packet
//! that leaves belongs to no socket: no program would judge it.

use crate::identity::{as_number, field, offsets, pointer};
use aya_ebpf::bindings::{__sk_buff, bpf_sock, bpf_sock_tuple};
use aya_ebpf::helpers::generated::{bpf_sk_lookup_udp, bpf_sk_release, bpf_skb_load_bytes};

/// Bytes of a tuple: two addresses and two ports, as they are in a packet.
const TUPLE4_BYTES: usize = 12;
const TUPLE6_BYTES: usize = 36;
/// `BPF_F_CURRENT_NETNS`: the packet's.
const OWN_NAMESPACE: u64 = u64::MAX;

/// Whether a datagram goes to a socket of which the kernel unwraps what arrives: VXLAN, Geneve, GUE, L2TP, GTP, ESP in UDP.
/// Found as the kernel finds who receives it; nobody can share such a socket's port. Also when the ports, at `ports_at`,
/// cannot be read. A function of its own, for its frame.
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
    let tuple = tuple.as_mut_ptr().cast::<bpf_sock_tuple>();
    let bytes = if is_v6 { TUPLE6_BYTES } else { TUPLE4_BYTES };
    // SAFETY: the tuple holds so many bytes.
    let found: *mut bpf_sock =
        unsafe { bpf_sk_lookup_udp(skb.cast(), tuple, bytes as u32, OWN_NAMESPACE, 0) };
    if found.is_null() {
        return false;
    }
    let kind = pointer(as_number(found), field!(offsets().udp_encapsulation)) as u8;
    // SAFETY: released once, and not used after.
    unsafe { bpf_sk_release(found.cast()) };
    kind != 0
}
