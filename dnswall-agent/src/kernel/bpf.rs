//! The commands of `bpf(2)` that aya 0.14 has no words for: what a link, a map and a cgroup say of
//! themselves.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// What the kernel says of a cgroup link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkNow {
    /// The link's number.
    pub id: u32,
    /// The program it runs.
    pub program: u32,
    /// The cgroup it is attached to; 0 when it was detached.
    pub cgroup: u64,
    /// `enum bpf_attach_type`
    pub attach_type: u32,
}

/// What the kernel says of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramNow {
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Numbers of the maps it uses.
    pub maps: Vec<u32>,
    /// Instructions the verifier walked (5.16).
    pub verified_instructions: Option<u32>,
}

/// Programs of one hook that are listed.
const PROGRAMS_MAX: usize = 64;
/// Maps of one program that are listed.
const PROGRAM_MAPS_MAX: usize = 64;

pub(super) const MAP_CREATE: libc::c_int = 0;
const MAP_LOOKUP_ELEM: libc::c_int = 1;
pub(super) const MAP_UPDATE_ELEM: libc::c_int = 2;
const MAP_DELETE_ELEM: libc::c_int = 3;
const MAP_FREEZE: libc::c_int = 22;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const PROG_QUERY: libc::c_int = 16;
const BTF_LOAD: libc::c_int = 18;
/// `BPF_F_QUERY_EFFECTIVE`
const EFFECTIVE: u32 = 1;

/// The part of `union bpf_attr` for `BPF_MAP_CREATE`.
#[repr(C)]
struct Create {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
    flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    name: [u8; 16],
    ifindex: u32,
    btf_fd: u32,
    btf_key_type: u32,
    btf_value_type: u32,
}

/// The part of `union bpf_attr` for `BPF_BTF_LOAD`.
#[repr(C)]
struct LoadBtf {
    btf: u64,
    log: u64,
    btf_bytes: u32,
    log_bytes: u32,
    log_level: u32,
    padding: u32,
}

