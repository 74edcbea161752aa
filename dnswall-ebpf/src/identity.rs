//! Who the process at hand is, and which selectors that matches.
//!
//! Names come from the kernel's own structures, at offsets the agent read from its BTF: a process chooses neither its
//! cgroup's place in the tree nor its executable's inode. All of it is evaluated here rather than in the agent, so
//! that a unit that starts while the agent is dead, or a millisecond ago, is known.

use crate::image::KernelImage;
use crate::maps::{
    CGROUPS, OFFSETS, SCRATCH_EMPTY, SCRATCHES, WHO_EXES, WHO_NAMES, WHO_PATHS, WHO_USERS, count,
};
use crate::program;
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task,
    bpf_get_current_uid_gid, bpf_probe_read_kernel, bpf_probe_read_kernel_str,
};
use dnswall_common::counter::Counter;
use dnswall_common::identity::{
    CONTAINER_ID_BYTES, CgroupKey, ExeKey, KIND_CONTAINER, KIND_HOST, KIND_UNIT, KernelOffsets, LXC_START,
    NAME_KEY_FIXED_BITS, Name, NameKey, PathKey, SCOPE_END, SERVICE_END, SLICE_END, USER_SLICE, UserKey,
    component_hash, extension, is_hexadecimal, path_step,
};
use dnswall_common::limits::{CGROUP_DEPTH_MAX, CGROUP_NAME_BYTES};
use dnswall_common::socket::{SocketState, TAGS};
use dnswall_common::verifier::{next, not_zero, opaque};
use dnswall_common::who::Who;

/// A field of the offsets as the loader left it: the compiler knows the static's initial value and must not use it.
macro_rules! field {
    ($offsets:ident$(($($none:tt)*))?.$name:ident) => {
        // SAFETY: a field of a live static.
        unsafe { core::ptr::addr_of!($offsets$(($($none)*))?.$name).read_volatile() }
    };
}

pub(crate) use field;

const NAME_BITS: u32 = NAME_KEY_FIXED_BITS + 8 * CGROUP_NAME_BYTES as u32;

/// `task_struct.flags`: a thread of the kernel's own (`PF_KTHREAD`, the same value in 5.10 and 7.2).
const KERNEL_THREAD: u64 = 0x0020_0000;
/// `INVALID_UID`: no user has it.
pub const UID_UNKNOWN: u32 = u32::MAX;

/// Records the process at hand as the socket's owner.
#[inline(never)]
pub fn record(state: &mut SocketState, image: &KernelImage, cookie: u64, netns: u64) {
    // SAFETY: helpers without arguments, and one that fills the 16 bytes it is given.
    let (task, cgroup, uid, pid) = unsafe {
        bpf_get_current_comm(state.comm.as_mut_ptr().cast(), 16);
        (
            bpf_get_current_task(),
            bpf_get_current_cgroup_id(),
            bpf_get_current_uid_gid() as u32,
            (bpf_get_current_pid_tgid() >> 32) as u32,
        )
    };
    let offsets = offsets();
    let leader = pointer(task, field!(offsets.task_group_leader));
    let inode = program::of(task);
    // Who forked it, or inherited it.
    let parent = pointer(leader, field!(offsets.task_real_parent));
    state.set_parent(pointer(parent, field!(offsets.task_tgid)) as u32);
    state.start_ns = pointer(leader, field!(offsets.task_start_boottime));
    state.exe_number = program::number(inode);
    state.exe_device = program::device(inode);
    state.cgroup = cgroup;
    state.uid = uid;
    state.pid = pid;
    state.netns = netns;
    state.cookie = cookie;
    begin_anew(state, image, 0, task);
}

/// Records the socket of a kernel thread that connects it: what matters is not that thread but the cgroup the socket was
/// made in. No user and no executable is known.
#[inline(never)]
pub fn record_kernels(state: &mut SocketState, image: &KernelImage, sk: *mut bpf_sock, netns: u64) {
    let sock = as_number(sk);
    // SAFETY: the helper fills 16 bytes.
    unsafe { bpf_get_current_comm(state.comm.as_mut_ptr().cast(), 16) };
    let offsets = offsets();
    // SAFETY: helpers without arguments.
    let (task, pid) = unsafe { (bpf_get_current_task(), (bpf_get_current_pid_tgid() >> 32) as u32) };
    let leader = pointer(task, field!(offsets.task_group_leader));
    state.start_ns = pointer(leader, field!(offsets.task_start_boottime));
    // Before 5.16 the last two bits are flags.
    let cgroup = pointer(sock, field!(offsets.sock_cgroup)) & !3;
    let node = pointer(cgroup, field!(offsets.cgroup_kn));
    state.set_parent(0);
    state.exe_number = 0;
    state.exe_device = 0;
    state.cgroup = pointer(node, field!(offsets.kernfs_id));
    state.uid = UID_UNKNOWN;
    state.pid = pid;
    state.netns = netns;
    begin_anew(state, image, node, 0);
}

