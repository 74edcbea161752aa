//! Takes the kernel's own BTF, gives the byte offsets the programs need to tell who a process is.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use dnswall_common::identity::KernelOffsets;

use super::btf_types::Types;

/// Where the running kernel describes itself (from 4.18 with `CONFIG_DEBUG_INFO_BTF`).
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Reads the offsets of this kernel.
///
/// # Errors
/// Without BTF, or when a member is not where any kernel from 5.10 on has it; says which.
pub fn kernel_offsets(path: &Path) -> Result<KernelOffsets> {
    let bytes = fs::read(path).with_context(|| {
        format!(
            "read the kernel's type information {} (the kernel must be built with CONFIG_DEBUG_INFO_BTF, as those of \
             every current distribution are)",
            path.display()
        )
    })?;
    let types = Types::read(&bytes).with_context(|| format!("understand {}", path.display()))?;
    let find = |structure: &str, members: &[&str]| -> Result<u32> {
        let bits = types.member_offset_bits(structure, members).with_context(|| {
            format!("find member {} in this kernel's struct {structure}", members.join(" or "))
        })?;
        Ok(bits / 8)
    };
    // Moved in 5.17, commit 0c0a5ef809f9.
    let rx_device = [("sock", "sk_rx_dst_ifindex"), ("inet_sock", "rx_dst_ifindex")]
        .iter()
        .find_map(|(structure, member)| types.member_offset_bits(structure, &[*member]))
        .context("find where this kernel's sockets keep the device they hear from")?;
    // `flags` since 5.12 (commit 06b4feb37e64): SKBFL_ZEROCOPY_ENABLE, _SHARED_FRAG, _PURE_ZEROCOPY, _MANAGED_FRAG_REFS; before,
    // SKBTX_DEV_ZEROCOPY and _SHARED_FRAG.
    let (shared_flags, shared_mask) = match types.member_offset_bits("skb_shared_info", &["flags"]) {
        Some(bits) => (bits / 8, 0x17),
        None => (find("skb_shared_info", &["tx_flags"])?, 0x28),
    };
    let has_ip6 = types.member_offset_bits("inet6_ifaddr", &["if_list"]).is_some();
    let find6 = |structure: &str, member: &str| match types.member_offset_bits(structure, &[member]) {
        Some(bits) if has_ip6 => bits / 8,
        _ => 0,
    };
    let member = |structure: &str, member: &str| types.member_offset_bits(structure, &[member]);
    let settings4 =
        match (member("net", "ipv4"), member("netns_ipv4", "devconf_all"), member("ipv4_devconf", "data")) {
            (Some(ipv4), Some(all), Some(data)) => Some([ipv4 + all, data]),
            _ => None,
        };
    Ok(KernelOffsets {
        task_cgroups: find("task_struct", &["cgroups"])?,
        task_group_leader: find("task_struct", &["group_leader"])?,
        task_real_parent: find("task_struct", &["real_parent"])?,
        task_tgid: find("task_struct", &["tgid"])?,
        // Renamed in 5.5, commit 4e6a6ae8b9ec.
        task_start_boottime: find("task_struct", &["start_boottime", "real_start_time"])?,
        task_mm: find("task_struct", &["mm"])?,
        task_flags: find("task_struct", &["flags"])?,
        css_set_dfl_cgrp: find("css_set", &["dfl_cgrp"])?,
        cgroup_kn: find("cgroup", &["kn"])?,
        // Made RCU-protected and renamed in 6.15.
        kernfs_parent: find("kernfs_node", &["parent", "__parent"])?,
        kernfs_name: find("kernfs_node", &["name"])?,
        kernfs_id: find("kernfs_node", &["id"])?,
        mm_exe_file: find("mm_struct", &["exe_file"])?,
        file_inode: find("file", &["f_inode"])?,
        inode_ino: find("inode", &["i_ino"])?,
        inode_sb: find("inode", &["i_sb"])?,
        inode_owner: find("inode", &["i_uid"])?,
        super_block_dev: find("super_block", &["s_dev"])?,
        sock_net: find("sock_common", &["skc_net"])?,
        sock_cgroup: find("sock", &["sk_cgrp_data"])?,
        sock_rx_device: rx_device / 8,
        sock_socket: find("sock", &["sk_socket"])?,
        socket_file: find("socket", &["file"])?,
        udp_encapsulation: find("udp_sock", &["encap_type"])?,
        buffer_sock: find("sk_buff", &["sk"])?,
        buffer_head: find("sk_buff", &["head"])?,
        buffer_end: find("sk_buff", &["end"])?,
        shared_flags,
        shared_mask,
        net_inode: find("net", &["ns"])? + find("ns_common", &["inum"])?,
        net_devices: find("net", &["dev_base_head"])?,
        device_next: find("net_device", &["dev_list"])?,
        device_ip4: find("net_device", &["ip_ptr"])?,
        device_ip6: find6("net_device", "ip6_ptr"),
        ip4_addresses: find("in_device", &["ifa_list"])?,
        address4_next: find("in_ifaddr", &["ifa_next"])?,
        address4_local: find("in_ifaddr", &["ifa_local"])?,
        net_settings4: settings4.map_or(0, |[in_net, _]| in_net / 8),
        settings4_data: settings4.map_or(0, |[_, data]| data / 8),
        ip6_addresses: find6("inet6_dev", "addr_list"),
        address6_next: find6("inet6_ifaddr", "if_list"),
        address6_address: find6("inet6_ifaddr", "addr"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_every_member() {
        let offsets = kernel_offsets(Path::new(VMLINUX)).unwrap();
        // Members at the same place would mean that a name was not really looked up.
        assert_ne!(offsets.task_mm, offsets.task_cgroups);
        assert_ne!(offsets.kernfs_name, offsets.kernfs_id);
        assert!(offsets.task_start_boottime.is_multiple_of(8));
    }

    #[test]
    fn a_missing_member_is_not_found() {
        let bytes = fs::read(VMLINUX).unwrap();
        let types = Types::read(&bytes).unwrap();
        assert_eq!(types.member_offset_bits("task_struct", &["no_such_member"]), None);
        assert_eq!(types.member_offset_bits("no_such_struct", &["mm"]), None);
    }
}
