//! The kernel programs, attached at the root of the wall's cgroup.
//!
//! Entry points only: each reads its context and hands it to the room named after it. What cannot be read fails
//! closed there, by name. [`egress`] is the verdict of record for every packet; the others refuse earlier, where the
//! kernel can give the application its error at once, or record who owns the socket.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![no_main]
#![expect(missing_docs, reason = "aya's attribute macros make public functions without documentation")]

mod answer;
mod bind;
mod connect;
mod egress;
mod emit;
mod group;
mod identity;
mod image;
mod ingress;
mod learned;
mod local_address;
mod maps;
mod packet;
mod program;
mod question;
mod replies;
mod sock_create;
mod socket;
mod source;
mod tunnel;
mod unjudged;
mod wire;

use aya_ebpf::macros::{cgroup_device, cgroup_skb, cgroup_sock, cgroup_sock_addr, lsm_cgroup};
use aya_ebpf::programs::{DeviceContext, LsmContext, SkBuffContext, SockAddrContext, SockContext};

/// Every packet that leaves a socket.
#[cgroup_skb]
pub fn dw_egress(ctx: SkBuffContext) -> i32 {
    egress::judge(ctx.skb.skb)
}

/// Every packet that reaches a socket.
#[cgroup_skb]
pub fn dw_ingress(ctx: SkBuffContext) -> i32 {
    ingress::judge(ctx.skb.skb)
}

/// Every packet that reaches a socket, for what a resolver answers.
#[cgroup_skb]
pub fn dw_answer(ctx: SkBuffContext) -> i32 {
    answer::arrives(ctx.skb.skb)
}

/// Every packet that leaves a socket, for what a resolver on this host answers.
#[cgroup_skb]
pub fn dw_stub(ctx: SkBuffContext) -> i32 {
    answer::leaves(ctx.skb.skb)
}

/// `connect()` on an IPv4 socket.
#[cgroup_sock_addr(connect4)]
pub fn dw_connect4(ctx: SockAddrContext) -> i32 {
    connect::connect4(&ctx)
}

/// `connect()` on an IPv6 socket.
#[cgroup_sock_addr(connect6)]
pub fn dw_connect6(ctx: SockAddrContext) -> i32 {
    connect::connect6(&ctx)
}

/// `bind()` to an IPv4 address.
#[cgroup_sock_addr(bind4)]
pub fn dw_bind4(ctx: SockAddrContext) -> i32 {
    bind::bind4(&ctx)
}

/// `bind()` to an IPv6 address.
#[cgroup_sock_addr(bind6)]
pub fn dw_bind6(ctx: SockAddrContext) -> i32 {
    bind::bind6(&ctx)
}

/// `sendto()` and its kin on an IPv4 datagram socket.
#[cgroup_sock_addr(sendmsg4)]
pub fn dw_sendmsg4(ctx: SockAddrContext) -> i32 {
    connect::sendmsg4(&ctx)
}

/// `sendto()` and its kin on an IPv6 datagram socket.
#[cgroup_sock_addr(sendmsg6)]
pub fn dw_sendmsg6(ctx: SockAddrContext) -> i32 {
    connect::sendmsg6(&ctx)
}

/// `socket()` for AF_INET and AF_INET6.
#[cgroup_sock(sock_create)]
pub fn dw_sock_create(ctx: SockContext) -> i32 {
    sock_create::judge(ctx.sock)
}

/// `socket()` for every family, where BPF LSM is active (from 6.0).
#[lsm_cgroup(hook = "socket_create")]
pub fn dw_socket(ctx: LsmContext) -> i32 {
    unjudged::judge_socket(&ctx)
}

/// Every device that is opened.
#[cgroup_device]
pub fn dw_device(ctx: DeviceContext) -> i32 {
    unjudged::judge_device(ctx.device)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects a program from which this can be reached.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
