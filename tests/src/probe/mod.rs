//! What the `probe` binary does, one kind of traffic a file.

pub mod attempt;
pub mod dns;
pub mod hold;
pub mod icmp;
pub mod raw;
pub mod serve;
pub mod tcp;
pub mod udp;
pub mod uring;