/// Forgets what another owner was allowed, and finds what holds for this one. `node` is the kernfs node of its cgroup; 0
/// for that of `task`.
#[inline(always)]
fn begin_anew(state: &mut SocketState, image: &KernelImage, node: u64, task: u64) {
    state.who_generation = [0; 2];
    state.allowed = [0; TAGS];
    state.allowed_generation = 0;
    if crate::socket::refresh_who(state, image) {
        return;
    }
    let mut names = Who::NONE;
    let offsets = offsets();
    let node = if node != 0 {
        node
    } else {
        let set = pointer(task, field!(offsets.task_cgroups));
        pointer(pointer(set, field!(offsets.css_set_dfl_cgrp)), field!(offsets.cgroup_kn))
    };
    if resolve(image, node, state.cgroup, &mut names) {
        let who = combine(image, &names, state.uid, state.exe_number, state.exe_device);
        crate::socket::remember_who(state, image, &who);
    }
}

/// Whether the task at hand is a thread of the kernel's own, which acts for a process it does not show: multipath TCP
/// opens subflows from one, and before 5.12 io_uring works in one.
#[inline(always)]
pub fn is_kernel_thread() -> bool {
    // SAFETY: no arguments.
    pointer(unsafe { bpf_get_current_task() }, field!(offsets().task_flags)) & KERNEL_THREAD != 0
}

/// Whether the process at hand, or its user, is not the one that was recorded.
#[inline(always)]
pub fn changed(state: &SocketState) -> bool {
    // SAFETY: helpers without arguments.
    let (cgroup, pid, uid) = unsafe {
        (
            bpf_get_current_cgroup_id(),
            (bpf_get_current_pid_tgid() >> 32) as u32,
            bpf_get_current_uid_gid() as u32,
        )
    };
    state.pid != pid || state.cgroup != cgroup || state.uid != uid
}

/// What a verdict knows of an owner apart from the names of its cgroup.
pub struct Recorded {
    pub cgroup: u64,
    pub exe_number: u64,
    pub exe_device: u32,
    pub uid: u32,
}

/// The selectors of a recorded owner; `false` when the kernel does not know its cgroup. Then it has none, not even
/// "everyone": no rule binds it, and what no rule allows is refused.
#[inline(never)]
pub fn from_record(image: &KernelImage, recorded: &Recorded, who: &mut Who) -> bool {
    let key = CgroupKey { cgroup: recorded.cgroup, generation: image.generation, padding: 0 };
    // SAFETY: copied out at once; entries are replaced, never changed in place.
    let (names, known) = match unsafe { CGROUPS.get(key) } {
        Some(names) => (*names, true),
        None => (Who::NONE, false),
    };
    *who = combine(image, &names, recorded.uid, recorded.exe_number, recorded.exe_device);
    known
}

#[inline(always)]
fn combine(image: &KernelImage, names: &Who, uid: u32, exe_number: u64, exe_device: u32) -> Who {
    let free = &image.header().unconstrained;
    let mut who = *names;
    // A look-up only where it matters.
    if !who.is_within(&free.user) {
        // SAFETY: copied out at once.
        who = match unsafe { WHO_USERS.get(UserKey { uid, slot: image.slot }) } {
            Some(users) => who.and(&free.user.or(users)),
            None => who.and(&free.user),
        };
    }
    if !who.is_within(&free.exe) {
        let key = ExeKey { number: exe_number, device: exe_device, slot: image.slot };
        // SAFETY: copied out at once.
        who = match unsafe { WHO_EXES.get(key) } {
            Some(exes) => who.and(&free.exe.or(exes)),
            None => who.and(&free.exe),
        };
    }
    who
}

