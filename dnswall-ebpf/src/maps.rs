//! Every map, with its type, size and flags. Changing one bumps `ABI_VERSION`.

use crate::identity::Scratch;
use aya_ebpf::Global;
use aya_ebpf::bindings::{
    BPF_F_CLONE, BPF_F_INNER_MAP, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE, bpf_sock,
};
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf};
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::btf_map;
use core::ffi::c_void;
use dnswall_common::counter::{COUNTER_TABLE, Counter, ReasonCounter, RuleCounter};
use dnswall_common::event::{Event, Refused, RefusedKey};
use dnswall_common::identity::{CgroupKey, ExeKey, KernelOffsets, NameKey, PathKey, UserKey};
use dnswall_common::image::{Active, Cell, ImageHeader, Meta, Term};
use dnswall_common::limits::{
    CELLS_MAX, CGROUPS_MAX, CROWD_MAX, EXCEPTIONS_MAX, LEARNED_MAX, NODES_PORT_MAX, NODES4_MAX, NODES6_MAX,
    PATTERNS_MAX, QUESTIONS_BYTES, REFUSED_FLOWS_MAX, REPLIES_MAX, RING_BYTES, RULES_MAX, SCRATCHES_MAX,
    TERMS_MAX, TYPE_WORDS, WHO_ENTRIES_MAX,
};
use dnswall_common::listed::{Bucket, ExceptionKey};
use dnswall_common::named::{Asked, FILTER_WORDS, Learned, LearnedKey, Pattern, PatternKey};
use dnswall_common::quota::{DISTINCTS_MAX, Distinct, DistinctKey, PACES_MAX, Pace};
use dnswall_common::reason::REASON_TABLE;
use dnswall_common::search::{Node4, Node6, NodePort};
use dnswall_common::socket::{ReplyKey, SocketState};
use dnswall_common::who::Who;

/// Mapped into the agent, which writes an image with plain stores (from 5.5).
const MAPPED: usize = BPF_F_MMAPABLE as usize;
/// Another one in the same place may have another size (5.10).
const INNER: usize = BPF_F_INNER_MAP as usize;
/// Entries are allocated when they come: these maps are mostly empty.
const SPARSE: usize = BPF_F_NO_PREALLOC as usize;

/// Offsets of kernel structures, written before the programs load.
#[unsafe(no_mangle)]
pub static OFFSETS: Global<KernelOffsets> = Global::new(KernelOffsets {
    task_cgroups: 0,
    task_group_leader: 0,
    task_real_parent: 0,
    task_tgid: 0,
    task_start_boottime: 0,
    task_mm: 0,
    task_flags: 0,
    css_set_dfl_cgrp: 0,
    cgroup_kn: 0,
    kernfs_parent: 0,
    kernfs_name: 0,
    kernfs_id: 0,
    mm_exe_file: 0,
    file_inode: 0,
    inode_ino: 0,
    inode_sb: 0,
    inode_owner: 0,
    super_block_dev: 0,
    sock_net: 0,
    sock_cgroup: 0,
    sock_rx_device: 0,
    sock_socket: 0,
    socket_file: 0,
    udp_encapsulation: 0,
    buffer_sock: 0,
    buffer_head: 0,
    buffer_end: 0,
    shared_flags: 0,
    shared_mask: 0,
    net_inode: 0,
    net_devices: 0,
    device_next: 0,
    device_ip4: 0,
    device_ip6: 0,
    ip4_addresses: 0,
    address4_next: 0,
    address4_local: 0,
    net_settings4: 0,
    settings4_data: 0,
    ip6_addresses: 0,
    address6_next: 0,
    address6_address: 0,
});

#[btf_map]
pub static META: Array<Meta, 1> = Array::new();
#[btf_map]
pub static ACTIVE: Array<Active, 1, MAPPED> = Array::new();
#[btf_map]
pub static HEADERS: Array<ImageHeader, 2, MAPPED> = Array::new();
#[btf_map]
pub static NODES4: Array<Node4, { 2 * NODES4_MAX }, MAPPED> = Array::new();
#[btf_map]
pub static NODES6: Array<Node6, { 2 * NODES6_MAX }, MAPPED> = Array::new();
#[btf_map]
pub static NODES_PORT: Array<NodePort, { 2 * NODES_PORT_MAX }, MAPPED> = Array::new();
#[btf_map]
pub static CELLS: Array<Cell, { 2 * CELLS_MAX }, MAPPED> = Array::new();
#[btf_map]
pub static TERMS: Array<Term, { 2 * TERMS_MAX }, MAPPED> = Array::new();

/// By slot: the table of listed names, as large as it has to be.
#[btf_map]
pub static LISTED: ArrayOfMaps<Array<Bucket, 1, { MAPPED | INNER }>, 2> = ArrayOfMaps::new();
#[btf_map]
pub static EXCEPTIONS: HashMap<ExceptionKey, u64, { 2 * EXCEPTIONS_MAX }, SPARSE> = HashMap::new();
/// By slot: a bit for each type of question that is refused.
#[btf_map]
pub static TYPES: Array<[u64; TYPE_WORDS], 2, MAPPED> = Array::new();

/// Names that rules lead to.
#[btf_map]
pub static NAMES: HashMap<PatternKey, Pattern, { 2 * PATTERNS_MAX }, SPARSE> = HashMap::new();
/// A bit for each remainder of a pattern's number that one in `NAMES` has.
#[btf_map]
pub static NAME_FILTER: Array<u64, { 2 * FILTER_WORDS }, MAPPED> = Array::new();
/// What a socket asked last of such names.
#[btf_map]
pub static ASKED: SocketStorage<Asked> = SocketStorage::new();
/// Where they led.
#[btf_map]
pub static LEARNED: LruHashMap<LearnedKey, Learned, LEARNED_MAX> = LruHashMap::new();
/// What an address begins as: it does not fit the stack.
#[btf_map]
pub static LEARNED_EMPTY: Array<Learned, 1> = Array::new();

