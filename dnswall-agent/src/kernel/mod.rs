//! The only room that talks BPF: takes a [`MapImage`](crate::compile::MapImage), gives a wall that stands, and what
//! the wall says of itself.
//!
//! One noun a file: [`wall`] raises, takes over and detaches; [`object`] is what is loaded; [`hook`] what is attached
//! and pinned; [`maps`] and [`mapped`] are the maps; [`publish`] writes an image and flips the generation;
//! [`counters`] and [`ring`] read back. [`btf`], [`cgroup`], [`bpffs`], [`executable`], [`lsm`] and [`grace`] are kernel
//! facts the others need. All `unsafe` of the agent is here.

pub mod bpffs;
pub mod btf;
mod btf_types;
pub mod cgroup;
pub mod counters;
pub mod executable;
mod grace;
pub mod hook;
pub mod lsm;
mod mapped;
pub mod maps;
pub mod object;
pub mod publish;
pub mod ring;
pub mod wall;

pub use cgroup::{Cgroup2Mount, find_cgroup2};
pub use executable::executable_identity;
pub use hook::HookInfo;
pub use maps::Maps;
pub use object::{object, object_digest};
pub use publish::PublishError;
pub use ring::Ring;
pub use wall::{Detached, Raised, Wall, WallError, WallOptions, detach, seed};
