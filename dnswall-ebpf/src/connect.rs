//! `connect()` and unconnected sends: records who asks, and refuses a TCP connection before its first packet.

use crate::emit::{self, Refusal};
use crate::identity;
use crate::image::{KernelImage, decide};
use crate::socket::{self, Owner, zero};
use aya_ebpf::bindings::{bpf_sock, bpf_sock_tuple};
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_sk_lookup_tcp, bpf_sk_release,
};
use aya_ebpf::programs::SockAddrContext;
use core::mem::MaybeUninit;
use dnswall_common::event::hook;
use dnswall_common::flow::{Address, Flow, protocol};
use dnswall_common::image::{MODE_AUDIT, MODE_ENFORCE};
use dnswall_common::reason::{Action, Verdict};
use dnswall_common::socket::{SOCKET_INBOUND, SocketState};
use dnswall_common::who::Who;

const ALLOW: i32 = 1;
/// The system call fails with EPERM.
const REFUSE: i32 = 0;
/// `BPF_F_CURRENT_NETNS`: the socket's own network namespace.
const SOCKETS_NETNS: u64 = u64::MAX;

/// `connect()` to an IPv4 address.
#[inline(always)]
pub fn connect4(ctx: &SockAddrContext) -> i32 {
    // SAFETY: the context is valid.
    let (address, port) = unsafe {
        let at = &*ctx.sock_addr;
        (Address::V4(u32::from_be(at.user_ip4)), u16::from_be(at.user_port as u16))
    };
    connect(ctx, address, port)
}

/// `connect()` to an IPv6 address, or to an IPv4 one written as IPv6.
#[inline(always)]
pub fn connect6(ctx: &SockAddrContext) -> i32 {
    // SAFETY: the context is valid. The fields are read word by word: the verifier knows them as such.
    let (address, port) = unsafe {
        let at = ctx.sock_addr;
        let words = [
            u32::from_be((*at).user_ip6[0]) as u64,
            u32::from_be((*at).user_ip6[1]) as u64,
            u32::from_be((*at).user_ip6[2]) as u64,
            u32::from_be((*at).user_ip6[3]) as u64,
        ];
        let (high, low) = (words[0] << 32 | words[1], words[2] << 32 | words[3]);
        let address =
            if high == 0 && low >> 32 == 0xffff { Address::V4(low as u32) } else { Address::V6(high, low) };
        (address, u16::from_be((*at).user_port as u16))
    };
    connect(ctx, address, port)
}

/// An unconnected send: who asks is recorded anew when it is not the process that was recorded. The packet itself is
/// judged on its way out, where `sendto()` gets the error just as soon.
#[inline(always)]
pub fn sendmsg(ctx: &SockAddrContext) -> i32 {
    if let Some(image) = KernelImage::active() {
        // SAFETY: the context's socket is never null.
        let sk = unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk };
        // SAFETY: as above.
        if let Some(state) = unsafe { socket::state_or_create(sk) }
            && (is_anothers(ctx, state) || identity::changed(state))
        {
            record(ctx, state, &image);
        }
    }
    ALLOW
}

#[inline(always)]
fn connect(ctx: &SockAddrContext, address: Address, port: u16) -> i32 {
    let Some(image) = KernelImage::active() else {
        return ALLOW;
    };
    // SAFETY: the context is valid and its socket never null.
    let (sk, next_header): (*mut bpf_sock, u32) =
        unsafe { ((*ctx.sock_addr).__bindgen_anon_1.sk, (*ctx.sock_addr).protocol) };
    // SAFETY: as above.
    let Some(state) = (unsafe { socket::state_or_create(sk) }) else {
        // Judged on its way out by cgroup and user alone.
        return ALLOW;
    };
    if is_anothers(ctx, state) || identity::changed(state) {
        record(ctx, state, &image);
    }
    // A UDP connect sends nothing and is how address sorting works; its datagrams are judged on their way out.
    if next_header != protocol::TCP as u32 {
        return ALLOW;
    }
    let unspecified = matches!(address, Address::V4(0) | Address::V6(0, 0));
    if address.is_loopback() || unspecified {
        return ALLOW;
    }
    let flow = Flow { address, protocol: protocol::TCP, port };
    if may_connect(ctx, &image, state, &flow) { ALLOW } else { REFUSE }
}

