//! What the kernel programs and the agent agree on.
//!
//! Everything here is `core` only, does no I/O, reads no clock and allocates nothing, so that the same code runs
//! inside the kernel, in host tests and behind `dnswall policy explain`.
//!
//! The rooms: [`limits`] bounds everything; [`packet`] turns header bytes into a [`flow::Flow`]; [`who`] is the set
//! of `from` entries a socket matches; [`search`] finds an interval among sorted starts; [`image`] is the compiled
//! policy as the kernel holds it; [`decide`] answers one flow; [`reason`] numbers the answers; [`socket`] is what is
//! remembered about a socket; [`quota`] what may be asked, and how often; [`unjudged`] names what no packet hook sees; [`event`] is what the kernel tells the
//! agent; [`counter`] what it counts.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(feature = "aya")]
mod aya_pod;
pub mod counter;
pub mod decide;
pub mod event;
pub mod flow;
pub mod identity;
pub mod image;
pub mod limits;
pub mod listed;
pub mod name;
pub mod named;
pub mod packet;
pub mod quota;
pub mod reason;
pub mod search;
pub mod socket;
pub mod unjudged;
pub mod verifier;
pub mod who;

/// Version of every layout in this crate. It names the pin directory (`/sys/fs/bpf/dnswall/v<ABI>`).
///
/// Bump it whenever the size, an offset or the meaning of a field of a shared struct changes, or a map changes its
/// type, key, value, size or flags. Numbers in [`reason`], [`counter`] and [`event`] are only ever added.
pub const ABI_VERSION: u32 = if cfg!(feature = "trial-abi") { ABI + TRIAL_ABI_OFFSET } else { ABI };

/// The version but for tests.
const ABI: u32 = 7;
/// What a build for tests of upgrades adds: to every other build its layouts are unknown, and it knows theirs.
pub const TRIAL_ABI_OFFSET: u32 = 100;
