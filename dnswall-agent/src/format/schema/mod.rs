//! Takes what a format wrote, gives everything that the published schema does not allow, for tests.

pub mod ecs;
pub mod ocsf;
