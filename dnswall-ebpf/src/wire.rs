//! Names in a packet, where they lie.

use crate::packet::{self, unknown};
use aya_ebpf::bindings::__sk_buff;
use dnswall_common::identity::path_step;
use dnswall_common::name::{LABEL_WORDS, LABELS_MAX, LabelWords, lower_case};
use dnswall_common::named::NAME_WORDS;
use dnswall_common::verifier::{forget, next};

/// Where the name ends that begins there: behind its root; 0 when it cannot be read. A function of its own, for its frame.
#[inline(never)]
pub fn end_of_name(skb: *mut __sk_buff, at: u32) -> u32 {
    let mut here = forget(at as u64, unknown(skb));
    let mut label = 0;
    // VERIFIER: a round for each label and the root, from a state of which nothing is known.
    while label <= LABELS_MAX {
        let Some([length]) = packet::load::<1>(skb, here as u32) else { return 0 };
        here = forget(here + length as u64 + 1, unknown(skb));
        if length == 0 {
            return here as u32;
        }
        label = next(label);
    }
    0
}

/// The hash of what stands between two places, in any case. A function of its own, for its frame.
#[inline(never)]
pub fn hash(skb: *mut __sk_buff, begins: u32, ends: u32, seed: u64) -> u64 {
    let bytes = ends.wrapping_sub(begins) as u64;
    let mut hash = forget(seed, unknown(skb));
    let mut words: LabelWords = [unknown(skb); 8];
    let mut at = 0;
    // VERIFIER: four rounds with a known index each, of which each is from a state of which nothing is known.
    while at < NAME_WORDS / LABEL_WORDS {
        let from = (at * LABEL_WORDS * 8) as u64;
        let left = forget(bytes, unknown(skb)).wrapping_sub(from);
        if forget(bytes, unknown(skb)) <= from {
            break;
        }
        let part = if left < 64 { left } else { 64 };
        if !packet::load_zeroed(skb, begins + from as u32, part as u32, &mut words) {
            break;
        }
        let mut word = 0;
        // VERIFIER: unrolled.
        while word < LABEL_WORDS {
            hash = path_step(hash, lower_case(words[word]));
            word += 1;
        }
        hash = forget(hash, unknown(skb));
        at = next(at);
    }
    hash
}
