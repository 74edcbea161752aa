//! Looks at the host, says what will and will not be enforced here.
//!
//! `/proc and /sys → Facts → Report`: [`facts`] reads, [`checks`] judges, [`report`] is what is shown and what
//! `dnswall agent run` refuses to start over.

pub mod checks;
pub mod facts;
pub mod mountinfo;
pub mod report;

use std::path::Path;

use crate::host::HostRoot;

pub use facts::Facts;
pub use report::{Check, Level, Report};

/// Looks at this host; `pins` is where walls are pinned, `host` where users and program files are looked up.
pub fn examine(pins: &Path, host: &HostRoot) -> Report {
    checks::judge(&Facts::read(pins, host))
}
