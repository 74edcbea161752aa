//! Whether an address is one of a network namespace's own, found where the kernel keeps them: in the lists of its devices.
//!
//! `connect()` to such an address stays on the loopback device, where nothing is judged. No helper tells: routes can be
//! looked up in tc and XDP alone, and a listener on the wildcard address answers for every address.

use crate::identity::{field, offsets, pointer};
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use dnswall_common::flow::Address;
use dnswall_common::limits::ADDRESS_STEPS_MAX;
use dnswall_common::verifier::next;

/// Words of `struct sock` that are read to find its namespace.
const SOCK_WORDS: usize = 8;

/// Whether the address may be one of the socket's network namespace. "May": also when there are more devices and
/// addresses than are looked at, or when this kernel keeps them where nobody looks.
#[inline(never)]
pub fn may_be_local(sk: *mut bpf_sock, address: &Address) -> bool {
    let net = net_of(sk);
    if net == 0 {
        return true;
    }
    match *address {
        Address::V4(address) => has_address4(net, address),
        Address::V6(high, low) => has_address6(net, high, low),
    }
}

/// The socket's `struct net`; 0 when it cannot be read. The verifier allows no arithmetic with a socket's address, so its
/// beginning is copied as a whole.
#[inline(always)]
fn net_of(sk: *mut bpf_sock) -> u64 {
    let mut words = [0u64; SOCK_WORDS];
    // SAFETY: the helper checks the address and fills the words, or zeroes them.
    unsafe { bpf_probe_read_kernel(words.as_mut_ptr().cast(), size_of_val(&words) as u32, sk.cast()) };
    let wanted = field!(offsets().sock_net) as usize / 8;
    let mut at = 0;
    // VERIFIER: constant indices.
    while at < SOCK_WORDS {
        if at == wanted {
            return words[at];
        }
        at += 1;
    }
    0
}

#[inline(never)]
fn has_address4(net: u64, wanted: u32) -> bool {
    let offsets = offsets();
    let devices = net.wrapping_add(field!(offsets.net_devices) as u64);
    let mut device = pointer(devices, 0);
    let mut address = 0u64;
    let mut steps = 0;
    // VERIFIER: ADDRESS_STEPS_MAX rounds, all but the counter unknown in each.
    while steps < ADDRESS_STEPS_MAX {
        if address != 0 {
            if pointer(address, field!(offsets.address4_local)) as u32 == wanted.to_be() {
                return true;
            }
            address = pointer(address, field!(offsets.address4_next));
        } else {
            if device == devices || device == 0 {
                return false;
            }
            let start = device.wrapping_sub(field!(offsets.device_next) as u64);
            address = pointer(pointer(start, field!(offsets.device_ip4)), field!(offsets.ip4_addresses));
            device = pointer(device, 0);
        }
        steps = next(steps);
    }
    true
}

#[inline(never)]
fn has_address6(net: u64, high: u64, low: u64) -> bool {
    let offsets = offsets();
    if field!(offsets.device_ip6) == 0 {
        return true;
    }
    let devices = net.wrapping_add(field!(offsets.net_devices) as u64);
    let mut device = pointer(devices, 0);
    // Where the device's list of addresses begins and ends.
    let mut addresses = 0u64;
    let mut address = 0u64;
    let mut steps = 0;
    // VERIFIER: as above.
    while steps < ADDRESS_STEPS_MAX {
        if address != addresses {
            let bytes = address
                .wrapping_sub(field!(offsets.address6_next) as u64)
                .wrapping_add(field!(offsets.address6_address) as u64);
            if pointer(bytes, 0) == high.to_be() && pointer(bytes, 8) == low.to_be() {
                return true;
            }
            address = pointer(address, 0);
            if address == 0 {
                // Changed meanwhile.
                return true;
            }
        } else {
            if device == devices || device == 0 {
                return false;
            }
            let start = device.wrapping_sub(field!(offsets.device_next) as u64);
            let settings = pointer(start, field!(offsets.device_ip6));
            (addresses, address) = (0, 0);
            if settings != 0 {
                addresses = settings.wrapping_add(field!(offsets.ip6_addresses) as u64);
                address = pointer(addresses, 0);
            }
            device = pointer(device, 0);
        }
        steps = next(steps);
    }
    true
}
