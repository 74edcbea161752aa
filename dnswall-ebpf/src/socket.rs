//! Who owns a packet's socket, from the socket's own storage; for a socket older than the wall, from the socket.

use crate::identity::{self, Recorded, as_number, field, offsets, pointer};
use crate::image::KernelImage;
use crate::maps::{SOCKETS, count};
use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_get_socket_uid, bpf_skb_cgroup_id};
use core::mem::MaybeUninit;
use dnswall_common::counter::Counter;
use dnswall_common::flow::{Address, Flow};
use dnswall_common::socket::{
    ACCEPTED, SOCKET_INBOUND, SocketState, TAG_WAYS, TAGS, flow_key, flow_tag, source_tag,
};
use dnswall_common::who::Who;

/// Whom a verdict is about. The rest of what an event says stays in the storage, where it is read from: no pointer to it is
/// kept here, because to the verifier each kind of owner would be a way of its own through all that follows.
pub struct Owner {
    pub who: Who,
    pub cgroup: u64,
    pub uid: u32,
    pub pid: u32,
}

/// The socket a packet belongs to.
#[inline(always)]
pub fn of(skb: *mut __sk_buff) -> *mut bpf_sock {
    // SAFETY: the context is valid; the field is a socket or null.
    unsafe { (*skb).__bindgen_anon_2.sk }
}

/// The socket's storage, if it is a full socket that was recorded.
#[inline(always)]
pub fn state<'a>(sk: *mut bpf_sock) -> Option<&'a mut SocketState> {
    if sk.is_null() {
        return None;
    }
    // SAFETY: a socket field checked for null.
    unsafe { SOCKETS.find(sk) }
}

/// The same for who only reads of it; null for a socket that was never recorded.
#[inline(always)]
pub fn recorded(skb: *mut __sk_buff) -> *const SocketState {
    state(of(skb)).map_or(core::ptr::null(), |state| core::ptr::from_ref(state))
}

/// The packet's socket cookie.
#[inline(always)]
pub fn cookie(skb: *mut __sk_buff) -> u64 {
    // SAFETY: the context is valid.
    unsafe { bpf_get_socket_cookie(skb.cast()) }
}

/// The socket's address as a number; 0 for none.
#[inline(always)]
pub fn address(skb: *mut __sk_buff) -> u64 {
    pointer(as_number(skb), field!(offsets().buffer_sock))
}

/// Whether no process has the socket at this address: the kernel's own, which writes errors, resets and neighbour discovery.
#[inline(always)]
pub fn is_kernels(address: u64) -> bool {
    let offsets = offsets();
    let socket = pointer(address, field!(offsets.sock_socket));
    socket == 0 || pointer(socket, field!(offsets.socket_file)) == 0
}

/// Whether the socket was accepted by a listener: its storage is a copy of the listener's.
#[inline(always)]
pub fn is_inbound(state: &mut SocketState, skb: *mut __sk_buff) -> bool {
    if state.flags & SOCKET_INBOUND != 0 {
        return true;
    }
    let cookie = cookie(skb);
    if state.cookie == cookie {
        return false;
    }
    state.cookie = cookie;
    state.flags |= SOCKET_INBOUND;
    // The copy may have been made between the selectors and the number that vouches for them.
    state.who_generation = [0; 2];
    true
}

/// The selectors of a recorded socket under this image.
#[inline(always)]
pub fn who(state: &mut SocketState, image: &KernelImage) -> Who {
    let parity = (image.generation & 1) as usize;
    if state.who_generation[parity] != image.generation {
        refresh_who(state, image);
    }
    state.who[parity]
}

/// Finds the selectors that hold under this image from what is recorded; `false` when the cgroup is not known.
#[inline(never)]
pub fn refresh_who(state: &mut SocketState, image: &KernelImage) -> bool {
    let recorded = Recorded {
        cgroup: state.cgroup,
        exe_number: state.exe_number,
        exe_device: state.exe_device,
        uid: state.uid,
    };
    let mut who = Who::NONE;
    let known = identity::from_record(image, &recorded, &mut who);
    if known {
        remember_who(state, image, &who);
    } else {
        // Not remembered: the agent or the next socket of the cgroup makes it known.
        state.who[(image.generation & 1) as usize] = who;
    }
    known
}

/// Stores the selectors that hold under this image.
#[inline(always)]
pub fn remember_who(state: &mut SocketState, image: &KernelImage, who: &Who) {
    let parity = (image.generation & 1) as usize;
    state.who[parity] = *who;
    // SAFETY: a field of the storage. Volatile, so that it is written after the set it vouches for.
    unsafe { core::ptr::addr_of_mut!(state.who_generation[parity]).write_volatile(image.generation) };
}

/// Whether this source was looked at, the last time one was, and is this host's.
#[inline(always)]
pub fn is_known_source(state: &SocketState, image: &KernelImage, source: Address) -> bool {
    state.source == source_tag(image.header().seed, source)
}

