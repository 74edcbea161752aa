//! Takes bytes from the ring, gives events, then enriched events: process and workload named.
//!
//! `ring → decode::decode → Event → Enricher::enrich → EnrichedEvent`. What the kernel recorded is never replaced by
//! what /proc says later, only added to: a process that is gone, or whose number now belongs to another one, keeps
//! what the kernel knew of it and nothing else.

pub mod ancestors;
pub mod cgroups;
pub mod clock;
pub mod decode;
pub mod dns;
pub mod enrich;
pub mod exe;
pub mod hash;
pub mod patience;
pub mod proc_dir;
pub mod process;
pub mod text;
pub mod user;
pub mod workload;

#[cfg(test)]
pub(crate) mod sample;

pub use ancestors::Parent;
pub use cgroups::Cgroups;
pub use clock::Clocks;
pub use decode::{DecodeError, DecodeFailures, decode, decode_question};
pub use enrich::{EnrichedEvent, Enricher, EventFlow, EventHook, Outcome, Roots, address, refused_key};
pub use exe::{ExeId, ExePaths};
pub use hash::{HashCell, HashCounters, Hashes};
pub use process::{Process, Processes};
pub use user::Users;
pub use workload::{Workload, Workloads};
