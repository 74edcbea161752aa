//! `bind()`, and the source that a control message names: marks a socket that chose its port, and one that ever named
//! another's address as its own.

use crate::connect::{destination4, destination6, socket_of};
use crate::local_address::may_be_ours;
use crate::socket;
use aya_ebpf::programs::SockAddrContext;
use dnswall_common::flow::{Address, protocol};
use dnswall_common::socket::{SOCKET_BOUND, SOCKET_FOREIGN};

const ALLOW: i32 = 1;

/// `bind()` to an IPv4 address.
#[inline(always)]
pub fn bind4(ctx: &SockAddrContext) -> i32 {
    bind(ctx, destination4)
}

/// `bind()` to an IPv6 address, or to an IPv4 one written as IPv6.
#[inline(always)]
pub fn bind6(ctx: &SockAddrContext) -> i32 {
    bind(ctx, destination6)
}

/// Nothing is refused: the address may come to this host later (a failover). What leaves from it is judged then
/// (`source.rs`); that it was named is remembered, since a socket can be bound anew and keep the source, and a corked
/// datagram keeps it whatever becomes of its socket.
#[inline(always)]
fn bind(ctx: &SockAddrContext, named: impl FnOnce(&SockAddrContext) -> (Address, u16)) -> i32 {
    // Not made where there is none: the socket is older than the wall, and nobody is recorded in it yet.
    let Some(state) = socket::state(socket_of(ctx)) else {
        return ALLOW;
    };
    let (address, port) = named(ctx);
    if port != 0 {
        state.flags |= SOCKET_BOUND;
        state.never_heard = 0;
    }
    // A TCP socket is bound once.
    // SAFETY: the context is valid.
    let next_header = unsafe { (*ctx.sock_addr).protocol };
    if next_header != protocol::TCP as u32
        && state.flags & SOCKET_FOREIGN == 0
        && !may_be_ours(socket_of(ctx), &address)
    {
        state.flags |= SOCKET_FOREIGN;
    }
    ALLOW
}

/// Where an IPv4 datagram says it comes from, when that is not what the socket is bound to.
#[inline(always)]
pub fn source4(ctx: &SockAddrContext) -> Option<Address> {
    // SAFETY: the context is valid, and its socket never null.
    let (source, bound) = unsafe { ((*ctx.sock_addr).msg_src_ip4, (*socket_of(ctx)).src_ip4) };
    (source != bound).then(|| Address::V4(u32::from_be(source)))
}

/// The same for IPv6.
#[inline(always)]
pub fn source6(ctx: &SockAddrContext) -> Option<Address> {
    // SAFETY: as above. Word by word: the verifier knows the fields as such.
    let (source, bound) = unsafe {
        let at = ctx.sock_addr;
        let source = [(*at).msg_src_ip6[0], (*at).msg_src_ip6[1], (*at).msg_src_ip6[2], (*at).msg_src_ip6[3]];
        (source, words_bound(ctx))
    };
    let differs =
        (source[0] ^ bound[0]) | (source[1] ^ bound[1]) | (source[2] ^ bound[2]) | (source[3] ^ bound[3]);
    (differs != 0).then(|| address6(source))
}

/// # Safety
/// The context is valid.
#[inline(always)]
unsafe fn words_bound(ctx: &SockAddrContext) -> [u32; 4] {
    let sk = socket_of(ctx);
    // SAFETY: the context's socket is never null.
    unsafe { [(*sk).src_ip6[0], (*sk).src_ip6[1], (*sk).src_ip6[2], (*sk).src_ip6[3]] }
}

/// An address as the kernel has it; an IPv4 one that is written as IPv6 is IPv4.
#[inline(always)]
fn address6(words: [u32; 4]) -> Address {
    let words = words.map(|word| u32::from_be(word) as u64);
    let (high, low) = (words[0] << 32 | words[1], words[2] << 32 | words[3]);
    if high == 0 && low >> 32 == 0xffff { Address::V4(low as u32) } else { Address::V6(high, low) }
}
