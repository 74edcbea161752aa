//! An array map as memory of the agent's: what is stored here, the programs read at once.

use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::ptr::NonNull;

use anyhow::{Context as _, Result, ensure};
use aya::Pod;
use aya::maps::MapData;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// An array map made with `BPF_F_MMAPABLE` (5.5).
pub struct Mapped<T> {
    start: NonNull<T>,
    entries: usize,
    bytes: usize,
    kind: PhantomData<T>,
}

// SAFETY: the mapping belongs to this value alone; all access goes through `&mut self`, or is a volatile read.
unsafe impl<T: Send> Send for Mapped<T> {}

impl<T: Pod> Mapped<T> {
    /// Maps an array.
    ///
    /// # Errors
    /// When the map's value is not a `T`, or the kernel refuses.
    pub fn new(map: &MapData, name: &str) -> Result<Self> {
        let info = map.info().with_context(|| format!("look at map {name}"))?;
        let (value_bytes, entries) = (info.value_size() as usize, info.max_entries() as usize);
        ensure!(
            value_bytes == size_of::<T>() && value_bytes.is_multiple_of(8),
            "map {name} holds {value_bytes} bytes a value, not {}",
            size_of::<T>()
        );
        let bytes = (value_bytes * entries).next_multiple_of(rustix::param::page_size());
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh shared mapping of the whole map, which stays as long as this value.
        let start =
            unsafe { mmap(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED, map.fd().as_fd(), 0) }
                .with_context(|| format!("map {name} into memory"))?;
        let start = NonNull::new(start.cast()).context("a mapping at address zero")?;
        Ok(Self { start, entries, bytes, kind: PhantomData })
    }

    /// Copies values to `first..`.
    ///
    /// # Panics
    /// When they do not fit: the caller has checked the capacity.
    pub fn write(&mut self, first: usize, values: &[T]) {
        assert!(first + values.len() <= self.entries, "the caller checks the capacity of a map");
        // SAFETY: inside the mapping, as just checked; `T` is plain data of the map's value size.
        unsafe {
            let to = self.start.as_ptr().add(first);
            std::ptr::copy_nonoverlapping(values.as_ptr(), to, values.len());
        }
    }

    /// Reads one value.
    pub fn read(&self, index: usize) -> Option<T> {
        if index >= self.entries {
            return None;
        }
        // SAFETY: inside the mapping; volatile, because the other side of the mapping may change.
        Some(unsafe { self.start.as_ptr().add(index).read_volatile() })
    }
}

/// The first word of one value of an array map, whatever else the value holds.
///
/// # Errors
/// When there is no such value, or the kernel refuses.
pub fn first_word(map: &MapData, name: &str, index: usize) -> Result<u64> {
    let info = map.info().with_context(|| format!("look at map {name}"))?;
    // Values of array maps are aligned to 8.
    let value_bytes = (info.value_size() as usize).next_multiple_of(8);
    ensure!(value_bytes >= 8 && index < info.max_entries() as usize, "map {name} has no value {index}");
    let bytes = (value_bytes * (index + 1)).next_multiple_of(rustix::param::page_size());
    // SAFETY: a fresh mapping of no more than the map's pages, which nothing else knows of.
    let start =
        unsafe { mmap(std::ptr::null_mut(), bytes, ProtFlags::READ, MapFlags::SHARED, map.fd().as_fd(), 0) }
            .with_context(|| format!("map {name} into memory"))?;
    // SAFETY: aligned, and inside the mapping; volatile, because the other side of it may change. Then nothing refers to
    // the mapping any more; failure would leave it mapped.
    unsafe {
        let word = start.cast::<u8>().add(value_bytes * index).cast::<u64>().read_volatile();
        let _ = munmap(start, bytes);
        Ok(word)
    }
}

impl<T: Pod + PartialEq> Mapped<T> {
    /// Whether `first..` holds these values.
    pub fn holds(&self, first: usize, values: &[T]) -> bool {
        (first..).zip(values).all(|(index, value)| self.read(index).as_ref() == Some(value))
    }
}

impl<T: Pod> Mapped<T> {
    /// Stores one 8-byte value with a single store, after everything written before.
    pub fn store_last(&mut self, index: usize, value: T) {
        assert!(size_of::<T>() == 8 && index < self.entries, "one aligned word inside the map");
        // SAFETY: any 8 bytes of plain data are a number.
        let word = unsafe { std::mem::transmute_copy::<T, u64>(&value) };
        // SAFETY: an aligned word inside the mapping; values of array maps are aligned to 8.
        let place =
            unsafe { std::sync::atomic::AtomicU64::from_ptr(self.start.as_ptr().add(index).cast::<u64>()) };
        place.store(word, std::sync::atomic::Ordering::SeqCst);
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, and nothing refers to it any more. Failure would leave it mapped.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