/// Where names are put together: they do not fit the stack. One for each thread that is at it, because a thread may be
/// preempted here by another that comes here too. And the verifier does not follow what is in a map, so it
/// does not walk every depth and every combination of finds apart.
#[repr(C)]
pub struct Scratch {
    /// The kernfs node of the unit; 0 for none.
    unit: u64,
    /// The kernfs node of the container; 0 for none.
    container: u64,
    /// How many directories.
    depth: u64,
    /// What the names match.
    who: Who,
    /// Hash of each directory's name, leaf first.
    components: [u64; CGROUP_DEPTH_MAX],
    /// A name being read.
    name: Name,
    /// A key being looked up.
    key: Key<NameKey>,
}

/// Finds what the names of a cgroup match, and remembers it for the next socket; `false` when that did not work
/// out, which leaves the cgroup unknown until then.
#[inline(never)]
fn resolve(image: &KernelImage, node: u64, cgroup: u64, names: &mut Who) -> bool {
    // SAFETY: no arguments.
    let thread = unsafe { bpf_get_current_pid_tgid() };
    let Some(empty) = SCRATCH_EMPTY.get_ptr(0) else {
        return false;
    };
    // SAFETY: the only element of an array map, which nothing ever writes.
    if SCRATCHES.insert(thread, unsafe { &*empty }, 0).is_err() {
        count(Counter::CgroupUnresolved);
        return false;
    }
    let resolved = resolve_in(image, node, thread, names);
    // Only this thread uses the entry: there is nothing to do when it cannot be removed but to write over it next time.
    let _ = SCRATCHES.remove(thread);
    if !resolved {
        count(Counter::CgroupUnresolved);
        return false;
    }
    let key = CgroupKey { cgroup, generation: image.generation, padding: 0 };
    let names: &Who = names;
    if CGROUPS.insert(key, names, 0).is_err() {
        count(Counter::CgroupsFull);
    }
    true
}

/// The work of [`resolve`] in the thread's own scratch. A function of its own, for its frame.
#[inline(never)]
fn resolve_in(image: &KernelImage, node: u64, thread: u64, names: &mut Who) -> bool {
    let Some(scratch) = SCRATCHES.get_ptr_mut(thread) else {
        return false;
    };
    // SAFETY: the entry of this thread, which nobody else uses and only this thread removes.
    let scratch = unsafe { &mut *scratch };
    if walk_up(image, node, scratch) {
        matched(image, scratch);
        *names = scratch.who;
    } else {
        // Too deep: no name counts, which is remembered like any other answer.
        count(Counter::CgroupUnresolved);
        *names = Who::NONE;
    }
    true
}

/// Walks to the root; `false` when that is farther than [`CGROUP_DEPTH_MAX`].
///
/// Going up, a later find is nearer to the root and replaces the earlier one: what counts as the unit is the topmost
/// directory that is not a slice, and as the container the one that `container_in` finds. Without branches, for the
/// verifier's sake.
#[inline(never)]
fn walk_up(image: &KernelImage, leaf: u64, scratch: &mut Scratch) -> bool {
    let header = image.header();
    let offsets = offsets();
    scratch.unit = 0;
    scratch.container = 0;
    scratch.depth = 0;
    let mut node = leaf;
    // All ones up to the wall's own directory, zero from there on.
    let mut in_wall = u64::MAX;
    let mut level = 0;
    // VERIFIER: CGROUP_DEPTH_MAX rounds.
    while level < CGROUP_DEPTH_MAX {
        let parent = pointer(node, field!(offsets.kernfs_parent));
        if parent == 0 {
            return true;
        }
        in_wall &= not_zero(pointer(node, field!(offsets.kernfs_id)) ^ header.root_cgroup).wrapping_neg();
        let address = pointer(node, field!(offsets.kernfs_name));
        clear(&mut scratch.name);
        let length = read_name(address, &mut scratch.name, CGROUP_NAME_BYTES as u32);
        scratch.components[level & (CGROUP_DEPTH_MAX - 1)] = component_hash(&scratch.name, header.seed);
        scratch.depth += 1;
        let is_unit = in_wall & not_zero(differs_at_end(address, length, &SLICE_END)).wrapping_neg();
        scratch.unit = (node & is_unit) | (scratch.unit & !is_unit);
        // Whoever owns this one names what is below it: see `container_in`.
        let nobodys = not_zero(user_slice_difference(&scratch.name))
            & not_zero(first_word(&scratch.name) ^ LXC_START)
            & not_zero(service_difference(address, length))
            & not_zero(differs_at_end(address, length, &SCOPE_END));
        let nobodys = opaque(nobodys.wrapping_neg());
        let container = if length > CONTAINER_ID_BYTES as u64 {
            is_container(address, length, &mut scratch.name)
        } else {
            0
        };
        scratch.container = (node & container) | (scratch.container & !container & nobodys);
        node = parent;
        level = next(level);
    }
    false
}

