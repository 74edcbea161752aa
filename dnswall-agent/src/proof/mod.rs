//! Proves that the wall stands, again and again: what watches it while it watches everything else.
//!
//! Two proofs, each with its facts read apart from what they mean. The canary tries what the policy forbids
//! (`image → canary::plan → attempt → canary::judge`, with [`arrival`] for the event's way back through the ring). The
//! watch compares what the kernel holds with what this agent put there (`kernel → facts → checks → Finding`). What they
//! found becomes alerts in [`teller`], and what `dnswall status` shows in [`record`]. Who mends, and when all this is
//! done, is the run room's.

pub mod arrival;
pub mod attempt;
pub mod canary;
pub mod checks;
pub mod facts;
pub mod finding;
pub mod home;
pub mod record;
pub mod teller;
pub mod tried;

pub use arrival::{Arrival, Claim};
pub use facts::Facts;
pub use finding::{Finding, Tamper};
pub use home::Home;
pub use record::Record;
pub use teller::Teller;
