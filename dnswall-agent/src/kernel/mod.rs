//! The only room that talks BPF: takes a [`MapImage`](crate::compile::MapImage), gives a wall that stands, and what
//! the wall says of itself.
//!
//! One noun a file: [`wall`] raises and detaches; [`object`] is what is loaded; [`hook`] what is attached; [`pins`] is
//! where, and [`link`] what is pinned there; [`takeover`] puts one build's programs in the place of another's,
//! [`crossing`] leads from one version of the layouts to another with what [`migrate`], [`open_sockets`] and [`adopt`]
//! find; [`maps`] and [`mapped`] are the maps; [`publish`] writes an image and flips the generation; [`counters`] and
//! [`ring`] read back, hash maps by their [`elements`], and sockets are asked about with their map; [`hold`] and [`verify`] look whether all of it is
//! still as it was made, and mend it. [`btf`], [`cgroup`], [`bpffs`], [`executable`], [`lsm`] and [`grace`] are kernel
//! facts the others need; [`fork`] makes a process for another cgroup; [`fault`] is for tests. All `unsafe` of the agent
//! is here.

mod adopt;
mod bpf;
pub mod bpffs;
pub mod btf;
mod btf_types;
pub mod cgroup;
pub mod counters;
mod crossing;
mod elements;
pub mod executable;
mod fault;
mod fork;
mod grace;
pub mod hold;
pub mod hook;
mod link;
mod listed;
pub mod lsm;
mod mapped;
pub mod maps;
pub mod memory;
mod migrate;
pub mod object;
mod open_sockets;
pub mod pins;
pub mod publish;
pub mod ring;
mod socket_map;
mod takeover;
mod unacknowledged;
mod verify;
pub mod wall;

pub use bpf::{LinkNow, ProgramNow};
pub use cgroup::{Cgroup2Mount, find_cgroup2};
pub use executable::{executable_identities, executable_identity};
pub use fork::Child;
pub use hold::{Hold, HookNow, MapNow, Mended, PlaceNow};
pub use maps::Maps;
pub use object::{object, object_digest, raise_memlock_limit};
pub use publish::PublishError;
pub use ring::Ring;
pub use socket_map::socket_map;
pub use unacknowledged::unacknowledged;
pub use wall::{Detached, Raised, Wall, WallError, WallOptions, detach, seed};
