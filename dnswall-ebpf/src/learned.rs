//! Where names led a workload, for as long as the answers said.

use crate::image::KernelImage;
use crate::maps::{LEARNED, LEARNED_EMPTY, NAMES, count};
use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use dnswall_common::counter::Counter;
use dnswall_common::named::{Lead, LearnedKey, NameSet, PATTERNS_PER_ADDRESS_MAX, PatternKey, lifetime_ns};
use dnswall_common::socket::SocketState;
use dnswall_common::verifier::{forget, mask, next, unbounded};

/// Adds the lists of names that led the socket's workload to an address. A function of its own, for its frame.
#[inline(never)]
pub fn recall(
    image: &KernelImage,
    state: *const SocketState,
    address: &[u64; 2],
    known: &mut NameSet,
) -> u32 {
    // SAFETY: null, or a socket's storage.
    let Some(state) = (unsafe { state.as_ref() }) else { return 0 };
    let key = LearnedKey { cgroup: state.cgroup, netns: state.netns, address: *address };
    // SAFETY: read word by word; an entry that is given away meanwhile holds no pattern under this key.
    let Some(learned) = (unsafe { LEARNED.get(key) }) else { return 0 };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let unknown = unbounded(now as u32);
    let mark = key.mark(image.header().seed);
    let mut at = 0;
    // VERIFIER: PATTERNS_PER_ADDRESS_MAX rounds with a known index each.
    while at < PATTERNS_PER_ADDRESS_MAX {
        let Lead { pattern, until_ns } = learned.patterns[at];
        if until_ns > now {
            let pattern = pattern ^ mark;
            // SAFETY: read at once.
            if let Some(named) = unsafe { NAMES.get(PatternKey { pattern, slot: image.slot, padding: 0 }) } {
                known.add(&named.lists, unknown);
            }
        }
        at = next(at);
    }
    0
}

/// An answer that counts: for whom, and of what.
pub struct Asker {
    pub cgroup: u64,
    pub netns: u64,
    /// The number of the pattern that was asked for.
    pub pattern: u64,
    /// What marks are made with.
    pub seed: u64,
}

/// Remembers that the name which was asked for led to an address, for so many seconds. A function of its own, for its frame.
#[inline(never)]
pub fn remember(asker: &Asker, high: u64, low: u64, ttl: u32) -> u32 {
    let key = LearnedKey { cgroup: asker.cgroup, netns: asker.netns, address: [high, low] };
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let unknown = unbounded(now as u32);
    let until_ns = now + lifetime_ns(ttl);
    let pattern = asker.pattern ^ key.mark(asker.seed);
    if LEARNED.get_ptr_mut(key).is_none()
        && let Some(empty) = LEARNED_EMPTY.get(0)
    {
        // Another processor may have been first.
        let _ = LEARNED.insert(key, empty, BPF_NOEXIST.into());
    }
    let Some(learned) = LEARNED.get_ptr_mut(key) else {
        count(Counter::LearnFailed);
        return 0;
    };
    // The place of the same pattern, else the one that ends first.
    let (mut place, mut first) = (0, u64::MAX >> 1);
    let mut at = 0;
    // VERIFIER: unrolled, without a branch. No time is so far that the difference of two has the upper bit of none.
    while at < PATTERNS_PER_ADDRESS_MAX {
        // SAFETY: a live entry, and an index within.
        let lead = unsafe { core::ptr::addr_of!((*learned).patterns[at]).read_volatile() };
        let end = lead.until_ns & mask(lead.pattern ^ pattern, unknown);
        let sooner = mask(end.wrapping_sub(first) >> 63, unknown);
        place = (place & !sooner) | (at as u64 & sooner);
        first = (first & !sooner) | (end & sooner);
        at += 1;
    }
    let place = (forget(place, unknown) & (PATTERNS_PER_ADDRESS_MAX as u64 - 1)) as usize;
    // SAFETY: a live entry, and an index within; two words that belong to answers that count, whichever is read.
    unsafe {
        let lead = core::ptr::addr_of_mut!((*learned).patterns[place]);
        let was = lead.read_volatile();
        // An answer may come again with a shorter time from a cache; what a longer one said holds.
        let same = !mask(was.pattern ^ pattern, unknown);
        let later = mask(until_ns.wrapping_sub(was.until_ns) >> 63, unknown) & same;
        let until_ns = (until_ns & !later) | (was.until_ns & later);
        lead.write_volatile(Lead { pattern, until_ns });
    }
    0
}
