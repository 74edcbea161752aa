//! `connect()` and unconnected sends: records who asks, and refuses a TCP connection before its first packet.

use crate::bind;
use crate::emit::{self, Refusal};
use crate::group;
use crate::identity;
use crate::image::{KernelImage, decide};
use crate::local_address::may_be_ours;
use crate::program;
use crate::socket::{self, Owner, zero};
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_setsockopt};
use aya_ebpf::programs::SockAddrContext;
use core::mem::MaybeUninit;
use dnswall_common::event::hook;
use dnswall_common::flow::{Address, Flow, PORT_DNS, protocol};
use dnswall_common::image::MODE_AUDIT;
use dnswall_common::reason::{Action, Verdict};
use dnswall_common::socket::{SOCKET_FOREIGN, SOCKET_INBOUND, SocketState};

const ALLOW: i32 = 1;
/// The system call fails with EPERM.
const REFUSE: i32 = 0;

/// `connect()` to an IPv4 address.
#[inline(always)]
pub fn connect4(ctx: &SockAddrContext) -> i32 {
    connect(ctx, destination4)
}

/// `connect()` to an IPv6 address, or to an IPv4 one written as IPv6.
#[inline(always)]
pub fn connect6(ctx: &SockAddrContext) -> i32 {
    connect(ctx, destination6)
}

#[inline(always)]
pub fn destination4(ctx: &SockAddrContext) -> (Address, u16) {
    // SAFETY: the context is valid.
    unsafe {
        let at = &*ctx.sock_addr;
        (Address::V4(u32::from_be(at.user_ip4)), u16::from_be(at.user_port as u16))
    }
}

#[inline(always)]
pub fn destination6(ctx: &SockAddrContext) -> (Address, u16) {
    // SAFETY: the context is valid. The fields are read word by word: the verifier knows them as such.
    unsafe {
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
    }
}

/// An unconnected send from an IPv4 address.
#[inline(always)]
pub fn sendmsg4(ctx: &SockAddrContext) -> i32 {
    sendmsg(ctx, bind::source4, destination4)
}

/// An unconnected send from an IPv6 address.
#[inline(always)]
pub fn sendmsg6(ctx: &SockAddrContext) -> i32 {
    sendmsg(ctx, bind::source6, destination6)
}

/// Who asks is recorded anew when it is not the process that was recorded. The packet itself is judged on its way out,
/// where `sendto()` gets the error just as soon; but for what the kernel hands to this host before (`group.rs`).
#[inline(always)]
fn sendmsg(
    ctx: &SockAddrContext,
    source: impl FnOnce(&SockAddrContext) -> Option<Address>,
    destination: impl FnOnce(&SockAddrContext) -> (Address, u16),
) -> i32 {
    let Some(image) = KernelImage::active() else {
        return ALLOW;
    };
    let Some(state) = state(ctx) else {
        return ALLOW;
    };
    if identity::changed(state) {
        record(ctx, state, &image);
    }
    // A control message may name another source than the socket is bound to. For good: another thread may be sending.
    if state.flags & SOCKET_FOREIGN == 0 && names_foreign(ctx, source) {
        state.flags |= SOCKET_FOREIGN;
    }
    if let (Address::V4(address), port) = destination(ctx)
        && !group::may_send(ctx, &image, state, address, port as u32)
    {
        return REFUSE;
    }
    ALLOW
}

/// Whether it names a source that is not this host's. A function of its own, for its frame.
#[inline(never)]
fn names_foreign(ctx: &SockAddrContext, source: impl FnOnce(&SockAddrContext) -> Option<Address>) -> bool {
    source(ctx).is_some_and(|source| !may_be_ours(socket_of(ctx), &source))
}

#[inline(always)]
fn connect(ctx: &SockAddrContext, destination: impl FnOnce(&SockAddrContext) -> (Address, u16)) -> i32 {
    let Some(image) = KernelImage::active() else {
        return ALLOW;
    };
    let Some(state) = state(ctx) else {
        // Judged on its way out by cgroup and user alone.
        return ALLOW;
    };
    if is_anothers(ctx, state) || identity::changed(state) || program::is_another(state) {
        record(ctx, state, &image);
    }
    // SAFETY: the context is valid.
    let next_header = unsafe { (*ctx.sock_addr).protocol };
    // A UDP connect sends nothing and is how address sorting works; its datagrams are judged on their way out.
    if next_header != protocol::TCP as u32 {
        let (Address::V4(address), port) = destination(ctx) else {
            return ALLOW;
        };
        // A group's interface may name any source (`IP_MULTICAST_IF`), which stays the socket's.
        if Address::V4(address).is_group() && address != u32::MAX {
            state.flags |= SOCKET_FOREIGN;
        }
        let sends = next_header == protocol::UDP as u32 || next_header == protocol::UDP_LITE as u32;
        let whither = port as u32 | group::FOR_GOOD;
        return if !sends || group::may_send(ctx, &image, state, address, whither) { ALLOW } else { REFUSE };
    }
    // Read only now: the verifier walks everything that follows once for each family.
    let (address, port) = destination(ctx);
    if port == PORT_DNS {
        end_by_itself(ctx);
    }
    let unspecified = matches!(address, Address::V4(0) | Address::V6(0, 0));
    if address.is_loopback() || unspecified {
        return ALLOW;
    }
    let flow = Flow { address, protocol: protocol::TCP, port };
    if may_connect(ctx, &image, state, &flow) { ALLOW } else { REFUSE }
}