/// Whether the connection may begin. A function of its own: its frame must not lie under the cgroup walk.
#[inline(never)]
fn may_connect(ctx: &SockAddrContext, image: &KernelImage, state: &mut SocketState, flow: &Flow) -> bool {
    let who = socket::who(state, image);
    let verdict = decide(image, flow, &who);
    if verdict.action == Action::Allow {
        emit::allowed(image, &verdict);
        socket::remember_allowed(state, image, flow);
        return true;
    }
    if image.header().treatment(&who).0 == MODE_AUDIT {
        // Reported on its way out, once.
        return true;
    }
    if listens_here(ctx, flow) {
        // Perhaps one of this host's own addresses; where the packet goes is only known on its way out.
        return true;
    }
    refuse(image, state, &who, &verdict, flow);
    false
}

/// Tells of a refused connection. A function of its own: its frame must not lie under the cgroup walk.
#[inline(never)]
fn refuse(image: &KernelImage, state: &SocketState, who: &Who, verdict: &Verdict, flow: &Flow) {
    let mut owner = MaybeUninit::<Owner>::uninit();
    let owner = zero(&mut owner);
    owner.who = *who;
    socket::describe(state, owner);
    let refusal = Refusal {
        hook: hook::CONNECT,
        mode: MODE_ENFORCE,
        family: if matches!(flow.address, Address::V4(_)) { 4 } else { 6 },
        protocol: protocol::TCP,
        source: [0; 2],
        destination: flow.address.to_words(),
        source_port: 0,
        destination_port: flow.port,
        packet_bytes: 0,
        skb: core::ptr::null_mut(),
        payload_offset: 0,
    };
    emit::refused(image, owner, verdict, &refusal);
}

/// Whether the storage is a listener's copy, or says that the socket was accepted: what connects or sends of its own
/// accord is recorded anew, so that nothing it was accepted with counts for where it goes now.
#[inline(always)]
fn is_anothers(ctx: &SockAddrContext, state: &SocketState) -> bool {
    // SAFETY: the context is valid.
    state.flags & SOCKET_INBOUND != 0
        || state.cookie != unsafe { bpf_get_socket_cookie(ctx.sock_addr.cast()) }
}

#[inline(always)]
fn record(ctx: &SockAddrContext, state: &mut SocketState, image: &KernelImage) {
    // SAFETY: the context is valid.
    let (cookie, netns) =
        unsafe { (bpf_get_socket_cookie(ctx.sock_addr.cast()), bpf_get_netns_cookie(ctx.sock_addr.cast())) };
    state.flags &= !SOCKET_INBOUND;
    identity::record(state, image, cookie, netns);
}

/// Whether something in the socket's network namespace listens on that address and port. A wildcard listener answers
/// for every address, so "yes" only means that the packet has to show where it goes.
#[inline(never)]
fn listens_here(ctx: &SockAddrContext, flow: &Flow) -> bool {
    // SAFETY: an all-zero tuple of integers.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let size = match flow.address {
        Address::V4(address) => {
            tuple.__bindgen_anon_1.ipv4.daddr = address.to_be();
            tuple.__bindgen_anon_1.ipv4.dport = flow.port.to_be();
            12
        }
        Address::V6(high, low) => {
            tuple.__bindgen_anon_1.ipv6.daddr = [
                ((high >> 32) as u32).to_be(),
                (high as u32).to_be(),
                ((low >> 32) as u32).to_be(),
                (low as u32).to_be(),
            ];
            tuple.__bindgen_anon_1.ipv6.dport = flow.port.to_be();
            36
        }
    };
    // SAFETY: the tuple holds `size` bytes; what is found is released.
    unsafe {
        let tuple = core::ptr::addr_of_mut!(tuple);
        let found = if size == 12 {
            bpf_sk_lookup_tcp(ctx.sock_addr.cast(), tuple, 12, SOCKETS_NETNS, 0)
        } else {
            bpf_sk_lookup_tcp(ctx.sock_addr.cast(), tuple, 36, SOCKETS_NETNS, 0)
        };
        if found.is_null() {
            return false;
        }
        bpf_sk_release(found.cast());
    }
    true
}