/// Looks up what the walk found.
#[inline(never)]
fn matched(image: &KernelImage, scratch: &mut Scratch) {
    let header = image.header();
    let mut cgroups = header.unconstrained.cgroup;
    let mut path = header.seed;
    let mut left = CGROUP_DEPTH_MAX;
    // VERIFIER: CGROUP_DEPTH_MAX rounds.
    while left > 0 {
        left = opaque(left as u64 - 1) as usize;
        if (left as u64) < scratch.depth {
            path = path_step(path, scratch.components[left & (CGROUP_DEPTH_MAX - 1)]);
            // SAFETY: copied out at once.
            if let Some(more) = unsafe { WHO_PATHS.get(PathKey { hash: path, slot: image.slot, padding: 0 }) }
            {
                cgroups = cgroups.or(more);
            }
        }
    }
    let mut units = header.unconstrained.unit;
    add_units(image, scratch, &mut units);
    let mut containers = header.unconstrained.container;
    add_containers(image, scratch, &mut containers);
    scratch.who = units.and(&cgroups).and(&containers);
}

/// Adds the selectors whose `unit` is the name of the walk's unit.
#[inline(always)]
fn add_units(image: &KernelImage, scratch: &mut Scratch, who: &mut Who) {
    if scratch.unit == 0 {
        return;
    }
    let key = &mut scratch.key;
    key.prefix_len = NAME_BITS;
    key.data.kind = image.slot << 16 | KIND_UNIT;
    key.data.extension = 0;
    clear(&mut key.data.name);
    let address = pointer(scratch.unit, field!(offsets().kernfs_name));
    let length = read_name(address, &mut key.data.name, CGROUP_NAME_BYTES as u32);
    if let Some(more) = WHO_NAMES.get(&*key) {
        *who = who.or(more);
    }
    key.data.extension = extension(&key.data.name, length.wrapping_sub(1));
    if let Some(more) = WHO_NAMES.get(&*key) {
        *who = who.or(more);
    }
}

/// Adds the selectors whose `container` is the id in the name of the walk's container, and takes away those of the host's own
/// users, which a container's root can become.
#[inline(always)]
fn add_containers(image: &KernelImage, scratch: &mut Scratch, who: &mut Who) {
    if scratch.container == 0 {
        return;
    }
    let key = &mut scratch.key;
    key.prefix_len = NAME_BITS;
    key.data.kind = image.slot << 16 | KIND_CONTAINER;
    key.data.extension = 0;
    clear(&mut key.data.name);
    let address = pointer(scratch.container, field!(offsets().kernfs_name));
    let length = read_name(address, &mut key.data.name, CGROUP_NAME_BYTES as u32);
    clear(&mut key.data.name);
    let start = container_start(address, length);
    read_name(address + start, &mut key.data.name, CONTAINER_ID_BYTES as u32 + 1);
    if let Some(more) = WHO_NAMES.get(&*key) {
        *who = who.or(more);
    }
    key.data.kind = image.slot << 16 | KIND_HOST;
    if let Some(hosts) = WHO_NAMES.get(&*key) {
        *who = who.without(hosts);
    }
}

/// Where a container's id begins in its directory's name (`length` counts the terminating zero).
#[inline(always)]
fn container_start(address: u64, length: u64) -> u64 {
    // 6 more when the name ends in `.scope`.
    let scope = 1 - not_zero(differs_at_end(address, length, &SCOPE_END));
    length.wrapping_sub(scope * (SCOPE_END.len() as u64 - 1)).wrapping_sub(1 + CONTAINER_ID_BYTES as u64)
}