/// Has the connection end when what is sent is not acknowledged for some time: a question that is refused is dropped, and so is each
/// repeat, of which neither end would hear. Where the kernel does not do it, the client waits as long as it ever does.
#[inline(always)]
fn end_by_itself(ctx: &SockAddrContext) {
    let mut milliseconds = ANSWERED_WITHIN_MS;
    let value = core::ptr::addr_of_mut!(milliseconds).cast();
    // SAFETY: the context is valid, and the value as long as it says.
    let _ = unsafe { bpf_setsockopt(ctx.sock_addr.cast(), SOL_TCP, TCP_USER_TIMEOUT, value, 4) };
}

/// `SOL_TCP`
const SOL_TCP: i32 = 6;
/// `TCP_USER_TIMEOUT`
const TCP_USER_TIMEOUT: i32 = 18;
/// How long a DNS server may take to acknowledge a question.
const ANSWERED_WITHIN_MS: u32 = 3_000;

/// Whether the connection may begin. A function of its own: its frame must not lie under the cgroup walk.
#[inline(never)]
fn may_connect(ctx: &SockAddrContext, image: &KernelImage, state: &mut SocketState, flow: &Flow) -> bool {
    let who = socket::who(state, image);
    let verdict = decide(image, flow, &who, state);
    if verdict.action == Action::Allow {
        emit::allowed(image, &verdict);
        socket::remember_allowed(state, image, flow);
        return true;
    }
    if image.header().treatment(&who).0 == MODE_AUDIT {
        // Reported on its way out, once.
        return true;
    }
    if may_be_ours(socket_of(ctx), &flow.address) {
        return true;
    }
    refuse(image, state, &verdict, flow)
}

/// Tells of a refused connection or datagram, of a socket whose selectors under this image were just asked for; whether it may
/// go all the same (audit). A function of its own: its frame must not lie under the cgroup walk.
#[inline(never)]
pub fn refuse(image: &KernelImage, state: &SocketState, verdict: &Verdict, flow: &Flow) -> bool {
    let mut owner = MaybeUninit::<Owner>::uninit();
    let owner = zero(&mut owner);
    owner.who = state.who[(image.generation & 1) as usize];
    socket::describe(state, owner);
    let mode = image.header().treatment(&owner.who).0;
    let refusal = Refusal {
        key: emit::key(owner, verdict.reason, flow.address.to_words(), flow.protocol, flow.port, 0),
        hook: hook::CONNECT,
        mode,
        family: if matches!(flow.address, Address::V4(_)) { 4 } else { 6 },
        source: [0; 2],
        source_port: 0,
        packet_bytes: 0,
        skb: core::ptr::null_mut(),
        payload_offset: 0,
    };
    emit::refused(image, owner, state, verdict, &refusal);
    mode == MODE_AUDIT
}

/// Whether the storage is a listener's copy, or says that the socket was accepted: what connects or sends of its own
/// accord is recorded anew, so that nothing it was accepted with counts for where it goes now.
#[inline(always)]
fn is_anothers(ctx: &SockAddrContext, state: &SocketState) -> bool {
    // SAFETY: the context is valid.
    state.flags & SOCKET_INBOUND != 0
        || state.cookie != unsafe { bpf_get_socket_cookie(ctx.sock_addr.cast()) }
}

/// The socket's storage, made where there is none: the socket is older than the wall, or the kernel's own. What source it has
/// named before nobody knows.
#[inline(always)]
fn state<'a>(ctx: &SockAddrContext) -> Option<&'a mut SocketState> {
    let sk = socket_of(ctx);
    // SAFETY: the context's socket is never null.
    let state = unsafe { socket::create_state(sk) }?;
    // Only just made: nobody is recorded in it.
    if state.cookie == 0 {
        state.flags |= SOCKET_FOREIGN;
    }
    Some(state)
}

#[inline(always)]
pub fn socket_of(ctx: &SockAddrContext) -> *mut bpf_sock {
    // SAFETY: the context is valid.
    unsafe { (*ctx.sock_addr).__bindgen_anon_1.sk }
}

/// Records the process at hand. A kernel thread that acts for the recorded one changes nothing; what it opens by itself is
/// recorded as the socket's cgroup's.
#[inline(always)]
fn record(ctx: &SockAddrContext, state: &mut SocketState, image: &KernelImage) {
    // SAFETY: the context is valid.
    let (cookie, netns) =
        unsafe { (bpf_get_socket_cookie(ctx.sock_addr.cast()), bpf_get_netns_cookie(ctx.sock_addr.cast())) };
    if identity::is_kernel_thread() {
        if state.cookie == cookie {
            return;
        }
        state.flags &= !SOCKET_INBOUND;
        state.cookie = cookie;
        identity::record_kernels(state, image, socket_of(ctx), netns);
        return;
    }
    state.flags &= !SOCKET_INBOUND;
    identity::record(state, image, cookie, netns);
}
