//! Whether an address is one of a network namespace's own, found where the kernel keeps them: in the lists of its devices.
//!
//! `connect()` to such an address stays on the loopback device, where nothing is judged. No helper tells: routes can be
//! looked up in tc and XDP alone, and a listener on the wildcard address answers for every address.

use crate::identity::{field, offsets, pointer};
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use dnswall_common::flow::Address;
use dnswall_common::limits::ADDRESS_STEPS_MAX;
use dnswall_common::verifier::{forget, next, not_zero};

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
    has_address(net, address)
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

/// Where one family's addresses are, and which of them is looked for. The kernel keeps IPv4's in a list that ends with
/// nothing, and IPv6's in a ring that ends where it began.
struct Search {
    /// From the device to the family's settings, from there to its list.
    settings: u64,
    list: u64,
    /// From a place in the list to the next, and to the address.
    next: u64,
    address: u64,
    /// Nothing for IPv4; for IPv6 all bits, which make of the list's own place its end.
    ring: u64,
    /// The address as the kernel has it, and which bits of it there are.
    wanted: [u64; 2],
    bits: [u64; 2],
}

impl Search {
    #[inline(always)]
    fn of(address: &Address) -> Self {
        let offsets = offsets();
        match *address {
            Address::V4(address) => Self {
                settings: field!(offsets.device_ip4) as u64,
                list: field!(offsets.ip4_addresses) as u64,
                next: field!(offsets.address4_next) as u64,
                address: field!(offsets.address4_local) as u64,
                ring: 0,
                wanted: [address.to_be() as u64, 0],
                bits: [u32::MAX as u64, 0],
            },
            Address::V6(high, low) => Self {
                settings: field!(offsets.device_ip6) as u64,
                list: field!(offsets.ip6_addresses) as u64,
                next: 0,
                address: (field!(offsets.address6_address) as u64)
                    .wrapping_sub(field!(offsets.address6_next) as u64),
                ring: u64::MAX,
                wanted: [high.to_be(), low.to_be()],
                bits: [u64::MAX; 2],
            },
        }
    }
}

impl Search {
    /// The same, of which the verifier knows nothing: else it would walk the loop once for each family.
    #[inline(always)]
    fn forgotten(self, unknown: u64) -> Self {
        Self {
            settings: forget(self.settings, unknown),
            list: forget(self.list, unknown),
            next: forget(self.next, unknown),
            address: forget(self.address, unknown),
            ring: forget(self.ring, unknown),
            wanted: self.wanted.map(|word| forget(word, unknown)),
            bits: self.bits.map(|word| forget(word, unknown)),
        }
    }
}

/// Sixteen bytes of the kernel's memory; zeroes where there are none.
#[inline(always)]
fn pair(address: u64) -> [u64; 2] {
    let mut words = [0u64; 2];
    // SAFETY: the helper checks the address and fills the words, or zeroes them.
    unsafe {
        let to = words.as_mut_ptr().cast();
        bpf_probe_read_kernel(to, size_of_val(&words) as u32, address as *const _);
    }
    words
}

#[inline(never)]
fn has_address(net: u64, address: &Address) -> bool {
    let Search {
        settings: settings_at,
        list: list_at,
        next: next_at,
        address: address_at,
        ring,
        wanted,
        bits,
    } = Search::of(address).forgotten(net);
    if settings_at == 0 {
        return true;
    }
    let devices = net.wrapping_add(field!(offsets().net_devices) as u64);
    let mut device = pointer(devices, 0);
    // Where the device's list of addresses is, and where it ends.
    let (mut place, mut end) = (forget(0, net), forget(0, net));
    let mut steps = 0;
    // VERIFIER: ADDRESS_STEPS_MAX rounds, all but the counter unknown in each.
    while steps < ADDRESS_STEPS_MAX {
        if place != end {
            let found = pair(place.wrapping_add(address_at));
            let differs = ((found[0] ^ wanted[0]) & bits[0]) | ((found[1] ^ wanted[1]) & bits[1]);
            // A ring without an end was changed meanwhile.
            if differs == 0 || place == 0 {
                return true;
            }
            place = pointer(place.wrapping_add(next_at), 0);
        } else {
            if device == devices || device == 0 {
                return false;
            }
            let start = device.wrapping_sub(field!(offsets().device_next) as u64);
            let settings = pointer(start.wrapping_add(settings_at), 0);
            let list = settings.wrapping_add(list_at);
            // A device without this family has no list: what is read then is nothing.
            let is_there = 0u64.wrapping_sub(not_zero(settings));
            (place, end) = (pointer(list & is_there, 0), list & ring & is_there);
            device = pointer(device, 0);
        }
        steps = next(steps);
    }
    true
}
