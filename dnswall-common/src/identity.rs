//! How the kernel tells who a process is: names of its cgroup directories, user and executable.
//!
//! A unit is the first directory below the wall's root that is not a slice: only the system manager makes those, so
//! a user who names a cgroup of its own `orders.service` further down gains nothing. A container is the first
//! directory from the root whose name carries a 64-digit id, and not below `user.slice`, for the same reason.

use crate::limits::CGROUP_NAME_BYTES;
use crate::verifier::{next, not_zero, opaque};

/// Words of a cgroup name buffer.
pub const NAME_WORDS: usize = CGROUP_NAME_BYTES / 8;

/// A cgroup directory's name, zero-padded. Longer names are cut to 127 bytes, which no pattern may reach.
pub type Name = [u8; CGROUP_NAME_BYTES];

/// The longest unit, container or cgroup component a policy may name, in bytes.
pub const PATTERN_BYTES_MAX: usize = 120;

/// [`NameKey::kind`]: unit names.
pub const KIND_UNIT: u32 = 1;
/// [`NameKey::kind`]: container ids.
pub const KIND_CONTAINER: u32 = 2;
/// [`NameKey::kind`]: the selectors that nobody in a container has, under an empty name.
pub const KIND_HOST: u32 = 3;

/// What follows the prefix length in a key of map `WHO_NAMES`, a longest-prefix trie.
///
/// A pattern that ends in `*` is its prefix; an exact one is the name with its terminating zero, which makes it whole.
/// `PREFIX*.service` is the prefix under `extension` = [`extension_hash`] of `.service`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameKey {
    /// `slot << 16 | KIND_*`.
    pub kind: u32,
    /// 0, or the hash of what follows the last dot.
    pub extension: u32,
    /// The name.
    pub name: Name,
}

/// Bits of a [`NameKey`] before its name.
pub const NAME_KEY_FIXED_BITS: u32 = 64;

/// Key of map `WHO_PATHS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PathKey {
    /// [`path_step`] over the components from the root of the hierarchy.
    pub hash: u64,
    /// Which image.
    pub slot: u32,
    /// Zero.
    pub padding: u32,
}

/// Key of map `WHO_USERS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UserKey {
    /// User id in the initial user namespace.
    pub uid: u32,
    /// Which image.
    pub slot: u32,
}

/// Key of map `WHO_EXES`: an executable by its file, which a process cannot choose, not by a path, which it can.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExeKey {
    /// See [`exe_number`].
    pub number: u64,
    /// The superblock's device as the kernel keeps it: `major << 20 | minor`.
    pub device: u32,
    /// Which image.
    pub slot: u32,
}

/// Key of map `CGROUPS`: what a cgroup's names matched, for one generation.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CgroupKey {
    /// Cgroup id (the inode number of its directory).
    pub cgroup: u64,
    /// Generation of the policy.
    pub generation: u32,
    /// Zero.
    pub padding: u32,
}

