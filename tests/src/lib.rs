//! Harness of the end-to-end tests: a wall around a cgroup of its own, a network of its own, and tables of traffic.

pub mod act;
pub mod agent;
mod by;
pub mod capture;
pub mod case;
pub mod check;
pub mod differ;
pub mod dig;
pub mod feature;
pub mod flow;
pub mod kept;
pub mod lab;
pub mod mounted;
pub mod pace;
pub mod place;
pub mod probe;
pub mod process;
pub mod resolver;
pub mod server;
pub mod soak;
pub mod tamper;
pub mod traffic;
pub mod trick;
pub mod wall;
pub mod who;
