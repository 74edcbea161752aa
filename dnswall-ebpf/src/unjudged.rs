//! `socket()` of a family that no packet hook sees, and devices that carry packets: refused unless `[unjudged]` names
//! who is at it.

use crate::emit::{self, Refusal};
use crate::identity;
use crate::image::KernelImage;
use crate::maps::{CALLER_EMPTY, CALLERS, count};
use crate::socket::{self, Owner, zero};
use aya_ebpf::bindings::bpf_cgroup_dev_ctx;
use aya_ebpf::helpers::generated::bpf_get_current_pid_tgid;
use aya_ebpf::programs::LsmContext;
use core::mem::MaybeUninit;
use dnswall_common::counter::Counter;
use dnswall_common::event::hook;
use dnswall_common::image::{MODE_AUDIT, MODE_ENFORCE};
use dnswall_common::reason::{Action, Reason, Verdict};
use dnswall_common::socket::SocketState;
use dnswall_common::unjudged::{DEVICE_CHAR, DEVICE_OPEN, is_judged, is_unjudged_device};
use dnswall_common::who::Who;

const ALLOW: i32 = 1;
/// The system call fails with EPERM.
const REFUSE: i32 = 0;

/// Judges `socket()`: `int family, int type, int protocol, int kern`. The kernel's own sockets pass: what they send is
/// seen where it is IP.
#[inline(always)]
pub fn judge_socket(ctx: &LsmContext) -> i32 {
    let (family, kern): (i32, i32) = (ctx.arg(0), ctx.arg(3));
    if kern != 0 || is_judged(family as u32) {
        return ALLOW;
    }
    if may_open(hook::SOCKET, 0, family as u16) { ALLOW } else { REFUSE }
}

/// Judges the opening of a device.
#[inline(always)]
pub fn judge_device(ctx: *mut bpf_cgroup_dev_ctx) -> i32 {
    // SAFETY: the context is valid.
    let (access, major, minor) = unsafe { ((*ctx).access_type, (*ctx).major, (*ctx).minor) };
    let opens = access >> 16 & DEVICE_OPEN != 0;
    if access & 0xffff != DEVICE_CHAR || !opens || !is_unjudged_device(major, minor) {
        return ALLOW;
    }
    if may_open(hook::DEVICE, major as u16, minor as u16) { ALLOW } else { REFUSE }
}

/// Whether the process at hand may open it. There is no socket to record the process in, so that is done in an entry of
/// the thread's own, as for [`identity`]'s scratch.
#[inline(always)]
fn may_open(hook: u8, major: u16, number: u16) -> bool {
    let Some(image) = KernelImage::active() else {
        return true;
    };
    // SAFETY: no arguments.
    let thread = unsafe { bpf_get_current_pid_tgid() };
    // SAFETY: the only element of an array map, which nothing ever writes.
    let empty: Option<&SocketState> = CALLER_EMPTY.get_ptr(0).map(|empty| unsafe { &*empty });
    if let Some(empty) = empty
        && CALLERS.insert(thread, empty, 0).is_ok()
    {
        record_caller(&image, thread);
        let may = may_caller(&image, thread, hook, major, number);
        // Only this thread uses the entry: one that cannot be removed is written over next time.
        let _ = CALLERS.remove(thread);
        return may;
    }
    count(Counter::StorageFailed);
    image.header().treatment(&Who::NONE).0 != MODE_ENFORCE
}

/// Records the process at hand. A function of its own, for its frame.
#[inline(never)]
fn record_caller(image: &KernelImage, thread: u64) {
    if let Some(caller) = CALLERS.get_ptr_mut(thread) {
        // SAFETY: the entry of this thread, which nobody else uses and only this thread removes.
        identity::record(unsafe { &mut *caller }, image, 0, 0);
    }
}

/// Whether whoever was recorded may open it. A function of its own: its frame must not lie under the cgroup walk.
#[inline(never)]
fn may_caller(image: &KernelImage, thread: u64, hook: u8, major: u16, number: u16) -> bool {
    let Some(caller) = CALLERS.get_ptr_mut(thread) else {
        return false;
    };
    // SAFETY: as above.
    let caller = unsafe { &mut *caller };
    let mut owner = MaybeUninit::<Owner>::uninit();
    let owner = zero(&mut owner);
    socket::recorded_owner(caller, image, owner);
    if image.header().unjudged.intersects(&owner.who) {
        return true;
    }
    let reason = if hook == hook::DEVICE { Reason::UnjudgedDevice } else { Reason::UnjudgedSocket };
    let (mode, _) = image.header().treatment(&owner.who);
    let refusal = Refusal {
        key: emit::key(owner, reason, [0; 2], 0, number, 0),
        hook,
        mode,
        family: 0,
        source: [0; 2],
        source_port: major,
        packet_bytes: 0,
        skb: core::ptr::null_mut(),
        payload_offset: 0,
    };
    emit::refused(image, owner, caller, &Verdict::without_rule(Action::Deny, reason), &refusal);
    mode == MODE_AUDIT
}
