//! Takes what a format wrote, gives everything that the published schema does not allow, for tests.

#[cfg(test)]
pub mod ecs;
#[cfg(test)]
pub mod ocsf;
