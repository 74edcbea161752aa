//! Measurements, apart from what prints them.

pub mod names;
pub mod peers;