/// Remembers that this source is this host's.
#[inline(always)]
pub fn remember_source(state: &mut SocketState, image: &KernelImage, source: Address) {
    state.source = source_tag(image.header().seed, source);
}

/// The same connection as one that was accepted: what was allowed to connect there has another tag.
#[inline(always)]
pub fn accepted(flow: &Flow) -> Flow {
    Flow { protocol: ACCEPTED, ..*flow }
}

/// Whether this socket was allowed to send to the flow under this image.
#[inline(always)]
pub fn was_allowed(state: &SocketState, image: &KernelImage, flow: &Flow) -> bool {
    has_tag(state, flow_tag(image.header().flow_key, flow))
}

/// Whether this socket was allowed to send to the flow under the policy it last asked.
#[inline(always)]
pub fn was_allowed_before(state: &SocketState, image: &KernelImage, flow: &Flow) -> bool {
    has_tag(state, flow_tag(flow_key(image.header().seed, state.allowed_generation), flow))
}

/// Remembers that the flow was allowed.
#[inline(always)]
pub fn remember_allowed(state: &mut SocketState, image: &KernelImage, flow: &Flow) {
    let tag = flow_tag(image.header().flow_key, flow);
    state.allowed_generation = image.generation;
    let first = tag_set(tag);
    let mut way = 0;
    // VERIFIER: TAG_WAYS rounds.
    while way < TAG_WAYS {
        let place = &mut state.allowed[first + way];
        if *place == tag {
            return;
        }
        if *place == 0 {
            *place = tag;
            return;
        }
        way += 1;
    }
    state.next_way = state.next_way.wrapping_add(1);
    state.allowed[first + (state.next_way as usize & (TAG_WAYS - 1))] = tag;
}

#[inline(always)]
fn has_tag(state: &SocketState, tag: u64) -> bool {
    let first = tag_set(tag);
    let places = &state.allowed;
    places[first] == tag || places[first + 1] == tag || places[first + 2] == tag || places[first + 3] == tag
}

/// Where the places begin that the tag may have.
#[inline(always)]
fn tag_set(tag: u64) -> usize {
    (tag >> 1) as usize & ((TAGS / TAG_WAYS - 1) * TAG_WAYS)
}

/// The owner as recorded. Written in place: a copy of it does not fit the stack.
#[inline(always)]
pub fn recorded_owner(state: &mut SocketState, image: &KernelImage, owner: &mut Owner) {
    owner.who = who(state, image);
    describe(state, owner);
}

/// Everything of the owner but its selectors.
#[inline(always)]
pub fn describe(state: &SocketState, owner: &mut Owner) {
    owner.cgroup = state.cgroup;
    owner.uid = state.uid;
    owner.pid = state.pid;
}

/// The owner of a socket that was never recorded: its cgroup and user are the socket's own, the process is not known.
#[inline(never)]
pub fn old_owner(skb: *mut __sk_buff, image: &KernelImage, owner: &mut Owner) {
    count(Counter::OwnerUnknown);
    // SAFETY: the context is valid.
    let (cgroup, uid) = unsafe { (bpf_skb_cgroup_id(skb), bpf_get_socket_uid(skb)) };
    identity::from_record(image, &Recorded { cgroup, uid, exe_number: 0, exe_device: 0 }, &mut owner.who);
    owner.cgroup = cgroup;
    owner.uid = uid;
    owner.pid = 0;
}

/// Zeroes a place on the stack, word by word and where it is: the compiler's own way is a call that stores byte by byte,
/// which is slow and leaves the verifier without knowledge of what is stored; a returned value would be copied.
#[inline(always)]
pub fn zero<T: Zero>(place: &mut MaybeUninit<T>) -> &mut T {
    let words = place.as_mut_ptr().cast::<u64>();
    let mut at = 0;
    while at < size_of::<T>() / 8 {
        // SAFETY: inside the value; its alignment is that of a word, as `Zero` promises.
        unsafe { words.add(at).write_volatile(0) };
        at += 1;
    }
    // SAFETY: all bytes are zero, which `Zero` promises to be a value.
    unsafe { place.assume_init_mut() }
}

/// A type of whole 8-byte words for which all zeroes is a value.
///
/// # Safety
/// As said.
pub unsafe trait Zero: Sized {}

// SAFETY: integers; 48 bytes, aligned to 8.
unsafe impl Zero for Owner {}

/// The storage of a new socket.
///
/// # Safety
/// `sk` is a socket pointer the verifier knows.
#[inline(always)]
pub unsafe fn create_state<'a>(sk: *mut bpf_sock) -> Option<&'a mut SocketState> {
    // SAFETY: the caller's.
    let state = unsafe { SOCKETS.find_or_create(sk) };
    if state.is_none() {
        count(Counter::StorageFailed);
    }
    state
}