/// Where this kernel keeps what the identity needs: byte offsets, read from its BTF by the agent and written into the
/// programs' read-only data before they load.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelOffsets {
    /// `task_struct.cgroups`
    pub task_cgroups: u32,
    /// `task_struct.group_leader`
    pub task_group_leader: u32,
    /// `task_struct.real_parent`
    pub task_real_parent: u32,
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// `task_struct.start_boottime` (`real_start_time` before 5.5)
    pub task_start_boottime: u32,
    /// `task_struct.mm`
    pub task_mm: u32,
    /// `task_struct.flags`
    pub task_flags: u32,
    /// `css_set.dfl_cgrp`
    pub css_set_dfl_cgrp: u32,
    /// `cgroup.kn`
    pub cgroup_kn: u32,
    /// `kernfs_node.parent` (`__parent` from 6.15)
    pub kernfs_parent: u32,
    /// `kernfs_node.name`
    pub kernfs_name: u32,
    /// `kernfs_node.id`
    pub kernfs_id: u32,
    /// `mm_struct.exe_file`
    pub mm_exe_file: u32,
    /// `file.f_inode`
    pub file_inode: u32,
    /// `inode.i_ino`
    pub inode_ino: u32,
    /// `inode.i_sb`
    pub inode_sb: u32,
    /// `inode.i_uid`
    pub inode_owner: u32,
    /// `super_block.s_dev`
    pub super_block_dev: u32,
    /// `sock_common.skc_net`, with which `sock` begins
    pub sock_net: u32,
    /// `sock.sk_cgrp_data`
    pub sock_cgroup: u32,
    /// `sock.sk_rx_dst_ifindex` (`inet_sock.rx_dst_ifindex` before 5.17)
    pub sock_rx_device: u32,
    /// `sock.sk_socket`
    pub sock_socket: u32,
    /// `socket.file`
    pub socket_file: u32,
    /// `udp_sock.encap_type`
    pub udp_encapsulation: u32,
    /// `sk_buff.sk`
    pub buffer_sock: u32,
    /// `sk_buff.head`
    pub buffer_head: u32,
    /// `sk_buff.end`, counted from there
    pub buffer_end: u32,
    /// `skb_shared_info.flags`; before 5.12 `tx_flags`
    pub shared_flags: u32,
    /// Those of its bits that say that somebody else has the pages as well.
    pub shared_mask: u32,
    /// `net.ns.inum`
    pub net_inode: u32,
    /// `net.dev_base_head`
    pub net_devices: u32,
    /// `net_device.dev_list`
    pub device_next: u32,
    /// `net_device.ip_ptr`
    pub device_ip4: u32,
    /// `net_device.ip6_ptr`; 0 for a kernel without IPv6
    pub device_ip6: u32,
    /// `in_device.ifa_list`
    pub ip4_addresses: u32,
    /// `in_ifaddr.ifa_next`
    pub address4_next: u32,
    /// `in_ifaddr.ifa_local`
    pub address4_local: u32,
    /// `net.ipv4.devconf_all`; 0 when it was not found
    pub net_settings4: u32,
    /// `ipv4_devconf.data`; 0 when it was not found
    pub settings4_data: u32,
    /// `inet6_dev.addr_list`
    pub ip6_addresses: u32,
    /// `inet6_ifaddr.if_list`
    pub address6_next: u32,
    /// `inet6_ifaddr.addr`
    pub address6_address: u32,
}

const _: () = assert!(size_of::<NameKey>() == 8 + CGROUP_NAME_BYTES);
const _: () = assert!(size_of::<PathKey>() == 16 && size_of::<UserKey>() == 8);
const _: () = assert!(size_of::<ExeKey>() == 16 && size_of::<CgroupKey>() == 16);
const _: () = assert!(size_of::<KernelOffsets>() == 168);

/// What stands for an executable on its device: the inode number, and the file's owner unless that is root. The number alone
/// is not unique everywhere: subvolumes of btrfs and layers of an overlay share a device and have numbers of their own, so
/// that whoever may write there could wait for the right one. A file of root's takes root to make.
#[inline(always)]
pub const fn exe_number(inode: u64, owner: u32) -> u64 {
    inode.wrapping_add((owner as u64).wrapping_mul(OWNER_STEP))
}

/// Odd and large: no file system gives numbers that far away.
const OWNER_STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Hash of one component's name, keyed with the image's seed.
#[inline(always)]
pub fn component_hash(name: &Name, seed: u64) -> u64 {
    let mut hash = seed;
    let mut word = 0;
    while word < NAME_WORDS {
        let at = word * 8;
        let bytes = [
            name[at],
            name[at + 1],
            name[at + 2],
            name[at + 3],
            name[at + 4],
            name[at + 5],
            name[at + 6],
            name[at + 7],
        ];
        hash = mix(hash ^ u64::from_le_bytes(bytes));
        word += 1;
    }
    hash
}

/// Hash of a path so far (start with the seed) and its next component's hash.
#[inline(always)]
pub const fn path_step(path: u64, component: u64) -> u64 {
    mix(path.rotate_left(23) ^ component)
}

#[inline(always)]
const fn mix(mut value: u64) -> u64 {
    value = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    value ^= value >> 29;
    value = value.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value ^ (value >> 32)
}

/// The longest extension that is looked at, its dot included, in bytes. systemd's longest is `.automount`.
pub const EXTENSION_BYTES_MAX: usize = 16;