/// The in-kernel twin of `container_id_start`: 64 hexadecimal digits, alone or behind a dash, perhaps before `.scope`.
/// All ones or zero. Overwrites the buffer.
#[inline(always)]
fn is_container(address: u64, length: u64, buffer: &mut Name) -> u64 {
    let start = container_start(address, length);
    if start > CGROUP_NAME_BYTES as u64 {
        return 0;
    }
    let mut before = 0u8;
    // SAFETY: the helper checks the address and fills one byte (the one before the name, when the id begins it).
    unsafe {
        bpf_probe_read_kernel(core::ptr::addr_of_mut!(before).cast(), 1, (address + start - 1) as *const _)
    };
    let separated = 1 - (not_zero(start) & not_zero(before as u64 ^ b'-' as u64));
    read_name(address + start, buffer, CONTAINER_ID_BYTES as u32 + 1);
    let Ok(id) = buffer[..CONTAINER_ID_BYTES].try_into() else {
        return 0;
    };
    (separated & is_hexadecimal(id)).wrapping_neg()
}

/// 0 when a name of this length (its terminating zero counted) ends so.
#[inline(always)]
fn differs_at_end(address: u64, length: u64, end: &[u8; 7]) -> u64 {
    let mut last = [0; 8];
    let from = address.wrapping_add(length).wrapping_sub(7);
    // SAFETY: the helper checks the address and fills seven bytes: of the name, or of what lies before a shorter one.
    unsafe { bpf_probe_read_kernel(last.as_mut_ptr().cast(), 7, from as *const _) };
    let wanted = [end[0], end[1], end[2], end[3], end[4], end[5], end[6], 0];
    u64::from_le_bytes(last) ^ u64::from_le_bytes(wanted)
}

/// 0 when a name of this length (its terminating zero counted) is a service's.
#[inline(always)]
fn service_difference(address: u64, length: u64) -> u64 {
    let from = address.wrapping_add(length).wrapping_sub(SERVICE_END.len() as u64 + 1);
    pointer(from, 0) ^ u64::from_le_bytes(SERVICE_END)
}

/// A name's first eight bytes.
#[inline(always)]
fn first_word(name: &Name) -> u64 {
    u64::from_le_bytes([name[0], name[1], name[2], name[3], name[4], name[5], name[6], name[7]])
}

/// 0 when the name is `user.slice`.
#[inline(always)]
fn user_slice_difference(name: &Name) -> u64 {
    let mut difference = 0;
    let mut at = 0;
    while at < USER_SLICE.len() {
        difference |= (name[at] ^ USER_SLICE[at]) as u64;
        at += 1;
    }
    difference
}

/// The pointer or number of up to 8 bytes at `base + offset`; 0 when that cannot be read.
#[inline(always)]
pub fn pointer(base: u64, offset: u32) -> u64 {
    let mut value = 0u64;
    let from = base.wrapping_add(offset as u64);
    // SAFETY: the helper checks the address and fills 8 bytes, or zeroes them.
    unsafe { bpf_probe_read_kernel(core::ptr::addr_of_mut!(value).cast(), 8, from as *const _) };
    value
}

/// A pointer as a number. The verifier allows no arithmetic with the address of a socket or a context; what is copied from
/// where that is kept is a number to it.
#[inline(always)]
pub fn as_number<T>(place: *const T) -> u64 {
    let mut number = 0u64;
    // SAFETY: two live words of the stack.
    unsafe { bpf_probe_read_kernel((&raw mut number).cast(), 8, (&raw const place).cast()) };
    number
}

/// Zeroes a name, word by word: the compiler's own way is a call that does it byte by byte.
#[inline(always)]
fn clear(name: &mut Name) {
    let words = name.as_mut_ptr().cast::<u64>();
    let mut at = 0;
    while at < CGROUP_NAME_BYTES / 8 {
        // SAFETY: inside the name. Names lie at multiples of 8 in the scratch.
        unsafe { words.add(at).write_volatile(0) };
        at += 1;
    }
}

/// Copies a zero-terminated name of at most `size` bytes and gives how many, its zero included; 0 on failure.
#[inline(always)]
fn read_name(address: u64, name: &mut Name, size: u32) -> u64 {
    // SAFETY: the helper checks the address and writes at most `size` bytes of the buffer, zero-terminated.
    let length = unsafe { bpf_probe_read_kernel_str(name.as_mut_ptr().cast(), size, address as *const _) };
    if length < 0 { 0 } else { length as u64 }
}

/// The offsets the agent wrote.
#[inline(always)]
pub fn offsets() -> &'static KernelOffsets {
    // SAFETY: `Global` is transparent over its value.
    unsafe { &*core::ptr::addr_of!(OFFSETS).cast::<KernelOffsets>() }
}