/// The part of `union bpf_attr` for elements of maps.
#[repr(C)]
struct Element {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The part of `union bpf_attr` for `BPF_OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct Info {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The part of `union bpf_attr` for `BPF_PROG_QUERY`, as long as 5.10 has it.
#[repr(C)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
}

/// The part of `union bpf_attr` for `BPF_PROG_GET_FD_BY_ID`.
#[repr(C)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// `struct bpf_link_info` of a cgroup link.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
    padding: u32,
    cgroup_id: u64,
    attach_type: u32,
    more: u32,
}

/// `struct bpf_map_info` up to the number.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
}

/// `struct bpf_prog_info` up to the verifier's count; a kernel that knows less leaves the rest at zero.
#[repr(C)]
#[derive(Default)]
struct ProgInfo {
    head: [u32; 13],
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; 16],
    middle: [u64; 17],
    verified_insns: u32,
    tail: u32,
}

const _: () = assert!(std::mem::offset_of!(LinkInfo, cgroup_id) == 16);
const _: () = assert!(std::mem::offset_of!(ProgInfo, nr_map_ids) == 52);
const _: () = assert!(std::mem::offset_of!(ProgInfo, name) == 64);
const _: () = assert!(std::mem::offset_of!(ProgInfo, verified_insns) == 216);

/// What a link says of itself.
pub fn link(fd: BorrowedFd<'_>) -> io::Result<LinkNow> {
    let mut info = LinkInfo::default();
    describe(fd, &mut info)?;
    let LinkInfo { kind: _, id, prog_id, padding: _, cgroup_id, attach_type, more: _ } = info;
    Ok(LinkNow { id, program: prog_id, cgroup: cgroup_id, attach_type })
}

/// A map's number.
pub fn map_id(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = MapInfo::default();
    describe(fd, &mut info)?;
    Ok(info.id)
}

/// Lets nobody write to a map any more but programs (5.2). It may not be mapped to be written to.
pub fn freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    call(MAP_FREEZE, &mut (map.as_raw_fd() as u32)).map(drop)
}

/// Makes an array of so many values, each a structure of whole words. `flags` are those of `BPF_MAP_CREATE`.
pub fn make_array(value_words: u32, entries: u32, flags: u32) -> io::Result<OwnedFd> {
    /// `BPF_MAP_TYPE_ARRAY`
    const ARRAY: u32 = 2;
    let types = array_types(value_words);
    let mut attributes = LoadBtf {
        btf: types.as_ptr() as u64,
        log: 0,
        btf_bytes: types.len() as u32,
        log_bytes: 0,
        log_level: 0,
        padding: 0,
    };
    let btf = call(BTF_LOAD, &mut attributes)?;
    // SAFETY: a descriptor the kernel just made for us. The map holds on to what it is of.
    let btf = unsafe { OwnedFd::from_raw_fd(btf) };
    let mut attributes = Create {
        kind: ARRAY,
        key_bytes: 4,
        value_bytes: 8 * value_words,
        entries,
        flags,
        inner_map_fd: 0,
        numa_node: 0,
        name: [0; 16],
        ifindex: 0,
        btf_fd: btf.as_raw_fd() as u32,
        btf_key_type: KEY_TYPE,
        btf_value_type: VALUE_TYPE,
    };
    let fd = call(MAP_CREATE, &mut attributes)?;
    // SAFETY: a descriptor the kernel just made for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The key in [`array_types`].
const KEY_TYPE: u32 = 1;
/// The value in [`array_types`].
const VALUE_TYPE: u32 = 4;

/// What an array's key and value are, as BTF: a number, and a structure of words. From 5.15 to 6.1 a map goes into an array of maps only if
/// this is told of both or of neither (`bpf_map_meta_equal` compares `timer_off`, which is another "none" without BTF), and it is of those
/// that come with the programs.
fn array_types(value_words: u32) -> Vec<u8> {
    /// `BTF_MAGIC`
    const MAGIC: u16 = 0xeb9f;
    const HEADER_BYTES: u32 = 24;
    const INT: u32 = 1 << 24;
    const LIST: u32 = 3 << 24;
    const STRUCT: u32 = 4 << 24;
    let names = b"\0u32\0u64\0value\0words\0";
    let types = [
        // 1: a name, what it is, bytes; bits.
        [1, INT, 4].as_slice(),
        &[32],
        // 2
        &[5, INT, 8],
        &[64],
        // 3: of what, by what, how many.
        &[0, LIST, 0],
        &[2, 1, value_words],
        // 4: with one member; its name, what it is, where.
        &[9, STRUCT | 1, 8 * value_words],
        &[15, 3, 0],
    ]
    .concat();
    let type_bytes = size_of_val(types.as_slice()) as u32;
    let mut btf = MAGIC.to_ne_bytes().to_vec();
    // Version 1, no flags; where types and names begin behind the header, and how many bytes they are.
    btf.extend([1, 0]);
    let places = [HEADER_BYTES, 0, type_bytes, type_bytes, names.len() as u32];
    btf.extend(places.iter().chain(&types).flat_map(|word| word.to_ne_bytes()));
    btf.extend(names);
    btf
}

/// Puts a map into an array of maps.
pub fn set_map(array: BorrowedFd<'_>, index: u32, map: BorrowedFd<'_>) -> io::Result<()> {
    let mut value = map.as_raw_fd() as u32;
    element(MAP_UPDATE_ELEM, array, index, Some(&mut value))
}

/// The number of the map in an array of maps; `None` when there is none.
pub fn map_in(array: BorrowedFd<'_>, index: u32) -> io::Result<Option<u32>> {
    let mut value = 0;
    present(element(MAP_LOOKUP_ELEM, array, index, Some(&mut value))).map(|found| found.map(|()| value))
}

/// Takes a map out of an array of maps; one that is not there is no mistake.
pub fn remove_map(array: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    present(element(MAP_DELETE_ELEM, array, index, None)).map(drop)
}

fn element(command: libc::c_int, map: BorrowedFd<'_>, index: u32, value: Option<&mut u32>) -> io::Result<()> {
    let key = std::ptr::from_ref(&index) as u64;
    let value = value.map_or(0, |value| std::ptr::from_mut(value) as u64);
    let mut attributes = Element { map_fd: map.as_raw_fd() as u32, padding: 0, key, value, flags: 0 };
    call(command, &mut attributes).map(drop)
}

fn present(result: io::Result<()>) -> io::Result<Option<()>> {
    match result {
        Ok(()) => Ok(Some(())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a program says of itself. Takes `CAP_SYS_ADMIN`.
pub fn program(id: u32) -> io::Result<ProgramNow> {
    let mut attributes = ById { id, next_id: 0, open_flags: 0 };
    let fd = call(PROG_GET_FD_BY_ID, &mut attributes)?;
    // SAFETY: a descriptor the kernel just made for us.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut maps = vec![0u32; PROGRAM_MAPS_MAX];
    let mut info =
        ProgInfo { nr_map_ids: maps.len() as u32, map_ids: maps.as_mut_ptr() as u64, ..ProgInfo::default() };
    describe(std::os::fd::AsFd::as_fd(&fd), &mut info)?;
    maps.truncate(info.nr_map_ids as usize);
    let name = info.name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(ProgramNow {
        name: String::from_utf8_lossy(name).into_owned(),
        maps,
        verified_instructions: Some(info.verified_insns).filter(|count| *count > 0),
    })
}

/// The programs that run for a cgroup at one hook, its ancestors' included, in the kernel's order. Takes
/// `CAP_NET_ADMIN`.
pub fn effective(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<Vec<u32>> {
    let mut ids = vec![0u32; PROGRAMS_MAX];
    let mut attributes = Query {
        target_fd: cgroup.as_raw_fd() as u32,
        attach_type,
        query_flags: EFFECTIVE,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: ids.len() as u32,
        padding: 0,
    };
    call(PROG_QUERY, &mut attributes)?;
    ids.truncate(attributes.prog_cnt as usize);
    Ok(ids)
}

fn describe<T>(fd: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    let mut attributes = Info {
        bpf_fd: fd.as_raw_fd() as u32,
        info_len: size_of::<T>() as u32,
        info: std::ptr::from_mut(info) as u64,
    };
    call(OBJ_GET_INFO_BY_FD, &mut attributes).map(drop)
}

pub(super) fn call<T>(command: libc::c_int, attributes: &mut T) -> io::Result<i32> {
    // SAFETY: the kernel reads and writes at most `size` bytes of an initialised struct; what it points to is the
    // caller's, alive and of the length the struct says.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