/// The hash of what follows a name's last dot, with the dot; 0 when its last [`EXTENSION_BYTES_MAX`] bytes have none.
/// `length` is that of the name without its terminating zero.
///
/// Without a branch in the loop: the verifier would walk every combination of outcomes of every byte.
#[inline(always)]
pub fn extension(name: &Name, length: u64) -> u32 {
    let mut extension = 0u64;
    let mut at = 0;
    // VERIFIER: EXTENSION_BYTES_MAX rounds.
    while at < EXTENSION_BYTES_MAX {
        // Before a shorter name's beginning this wraps far beyond its length.
        let place = length.wrapping_sub(EXTENSION_BYTES_MAX as u64).wrapping_add(at as u64);
        let byte = name[place as usize & (CGROUP_NAME_BYTES - 1)] as u64;
        let inside = not_zero(length.saturating_sub(place));
        let dot = (1 - not_zero(byte ^ b'.' as u64)) & inside;
        // All ones from the last dot on.
        let begun = opaque((dot | not_zero(extension)).wrapping_neg());
        let restart = opaque(dot.wrapping_neg());
        let state = (extension & !restart) | (FNV_OFFSET as u64 & restart);
        extension = fnv_step(state as u32, byte as u8) as u64 & begun;
        at = next(at);
    }
    extension as u32
}

/// The hash under which `PREFIX*.EXTENSION` is kept; `extension` starts with its dot.
pub fn extension_hash(extension: &[u8]) -> u32 {
    extension.iter().fold(FNV_OFFSET, |hash, byte| fnv_step(hash, *byte))
}

const FNV_OFFSET: u32 = 0x811c_9dc5;

#[inline(always)]
const fn fnv_step(hash: u32, byte: u8) -> u32 {
    (hash ^ byte as u32).wrapping_mul(0x0100_0193)
}

/// The end of a slice's name, its terminating zero included.
pub const SLICE_END: [u8; 7] = *b".slice\0";
/// The end of a scope's name, its terminating zero included.
pub const SCOPE_END: [u8; 7] = *b".scope\0";
/// Below this slice, users make cgroups as they like.
pub const USER_SLICE: &[u8; 11] = b"user.slice\0";

/// The end of a service's name.
pub const SERVICE_END: [u8; 8] = *b".service";
/// How LXC begins the name of a container's directory.
pub const LXC_START: u64 = u64::from_le_bytes(*b"lxc.payl");

/// Digits of a container id.
pub const CONTAINER_ID_BYTES: usize = 64;

/// 1 when the 64 bytes are hexadecimal digits as container ids have them, else 0. Eight bytes at a time and without a
/// branch, as [`extension`].
#[inline(always)]
pub fn is_hexadecimal(id: &[u8; CONTAINER_ID_BYTES]) -> u64 {
    const TOPS: u64 = 0x8080_8080_8080_8080;
    const fn each(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }
    let mut good = TOPS;
    let mut at = 0;
    while at < CONTAINER_ID_BYTES {
        let bytes =
            [id[at], id[at + 1], id[at + 2], id[at + 3], id[at + 4], id[at + 5], id[at + 6], id[at + 7]];
        let word = u64::from_le_bytes(bytes);
        // A top bit says that its byte is at or above the range's first, or above its last. No sum of a 7-bit byte
        // carries into the next, and a byte with its top bit set is refused as it is.
        let low = word & !TOPS;
        let digit = (low + each(0x80 - b'0')) & !(low + each(0x7f - b'9'));
        let letter = (low + each(0x80 - b'a')) & !(low + each(0x7f - b'f'));
        good &= (digit | letter) & !word;
        at += 8;
    }
    1 - not_zero((good & TOPS) ^ TOPS)
}

/// Where the container id begins in a directory's name: runtimes name it `ID`, `RUNTIME-ID` or `RUNTIME-ID.scope`.
pub fn container_id_start(name: &[u8]) -> Option<usize> {
    let stem = name.strip_suffix(b".scope").unwrap_or(name);
    let start = stem.len().checked_sub(CONTAINER_ID_BYTES)?;
    let separated = start == 0 || stem[start - 1] == b'-';
    let id = stem[start..].try_into().ok()?;
    (separated && is_hexadecimal(id) == 1).then_some(start)
}

/// Where the id of a path's container is: which of its components, from the root on, and where in it the id begins. The
/// topmost directory that is named like one, unless whoever may name directories there as he likes is above it: a user, a
/// service or scope that manages its own, a container of LXC.
pub fn container_in<'p>(components: impl IntoIterator<Item = &'p [u8]>) -> Option<(usize, usize)> {
    for (place, component) in components.into_iter().enumerate() {
        if let Some(start) = container_id_start(component) {
            return Some((place, start));
        }
        let has_owner = component == &USER_SLICE[..USER_SLICE.len() - 1]
            || component.ends_with(&SERVICE_END)
            || component.ends_with(&SCOPE_END[..SCOPE_END.len() - 1])
            || component.starts_with(&LXC_START.to_le_bytes());
        if has_owner {
            return None;
        }
    }
    None
}

