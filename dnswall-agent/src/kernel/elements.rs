//! Takes a hash map, gives all its elements, some thousands in a call (`BPF_MAP_LOOKUP_BATCH`, for hash maps from 5.6).

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use aya::Pod;

use super::bpf::call;

const MAP_LOOKUP_BATCH: libc::c_int = 24;
/// Elements that are read in a call.
const BATCH_ELEMENTS: usize = 8_192;
/// Elements that are read of one map, and in a call: no map that is read so has nearly as many.
const ELEMENTS_MAX: usize = 1 << 20;

/// The part of `union bpf_attr` for batches of elements.
#[repr(C)]
struct Batch {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    element_flags: u64,
    flags: u64,
}

/// Every element; those that come and go meanwhile may be there or not.
///
/// # Errors
/// The kernel's.
pub fn elements<K: Pod, V: Pod>(map: BorrowedFd<'_>) -> io::Result<Vec<(K, V)>> {
    elements_by(map, BATCH_ELEMENTS)
}

/// The same with so many in the first call.
fn elements_by<K: Pod, V: Pod>(map: BorrowedFd<'_>, mut batch: usize) -> io::Result<Vec<(K, V)>> {
    let mut found = Vec::new();
    let (mut keys, mut values): (Vec<K>, Vec<V>) = (Vec::new(), Vec::new());
    // Where in the map the kernel is: a number of its own.
    let mut place = 0u32;
    let mut begins = true;
    loop {
        keys.reserve(batch);
        values.reserve(batch);
        let mut attributes = Batch {
            from: if begins { 0 } else { &raw const place as u64 },
            to: &raw mut place as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: batch as u32,
            map_fd: map.as_raw_fd() as u32,
            element_flags: 0,
            flags: 0,
        };
        let is_end =
            match call(MAP_LOOKUP_BATCH, &mut attributes).map_err(|error| (error.raw_os_error(), error)) {
                Ok(_) => false,
                Err((Some(libc::ENOENT), _)) => true,
                // The bucket at hand has more: buckets come whole, and that one is where the next call goes on.
                Err((Some(libc::ENOSPC), _)) if batch < ELEMENTS_MAX => {
                    batch *= 2;
                    false
                }
                Err((_, error)) => return Err(error),
            };
        let count = (attributes.count as usize).min(keys.capacity()).min(values.capacity());
        // SAFETY: both have room for so many, the kernel has written `count` of each, and any bytes are a value of theirs.
        unsafe {
            keys.set_len(count);
            values.set_len(count);
        }
        found.extend(keys.drain(..).zip(values.drain(..)));
        // More than the map can hold: it changes faster than it is read.
        if is_end || found.len() > ELEMENTS_MAX {
            return Ok(found);
        }
        begins = false;
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};

    use super::*;
    use crate::kernel::bpf::{MAP_CREATE, MAP_UPDATE_ELEM};

    const ENTRIES: u32 = 4_096;

    /// A map of the kernel's, full but for what it has forgotten already: it keeps some for each processor.
    fn full(kind: u32) -> OwnedFd {
        #[repr(C)]
        struct Create([u32; 5]);
        #[repr(C)]
        struct Update(u32, u32, u64, u64, u64);
        let fd =
            call(MAP_CREATE, &mut Create([kind, 8, 8, ENTRIES, 0])).expect("make a map (this needs root)");
        // SAFETY: a descriptor the kernel just made for us.
        let map = unsafe { OwnedFd::from_raw_fd(fd) };
        for key in 0..u64::from(ENTRIES) {
            let value = key * 3;
            let (at, what) = (&raw const key as u64, &raw const value as u64);
            call(MAP_UPDATE_ELEM, &mut Update(fd as u32, 0, at, what, 0)).expect("put an element");
        }
        map
    }

    /// `BPF_MAP_TYPE_HASH`, `BPF_MAP_TYPE_LRU_HASH`
    const KINDS: [u32; 2] = [1, 9];

    #[test]
    fn a_bucket_that_is_larger_than_a_batch_is_read_with_a_larger_one() {
        for kind in KINDS {
            let map = full(kind);
            // As many buckets as entries: some have four or more.
            for batch in [1, 2, 3, BATCH_ELEMENTS] {
                let mut read: Vec<(u64, u64)> = elements_by(map.as_fd(), batch).unwrap();
                read.sort_unstable();
                let all: Vec<(u64, u64)> = elements(map.as_fd()).unwrap();
                assert_eq!(read.len(), all.len(), "in batches of {batch}");
                assert!(
                    read.len() > ENTRIES as usize / 2 && read.iter().all(|(key, value)| *value == key * 3)
                );
                read.dedup();
                assert_eq!(read.len(), all.len(), "something twice in batches of {batch}");
            }
            if kind == KINDS[0] {
                assert_eq!(elements::<u64, u64>(map.as_fd()).unwrap().len(), ENTRIES as usize);
            }
        }
    }

    #[test]
    fn a_call_for_one_element_is_refused_by_the_kernel() {
        let map = full(KINDS[0]);
        let (mut place, mut keys, mut values) = (0u32, [0u64; 1], [0u64; 1]);
        let mut refused = false;
        for turn in 0..ENTRIES {
            let mut attributes = Batch {
                from: if turn == 0 { 0 } else { &raw const place as u64 },
                to: &raw mut place as u64,
                keys: keys.as_mut_ptr() as u64,
                values: values.as_mut_ptr() as u64,
                count: 1,
                map_fd: map.as_raw_fd() as u32,
                element_flags: 0,
                flags: 0,
            };
            let result = call(MAP_LOOKUP_BATCH, &mut attributes);
            refused |= result.is_err_and(|error| error.raw_os_error() == Some(libc::ENOSPC));
        }
        assert!(refused, "the test above tests nothing: no bucket has two elements");
    }
}