#[btf_map]
pub static WHO_USERS: HashMap<UserKey, Who, { 2 * WHO_ENTRIES_MAX }, SPARSE> = HashMap::new();
#[btf_map]
pub static WHO_EXES: HashMap<ExeKey, Who, { 2 * WHO_ENTRIES_MAX }, SPARSE> = HashMap::new();
#[btf_map]
pub static WHO_PATHS: HashMap<PathKey, Who, { 2 * WHO_ENTRIES_MAX }, SPARSE> = HashMap::new();
#[btf_map]
pub static WHO_NAMES: LpmTrie<NameKey, Who, { 2 * WHO_ENTRIES_MAX }> = LpmTrie::new();

#[btf_map]
pub static CGROUPS: HashMap<CgroupKey, Who, CGROUPS_MAX> = HashMap::new();
#[btf_map]
pub static SOCKETS: SocketStorage<SocketState> = SocketStorage::new();
#[btf_map]
pub static REPLIES: LruHashMap<ReplyKey, u64, REPLIES_MAX> = LruHashMap::new();

#[btf_map]
pub static SCRATCHES: HashMap<u64, Scratch, SCRATCHES_MAX> = HashMap::new();
/// What a scratch begins as: it does not fit the stack.
#[btf_map]
pub static SCRATCH_EMPTY: Array<Scratch, 1> = Array::new();

/// Who is at something that has no socket to record it in, by thread.
#[btf_map]
pub static CALLERS: HashMap<u64, SocketState, SCRATCHES_MAX> = HashMap::new();
/// What a caller begins as.
#[btf_map]
pub static CALLER_EMPTY: Array<SocketState, 1> = Array::new();

/// How often a workload asks.
#[btf_map]
pub static PACES: LruHashMap<u64, Pace, PACES_MAX> = LruHashMap::new();
/// How many questions of a socket wait for their answers, where these are limited.
#[btf_map]
pub static OPEN_QUESTIONS: SocketStorage<u64> = SocketStorage::new();
/// How many different names it asks for, by domain.
#[btf_map]
pub static DISTINCTS: LruHashMap<DistinctKey, Distinct, DISTINCTS_MAX> = LruHashMap::new();
/// What a domain begins as: it does not fit the stack.
#[btf_map]
pub static DISTINCT_EMPTY: Array<Distinct, 1> = Array::new();

#[btf_map]
pub static REFUSED: LruHashMap<RefusedKey, Refused, REFUSED_FLOWS_MAX> = LruHashMap::new();
/// When a workload's event last took of the second half of the ring, by cgroup. Not pinned: other programs begin anew.
#[btf_map]
pub static CROWD: LruHashMap<u64, u64, CROWD_MAX> = LruHashMap::new();
#[btf_map]
pub static EVENTS: RingBuf<Event, RING_BYTES> = RingBuf::new();
/// Questions and answers, in a ring of their own: however many they are, no refusal is lost for them.
#[btf_map]
pub static QUESTIONS: RingBuf<Event, QUESTIONS_BYTES> = RingBuf::new();
#[btf_map]
pub static RULES: PerCpuArray<RuleCounter, { 2 * RULES_MAX }> = PerCpuArray::new();
#[btf_map]
pub static REASONS: PerCpuArray<ReasonCounter, REASON_TABLE> = PerCpuArray::new();
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, COUNTER_TABLE> = PerCpuArray::new();

/// Adds one to a counter of this CPU.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the kernel's pointer to this CPU's slot; a softirq in between may cost one count at worst.
        unsafe { *value += 1 }
    }
}

/// Socket storage that is copied to accepted sockets, which `aya_ebpf`'s own definition has no flag for.
#[repr(C)]
pub struct SocketStorage<T> {
    r#type: *const [i32; 24],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: a definition the loader reads; nothing here is ever dereferenced.
unsafe impl<T> Sync for SocketStorage<T> {}

impl<T> SocketStorage<T> {
    const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
        }
    }

    /// What is stored in this socket, if it is a full one and anything is.
    ///
    /// # Safety
    /// `sk` is a socket pointer the verifier knows (a context, or a checked `sk` field).
    #[inline(always)]
    pub unsafe fn find<'a>(&self, sk: *mut bpf_sock) -> Option<&'a mut T> {
        // SAFETY: the helper checks the socket; the value lives as long as the socket the hook holds.
        unsafe { bpf_sk_storage_get(self.as_ptr(), sk.cast(), core::ptr::null_mut(), 0).cast::<T>().as_mut() }
    }

    /// What is stored in this socket, made zeroed if need be; `None` when memory is short.
    ///
    /// # Safety
    /// As for [`Self::find`].
    #[inline(always)]
    pub unsafe fn find_or_create<'a>(&self, sk: *mut bpf_sock) -> Option<&'a mut T> {
        let flags = BPF_SK_STORAGE_GET_F_CREATE as u64;
        // SAFETY: as above; a null initial value means zeroes.
        unsafe {
            bpf_sk_storage_get(self.as_ptr(), sk.cast(), core::ptr::null_mut(), flags).cast::<T>().as_mut()
        }
    }

    #[inline(always)]
    fn as_ptr(&self) -> *mut c_void {
        core::ptr::from_ref(self).cast_mut().cast()
    }
}
