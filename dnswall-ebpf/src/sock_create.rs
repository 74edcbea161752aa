//! `socket()`: records who made it, and refuses raw sockets that no `[raw]` entry allows.

use crate::emit::{self, Refusal};
use crate::identity;
use crate::image::KernelImage;
use crate::socket::{self, Owner, zero};
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie};
use core::mem::MaybeUninit;
use dnswall_common::event::hook;
use dnswall_common::flow::protocol;
use dnswall_common::image::{MODE_AUDIT, MODE_ENFORCE};
use dnswall_common::reason::{Action, Reason, Verdict};
use dnswall_common::socket::{SOCKET_RAW, SocketState};
use dnswall_common::unjudged::family;
use dnswall_common::who::Who;

const ALLOW: i32 = 1;
/// The system call fails with EPERM.
const REFUSE: i32 = 0;
/// `SOCK_RAW`
const TYPE_RAW: u32 = 3;

/// Judges one new socket. 5.10 and 6.1 want literal return values here.
#[inline(always)]
pub fn judge(sk: *mut bpf_sock) -> i32 {
    let Some(image) = KernelImage::active() else {
        return ALLOW;
    };
    // SAFETY: the context is the socket.
    let Some(state) = (unsafe { socket::create_state(sk) }) else {
        // Nobody would know whose it is: a process can see to it that there is no memory (`net.core.optmem_max`).
        return if image.header().treatment(&Who::NONE).0 == MODE_ENFORCE { REFUSE } else { ALLOW };
    };
    // SAFETY: the context is valid.
    let (cookie, netns) = unsafe { (bpf_get_socket_cookie(sk.cast()), bpf_get_netns_cookie(sk.cast())) };
    state.never_heard = 1;
    identity::record(state, &image, cookie, netns);
    // SAFETY: as above.
    let (kind, next_header, family) = unsafe { ((*sk).type_, (*sk).protocol, (*sk).family) };
    if next_header == protocol::SMC {
        // Told as what it is: a socket of that family.
        return if may_be(&image, state, Reason::UnjudgedSocket, 0, family::SMC) { ALLOW } else { REFUSE };
    }
    if kind != TYPE_RAW {
        return ALLOW;
    }
    state.flags |= SOCKET_RAW;
    // ICMP is judged packet by packet: neighbour discovery needs such sockets.
    if next_header == protocol::ICMP as u32 || next_header == protocol::ICMPV6 as u32 {
        return ALLOW;
    }
    if may_be(&image, state, Reason::RawSocket, next_header, family) { ALLOW } else { REFUSE }
}

/// Whether this owner may have a raw socket, or one whose traffic the wall does not see; `reason` is why not. A function of
/// its own: its frame must not lie under the cgroup walk.
#[inline(never)]
fn may_be(
    image: &KernelImage,
    state: &mut SocketState,
    reason: Reason,
    next_header: u32,
    family: u32,
) -> bool {
    let mut owner = MaybeUninit::<Owner>::uninit();
    let owner = zero(&mut owner);
    socket::recorded_owner(state, image, owner);
    let header = image.header();
    let is_raw = reason as u8 == Reason::RawSocket as u8;
    let those = if is_raw { &header.raw } else { &header.unjudged };
    if those.intersects(&owner.who) {
        return true;
    }
    let verdict = Verdict::without_rule(Action::Deny, reason);
    let (mode, _) = image.header().treatment(&owner.who);
    let refusal = Refusal {
        key: emit::key(
            owner,
            verdict.reason,
            [0; 2],
            next_header as u8,
            if is_raw { 0 } else { family as u16 },
            0,
        ),
        hook: if is_raw { hook::SOCK_CREATE } else { hook::SOCKET },
        mode,
        family: match family {
            family::INET => 4,
            family::INET6 => 6,
            _ => 0,
        },
        source: [0; 2],
        source_port: 0,
        packet_bytes: 0,
        skb: core::ptr::null_mut(),
        payload_offset: 0,
    };
    emit::refused(image, owner, state, &verdict, &refusal);
    mode == MODE_AUDIT
}
