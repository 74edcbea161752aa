//! What the `probe` binary does, one kind of traffic a file.

pub mod attempt;
pub mod disguise;
pub mod dns;
pub mod forge;
pub mod hand;
pub mod hold;
pub mod icmp;
pub mod link;
pub mod load;
pub mod message;
pub mod option;
pub mod place;
pub mod raw;
pub mod serve;
pub mod silence;
pub mod storm;
pub mod tcp;
pub mod udp;
pub mod uring;
pub mod zone;

pub use place::take_place;
