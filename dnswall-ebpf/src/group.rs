//! Datagrams to a group or to all, over IPv4. The kernel hands a copy to this host before the packet meets a hook, and the copy
//! belongs to no socket: a tunnel here would unwrap it, multicast routing send it on. Where there is either, they are judged
//! when they are sent. Which addresses stand for all hosts of a network is not looked up: none may be the port of a tunnel of
//! the kernel's own, but as an answer. Over IPv6 the hook comes before the copy.

use crate::connect::{refuse, socket_of};
use crate::identity::{field, offsets, pointer};
use crate::image::{KernelImage, decide};
use crate::local_address::net_of;
use crate::replies;
use crate::socket;
use crate::tunnel;
use aya_ebpf::programs::SockAddrContext;
use dnswall_common::flow::{Address, Flow};
use dnswall_common::image::MODE_AUDIT;
use dnswall_common::packet::is_essential;
use dnswall_common::reason::{Action, Reason, Verdict, pack, unpack};
use dnswall_common::socket::SocketState;

/// Beside a port: what is sent there later meets no hook in time.
pub const FOR_GOOD: u32 = 1 << 16;
/// Beside a port: a tunnel here would unwrap it.
const TUNNEL: u32 = 1 << 17;
/// Where `IPV4_DEVCONF_MC_FORWARDING` is among a namespace's settings: how many multicast routers it has.
const MULTICAST_ROUTERS_BYTE: u32 = 4;

/// Whether a datagram may be sent there; `whither` is the port and, for all that will be sent there, [`FOR_GOOD`]. A function
/// of its own, for its frame.
#[inline(never)]
pub fn may_send(
    ctx: &SockAddrContext,
    image: &KernelImage,
    state: &mut SocketState,
    address: u32,
    whither: u32,
) -> bool {
    let is_tunnels = reaches_tunnel(ctx, image, state, address, whither as u16);
    let whither = whither | if is_tunnels { TUNNEL } else { 0 };
    // Whoever connects to port 0 asks for his own address; no tunnel has it, but routing does not look at ports.
    let goes_on = whither & FOR_GOOD != 0 && whither as u16 != 0;
    let is_judged = Address::V4(address).is_group() && (goes_on || is_routed(ctx));
    if !is_tunnels && !is_judged {
        return true;
    }
    let verdict = verdict(ctx, image, state, address, whither);
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
    let to = Address::V4(address);
    // What stays here is judged on its way; whoever was heard is one host.
    !to.is_loopback()
        && tunnel::listens(ctx, address, port, to.is_group())
        && (to.is_group() || !replies::was_heard(ctx, image, state, &flow(ctx, address, port)))
}

/// Whether this host sends on what others send to groups. A function of its own, for its frame.
#[inline(never)]
fn is_routed(ctx: &SockAddrContext) -> bool {
    let offsets = offsets();
    let data = field!(offsets.settings4_data);
    let settings = pointer(net_of(socket_of(ctx)), field!(offsets.net_settings4));
    data == 0 || pointer(settings, data + MULTICAST_ROUTERS_BYTE) as u32 != 0
}

/// 0, or the bytes of a verdict that refuses it: of none that will be refused, and told of, on its way out, but what is for a
/// tunnel. A function of its own, for its frame.
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
    if whither & TUNNEL != 0 && !image.header().unjudged.intersects(&who) {
        return pack(Verdict::without_rule(Action::Deny, Reason::Tunnel));
    }
    // SAFETY: the context's socket is never null.
    let own_port = unsafe { (*socket_of(ctx)).src_port as u16 };
    if !flow.address.is_group()
        || is_essential(flow.protocol, own_port, flow.port, flow.address, true)
        || image.header().treatment(&who).0 == MODE_AUDIT
    {
        return 0;
    }
    let verdict = decide(image, &flow, &who, state);
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
    // SAFETY: `verdict` packed it.
    let verdict = unsafe { unpack(verdict) };
    refuse(image, state, &verdict, &flow(ctx, address, port))
}

#[inline(always)]
fn flow(ctx: &SockAddrContext, address: u32, port: u16) -> Flow {
    // SAFETY: the context is valid.
    Flow { address: Address::V4(address), protocol: unsafe { (*ctx.sock_addr).protocol } as u8, port }
}
