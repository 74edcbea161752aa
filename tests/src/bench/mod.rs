//! Measurements, apart from what prints them.

pub mod follow;
pub mod names;
pub mod peers;
pub mod refusals;
pub mod spool;