/// A name buffer with these bytes; `None` when they do not fit with their terminating zero.
pub fn name(bytes: &[u8]) -> Option<Name> {
    let mut name = [0; CGROUP_NAME_BYTES];
    name.get_mut(..bytes.len())?.copy_from_slice(bytes);
    (bytes.len() < CGROUP_NAME_BYTES).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_begin_at_the_last_dot() {
        let of = |text: &str| extension(&name(text.as_bytes()).unwrap(), text.len() as u64);
        assert_eq!(of("a.b.service"), extension_hash(b".service"));
        assert_eq!(of("system-x.slice"), extension_hash(b".slice"));
        assert_eq!(of("plain"), 0);
        assert_eq!(of(""), 0);
        assert_eq!(of("."), extension_hash(b"."));
        assert_eq!(of("ends."), extension_hash(b"."));
        assert_eq!(of(".automount"), extension_hash(b".automount"));
        assert_eq!(of(&"x".repeat(127)), 0);
        assert_eq!(of(&std::format!("{}.y", "x".repeat(125))), extension_hash(b".y"));
        assert_eq!(of("a.123456789012345"), extension_hash(b".123456789012345"));
        assert_eq!(of("a.1234567890123456"), 0, "too long to be looked at");
    }

    #[test]
    fn hexadecimal_is_what_container_ids_are_made_of() {
        for byte in 0..=255u8 {
            let expected = byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            for place in [0, 7, 8, 63] {
                let mut id = [b'e'; CONTAINER_ID_BYTES];
                id[place] = byte;
                assert_eq!(is_hexadecimal(&id) == 1, expected, "{byte} at {place}");
            }
        }
    }

    #[test]
    fn container_ids_are_found_behind_every_runtimes_prefix() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(container_id_start(id.as_bytes()), Some(0));
        assert_eq!(container_id_start(std::format!("docker-{id}.scope").as_bytes()), Some(7));
        assert_eq!(container_id_start(std::format!("cri-containerd-{id}.scope").as_bytes()), Some(15));
        assert_eq!(container_id_start(std::format!("x{id}").as_bytes()), None);
        assert_eq!(container_id_start(&id.as_bytes()[1..]), None);
        assert_eq!(container_id_start(std::format!("libpod-{}g.scope", &id[1..]).as_bytes()), None);
    }

    #[test]
    fn a_container_is_where_nobody_else_names_directories() {
        let id = "0123456789abcdef".repeat(4);
        let check = |path: &str, place: Option<usize>| {
            let path = path.replace("ID", &id);
            let found = container_in(path.split('/').map(str::as_bytes));
            assert_eq!(found.map(|(place, _)| place), place, "{path}");
        };
        check("system.slice/docker-ID.scope", Some(1));
        check("docker/ID", Some(1));
        check("kubepods/burstable/pod1/ID/init.scope/docker-ID.scope", Some(3));
        check("kubepods.slice/kubepods-pod1.slice/cri-containerd-ID.scope", Some(2));
        check("machine.slice/libpod-ID.scope/container", Some(1));
        check("evil.service/docker-ID.scope", None);
        check("evil.service/ID", None);
        check("myservice/ID", Some(1));
        check("evil.service/docker/ID", None);
        check("run-1.scope/docker-ID.scope", None);
        check("user.slice/docker-ID.scope", None);
        check("lxc.payload.one/docker/ID", None);
        check("", None);
    }

    #[test]
    fn paths_hash_by_component_and_seed() {
        let (a, b) = (name(b"a").unwrap(), name(b"b").unwrap());
        let path = |seed, names: &[Name]| {
            names.iter().fold(seed, |hash, name| path_step(hash, component_hash(name, seed)))
        };
        assert_ne!(path(1, &[a, b]), path(1, &[b, a]));
        assert_ne!(path(1, &[a, b]), path(2, &[a, b]));
        assert_ne!(path(1, &[a]), path(1, &[a, name(b"").unwrap()]));
    }

    extern crate std;
}
