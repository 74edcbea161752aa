//! Whether an address is one of a network namespace's own, found where the kernel keeps them: in the lists of its devices.
//!
//! `connect()` to such an address stays on the loopback device, where nothing is judged. No helper tells: routes can be
//! looked up in tc and XDP alone, and a listener on the wildcard address answers for every address.

use crate::identity::{as_number, field, offsets, pointer};
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use dnswall_common::flow::Address;
use dnswall_common::limits::ADDRESS_STEPS_MAX;
use dnswall_common::verifier::{forget, next, not_zero, opaque, unbounded};

/// Whether the address may be one of the socket's network namespace. "May": also when there are more devices and
/// addresses than are looked at, or when this kernel keeps them where nobody looks.
#[inline(always)]
pub fn may_be_ours(sk: *mut bpf_sock, address: &Address) -> bool {
    let (words, is_v6) = match *address {
        Address::V4(address) => ([(opaque(address as u64) as u32).to_be() as u64, 0], false),
        Address::V6(high, low) => ([opaque(high).to_be(), opaque(low).to_be()], true),
    };
    // SAFETY: the caller's socket. Any number will do.
    let unknown = unbounded(unsafe { (*sk).src_port });
    ours_among(sk, &Pair::new(words, words, is_v6).forgotten(unknown)) != 0
}

/// Two addresses of one family, as they are in memory, an IPv4 one in the first half of its first word. Always handed over
/// in one piece: to the verifier each place an address may be in is another way into the search.
pub struct Pair {
    pub one: [u64; 2],
    other: [u64; 2],
    /// 1 for each that no device has to have, in the last two bits.
    known: u64,
    pub is_v6: u64,
}

impl Pair {
    #[inline(always)]
    pub fn new(one: [u64; 2], other: [u64; 2], is_v6: bool) -> Self {
        let known = is_chosen_later(one, is_v6) | is_nobodys(other, is_v6) << 1;
        Self { one, other, known, is_v6: is_v6 as u64 }
    }

    /// The same, of which the verifier knows nothing.
    #[inline(always)]
    pub fn forgotten(self, unknown: u64) -> Self {
        let Self { one, other, known, is_v6 } = self;
        Self {
            one: one.map(|word| forget(word, unknown)),
            other: other.map(|word| forget(word, unknown)),
            known: forget(known, unknown),
            is_v6: forget(is_v6, unknown),
        }
    }
}

/// Which of the two may be, in the last two bits, the first one's last. A number that the verifier does not know: it would
/// walk on from each round of the search once for each answer.
#[inline(never)]
pub fn ours_among(sk: *mut bpf_sock, pair: &Pair) -> u64 {
    let net = net_of(sk);
    let known = forget(pair.known, net);
    if net == 0 || known == BOTH {
        return forget(BOTH, net);
    }
    forget(has_addresses(net, pair), net)
}

const BOTH: u64 = 3;

/// 1 for an address that no device has to have: whoever is bound to none, to a group or to all sends from one that the
/// kernel chooses, and the loopback device has a whole network.
#[inline(always)]
fn is_nobodys(words: [u64; 2], is_v6: bool) -> u64 {
    is_chosen_later(words, is_v6) | is_group(words, is_v6) as u64
}

/// The same for what a packet may come from: no group, and not all.
#[inline(always)]
fn is_chosen_later(words: [u64; 2], is_v6: bool) -> u64 {
    let is = if is_v6 {
        words[0] == 0 && u64::from_be(words[1]) <= 1
    } else {
        words[0] as u32 == 0 || words[0] as u8 == 127
    };
    is as u64
}

/// Multicast, or 255.255.255.255.
#[inline(always)]
pub fn is_group(words: [u64; 2], is_v6: bool) -> bool {
    if is_v6 {
        return words[0] as u8 == 0xff;
    }
    words[0] as u8 >> 4 == 0xe || words[0] as u32 == u32::MAX
}

/// The socket's `struct net`; 0 when it cannot be read.
#[inline(always)]
pub fn net_of(sk: *mut bpf_sock) -> u64 {
    pointer(as_number(sk), field!(offsets().sock_net))
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
}

impl Search {
    #[inline(always)]
    fn of(pair: &Pair, unknown: u64) -> Self {
        let offsets = offsets();
        match forget(pair.is_v6, unknown) {
            0 => Self {
                settings: field!(offsets.device_ip4) as u64,
                list: field!(offsets.ip4_addresses) as u64,
                next: field!(offsets.address4_next) as u64,
                address: field!(offsets.address4_local) as u64,
                ring: 0,
            },
            _ => Self {
                settings: field!(offsets.device_ip6) as u64,
                list: field!(offsets.ip6_addresses) as u64,
                next: 0,
                address: (field!(offsets.address6_address) as u64)
                    .wrapping_sub(field!(offsets.address6_next) as u64),
                ring: u64::MAX,
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
        }
    }
}

/// Sixteen bytes of the kernel's memory; zeroes where there are none.
#[inline(always)]
fn two_words(address: u64) -> [u64; 2] {
    let mut words = [0u64; 2];
    // SAFETY: the helper checks the address and fills the words, or zeroes them.
    unsafe {
        let to = words.as_mut_ptr().cast();
        bpf_probe_read_kernel(to, size_of_val(&words) as u32, address as *const _);
    }
    words
}

/// Which of the two addresses the namespace has, with those that are known already.
#[inline(never)]
fn has_addresses(net: u64, pair: &Pair) -> u64 {
    let Search { settings: settings_at, list: list_at, next: next_at, address: address_at, ring } =
        Search::of(pair, net).forgotten(net);
    if settings_at == 0 {
        return BOTH;
    }
    let devices = net.wrapping_add(field!(offsets().net_devices) as u64);
    let mut device = pointer(devices, 0);
    // Where the device's list of addresses is, and where it ends.
    let (mut place, mut end) = (forget(0, net), forget(0, net));
    let mut ours = forget(pair.known, net);
    let mut steps = 0;
    // VERIFIER: ADDRESS_STEPS_MAX rounds, all but the counter unknown in each.
    while steps < ADDRESS_STEPS_MAX {
        if place != end {
            let found = two_words(place.wrapping_add(address_at));
            let differs = |from: &[u64; 2]| {
                // SAFETY: a borrow. Volatile, so that no copy is kept: there is little stack.
                let [first, second] = unsafe { core::ptr::from_ref(from).read_volatile() };
                // Of an IPv4 address there are 32 bits.
                let (first, second) = (found[0] ^ first, (found[1] ^ second) & ring);
                not_zero((first & (ring | u32::MAX as u64)) | second)
            };
            ours |= (1 - differs(&pair.one)) | (1 - differs(&pair.other)) << 1;
            // A ring without an end was changed meanwhile.
            if place == 0 {
                return BOTH;
            }
            if ours == BOTH {
                return ours;
            }
            place = pointer(place.wrapping_add(next_at), 0);
        } else {
            if device == devices || device == 0 {
                return ours;
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
    BOTH
}
