//! Datagrams to a group or to all, over IPv4. The kernel hands a copy to this host before the packet meets a hook, and the copy
//! belongs to no socket: a tunnel here would unwrap it, multicast routing send it on. So they are judged when they are sent.
//! Which addresses stand for all hosts of a network nothing here tells: none may be the port of a tunnel of the kernel's own.
//! Over IPv6 the hook comes before the copy.

use crate::connect::{refuse, socket_of};
use crate::image::{KernelImage, decide};
use crate::socket;
use crate::tunnel;
use aya_ebpf::programs::SockAddrContext;
use dnswall_common::flow::{Address, Flow};
use dnswall_common::image::MODE_AUDIT;
use dnswall_common::packet::is_essential;
use dnswall_common::reason::{Action, Reason, Verdict, pack};
use dnswall_common::socket::SocketState;

/// Whether a datagram may be sent there. A function of its own, for its frame.
#[inline(never)]
pub fn may_send(
    ctx: &SockAddrContext,
    image: &KernelImage,
    state: &mut SocketState,
    address: u32,
    port: u16,
) -> bool {
    let is_group = address >> 28 == 14 || address == u32::MAX;
    let is_tunnels = reaches_tunnel(ctx, image, state, address, port);
    if !is_group && !is_tunnels {
        return true;
    }
    let verdict = verdict(ctx, image, state, address, (is_tunnels as u32) << 16 | port as u32);
    verdict == 0 || refuse_datagram(ctx, image, state, address, verdict)
}

/// Whether a tunnel here would hear it. A function of its own, for its frame.
#[inline(never)]
fn reaches_tunnel(
    ctx: &SockAddrContext,
    image: &KernelImage,
    state: &SocketState,
    address: u32,
    port: u16,
) -> bool {
    let is_group = address >> 28 == 14 || address == u32::MAX;
    // Where it was let go before, no tunnel was.
    if !is_group && socket::was_allowed(state, image, &flow(ctx, address, port)) {
        return false;
    }
    tunnel::listens(ctx, address, port, is_group)
}

/// 0, or the bytes of a verdict that refuses it: of none that will be refused, and told of, on its way out, but what is for a
/// tunnel. `whither` is the port, and above it whether a tunnel hears it. A function of its own, for its frame.
#[inline(never)]
fn verdict(
    ctx: &SockAddrContext,
    image: &KernelImage,
    state: &mut SocketState,
    address: u32,
    whither: u32,
) -> u64 {
    let flow = flow(ctx, address, whither as u16);
    let who = socket::who(state, image);
    if whither >> 16 != 0 && !image.header().unjudged.intersects(&who) {
        return pack(Verdict::without_rule(Action::Deny, Reason::Tunnel));
    }
    // SAFETY: the context's socket is never null.
    let own_port = unsafe { (*socket_of(ctx)).src_port as u16 };
    if is_essential(flow.protocol, own_port, flow.port, flow.address, true)
        || image.header().treatment(&who).0 == MODE_AUDIT
    {
        return 0;
    }
    let verdict = decide(image, &flow, &who);
    if verdict.action == Action::Allow { 0 } else { pack(verdict) }
}

/// Tells of it; whether it may go all the same. A function of its own, for its frame.
#[inline(never)]
fn refuse_datagram(
    ctx: &SockAddrContext,
    image: &KernelImage,
    state: &SocketState,
    address: u32,
    verdict: u64,
) -> bool {
    // SAFETY: the context is valid.
    let port = u16::from_be(unsafe { (*ctx.sock_addr).user_port } as u16);
    // SAFETY: the number is a verdict that `verdict` packed.
    let verdict = unsafe { core::mem::transmute::<u64, Verdict>(verdict) };
    refuse(image, state, &verdict, &flow(ctx, address, port))
}

#[inline(always)]
fn flow(ctx: &SockAddrContext, address: u32, port: u16) -> Flow {
    // SAFETY: the context is valid.
    Flow { address: Address::V4(address), protocol: unsafe { (*ctx.sock_addr).protocol } as u8, port }
}
